"""The messages of a journal's topic: a prefix that says whose it is, and a body.

    0       4        5      6    8           12           16          32
    +-------+--------+------+----+-----------+------------+-----------+--------
    | magic | format | kind | -- | partition | partitions | journal   | body ...
    +-------+--------+------+----+-----------+------------+-----------+--------

    magic       b"CKAF"
    format      u8, 1
    kind        u8: 0 founding, 1 batch, 2 chunk, 3 commit
    partition   u32, the one in which it lies, from 0
    partitions  u32, how many the journal has
    journal     16 bytes, its id

    founding    nothing: the prefix of the first one in partition 0 founds the journal
    batch       a batch, as `coordinator.batch` draws it
    chunk       epoch u64, number u32, index u32, and bytes of checkpoint *number*
    commit      MessagePack of `Commit`: with it that checkpoint is stored

All numbers are little-endian. Kafka has a CRC over each message, and the consumer
checks it; so here is none but those of the batch and of the checkpoint.

A message without this prefix, or with that of another journal or partition, is a
*stranger*: someone else writes to the topic. It is named, and means nothing.
"""

import struct
from dataclasses import dataclass

import msgspec

from coordinator.batch import BATCH_SIZE_MAX, Batch, BatchError, decode_batch
from coordinator.errors import JournalFormatError
from coordinator.model import Position

__all__ = [
    "JOURNAL_ID_SIZE",
    "MESSAGE_SIZE_MAX",
    "Chunk",
    "Commit",
    "DamagedMessageError",
    "Founding",
    "Identity",
    "Landmark",
    "Message",
    "Stranger",
    "decode_message",
    "encode_batch_message",
    "encode_chunk",
    "encode_commit",
    "encode_founding",
    "read_identity",
]

MAGIC = b"CKAF"
FORMAT = 1
JOURNAL_ID_SIZE = 16

_PREFIX = struct.Struct("<4sBBHII16s")
_CHUNK = struct.Struct("<QII")
_FOUNDING, _BATCH, _CHUNK_KIND, _COMMIT = range(4)

MESSAGE_SIZE_MAX = BATCH_SIZE_MAX + 64 * 1024
"""Bytes of a message as Kafka counts them: ours, and what it puts around."""

assert _PREFIX.size == 32


class DamagedMessageError(Exception):
    """It has our prefix, and what follows is not what we write."""


class Identity(msgspec.Struct, frozen=True):
    """Which journal, and which partition of it."""

    journal_id: bytes
    partition: int
    partitions: int

    def of(self, partition: int) -> "Identity":
        """Return that of another partition of the same journal."""
        return Identity(self.journal_id, partition, self.partitions)


class Landmark(msgspec.Struct, frozen=True, array_like=True):
    """Where a batch lies, and what a reader who starts there has to know."""

    offset: int
    position: int
    """Of its first record: where the valid batches before it end."""
    epoch: int
    """Of the valid batch before it."""
    crc: int
    """Of the valid batch before it."""


class Founding(msgspec.Struct, frozen=True):
    """Makes the journal, if it is the first in partition 0."""


class Chunk(msgspec.Struct, frozen=True):
    """A piece of a checkpoint."""

    epoch: int
    number: int
    """Which checkpoint of that epoch it belongs to, from 1."""
    index: int
    data: bytes


class Commit(msgspec.Struct, frozen=True, array_like=True):
    """Makes a checkpoint the stored one, whose chunks lie before."""

    epoch: int
    number: int
    chunks: int
    size: int
    crc: int
    """CRC-32 over the checkpoint."""
    since: int
    """Offset from which on its chunks lie; of this message, if it has none."""
    low: Position
    end: Position
    """Where the log ended when it was stored: what it counts on."""
    base: Landmark
    """Where reading starts from now on; its position is not behind `low`."""


class Stranger(msgspec.Struct, frozen=True):
    """Not a message of this partition of this journal."""

    why: str


Message = Founding | Batch | Chunk | Commit | Stranger


@dataclass(frozen=True, slots=True)
class _Prefix:
    kind: int
    identity: Identity


def encode_founding(identity: Identity) -> bytes:
    """Return the message that founds the journal."""
    return _prefix(identity, _FOUNDING)


def encode_batch_message(identity: Identity, batch: Batch) -> bytes:
    """Return the message that holds *batch*."""
    return _prefix(identity, _BATCH) + batch.data


def encode_chunk(identity: Identity, chunk: Chunk) -> bytes:
    """Return the message that holds a piece of a checkpoint."""
    head = _CHUNK.pack(chunk.epoch, chunk.number, chunk.index)
    return b"".join((_prefix(identity, _CHUNK_KIND), head, chunk.data))


def encode_commit(identity: Identity, commit: Commit) -> bytes:
    """Return the message that stores a checkpoint."""
    return _prefix(identity, _COMMIT) + msgspec.msgpack.encode(commit)


def _prefix(identity: Identity, kind: int) -> bytes:
    return _PREFIX.pack(
        MAGIC,
        FORMAT,
        kind,
        0,
        identity.partition,
        identity.partitions,
        identity.journal_id,
    )


def decode_message(data: bytes, identity: Identity) -> Message:
    """Decode a message found in the partition that *identity* says.

    Raises:
        JournalFormatError: It is this journal's, of a newer format.
        DamagedMessageError: It is this journal's, and makes no sense.
    """
    prefix = _read_prefix(data)
    if prefix is None:
        return Stranger("it was not written by a coordinator")
    found = prefix.identity
    if found.journal_id != identity.journal_id:
        if prefix.kind == _FOUNDING:
            return Founding()  # of one that came second, and knows it
        return Stranger(f"it belongs to journal {found.journal_id.hex()}")
    if found.partition != identity.partition:
        return Stranger(f"it belongs to partition {found.partition}")
    body = data[_PREFIX.size :]
    try:
        match prefix.kind:
            case 0:
                return Founding()
            case 1:
                return decode_batch(body)
            case 2:
                epoch, number, index = _CHUNK.unpack_from(body)
                return Chunk(epoch, number, index, body[_CHUNK.size :])
            case 3:
                return msgspec.msgpack.decode(body, type=Commit)
            case kind:
                raise DamagedMessageError(f"it is of kind {kind}, which there is not")
    except (BatchError, struct.error, msgspec.DecodeError, UnicodeError) as error:
        raise DamagedMessageError(str(error)) from error


def read_identity(data: bytes) -> tuple[Identity, bool] | None:
    """Return whose message it is; None if no coordinator wrote it.

    Returns:
        The journal and partition, and whether it is a founding message. That says who
        wants to found it; any other one says whose it is.

    Raises:
        JournalFormatError: It is of a newer format.
    """
    prefix = _read_prefix(data)
    if prefix is None:
        return None
    return prefix.identity, prefix.kind == _FOUNDING


def _read_prefix(data: bytes) -> _Prefix | None:
    if len(data) < _PREFIX.size:
        return None
    magic, format_, kind, _, partition, partitions, journal_id = _PREFIX.unpack_from(
        data
    )
    if magic != MAGIC:
        return None
    if format_ != FORMAT:
        raise JournalFormatError(
            f"a message of format {format_}; this version reads format {FORMAT}, use "
            f"the one that wrote it"
        )
    return _Prefix(kind, Identity(journal_id, partition, partitions))
