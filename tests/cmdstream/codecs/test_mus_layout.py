"""The walk: past every layout, however it is cut, and no further than its limits."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmdstream import RemoteProtocolError
from cmdstream.codecs.mus_layout import (
    Fields,
    Fixed,
    Flag,
    Items,
    Layout,
    Limits,
    Pointer,
    Sized,
    Varint,
    Walk,
)
from cmdstream.wire import write_size

LIMITS = Limits(body_size_max=40, items_max=5, depth_max=6)

NODE = Fields()
NODE.fields = [Varint(64), Pointer(NODE)]

EXAMPLES: list[tuple[Layout, bytes]] = [
    (Fixed(4), b"\xff\xff\xff\xff"),
    (Flag(), b"\x01"),
    (Varint(64), b"\xff" * 9 + b"\x01"),
    (Varint(16), b"\xff\xff\x03"),
    (Sized(), b"\x00"),
    (Sized(), b"\x05hello"),
    (Sized(), b"\x83\x00abc"),
    (Pointer(Sized()), b"\x01"),
    (Pointer(Sized()), b"\x00\x02hi"),
    (Items((Flag(),)), b"\x00"),
    (Items((Fixed(2),)), b"\x03aabbcc"),
    (Items((Sized(), Varint(64))), b"\x02\x01a\x80\x01\x01b\x02"),
    (Items((Items((Flag(),)),)), b"\x02\x01\x01\x02\x00\x00"),
    (Fields(), b""),
    (Fields([Fixed(1), Fields([Flag(), Sized()]), Flag()]), b"x\x01\x02hi\x00"),
    (NODE, b"\x01\x00\x02\x00\x03\x01"),
]


def end_of(layout: Layout, data: bytes, limits: Limits = LIMITS) -> int:
    return Walk(layout, 0, limits).run(data, 0)


@pytest.mark.parametrize(("layout", "data"), EXAMPLES)
def test_a_value_ends_where_its_bytes_end(layout: Layout, data: bytes) -> None:
    assert end_of(layout, data) == len(data)
    assert end_of(layout, data + b"\xff\xff") == len(data)
    for cut in range(len(data)):
        needed = end_of(layout, data[:cut])
        assert cut < needed <= len(data)


@pytest.mark.parametrize(("layout", "data"), EXAMPLES)
@given(cuts=st.lists(st.integers(0, 20)), places=st.lists(st.integers(0, 9)))
def test_a_walk_goes_on_where_it_stopped_wherever_the_bytes_lie_by_then(
    layout: Layout, data: bytes, cuts: list[int], places: list[int]
) -> None:
    walk = Walk(layout, 2, LIMITS)
    found: list[int] = []
    for number, cut in enumerate([*sorted(cut for cut in cuts if cut < len(data)), -1]):
        offset = places[number] if number < len(places) else 0
        arrived = b"z" * offset + b"hd" + (data if cut == -1 else data[:cut])
        found.append(walk.run(arrived, offset) - offset - 2)
    assert found[-1] == len(data)
    assert found == sorted(found)


def test_each_byte_is_walked_once() -> None:
    looks: list[int] = []

    class Counted(Fixed, frozen=True):
        def step(
            self, data: bytes | bytearray, at: int, limits: Limits
        ) -> tuple[int, tuple[Layout, ...]]:
            del limits
            looks.append(at)
            return at + 1, ()

    limits = Limits(body_size_max=10_000, items_max=5_000, depth_max=2)
    data = write_size(5_000) + bytes(5_000)
    walk = Walk(Items((Counted(1),)), 0, limits)
    ends = [walk.run(data[:cut], 0) for cut in range(0, len(data) + 1, 2)]
    assert ends[-1] == len(data)
    assert len(looks) <= 5_000 + len(ends)


@pytest.mark.parametrize(
    ("layout", "data", "reason"),
    [
        (Flag(), b"\x02", "bool 0x02, neither 00 nor 01"),
        (Varint(64), b"\x80" * 10, "longer than 10 bytes"),
        (Varint(32), b"\xff\xff\xff\xff\x10", "exceeds 32 bits"),
        (Sized(), b"\xff" * 9 + b"\x01", "negative number: -1"),
        (Pointer(Flag()), b"\x02\x02", "pointer flag 0x02, neither 00 nor 01"),
        (Items((Flag(),)), b"\x06", "6 elements announced, the limit is 5"),
        (Items((Flag(),)), b"\xff" * 8 + b"\x7f", "elements announced"),
        (Sized(), b"\x28", "more than 40 bytes, which is the limit"),
        (Sized(), b"\xff" * 8 + b"\x7f", "more than 40 bytes"),
        (Fixed(41), b"", "more than 40 bytes"),
        (NODE, b"\x00\x00" * 4, "more than 6 deep"),
    ],
)
def test_what_no_further_byte_can_mend_is_refused_at_once(
    layout: Layout, data: bytes, reason: str
) -> None:
    with pytest.raises(RemoteProtocolError, match=reason):
        end_of(layout, data)


def test_a_body_of_exactly_the_limit_is_walked() -> None:
    assert end_of(Sized(), b"\x27" + bytes(39)) == 40
    assert end_of(NODE, b"\x00\x00\x00\x00\x00\x01") == 6
