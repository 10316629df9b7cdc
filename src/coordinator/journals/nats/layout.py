"""What a journal looks like in JetStream: streams, subjects, bytes of a message.

    stream coordinator_orders         subject coordinator.orders.journal
        1  the description, in JSON: format, id, number of partitions
        2  the word that all of its streams were made
    stream coordinator_orders_0       subjects coordinator.orders.0.*
        1          born        the partition was made
        2          batch       the first claim
        ...        batch       a batch, or one part of a batch that is too large
        ...        chunk       a part of a checkpoint, but for its last
        ...        checkpoint  the last part of a checkpoint: now it counts

Each message of a partition is 80 bytes and a body:

    0       4    5    6    8            24      28    32         40      44      48
    +-------+----+----+----+------------+-------+-----+----------+-------+-------+
    | magic | fo | ki | -- | journal id | part- | crc | sequence | index | count |
    |       | rm | nd |    |            | ition |     |          |       |       |
    +-------+----+----+----+------------+-------+-----+----------+-------+-------+
    48      56    64     68   72           80
    +-------+-----+------+----+------------+------------------------------------+
    | epoch | end | last | -- | checkpoint | body                               |
    |       |     | crc  |    |            |                                    |
    +-------+-----+------+----+------------+------------------------------------+

    magic        b"CNAT"
    format       u8, 1
    kind         u8, 1 born, 2 batch, 3 chunk, 4 checkpoint
    journal id   16 bytes
    partition    u32
    crc          u32, CRC-32 over all of the message but these four bytes
    sequence     u64, the one that the message has in its stream
    index, count u32, which part of how many
    epoch, end   u64, of the last batch that lies whole in the stream, with this message
    last crc     u32, its crc, which the next one has to name
    checkpoint   u64, sequence of the last checkpoint that counts; 0 if there is none

All numbers are little-endian. Three things follow:

* A message is told from a foreign one, also from a copy of one of ours: the writer
  knows the sequence before it writes, because nothing is stored at another one.
* The last message of a stream says all that a claim needs. Nothing is searched.
* A checkpoint counts from its last message on, which names where its parts begin.
"""

import enum
import re
import struct
import zlib
from collections.abc import Iterator

import msgspec

from coordinator.errors import DecodeError, JournalDamagedError, JournalFormatError

__all__ = [
    "BODY_SIZE_MIN",
    "CHECKPOINT_HEAD_SIZE",
    "MESSAGE_HEADER_SIZE",
    "CheckpointHead",
    "Description",
    "Kind",
    "Message",
    "MessageError",
    "Names",
    "Tail",
    "damaged",
    "decode_checkpoint_head",
    "decode_description",
    "decode_message",
    "encode_checkpoint_head",
    "encode_description",
    "encode_message",
    "split",
]

FORMAT = 1
_MAGIC = b"CNAT"
_HEADER = struct.Struct("<4sBBH16sIIQIIQQIIQ")
_CRC_OFFSET = 28
_CRC_END = 32
MESSAGE_HEADER_SIZE = _HEADER.size
"""Bytes before the body."""
_HEAD = struct.Struct("<QQQQQII")
CHECKPOINT_HEAD_SIZE = 48
"""Bytes before those of a checkpoint's last part."""
BODY_SIZE_MIN = 4096
"""Bytes of a body that a server must take at least."""

assert MESSAGE_HEADER_SIZE == 80
assert _HEAD.size == CHECKPOINT_HEAD_SIZE == 48
assert _HEAD.size < BODY_SIZE_MIN

_NAME = re.compile(r"[A-Za-z0-9-]{1,100}")


class Kind(enum.IntEnum):
    """What a message is; its name is the last word of its subject."""

    BORN = 1
    BATCH = 2
    CHUNK = 3
    CHECKPOINT = 4


class MessageError(DecodeError):
    """It is not a message that this journal wrote there."""


class Tail(msgspec.Struct, frozen=True, gc=False):
    """What is known of a partition with one message more: all that a claim needs."""

    epoch: int = 0
    end: int = 0
    crc: int = 0
    checkpoint: int = 0
    """Sequence of the last one that counts; 0 if there is none."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One message of a partition, decoded."""

    kind: Kind
    sequence: int
    index: int
    count: int
    tail: Tail
    body: bytes


class CheckpointHead(msgspec.Struct, frozen=True, gc=False):
    """What stands before the bytes of a checkpoint's last part."""

    low: int
    """No record before this position is needed."""
    anchor: int
    """Sequence of a batch at or before `low`, from which to read; 0 for the first."""
    first: int
    """Sequence of its first chunk; 0 if all is in the last part."""
    last: int
    """Sequence of its last chunk."""
    size: int
    """Bytes of all parts together."""
    crc: int
    """CRC-32 over them."""


class Description(msgspec.Struct, frozen=True):
    """What the stream of the journal itself says: once, and for ever."""

    format: int
    id: str
    partitions: int


class Names:
    """Streams and subjects of one journal."""

    def __init__(self, journal: str) -> None:
        """Name those of *journal*.

        Raises:
            ValueError: A stream can't have such a name.
        """
        if _NAME.fullmatch(journal) is None:
            raise ValueError(
                f"{journal!r} is no name for a journal in NATS: up to 100 letters, "
                f"digits and hyphens"
            )
        self.journal = journal
        self.stream = f"coordinator_{journal}"
        """The one that says which journal it is."""
        self.subject = f"coordinator.{journal}.journal"

    def partition_stream(self, partition: int) -> str:
        """Return the stream of one partition."""
        return f"{self.stream}_{partition}"

    def partition_subjects(self, partition: int) -> str:
        """Return the subjects of that stream, as one with a wildcard."""
        return f"coordinator.{self.journal}.{partition}.*"

    def partition_subject(self, partition: int, kind: Kind) -> str:
        """Return the subject of one kind of message."""
        return f"coordinator.{self.journal}.{partition}.{kind.name.lower()}"


def damaged(stream: str, sequence: int, problem: str) -> JournalDamagedError:
    """Return the error of a stream that does not hold what was written to it."""
    return JournalDamagedError(
        f"stream {stream}",
        sequence,
        problem,
        unit="sequence",
        advice="restore the stream from a backup",
    )


def encode_message(message: Message, *, journal_id: bytes, partition: int) -> bytes:
    """Encode *message* of a partition."""
    tail = message.tail
    header = _HEADER.pack(
        _MAGIC,
        FORMAT,
        message.kind,
        0,
        journal_id,
        partition,
        0,
        message.sequence,
        message.index,
        message.count,
        tail.epoch,
        tail.end,
        tail.crc,
        0,
        tail.checkpoint,
    )
    crc = _crc_of(header, message.body)
    crc_bytes = crc.to_bytes(_CRC_END - _CRC_OFFSET, "little")
    return b"".join((header[:_CRC_OFFSET], crc_bytes, header[_CRC_END:], message.body))


def decode_message(
    data: bytes, *, journal_id: bytes, partition: int, sequence: int
) -> Message:
    """Decode what stands at *sequence* of a partition's stream.

    Raises:
        MessageError: This journal did not write it there, or it is damaged.
        JournalFormatError: It did, by a newer version.
    """
    if len(data) < MESSAGE_HEADER_SIZE or not data.startswith(_MAGIC):
        raise MessageError("no coordinator wrote it")
    (
        _,
        format_,
        kind,
        _,
        its_journal,
        its_partition,
        crc,
        its_sequence,
        index,
        count,
        epoch,
        end,
        last_crc,
        _,
        checkpoint,
    ) = _HEADER.unpack_from(data)
    body = data[MESSAGE_HEADER_SIZE:]
    if crc != _crc_of(data[:MESSAGE_HEADER_SIZE], body):
        raise MessageError("it is damaged: its crc is wrong")
    if its_journal != journal_id or its_partition != partition:
        raise MessageError(
            f"it is of partition {its_partition} of journal {its_journal.hex()}"
        )
    if its_sequence != sequence:
        raise MessageError(f"it is a copy of the message at sequence {its_sequence}")
    if format_ != FORMAT:
        raise JournalFormatError(
            f"partition {partition}: a message of format {format_}; this version reads "
            f"format {FORMAT}, use the one that wrote it"
        )
    try:
        known = Kind(kind)
    except ValueError as error:
        raise MessageError(f"it is of kind {kind}") from error
    tail = Tail(epoch, end, last_crc, checkpoint)
    return Message(known, sequence, index, count, tail, body)


def _crc_of(header: bytes, body: bytes) -> int:
    return zlib.crc32(
        body, zlib.crc32(header[_CRC_END:], zlib.crc32(header[:_CRC_OFFSET]))
    )


def encode_checkpoint_head(head: CheckpointHead) -> bytes:
    """Encode what stands before the bytes of a checkpoint's last part."""
    return _HEAD.pack(
        head.low, head.anchor, head.first, head.last, head.size, head.crc, 0
    )


def decode_checkpoint_head(message: Message) -> tuple[CheckpointHead, bytes]:
    """Take the last part of a checkpoint apart.

    Raises:
        MessageError: It is none.
    """
    if message.kind is not Kind.CHECKPOINT or len(message.body) < _HEAD.size:
        raise MessageError("it is no checkpoint")
    low, anchor, first, last, size, crc, _ = _HEAD.unpack_from(message.body)
    head = CheckpointHead(low, anchor, first, last, size, crc)
    return head, message.body[_HEAD.size :]


def encode_description(description: Description) -> bytes:
    """Encode the message that makes streams into a journal."""
    return msgspec.json.encode(description)


def decode_description(data: bytes, *, stream: str) -> tuple[bytes, int]:
    """Return the journal's id and its number of partitions.

    Args:
        data: Of the first message.
        stream: Where it stands, for messages.

    Raises:
        JournalDamagedError: It is not what was written.
        JournalFormatError: It is of a newer format.
    """
    try:
        described = msgspec.json.decode(data, type=Description)
        journal_id = bytes.fromhex(described.id)
    except (msgspec.DecodeError, ValueError) as error:
        raise damaged(stream, 1, str(error)) from error
    if described.format != FORMAT:
        raise JournalFormatError(
            f"stream {stream}: format {described.format}; this version reads format "
            f"{FORMAT}, use the one that wrote it"
        )
    if len(journal_id) != 16 or described.partitions < 1:
        raise damaged(stream, 1, f"it says {described}")
    return journal_id, described.partitions


def split(data: bytes, size_max: int) -> Iterator[bytes]:
    """Yield *data* in parts of at most *size_max* bytes; one if it is empty."""
    for start in range(0, max(1, len(data)), size_max):
        yield data[start : start + size_max]
