"""What is said when the journal fails under the engine."""

import asyncio
from dataclasses import dataclass

import pytest
from tests.engine.support import Shop, make, run

from coordinator import Workflow
from coordinator.batch import Batch
from coordinator.errors import JournalBrokenError
from coordinator.journals.memory import MemoryJournal, MemoryPartition


@dataclass
class Pay:
    id: str

    def key(self) -> str:
        return self.id

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        return (await workflow.step(shop.payments.do)).number


class DyingJournal(MemoryJournal):
    """Each of its partitions fails at the first write."""

    async def open(self, partition: int, *, owner: str, at: int) -> MemoryPartition:
        opened = await super().open(partition, owner=owner, at=at)

        async def write(_: Batch) -> None:
            raise JournalBrokenError(f"p{partition}: could not append: no such device")

        setattr(opened, "write", write)  # noqa: B010 -- one instance's method
        return opened


def test_a_failed_journal_is_told_in_one_line_with_what_to_do(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        journal = DyingJournal(partitions=3)
        coordinator = make(Shop(), Pay, journal=journal)

        async def submit(number: int) -> None:
            with pytest.raises(JournalBrokenError):
                await coordinator.submit(Pay(str(number)))

        async with coordinator, asyncio.TaskGroup() as group:
            for number in range(9):  # over all partitions
                group.create_task(submit(number))

    run(main())
    (said,) = (r.getMessage() for r in caplog.records if r.levelname == "CRITICAL")
    assert "could not append: no such device" in said
    assert "restart the process" in said
