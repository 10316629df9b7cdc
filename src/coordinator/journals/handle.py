"""What every opened partition keeps: where it ends, and whether it may still be used.

    alive --closed()--> closed      every call raises JournalClosedError
      `---failed()----> dead        every call raises what killed it, for ever

A handle dies of the first failure that leaves any doubt. Only `JournalFullError` leaves
none: nothing was written.
"""

from collections.abc import Callable

from coordinator.batch import Batch, encode_batch
from coordinator.errors import (
    FencedError,
    JournalBrokenError,
    JournalClosedError,
    JournalError,
    JournalFullError,
    UncertainError,
)
from coordinator.journals.chain import Chain
from coordinator.model import Position
from coordinator.rare import sometimes
from coordinator.records import Claimed, encode_record

__all__ = ["Handle", "HeldPartition", "encode_claim"]


def encode_claim(chain: Chain, *, owner: str, at: int) -> Batch:
    """Make the batch that claims a partition whose valid batches end as *chain* says.

    A batch of its own, so that it lands as a whole or not at all.
    """
    epoch = chain.epoch + 1
    claim = encode_record(Claimed(epoch=epoch, owner=owner, at=at))
    return encode_batch([claim], epoch=epoch, first=chain.end, previous_crc=chain.crc)


class Handle:
    """The end of a claimed partition, and its life."""

    __slots__ = ("_death", "_writing", "crc", "end", "epoch")

    def __init__(self, claim: Batch) -> None:
        self.epoch = claim.epoch
        self.end: Position = claim.end
        self.crc = claim.crc
        self._writing = False
        self._death: tuple[type[JournalError], str] | None = None

    @property
    def alive(self) -> bool:
        """Whether it is neither dead nor closed."""
        return self._death is None

    def check(self) -> None:
        """Pass if the handle is alive.

        Raises:
            JournalError: What it died of, or `JournalClosedError`.
        """
        if self._death is not None:
            kind, message = self._death
            # A new one each time: a raised exception collects tracebacks.
            raise kind(message)

    def begin(self, batch: Batch) -> None:
        """Note that *batch* is about to be written; `landed` or `failed` must follow.

        Raises:
            JournalError: As `check`.
        """
        self.check()
        assert not self._writing, "one write at a time"
        assert batch.epoch == self.epoch, (batch.epoch, self.epoch)
        assert batch.first == self.end, (batch.first, self.end)
        assert batch.previous_crc == self.crc, (batch.previous_crc, self.crc)
        self._writing = True

    def landed(self, batch: Batch) -> None:
        """Note that *batch* is durable."""
        self._writing = False
        self.end = batch.end
        self.crc = batch.crc

    def failed(self, error: BaseException) -> None:
        """Note that a write, or anything else, ended in *error*."""
        self._writing = False
        if isinstance(error, JournalFullError) or self._death is not None:
            return
        match error:
            case FencedError() | UncertainError() | JournalBrokenError():
                self._death = (type(error), str(error))
            case _:
                # A cancelled write, or a bug in a backend: it may have landed.
                message = (
                    f"nobody knows whether the write at position {self.end} landed: "
                    f"it ended in {type(error).__name__}"
                )
                self._death = (UncertainError, message)

    def closed(self) -> None:
        """Note that the handle was closed; a dead one stays what it is."""
        if self._death is None:
            self._death = (JournalClosedError, "the partition was closed")


class HeldPartition:
    """What a partition says of itself by its handle; the base of every adapter's."""

    def __init__(self, claim: Batch) -> None:
        self._handle = Handle(claim)
        self._on_death: Callable[[JournalError], None] | None = None
        self._untold: JournalError | None = None
        """What it died of in the background, until somebody was told."""

    def watch(self, on_death: Callable[[JournalError], None]) -> None:
        """See the port."""
        self._on_death = on_death
        self._tell_death()

    def _died(self, error: BaseException) -> None:
        """Note that something that nobody waits for ended in *error*, and tell."""
        sometimes("partition died in the background")
        self._handle.failed(error)
        try:
            self._handle.check()
        except JournalClosedError:
            return  # it was given up; nobody minds any more
        except JournalError as death:
            self._untold = death
        self._tell_death()

    def _tell_death(self) -> None:
        if self._on_death is not None and self._untold is not None:
            death, self._untold = self._untold, None
            self._on_death(death)

    @property
    def epoch(self) -> int:
        """See the port."""
        return self._handle.epoch

    @property
    def end(self) -> Position:
        """See the port."""
        return self._handle.end

    @property
    def crc(self) -> int:
        """See the port."""
        return self._handle.crc
