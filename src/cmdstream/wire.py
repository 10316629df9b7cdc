"""Wire primitives: bytes in, values out, nothing kept.

    uvarint    0..2**64-1     little-endian base 128, high bit set on all but the last
    varint     int64          the uvarint of its 64-bit two's complement; never zigzag
    size       0..2**63-1     a varint that may not be negative: lengths, tags, seqs
    zigzag     int64          the uvarint of (n << 1) ^ (n >> 63): -1 is 01, 1 is 02
    float      float64        the uvarint of its IEEE 754 bits
    raw        int, float     1, 2, 4 or 8 bytes, little-endian
    bool       01 or 00
    bytes      size, then that many bytes
    string     bytes that are UTF-8
    slice      size, then that many elements
    map        size, then that many key, value pairs
    pointer    00 and the value, or 01 for nil
    time       raw int64 of Unix seconds, milliseconds or nanoseconds

A reader takes ``(data, offset)`` and returns ``(value, index just past it)``, or None
if *data* ends first, so a frame may be tried again when more has arrived. A writer
returns bytes. The framing and the JSON and Protobuf codecs use varint and size only;
the rest is the vocabulary of the MUS format, here because it is one table of bytes
(`vectors.json`, recorded from mus-stream-go v0.10.1 with cmd-stream-go v0.6.2).

A varint has at most 10 bytes and the tenth is at most 01. A longer form of a small
value (``81 00`` for 1) is accepted, since Go accepts it; we never write one.
"""

import struct
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from cmdstream.errors import EncodeError, RemoteProtocolError

__all__ = [
    "INT64_MAX",
    "INT64_MIN",
    "UINT64_MAX",
    "UVARINT_SIZE_MAX",
    "Buffer",
    "Reader",
    "read_bool",
    "read_bytes",
    "read_float",
    "read_map",
    "read_pointer",
    "read_raw_float",
    "read_raw_int",
    "read_raw_uint",
    "read_size",
    "read_slice",
    "read_string",
    "read_uvarint",
    "read_varint",
    "read_zigzag",
    "write_bool",
    "write_bytes",
    "write_float",
    "write_map",
    "write_pointer",
    "write_raw_float",
    "write_raw_int",
    "write_raw_uint",
    "write_size",
    "write_slice",
    "write_string",
    "write_uvarint",
    "write_varint",
    "write_zigzag",
]

UVARINT_SIZE_MAX = 10  # bytes: ceil(64 bits / 7 bits per byte)
UINT64_MAX = 2**64 - 1
INT64_MAX = 2**63 - 1
INT64_MIN = -(2**63)
SIZE_MAX = 16 * 1024 * 1024  # bytes or elements; what an unchecked peer may announce

assert UVARINT_SIZE_MAX * 7 >= 64 > (UVARINT_SIZE_MAX - 1) * 7

_ONE_BYTE = [bytes((value,)) for value in range(0x80)]

_DOUBLE = struct.Struct("<d")
_FLOAT = struct.Struct("<f")
_DOUBLE_BITS = struct.Struct("<Q")

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

Buffer: TypeAlias = bytes | bytearray
Reader: TypeAlias = Callable[[Buffer, int], tuple[T, int] | None]


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


def read_uvarint(data: Buffer, offset: int) -> tuple[int, int] | None:
    """Decode the uvarint that starts at *offset*; None if *data* ends first.

    Raises:
        RemoteProtocolError: The varint is longer than 10 bytes or exceeds 64 bits.
    """
    value = shift = 0
    # The size bounds the loop: a peer cannot make us read on by never ending a varint.
    end = min(offset + UVARINT_SIZE_MAX, len(data))
    while offset < end:
        byte = data[offset]
        offset += 1
        if byte < 0x80:
            value |= byte << shift
            if value > UINT64_MAX:
                raise RemoteProtocolError(f"varint exceeds 64 bits: {value:#x}")
            return value, offset
        value |= (byte & 0x7F) << shift
        shift += 7
    if shift == 7 * UVARINT_SIZE_MAX:
        raise RemoteProtocolError(f"varint is longer than {UVARINT_SIZE_MAX} bytes")
    return None


def write_varint(value: int) -> bytes:
    """Encode the int64 *value* as Go's "positive" varint: -1 takes ten bytes.

    Raises:
        EncodeError: *value* does not fit 64 signed bits.
    """
    if not INT64_MIN <= value <= INT64_MAX:
        raise EncodeError(f"varint out of range: {value}")
    return write_uvarint(value & UINT64_MAX)


def read_varint(data: Buffer, offset: int) -> tuple[int, int] | None:
    """Decode an int64 from Go's "positive" varint; None if *data* ends first.

    Raises:
        RemoteProtocolError: See `read_uvarint`.
    """
    if (found := read_uvarint(data, offset)) is None:
        return None
    value, end = found
    return (value if value <= INT64_MAX else value - UINT64_MAX - 1), end


def write_size(value: int) -> bytes:
    """Encode a length, a tag or a seq: an int64 that is not negative.

    Raises:
        EncodeError: *value* is negative or does not fit 63 bits.
    """
    if not 0 <= value <= INT64_MAX:
        raise EncodeError(f"size out of range: {value}")
    if value < 0x80:
        return _ONE_BYTE[value]
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    if value < 0x200000:
        return bytes((value & 0x7F | 0x80, value >> 7 & 0x7F | 0x80, value >> 14))
    return write_uvarint(value)


def read_size(data: Buffer, offset: int) -> tuple[int, int] | None:
    """Decode a length, a tag or a seq; None if *data* ends first.

    Raises:
        RemoteProtocolError: It is negative, or see `read_uvarint`.
    """
    # One byte is the form of short lengths, two or three of most seqs: read without a
    # loop, as this is called for every frame.
    left = len(data) - offset
    if left > 0 and (first := data[offset]) < 0x80:
        return first, offset + 1
    if left > 1 and (second := data[offset + 1]) < 0x80:
        return data[offset] & 0x7F | second << 7, offset + 2
    if left > 2 and (third := data[offset + 2]) < 0x80:
        low = data[offset] & 0x7F | (data[offset + 1] & 0x7F) << 7
        return low | third << 14, offset + 3
    if (found := read_uvarint(data, offset)) is None:
        return None
    if found[0] > INT64_MAX:
        raise RemoteProtocolError(f"negative number: {found[0] - UINT64_MAX - 1}")
    return found


def write_zigzag(value: int) -> bytes:
    """Encode the int64 *value* so that small negative numbers stay short.

    Raises:
        EncodeError: *value* does not fit 64 signed bits.
    """
    if not INT64_MIN <= value <= INT64_MAX:
        raise EncodeError(f"zigzag varint out of range: {value}")
    return write_uvarint(value << 1 if value >= 0 else ~(value << 1))


def read_zigzag(data: Buffer, offset: int) -> tuple[int, int] | None:
    """Decode a zigzag int64; None if *data* ends first.

    Raises:
        RemoteProtocolError: See `read_uvarint`.
    """
    if (found := read_uvarint(data, offset)) is None:
        return None
    value, end = found
    return value >> 1 ^ -(value & 1), end


def write_float(value: float) -> bytes:
    """Encode the bits of a float64 as a uvarint: short only for special values."""
    (bits,) = _DOUBLE_BITS.unpack(_DOUBLE.pack(value))
    return write_uvarint(bits)


def read_float(data: Buffer, offset: int) -> tuple[float, int] | None:
    """Decode a float64 from the uvarint of its bits; None if *data* ends first.

    Raises:
        RemoteProtocolError: See `read_uvarint`.
    """
    if (found := read_uvarint(data, offset)) is None:
        return None
    (value,) = _DOUBLE.unpack(_DOUBLE_BITS.pack(found[0]))
    return value, found[1]


def write_raw_int(value: int, size: int) -> bytes:
    """Encode a signed integer in *size* bytes (1, 2, 4 or 8), little-endian.

    Raises:
        EncodeError: *value* does not fit.
    """
    try:
        return value.to_bytes(size, "little", signed=True)
    except OverflowError:
        raise EncodeError(f"{value} does not fit {size} signed bytes") from None


def read_raw_int(data: Buffer, offset: int, size: int) -> tuple[int, int] | None:
    """Decode a signed integer of *size* bytes; None if *data* ends first."""
    end = offset + size
    if end > len(data):
        return None
    return int.from_bytes(data[offset:end], "little", signed=True), end


def write_raw_uint(value: int, size: int) -> bytes:
    """Encode an unsigned integer in *size* bytes (1, 2, 4 or 8), little-endian.

    Raises:
        EncodeError: *value* does not fit.
    """
    try:
        return value.to_bytes(size, "little")
    except OverflowError:
        raise EncodeError(f"{value} does not fit {size} unsigned bytes") from None


def read_raw_uint(data: Buffer, offset: int, size: int) -> tuple[int, int] | None:
    """Decode an unsigned integer of *size* bytes; None if *data* ends first."""
    end = offset + size
    if end > len(data):
        return None
    return int.from_bytes(data[offset:end], "little"), end


def write_raw_float(value: float, size: int = 8) -> bytes:
    """Encode a float in 8 bytes, or in 4 with the precision that leaves.

    Raises:
        EncodeError: *value* is finite and too large for 4 bytes.
    """
    try:
        return (_DOUBLE if size == 8 else _FLOAT).pack(value)
    except OverflowError:
        raise EncodeError(f"{value} does not fit a {size}-byte float") from None


def read_raw_float(
    data: Buffer, offset: int, size: int = 8
) -> tuple[float, int] | None:
    """Decode a float of 8 or 4 bytes; None if *data* ends first."""
    end = offset + size
    if end > len(data):
        return None
    (value,) = (_DOUBLE if size == 8 else _FLOAT).unpack_from(data, offset)
    return value, end


def write_bool(value: bool) -> bytes:
    """Encode a bool as ``01`` or ``00``."""
    return b"\x01" if value else b"\x00"


def read_bool(data: Buffer, offset: int) -> tuple[bool, int] | None:
    """Decode a bool; None if *data* ends first.

    Raises:
        RemoteProtocolError: The byte is neither ``00`` nor ``01``.
    """
    if offset >= len(data):
        return None
    if (byte := data[offset]) > 1:
        raise RemoteProtocolError(f"bool at byte {offset} is {byte:#04x}")
    return byte == 1, offset + 1


def write_bytes(value: bytes) -> bytes:
    """Encode *value* behind its length."""
    return write_size(len(value)) + value


def read_bytes(
    data: Buffer, offset: int, size_max: int = SIZE_MAX
) -> tuple[bytes, int] | None:
    """Decode length-prefixed bytes; None if *data* ends first.

    Raises:
        RemoteProtocolError: More than *size_max* bytes are announced, whether or not
            they have arrived; or see `read_size`.
    """
    if (found := _read_count(data, offset, size_max, "bytes")) is None:
        return None
    size, start = found
    end = start + size
    if end > len(data):
        return None
    return bytes(data[start:end]), end


def write_string(value: str) -> bytes:
    """Encode *value* as UTF-8 behind its length in bytes.

    Raises:
        EncodeError: *value* holds a lone surrogate.
    """
    try:
        return write_bytes(value.encode())
    except UnicodeEncodeError as error:
        raise EncodeError(f"string is not valid unicode: {error}") from None


def read_string(
    data: Buffer, offset: int, size_max: int = SIZE_MAX
) -> tuple[str, int] | None:
    """Decode a length-prefixed UTF-8 string; None if *data* ends first.

    Raises:
        RemoteProtocolError: It is not UTF-8, or see `read_bytes`.
    """
    if (found := read_bytes(data, offset, size_max)) is None:
        return None
    try:
        return found[0].decode(), found[1]
    except UnicodeDecodeError as error:
        raise RemoteProtocolError(
            f"string at byte {offset} is not utf-8: {error}"
        ) from None


def write_slice(values: list[T], write_item: Callable[[T], bytes]) -> bytes:
    """Encode *values* one after the other behind their count."""
    return write_size(len(values)) + b"".join(map(write_item, values))


def read_slice(
    data: Buffer, offset: int, read_item: Reader[T], count_max: int = SIZE_MAX
) -> tuple[list[T], int] | None:
    """Decode a counted sequence; None if *data* ends first.

    Raises:
        RemoteProtocolError: More than *count_max* elements are announced, or an
            element is malformed.
    """
    if (found := _read_count(data, offset, count_max, "elements")) is None:
        return None
    count, end = found
    values: list[T] = []  # grows with what has arrived, not with what is announced
    for _ in range(count):
        if (item := read_item(data, end)) is None:
            return None
        value, end = item
        values.append(value)
    return values, end


def write_map(
    values: dict[K, V],
    write_key: Callable[[K], bytes],
    write_value: Callable[[V], bytes],
) -> bytes:
    """Encode the pairs of *values* in their order behind their count."""
    return write_size(len(values)) + b"".join(
        write_key(key) + write_value(value) for key, value in values.items()
    )


def read_map(
    data: Buffer,
    offset: int,
    read_key: Reader[K],
    read_value: Reader[V],
    count_max: int = SIZE_MAX,
) -> tuple[dict[K, V], int] | None:
    """Decode counted pairs, the later of equal keys; None if *data* ends first.

    Raises:
        RemoteProtocolError: As `read_slice`.
    """

    def read_pair(data: Buffer, offset: int) -> tuple[tuple[K, V], int] | None:
        if (key := read_key(data, offset)) is None:
            return None
        if (value := read_value(data, key[1])) is None:
            return None
        return (key[0], value[0]), value[1]

    if (found := read_slice(data, offset, read_pair, count_max)) is None:
        return None
    return dict(found[0]), found[1]


def write_pointer(value: T | None, write_item: Callable[[T], bytes]) -> bytes:
    """Encode *value* behind ``00``, or nil as ``01``."""
    return b"\x01" if value is None else b"\x00" + write_item(value)


def read_pointer(
    data: Buffer, offset: int, read_item: Reader[T]
) -> tuple[T | None, int] | None:
    """Decode a value that may be nil; None if *data* ends first.

    Raises:
        RemoteProtocolError: The flag is neither ``00`` nor ``01``. ``02``, a pointer
            into the same message, needs a table that a sans-state reader has not.
    """
    if offset >= len(data):
        return None
    if (flag := data[offset]) == 1:
        return None, offset + 1
    if flag != 0:
        raise RemoteProtocolError(f"pointer flag at byte {offset} is {flag:#04x}")
    return read_item(data, offset + 1)


def _read_count(
    data: Buffer, offset: int, count_max: int, unit: str
) -> tuple[int, int] | None:
    """Decode a count and hold it against its limit before anything is allocated."""
    if (found := read_size(data, offset)) is None:
        return None
    if found[0] > count_max:
        raise RemoteProtocolError(
            f"{found[0]} {unit} announced at byte {offset}, the limit is {count_max}"
        )
    return found
