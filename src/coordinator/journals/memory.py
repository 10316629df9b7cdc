"""The ``memory:`` journal: batches in a list, for tests and for trying things out.

It keeps every promise of the port but durability, which ends with the object. `aclose`
lets go of the partitions, not of what they hold: open one again on the same object and
it is recovered like any other, under a new epoch.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from coordinator.batch import Batch
from coordinator.errors import JournalLockedError
from coordinator.journals.chain import Chain, Verdict
from coordinator.journals.handle import HeldPartition, encode_claim
from coordinator.model import Position

__all__ = ["MemoryJournal", "MemoryPartition"]


@dataclass(slots=True)
class _Log:
    """What one partition holds, whoever has it open."""

    batches: list[Batch] = field(default_factory=list[Batch])
    checkpoint: bytes | None = None
    low: int = 0
    holder: "MemoryPartition | None" = None


class MemoryPartition(HeldPartition):
    """One opened partition of a `MemoryJournal`; see `coordinator.ports.Partition`."""

    def __init__(self, number: int, log: _Log, claim: Batch, owner: str) -> None:
        super().__init__(claim)
        self.owner = owner
        self._number = number
        self._log = log
        self._claim = claim
        self._writing: asyncio.Future[None] | None = None

    @property
    def number(self) -> int:
        """See the port."""
        return self._number

    @property
    def full(self) -> str:
        """See the port. Memory does not tell."""
        return ""

    async def write(self, batch: Batch) -> None:
        """See the port. Takes one turn of the loop, so that what runs beside it can."""
        self._handle.begin(batch)
        self._writing = asyncio.get_running_loop().create_future()
        try:
            await asyncio.sleep(0)
        except BaseException as error:
            self._handle.failed(error)
            raise
        else:
            self._log.batches.append(batch)
            self._handle.landed(batch)
        finally:
            self._writing.set_result(None)
            self._writing = None

    async def read(self, since: Position) -> AsyncIterator[Batch]:
        """See the port."""
        self._handle.check()
        for batch in list(self._log.batches):
            if batch.first > self._claim.first:
                break
            if batch.end > since:
                yield batch

    async def save_checkpoint(self, low: Position, data: bytes) -> None:
        """See the port."""
        self._handle.check()
        assert 0 <= low <= self.end, (low, self.end)
        self._log.low = low
        self._log.checkpoint = data

    async def load_checkpoint(self) -> bytes | None:
        """See the port."""
        self._handle.check()
        return self._log.checkpoint

    async def trim(self, before: Position) -> None:
        """See the port. Whole batches go, and at once."""
        self._handle.check()
        before = Position(min(before, self._log.low))
        batches = self._log.batches
        # The last one stays: it says where the next one belongs.
        while len(batches) > 1 and batches[0].end <= before:
            del batches[0]

    async def aclose(self) -> None:
        """See the port."""
        self._handle.closed()
        if self._writing is not None:
            await asyncio.shield(self._writing)
        if self._log.holder is self:
            self._log.holder = None


class MemoryJournal:
    """A journal that is gone with the object; see `coordinator.ports.Journal`."""

    def __init__(self, *, partitions: int = 1, journal_id: str = "") -> None:
        assert partitions >= 1
        self._id = journal_id or secrets.token_hex(16)
        self._logs = [_Log() for _ in range(partitions)]
        self._opened: list[MemoryPartition] = []

    @property
    def id(self) -> str:
        """See the port."""
        return self._id

    @property
    def partitions(self) -> int:
        """See the port."""
        return len(self._logs)

    @property
    def full(self) -> str:
        """See the port. Memory does not tell."""
        return ""

    async def open(self, partition: int, *, owner: str, at: int) -> MemoryPartition:
        """See the port."""
        log = self._logs[partition]
        if log.holder is not None:
            raise JournalLockedError(f"memory: partition {partition}", log.holder.owner)
        chain = Chain()
        if log.batches:
            # After a trim the oldest kept batch says where the chain begins.
            oldest = log.batches[0]
            chain = Chain(end=oldest.first, crc=oldest.previous_crc)
        for batch in log.batches:
            verdict = chain.take(batch)
            assert verdict is Verdict.NEXT
        claim = encode_claim(chain, owner=owner, at=at)
        log.batches.append(claim)
        log.holder = opened = MemoryPartition(partition, log, claim, owner)
        self._opened.append(opened)
        return opened

    async def aclose(self) -> None:
        """See the port."""
        while self._opened:
            await self._opened.pop().aclose()
