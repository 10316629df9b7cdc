"""The table "what `exec` may do, and what follows", row by row."""

import asyncio
from dataclasses import dataclass
from typing import Any, cast

import pytest
from tests.engine.support import KeepingJournal, Receipt, Shop, make, run, until

from coordinator import (
    CommandDelayed,
    Coordinator,
    Refused,
    Retry,
    Workflow,
    WorkflowStuckError,
    current_step,
    values,
)
from coordinator.model import OutcomeStatus
from coordinator.records import Aborting, Accepted, Finished, Outcome
from coordinator.runs import Submission


@dataclass
class Order:
    """Three steps, two of them with an undo."""

    id: str = "o-1"

    async def exec(self, workflow: Workflow, shop: Shop) -> list[int]:
        held = await workflow.step(shop.inventory.do, 1).undo(shop.inventory.undo)
        paid = await workflow.step(shop.payments.do, 2).undo(shop.payments.undo)
        sent = await workflow.step(shop.shipping.do, 3)
        return [held.number, paid.number, sent.number]


@dataclass
class Keyed:
    """One step, under a key."""

    def key(self) -> str:
        return "k"

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        return (await workflow.step(shop.inventory.do)).service


class Declined(Refused):
    """A refusal of the user's own, with an attribute."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason, {"code": code})
        self.code = code


def test_what_completes_is_a_record_for_each_step_and_one_at_either_end() -> None:
    journal = KeepingJournal()

    async def main() -> list[int]:
        async with make(Shop(), Order, journal=journal) as coordinator:
            return await coordinator.execute(Order())

    assert run(main()) == [0, 0, 0]
    kinds = [type(record) for record in journal.records]
    assert kinds == [Accepted, Outcome, Outcome, Outcome, Finished]


def test_steps_are_called_in_order_each_under_a_key_of_its_own() -> None:
    shop = Shop()
    journal = KeepingJournal()

    async def main() -> None:
        async with make(shop, Order, journal=journal) as coordinator:
            await coordinator.execute(Order())

    run(main())
    assert shop.world == ["do inventory 1", "do payments 2", "do shipping 3"]
    assert shop.inventory.calls == ["j/0-1/inventory.do/0"]
    assert shop.shipping.calls == ["j/0-1/shipping.do/0"]


def test_a_refusal_undoes_what_was_done_last_first_and_reaches_the_client() -> None:
    shop = Shop()
    shop.shipping.script = [Declined("no such street", 7)]
    journal = KeepingJournal()

    async def main() -> None:
        async with make(shop, Order, journal=journal) as coordinator:
            with pytest.raises(Declined, match="no such street") as caught:
                await coordinator.execute(Order())
            assert caught.value.code == 7
            assert caught.value.details == {"code": 7}

    run(main())
    assert shop.world[2:] == ["undo payments", "undo inventory"]
    assert shop.payments.calls[-1] == "j/0-1/payments.do/0/undo"
    written = journal.records
    aborting = next(i for i, r in enumerate(written) if isinstance(r, Aborting))
    undos = [i for i, r in enumerate(written) if isinstance(r, Outcome) and r.direction]
    assert len(undos) == 2
    assert aborting < min(undos)


@dataclass
class Careful:
    """Takes an alternative when a service refuses."""

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        await workflow.step(shop.inventory.do).undo(shop.inventory.undo)
        try:
            await workflow.step(shop.payments.do)
        except Refused as refusal:
            other = await workflow.step(shop.shipping.do)
            return f"{refusal.reason}, so {other.service}"
        return "paid"


def test_a_refusal_that_exec_catches_is_an_outcome_like_any_other() -> None:
    shop = Shop()
    shop.payments.script = [Refused("no credit")]
    # Delayed behind the refusal, so that the refusal is replayed from the journal.
    shop.shipping.script = [CommandDelayed("busy")]

    async def main() -> str:
        async with make(shop, Careful) as coordinator:
            return await coordinator.execute(Careful())

    assert run(main()) == "no credit, so shipping"
    assert len(shop.payments.calls) == 1
    assert shop.world == ["do inventory 0", "do shipping 0"]


@pytest.mark.parametrize(
    "unknown",
    [
        CommandDelayed("busy"),
        TimeoutError(),
        ConnectionResetError("peer"),
        ValueError("what is this?"),
        SystemExit(3),
        asyncio.CancelledError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_when_nobody_knows_the_step_is_asked_again_under_the_same_key(
    unknown: BaseException,
) -> None:
    shop = Shop()
    shop.payments.script = [unknown, unknown]

    async def main() -> list[int]:
        async with make(shop, Order) as coordinator:
            return await coordinator.execute(Order())

    assert run(main()) == [0, 0, 0]
    assert len(shop.payments.calls) == 3
    assert len(set(shop.payments.calls)) == 1
    assert len(shop.inventory.calls) == 1  # replayed, not called again


def test_a_step_without_an_answer_is_given_up_and_asked_again() -> None:
    shop = Shop()
    shop.payments.script = [1e6]

    async def main() -> None:
        async with make(shop, Order, step_timeout_s=5.0) as coordinator:
            await coordinator.execute(Order())

    run(main())
    assert len(shop.payments.calls) == 2


@dataclass
class Swallower:
    """Swallows what a step raises."""

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        try:
            await workflow.step(shop.payments.do)
        except Exception:  # noqa: BLE001 -- what this command is about
            await workflow.step(shop.shipping.do)
        return "done"


def test_a_swallowed_delay_still_ends_the_run() -> None:
    shop = Shop()
    shop.payments.script = [CommandDelayed("busy")]

    async def main() -> str:
        async with make(shop, Swallower) as coordinator:
            return await coordinator.execute(Swallower())

    assert run(main()) == "done"
    assert shop.world == ["do payments 0"]  # shipping was never called


def test_an_unexpected_exception_ends_stuck_after_the_attempts_allowed() -> None:
    shop = Shop()
    shop.payments.script = [ValueError("odd")] * 3

    async def main() -> None:
        retry = Retry(attempts_max=3)
        async with make(shop, Order, retry=retry) as coordinator:
            handle = await coordinator.submit(Order())
            with pytest.raises(WorkflowStuckError, match="failed 3 times") as caught:
                await handle.result()
            assert "ValueError: odd" in caught.value.reason
            await coordinator.retry(handle.id, by="test")
            assert await handle.result() == [0, 0, 0]

    run(main())
    assert len(set(shop.payments.calls)) == 1


def test_delays_are_limited_only_where_a_policy_says_so() -> None:
    shop = Shop()
    shop.payments.script = [CommandDelayed("busy")] * 4

    async def main() -> None:
        async with make(shop, Order, retry=Retry(delays_max=4)) as coordinator:
            with pytest.raises(WorkflowStuckError, match=r"\.do failed 4 times"):
                await coordinator.execute(Order())

    run(main())


@dataclass
class Buggy:
    """Has a bug behind its first step."""

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        await workflow.step(shop.inventory.do).undo(shop.inventory.undo)
        return int("not a number")


def test_a_bug_in_exec_is_stuck_at_once_with_its_traceback_and_undoes_nothing() -> None:
    shop = Shop()

    async def main() -> None:
        async with make(shop, Buggy) as coordinator:
            handle = await coordinator.submit(Buggy())
            with pytest.raises(WorkflowStuckError) as caught:
                await handle.result()
            assert 'int("not a number")' in caught.value.reason
            assert coordinator.workflow(handle.id).status == "stuck"

    run(main())
    assert shop.world == ["do inventory 0"]


@dataclass
class Quitter:
    """Raises what would end a task or the process."""

    what: str

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        await workflow.step(shop.inventory.do)
        raise {"cancel": asyncio.CancelledError, "exit": SystemExit}[self.what]


@pytest.mark.parametrize("what", ["cancel", "exit"])
def test_what_user_code_raises_never_stops_the_coordinator(what: str) -> None:
    async def main() -> None:
        async with make(Shop(), Quitter, Order) as coordinator:
            with pytest.raises(WorkflowStuckError):
                await coordinator.execute(Quitter(what))
            assert await coordinator.execute(Order()) == [1, 0, 0]

    run(main())


@dataclass
class Watched:
    """Leaves a watchdog that cancels its task when `exec` is over."""

    end: str

    def key(self) -> str:
        return "k"

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        await workflow.step(shop.inventory.do).undo(shop.inventory.undo)
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().call_soon(task.cancel)
        if self.end == "stuck":
            raise ValueError("a bug")
        if self.end == "refused":
            raise Refused("no")
        return "done"


@pytest.mark.parametrize("end", ["done", "stuck", "refused"])
def test_a_cancel_that_comes_after_exec_takes_the_answer_from_nobody(end: str) -> None:
    async def outcome(coordinator: Coordinator[Shop]) -> str:
        async with asyncio.timeout(3600):
            try:
                return await coordinator.execute(Watched(end))
            except WorkflowStuckError:
                return "stuck"
            except Refused:
                return "refused"

    async def main() -> None:
        async with make(Shop(), Watched) as coordinator:
            for _ in range(2):
                assert await outcome(coordinator) == end
            assert len(coordinator.workflows()) == (end == "stuck")
            assert coordinator.engine.admission.count == 0

    run(main())


class Deaf:
    """A caller who raises whatever it is told."""

    gone = False

    def accepted(self, workflow_id: str) -> None:
        raise ValueError(workflow_id)

    def ended(self, outcome: object) -> None:
        raise ValueError(outcome)

    def refused(self, error: Exception) -> None:
        raise error

    def forget(self) -> None:
        raise ValueError


def test_a_caller_who_raises_keeps_no_answer_from_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shop = Shop()
    shop.inventory.script = [5.0]

    async def main() -> None:
        async with make(shop, Keyed, commands_max=2) as coordinator:
            offer = coordinator.engine.entrance.offer
            submission = Submission("Keyed", "msgpack", values.encode(Keyed()), "k")
            offer(submission, Deaf())
            handle = await coordinator.submit(Keyed())
            assert await handle.result() == "inventory"
            offer(submission, Deaf())  # it has ended
            assert len(coordinator.workflows()) == 0

    run(main())
    told = [record for record in caplog.records if record.exc_info]
    assert len(told) == 4


def test_cancelling_the_client_does_not_cancel_the_workflow() -> None:
    shop = Shop()
    shop.payments.script = [10.0]

    async def main() -> None:
        async with make(shop, Order) as coordinator:
            client = asyncio.get_running_loop().create_task(
                coordinator.execute(Order())
            )
            await until(lambda: shop.payments.calls)
            client.cancel()
            await until(lambda: not coordinator.workflows())

    run(main())
    assert len(shop.world) == 3


@dataclass
class Plain:
    """Calls plain functions, which run in threads."""

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        return await workflow.step(plain_step, "a", b="b").undo(print)


def plain_step(a: str, *, b: str) -> str:
    """Return its arguments and its key's end."""
    return f"{a}{b} {current_step().idempotency_key.split('/', 2)[2]}"


def test_a_plain_function_runs_in_a_thread_and_knows_its_step() -> None:
    async def main() -> str:
        async with make(Shop(), Plain) as coordinator:
            return await coordinator.execute(Plain())

    assert run(main()) == "ab plain_step/0"


@dataclass
class Primitive:
    """Uses the two primitives below steps."""

    async def exec(self, workflow: Workflow, shop: Shop) -> list[Any]:
        if not workflow.outcomes:
            await workflow.append_outcome("notes", {"n": 1})
        await workflow.step(shop.payments.do)
        if len(workflow.outcomes) < 3:
            await workflow.append_outcome("notes", [2])
        return [
            (o.service, o.occurrence, o.status, o.value)
            for o in workflow.outcomes
            if o.status is OutcomeStatus.NOTED
        ]


def test_outcomes_can_be_appended_and_read_directly() -> None:
    shop = Shop()
    shop.payments.script = [CommandDelayed("busy")]

    async def main() -> list[Any]:
        async with make(shop, Primitive) as coordinator:
            return await coordinator.execute(Primitive())

    assert run(main()) == [["notes", 0, 2, {"n": 1}], ["notes", 1, 2, [2]]]


@dataclass
class Loop:
    """Asks for steps of one name one after the other."""

    async def exec(self, workflow: Workflow, shop: Shop) -> list[Receipt]:
        return [await workflow.step(shop.payments.do, n) for n in range(3)]


def test_steps_of_one_name_are_told_apart_by_their_occurrence() -> None:
    shop = Shop()
    shop.payments.script = [0.0, CommandDelayed("busy")]

    async def main() -> None:
        async with make(shop, Loop) as coordinator:
            receipts = await coordinator.execute(Loop())
            assert [receipt.number for receipt in receipts] == [0, 1, 2]

    run(main())
    ends = [key.rsplit("/", 1)[1] for key in shop.payments.calls]
    assert ends == ["0", "1", "1", "2"]


@dataclass
class Unstorable:
    """Calls a function whose value can't be stored."""

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(gives_object)


async def gives_object() -> object:
    """Return what no journal can hold."""
    return object()


def test_an_outcome_that_cannot_be_stored_is_stuck_and_names_step_and_type() -> None:
    async def main() -> None:
        async with make(Shop(), Unstorable) as coordinator:
            with pytest.raises(WorkflowStuckError, match="gives_object: object can't"):
                await coordinator.execute(Unstorable())

    run(main())


@dataclass
class Undeclared:
    """Returns something else than it declares."""

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        return cast("int", "text")  # a lie, which is what is tested


def test_a_result_that_does_not_fit_its_type_is_stuck() -> None:
    async def main() -> None:
        async with make(Shop(), Undeclared) as coordinator:
            with pytest.raises(WorkflowStuckError, match="the result: str"):
                await coordinator.execute(Undeclared())

    run(main())


@dataclass
class Forgetful:
    """Makes a step and forgets to await it."""

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        await workflow.step(shop.inventory.do)
        workflow.step(shop.payments.do).undo(shop.payments.undo)
        return "paid"


@dataclass
class Hasty:
    """Calls the service itself, and makes a step of what it returns."""

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        coroutine: Any = shop.payments.do()
        try:
            await workflow.step(coroutine)
        finally:
            coroutine.close()


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (Forgetful, r"made payments\.do with workflow\.step\(\) and never awaited it"),
        (Hasty, r"can't be a step, it can't be called: pass the function"),
    ],
)
def test_a_step_that_is_not_awaited_or_not_a_function_is_never_taken_for_done(
    command: type[Any], says: str
) -> None:
    shop = Shop()

    async def main() -> None:
        async with make(shop, command) as coordinator:
            with pytest.raises(WorkflowStuckError, match=says):
                await coordinator.execute(command())

    run(main())
    assert shop.payments.calls == []
