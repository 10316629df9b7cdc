"""Wire primitives: bytes in, values out, nothing kept.

    uvarint    0..2**64-1   little-endian base 128, high bit set on all but the last
    size       0..2**63-1   the uvarint of an int64 that may not be negative: lengths,
                            tags, seqs

A reader takes ``(data, offset)`` and returns ``(value, index just past it)``, or None
if *data* ends first, so a frame may be tried again when more has arrived. A writer
returns bytes.

A uvarint of 64 bits has at most 10 bytes and the tenth is at most 01. A longer form of
a small value (``81 00`` for 1) is accepted, since Go accepts it; we never write one.
"""

import functools
from typing import TypeAlias

from cmdstream.errors import EncodeError, RemoteProtocolError

__all__ = [
    "INT64_MAX",
    "INT64_MIN",
    "UINT64_MAX",
    "Buffer",
    "read_size",
    "read_uvarint",
    "write_size",
    "write_uvarint",
]

UINT64_MAX = 2**64 - 1
INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)

Buffer: TypeAlias = bytes | bytearray

_ONLY = [bytes((value,)) for value in range(0x80)]
_FIRST = [bytes((value | 0x80,)) for value in range(0x80)]


def write_uvarint(value: int) -> bytes:
    """Encode *value* (0 to 2**64 - 1) in as few bytes as it fits.

    Raises:
        EncodeError: *value* does not fit 64 unsigned bits.
    """
    if not 0 <= value <= UINT64_MAX:
        raise EncodeError(f"uvarint out of range: {value}")
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_uvarint(data: Buffer, offset: int, bits: int = 64) -> tuple[int, int] | None:
    """Decode the uvarint that starts at *offset*; None if *data* ends first.

    Raises:
        RemoteProtocolError: The varint exceeds *bits*, or is longer than so many need:
            10 bytes for 64.
    """
    value = shift = 0
    size_max = -(-bits // 7)
    # The size bounds the loop: a peer cannot make us read on by never ending a varint.
    end = min(offset + size_max, len(data))
    while offset < end:
        byte = data[offset]
        offset += 1
        if byte < 0x80:
            value |= byte << shift
            if value >> bits:
                raise RemoteProtocolError(f"varint exceeds {bits} bits: {value:#x}")
            return value, offset
        value |= (byte & 0x7F) << shift
        shift += 7
    if shift == 7 * size_max:
        raise RemoteProtocolError(f"varint is longer than {size_max} bytes")
    return None


def write_size(value: int) -> bytes:
    """Encode a length, a tag or a seq: an int64 that is not negative.

    Raises:
        EncodeError: *value* is negative or does not fit 63 bits.
    """
    if value >= 0x80:
        return _FIRST[value & 0x7F] + _rest_of_size(value >> 7)
    if value < 0:
        raise EncodeError(f"size out of range: {value}")
    return _ONLY[value]


# Seqs count up: all but the first byte of one is that of its neighbours.
@functools.lru_cache(maxsize=1024)
def _rest_of_size(value: int) -> bytes:
    if value > INT64_MAX >> 7:
        raise EncodeError(f"size out of range: {value << 7} or more")
    return write_uvarint(value)


def read_size(data: Buffer, offset: int) -> tuple[int, int] | None:
    """Decode a length, a tag or a seq; None if *data* ends first.

    Raises:
        RemoteProtocolError: It is negative, or see `read_uvarint`.
    """
    # One byte is the form of short lengths, two to four of most seqs: read without a
    # loop, as this is called for every frame.
    try:
        if (first := data[offset]) < 0x80:
            return first, offset + 1
        if (second := data[offset + 1]) < 0x80:
            return first & 0x7F | second << 7, offset + 2
        if (third := data[offset + 2]) < 0x80:
            return first & 0x7F | (second & 0x7F) << 7 | third << 14, offset + 3
        if (fourth := data[offset + 3]) < 0x80:
            low = first & 0x7F | (second & 0x7F) << 7 | (third & 0x7F) << 14
            return low | fourth << 21, offset + 4
    except IndexError:
        return None
    if (found := read_uvarint(data, offset)) is None:
        return None
    if found[0] > INT64_MAX:
        raise RemoteProtocolError(f"negative number: {found[0] - UINT64_MAX - 1}")
    return found
