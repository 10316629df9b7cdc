"""The journal of a rehearsal: in memory, and each write of it a moment to be killed at.

What was written survives the process, as on a disk; what was not is gone with it.
"""

from collections.abc import AsyncIterator
from typing import Protocol

from coordinator.batch import Batch
from coordinator.journals.memory import MemoryJournal
from coordinator.model import Position
from coordinator.ports import Partition
from coordinator.records import Record
from coordinator.testing.words import batch_words

__all__ = ["Audience", "StageJournal"]


class Audience(Protocol):
    """Who is told of each write."""

    records: list[tuple[Position, Record]]

    async def moment(self, what: str) -> None:
        """A write is about to be made, or was made; may not return."""
        ...

    def landed(self, entries: list[tuple[Position, Record]]) -> None:
        """It is in the journal now."""
        ...


class StageJournal:
    """A memory journal whose every write is a moment. See `coordinator.ports`."""

    def __init__(self, stage: Audience) -> None:
        self._stage = stage
        self._inner = MemoryJournal(journal_id="rehearsal")

    @property
    def id(self) -> str:
        """See the port."""
        return self._inner.id

    @property
    def partitions(self) -> int:
        """See the port."""
        return self._inner.partitions

    @property
    def full(self) -> str:
        """See the port."""
        return self._inner.full

    async def open(self, partition: int, *, owner: str, at: int) -> "_StagePartition":
        """See the port."""
        # Process id and host are what no seed decides.
        opened = await self._inner.open(partition, owner="rehearsal", at=at)
        return _StagePartition(opened, self._stage)

    async def aclose(self) -> None:
        """See the port."""
        await self._inner.aclose()

    def let_go(self) -> None:
        """Do what the system does for a process that was killed: give up its locks."""
        if not self._stage.records:
            # Nothing but a claim is in it, and a workflow's id is its position: begun
            # again, the id is the same as if nobody had been killed.
            self._inner = MemoryJournal(journal_id="rehearsal")
            return
        closing = self._inner.aclose()
        try:
            closing.send(None)
        except StopIteration:
            return
        raise AssertionError("a write of a dead process is still under way")


class _StagePartition:
    """See `coordinator.ports.Partition`."""

    def __init__(self, inner: Partition, stage: Audience) -> None:
        self._inner = inner
        self._stage = stage
        self.number = inner.number
        self.epoch = inner.epoch
        self.watch = inner.watch
        self.save_checkpoint = inner.save_checkpoint
        self.load_checkpoint = inner.load_checkpoint
        self.trim = inner.trim
        self.aclose = inner.aclose

    @property
    def end(self) -> Position:
        return self._inner.end

    @property
    def crc(self) -> int:
        return self._inner.crc

    @property
    def full(self) -> str:
        return self._inner.full

    async def write(self, batch: Batch) -> None:
        entries = list(batch.records())
        words = batch_words([record for _, record in entries])
        await self._stage.moment(f"before {words} written")
        await self._inner.write(batch)
        # The same step of the same task: nobody has acted on it before we say it.
        self._stage.landed(entries)
        await self._stage.moment(f"after {words} written")

    def read(self, since: Position) -> AsyncIterator[Batch]:
        return self._inner.read(since)
