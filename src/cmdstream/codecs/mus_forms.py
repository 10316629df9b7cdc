"""How the values of each type are read and written in MUS.

A `Form` is a layout, a reader and a writer. Readers take ``(data, at)`` and return
``(value, index just past it)``; they are written for whole bodies and raise whatever
they come across first, also where *data* merely ends too soon: `Walk` is who tells
the two apart. What they must not do is take something for a value that is none.
Writers append to a bytearray.

The forms are those of mus-stream-go v0.10; the generator's choice for each Go type:

    int, int16, int32, int64       zigzag varint        uint…    uvarint
    int8, uint8                    raw, one byte
    float32, float64               raw                  bool     01 or 00
    string, []byte                 size, bytes          time.Time   raw int64, seconds
    []T                            size, elements       map[K]V  size, keys and values
    *T                             00 and a T, or 01    struct   its fields
"""

import datetime as dt
import struct
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec

from cmdstream.codecs.mus_layout import (
    Fields,
    Fixed,
    Flag,
    Items,
    Layout,
    Pointer,
    Sized,
    Varint,
)
from cmdstream.wire import (
    INT64_MAX,
    Buffer,
    read_size,
    read_uvarint,
    write_size,
    write_uvarint,
)

__all__ = [
    "BOOL",
    "BYTES",
    "INT",
    "STRING",
    "Form",
    "Read",
    "Write",
    "checked",
    "fields",
    "float_form",
    "int_form",
    "items",
    "made",
    "pairs",
    "pointer",
    "time_form",
]

Bits: TypeAlias = Literal[8, 16, 32, 64]
Encoding: TypeAlias = Literal["varint", "positive", "raw"]
Unit: TypeAlias = Literal["s", "ms", "us", "ns"]

Read: TypeAlias = Callable[[Buffer, int], tuple[Any, int]]
Write: TypeAlias = Callable[[Any, bytearray], None]


class Form(msgspec.Struct, frozen=True):
    """What the bytes of one type look like, and how they are read and written."""

    layout: Layout
    read: Read
    write: Write


def _present(found: tuple[int, int] | None) -> tuple[int, int]:
    if found is None:
        raise IndexError("the data ends here")
    return found


# Integers.


def _read_int(data: Buffer, at: int) -> tuple[int, int]:
    if (byte := data[at]) < 0x80:
        return byte >> 1 ^ -(byte & 1), at + 1
    if at + 1 < len(data) and (high := data[at + 1]) < 0x80:
        value, end = byte & 0x7F | high << 7, at + 2
    else:
        value, end = _present(read_uvarint(data, at))
    return value >> 1 ^ -(value & 1), end


def _write_int(value: int, out: bytearray) -> None:
    if (zigzag := _to_zigzag(value)) < 0x80:
        out.append(zigzag)
    elif zigzag <= INT64_MAX:
        out += write_size(zigzag)  # it has short ways for what is short
    else:
        _check_range(value, 64, signed=True)
        out += write_uvarint(zigzag)


def _check_range(value: int, bits: int, *, signed: bool) -> None:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, 2**bits - 1)
    if not low <= value <= high:
        kind = "int" if signed else "uint"
        raise ValueError(f"{value} does not fit {kind}{bits}")


INT = Form(Varint(64), _read_int, _write_int)
"""Go's int and int64: the form of a Python int of which nothing else is said."""


def int_form(bits: Bits, encoding: Encoding, *, signed: bool) -> Form:
    """Make the form of an integer.

    Args:
        bits: Its size in Go.
        encoding: "varint" is zigzag if *signed*; "positive" is not, so that a negative
            number takes all the bytes there are; "raw" is little-endian, *bits* long.
        signed: False for Go's uint.
    """
    if encoding == "raw":
        return _raw_int(bits, signed=signed)
    if not signed:
        return _uvarint(bits, _same, _same, signed=False)
    if encoding == "varint":
        return _uvarint(bits, _to_zigzag, _from_zigzag, signed=True)
    modulus = 1 << bits
    return _uvarint(
        bits,
        lambda value: value % modulus,
        lambda value: value if value < modulus >> 1 else value - modulus,
        signed=True,
    )


def _same(value: int) -> int:
    return value


def _to_zigzag(value: int) -> int:
    return value << 1 if value >= 0 else ~(value << 1)


def _from_zigzag(value: int) -> int:
    return value >> 1 ^ -(value & 1)


def _uvarint(
    bits: Bits,
    into: Callable[[int], int],
    out_of: Callable[[int], int],
    *,
    signed: bool,
) -> Form:
    def read(data: Buffer, at: int) -> tuple[int, int]:
        value, end = _present(read_uvarint(data, at, bits))
        return out_of(value), end

    def write(value: int, out: bytearray) -> None:
        _check_range(value, bits, signed=signed)
        out += write_uvarint(into(value))

    return Form(Varint(bits), read, write)


def _raw_int(bits: Bits, *, signed: bool) -> Form:
    size = bits // 8
    code: str = {1: "b", 2: "h", 4: "i", 8: "q"}[size]
    packing = struct.Struct("<" + (code if signed else code.upper()))

    def write(value: int, out: bytearray) -> None:
        _check_range(value, bits, signed=signed)
        out += packing.pack(value)

    return Form(Fixed(size), _reader_of(packing), write)


def _reader_of(packing: struct.Struct) -> Read:
    size = packing.size

    def read(data: Buffer, at: int) -> tuple[Any, int]:
        return packing.unpack_from(data, at)[0], at + size

    return read


# Floats and bools.


def float_form(bits: Literal[32, 64], encoding: Literal["raw", "varint"]) -> Form:
    """Make the form of a float: its bits raw, or as the uvarint that they are."""
    packing = struct.Struct("<d" if bits == 64 else "<f")
    if encoding == "raw":

        def write_raw(value: float, out: bytearray) -> None:
            out += packing.pack(value)

        return Form(Fixed(packing.size), _reader_of(packing), write_raw)
    number = struct.Struct("<Q" if bits == 64 else "<I")

    def read(data: Buffer, at: int) -> tuple[float, int]:
        value, end = _present(read_uvarint(data, at, bits))
        found: float = packing.unpack(number.pack(value))[0]
        return found, end

    def write(value: float, out: bytearray) -> None:
        out += write_uvarint(number.unpack(packing.pack(value))[0])

    return Form(Varint(bits), read, write)


def _read_bool(data: Buffer, at: int) -> tuple[bool, int]:
    if (byte := data[at]) > 1:
        raise ValueError(f"bool at byte {at} is {byte:#04x}")
    return byte == 1, at + 1


def _write_bool(value: bool, out: bytearray) -> None:
    out.append(1 if value else 0)


BOOL = Form(Flag(), _read_bool, _write_bool)


# Bytes and strings.


def _read_sized(data: Buffer, at: int) -> tuple[Buffer, int]:
    # A size of one byte, the usual one, is read without a call.
    size, start = data[at], at + 1
    if size >= 0x80:
        size, start = _present(read_size(data, at))
    end = start + size
    if end > len(data):
        raise IndexError("the data ends here")
    return data[start:end], end


def _read_bytes(data: Buffer, at: int) -> tuple[bytes, int]:
    value, end = _read_sized(data, at)
    return bytes(value), end


def _write_bytes(value: bytes, out: bytearray) -> None:
    out += write_size(len(value))
    out += bytes.__bytes__(value)  # a list of ints would be taken, too


def _read_string(data: Buffer, at: int) -> tuple[str, int]:
    value, end = _read_sized(data, at)
    return value.decode(), end


def _write_string(value: str, out: bytearray) -> None:
    encoded = str.encode(value)
    out += write_size(len(encoded))
    out += encoded


BYTES = Form(Sized(), _read_bytes, _write_bytes)
STRING = Form(Sized(), _read_string, _write_string)
"""Go takes any bytes for a string; where those are no UTF-8, declare `bytes`."""


# Times.

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_PER_SECOND: dict[Unit, int] = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}


def time_form(unit: Unit) -> Form:
    """Make the form of a time: a raw int64 of *unit* since 1970, in UTC.

    What is finer than *unit*, or than a datetime's microseconds, is cut off.
    """
    raw = _raw_int(64, signed=True)
    per_second = _PER_SECOND[unit]

    def read(data: Buffer, at: int) -> tuple[dt.datetime, int]:
        count, end = raw.read(data, at)
        return _EPOCH + count * 10**6 // per_second * _MICROSECOND, end

    def write(value: dt.datetime, out: bytearray) -> None:
        if value.tzinfo is None:
            raise ValueError(f"{value} says no time zone")
        raw.write((value - _EPOCH) // _MICROSECOND * per_second // 10**6, out)

    return Form(Fixed(8), read, write)


# What holds other values.


def made(form: Form, scalar: Any, entry: Callable[[Any], object]) -> Form:
    """Make the form of a class that is a *scalar*, such as ``class EchoCmd(str)``."""
    read_plain, write_plain = form.read, form.write
    plain = _PLAIN[scalar]

    def read(data: Buffer, at: int) -> tuple[object, int]:
        value, end = read_plain(data, at)
        return entry(value), end

    def write(value: object, out: bytearray) -> None:
        write_plain(plain(value), out)

    return Form(form.layout, read, write)


# What gives the builtin inside, whatever the class overrides.
_PLAIN: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: bytes.__bytes__,
}


def checked(form: Form, check: Callable[[Any], object]) -> Form:
    """Make a form whose values are given to *check* when they are read."""
    read_unchecked = form.read

    def read(data: Buffer, at: int) -> tuple[object, int]:
        found = read_unchecked(data, at)
        check(found[0])
        return found

    return Form(form.layout, read, form.write)


def pointer(inner: Form) -> Form:
    """Make the form of a value that may be None."""
    read_inner, write_inner = inner.read, inner.write

    def read(data: Buffer, at: int) -> tuple[object, int]:
        if (flag := data[at]) > 1:
            raise ValueError(f"pointer flag at byte {at} is {flag:#04x}")
        return (None, at + 1) if flag else read_inner(data, at + 1)

    def write(value: object, out: bytearray) -> None:
        if value is None:
            out.append(1)
        else:
            out.append(0)
            write_inner(value, out)

    return Form(Pointer(inner.layout), read, write)


def _read_count(data: Buffer, at: int, items_max: int) -> tuple[int, int]:
    count, start = _present(read_size(data, at))
    if count > items_max:
        raise ValueError(f"{count} elements announced")
    return count, start


def _write_count(count: int, items_max: int, out: bytearray) -> None:
    if count > items_max:
        raise ValueError(f"{count} elements, the limit is {items_max}")
    out += write_size(count)


def items(
    inner: Form, items_max: int, make: Callable[[list[Any]], object] | None
) -> Form:
    """Make the form of a sequence.

    Args:
        inner: The form of its elements.
        items_max: How many there may be.
        make: What makes the sequence of a list; None for a list.
    """
    read_item, write_item = inner.read, inner.write

    def read(data: Buffer, at: int) -> tuple[object, int]:
        count, at = _read_count(data, at, items_max)
        values: list[
            Any
        ] = []  # grows with what has arrived, not with what is announced
        for _ in range(count):
            value, at = read_item(data, at)
            values.append(value)
        return (values if make is None else make(values)), at

    def write(value: Sequence[object], out: bytearray) -> None:
        _write_count(len(value), items_max, out)
        for item in value:
            write_item(item, out)

    return Form(Items((inner.layout,)), read, write)


def pairs(key: Form, value: Form, items_max: int) -> Form:
    """Make the form of a map. Of equal keys the last one wins, as in Go."""
    read_key, write_key = key.read, key.write
    read_value, write_value = value.read, value.write

    def read(data: Buffer, at: int) -> tuple[dict[Any, Any], int]:
        count, at = _read_count(data, at, items_max)
        values: dict[Any, Any] = {}
        for _ in range(count):
            name, at = read_key(data, at)
            values[name], at = read_value(data, at)
        return values, at

    def write(values: dict[Any, Any], out: bytearray) -> None:
        _write_count(len(values), items_max, out)
        for name, item in values.items():
            write_key(name, out)
            write_value(item, out)

    return Form(Items((key.layout, value.layout)), read, write)


def fields(
    layout: Fields,
    named: Sequence[tuple[str, Read, Write]],
    make: Callable[..., object],
) -> Form:
    """Make the form of a struct.

    Args:
        layout: Its layout, whose fields are complete when the form is first used.
        named: The names, readers and writers of its fields, in the order of the wire;
            likewise.
        make: What makes one, from its fields in that order.
    """

    def read(data: Buffer, at: int) -> tuple[object, int]:
        values: list[object] = []
        for _, read_field, _ in named:
            value, at = read_field(data, at)
            values.append(value)
        return make(*values), at

    def write(value: object, out: bytearray) -> None:
        for name, _, write_field in named:
            write_field(getattr(value, name), out)

    return Form(layout, read, write)
