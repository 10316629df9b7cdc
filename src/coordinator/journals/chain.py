"""Which batches of a partition count: the one rule of every backend's reader.

A partition's log may hold more than its valid batches. Where the log itself has no
fence (Kafka, JetStream with several writes in flight), what an old owner sent lands
behind the claim of a newer one; it was never acknowledged. Read in the log's order, a
batch is

    stale      its epoch is older than one seen before it: dropped, counts for nothing
    next       it starts where the last valid one ended, and names its crc
    unchained  anything else. On a log that nobody else can write to, that is damage.
               On a shared log it is a claimant that lost the race, or an owner that
               had not noticed it: dropped, and its epoch counts for nothing either

So every reader, whoever it is, sees the same valid batches.
"""

import enum

from coordinator.batch import Batch

__all__ = ["Chain", "Verdict"]


class Verdict(enum.Enum):
    """What a batch is to a reader who has seen all before it."""

    NEXT = enum.auto()
    STALE = enum.auto()
    UNCHAINED = enum.auto()


class Chain:
    """How far the valid batches go: the place where the next one belongs."""

    __slots__ = ("crc", "end", "epoch")

    def __init__(self, *, epoch: int = 0, end: int = 0, crc: int = 0) -> None:
        self.epoch: int = epoch
        """Of the last valid batch; 0 before the first claim."""
        self.end: int = end
        """The position of the next record."""
        self.crc: int = crc
        """Of the last valid batch, which the next one has to name."""

    def take(self, batch: Batch) -> Verdict:
        """Judge *batch*, the next one in the log, and move on if it is valid."""
        if batch.epoch < self.epoch:
            return Verdict.STALE
        if batch.first != self.end or batch.previous_crc != self.crc:
            return Verdict.UNCHAINED
        self.epoch = batch.epoch
        self.end = batch.first + batch.count
        self.crc = batch.crc
        return Verdict.NEXT
