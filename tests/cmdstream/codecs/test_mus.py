"""The MUS codec: frames of Go's, damaged ones, and whatever a peer may announce."""

import datetime as dt
import tracemalloc
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cmdstream.helpers import REGISTRY, AddCmd, EchoCmd, EchoResult

from cmdstream import (
    DecodeError,
    EncodeError,
    MusCodec,
    Registry,
    RegistryError,
    RemoteProtocolError,
)
from cmdstream.codec import Decoded, Unfinished
from cmdstream.codecs.mus import Float, Int, Time, Uint
from cmdstream.wire import write_size

CODEC = MusCodec(REGISTRY)


class Item(msgspec.Struct):
    name: str
    count: Annotated[int, Uint(16)]


class Tree(msgspec.Struct):
    name: str
    branches: "list[Tree]" = []


@dataclass
class Wide:
    """Each sort of field once."""

    flag: bool
    number: int
    small: Annotated[int, Int(32, "raw")]
    size: Annotated[int, msgspec.Meta(ge=0)]
    ratio: float
    half: Annotated[float, Float(32)]
    text: str
    data: bytes
    at: Annotated[dt.datetime, Time("us")]
    maybe: str | None
    items: list[Item]
    by_name: dict[str, Item | None]
    tree: Tree


WIDE = MusCodec(Registry([Wide, Tree, Item], [EchoResult]))

items = st.builds(Item, st.text(), st.integers(0, 2**16 - 1))
trees = st.recursive(
    st.builds(Tree, st.text()),
    lambda inner: st.builds(Tree, st.text(max_size=3), st.lists(inner, max_size=3)),
    max_leaves=6,
)
wides = st.builds(
    Wide,
    flag=st.booleans(),
    number=st.integers(-(2**63), 2**63 - 1),
    small=st.integers(-(2**31), 2**31 - 1),
    size=st.integers(0, 2**64 - 1),
    ratio=st.floats(allow_nan=False),
    half=st.floats(allow_nan=False, width=32),
    text=st.text(),
    data=st.binary(),
    at=st.datetimes(timezones=st.just(dt.UTC)),
    maybe=st.none() | st.text(),
    items=st.lists(items, max_size=4),
    by_name=st.dictionaries(st.text(), st.none() | items, max_size=3),
    tree=trees,
)


def decode(codec: MusCodec, segments: Iterable[bytes]) -> Decoded | Exception | None:
    """Let *codec* take in a command bit by bit; None if it wants more at the end."""
    data = b""
    found: Decoded | Unfinished | int = 0
    for segment in segments:
        data += segment
        needed = found.needed if isinstance(found, Unfinished) else found
        assert isinstance(needed, int)
        if len(data) < needed:
            continue
        try:
            if isinstance(found, Unfinished):
                found = found.resume(b"behind" + data, 6)
                if isinstance(found, Decoded):
                    return msgspec.structs.replace(found, end=found.end - 6)
                found = Unfinished(found.needed - 6, found.resume)
            else:
                found = codec.decode_command(data, 0)
                if isinstance(found, Decoded):
                    return found
        except RemoteProtocolError as error:
            return error
    return None


def split(data: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    return [data[start:end] for start, end in pairwise(places)]


CUTS = st.lists(st.integers(0, 300))


@given(value=wides | trees | items, rest=st.binary(max_size=3), cuts=CUTS)
def test_whatever_is_written_reads_back_however_it_is_cut(
    value: object, rest: bytes, cuts: list[int]
) -> None:
    data = WIDE.encode_command(value)
    found = WIDE.decode_command(b"\xff" + data + rest, 1)
    assert isinstance(found, Decoded)
    assert (found.value, found.end) == (value, len(data) + 1)
    assert found.body == data[1:]
    for segments in (split(data, cuts), split(data, range(len(data)))):
        assert decode(WIDE, segments) == Decoded(value, data[0], data[1:], len(data))


@given(value=wides | trees, data=st.data())
def test_damage_is_a_value_or_the_peers_fault_however_it_is_cut(
    value: object, data: st.DataObject
) -> None:
    frame = bytearray(WIDE.encode_command(value))
    for _ in range(data.draw(st.integers(1, 3))):
        bit = data.draw(st.integers(0, len(frame) * 8 - 1))
        frame[bit // 8] ^= 1 << bit % 8
    del frame[data.draw(st.integers(0, len(frame))) :]
    whole = repr(decode(WIDE, [bytes(frame)]))  # by which not-a-numbers are equal
    assert whole == repr(decode(WIDE, split(bytes(frame), data.draw(CUTS))))
    assert whole == repr(decode(WIDE, split(bytes(frame), range(len(frame)))))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_the_peers_fault_however_they_are_cut(
    garbage: bytes,
) -> None:
    for dtm in range(5):
        data = bytes((dtm,)) + garbage
        one_by_one = decode(WIDE, split(data, range(len(data))))
        assert repr(decode(WIDE, [data])) == repr(one_by_one)
    with suppress(RemoteProtocolError):
        CODEC.decode_result(garbage, 0)


# What is announced.

HUGE = write_size(2**63 - 1)
NEGATIVE = b"\xff" * 9 + b"\x01"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x03" + HUGE, "command Item: more than 16777216 bytes, which is the limit"),
        (b"\x03" + NEGATIVE, "command Item: negative number: -1"),
        (b"\x03" + b"\x80" * 10, "command Item: varint is longer than 10 bytes"),
        (b"\x03\x00\xff\xff\x04", "command Item: varint exceeds 16 bits"),
        (b"\x03\x00\x80\x80\x80", "command Item: varint is longer than 3 bytes"),
        (b"\x03\x02\xff\xfe\x00", "command Item: 'utf-8' codec can't decode"),
        (b"\x02\x00" + HUGE, "command Tree: 9223372036854775807 elements announced"),
        (b"\x02" + b"\x00\x01" * 150, "command Tree: values lie more than 200 deep"),
        (NEGATIVE, "negative number: -1"),
        (b"\x80" * 10, "varint is longer than 10 bytes"),
        (b"\x04", r"unknown command DTM 4: 1, 2, 3 are registered"),
        (b"\x00", "unknown command DTM 0"),
    ],
)
def test_what_cannot_become_a_command_is_refused_at_once(
    data: bytes, reason: str
) -> None:
    for segments in ([data], split(data, range(len(data)))):
        found = decode(WIDE, segments)
        assert isinstance(found, RemoteProtocolError)
        assert str(found).startswith(reason)


@pytest.mark.parametrize(
    "data",
    [
        b"\x03" + write_size(2**24 - 100),  # a string
        b"\x02\x00" + write_size(2**20),  # a list
        b"\x01\x01" + bytes(28),
    ],
)
def test_what_is_announced_takes_no_memory(data: bytes) -> None:
    tracemalloc.start()
    try:
        found = decode(WIDE, split(data, range(len(data))))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert found is None
    assert peak < 100_000


def test_a_large_body_that_comes_in_many_segments_is_walked_once() -> None:
    value = Tree("", [Tree(str(number)) for number in range(5000)])
    data = WIDE.encode_command(value)
    reads: list[int] = []

    class Watched(bytes):
        """Counts the looks at single bytes, of which each varint and flag needs one."""

        def __getitem__(self, place: Any) -> Any:
            if isinstance(place, int):
                reads.append(place)
            return super().__getitem__(place)

    found: Any = WIDE.decode_command(Watched(data[:10]), 0)
    for end in range(20, len(data) + 1, 10):
        if end >= found.needed:
            found = found.resume(Watched(data[:end]), 0)
            if isinstance(found, Decoded):
                break
    else:
        found = found.resume(Watched(data), 0)
    assert found.value == value
    # Each byte is looked at a few times: by the walk, again where a segment ended in
    # it, and by the reader.
    assert len(reads) < 5 * len(data)


# Numbers, limits, errors.


def test_dtms_begin_at_one_unless_told_otherwise() -> None:
    command = AddCmd(2, -3)
    assert MusCodec(REGISTRY).encode_command(command) == b"\x01\x04\x05"
    assert MusCodec(REGISTRY, first_dtm=0).encode_command(command) == b"\x00\x04\x05"
    chosen = MusCodec(Registry({300: AddCmd, 7: EchoCmd}, {}))
    assert chosen.encode_command(command) == b"\xac\x02\x04\x05"
    assert decode(chosen, [b"\xac", b"\x02\x04", b"\x05"]) == Decoded(
        command, 300, b"\x04\x05", 4
    )
    with pytest.raises(DecodeError, match="unknown command DTM 1: 300, 7 are register"):
        chosen.decode_command(b"\x01", 0)
    with pytest.raises(DecodeError, match="unknown result DTM 1: none are registered"):
        chosen.decode_result(b"\x01", 0)


def test_limits_are_kept_both_ways() -> None:
    codec = MusCodec(
        Registry([Item, Tree], []), body_size_max=10, items_max=2, depth_max=4
    )
    assert codec.encode_command(Item("x" * 8, 1))
    assert decode(codec, [b"\x01\x08" + b"x" * 8 + b"\x01"]) is not None
    with pytest.raises(EncodeError, match="command Item takes 11 bytes, the limit is"):
        codec.encode_command(Item("x" * 9, 1))
    with pytest.raises(RemoteProtocolError, match="command Item: more than 10 bytes"):
        codec.decode_command(b"\x01\x09" + b"x" * 9 + b"\x01", 0)
    with pytest.raises(EncodeError, match="3 elements, the limit is 2"):
        codec.encode_command(Tree("", [Tree("")] * 3))
    assert codec.encode_command(Tree("", [Tree("")]))
    with pytest.raises(EncodeError, match="values lie more than 4 deep"):
        codec.encode_command(Tree("", [Tree("", [Tree("")])]))


def test_a_value_of_another_type_is_not_sent() -> None:
    with pytest.raises(EncodeError, match="command Item has no MUS form"):
        WIDE.encode_command(Item("x", 2**16))
    with pytest.raises(
        EncodeError, match="int is not a registered command: Wide, Tree"
    ):
        WIDE.encode_command(1)
    with pytest.raises(EncodeError, match="Item is not a registered result"):
        WIDE.encode_result(Item("x", 1))
    with pytest.raises(EncodeError, match="Item is not a registered result"):
        WIDE.is_last(Item("x", 1))
    knot = Tree("knot")
    knot.branches = [knot]
    with pytest.raises(EncodeError, match="command Tree has no MUS form"):
        WIDE.encode_command(knot)


@dataclass
class Picky:
    """Its own checks raise what they like."""

    n: int
    text: str

    def __post_init__(self) -> None:
        if self.n > 1:
            raise LookupError


def test_a_class_is_asked_only_about_what_has_arrived_whole() -> None:
    codec = MusCodec(Registry([Picky], []))
    for data in (b"\x01\x04", b"\x01\x04\x02a"):
        assert decode(codec, [data]) is None
    found = decode(codec, [b"\x01\x04\x02ab"])
    assert isinstance(found, DecodeError)
    assert str(found) == "command Picky: LookupError()"


def test_a_type_without_a_form_is_refused_at_start_up() -> None:
    with pytest.raises(RegistryError, match="complex holds complex, which has no"):
        MusCodec(Registry([complex], []))
