"""When delayed workflows run again, second by second of virtual time."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from tests.engine.support import run

from coordinator.admission import Admission
from coordinator.errors import CommandBlocked, CommandDelayed
from coordinator.model import Position, Retry, WorkflowId
from coordinator.records import Accepted, Outcome
from coordinator.runs import Run
from coordinator.saga import Unknown
from coordinator.schedule import STARTS_PER_TURN, Schedule
from coordinator.state import WorkflowState

RETRY = Retry(first_s=1.0, factor=2.0, longest_s=10.0, jitter=0.2)
FAST_S = 1.0 * 0.2 * 0.5


class Even:
    """A chance that draws the middle: slow intervals have no jitter."""

    def random(self) -> float:
        return 0.5


def workflow(number: int) -> Run:
    state = WorkflowState(
        id=WorkflowId(f"0-{number}"),
        position=Position(number),
        accepted=Accepted("Order", "json", b"{}", 1),
        first=Position(number),
    )
    return Run(cast("Any", None), state)  # what it is written to is not asked here


def learn(run_: Run, step: str) -> None:
    """Record an outcome: the run got further than the one before."""
    run_.state.apply(Outcome(run_.state.position, step, 0, b"\x01", 1))


def delayed(
    world: "World", run_: Run, *causes: BaseException, retry: Retry = RETRY
) -> None:
    """Put *run_* down, which left one step unknown for each of *causes*."""
    unknown = [Unknown(f"step {number}", c, retry) for number, c in enumerate(causes)]
    world.schedule.delayed(run_, unknown)


class World:
    """A schedule, what it started and when, and how many may run."""

    def __init__(self, *, probes: int = 2, room: int = 1_000) -> None:
        self.loop = asyncio.get_running_loop()
        self.admission = Admission(1_000, probes, RETRY.first_s)
        self.room = room
        self.started: list[tuple[str, float]] = []
        self.seen = 0
        self.schedule = Schedule(
            self.loop,
            self.admission,
            RETRY,
            Even(),
            may_start=lambda: self.room > 0,
            start=self.start,
        )

    def start(self, run_: Run) -> None:
        self.room -= 1
        self.started.append((run_.state.id, round(self.loop.time(), 3)))

    def ended(self, run_: Run) -> None:
        """Give back the room, and the tries, of a run that is over."""
        self.room += 1
        self.schedule.tried(run_, ended=False)

    def due_in_s(self, run_: Run) -> float | None:
        """Return when *run_* is due, without the turns of the loop meanwhile."""
        due_in_s = self.schedule.due_in_s(run_)
        return None if due_in_s is None else round(due_in_s, 3)

    def names(self) -> list[str]:
        return [name for name, _ in self.started]


def in_world(
    work: Callable[[World], Awaitable[None]], *, probes: int = 2, room: int = 1_000
) -> None:
    async def main() -> None:
        world = World(probes=probes, room=room)
        await work(world)
        world.schedule.stop()

    run(main())


def close_to(started: list[tuple[str, float]]) -> list[tuple[str, Any]]:
    return [(name, pytest.approx(at_s, abs=0.005)) for name, at_s in started]


# Due times.


def test_what_is_due_soon_starts_in_the_next_turn() -> None:
    async def work(world: World) -> None:
        one = workflow(1)
        world.schedule.soon(one)
        assert one in world.schedule
        assert world.started == []
        await asyncio.sleep(0.01)
        assert world.names() == ["0-1"]
        assert one not in world.schedule
        assert len(world.schedule) == 0

    in_world(work)


def test_each_delay_without_progress_is_longer_up_to_the_longest() -> None:
    async def work(world: World) -> None:
        one = workflow(1)
        waits: list[float | None] = []
        for _ in range(6):
            delayed(world, one, CommandDelayed("no answer"))
            waits.append(world.due_in_s(one))
        assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
        assert one.delays == 6

    in_world(work)


def test_a_run_that_got_further_begins_with_the_first_interval_again() -> None:
    async def work(world: World) -> None:
        one = workflow(1)
        for _ in range(3):
            delayed(world, one, CommandDelayed("no answer"))
        learn(one, "a.b")
        delayed(world, one, CommandDelayed("no answer"))
        assert world.due_in_s(one) == 1.0
        assert one.delays == 1
        delayed(world, one, CommandDelayed("no answer"))
        assert world.due_in_s(one) == 2.0

    in_world(work)


def test_the_policy_of_the_step_that_failed_decides() -> None:
    async def work(world: World) -> None:
        one = workflow(1)
        policy = Retry(first_s=7, longest_s=7, jitter=0)
        delayed(world, one, ValueError("a bug"), retry=policy)
        assert world.due_in_s(one) == 7.0

    in_world(work)


@pytest.mark.parametrize(("asked_s", "wait_s"), [(5.0, 5.0), (0.5, 1.0), (1e6, 1e6)])
def test_a_service_that_says_when_is_not_asked_earlier(
    asked_s: float, wait_s: float
) -> None:
    async def work(world: World) -> None:
        one = workflow(1)
        cause = CommandDelayed("busy", retry_after_s=asked_s)
        delayed(world, one, cause)
        assert world.due_in_s(one) == wait_s

    in_world(work)


def test_later_is_after_the_interval_of_the_delays_so_far() -> None:
    async def work(world: World) -> None:
        one = workflow(1)
        waits: list[float | None] = []
        for delays in (0, 1, 2, 3):
            one.delays = delays
            world.schedule.later(one, RETRY)
            waits.append(world.due_in_s(one))
        assert waits == [1.0, 1.0, 2.0, 4.0]
        assert one.delays == 3

    in_world(work)


def test_they_start_when_they_are_due_whatever_the_order_they_came_in() -> None:
    async def work(world: World) -> None:
        for number, wait_s in ((1, 4.0), (2, 2.0), (3, 6.0), (4, 2.0)):
            policy = Retry(first_s=wait_s, longest_s=wait_s, jitter=0)
            world.schedule.later(workflow(number), policy)
        await asyncio.sleep(10)
        expected = [("0-2", 2.0), ("0-4", 2.0), ("0-1", 4.0), ("0-3", 6.0)]
        assert world.started == close_to(expected)

    in_world(work)


def test_what_is_not_delayed_is_not_due() -> None:
    async def work(world: World) -> None:
        one = workflow(1)
        assert world.due_in_s(one) is None
        world.schedule.later(one, RETRY)
        assert len(world.schedule) == 1
        await asyncio.sleep(0.25)
        assert world.due_in_s(one) == pytest.approx(0.75)
        world.schedule.remove(one)
        assert world.due_in_s(one) is None
        await asyncio.sleep(10)
        assert world.started == []

    in_world(work)


def test_what_is_overdue_is_due_now_and_not_in_the_past() -> None:
    async def work(world: World) -> None:
        one = workflow(1)
        world.schedule.soon(one)
        await asyncio.sleep(5)
        assert world.due_in_s(one) == 0.0

    in_world(work, room=0)


def test_a_timer_that_was_set_for_another_wakes_and_sets_the_next() -> None:
    async def work(world: World) -> None:
        one, two = workflow(1), workflow(2)
        world.schedule.soon(one)
        world.schedule.remove(one)
        world.schedule.later(two, RETRY)
        await asyncio.sleep(3)
        assert world.started == close_to([("0-2", 1.0)])

    in_world(work)


# Room.


def test_when_as_many_run_as_may_the_rest_wait_in_order() -> None:
    async def work(world: World) -> None:
        runs = [workflow(number) for number in range(4)]
        for one in runs:
            world.schedule.soon(one)
        await asyncio.sleep(0.5)
        assert world.names() == ["0-0", "0-1"]
        assert len(world.schedule) == 2
        world.ended(runs[0])
        await asyncio.sleep(3)
        assert world.names() == ["0-0", "0-1", "0-2"]
        world.ended(runs[1])
        await asyncio.sleep(3)
        assert world.names() == ["0-0", "0-1", "0-2", "0-3"]

    in_world(work, room=2)


def test_who_waits_for_room_is_looked_for_after_the_first_interval() -> None:
    async def work(world: World) -> None:
        world.schedule.soon(workflow(1))
        await asyncio.sleep(0.5)
        world.room = 1
        await asyncio.sleep(5)
        assert world.started == close_to([("0-1", 1.0)])

    in_world(work, room=0)


def test_stopped_it_starts_nothing_more() -> None:
    async def work(world: World) -> None:
        world.schedule.stop()  # before any timer was set
        one, two = workflow(1), workflow(2)
        world.schedule.soon(one)
        await asyncio.sleep(10)
        other = World()
        other.schedule.later(two, RETRY)
        other.schedule.stop()
        other.schedule.soon(one)
        await asyncio.sleep(10)
        assert world.started == other.started == []
        assert len(other.schedule) == 2

    in_world(work)


# Suspended services.


def blocked(world: World, count: int) -> list[Run]:
    """Let *count* workflows find payments blocked."""
    runs = [workflow(number) for number in range(count)]
    for one in runs:
        delayed(world, one, CommandBlocked("payments"))
    return runs


def test_a_blocked_workflow_suspends_the_service_and_tries_again_slowly() -> None:
    async def work(world: World) -> None:
        (one,) = blocked(world, 1)
        suspension = world.admission.suspensions["payments"]
        assert list(suspension.waiting) == [one]
        await asyncio.sleep(5)
        assert world.started == close_to([("0-0", 1.0)])
        assert suspension.trying == {one}

    in_world(work)


def test_of_several_that_failed_the_one_that_waits_longest_decides() -> None:
    async def work(world: World) -> None:
        one = workflow(1)
        long = Retry(first_s=5, jitter=0)
        causes = [CommandDelayed("no answer"), CommandDelayed("busy", 3.0)]
        unknown = [Unknown("a.b", cause, RETRY) for cause in causes]
        world.schedule.delayed(one, unknown)
        assert world.due_in_s(one) == 3.0
        world.schedule.delayed(one, [Unknown("c.d", causes[0], long), *unknown])
        assert world.due_in_s(one) == 10.0

    in_world(work)


@pytest.mark.parametrize("blocked_first", [True, False])
def test_what_failed_beside_a_block_waits_its_time_without_a_try(
    blocked_first: bool,
) -> None:
    async def work(world: World) -> None:
        one, other = workflow(1), workflow(2)
        causes = [CommandBlocked("payments"), CommandDelayed("busy", 5.0)]
        delayed(world, one, *(causes if blocked_first else reversed(causes)))
        delayed(world, other, CommandBlocked("payments"))
        suspension = world.admission.suspensions["payments"]
        assert list(suspension.waiting) == [one, other]
        await asyncio.sleep(1.1)
        assert world.names() == ["0-2"]
        world.schedule.passed(other, "payments")
        assert world.due_in_s(one) == 3.9
        assert suspension.trying == set()
        await asyncio.sleep(5)
        assert world.started == close_to([("0-2", 1.0), ("0-1", 5.0)])

    in_world(work)


def test_what_failed_beside_a_block_once_is_not_waited_for_again() -> None:
    async def work(world: World) -> None:
        one, other = workflow(1), workflow(2)
        delayed(world, other, CommandBlocked("payments"))
        delayed(world, one, CommandBlocked("payments"), CommandDelayed("busy", 60.0))
        delayed(world, one, CommandBlocked("payments"))
        world.schedule.passed(other, "payments")
        assert world.due_in_s(one) == FAST_S

    in_world(work)


def test_a_workflow_that_is_delayed_for_another_reason_waits_for_it_no_longer() -> None:
    async def work(world: World) -> None:
        (one,) = blocked(world, 1)
        delayed(world, one, CommandDelayed("no answer"))
        assert world.admission.suspensions == {}

    in_world(work)


def test_while_no_try_is_left_the_others_are_parked() -> None:
    async def work(world: World) -> None:
        runs = blocked(world, 4)
        await asyncio.sleep(1.5)
        assert world.names() == ["0-0", "0-1"]
        assert world.due_in_s(runs[2]) == 0.0
        assert runs[2] in world.schedule
        assert len(world.schedule) == 0
        await asyncio.sleep(10)
        assert world.names() == ["0-0", "0-1"]
        world.ended(runs[0])
        await asyncio.sleep(1.1)
        assert world.names() == ["0-0", "0-1", "0-2"]

    in_world(work)


def test_the_first_that_gets_through_makes_the_others_due_fast() -> None:
    async def work(world: World) -> None:
        runs = blocked(world, 3)
        stranger = workflow(7)
        world.schedule.later(stranger, Retry(first_s=9, longest_s=9, jitter=0))
        await asyncio.sleep(0.5)
        world.schedule.passed(runs[0], "payments")
        assert list(world.admission.suspensions["payments"].waiting) == runs[1:]
        for one in runs[1:]:
            assert world.due_in_s(one) == pytest.approx(FAST_S)
        assert world.due_in_s(stranger) == pytest.approx(8.5)
        await asyncio.sleep(0.4)
        assert [name for name in world.names() if name != "0-0"] == ["0-1", "0-2"]

    in_world(work)


def test_the_second_that_gets_through_changes_no_due_time() -> None:
    async def work(world: World) -> None:
        runs = blocked(world, 3)
        world.schedule.passed(runs[0], "payments")
        delayed(world, runs[2], CommandDelayed("no answer"))
        world.admission.blocked("payments", runs[2])
        world.admission.suspensions["payments"].answering = True
        before = world.due_in_s(runs[2])
        world.schedule.passed(runs[1], "payments")
        assert world.due_in_s(runs[2]) == before

    in_world(work)


def test_who_is_trying_at_present_is_not_due_again() -> None:
    async def work(world: World) -> None:
        runs = blocked(world, 2)
        await asyncio.sleep(1.5)
        assert world.names() == ["0-0", "0-1"]
        world.schedule.passed(runs[0], "payments")
        assert len(world.schedule) == 0
        await asyncio.sleep(5)
        assert world.names() == ["0-0", "0-1"]

    in_world(work)


def test_a_queue_behind_a_service_that_is_back_is_let_in_step_by_step() -> None:
    async def work(world: World) -> None:
        runs = blocked(world, 20)
        await asyncio.sleep(1.05)
        assert world.names() == ["0-0", "0-1"]
        world.schedule.passed(runs[0], "payments")
        world.ended(runs[0])
        await asyncio.sleep(FAST_S + 0.01)
        # Four may try now, one of the first two still does.
        assert len(world.started) == 2 + 3
        assert world.due_in_s(runs[19]) == 0.0
        while (suspension := world.admission.suspensions.get("payments")) is not None:
            one = next(iter(suspension.trying))
            assert isinstance(one, Run)
            world.schedule.passed(one, "payments")
            world.ended(one)
            await asyncio.sleep(2 * FAST_S)
        assert len(world.started) == 20

    in_world(work)


def test_a_service_that_fails_fast_is_asked_seldom_however_many_wait() -> None:
    async def work(world: World) -> None:
        runs = {str(run.state.id): run for run in blocked(world, 100)}
        await asyncio.sleep(0.9)
        for _ in range(200):
            await asyncio.sleep(0.05)
            while len(world.started) > world.seen:
                one = runs[world.started[world.seen][0]]
                world.seen += 1
                delayed(world, one, CommandBlocked("payments"))
                world.ended(one)
        # Two in each second, in the order in which they came.
        assert world.names() == [f"0-{number}" for number in range(20)]

    in_world(work)


def test_an_operator_takes_a_parked_one_out_without_a_try() -> None:
    async def work(world: World) -> None:
        runs = blocked(world, 3)
        await asyncio.sleep(1.5)
        world.schedule.remove(runs[2])
        assert runs[2] not in world.schedule
        world.ended(runs[0])
        await asyncio.sleep(5)
        assert world.names() == ["0-0", "0-1"]

    in_world(work)


def test_what_is_due_at_once_starts_a_part_in_each_turn() -> None:
    async def work(world: World) -> None:
        count = 2 * STARTS_PER_TURN + 1
        for number in range(count):
            world.schedule.soon(workflow(number))
        seen: list[int] = []
        while len(world.started) < count:
            await asyncio.sleep(0)
            seen.append(len(world.started))
        assert {STARTS_PER_TURN, 2 * STARTS_PER_TURN} < set(seen)

    in_world(work)


def test_the_last_that_gets_through_opens_the_doors() -> None:
    async def work(world: World) -> None:
        (one,) = blocked(world, 1)
        world.schedule.passed(one, "payments")
        assert world.admission.suspensions == {}

    in_world(work)


def test_a_suspension_is_told_once_when_it_begins_and_once_when_it_ends(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(world: World) -> None:
        runs = blocked(world, 2)
        delayed(world, runs[1], CommandBlocked("mail"))
        begun = [
            f"service {name} is suspended: new commands that need it wait"
            for name in ("payments", "mail")
        ]
        assert caplog.messages == begun
        world.schedule.passed(runs[1], "mail")
        world.schedule.passed(runs[0], "payments")
        world.schedule.tried(runs[1], ended=True)
        ended = [f"service {name} answers again" for name in ("mail", "payments")]
        assert caplog.messages == begun + ended

    with caplog.at_level(logging.WARNING):
        in_world(work)
