"""One opened partition: a stream to which we alone write, one message at a time.

    write            parts of the batch -----.
                                              >--- one at a time --> sequence + 1
    save_checkpoint  chunks, then the last --'

Each message names the sequence that it goes to, and is stored there or not at all. The
next one is sent when the one before was acknowledged. So once somebody newer has
claimed the partition, nothing of ours is stored any more, whatever is still under way:
what an old owner had acknowledged lies before the claim, and nothing of it behind.
"""

import asyncio
import logging
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress

import msgspec

from coordinator.batch import Batch, decode_batch
from coordinator.errors import (
    CoordinatorError,
    DecodeError,
    FencedError,
    JournalBrokenError,
    JournalError,
    JournalFullError,
    UncertainError,
)
from coordinator.journals.handle import HeldPartition
from coordinator.journals.nats.answers import Doubtful, NoSpace, Overtaken, Stored
from coordinator.journals.nats.checks import PROTOCOL_SIZE
from coordinator.journals.nats.connection import (
    ApiProblem,
    Connection,
    LostError,
    NoAnswerError,
)
from coordinator.journals.nats.index import Index
from coordinator.journals.nats.layout import (
    CHECKPOINT_HEAD_SIZE,
    MESSAGE_HEADER_SIZE,
    CheckpointHead,
    Kind,
    Message,
    MessageError,
    Tail,
    damaged,
    decode_checkpoint_head,
    encode_checkpoint_head,
    split,
)
from coordinator.journals.nats.reading import Reader
from coordinator.journals.nats.stream import End, Stream
from coordinator.model import Position
from coordinator.records import Claimed

__all__ = ["NatsPartition", "tail_behind"]

_LOGGER = logging.getLogger("coordinator")
_NO_ANSWER = (ApiProblem, LostError, NoAnswerError)


def tail_behind(batch: Batch, before: Tail) -> Tail:
    """Return the tail of a stream that ends with *batch*."""
    return Tail(batch.epoch, batch.end, batch.crc, before.checkpoint)


class NatsPartition(HeldPartition):
    """A partition that we have claimed; see `coordinator.ports.Partition`."""

    def __init__(
        self,
        connection: Connection,
        stream: Stream,
        claim: Batch,
        end: End,
        *,
        size_max: int,
        on_close: Callable[["NatsPartition"], None],
    ) -> None:
        """Take over a stream that ends with our claim.

        Args:
            connection: Ours from now on.
            stream: Over that connection.
            claim: What we have put at the end.
            end: With it.
            size_max: Bytes that the stream takes as one message; -1 if it does not say.
            on_close: Called once it is closed.
        """
        super().__init__(claim)
        self._connection = connection
        self._stream = stream
        self._claim = claim
        self._claimed = end.sequence
        self._sequence = end.sequence
        self._tail = end.tail
        room = connection.payload_max
        if size_max > 0:
            room = min(room, size_max)
        self._body_max = room - MESSAGE_HEADER_SIZE - PROTOCOL_SIZE
        self._on_close = on_close
        self._turn = asyncio.Lock()
        self._saves = asyncio.Lock()
        self._saving: asyncio.Task[None] | None = None
        self._checkpoint: CheckpointHead | None = None
        self._read = Index()
        self._written = Index()
        self._written.note(claim.first, end.sequence)
        self._full = ""
        connection.watch(self._on_loss)

    @property
    def number(self) -> int:
        """See the port."""
        return self._stream.partition

    @property
    def full(self) -> str:
        """See the port."""
        return self._full

    async def prepare(self) -> None:
        """Learn where the last checkpoint says that reading starts; before all else.

        Raises:
            FencedError: Somebody newer owns the partition, and has trimmed it.
            JournalDamagedError: It is gone.
            JournalBrokenError: It can't be read.
        """
        if self._tail.checkpoint:
            self._checkpoint, _ = await self._load_head()
            self._read.note(self._checkpoint.low, self._checkpoint.anchor)

    async def write(self, batch: Batch) -> None:
        """See the port."""
        self._handle.begin(batch)
        try:
            async with self._turn:
                self._handle.check()
                await self._put_batch(batch)
        except BaseException as error:
            if isinstance(error, JournalFullError):
                self._full = str(error)
            self._handle.failed(error)
            raise
        self._full = ""
        self._handle.landed(batch)

    async def _put_batch(self, batch: Batch) -> None:
        parts = list(split(batch.data, self._body_max))
        began = self._sequence + 1
        for index, part in enumerate(parts):
            # Only with its last part the batch is there.
            whole = index == len(parts) - 1
            tail = tail_behind(batch, self._tail) if whole else self._tail
            await self._put(Kind.BATCH, index, len(parts), tail, part)
        self._written.note(batch.first, began)

    async def _put(
        self, kind: Kind, index: int, count: int, tail: Tail, body: bytes
    ) -> None:
        """Put a message at the end; the caller has its turn.

        Raises:
            FencedError: Somebody newer owns the partition.
            UncertainError: Nobody knows whether it landed.
            JournalFullError: No space; it did not.
        """
        message = Message(kind, self._sequence + 1, index, count, tail, body)
        try:
            verdict = await self._stream.put(message)
        except (LostError, NoAnswerError) as error:
            raise self._uncertain(str(error)) from error
        match verdict:
            case Stored():
                self._sequence = message.sequence
                self._tail = tail
            case Overtaken(reason):
                raise await self._overtaken(reason)
            case NoSpace(reason):
                raise JournalFullError(reason)
            case Doubtful(reason):
                raise self._uncertain(reason)

    def _uncertain(self, reason: str) -> UncertainError:
        return UncertainError(
            f"nobody knows whether the write at position {self.end} of partition "
            f"{self.number} landed: {reason}; open the partition again"
        )

    async def _overtaken(self, reason: str) -> JournalError:
        """Say who wrote where we would: a newer owner, or somebody foreign."""
        try:
            end = await self._stream.find_end()
        except (*_NO_ANSWER, CoordinatorError) as error:
            return self._uncertain(
                f"{reason}, and what it holds now is unknown: {error}"
            )
        if end.tail.epoch > self.epoch:
            owner = await self._new_owner()
            return FencedError(
                f"partition {self.number} was claimed by {owner} under epoch "
                f"{end.tail.epoch}; ours is {self.epoch}"
            )
        return UncertainError(
            f"somebody who is no coordinator writes to stream {self._stream.name} "
            f"({end.foreign or reason}): it counts for nothing, but stops us; take "
            f"them the right to publish there, and open the partition again"
        )

    async def _new_owner(self) -> str:
        """Return what the claim behind our last message says of its owner."""
        sequence = self._sequence + 1
        with suppress(*_NO_ANSWER, DecodeError, JournalError):
            data = await self._stream.get(sequence)
            if data is not None:
                batch = decode_batch(self._stream.decode(sequence, data).body)
                for _, record in batch.records():
                    if isinstance(record, Claimed):
                        return record.owner
        return "somebody"

    async def read(self, since: Position) -> AsyncIterator[Batch]:
        """See the port."""
        self._handle.check()
        if since >= self._claim.end:
            return
        stream = self._stream
        low = self._checkpoint.low if self._checkpoint is not None else 0
        reader = Reader(
            journal_id=stream.journal_id, partition=self.number, stream=stream.name
        )
        batch: Batch | None = None
        first = True
        try:
            found = stream.messages(
                self._read.find(since), self._claimed, kind=Kind.BATCH
            )
            async with aclosing(found) as messages:
                async for sequence, data in messages:
                    batch = reader.take(sequence, data)
                    if batch is None:
                        continue
                    if first and batch.first > max(low, since):
                        raise await self._taken_away(
                            sequence,
                            f"it begins at position {batch.first}, and what lies from "
                            f"{low} on is needed",
                        )
                    first = False
                    self._read.note(batch.first, reader.began)
                    if batch.end > since:
                        yield batch
            # Who claims behind us may let go of everything before, this claim included.
            if batch is None or batch.crc != self._claim.crc:
                raise await self._taken_away(self._claimed, "our own claim is gone")
        except _NO_ANSWER as error:
            raise self._unreadable(error) from error
        if reader.foreign_count:
            _LOGGER.warning(
                "stream %s has %d messages that no coordinator wrote there; they count "
                "for nothing: %s",
                stream.name,
                reader.foreign_count,
                reader.foreign,
            )

    async def _taken_away(self, sequence: int, problem: str) -> JournalError:
        """Say why what we need is not there: a newer owner trimmed, or it is damage.

        Raises:
            ApiProblem: JetStream will not say.
            LostError: The connection was lost.
            NoAnswerError: Nobody answers.
        """
        end = await self._stream.find_end()
        if end.tail.epoch <= self.epoch:
            return damaged(self._stream.name, sequence, problem)
        return FencedError(
            f"partition {self.number} was claimed under epoch {end.tail.epoch}, and "
            f"what it needed no longer was let go of; ours is {self.epoch}"
        )

    def _unreadable(self, error: Exception) -> JournalBrokenError:
        return JournalBrokenError(f"partition {self.number} can't be read: {error}")

    async def save_checkpoint(self, low: Position, data: bytes) -> None:
        """See the port."""
        self._handle.check()
        assert 0 <= low <= self.end, (low, self.end)
        # A task of its own: cut off in the middle, nobody would know what the stream
        # ends with. One that is cancelled while it waits leaves it to its end.
        loop = asyncio.get_running_loop()
        saving = self._saving = loop.create_task(self._save(low, data))
        saving.add_done_callback(_heard)
        await asyncio.shield(saving)

    async def _save(self, low: Position, data: bytes) -> None:
        try:
            async with self._saves:
                await self._put_checkpoint(low, data)
        except BaseException as error:
            self._handle.failed(error)
            raise

    async def _put_checkpoint(self, low: Position, data: bytes) -> None:
        *chunks, rest = split(data, self._body_max - CHECKPOINT_HEAD_SIZE)
        count = len(chunks) + 1
        anchor = self._find(low)
        first = last = 0
        for index, chunk in enumerate(chunks):
            # Batches may go in between.
            async with self._turn:
                self._handle.check()
                await self._put(Kind.CHUNK, index, count, self._tail, chunk)
                last = self._sequence
            first = first or last
        head = CheckpointHead(low, anchor, first, last, len(data), zlib.crc32(data))
        async with self._turn:
            self._handle.check()
            tail = msgspec.structs.replace(self._tail, checkpoint=self._sequence + 1)
            body = encode_checkpoint_head(head) + rest
            await self._put(Kind.CHECKPOINT, count - 1, count, tail, body)
        self._checkpoint = head

    def _find(self, position: int) -> int:
        """Return the sequence of the batch that holds *position*; 0 if unknown."""
        if position >= self._claim.first:
            return self._written.find(position)
        return self._read.find(position)

    async def load_checkpoint(self) -> bytes | None:
        """See the port."""
        self._handle.check()
        if not self._tail.checkpoint:
            return None
        at = self._tail.checkpoint
        head, rest = await self._load_head()
        parts: list[bytes] = []
        if head.first:
            try:
                found = self._stream.messages(head.first, head.last, kind=Kind.CHUNK)
                async with aclosing(found) as messages:
                    async for sequence, data in messages:
                        # A foreign one among them shows itself by the crc below.
                        with suppress(MessageError):
                            parts.append(self._stream.decode(sequence, data).body)
            except _NO_ANSWER as error:
                raise self._unreadable(error) from error
        data = b"".join((*parts, rest))
        if len(data) != head.size or zlib.crc32(data) != head.crc:
            problem = "the checkpoint is not what was stored"
            try:
                raise await self._taken_away(at, problem)
            except _NO_ANSWER as error:
                raise self._unreadable(error) from error
        return data

    async def _load_head(self) -> tuple[CheckpointHead, bytes]:
        """Return the last part of the last checkpoint.

        Raises:
            FencedError: Somebody newer owns the partition, and has trimmed it.
            JournalDamagedError: It is not there, or not what was stored.
            JournalBrokenError: It can't be read.
        """
        at = self._tail.checkpoint
        try:
            data = await self._stream.get(at)
            if data is None:
                raise await self._taken_away(at, "the checkpoint is gone")
            return decode_checkpoint_head(self._stream.decode(at, data))
        except MessageError as error:
            raise damaged(self._stream.name, at, str(error)) from error
        except _NO_ANSWER as error:
            raise self._unreadable(error) from error

    async def trim(self, before: Position) -> None:
        """See the port. Whole batches go, and at once; what can't be purged stays."""
        self._handle.check()
        if self._checkpoint is None:
            return
        # Not behind the anchor, however: there the checkpoint itself may lie.
        head = self._checkpoint
        sequence = min(self._find(min(before, head.low)), head.anchor)
        if sequence <= 1:
            return
        try:
            await self._stream.purge(sequence)
        except _NO_ANSWER as error:
            _LOGGER.warning("stream %s was not trimmed: %s", self._stream.name, error)
            return
        self._read.forget(sequence)
        self._written.forget(sequence)

    def _on_loss(self, error: LostError) -> None:
        # A write that waits for its answer says it itself.
        if not self._turn.locked():
            self._died(UncertainError(f"{error}; open the partition again"))

    async def aclose(self) -> None:
        """See the port."""
        self._handle.closed()
        async with self._turn:
            pass  # a write in flight has its answer, or none in time
        if self._saving is not None:
            await asyncio.wait({self._saving})
        await self._connection.aclose()
        self._on_close(self)


def _heard(saving: asyncio.Task[None]) -> None:
    """Take note of how a checkpoint ended whose caller was cancelled."""
    if not saving.cancelled():
        saving.exception()
