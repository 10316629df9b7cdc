"""A call that may have been made is asked for again before anything is decided.

The code in here is what users write, and it does not behave the same in every run: what
it awaits besides its steps takes another time, or the clock decides which way it takes.
"""

import asyncio
from dataclasses import dataclass, field
from typing import TypeAlias

import pytest
from tests.engine.support import (
    KeepingJournal,
    Receipt,
    Service,
    Shop,
    make,
    run,
    until,
)

from coordinator import (
    CommandDelayed,
    Refused,
    Retry,
    Workflow,
    WorkflowCancelledError,
    WorkflowStuckError,
)
from coordinator.batch import Batch
from coordinator.journals.memory import MemoryPartition
from coordinator.records import Finished, Outcome, Started, encode_record


@dataclass
class Lossy(Service):
    """Does it, and loses its first replies."""

    losses: int = 1

    async def do(self, amount: int = 0) -> Receipt:
        receipt = await super().do(amount)
        if self.losses:
            self.losses -= 1
            raise ConnectionResetError("reply lost")
        return receipt


@dataclass
class Busy:
    """Something besides steps that takes time, another one in each run."""

    pauses: dict[str, list[float]] = field(default_factory=dict[str, list[float]])

    async def wait(self, name: str) -> None:
        pauses = self.pauses.get(name)
        await asyncio.sleep(pauses.pop(0) if pauses else 0.0)


class BusyShop(Shop):
    """A shop whose inventory loses its first reply."""

    def __init__(self, **pauses: list[float]) -> None:
        super().__init__()
        self.inventory = self.lossy = Lossy("inventory", world=self.world)
        self.busy = Busy(pauses)


async def pay(workflow: Workflow, shop: BusyShop) -> None:
    await shop.busy.wait("pay")
    await workflow.step(shop.payments.do).undo(shop.payments.undo)


async def hold(workflow: Workflow, shop: BusyShop) -> None:
    await shop.busy.wait("hold")
    await workflow.step(shop.inventory.do).undo(shop.inventory.undo)


@dataclass
class Grouped:
    """Two branches in tasks of their own."""

    async def exec(self, workflow: Workflow, shop: BusyShop) -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(pay(workflow, shop))
            group.create_task(hold(workflow, shop))
        return "done"


@dataclass
class Forked:
    """One branch in a task of its own, the other one in that of `exec`."""

    async def exec(self, workflow: Workflow, shop: BusyShop) -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(pay(workflow, shop))
            await hold(workflow, shop)
        return "done"


@dataclass
class Racing:
    """The first of two wins; it then refuses by itself."""

    async def exec(self, workflow: Workflow, shop: BusyShop) -> str:
        loop = asyncio.get_running_loop()
        tasks = [
            loop.create_task(pay(workflow, shop)),
            loop.create_task(hold(workflow, shop)),
        ]
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        for task in done:
            task.result()
        raise Refused("not the one")


Shape: TypeAlias = Grouped | Forked | Racing
SHAPES: list[type[Shape]] = [Grouped, Forked, Racing]


def by_name(value: object) -> str:
    return getattr(value, "__name__", str(value))


def refusing() -> BusyShop:
    """In the first run the inventory is called, and its reply lost, before the payment
    begins; in the second one the payment comes first, and is refused."""
    shop = BusyShop(pay=[1.0, 0.0], hold=[0.0, 5.0])
    shop.payments.script = [(2.0, Refused("no"))]
    return shop


@pytest.mark.parametrize("shape", SHAPES, ids=by_name)
def test_what_ended_unknown_is_asked_for_again_before_a_refusal_turns_back(
    shape: type[Shape],
) -> None:
    shop = refusing()

    async def main() -> None:
        async with make(shop, shape) as coordinator:
            with pytest.raises(Refused):
                await coordinator.execute(shape())

    run(main())
    assert shop.world == ["do inventory 0", "undo inventory"]
    do, again, undo = shop.inventory.calls
    assert (do, undo) == (again, f"{do}/undo")


@pytest.mark.parametrize("shape", SHAPES, ids=by_name)
def test_and_before_a_cancel_does(shape: type[Shape]) -> None:
    shop = BusyShop(pay=[1.0, 0.0], hold=[0.0, 5.0])
    shop.payments.script = [3.0]

    async def main() -> None:
        async with make(shop, shape) as coordinator:
            handle = await coordinator.submit(shape())
            await until(lambda: shop.payments.calls)
            await coordinator.cancel(handle.id, by="ann")
            with pytest.raises(WorkflowCancelledError):
                await handle.result()

    run(main())
    assert sorted(shop.world) == [
        "do inventory 0",
        "do payments 0",
        "undo inventory",
        "undo payments",
    ]


@pytest.mark.parametrize("how", ["refused", "cancelled"])
@pytest.mark.parametrize("shape", SHAPES, ids=by_name)
def test_also_when_the_process_is_killed_between_the_runs(
    shape: type[Shape], how: str
) -> None:
    shop = refusing()
    if how == "cancelled":
        shop.payments.script = [1e6]
    journal = KeepingJournal()

    async def first() -> None:
        async with make(shop, shape, journal=journal) as coordinator:
            await coordinator.submit(shape())
            await until(lambda: shop.lossy.losses == 0)
            await asyncio.sleep(0.01)  # delayed, and nothing in flight

    async def second() -> None:
        async with make(shop, shape, journal=journal) as coordinator:
            if how == "cancelled":
                await until(lambda: shop.payments.calls)
                shop.payments.script = []
                await coordinator.cancel(coordinator.workflows()[0].id, by="ann")
            await until(lambda: not coordinator.workflows())

    run(first())
    assert shop.payments.calls == []
    run(second())
    assert shop.world.count("undo inventory") == 1
    assert shop.world.count("undo payments") == shop.world.count("do payments 0")
    assert any(isinstance(record, Started) for record in journal.records)


def test_a_call_that_ended_unknown_alone_is_named_and_no_other() -> None:
    """Code that calls one service after the other pays for the failures only."""
    shop = BusyShop()
    journal = KeepingJournal()

    async def main() -> None:
        async with make(shop, Linear, journal=journal) as coordinator:
            await coordinator.execute(Linear())

    run(main())
    started = [record for record in journal.records if isinstance(record, Started)]
    assert [record.steps for record in started] == [(("inventory.do", 0),)]


@dataclass
class Linear:
    """One step after the other."""

    async def exec(self, workflow: Workflow, shop: BusyShop) -> str:
        await workflow.step(shop.payments.do).undo(shop.payments.undo)
        await workflow.step(shop.inventory.do).undo(shop.inventory.undo)
        await workflow.step(shop.shipping.do).undo(shop.shipping.undo)
        return "done"


def test_a_step_that_fails_again_and_again_is_named_once() -> None:
    shop = BusyShop()
    shop.lossy.losses = 50
    journal = KeepingJournal()

    async def main() -> None:
        async with make(shop, Grouped, Linear, journal=journal) as coordinator:
            await coordinator.execute(Linear())
            shop.lossy.losses = 50
            await coordinator.execute(Grouped())

    run(main())
    named = [r.steps for r in journal.records if isinstance(r, Started)]
    assert sorted(named) == [
        (("inventory.do", 0),),
        (("inventory.do", 0),),
        (("payments.do", 0),),
    ]


# Code that takes another way.


@dataclass
class ByTheClock:
    """Holds at one place in its first second, and at another one later."""

    async def exec(self, workflow: Workflow, shop: BusyShop) -> str:
        if asyncio.get_running_loop().time() < 0.1:
            await workflow.step(shop.inventory.do).undo(shop.inventory.undo)
        else:
            await workflow.step(shop.shipping.do).undo(shop.shipping.undo)
        await workflow.step(shop.payments.do)
        return "done"


def test_what_code_no_longer_asks_for_is_no_silent_leftover_of_a_refusal() -> None:
    shop = BusyShop()
    shop.payments.script = [Refused("no")]

    async def main() -> None:
        async with make(shop, ByTheClock) as coordinator:
            with pytest.raises(WorkflowStuckError, match=r"whether inventory\.do was"):
                await coordinator.execute(ByTheClock())

    run(main())
    assert shop.world == ["do inventory 0", "do shipping 0"]


@pytest.mark.parametrize("killed", [False, True])
def test_what_code_no_longer_asks_for_is_told_where_it_completes(
    *, killed: bool
) -> None:
    shop = BusyShop()
    journal = KeepingJournal()

    async def first() -> None:
        async with make(shop, ByTheClock, journal=journal) as coordinator:
            await coordinator.submit(ByTheClock())
            await until(lambda: shop.lossy.losses == 0)
            if not killed:
                await until(lambda: not coordinator.workflows())

    async def second() -> None:
        await asyncio.sleep(1)
        async with make(shop, ByTheClock, journal=journal) as coordinator:
            await until(lambda: not coordinator.workflows())

    run(first())
    run(second())
    (finished,) = [r for r in journal.records if isinstance(r, Finished)]
    assert finished.ignored == ("inventory.do",)


def test_a_refusal_waits_for_the_call_of_execs_own_task_that_it_would_cut_off() -> None:
    """The group cancels its own task, too; that call takes longer than the refusal."""
    shop = BusyShop()
    shop.lossy.losses = 0
    shop.lossy.script = [2.0] * 10
    shop.payments.script = [(1.0, Refused("no"))]

    async def main() -> None:
        async with make(shop, Forked) as coordinator:
            with pytest.raises(Refused, match="no"):
                await coordinator.execute(Forked())

    run(main())
    assert len(shop.inventory.calls) == 3  # cut off; asked again; undone
    assert shop.world == ["do inventory 0", "undo inventory"]


@dataclass
class Reluctant:
    """Takes a while to pass a refusal on, and does something else meanwhile."""

    async def exec(self, workflow: Workflow, shop: BusyShop) -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pay(workflow, shop))
            await hold(workflow, shop)
        return "done"

    async def _pay(self, workflow: Workflow, shop: BusyShop) -> None:
        try:
            await pay(workflow, shop)
        except Refused:
            await shop.busy.wait("refused")
            raise


def test_also_for_a_call_that_was_made_behind_the_refusal() -> None:
    shop = BusyShop(refused=[1.0], hold=[0.5], pay=[0.0] + [0.5] * 20)
    shop.lossy.losses = 0
    shop.lossy.script = [2.0] * 10
    shop.payments.script = [Refused("no")]

    async def main() -> None:
        async with make(shop, Reluctant) as coordinator:
            with pytest.raises(Refused, match="no"):
                await coordinator.execute(Reluctant())

    run(main())
    assert len(shop.inventory.calls) == 3  # cut off; asked again; undone
    assert shop.world == ["do inventory 0", "undo inventory"]


def test_nor_is_that_call_cut_off_by_a_step_that_a_cancel_keeps_from_starting() -> None:
    shop = BusyShop(pay=[5.0] + [0.5] * 20)
    shop.lossy.losses = 0
    shop.lossy.script = [CommandDelayed("busy"), *[2.0] * 10]

    async def main() -> None:
        async with make(shop, Forked) as coordinator:
            handle = await coordinator.submit(Forked())
            await until(lambda: coordinator.workflow(handle.id).status == "delayed")
            await coordinator.cancel(handle.id, by="test")
            with pytest.raises(WorkflowCancelledError):
                await handle.result()

    run(main())
    assert len(shop.inventory.calls) == 3  # busy; asked again; undone
    assert shop.world == ["do inventory 0", "undo inventory"]


@dataclass
class Hedged:
    """Starts one thing beside another, and drops it when that is refused."""

    async def exec(self, workflow: Workflow, shop: BusyShop) -> str:
        late = asyncio.get_running_loop().create_task(hold(workflow, shop))
        try:
            await workflow.step(shop.payments.do).undo(shop.payments.undo)
        except Refused:
            await shop.busy.wait("refused")
            late.cancel()
            raise
        return "done"


def test_who_missed_a_call_runs_once_more_and_waits_for_it() -> None:
    """It was made behind the refusal, which therefore nothing held."""
    shop = BusyShop(refused=[1.0], hold=[0.5, 3.0])

    async def main() -> None:
        async with make(shop, Hedged) as coordinator:
            with pytest.raises(Refused, match="no"):
                await coordinator.execute(Hedged())

    shop.payments.script = [Refused("no")]
    run(main())
    assert shop.world == ["do inventory 0", "undo inventory"]


@dataclass
class Falling:
    """Starts one thing beside another, and takes another way when that is refused."""

    async def exec(self, workflow: Workflow, shop: BusyShop) -> str:
        late = asyncio.get_running_loop().create_task(hold(workflow, shop))
        try:
            await workflow.step(shop.payments.do).undo(shop.payments.undo)
        except Refused:
            await shop.busy.wait("refused")
            late.cancel()
            await workflow.step(shop.shipping.do).undo(shop.shipping.undo)
            return "another way"
        return "done"


def test_who_would_complete_without_a_call_runs_once_more_and_waits_for_it() -> None:
    shop = BusyShop(refused=[1.0], hold=[0.5, 3.0])
    shop.payments.script = [Refused("no")]
    journal = KeepingJournal()

    async def main() -> None:
        async with make(shop, Falling, journal=journal) as coordinator:
            assert await coordinator.execute(Falling()) == "another way"

    run(main())
    known = {r.step for r in journal.records if isinstance(r, Outcome)}
    assert known == {"payments.do", "inventory.do", "shipping.do"}
    (finished,) = [r for r in journal.records if isinstance(r, Finished)]
    assert finished.ignored == ()


@dataclass
class Leaving:
    """Leaves a task that asks for a step, and does not wait for it."""

    async def exec(self, workflow: Workflow, shop: BusyShop) -> None:
        await workflow.step(shop.payments.do).undo(shop.payments.undo)
        task = asyncio.get_running_loop().create_task(hold(workflow, shop))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await workflow.step(shop.shipping.do).undo(shop.shipping.undo)
        await shop.busy.wait("exec")
        raise Refused("no")


@pytest.mark.parametrize("how", ["refused", "cancelled"])
def test_a_task_that_exec_left_may_ask_for_it_when_exec_has_ended(how: str) -> None:
    """Else nothing would: replayed, `exec` ends before that task has had a turn."""
    shop = BusyShop(exec=[10.0], hold=[5.0, 3.0, 3.0, 3.0])
    shop.lossy.losses = 0
    shop.lossy.script = [(2.0, CommandDelayed("busy"))]

    async def main() -> None:
        async with make(shop, Leaving) as coordinator:
            handle = await coordinator.submit(Leaving())
            if how == "cancelled":
                await until(lambda: shop.lossy.calls)
                await coordinator.cancel(handle.id, by="ann")
            with pytest.raises((Refused, WorkflowCancelledError)):
                async with asyncio.timeout(3600):
                    await handle.result()

    run(main())
    assert shop.world.count("do inventory 0") == shop.world.count("undo inventory") == 1


def test_what_is_waited_for_in_vain_is_waited_for_no_longer_than_a_call() -> None:
    shop = BusyShop(hold=[0.0, 1e6])
    shop.busy.pauses["pay"] = [0.1]

    async def main() -> float:
        async with make(shop, Forgetting, step_timeout_s=7.0) as coordinator:
            await coordinator.execute(Forgetting())
            return asyncio.get_running_loop().time()

    assert 7.0 < run(main()) < 9.0


@dataclass
class Forgetting:
    """Waits for one of its two branches only."""

    async def exec(self, workflow: Workflow, shop: BusyShop) -> str:
        late = asyncio.get_running_loop().create_task(hold(workflow, shop))
        await pay(workflow, shop)
        late.cancel()
        return "done"


# Many calls at once.


def test_eight_hundred_steps_at_once_write_eight_hundred_names() -> None:
    journal = KeepingJournal()

    async def measure(count: int) -> tuple[int, int, int]:
        journal.records.clear()
        async with make(Shop(), Fan, journal=journal) as coordinator:
            assert await coordinator.execute(Fan(count)) == count
        names = sum(len(r.steps) for r in journal.records if isinstance(r, Started))
        size = sum(len(encode_record(record)) for record in journal.records)
        return len(journal.records), names, size

    few, many = run(measure(100)), run(measure(800))
    assert many[0] <= 2 * 800 + 2
    assert many[1] == 800
    assert many[2] < 9 * few[2]


@dataclass
class Fan:
    """Calls one service many times at once."""

    count: int

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        steps = [
            workflow.step(shop.payments.do, n).named("payments.do", key=str(n))
            for n in range(self.count)
        ]
        return len(await workflow.gather(*steps))


# A flush in which the user's time-out strikes.


class SlowJournal(KeepingJournal):
    """Takes a second for each write."""

    async def open(self, partition: int, *, owner: str, at: int) -> MemoryPartition:
        opened = await super().open(partition, owner=owner, at=at)
        write = opened.write

        async def write_slowly(batch: Batch) -> None:
            await asyncio.sleep(1.0)
            await write(batch)

        setattr(opened, "write", write_slowly)  # noqa: B010 -- one instance's method
        return opened


@dataclass
class Impatient:
    """Gives a step half a second, by asyncio's own means."""

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        async with asyncio.timeout(0.5):
            await workflow.step(shop.payments.do).undo(shop.payments.undo)
        return "done"


@pytest.mark.parametrize("answer", [0.0, Refused("no"), CommandDelayed("busy")])
def test_a_time_out_that_strikes_while_an_answer_is_flushed_changes_no_end(
    answer: float | Exception,
) -> None:
    shop = Shop()
    shop.payments.script = [answer]
    journal = SlowJournal()

    async def main() -> str:
        async with make(
            shop, Impatient, journal=journal, retry=Retry(attempts_max=1)
        ) as coordinator:
            try:
                return await coordinator.execute(Impatient())
            except Refused as refusal:
                return refusal.reason

    assert run(main()) == ("no" if isinstance(answer, Refused) else "done")
    outcomes = [r for r in journal.records if isinstance(r, Outcome)]
    assert len(outcomes) == 1
