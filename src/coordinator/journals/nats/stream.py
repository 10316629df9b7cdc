"""One partition's stream: where it ends, one message more, and what lies in it.

Everything here is one question to JetStream and its answer. What to make of it is said
by `layout`, `answers` and `reading`; who may write is the business of `partition`.
"""

import base64
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass

import msgspec

from coordinator.journals.nats.answers import NO_MESSAGE, Verdict, judge_ack
from coordinator.journals.nats.checks import StreamInfo
from coordinator.journals.nats.connection import (
    ApiProblem,
    Connection,
    LostError,
    NoAnswerError,
    next_of,
)
from coordinator.journals.nats.layout import (
    Kind,
    Message,
    MessageError,
    Names,
    Tail,
    damaged,
    decode_message,
    encode_message,
)

__all__ = ["End", "Stream", "get_message"]

PULL_COUNT = 500
"""Messages that are asked for at once."""
PULL_SIZE = 8 * 1024 * 1024
"""Bytes that are asked for at once, if one message is not larger."""
CONSUMER_S = 60
"""Seconds after which the server forgets a reader that was cut off."""
PULL_S = 1
"""Seconds after which a server says that it has no more to give."""
DELIVERIES_MAX = 8
"""Times in a row that nothing is given which should be there."""
LAST: Mapping[str, object] = {"last_by_subj": ">"}
"""The last message of a stream, as `get_message` takes it."""
_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class End:
    """Where a stream ends, and what is known of the partition there."""

    sequence: int
    tail: Tail
    foreign: str = ""
    """Of the messages at the end, which are not ours: the first; empty if none."""


class _Data(msgspec.Struct, frozen=True):
    seq: int
    data: str = ""


class _Got(msgspec.Struct, frozen=True):
    message: _Data


class _Purged(msgspec.Struct, frozen=True):
    purged: int = 0


class _Consumer(msgspec.Struct, frozen=True):
    name: str


async def get_message(
    connection: Connection, stream: str, which: Mapping[str, object]
) -> tuple[int, bytes] | None:
    """Return one message of *stream*, with its sequence; None if there is none.

    Args:
        connection: To ask over.
        stream: Its name.
        which: As the API takes it: ``{"seq": 7}``, or ``LAST``.

    Raises:
        ApiProblem: JetStream will not say.
        LostError: The connection was lost.
        NoAnswerError: Nobody answers.
    """
    try:
        got = await connection.call(f"STREAM.MSG.GET.{stream}", which, _Got)
    except ApiProblem as problem:
        if problem.error.err_code == NO_MESSAGE:
            return None
        raise
    return got.message.seq, base64.b64decode(got.message.data)


class Stream:
    """The stream of one partition, over one connection."""

    def __init__(
        self, connection: Connection, names: Names, *, journal_id: bytes, partition: int
    ) -> None:
        self.name = names.partition_stream(partition)
        self.partition = partition
        self.journal_id = journal_id
        self._connection = connection
        self._names = names

    async def info(self) -> StreamInfo:
        """Return its settings and what it holds.

        Raises:
            ApiProblem: There is none, or we may not.
            LostError: The connection was lost.
            NoAnswerError: Nobody answers.
        """
        return await self._connection.call(f"STREAM.INFO.{self.name}", None, StreamInfo)

    async def put(self, message: Message) -> Verdict:
        """Store *message* at its sequence, if that is where the stream ends.

        Cancellation: it may be stored, or come to be.

        Raises:
            LostError: The connection was lost; nobody knows whether it is stored.
            NoAnswerError: Nobody says whether it is stored.
        """
        data = encode_message(
            message, journal_id=self.journal_id, partition=self.partition
        )
        reply = await self._connection.ask(
            self._names.partition_subject(self.partition, message.kind),
            data,
            {
                "Nats-Expected-Stream": self.name,
                "Nats-Expected-Last-Sequence": str(message.sequence - 1),
            },
        )
        return judge_ack(
            reply.status, reply.data, stream=self.name, sequence=message.sequence
        )

    async def get(self, sequence: int) -> bytes | None:
        """Return the message at *sequence*; None if there is none (any more).

        Raises:
            ApiProblem: JetStream will not say.
            LostError: The connection was lost.
            NoAnswerError: Nobody answers.
        """
        got = await get_message(self._connection, self.name, {"seq": sequence})
        return None if got is None else got[1]

    def decode(self, sequence: int, data: bytes) -> Message:
        """Decode what stands at *sequence*.

        Raises:
            MessageError: It is not ours.
            JournalFormatError: It is of a newer version.
        """
        return decode_message(
            data,
            journal_id=self.journal_id,
            partition=self.partition,
            sequence=sequence,
        )

    async def find_end(self) -> End:
        """Return where it ends, and the tail that the last message of ours tells.

        Nothing is searched, unless somebody else has written behind it.

        Raises:
            JournalDamagedError: It holds nothing of ours.
            JournalFormatError: It is of a newer version.
            ApiProblem: JetStream will not say.
            LostError: The connection was lost.
            NoAnswerError: Nobody answers.
        """
        # One question: while an owner goes on writing, a claim that takes long to make
        # comes too late.
        newest = await get_message(self._connection, self.name, LAST)
        if newest is not None:
            with suppress(MessageError):
                return End(newest[0], self.decode(*newest).tail)
        state = (await self.info()).state
        last = state.last_seq
        found: Message | None = None
        foreign = ""
        if state.messages:
            # Not only to the end of then: a reader needs an end to stop at.
            async with aclosing(self.messages(state.first_seq, last)) as messages:
                async for sequence, data in messages:
                    try:
                        found, foreign = self.decode(sequence, data), ""
                    except MessageError as error:
                        foreign = foreign or f"sequence {sequence}: {error}"
        if found is None:
            raise damaged(
                self.name,
                last,
                f"it holds {state.messages} messages and none of this journal: it was "
                f"emptied, or made anew",
            )
        return End(last, found.tail, foreign)

    async def messages(
        self, first: int, last: int, *, kind: Kind | None = None
    ) -> AsyncGenerator[tuple[int, bytes]]:
        """Yield what lies between two sequences, both included, in order.

        Args:
            first: From where on; what was purged is passed over.
            last: There must be a message, of *kind*; it is the end.
            kind: Which messages; None for all.

        Raises:
            NoAnswerError: It does not come.
            ApiProblem: JetStream will not give it.
            LostError: The connection was lost.
        """
        subject = (
            self._names.partition_subjects(self.partition)
            if kind is None
            else self._names.partition_subject(self.partition, kind)
        )
        after = max(1, first) - 1
        idle = 0
        while after < last:
            before = after
            async with aclosing(self._deliver(subject, after + 1)) as delivered:
                async for sequence, data in delivered:
                    if sequence <= last:
                        yield sequence, data
                    after = sequence
                    if after >= last:
                        break
            idle = idle + 1 if after == before else 0
            if idle == DELIVERIES_MAX:
                raise NoAnswerError(
                    f"stream {self.name} gives nothing from sequence {after + 1} on, "
                    f"and should up to {last}"
                )

    async def _deliver(
        self, subject: str, first: int
    ) -> AsyncGenerator[tuple[int, bytes]]:
        """Yield messages from *first* on, until they stop coming, or one is missed.

        A server may give us what another one does not know yet that we wait for; that
        is lost on the way. The consumer's own count shows it, and the caller asks anew.
        """
        connection = self._connection
        async with connection.feed() as (feed, inbox):
            made = await connection.call(
                f"CONSUMER.CREATE.{self.name}",
                {"stream_name": self.name, "config": _consumer(subject, first)},
                _Consumer,
            )
            pull = f"$JS.API.CONSUMER.MSG.NEXT.{self.name}.{made.name}"
            try:
                count = pulled = 0
                reply = ""
                while True:
                    if count == pulled:
                        pulled += PULL_COUNT
                        reply = f"{feed}.{pulled}"
                        await connection.send(pull, self._question, reply=reply)
                    heard = await next_of(inbox, pull)
                    if heard.status:
                        if heard.subject != reply:
                            continue  # the end of the pull before
                        if count == pulled - PULL_COUNT:
                            return
                        pulled = count
                        continue
                    sequence, its_count = _numbers_of(heard.reply)
                    count += 1
                    if its_count != count:
                        return
                    yield sequence, heard.data
            finally:
                # Not waited for: the server forgets it by itself, too.
                with suppress(LostError, NoAnswerError):
                    gone = f"$JS.API.CONSUMER.DELETE.{self.name}.{made.name}"
                    await connection.send(gone)

    @property
    def _question(self) -> bytes:
        size = max(PULL_SIZE, 2 * self._connection.payload_max)
        return msgspec.json.encode(
            {"batch": PULL_COUNT, "max_bytes": size, "expires": PULL_S * _NS}
        )

    async def purge(self, before: int) -> None:
        """Have what lies before sequence *before* go.

        Raises:
            ApiProblem: JetStream will not.
            LostError: The connection was lost.
            NoAnswerError: Nobody answers.
        """
        await self._connection.call(
            f"STREAM.PURGE.{self.name}", {"seq": before}, _Purged
        )


def _consumer(subject: str, first: int) -> dict[str, object]:
    """Return the settings of a reader that nobody else knows of."""
    return {
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": first,
        "ack_policy": "none",
        "replay_policy": "instant",
        "filter_subject": subject,
        "inactive_threshold": CONSUMER_S * _NS,
        "mem_storage": True,
        "num_replicas": 1,
    }


def _numbers_of(reply: str) -> tuple[int, int]:
    """Return the sequence of a stored message, and its number for the consumer.

    They stand in the subject it comes with,
    ``$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<number>.…``, or with a domain
    and an account before the stream.
    """
    tokens = reply.split(".")
    at = 5 if len(tokens) < 11 else 7
    return int(tokens[at]), int(tokens[at + 1])
