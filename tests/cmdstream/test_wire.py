"""The primitives: as short as they can be, cut short, and damaged."""

import contextlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmdstream import EncodeError, RemoteProtocolError, wire

Write = Callable[[int], bytes]
Read = Callable[[bytes, int], tuple[int, int] | None]

PAIRS: list[tuple[int, Write, Read]] = [
    (wire.UINT64_MAX, wire.write_uvarint, wire.read_uvarint),
    (wire.INT64_MAX, wire.write_size, wire.read_size),
]


@pytest.mark.parametrize(("largest", "write", "read"), PAIRS)
@given(data=st.data())
def test_what_is_written_reads_back_and_no_further(
    largest: int, write: Write, read: Read, data: st.DataObject
) -> None:
    bits = data.draw(st.integers(0, largest.bit_length()))
    value = data.draw(st.integers(0, (1 << bits) - 1))
    rest = data.draw(st.binary(max_size=12))
    written = write(value)
    assert read(written + rest, 0) == (value, len(written))
    assert read(b"\xff" + written + rest, 1) == (value, len(written) + 1)
    for cut in range(len(written)):
        assert read(written[:cut], 0) is None


@given(st.integers(0, 63).map(lambda bits: (1 << bits) - 1) | st.integers(0, 2**63 - 1))
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
    ("data", "bits", "reason"),
    [
        (b"\x80" * 10, 64, "longer than 10 bytes"),
        (b"\x80" * 11 + b"\x01", 64, "longer than 10 bytes"),
        (b"\xff" * 9 + b"\x02", 64, "exceeds 64 bits"),
        (b"\x80" * 5, 32, "longer than 5 bytes"),
        (b"\xff" * 4 + b"\x10", 32, "exceeds 32 bits"),
        (b"\x80" * 3, 16, "longer than 3 bytes"),
        (b"\xff\xff\x04", 16, "exceeds 16 bits"),
        (b"\x80\x02", 8, "exceeds 8 bits"),
        (b"\x80\x80", 8, "longer than 2 bytes"),
    ],
)
def test_a_number_of_too_many_bits_is_the_peers_fault(
    data: bytes, bits: int, reason: str
) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        wire.read_uvarint(data, 0, bits)


def test_the_largest_number_of_each_size_is_read() -> None:
    for bits in (8, 16, 32, 64):
        written = wire.write_uvarint(2**bits - 1)
        assert wire.read_uvarint(written, 0, bits) == (2**bits - 1, len(written))


def test_a_negative_size_is_the_peers_fault() -> None:
    with pytest.raises(RemoteProtocolError, match="negative number: -1"):
        wire.read_size(b"\xff" * 9 + b"\x01", 0)


@pytest.mark.parametrize(
    ("write", "value"),
    [
        (wire.write_uvarint, -1),
        (wire.write_uvarint, wire.UINT64_MAX + 1),
        (wire.write_size, -1),
        (wire.write_size, wire.INT64_MAX + 1),
    ],
)
def test_what_has_no_bytes_is_our_fault(write: Write, value: int) -> None:
    with pytest.raises(EncodeError, match="out of range"):
        write(value)


@pytest.mark.parametrize("read", [wire.read_uvarint, wire.read_size])
@given(garbage=st.binary(max_size=40))
def test_any_bytes_read_or_blame_the_peer(read: Read, garbage: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        read(garbage, 0)
