"""Which messages of a partition's stream count: parts into batches, batches in a chain.

    foreign     not written by this journal at this sequence: named, and passed over
    part        of a batch that is not whole yet; one that never gets whole was never
                acknowledged, and is passed over
    batch       judged by `chain.Chain`: next, or stale, which is passed over

A batch that is neither next nor stale can't be there: who writes names the sequence
that the stream ends with, and has read what lies there. So a message is missing, or was
damaged, and that is said instead of going on without it.
"""

from coordinator.batch import Batch, BatchError, decode_batch
from coordinator.journals.chain import Chain, Verdict
from coordinator.journals.nats.layout import (
    Kind,
    Message,
    MessageError,
    damaged,
    decode_message,
)

__all__ = ["Reader"]


class Reader:
    """Takes the batch messages of a partition in their order."""

    def __init__(self, *, journal_id: bytes, partition: int, stream: str) -> None:
        self._journal_id = journal_id
        self._partition = partition
        self._stream = stream
        self._chain: Chain | None = None
        self._parts: list[bytes] = []
        self._began = 0
        self.foreign: str = ""
        """The first message that is not ours, and why; empty if there is none."""
        self.foreign_count = 0

    @property
    def began(self) -> int:
        """The sequence of the first part of the batch that `take` returned last."""
        return self._began

    def take(self, sequence: int, data: bytes) -> Batch | None:
        """Take the next message; return the batch that is whole with it, if it counts.

        Raises:
            JournalDamagedError: One before it is missing, or damaged.
            JournalFormatError: It is of a newer format.
        """
        try:
            message = decode_message(
                data,
                journal_id=self._journal_id,
                partition=self._partition,
                sequence=sequence,
            )
        except MessageError as error:
            self.foreign_count += 1
            self.foreign = self.foreign or f"sequence {sequence}: {error}"
            return None
        whole = self._join(message)
        if whole is None:
            return None
        try:
            batch = decode_batch(whole)
        except BatchError as error:
            raise damaged(self._stream, sequence, str(error)) from error
        if self._chain is None:
            # After a trim the oldest one says where the chain begins.
            self._chain = Chain(end=batch.first, crc=batch.previous_crc)
        end = self._chain.end
        verdict = self._chain.take(batch)
        if verdict is Verdict.UNCHAINED:
            raise damaged(
                self._stream,
                sequence,
                f"the batch at position {batch.first} does not follow the one that "
                f"ends at {end}, so something between them is missing"
                + (f" ({self.foreign})" if self.foreign else ""),
            )
        return batch if verdict is Verdict.NEXT else None

    def _join(self, message: Message) -> bytes | None:
        """Put a part to those before it; return the batch if it was the last one."""
        if message.kind is not Kind.BATCH:
            return None
        if message.index == 0:
            self._parts = []
            self._began = message.sequence
        elif message.index != len(self._parts):
            self._parts = []
            return None
        self._parts.append(message.body)
        if len(self._parts) < message.count:
            return None
        whole, self._parts = b"".join(self._parts), []
        return whole
