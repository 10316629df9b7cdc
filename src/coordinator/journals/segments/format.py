"""The bytes of a segment's header and of the checkpoint file.

A segment is a header and the batches behind it, without gaps (`coordinator.batch` draws
them); zeros behind the last one are space that was allocated ahead.

    0       4    5    6         8           12           16                       32
    +-------+----+----+---------+-----------+------------+------------------------+
    | magic | fo | ck | zeros   | partition | partitions | journal id             |
    |       | rm | in |         |           |            |                        |
    +-------+----+----+---------+-----------+------------+-----------+------------+
    | base position   | created at          | epoch      | previous  | header     |
    |                 |                     |            | crc       | crc        |
    +-----------------+---------------------+------------+-----------+------------+
    32                40                    48           56          60           64

    magic           b"CSEG"
    format          u8, 1
    crc kind        u8, 1 = CRC-32 as of zlib
    partition       u32, from 0
    partitions      u32, how many the journal has
    journal id      16 bytes, random
    base position   u64, of the first record in this segment; also the file's name
    created at      u64, microseconds since 1970: when the one before it was closed
    epoch           u64, of the batch before the first one here; 0 at the beginning
    previous crc    u32, of the batch before the first one here; 0 at the beginning
    header crc      u32, CRC-32 over the 60 bytes before it

Base position, epoch and previous crc say where the chain of batches stands. So each
segment can be checked by itself, and a closed one against its successor: whatever is
cut from its end is missed.

The checkpoint is one file of a header and the engine's data:

    0       4    5    6         8           12           16                       32
    +-------+----+----+---------+-----------+------------+------------------------+
    | magic | fo | ck | zeros   | partition | zeros      | journal id             |
    |       | rm | in |         |           |            |                        |
    +-------+----+----+---------+-----------+------------+-----------+------------+
    | low position    | end position        | length     | zeros     | crc        |
    +-----------------+---------------------+------------+-----------+------------+
    | data ...                                                                    |

    magic           b"CCKP"
    low position    u64, no record before it is needed
    end position    u64, records before it were durable when this was saved
    length          u64, bytes of data, which end the file
    crc             u32, CRC-32 over the 60 bytes before it and the data

All numbers are little-endian. Magic, format and the place of the header's crc stay what
they are in every later format, so that a newer one is told from damage.
"""

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from coordinator.batch import (
    ALIGNMENT,
    BATCH_SIZE_MAX,
    CRC_KIND_ZLIB,
    FORMAT,
    HEADER_SIZE,
    MAGIC,
)
from coordinator.errors import DecodeError, JournalFormatError

__all__ = [
    "CHECKPOINT_HEADER_SIZE",
    "SEGMENT_HEADER_SIZE",
    "BatchClaim",
    "CheckpointHeader",
    "HeaderError",
    "SegmentHeader",
    "batch_claims",
    "decode_checkpoint",
    "decode_segment_header",
    "encode_checkpoint",
    "encode_segment_header",
    "is_zeros",
    "parse_segment_name",
    "segment_name",
]

_FORMAT = 1
_SEGMENT_MAGIC = b"CSEG"
_CHECKPOINT_MAGIC = b"CCKP"
_START = struct.Struct("<4sBB2x")
_SEGMENT = struct.Struct("<4sBB2xII16sQQQI")
_CHECKPOINT = struct.Struct("<4sBB2xI4x16sQQQ4x")
_CRC = struct.Struct("<I")
_BATCH_KIND = MAGIC + bytes((FORMAT, 0, CRC_KIND_ZLIB, 0))
_BATCH = struct.Struct("<8xQQII")
_CRC_OFFSET = 60
_NAME = re.compile(r"([0-9]{20})\.seg")
JOURNAL_ID_SIZE = 16  # bytes

SEGMENT_HEADER_SIZE = _SEGMENT.size + _CRC.size
CHECKPOINT_HEADER_SIZE = _CHECKPOINT.size + _CRC.size

assert _SEGMENT.size == _CRC_OFFSET
assert _CHECKPOINT.size == _CRC_OFFSET
assert SEGMENT_HEADER_SIZE % ALIGNMENT == 0


class HeaderError(DecodeError):
    """The bytes are not the header (or the checkpoint) that was written."""


class SegmentHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment says about itself."""

    journal_id: bytes
    partition: int
    partitions: int
    base: int
    created_at: int
    """Microseconds since 1970."""
    epoch: int
    """Of the batch before the first one here."""
    previous_crc: int


class CheckpointHeader(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says about itself."""

    journal_id: bytes
    partition: int
    low: int
    end: int
    size: int
    """Bytes of data behind the header."""


def segment_name(base: int) -> str:
    """Return the name of the segment whose first record is at *base*."""
    return f"{base:020d}.seg"


def parse_segment_name(name: str) -> int | None:
    """Return the base position in a segment's name; None if it is another file's."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def encode_segment_header(header: SegmentHeader) -> bytes:
    """Encode *header* with its crc."""
    assert len(header.journal_id) == JOURNAL_ID_SIZE
    data = _SEGMENT.pack(
        _SEGMENT_MAGIC,
        _FORMAT,
        CRC_KIND_ZLIB,
        header.partition,
        header.partitions,
        header.journal_id,
        header.base,
        header.created_at,
        header.epoch,
        header.previous_crc,
    )
    return data + _CRC.pack(zlib.crc32(data))


def decode_segment_header(data: bytes) -> SegmentHeader:
    """Decode the first `SEGMENT_HEADER_SIZE` bytes of a segment.

    Raises:
        HeaderError: It is not what was written.
        JournalFormatError: It is intact, and of a newer format.
    """
    _check(data, _SEGMENT_MAGIC, data[:_CRC_OFFSET])
    _, _, _, partition, partitions, journal_id, base, created_at, epoch, crc = (
        _SEGMENT.unpack_from(data)
    )
    return SegmentHeader(
        journal_id=journal_id,
        partition=partition,
        partitions=partitions,
        base=base,
        created_at=created_at,
        epoch=epoch,
        previous_crc=crc,
    )


def encode_checkpoint(
    data: bytes, *, journal_id: bytes, partition: int, low: int, end: int
) -> bytes:
    """Return the whole file that holds the checkpoint *data*."""
    assert len(journal_id) == JOURNAL_ID_SIZE
    header = _CHECKPOINT.pack(
        _CHECKPOINT_MAGIC,
        _FORMAT,
        CRC_KIND_ZLIB,
        partition,
        journal_id,
        low,
        end,
        len(data),
    )
    crc = zlib.crc32(data, zlib.crc32(header))
    return b"".join((header, _CRC.pack(crc), data))


def decode_checkpoint(data: bytes) -> CheckpointHeader:
    """Check a whole checkpoint file and return its header.

    Raises:
        HeaderError: It is not what was written.
        JournalFormatError: It is intact, and of a newer format.
    """
    covered = data[:_CRC_OFFSET] + data[CHECKPOINT_HEADER_SIZE:]
    _check(data, _CHECKPOINT_MAGIC, covered)
    _, _, _, partition, journal_id, low, end, size = _CHECKPOINT.unpack_from(data)
    if size != len(data) - CHECKPOINT_HEADER_SIZE:
        raise HeaderError(f"{size} bytes of data are announced, the file differs")
    return CheckpointHeader(
        journal_id=journal_id, partition=partition, low=low, end=end, size=size
    )


def _check(data: bytes, magic: bytes, covered: bytes) -> None:
    """Check what the two headers have in common."""
    if len(data) < _CRC_OFFSET + _CRC.size:
        raise HeaderError(f"{len(data)} bytes are less than a header")
    found, format_, crc_kind = _START.unpack_from(data)
    if found != magic:
        raise HeaderError(f"magic is {found!r}, not {magic!r}")
    (crc,) = _CRC.unpack_from(data, _CRC_OFFSET)
    actual = zlib.crc32(covered)
    if actual != crc:
        raise HeaderError(f"header crc is {actual:08x}, it says {crc:08x}")
    # Behind the crc: a flipped bit is damage, not a newer version's doing.
    if format_ != _FORMAT or crc_kind != CRC_KIND_ZLIB:
        raise JournalFormatError(
            f"format {format_} with crc kind {crc_kind}; this version reads format 1, "
            f"use the one that wrote it"
        )


class BatchClaim(NamedTuple):
    """What the header of a batch says, if it is one: no crc was looked at."""

    offset: int
    """Where it starts in the data that was searched."""
    epoch: int
    first: int
    size: int
    """Bytes of the whole batch."""


def batch_claims(data: bytes) -> Iterator[BatchClaim]:
    """Yield what may be the headers of batches in *data*, at aligned offsets.

    By `bytes.find`, so that megabytes of zeros cost no more than a memory scan. One
    that *data* cuts off is left out.
    """
    offset = data.find(_BATCH_KIND)
    while 0 <= offset <= len(data) - HEADER_SIZE:
        if offset % ALIGNMENT == 0:
            epoch, first, count, length = _BATCH.unpack_from(data, offset)
            size = HEADER_SIZE + length + -length % ALIGNMENT
            if count and size <= BATCH_SIZE_MAX:
                yield BatchClaim(offset, epoch, first, size)
        offset = data.find(_BATCH_KIND, offset + 1)


def is_zeros(data: bytes) -> bool:
    """Tell whether *data* is nothing but zeros."""
    return data == bytes(len(data))  # One memcmp: six times as fast as data.count(0).
