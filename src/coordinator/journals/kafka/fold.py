"""Which messages of a partition count: the same for every reader, at any time.

    Scan.take(offset, data) ... for each message from the start of the log
    Scan.fold()             --> the checkpoint, the valid batches' end, the last of them

The rules, argued in docs/kafka-journal.md:

1. The stored checkpoint is the commit of the highest epoch, of these the last one.
2. Reading starts at its base; without one at offset 0, or the log's start is lost.
3. From there on `Chain` judges each batch in the order of offsets: next, or void.
4. A batch that begins behind the end, or names another crc than the one that lies
   there, is no void one: all that are void were made from a prefix of the log. So
   something is missing before it, and that is damage.
"""

import struct
from collections.abc import Iterable

from coordinator.batch import Batch
from coordinator.errors import JournalDamagedError, JournalFormatError
from coordinator.journals.chain import Chain, Verdict
from coordinator.journals.kafka import failures
from coordinator.journals.kafka.landmarks import Landmarks
from coordinator.journals.kafka.messages import (
    Commit,
    DamagedMessageError,
    Identity,
    Landmark,
    Message,
    Stranger,
    decode_message,
)

__all__ = ["Folded", "Place", "Scan", "Strangers", "take"]

_HEADER = struct.Struct("<QQQIII")
"""Offset, epoch, first position, count, previous crc, crc: enough to judge a batch."""


class Place:
    """A partition of a topic, as errors name it."""

    def __init__(self, topic: str, identity: Identity) -> None:
        self.topic = topic
        self.identity = identity

    def __str__(self) -> str:
        return f"partition {self.identity.partition} of topic {self.topic}"

    def decode(self, offset: int, data: bytes) -> Message:
        """Decode the message at *offset*.

        Raises:
            JournalDamagedError: It is ours, and makes no sense.
            JournalFormatError: It is ours, of a newer format.
        """
        try:
            return decode_message(data, self.identity)
        except DamagedMessageError as error:
            raise self.damaged(offset, str(error)) from error
        except JournalFormatError as error:
            raise JournalFormatError(f"offset {offset} of {self}: {error}") from error

    def damaged(self, offset: int, problem: str) -> JournalDamagedError:
        """Return the error that says what is wrong at *offset*."""
        return failures.damaged(str(self), offset, problem)


class Strangers:
    """The messages that are none of ours: how many, and one to look at."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._count = 0
        self._first = ""

    def note(self, offset: int, stranger: Stranger) -> None:
        """Remember that there was one at *offset*."""
        self._count += 1
        if not self._first:
            self._first = f"at offset {offset}: {stranger.why}"

    def tell(self) -> str:
        """Return what to tell people, once; empty if there is nothing new."""
        if not self._count:
            return ""
        told = (
            f"someone else writes to {self._place}: {self._count} of its messages are "
            f"none of this journal's, the first {self._first}; they are passed over, "
            f"see to it that nobody but the coordinator may write there"
        )
        self._count, self._first = 0, ""
        return told


class Folded:
    """What a scanned partition comes to."""

    def __init__(self, commit: Commit | None, landmarks: Landmarks) -> None:
        base = landmarks.base
        self.commit = commit
        self.commit_offset = -1
        self.landmarks = landmarks
        self.chain = Chain(epoch=base.epoch, end=base.position, crc=base.crc)
        self.last = -1
        """Offset of the last valid batch; -1 if there is none."""


class Scan:
    """What was read of a partition so far; forty bytes per batch are kept."""

    def __init__(self, place: Place, start: int) -> None:
        """Begin.

        Args:
            place: Which partition.
            start: The offset at which its log starts; 0 until something was trimmed.
        """
        self._place = place
        self._start = start
        self.end = start
        """The offset of what is read next."""
        self._headers = bytearray()
        self._commit: tuple[Commit, int] | None = None
        self.strangers = Strangers(place)

    def read(self, messages: Iterable[tuple[int, bytes]]) -> None:
        """Take *messages*, each with its offset, in order.

        Raises:
            JournalDamagedError: One is ours, and makes no sense.
            JournalFormatError: One is ours, of a newer format.
        """
        for offset, data in messages:
            self.end = offset + 1
            match self._place.decode(offset, data):
                case Batch(epoch, first, count, previous_crc, crc):
                    header = (offset, epoch, first, count, previous_crc, crc)
                    self._headers += _HEADER.pack(*header)
                case Commit() as commit:
                    best = self._commit
                    if best is None or commit.epoch >= best[0].epoch:
                        self._commit = commit, offset
                case Stranger() as stranger:
                    self.strangers.note(offset, stranger)
                case _:
                    pass  # what founds it, and chunks: found again by their commit

    def fold(self) -> Folded:
        """Judge all that was read.

        Raises:
            JournalDamagedError: Something is missing.
        """
        folded = self._base()
        base, chain = folded.landmarks.base, folded.chain
        for offset, *header in _HEADER.iter_unpack(self._headers):
            if offset < base.offset:
                continue
            epoch, first, count, previous_crc, crc = header
            batch = Batch(epoch, first, count, previous_crc, crc, b"")
            before = Landmark(offset, chain.end, chain.epoch, chain.crc)
            if take(chain, batch, self._place, offset):
                if offset > base.offset:
                    folded.landmarks.add(before)
                folded.last = offset
        commit = folded.commit
        if commit is not None and chain.end < commit.end:
            raise self._place.damaged(
                folded.commit_offset,
                f"the checkpoint there counts on records up to position {commit.end}, "
                f"the log ends at {chain.end}: what was acknowledged is gone",
            )
        return folded

    def _base(self) -> Folded:
        if self._commit is None:
            if self._start > 0:
                raise self._place.damaged(
                    self._start,
                    "what lay before is gone, and no checkpoint says that it may: was "
                    "it deleted by a retention, or by hand?",
                )
            return Folded(None, Landmarks(Landmark(0, 0, 0, 0)))
        commit, offset = self._commit
        needed = commit.base.offset  # its chunks lie behind
        if needed < self._start:
            raise self._place.damaged(
                self._start,
                f"what lay before is gone, and the checkpoint at offset {offset} needs "
                f"it from {needed} on: was it deleted by a retention, or by hand?",
            )
        folded = Folded(commit, Landmarks(commit.base))
        folded.commit_offset = offset
        return folded


def take(chain: Chain, batch: Batch, place: Place, offset: int) -> bool:
    """Judge *batch*, move *chain* on if it is valid, and say whether it was.

    Raises:
        JournalDamagedError: Something is missing before it.
    """
    verdict = chain.take(batch)
    if verdict is Verdict.UNCHAINED and batch.first >= chain.end:
        raise place.damaged(
            offset,
            f"the batch from position {batch.first} does not follow on the one "
            f"before, which ends at {chain.end}: something between them is gone",
        )
    return verdict is Verdict.NEXT
