"""Nothing of a run starts once its `exec` has ended, however it did.

A task that `exec` leaves behind lives on: `asyncio.gather` does not cancel what it
waits for, and whoever makes a task may forget it. It gets nothing done any more.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from tests.engine.support import KeepingJournal, Shop, make, run, until

from coordinator import (
    CommandDelayed,
    CoordinatorError,
    Refused,
    Workflow,
    WorkflowCancelledError,
    WorkflowStuckError,
)
from coordinator.batch import Batch
from coordinator.errors import FencedError
from coordinator.journals.memory import MemoryPartition
from coordinator.records import Aborting, Finished, Outcome
from coordinator.saga import Unwind


@dataclass
class LeakyShop(Shop):
    """A shop that knows of what `exec` leaves behind, so that nobody complains."""

    left: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    """Tasks."""

    def __post_init__(self) -> None:
        Shop.__init__(self)

    def leave(self, work: Callable[[], Awaitable[object]]) -> None:
        """Start something that nobody waits for."""

        async def do() -> None:
            await work()

        task = asyncio.get_running_loop().create_task(do())
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        self.left.append(task)

    def ended(self) -> list[type[BaseException] | None]:
        """Say how they ended."""
        errors = [task.exception() for task in self.left]
        return [None if error is None else type(error) for error in errors]


@dataclass
class Gathered:
    """asyncio.gather: one branch is refused, the other one goes on."""

    pause_s: float

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        async def pay() -> None:
            await workflow.step(shop.payments.do).undo(shop.payments.undo)

        async def ship() -> None:
            await workflow.step(shop.inventory.do).undo(shop.inventory.undo)
            if self.pause_s >= 0:
                await asyncio.sleep(self.pause_s)
            await workflow.step(shop.shipping.do)  # it can't be undone

        await asyncio.gather(pay(), ship())  # noqa: TID251 -- as users do
        return "done"


@pytest.mark.parametrize("refused_s", [0.0, 0.1, 0.8])
@pytest.mark.parametrize("pause_s", [-1, 0.0, 0.05, 3.0])
def test_a_branch_that_gather_lets_run_on_starts_nothing_behind_a_refusal(
    pause_s: float, refused_s: float
) -> None:
    shop = Shop()
    shop.payments.script = [(refused_s, Refused("no"))]
    shop.inventory.script = [0.9]
    journal = KeepingJournal()

    async def main() -> None:
        async with make(shop, Gathered, journal=journal) as coordinator:
            with pytest.raises(Refused, match="no"):
                await coordinator.execute(Gathered(pause_s))
            await asyncio.sleep(10)

    run(main())
    assert shop.world == ["do inventory 0", "undo inventory"]
    assert isinstance(journal.records[-1], Finished)
    decided = [type(record) for record in journal.records].index(Aborting)
    outcomes = [r for r in journal.records[decided:] if isinstance(r, Outcome)]
    assert all(outcome.direction for outcome in outcomes)


@dataclass
class Leaving:
    """Leaves a task, which asks for a step later; ends as it is told."""

    end: str
    later_s: float = 5.0

    async def exec(self, workflow: Workflow, shop: LeakyShop) -> str:
        async def late() -> None:
            await asyncio.sleep(self.later_s)
            await workflow.step(shop.shipping.do).undo(shop.shipping.undo)

        shop.leave(late)
        await workflow.step(shop.inventory.do).undo(shop.inventory.undo)
        match self.end:
            case "refused":
                raise Refused("no")
            case "stuck":
                raise ValueError("a bug")
            case "for ever":
                await asyncio.sleep(1e6)
            case _:
                pass
        return "done"


@pytest.mark.parametrize("end", ["done", "refused", "stuck"])
def test_what_exec_left_behind_gets_nothing_done_when_it_ended(end: str) -> None:
    shop = LeakyShop()
    journal = KeepingJournal()

    async def main() -> None:
        async with make(shop, Leaving, journal=journal) as coordinator:
            handle = await coordinator.submit(Leaving(end))
            try:
                await handle.result()
            except WorkflowStuckError:
                await coordinator.cancel(handle.id, by="ann")
                with pytest.raises(WorkflowCancelledError):
                    await handle.result()
            except Refused:
                pass
            await asyncio.sleep(20)

    run(main())
    assert "do shipping 0" not in shop.world
    assert isinstance(journal.records[-1], Finished)
    assert set(shop.ended()) == {Unwind}


def test_a_run_that_is_delayed_leaves_nobody_who_calls_beside_the_next_one() -> None:
    shop = LeakyShop()
    shop.payments.script = [CommandDelayed("busy"), 20.0]

    @dataclass
    class Order:
        async def exec(self, workflow: Workflow, shop: LeakyShop) -> None:
            async def late() -> None:
                await asyncio.sleep(1.0)
                await workflow.step(shop.shipping.do)

            shop.leave(late)
            await workflow.step(shop.payments.do)
            await asyncio.sleep(5.0)

    async def main() -> None:
        async with make(shop, Order) as coordinator:
            await coordinator.execute(Order())

    run(main())
    assert shop.ended() == [Unwind, None]
    assert len(shop.shipping.calls) == 1


@pytest.mark.parametrize("drained", [False, True])
def test_what_exec_left_behind_gets_nothing_done_when_all_is_closed(
    *, drained: bool
) -> None:
    shop = LeakyShop()

    async def main() -> None:
        async with make(shop, Leaving) as coordinator:
            await coordinator.submit(Leaving("for ever"))
            await until(lambda: shop.world)
            if drained:
                await coordinator.drain(1.0)
        await asyncio.sleep(20)

    run(main())
    assert shop.world == ["do inventory 0"]
    assert shop.ended() == [Unwind]


class Dying(KeepingJournal):
    """Is taken over by somebody else when the test says so."""

    dies = False

    async def open(self, partition: int, *, owner: str, at: int) -> MemoryPartition:
        opened = await super().open(partition, owner=owner, at=at)
        write = opened.write

        async def write_or_die(batch: Batch) -> None:
            if self.dies:
                raise FencedError("somebody newer owns it")
            await write(batch)

        setattr(opened, "write", write_or_die)  # noqa: B010 -- one instance's method
        return opened


@dataclass
class Deaf:
    """Swallows a cancellation, and asks for another step."""

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        await workflow.step(shop.payments.do)
        return "done"


@dataclass
class Nothing:
    """Ends at once."""

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        return "done"


def test_no_service_is_called_once_the_journal_died() -> None:
    shop = Shop()
    journal = Dying()

    async def main() -> None:
        async with make(shop, Deaf, Nothing, journal=journal) as coordinator:
            await coordinator.submit(Deaf())
            await asyncio.sleep(1)
            journal.dies = True
            with pytest.raises(CoordinatorError):
                await coordinator.execute(Nothing())
            await asyncio.sleep(100)

    run(main())
    assert shop.payments.calls == []


def test_no_note_is_taken_behind_the_end() -> None:
    shop = LeakyShop()
    journal = KeepingJournal()

    @dataclass
    class Order:
        async def exec(self, workflow: Workflow, shop: LeakyShop) -> None:
            async def late() -> None:
                await asyncio.sleep(1)
                await workflow.append_outcome("note", 1)

            shop.leave(late)

    async def main() -> None:
        async with make(shop, Order, journal=journal) as coordinator:
            await coordinator.execute(Order())
            await asyncio.sleep(5)

    run(main())
    assert isinstance(journal.records[-1], Finished)
    assert shop.ended() == [Unwind]
