"""The journal port: what the engine needs of a log, and nothing of how it is done.

A partition is a sequence of batches; a batch is the unit of durability. Three
sentences hold on every backend, and `tests/conformance` asks each of them:

1. When `write` returns, the batch is durable and lies exactly behind the last one;
   when it raises anything but `JournalFullError`, the handle is dead for good.
2. An acknowledged batch lies before every later claim. So a reader who drops batches
   of an older epoch behind a newer claim drops nothing that was acknowledged.
3. Nothing is ever tried again inside a backend: a second try could put a batch down
   twice. One write is in flight at a time.
"""

from collections.abc import AsyncIterator, Callable
from typing import Protocol

from coordinator.batch import Batch
from coordinator.errors import JournalError
from coordinator.model import Position

__all__ = ["Journal", "Partition"]


class Partition(Protocol):
    """One opened partition, claimed by us under an epoch of our own."""

    @property
    def number(self) -> int:
        """Which partition of the journal it is, from 0."""
        ...

    @property
    def epoch(self) -> int:
        """Ours: larger than that of every batch before our claim."""
        ...

    @property
    def end(self) -> Position:
        """The position of the next record. Behind our claim when just opened."""
        ...

    @property
    def crc(self) -> int:
        """The crc of the last batch, which the next one has to name."""
        ...

    @property
    def full(self) -> str:
        """Why no new command should be taken: space is short; empty if it is not.

        Space for what is running is set aside, so writing goes on meanwhile. Turns
        empty by itself once space was found.
        """
        ...

    def watch(self, on_death: Callable[[JournalError], None]) -> None:
        """Have *on_death* called, once, if the handle dies while nobody waits for it.

        Of what it does by itself, e.g. taking space ahead. At once if that has happened
        already. What a call raises is said by that call alone.
        """
        ...

    async def write(self, batch: Batch) -> None:
        """Make *batch* durable; it must start at `end` and name `crc`.

        One call at a time.

        Cancellation: don't; the handle is dead then, as after `UncertainError`.

        Raises:
            JournalFullError: No space. Nothing was written, the handle lives.
            FencedError: Somebody newer owns the partition.
            UncertainError: Nobody knows whether it landed.
            JournalBrokenError: A write or flush failed.
            JournalClosedError: `aclose` was called.
        """
        ...

    def read(self, since: Position) -> AsyncIterator[Batch]:
        """Yield the valid batches in order, from the one that holds *since*.

        From the oldest one kept, if *since* lies before that. Ends at our own claim,
        included: what was written after opening is not read.

        Raises:
            FencedError: Somebody newer owns the partition, and has trimmed what was to
                be read.
            JournalDamagedError: Stored bytes are not what was written.
            JournalBrokenError: They can't be read.
        """
        ...

    async def save_checkpoint(self, low: Position, data: bytes) -> None:
        """Store *data* in the place of the checkpoint before; durable on return.

        Args:
            low: No record before this position is needed to go on from *data*. What
                lies before it may be trimmed.
            data: The engine's; of any size.

        Cancellation: the old or the new one is stored, never a mixture.

        Raises:
            JournalFullError: No space; the one before stands.
            FencedError: Somebody newer owns the partition. A backend may find that out
                here, or with the next write.
            JournalBrokenError: It can't be stored, or nobody knows whether it is.
        """
        ...

    async def load_checkpoint(self) -> bytes | None:
        """Return the last stored checkpoint; None if there is none.

        Raises:
            FencedError: Somebody newer owns the partition, and has trimmed it away.
            JournalDamagedError: It is not what was stored.
        """
        ...

    async def trim(self, before: Position) -> None:
        """Let go of what lies before *before*, a position of a stored checkpoint.

        A hint: retention and the size of segments decide what goes, and when. What is
        gone from `read` may still be kept in an archive.
        """
        ...

    async def aclose(self) -> None:
        """Give the partition up. Waits for a write in flight; may be called twice."""
        ...


class Journal(Protocol):
    """A journal of one or more partitions. Opening it does not claim any of them."""

    @property
    def id(self) -> str:
        """Its id, made when it was created: part of every idempotency key."""
        ...

    @property
    def partitions(self) -> int:
        """How many it has; fixed when it was created."""
        ...

    @property
    def full(self) -> str:
        """`Partition.full` of those that are opened, one behind the other."""
        ...

    async def open(self, partition: int, *, owner: str, at: int) -> Partition:
        """Claim *partition* and return it, ready to be read and then written.

        The claim (a `Claimed` record, epoch = highest seen + 1) is durable on return.

        Args:
            partition: Which one, from 0.
            owner: Says to people who we are.
            at: Now, in microseconds since 1970.

        Raises:
            JournalLockedError: Another process holds it.
            JournalDamagedError: Stored bytes are not what was written.
            JournalFormatError: Of a newer format.
            JournalFullError: There is no space for the claim.
            JournalBrokenError: The claim can't be written, or what is there not read.
        """
        ...

    async def aclose(self) -> None:
        """Let go of everything; partitions are closed first. May be called twice."""
        ...
