"""The primitives: against Go's bytes, cut short, and damaged."""

import contextlib
import datetime as dt
from base64 import b64decode
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cmdstream.helpers import VECTORS

from cmdstream import EncodeError, RemoteProtocolError, wire

Write = Callable[[Any], bytes]
Read = Callable[[bytes, int], tuple[Any, int] | None]

UNIX = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def nanoseconds(text: str) -> int:
    """Read an RFC 3339 time with nine decimals, three more than datetime has."""
    seconds, decimals = text.rstrip("Z").split(".")
    since = dt.datetime.fromisoformat(seconds).replace(tzinfo=dt.UTC) - UNIX
    return int(since.total_seconds()) * 1_000_000_000 + int(decimals)


def same(value: Any) -> Any:
    return value


raw8: Write = partial(wire.write_raw_int, size=8)
read_raw8: Read = partial(wire.read_raw_int, size=8)

# For each kind of the recordings: how its value is written there, and our pair.
KINDS: dict[str, tuple[Callable[[Any], Any], Write, Read]] = {
    "len / positive varint int": (same, wire.write_size, wire.read_size),
    "DTM (positive varint int)": (same, wire.write_size, wire.read_size),
    "seq (positive varint int64)": (same, wire.write_varint, wire.read_varint),
    "varint int64 (zigzag)": (int, wire.write_zigzag, wire.read_zigzag),
    "varint uint64": (int, wire.write_uvarint, wire.read_uvarint),
    "varint float64 (IEEE bits as uint64 varint)": (
        float, wire.write_float, wire.read_float,
    ),
    "raw int64 (little endian)": (int, raw8, read_raw8),
    "raw int32": (
        int, partial(wire.write_raw_int, size=4), partial(wire.read_raw_int, size=4),
    ),
    "raw float64": (float, wire.write_raw_float, wire.read_raw_float),
    "bool": (same, wire.write_bool, wire.read_bool),
    "string": (same, wire.write_string, wire.read_string),
    "byte slice": (
        lambda text: bytes.fromhex(text.removeprefix("hex:")),
        wire.write_bytes, wire.read_bytes,
    ),
    "pointer to string": (
        lambda text: text and text.removeprefix("&"),
        partial(wire.write_pointer, write_item=wire.write_string),
        partial(wire.read_pointer, read_item=wire.read_string),
    ),
    "slice of varint int": (
        same,
        partial(wire.write_slice, write_item=wire.write_zigzag),
        partial(wire.read_slice, read_item=wire.read_zigzag),
    ),
    "map string->int": (
        same,
        partial(
            wire.write_map, write_key=wire.write_string, write_value=wire.write_zigzag
        ),
        partial(wire.read_map, read_key=wire.read_string, read_value=wire.read_zigzag),
    ),
    "raw TimeUnix (seconds)": (
        lambda text: nanoseconds(text) // 1_000_000_000, raw8, read_raw8,
    ),
    "raw TimeUnixMilli": (
        lambda text: nanoseconds(text) // 1_000_000, raw8, read_raw8,
    ),
    "raw TimeUnixNano": (nanoseconds, raw8, read_raw8),
    "ServerInfo": (b64decode, wire.write_bytes, wire.read_bytes),
}  # fmt: skip

PRIMITIVES = [
    pytest.param(entry, id=f"{entry['kind']} {entry['value']}")
    for entry in VECTORS["primitives"]
]


def test_every_recorded_primitive_is_driven() -> None:
    assert len(PRIMITIVES) == 65
    assert {entry["kind"] for entry in VECTORS["primitives"]} == set(KINDS)


@pytest.mark.parametrize("entry", PRIMITIVES)
def test_we_write_what_go_writes(entry: dict[str, Any]) -> None:
    value_of, write, _ = KINDS[entry["kind"]]
    assert write(value_of(entry["value"])).hex() == entry["hex"]


@pytest.mark.parametrize("entry", PRIMITIVES)
def test_we_read_what_go_writes_at_any_place(entry: dict[str, Any]) -> None:
    value_of, _, read = KINDS[entry["kind"]]
    data = bytes.fromhex(entry["hex"])
    assert read(data, 0) == (value_of(entry["value"]), len(data))
    assert read(b"\xff" + data + b"\xff", 1) == (
        value_of(entry["value"]),
        len(data) + 1,
    )


@pytest.mark.parametrize("entry", PRIMITIVES)
def test_a_primitive_cut_short_asks_for_more(entry: dict[str, Any]) -> None:
    _, _, read = KINDS[entry["kind"]]
    data = bytes.fromhex(entry["hex"])
    for cut in range(len(data)):
        assert read(data[:cut], 0) is None


int64s = st.integers(wire.INT64_MIN, wire.INT64_MAX)
ROUND_TRIPS: list[tuple[st.SearchStrategy[Any], Write, Read]] = [
    (st.integers(0, wire.UINT64_MAX), wire.write_uvarint, wire.read_uvarint),
    (int64s, wire.write_varint, wire.read_varint),
    (int64s, wire.write_zigzag, wire.read_zigzag),
    (st.integers(0, wire.INT64_MAX), wire.write_size, wire.read_size),
    (st.floats(allow_nan=False), wire.write_float, wire.read_float),
    (st.floats(allow_nan=False), wire.write_raw_float, wire.read_raw_float),
    (
        st.floats(allow_nan=False, width=32),
        partial(wire.write_raw_float, size=4),
        partial(wire.read_raw_float, size=4),
    ),
    (
        st.integers(0, 2**16 - 1),
        partial(wire.write_raw_uint, size=2),
        partial(wire.read_raw_uint, size=2),
    ),
    (st.text(), wire.write_string, wire.read_string),
]


@pytest.mark.parametrize(("values", "write", "read"), ROUND_TRIPS)
@given(data=st.data())
def test_what_is_written_reads_back_and_no_further(
    values: st.SearchStrategy[Any], write: Write, read: Read, data: st.DataObject
) -> None:
    value, rest = data.draw(values), data.draw(st.binary(max_size=12))
    written = write(value)
    assert read(written + rest, 0) == (value, len(written))
    for cut in range(len(written)):
        assert read(written[:cut], 0) is None


@given(st.integers(0, wire.INT64_MAX))
def test_a_size_is_as_short_as_it_can_be(value: int) -> None:
    assert wire.write_size(value) == wire.write_uvarint(value)
    assert len(wire.write_size(value)) == max(1, -(-value.bit_length() // 7))


@pytest.mark.parametrize(
    ("data", "value"),
    [
        (b"\x81\x00", 1),
        (b"\x80\x00", 0),
        (b"\x81\x80\x80\x00", 1),
        (b"\x80" * 9 + b"\0", 0),
    ],
)
def test_a_longer_form_than_needed_is_accepted(data: bytes, value: int) -> None:
    assert wire.read_size(data, 0) == (value, len(data))


@pytest.mark.parametrize(
    ("read", "data"),
    [
        (wire.read_uvarint, b"\x80" * 10),
        (wire.read_uvarint, b"\x80" * 11 + b"\x01"),
        (wire.read_uvarint, b"\xff" * 9 + b"\x02"),
        (wire.read_size, b"\xff" * 9 + b"\x01"),
        (wire.read_bool, b"\x02"),
        (wire.read_string, b"\x01\xff"),
        (partial(wire.read_pointer, read_item=wire.read_string), b"\x02\x00"),
        (partial(wire.read_bytes, size_max=4), b"\x05"),
        (partial(wire.read_slice, read_item=wire.read_bool, count_max=2), b"\x03"),
        (
            partial(
                wire.read_map,
                read_key=wire.read_bool,
                read_value=wire.read_bool,
                count_max=2,
            ),
            b"\x03",
        ),
    ],
)
def test_what_no_further_byte_can_mend_is_the_peers_fault(
    read: Read, data: bytes
) -> None:
    with pytest.raises(RemoteProtocolError):
        read(data, 0)


def test_an_announced_size_takes_no_memory() -> None:
    assert wire.read_slice(wire.write_size(2**24), 0, wire.read_bool) is None
    assert wire.read_bytes(wire.write_size(2**24), 0) is None


@pytest.mark.parametrize(
    ("write", "value"),
    [
        (wire.write_uvarint, -1),
        (wire.write_uvarint, wire.UINT64_MAX + 1),
        (wire.write_varint, wire.INT64_MAX + 1),
        (wire.write_varint, wire.INT64_MIN - 1),
        (wire.write_zigzag, wire.INT64_MAX + 1),
        (wire.write_size, -1),
        (wire.write_size, wire.INT64_MAX + 1),
        (partial(wire.write_raw_int, size=1), 128),
        (partial(wire.write_raw_uint, size=1), -1),
        (partial(wire.write_raw_float, size=4), 1e300),
        (wire.write_string, "\ud800"),
    ],
)
def test_what_has_no_bytes_is_our_fault(write: Write, value: object) -> None:
    with pytest.raises(EncodeError):
        write(value)


@pytest.mark.parametrize("read", [kind[2] for kind in KINDS.values()])
@given(garbage=st.binary(max_size=40))
def test_any_bytes_read_or_blame_the_peer(read: Read, garbage: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        read(garbage, 0)
