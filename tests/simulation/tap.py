"""A journal between the engine and a journal, that writes down what passes.

What the checker knows of the log it knows from here: what recovery read, what was
handed over to be written, and what the journal said is durable. It is the port, no
more; the engine can't tell.
"""

from collections.abc import AsyncIterator, Callable

from tests.simulation.history import History

from coordinator.batch import Batch
from coordinator.errors import JournalError
from coordinator.model import Position
from coordinator.ports import Journal, Partition
from coordinator.records import Record

__all__ = ["TappedJournal", "TappedPartition"]


def _entries(batch: Batch) -> list[tuple[int, Record]]:
    return [(int(position), record) for position, record in batch.records()]


class TappedPartition:
    """See `coordinator.ports.Partition`."""

    def __init__(self, inner: Partition, history: History) -> None:
        self.inner = inner
        self._history = history

    @property
    def number(self) -> int:
        return self.inner.number

    @property
    def epoch(self) -> int:
        return self.inner.epoch

    @property
    def end(self) -> Position:
        return self.inner.end

    @property
    def crc(self) -> int:
        return self.inner.crc

    @property
    def full(self) -> str:
        return self.inner.full

    def watch(self, on_death: Callable[[JournalError], None]) -> None:
        self.inner.watch(on_death)

    async def write(self, batch: Batch) -> None:
        entries = _entries(batch)
        self._history.add("journal.writing", records=entries)
        await self.inner.write(batch)
        # The same step of the same task: nobody has acted on it before we say it.
        self._history.add("journal.durable", records=entries)

    async def read(self, since: Position) -> AsyncIterator[Batch]:
        entries: list[tuple[int, Record]] = []
        async for batch in self.inner.read(since):
            entries += _entries(batch)
            yield batch
        self._history.add(
            "journal.read", since=int(since), epoch=self.epoch, records=entries
        )

    async def save_checkpoint(self, low: Position, data: bytes) -> None:
        await self.inner.save_checkpoint(low, data)
        self._history.add("journal.checkpoint", low=int(low), size=len(data))

    async def load_checkpoint(self) -> bytes | None:
        return await self.inner.load_checkpoint()

    async def trim(self, before: Position) -> None:
        self._history.add("journal.trim", before=int(before))
        await self.inner.trim(before)

    async def aclose(self) -> None:
        await self.inner.aclose()


class TappedJournal:
    """See `coordinator.ports.Journal`."""

    def __init__(self, inner: Journal, history: History) -> None:
        self.inner = inner
        self._history = history

    @property
    def id(self) -> str:
        return self.inner.id

    @property
    def partitions(self) -> int:
        return self.inner.partitions

    @property
    def full(self) -> str:
        return self.inner.full

    async def open(self, partition: int, *, owner: str, at: int) -> TappedPartition:
        # Process id and host are what no seed decides.
        opened = await self.inner.open(partition, owner="simulated", at=at)
        self._history.add("journal.claimed", epoch=opened.epoch)
        return TappedPartition(opened, self._history)

    async def aclose(self) -> None:
        await self.inner.aclose()
