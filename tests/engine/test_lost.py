"""A partition whose last write may have landed: it is opened again, and all goes on.

`LossyJournal` says of writes what a log on another machine says when the connection
breaks: nobody knows. Whether they landed is up to the test.
"""

import asyncio
import zlib
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import pytest
from tests.engine.support import Shop, make, refuse, run, until

from coordinator import Coordinator, Refused, Workflow
from coordinator.batch import Batch
from coordinator.errors import (
    FencedError,
    JournalBrokenError,
    JournalError,
    JournalUnavailableError,
    UncertainError,
)
from coordinator.journals.memory import MemoryJournal, MemoryPartition
from coordinator.records import Accepted, Finished, Outcome, Record

T = TypeVar("T")


@dataclass
class Pay:
    id: str

    def key(self) -> str:
        return self.id

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        await workflow.step(shop.inventory.do).undo(shop.inventory.undo)
        return (await workflow.step(shop.payments.do)).number


@dataclass
class Tip:
    """A command without a key."""

    id: str

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        return (await workflow.step(shop.payments.do)).number


class LossyJournal(MemoryJournal):
    """Answers to the write of certain records with `UncertainError`."""

    def __init__(self, *, partitions: int = 1) -> None:
        super().__init__(partitions=partitions)
        self.fates: Sequence[tuple[type[Record], str]] = []
        """For the next write that holds such a record: ``landed`` or ``lost``."""
        self.unreachable = 0
        """How many openings fail from now on."""
        self.in_between: Callable[[int], Any] | None = None
        """Called before the next opening: as another process would come in between."""
        self.opened = 0
        self.partition: dict[int, MemoryPartition] = {}

    async def open(self, partition: int, *, owner: str, at: int) -> MemoryPartition:
        if self.unreachable:
            self.unreachable -= 1
            raise JournalUnavailableError(f"p{partition}: no connection")
        between, self.in_between = self.in_between, None
        if between is not None:
            await between(partition)
        opened = await super().open(partition, owner=owner, at=at)
        self.opened += 1
        self.partition[partition] = opened
        write = opened.write

        async def write_or_not(batch: Batch) -> None:
            kinds = {type(record) for _, record in batch.records()}
            fate = next((fate for fate in self.fates if fate[0] in kinds), None)
            if fate is None:
                await write(batch)
                return
            self.fates = [other for other in self.fates if other is not fate]
            if fate[1] == "landed":
                await write(batch)
            error = UncertainError(f"p{partition}: the connection broke")
            opened._handle.failed(error)
            raise error

        setattr(opened, "write", write_or_not)  # noqa: B010 -- one instance's method
        return opened


@pytest.mark.parametrize("fate", ["landed", "lost"])
@pytest.mark.parametrize("record", [Accepted, Outcome, Finished])
@pytest.mark.parametrize("command", [Pay("a"), Tip("a")])
def test_whatever_was_uncertain_the_caller_gets_the_result_and_each_step_is_done_once(
    command: Any, record: type[Record], fate: str
) -> None:
    async def main() -> tuple[int, Shop, int]:
        shop, journal = Shop(), LossyJournal()
        async with make(shop, Pay, Tip, journal=journal) as coordinator:
            journal.fates = [(record, fate)]
            result = await coordinator.execute(command)
            assert coordinator.workflows() == []
        return result, shop, journal.opened

    result, shop, opened = run(main())
    assert result == shop.payments.done[shop.payments.calls[-1]].number
    assert shop.world.count("do payments 0") == 1
    assert len(set(shop.payments.calls)) == 1
    assert opened == 2


@pytest.mark.parametrize("fate", ["landed", "lost"])
def test_a_submit_returns_when_it_is_known_to_be_durable_and_not_before(
    fate: str,
) -> None:
    async def main() -> None:
        shop, journal = Shop(), LossyJournal()
        async with make(shop, Pay, journal=journal) as coordinator:
            journal.fates, journal.unreachable = [(Accepted, fate)], 3
            submitting = start(coordinator.submit(Pay("a")))
            await until(lambda: journal.unreachable == 0 or submitting.done())
            assert not submitting.done()
            handle = await submitting
            assert await handle.result() == 0
        assert shop.world == ["do inventory 0", "do payments 0"]

    run(main())


def test_a_compensation_goes_on_where_it_was() -> None:
    async def main() -> Shop:
        shop, journal = Shop(), LossyJournal()
        shop.payments.script = [refuse()]
        async with make(shop, Pay, journal=journal) as coordinator:
            journal.fates = [(Finished, "lost")]
            with pytest.raises(Refused):
                await coordinator.execute(Pay("a"))
        return shop

    assert run(main()).world == ["do inventory 0", "undo inventory"]


def test_the_other_partitions_go_on_meanwhile() -> None:
    async def main() -> None:
        shop, journal = Shop(), LossyJournal(partitions=2)
        one, other = (_key_of(number, 2) for number in range(2))
        async with make(shop, Pay, journal=journal) as coordinator:
            journal.fates, journal.unreachable = [(Accepted, "lost")], 1000
            lost = start(coordinator.execute(Pay(one)))
            await until(lambda: journal.unreachable < 1000)
            late = start(coordinator.execute(Pay(one)))
            assert await coordinator.execute(Pay(other)) == 0
            assert await coordinator.execute(Pay(f"{other}")) == 0
            assert not lost.done()
            assert not late.done()
            journal.unreachable = 0
            assert await lost == await late == 1

    run(main())


def test_commands_without_a_key_go_to_the_partitions_that_are_held() -> None:
    async def main() -> None:
        journal = LossyJournal(partitions=2)
        async with make(Shop(), Tip, journal=journal) as coordinator:
            journal.fates, journal.unreachable = [(Outcome, "lost")], 1000
            lost = start(coordinator.execute(Tip("a")))
            await until(lambda: journal.unreachable < 1000)
            number = (await coordinator.submit(Tip("b"))).id[0]
            for _ in range(3):
                assert (await coordinator.submit(Tip("c"))).id[0] == number
            journal.unreachable = 0
            await lost

    run(main())


def test_without_any_partition_the_door_is_closed_and_says_why() -> None:
    async def main() -> None:
        journal = LossyJournal()
        async with make(Shop(), Tip, journal=journal) as coordinator:
            journal.fates, journal.unreachable = [(Outcome, "lost")], 1000
            lost = start(coordinator.execute(Tip("a")))
            await until(lambda: journal.unreachable < 1000)
            entrance = coordinator.engine.entrance
            assert not entrance.is_open()
            assert "no partition" in entrance.closed
            waiting = start(coordinator.execute(Tip("b")))
            await until(lambda: entrance.waiting == 1)
            journal.unreachable = 0
            await lost
            await waiting
            assert entrance.is_open()
            assert entrance.closed == ""

    run(main())


def test_who_waits_at_the_door_waits_on_when_the_partition_is_lost_meanwhile() -> None:
    async def main() -> None:
        shop, journal = Shop(), LossyJournal(partitions=2)
        shop.inventory.script = [3.0]
        one, other = (_key_of(number, 2) for number in range(2))
        async with make(shop, Pay, journal=journal, commands_max=1) as coordinator:
            first = start(coordinator.execute(Pay(other)))
            await until(lambda: shop.inventory.calls)
            second = start(coordinator.execute(Pay(one)))
            await until(lambda: coordinator.engine.entrance.waiting)
            journal.unreachable = 1000
            journal.partition[0]._died(UncertainError("p0: the connection broke"))
            await first
            await asyncio.sleep(3600)
            assert not second.done()
            journal.unreachable = 0
            assert await second == 1

    run(main())


def test_who_is_stuck_is_told_once_and_hears_of_what_a_person_does() -> None:
    @dataclass
    class Odd:
        id: str

        def key(self) -> str:
            return self.id

        async def exec(self, workflow: Workflow, shop: Shop) -> int:
            if not shop.world:
                raise ZeroDivisionError
            return 7

    async def main() -> None:
        shop, journal = Shop(), LossyJournal()
        async with make(shop, Odd, Tip, journal=journal) as coordinator:
            handle = await coordinator.submit(Odd("a"))
            await until(lambda: coordinator.workflow(handle.id).reason)
            with pytest.raises(Exception, match="ZeroDivisionError"):
                await handle.result()
            journal.fates = [(Accepted, "lost")]
            await coordinator.execute(Tip("b"))
            result = start(handle.result())
            await asyncio.sleep(1)
            assert not result.done()
            await coordinator.retry(handle.id, by="me")
            assert await result == 7

    run(main())


def test_a_workflow_that_another_process_ended_in_between_is_found_by_its_key() -> None:
    async def main() -> None:
        shop, journal = Shop(), LossyJournal()
        shop.payments.script = [3600.0]

        async def other_process(_: int) -> None:
            async with make(shop, Pay, Tip, journal=journal) as other:
                await until(lambda: not other.workflows())

        async with make(shop, Pay, Tip, journal=journal) as coordinator:
            paying = start(coordinator.execute(Pay("a")))
            await until(lambda: len(shop.payments.calls) == 1)
            journal.in_between = other_process
            journal.fates = [(Accepted, "lost")]
            assert await coordinator.execute(Pay("b")) == 1
            assert await paying == 0
        assert shop.world == ["do inventory 0", "do payments 0"] * 2

    run(main())


def test_without_a_key_what_another_process_ended_is_nobodys_to_know() -> None:
    async def main() -> None:
        shop, journal = Shop(), LossyJournal()
        shop.payments.script = [3600.0]

        async def other_process(_: int) -> None:
            async with make(shop, Pay, Tip, journal=journal) as other:
                await until(lambda: not other.workflows())

        async with make(shop, Pay, Tip, journal=journal) as coordinator:
            tipping = start(coordinator.execute(Tip("a")))
            await until(lambda: len(shop.payments.calls) == 1)
            journal.in_between = other_process
            journal.fates = [(Accepted, "lost")]
            await coordinator.execute(Pay("b"))
            with pytest.raises(UncertainError, match="the connection broke"):
                await tipping

    run(main())


def test_an_operator_is_told_that_the_partition_is_not_held() -> None:
    async def main() -> None:
        shop, journal = Shop(), LossyJournal()
        shop.payments.script = [3600.0]
        async with make(shop, Pay, Tip, journal=journal) as coordinator:
            handle = await coordinator.submit(Pay("a"))
            await until(lambda: len(shop.payments.calls) == 1)
            journal.fates, journal.unreachable = [(Accepted, "lost")], 1000
            tipping = start(coordinator.execute(Tip("b")))
            await until(lambda: journal.unreachable < 1000)
            with pytest.raises(JournalUnavailableError, match="partition 0"):
                await coordinator.cancel(handle.id, by="me")
            journal.unreachable = 0
            await tipping
            await handle.result()
        assert len(shop.payments.done) == 2

    run(main())


def test_what_is_lost_while_all_is_closed_is_told_to_its_callers() -> None:
    async def main() -> None:
        journal = LossyJournal()
        coordinator: Coordinator[Shop] = make(Shop(), Tip, journal=journal)
        async with coordinator:
            journal.fates, journal.unreachable = [(Outcome, "lost")], 1000
            lost = start(coordinator.execute(Tip("a")))
            await until(lambda: journal.unreachable < 1000)
        with pytest.raises(JournalError, match="stopped"):
            await lost

    run(main())


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (FencedError("p0: epoch 7 of another owner"), FencedError),
        (ZeroDivisionError("a bug"), JournalBrokenError),
        (GeneratorExit("no exception"), JournalBrokenError),
    ],
)
def test_where_it_can_not_be_opened_again_the_process_ends(
    raised: BaseException, told: type[JournalError]
) -> None:
    async def main() -> None:
        journal = LossyJournal()
        coordinator: Coordinator[Shop] = make(Shop(), Tip, journal=journal)

        async def fail(_: int) -> None:
            raise raised

        async with coordinator:
            journal.in_between = fail
            journal.fates = [(Outcome, "lost")]
            with pytest.raises(told, match=str(raised)):
                await coordinator.execute(Tip("a"))
            with pytest.raises(told):
                raise await coordinator.wait_failed()

    run(main())


def start(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    return asyncio.get_running_loop().create_task(work)


def _key_of(partition: int, partitions: int) -> str:
    """Return a key whose commands belong to *partition*."""
    return next(
        key
        for key in map(str, range(1000))
        if zlib.crc32(key.encode()) % partitions == partition
    )
