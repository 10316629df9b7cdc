"""A batch: the unit of durability on every backend.

    0       4    5    6    7    8         16          24      28      32       36    40
    +-------+----+----+----+----+---------+-----------+-------+-------+--------+-----+
    | magic | fo | fl | ck | -- | epoch   | first     | count | length| prev.  | crc |
    |       | rm | ag | in |    |         | position  |       |       | crc    |     |
    +-------+----+----+----+----+---------+-----------+-------+-------+--------+-----+
    | length | record | length | record | ...                     zeros to 8 bytes   |
    +--------------------------------------------------------------------------------+

    magic           b"CBAT"
    format          u8, 1
    flags           u8, 0; reserved
    crc kind        u8, 1 = CRC-32 as of zlib
    epoch           u64, of the owner that wrote it
    first position  u64, of its first record; the others follow without gaps
    count           u32, records; at least 1
    length          u32, bytes of all records with their lengths, without the padding
    previous crc    u32, the crc of the batch before it in the partition, 0 at the start
    crc             u32, CRC-32 over all of the batch but these four bytes
    record length   u32, bytes of the record that follows

All numbers are little-endian. Three things follow from this layout:

* A run of zeros is not a batch: its magic is wrong. The allocated, unwritten end of a
  file reads as "no more batches".
* The CRC covers the header and the padding too, so any flipped bit is found.
* A stale batch in a recycled place does not validate: the chained crc is another one,
  and so is the position.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import msgspec

from coordinator.errors import DecodeError
from coordinator.model import Position
from coordinator.records import RECORD_SIZE_MAX, Record, decode_record

__all__ = [
    "ALIGNMENT",
    "BATCH_SIZE_MAX",
    "HEADER_SIZE",
    "Batch",
    "BatchError",
    "IncompleteBatchError",
    "NewerFormatError",
    "decode_batch",
    "encode_batch",
]

MAGIC = b"CBAT"
FORMAT = 1
CRC_KIND_ZLIB = 1
ALIGNMENT = 8
"""Bytes; a reader that looks for a batch behind a bad one looks at every eighth. No
magic lies across two sectors, but a header may."""

_KIND_FIELDS = struct.Struct("<4sBBBB")
_KIND = _KIND_FIELDS.pack(MAGIC, FORMAT, 0, CRC_KIND_ZLIB, 0)
_HEADER = struct.Struct("<8sQQIIII")
_LENGTH = struct.Struct("<I")
_CRC_OFFSET = 36
HEADER_SIZE = _HEADER.size
"""Bytes before the first record's length."""

BATCH_SIZE_MAX = 32 * 1024 * 1024
"""Bytes of a whole batch; bounds what a damaged length can make a reader take. The
writer stops filling a batch at 1 MiB; only a single large record makes a larger one."""

assert HEADER_SIZE == 40
assert HEADER_SIZE % ALIGNMENT == 0
assert HEADER_SIZE + _LENGTH.size + RECORD_SIZE_MAX <= BATCH_SIZE_MAX


class BatchError(DecodeError):
    """The bytes are not a valid batch."""


class IncompleteBatchError(BatchError):
    """The bytes end before the batch does."""


class NewerFormatError(BatchError):
    """The batch is intact as far as one can tell, but of a format we do not read."""


class Batch(msgspec.Struct, frozen=True, gc=False):
    """One encoded batch and what its header says."""

    epoch: int
    first: Position
    count: int
    previous_crc: int
    crc: int
    data: bytes
    """The whole batch: header, records, padding."""

    @property
    def end(self) -> Position:
        """The position behind its last record."""
        return Position(self.first + self.count)

    def records(self) -> Iterator[tuple[Position, Record]]:
        """Decode its records, each with its position.

        Raises:
            DecodeError: A record is of no known kind, or they do not fill the batch.
        """
        data = self.data
        unpack_length = _LENGTH.unpack_from
        end = HEADER_SIZE
        # Any, because a Position(...) per record would cost as much as decoding it.
        positions: Any = range(self.first, self.first + self.count)
        for position in positions:
            try:
                (length,) = unpack_length(data, end)
            except struct.error:
                raise self._not_filled() from None
            start = end + _LENGTH.size
            end = start + length
            # A slice of bytes copies, and still costs less than a memoryview.
            yield position, decode_record(data[start:end])
        if not 0 <= len(data) - end < ALIGNMENT:
            raise self._not_filled()

    def _not_filled(self) -> BatchError:
        return BatchError(
            f"{self.count} records of the batch at position {self.first} do not fill "
            f"its {len(self.data)} bytes"
        )


def encode_batch(
    records: Sequence[bytes], *, epoch: int, first: int, previous_crc: int
) -> Batch:
    """Put encoded *records* into one batch that follows the one of *previous_crc*."""
    assert records
    sizes = [*map(len, records)]
    assert max(sizes) <= RECORD_SIZE_MAX
    length = sum(sizes) + len(sizes) * _LENGTH.size
    # No line of Python per record: this runs on the loop, for up to a thousand of them.
    framed = chain.from_iterable(zip(map(_LENGTH.pack, sizes), records, strict=True))
    body = b"".join((*framed, bytes(-length % ALIGNMENT)))
    header = _HEADER.pack(_KIND, epoch, first, len(records), length, previous_crc, 0)
    header = header[:_CRC_OFFSET]
    crc = zlib.crc32(body, zlib.crc32(header))
    return Batch(
        epoch=epoch,
        first=Position(first),
        count=len(records),
        previous_crc=previous_crc,
        crc=crc,
        data=b"".join((header, _LENGTH.pack(crc), body)),
    )


def decode_batch(data: bytes | memoryview, offset: int = 0) -> Batch:
    """Decode the batch that starts at *offset* of *data*, without its records.

    The caller compares `first` and `previous_crc` with the batch before it.

    Raises:
        IncompleteBatchError: *data* ends before the batch does.
        NewerFormatError: Another format than ours.
        BatchError: Anything else that no writer puts there.
    """
    available = len(data) - offset
    if available < HEADER_SIZE:
        raise IncompleteBatchError(f"{available} bytes are less than a batch header")
    kind, epoch, first, count, length, previous_crc, crc = _HEADER.unpack_from(
        data, offset
    )
    # One comparison for the five fields that are always the same.
    if kind != _KIND:
        _check_kind(kind)
    size = HEADER_SIZE + length + -length % ALIGNMENT
    if size > BATCH_SIZE_MAX or count == 0:
        raise BatchError(f"batch claims {count} records in {size} bytes")
    if size > available:
        raise IncompleteBatchError(f"batch of {size} bytes, {available} are there")
    content = bytes(data[offset : offset + size])
    actual = zlib.crc32(content[HEADER_SIZE:], zlib.crc32(content[:_CRC_OFFSET]))
    if actual != crc:
        raise BatchError(f"crc is {actual:08x}, the header says {crc:08x}")
    return Batch(epoch, first, count, previous_crc, crc, content)


def _check_kind(kind: bytes) -> None:
    """Say what is wrong with the first eight bytes of a batch."""
    magic, format_, flags, crc_kind, reserved = _KIND_FIELDS.unpack(kind)
    if magic != MAGIC:
        raise BatchError(f"no batch starts here: magic is {magic!r}")
    # No version writes a 0 there, but a torn write leaves one: the magic, then zeros.
    if format_ == 0 or (format_ == FORMAT and crc_kind == 0):
        raise BatchError("a batch starts here, its header is torn")
    raise NewerFormatError(
        f"batch of format {format_} with flags {flags}, crc kind {crc_kind} and "
        f"{reserved}, unless it is damaged; this version reads format 1, use the one "
        f"that wrote it"
    )
