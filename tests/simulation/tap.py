"""A journal between the engine and a journal, that writes down what passes.

What the checker knows of the log it knows from here: what recovery read, what was
handed over to be written, and what the journal said is durable. It is the port, no
more; the engine can't tell.

It also lies, as the port may: it does what it was asked for, or does not, and says that
nobody knows. Then it is dead, as the port demands.
"""

import random
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

import msgspec
from tests.simulation.history import History

from coordinator.batch import Batch
from coordinator.errors import JournalBrokenError, JournalError, UncertainError
from coordinator.model import Position
from coordinator.ports import Journal, Partition
from coordinator.records import Record

__all__ = ["PortFaults", "TappedJournal", "TappedPartition"]


@dataclass
class PortFaults:
    """How likely a call of the port ends with nobody knowing whether it was done."""

    chance: random.Random
    uncertain: float
    counts: Counter[str] = field(default_factory=Counter[str])

    def draw(self, what: str) -> str:
        """Draw what becomes of a call: ``done``, ``undone``, or nothing special."""
        if self.uncertain <= 0 or self.chance.random() >= self.uncertain:
            return ""
        fate = self.chance.choice(("done", "undone"))
        self.counts[f"{what} {fate}, and then an error"] += 1
        return fate


def _entries(batch: Batch) -> list[tuple[int, Record]]:
    return [(int(position), record) for position, record in batch.records()]


class TappedPartition:
    """See `coordinator.ports.Partition`."""

    def __init__(self, inner: Partition, history: History, faults: PortFaults) -> None:
        self.inner = inner
        self._history = history
        self._faults = faults
        self._death = ""

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
        self._check()
        entries = _entries(batch)
        self._history.add("journal.writing", records=entries)
        fate = self._faults.draw("journal write")
        if fate != "undone":
            await self.inner.write(batch)
        if fate:
            self._death = f"nobody knows whether {batch.first} was written"
            raise UncertainError(self._death)
        # The same step of the same task: nobody has acted on it before we say it.
        self._history.add("journal.durable", records=entries)

    async def read(self, since: Position) -> AsyncIterator[Batch]:
        self._check()
        entries: list[tuple[int, Record]] = []
        async for batch in self.inner.read(since):
            entries += _entries(batch)
            yield batch
        self._history.add(
            "journal.read", since=int(since), epoch=self.epoch, records=entries
        )

    async def save_checkpoint(self, low: Position, data: bytes) -> None:
        self._check()
        _, _, ended = msgspec.msgpack.decode(data)
        self._history.add(
            "journal.checkpoint",
            low=int(low),
            size=len(data),
            kept=len(ended),
            kept_size=sum(len(one[1]) + len(one[4]) for one in ended),
        )
        fate = self._faults.draw("checkpoint")
        if fate != "undone":
            await self.inner.save_checkpoint(low, data)
        if fate:
            self._die("save the checkpoint")

    async def load_checkpoint(self) -> bytes | None:
        self._check()
        return await self.inner.load_checkpoint()

    async def trim(self, before: Position) -> None:
        self._check()
        self._history.add("journal.trim", before=int(before))
        fate = self._faults.draw("trim")
        if fate != "undone":
            await self.inner.trim(before)
        if fate:
            self._die("trim")

    async def aclose(self) -> None:
        await self.inner.aclose()

    def _check(self) -> None:
        if self._death:
            raise JournalBrokenError(self._death)

    def _die(self, doing: str) -> None:
        self._death = f"could not {doing}: or could it"
        raise JournalBrokenError(self._death)


class TappedJournal:
    """See `coordinator.ports.Journal`."""

    def __init__(self, inner: Journal, history: History, faults: PortFaults) -> None:
        self.inner = inner
        self._history = history
        self._faults = faults

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
        fate = self._faults.draw("claim")
        if fate == "undone":
            raise JournalBrokenError("could not claim")
        # Process id and host are what no seed decides.
        opened = await self.inner.open(partition, owner="simulated", at=at)
        if fate:
            await opened.aclose()
            raise UncertainError("nobody knows whether the claim was written")
        self._history.add("journal.claimed", epoch=opened.epoch)
        return TappedPartition(opened, self._history, self._faults)

    async def aclose(self) -> None:
        await self.inner.aclose()
