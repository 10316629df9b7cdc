"""The five rules of compensation, under delays, refusals, bugs and crashes."""

import asyncio
from dataclasses import dataclass

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
from coordinator.records import Aborting, Cancelled, Finished, Outcome, Started


@dataclass
class Order:
    """Three steps with undos."""

    id: str = "o-1"

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        await workflow.step(shop.inventory.do).undo(shop.inventory.undo)
        await workflow.step(shop.payments.do).undo(shop.payments.undo)
        await workflow.step(shop.shipping.do).undo(shop.shipping.undo)
        return "done"


def cut_off_in_shipping() -> tuple[Shop, KeepingJournal]:
    """Return what a process leaves that ended while shipping was asked."""
    shop = Shop()
    shop.shipping.script = [1e6]
    journal = KeepingJournal()

    async def main() -> None:
        async with make(shop, Order, journal=journal) as coordinator:
            await coordinator.submit(Order())
            await until(lambda: shop.shipping.calls)

    run(main())
    shop.shipping.script = []
    return shop, journal


def test_an_undo_is_retried_like_a_step_under_one_key() -> None:
    shop = Shop()
    shop.shipping.script = [Refused("no")]
    shop.payments.undo_script = [CommandDelayed("busy"), ConnectionError()]

    async def main() -> None:
        async with make(shop, Order) as coordinator:
            with pytest.raises(Refused):
                await coordinator.execute(Order())

    run(main())
    assert shop.world[-2:] == ["undo payments", "undo inventory"]
    undos = [key for key in shop.payments.calls if key.endswith("/undo")]
    assert len(undos) == 3
    assert len(set(undos)) == 1


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (Refused("too late"), "undo of payments.do was refused: too late"),
        (ValueError("odd"), "undo of payments.do failed 1 times, last: ValueError"),
    ],
)
def test_an_undo_that_keeps_failing_is_stuck_and_says_what_is_still_done(
    failure: Exception, says: str
) -> None:
    shop = Shop()
    shop.shipping.script = [Refused("no")]
    shop.payments.undo_script = [failure]

    async def main() -> None:
        async with make(shop, Order, retry=Retry(attempts_max=1)) as coordinator:
            handle = await coordinator.submit(Order())
            with pytest.raises(WorkflowStuckError, match=says) as caught:
                await handle.result()
            assert "still done: inventory.do, payments.do" in caught.value.reason
            await coordinator.retry(handle.id, by="test")
            with pytest.raises(Refused, match="no"):
                await handle.result()

    run(main())
    assert shop.world[-2:] == ["undo payments", "undo inventory"]


@dataclass
class Parallel:
    """A TaskGroup: when one of its tasks is refused, it cancels the others."""

    pause_s: float = 0.0

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pay(workflow, shop))
            group.create_task(self._hold(workflow, shop))
        return "done"

    async def _pay(self, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.payments.do).undo(shop.payments.undo)

    async def _hold(self, workflow: Workflow, shop: Shop) -> None:
        await asyncio.sleep(self.pause_s)
        await workflow.step(shop.inventory.do).undo(shop.inventory.undo)


def test_nothing_is_in_flight_when_it_is_decided_to_undo() -> None:
    shop = Shop()
    shop.payments.script = [Refused("no")]
    shop.inventory.script = [5.0]  # still under way when payments refuses
    journal = KeepingJournal()

    async def main() -> None:
        async with make(shop, Parallel, journal=journal) as coordinator:
            with pytest.raises(Refused):
                await coordinator.execute(Parallel())

    run(main())
    assert shop.world == ["do inventory 0", "undo inventory"]
    written = journal.records
    kinds = [type(record) for record in written]
    done = kinds.index(Outcome, kinds.index(Outcome) + 1)
    assert done < kinds.index(Aborting)


def test_a_sibling_of_which_nobody_knows_is_asked_again_before_turning_back() -> None:
    shop = Shop()
    shop.payments.script = [(0.5, Refused("no"))]
    shop.inventory.script = [CommandDelayed("did it, but you can't know")]

    async def main() -> None:
        async with make(shop, Parallel) as coordinator:
            with pytest.raises(Refused, match="no"):
                await coordinator.execute(Parallel(0.001))

    run(main())
    assert len(shop.payments.calls) == 1
    assert shop.inventory.calls[0] == shop.inventory.calls[1]
    assert shop.world == ["do inventory 0", "undo inventory"]


def test_a_replayed_refusal_waits_for_the_siblings_that_were_called_beside_it() -> None:
    """The pause lets the TaskGroup cancel the sibling before it asks for its step."""
    shop = Shop()
    shop.payments.script = [0.5]
    shop.inventory.script = [1e6]
    journal = KeepingJournal()

    async def first() -> None:
        async with make(shop, Parallel, journal=journal) as coordinator:
            await coordinator.submit(Parallel(0.1))
            await until(lambda: shop.inventory.calls)

    async def second() -> None:
        shop.payments.script = [Refused("no")]
        shop.inventory.script = []
        async with make(shop, Parallel, journal=journal) as coordinator:
            await until(lambda: not coordinator.workflows())

    run(first())
    run(second())
    assert any(isinstance(record, Started) for record in journal.records)
    assert shop.world == ["do inventory 0", "undo inventory"]


@dataclass
class Renamed:
    """As `Order`, deployed anew without one of its steps."""

    id: str = "o-1"

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        await workflow.step(shop.payments.do).undo(shop.payments.undo)
        await workflow.step(shop.shipping.do)
        return "done"


Renamed.__name__ = "Order"


def test_an_abort_that_cannot_find_its_undo_is_stuck_and_names_it() -> None:
    shop, journal = cut_off_in_shipping()

    async def second() -> None:
        shop.shipping.script = [Refused("no")]
        async with make(shop, Renamed, journal=journal) as coordinator:
            await until(lambda: coordinator.workflows()[0].status == "stuck")
            info = coordinator.workflows()[0]
            assert "can't undo inventory.do: recorded as done" in info.reason

    async def third() -> None:
        async with make(shop, Order, journal=journal) as coordinator:
            await coordinator.retry(coordinator.workflows()[0].id, by="test")
            await until(lambda: not coordinator.workflows())

    run(second())
    run(third())
    assert shop.world[-2:] == ["undo payments", "undo inventory"]


def test_a_completion_shows_what_it_never_asked_for() -> None:
    shop, journal = cut_off_in_shipping()

    async def second() -> None:
        async with make(shop, Renamed, journal=journal) as coordinator:
            await until(lambda: not coordinator.workflows())

    run(second())
    finished = next(r for r in journal.records if isinstance(r, Finished))
    assert finished.ignored == ("inventory.do",)


# -- an operator's cancel


def test_a_cancel_waits_for_the_call_in_flight_and_then_undoes_everything() -> None:
    shop = Shop()
    shop.payments.script = [5.0]
    journal = KeepingJournal()

    async def main() -> None:
        async with make(shop, Order, journal=journal) as coordinator:
            handle = await coordinator.submit(Order())
            await until(lambda: shop.payments.calls)
            await coordinator.cancel(handle.id, by="ann", reason="wrong item")
            with pytest.raises(WorkflowCancelledError, match="ann: wrong item"):
                await handle.result()

    run(main())
    assert shop.world == [
        "do inventory 0",
        "do payments 0",
        "undo payments",
        "undo inventory",
    ]
    kinds = [type(record) for record in journal.records]
    assert kinds.index(Cancelled) < kinds.index(Aborting)


def test_a_cancel_asks_again_for_what_nobody_knows_and_starts_nothing_else() -> None:
    shop = Shop()
    shop.payments.script = [CommandDelayed("busy")] * 3

    async def main() -> None:
        async with make(shop, Order) as coordinator:
            handle = await coordinator.submit(Order())
            await until(lambda: shop.payments.calls)
            await coordinator.cancel(handle.id, by="ann")
            with pytest.raises(WorkflowCancelledError):
                await handle.result()

    run(main())
    assert shop.world[1:] == ["do payments 0", "undo payments", "undo inventory"]
    assert shop.shipping.calls == []


@dataclass
class Sleeper:
    """Waits for nothing in particular."""

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.inventory.do).undo(shop.inventory.undo)
        await asyncio.sleep(1e9)


def test_a_cancel_wakes_exec_from_its_own_sleep() -> None:
    shop = Shop()

    async def main() -> None:
        async with make(shop, Sleeper) as coordinator:
            handle = await coordinator.submit(Sleeper())
            await until(lambda: shop.inventory.done)
            await coordinator.cancel(handle.id, by="ann")
            with pytest.raises(WorkflowCancelledError):
                await handle.result()

    run(main())
    assert shop.world == ["do inventory 0", "undo inventory"]


def test_a_cancel_survives_a_crash() -> None:
    shop = Shop()
    shop.payments.script = [1e6, CommandDelayed("busy")]
    journal = KeepingJournal()

    async def first() -> None:
        async with make(
            shop, Order, journal=journal, step_timeout_s=1e7
        ) as coordinator:
            handle = await coordinator.submit(Order())
            await until(lambda: shop.payments.calls)
            await coordinator.cancel(handle.id, by="ann")

    async def second() -> None:
        async with make(shop, Order, journal=journal) as coordinator:
            await until(lambda: not coordinator.workflows())

    run(first())
    run(second())
    assert len(set(shop.payments.calls)) == 2  # the step's key and its undo's
    assert shop.world[1:] == ["do payments 0", "undo payments", "undo inventory"]


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


def test_who_is_cancelled_while_it_gets_stuck_is_not_told_to_be_stuck() -> None:
    shop = Shop()
    shop.inventory.script = [ValueError("odd")]

    async def main() -> None:
        journal, retry = SlowJournal(), Retry(attempts_max=1)
        async with make(shop, Order, journal=journal, retry=retry) as coordinator:
            handle = await coordinator.submit(Order())
            await until(lambda: coordinator.workflow(handle.id).status == "stuck")
            await coordinator.cancel(handle.id, by="ann")
            with pytest.raises(WorkflowCancelledError):
                await handle.result()

    run(main())


def test_a_stuck_workflow_can_be_cancelled() -> None:
    shop = Shop()
    shop.shipping.script = [ValueError("odd")]

    async def main() -> None:
        async with make(shop, Order, retry=Retry(attempts_max=1)) as coordinator:
            handle = await coordinator.submit(Order())
            with pytest.raises(WorkflowStuckError):
                await handle.result()
            await coordinator.cancel(handle.id, by="ann")
            with pytest.raises(WorkflowCancelledError):
                await handle.result()

    run(main())
    # Nobody knew of shipping, so it was asked again, done, and undone first.
    assert shop.world[2:] == [
        "do shipping 0",
        "undo shipping",
        "undo payments",
        "undo inventory",
    ]


def test_a_cancel_that_cannot_find_its_undo_is_stuck_until_the_code_is_back() -> None:
    shop, journal = cut_off_in_shipping()

    async def second() -> None:
        async with make(shop, Renamed, journal=journal) as coordinator:
            (info,) = coordinator.workflows()
            await coordinator.cancel(info.id, by="ann")
            await until(lambda: coordinator.workflow(info.id).status == "stuck")
            assert "can't undo inventory.do" in coordinator.workflow(info.id).reason

    async def third() -> None:
        async with make(shop, Order, journal=journal) as coordinator:
            await coordinator.retry(coordinator.workflows()[0].id, by="ann")
            await until(lambda: not coordinator.workflows())

    run(second())
    run(third())
    assert sorted(shop.world[-2:]) == ["undo inventory", "undo payments"]
    assert shop.world.count("do shipping 0") == shop.world.count("undo shipping")


def test_an_abort_whose_code_lost_an_undo_names_it_in_the_next_process() -> None:
    shop = Shop()
    shop.shipping.script = [Refused("no")]
    shop.payments.undo_script = [1e6]
    journal = KeepingJournal()

    async def first() -> None:
        async with make(shop, Order, journal=journal) as coordinator:
            await coordinator.submit(Order())
            await until(lambda: len(shop.payments.calls) == 2)

    async def second() -> None:
        async with make(shop, Renamed, journal=journal) as coordinator:
            await until(lambda: coordinator.workflows()[0].status == "stuck")
            assert "still done: inventory.do" in coordinator.workflows()[0].reason

    run(first())
    run(second())
    assert "undo inventory" not in shop.world


def test_a_drain_between_two_undos_leaves_the_rest_to_the_next_process() -> None:
    shop = Shop()
    shop.shipping.script = [Refused("no")]
    shop.payments.undo_script = [5.0]
    journal = KeepingJournal()

    async def first() -> None:
        async with make(shop, Order, journal=journal) as coordinator:
            await coordinator.submit(Order())
            await until(lambda: len(shop.payments.calls) == 2)
            assert await coordinator.drain(30.0)

    async def second() -> None:
        async with make(shop, Order, journal=journal) as coordinator:
            await until(lambda: not coordinator.workflows())

    run(first())
    assert shop.world[-1] == "undo payments"
    run(second())
    assert shop.world[-2:] == ["undo payments", "undo inventory"]


@dataclass
class Noting:
    """Catches what ends it, and notes something all the same."""

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        try:
            await workflow.step(shop.inventory.do).undo(shop.inventory.undo)
        finally:
            await workflow.append_outcome("note", "after")
        return "done"


def test_a_cancelled_workflow_notes_nothing_more() -> None:
    shop = Shop()
    shop.inventory.script = [5.0]
    journal = KeepingJournal()

    async def main() -> None:
        async with make(shop, Noting, journal=journal) as coordinator:
            handle = await coordinator.submit(Noting())
            await until(lambda: shop.inventory.calls)
            await coordinator.cancel(handle.id, by="ann")
            with pytest.raises(WorkflowCancelledError):
                await handle.result()

    run(main())
    outcomes = [record for record in journal.records if isinstance(record, Outcome)]
    assert [outcome.step for outcome in outcomes] == ["inventory.do"] * 2
    assert shop.world == ["do inventory 0", "undo inventory"]


@dataclass
class Touchy(Service):
    """Says so when it is cut off."""

    async def undo(self, receipt: Receipt) -> None:
        try:
            await super().undo(receipt)
        except asyncio.CancelledError:
            raise ConnectionResetError("cut off") from None


def test_an_undo_that_fails_as_all_is_closed_is_no_bug_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shop = Shop()
    shop.payments = Touchy("payments", undo_script=[60.0], world=shop.world)
    shop.shipping.script = [Refused("no")]

    async def main() -> None:
        async with make(shop, Order) as coordinator:
            await coordinator.submit(Order())
            await until(lambda: len(shop.payments.calls) == 2)

    run(main())
    assert "bug" not in caplog.text
