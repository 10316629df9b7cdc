"""Finds a journal or makes it, and looks whether it is kept as it should be.

    making one                                 and when the process dies in between
    1  the stream of the description           nothing is there yet
    2  its first message: id and partitions    of several who make it, one wins
    3  a stream per partition, each with       the next one who opens it goes on here
       its first message, `born`
    4  the second message: made                from now on what is missing is damage

Each message is stored only where it belongs, so whatever races, there is one of each.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeVar

from coordinator.errors import JournalFormatError, JournalUnavailableError
from coordinator.journals.nats.address import Address
from coordinator.journals.nats.answers import (
    STREAM_NOT_FOUND,
    Doubtful,
    NoSpace,
    Overtaken,
    Stored,
    is_passing,
    judge_ack,
)
from coordinator.journals.nats.checks import (
    Finding,
    StreamInfo,
    check_server,
    check_stream,
)
from coordinator.journals.nats.connection import (
    ApiProblem,
    Connection,
    DeniedError,
    LostError,
    NoAnswerError,
    UnreachableError,
)
from coordinator.journals.nats.layout import (
    FORMAT,
    Description,
    Kind,
    Message,
    Tail,
    damaged,
    decode_description,
    encode_description,
)
from coordinator.journals.nats.stream import Stream, get_message

__all__ = ["examine", "open_streams", "patiently"]

_LOGGER = logging.getLogger("coordinator")

PATIENCE_S = 20.0
"""Seconds for which a cluster may be without a leader; elections take up to 16."""
PAUSE_S = 0.1
"""Seconds between two tries of what may go well soon."""
REPLICAS_IN_CLUSTER = 3
_MADE = b"made"

T = TypeVar("T")


async def patiently(
    address: Address,
    attempt: Callable[[Connection], Awaitable[T]],
    *,
    keep: bool = False,
) -> T:
    """Return what *attempt* does with a connection; tried again where that may help.

    Args:
        address: Where to connect to.
        attempt: May be tried again at any point: whatever it stores, it compares.
        keep: Whether the connection is *attempt*'s once it returns.

    Raises:
        JournalUnavailableError: No server lets us in, or it goes on not going well.
        Exception: Whatever else *attempt* raised.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + PATIENCE_S
    while True:
        try:
            connection = await Connection.connect(address)
        except UnreachableError as error:
            raise _unavailable(address, error) from error
        kept = False
        try:
            done = await attempt(connection)
            kept = keep
        except (ApiProblem, LostError, NoAnswerError) as error:
            if loop.time() > deadline or not _may_pass(error):
                raise _unavailable(address, error) from error
        else:
            return done
        finally:
            if not kept:
                await connection.aclose()
        await asyncio.sleep(PAUSE_S)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, ApiProblem):
        return is_passing(error.error)
    return not isinstance(error, DeniedError)


def _unavailable(address: Address, error: Exception) -> JournalUnavailableError:
    return JournalUnavailableError(f"{address} can't be opened: {error}")


async def open_streams(
    connection: Connection, address: Address, new_id: Callable[[], bytes]
) -> tuple[bytes, int]:
    """Return the journal's id and its number of partitions; made if it is new.

    Raises:
        JournalFormatError: It has another number of partitions, or is newer.
        JournalDamagedError: A stream of it is gone.
        JournalUnavailableError: The server is not fit for it, or a stream is not what
            it should be.
        ApiProblem: JetStream will not do it.
        LostError: The connection was lost.
        NoAnswerError: Nobody answers.
    """
    findings = list(check_server(connection.info))
    _judge(address, findings)
    streams = _Streams(connection, address)
    names = address.names
    found = await streams.info(names.stream)
    if found is None:
        about = f"coordinator: the journal {names.journal}"
        found = await streams.make(names.stream, names.subject, about)
    findings += streams.check(found, names.subject)
    _judge(address, findings)
    journal_id, partitions = await _describe(streams, address, new_id)
    made = await streams.get(names.stream, 2) is not None
    for number in range(partitions):
        findings += await _open_stream(streams, journal_id, number, made=made)
        _judge(address, findings)
    if not made:
        await streams.put(names.stream, names.subject, 2, _MADE)
    for finding in findings:
        if finding.level == "warning":
            # That nobody can see how a server flushes is said at each start, and so
            # is no warning of this one.
            level = logging.INFO if finding.name == "flush" else logging.WARNING
            _LOGGER.log(level, "%s: %s; %s", address, finding.found, finding.advice)
    return journal_id, partitions


def _judge(address: Address, findings: list[Finding]) -> None:
    for finding in findings:
        if finding.level == "problem":
            raise JournalUnavailableError(
                f"{address} can't be opened: {finding.found}; {finding.advice}"
            )


async def _describe(
    streams: "_Streams", address: Address, new_id: Callable[[], bytes]
) -> tuple[bytes, int]:
    """Return what the first message says; ours, if there was none."""
    names = address.names
    data = await streams.get(names.stream, 1)
    if data is None:
        ours = Description(FORMAT, new_id().hex(), address.partitions or 1)
        data = encode_description(ours)
        if not await streams.put(names.stream, names.subject, 1, data):
            data = await streams.get(names.stream, 1) or b""
    journal_id, partitions = decode_description(data, stream=names.stream)
    if address.partitions is not None and address.partitions != partitions:
        raise JournalFormatError(
            f"{address} has {partitions} partitions, not {address.partitions}; their "
            f"number is fixed when a journal is made"
        )
    return journal_id, partitions


async def _open_stream(
    streams: "_Streams", journal_id: bytes, number: int, *, made: bool
) -> Iterator[Finding]:
    """Look at the stream of a partition, or make it, if the journal is being made."""
    names = streams.address.names
    name = names.partition_stream(number)
    subjects = names.partition_subjects(number)
    found = await streams.info(name)
    if found is None:
        if made:
            raise damaged(name, 0, f"the stream of partition {number} is gone")
        about = f"coordinator: the journal {names.journal}, partition {number}"
        found = await streams.make(name, subjects, about)
    if not made:
        stream = Stream(
            streams.connection, names, journal_id=journal_id, partition=number
        )
        _stored(await stream.put(Message(Kind.BORN, 1, 0, 1, Tail(), b"")))
    return streams.check(found, subjects)


def _stored(verdict: Stored | Overtaken | NoSpace | Doubtful) -> bool:
    """Tell whether it was us; if not, somebody else has.

    Raises:
        NoAnswerError: Nobody has.
    """
    match verdict:
        case Stored():
            return True
        case Overtaken():
            return False
        case NoSpace(reason) | Doubtful(reason):
            raise NoAnswerError(reason)


async def examine(address: Address) -> list[Finding]:
    """Say what is to be said of the journal at *address*; nothing is made or changed.

    Raises:
        JournalError: It can't be looked at.
    """

    async def look(connection: Connection) -> list[Finding]:
        findings = list(check_server(connection.info))
        streams = _Streams(connection, address)
        names = address.names
        found = await streams.info(names.stream)
        data = None if found is None else await streams.get(names.stream, 1)
        if found is None or data is None:
            said = f"{address} does not exist"
            advice = "`coordinator serve` makes it"
            return [
                *findings,
                Finding(name="journal", level="warning", found=said, advice=advice),
            ]
        journal_id, partitions = decode_description(data, stream=names.stream)
        said = f"{address} is a journal of format {FORMAT}, id {journal_id.hex()}: "
        findings += [
            Finding(name="journal", level="ok", found=f"{said}partitions {partitions}"),
            *streams.check(found, names.subject),
        ]
        for number in range(partitions):
            name = names.partition_stream(number)
            found = await streams.info(name)
            if found is None:
                raise damaged(name, 0, f"the stream of partition {number} is gone")
            findings += streams.check(found, names.partition_subjects(number))
        return findings

    return await patiently(address, look)


class _Streams:
    """The questions about streams that opening asks."""

    def __init__(self, connection: Connection, address: Address) -> None:
        self.connection = connection
        self.address = address
        self._clustered = bool(connection.info.cluster)

    def check(self, info: StreamInfo, subjects: str) -> Iterator[Finding]:
        """Check the settings of a stream."""
        return check_stream(
            info.config,
            subjects,
            replicas=self.address.replicas,
            clustered=self._clustered,
        )

    async def info(self, stream: str) -> StreamInfo | None:
        """Return what it is; None if there is none."""
        try:
            return await self.connection.call(f"STREAM.INFO.{stream}", None, StreamInfo)
        except ApiProblem as problem:
            if problem.error.err_code == STREAM_NOT_FOUND:
                return None
            raise

    async def make(self, stream: str, subjects: str, about: str) -> StreamInfo:
        """Make it. Another one who makes the same at once makes the same."""
        config = {
            "name": stream,
            "description": about,
            "subjects": [subjects],
            "retention": "limits",
            "storage": "file",
            "discard": "new",
            "max_consumers": -1,
            "max_msgs": -1,
            "max_bytes": -1,
            "max_age": 0,
            "max_msgs_per_subject": -1,
            "max_msg_size": -1,
            "num_replicas": self.address.replicas
            or (REPLICAS_IN_CLUSTER if self._clustered else 1),
            "deny_delete": True,
        }
        return await self.connection.call(f"STREAM.CREATE.{stream}", config, StreamInfo)

    async def get(self, stream: str, sequence: int) -> bytes | None:
        """Return a message; None if there is none."""
        got = await get_message(self.connection, stream, {"seq": sequence})
        return None if got is None else got[1]

    async def put(self, stream: str, subject: str, sequence: int, data: bytes) -> bool:
        """Store *data* at *sequence*; whether it was us who did.

        Raises:
            NoAnswerError: Nobody has.
        """
        headers = {
            "Nats-Expected-Stream": stream,
            "Nats-Expected-Last-Sequence": str(sequence - 1),
        }
        reply = await self.connection.ask(subject, data, headers)
        return _stored(
            judge_ack(reply.status, reply.data, stream=stream, sequence=sequence)
        )
