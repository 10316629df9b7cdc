"""Records: stored as drawn, read by every later version, refused when they are not."""

from typing import get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.errors import DecodeError, EncodeError
from coordinator.model import Direction, EndStatus, OutcomeStatus
from coordinator.records import (
    Aborting,
    Accepted,
    Cancelled,
    Carried,
    Claimed,
    Finished,
    Held,
    Lost,
    Outcome,
    Record,
    Released,
    Resumed,
    Started,
    Stuck,
    decode_record,
    encode_record,
)

ACCEPTED = Accepted("Order", "json", b"{}", 1, "key", "trace")
OUTCOME = Outcome(
    1, "a.b", 2, b"\x01", 3, Direction.UNDO, OutcomeStatus.REFUSED, "other"
)

EACH: list[Record] = [
    Claimed(1, "host a", 2, 20_000),
    ACCEPTED,
    Accepted("Order", "json", b"{}", 1),
    OUTCOME,
    Outcome(1, "a.b", 0, b"", 3),
    Aborting(1, "no stock", 4, b"\x90"),
    Finished(1, EndStatus.COMPENSATED, b"\xc0", 5),
    Stuck(1, "bug", 6),
    Resumed(1, "ann", 7),
    Cancelled(1, "ann", "because", 8),
    Started(1, (("a.b", 0), ("a.c", 2)), 9),
    Carried(
        1, 9, ACCEPTED, (OUTCOME,), Cancelled(1, "a", "b", 8), None, Stuck(1, "", 1)
    ),
    Lost(10, "a bad batch", b"seal"),
    Held(11),
    Released(12),
]


@pytest.mark.parametrize("record", EACH, ids=lambda record: type(record).__name__)
def test_every_record_comes_back_as_it_was(record: Record) -> None:
    assert decode_record(encode_record(record)) == record
    assert decode_record(memoryview(encode_record(record))) == record


@pytest.mark.parametrize("record", EACH, ids=lambda record: type(record).__name__)
def test_a_record_is_an_array_that_begins_with_its_number(record: Record) -> None:
    number, *fields = msgspec.msgpack.decode(encode_record(record))
    assert number == type(record).__struct_config__.tag
    assert len(fields) == len(type(record).__struct_fields__)


def test_the_numbers_are_the_ones_that_were_released() -> None:
    numbers = {type(record).__name__: encode_record(record)[1] for record in EACH}
    assert numbers == {
        "Claimed": 0,
        "Accepted": 1,
        "Outcome": 2,
        "Aborting": 3,
        "Finished": 4,
        "Stuck": 5,
        "Resumed": 6,
        "Cancelled": 7,
        "Carried": 8,
        "Started": 9,
        "Lost": 10,
        "Held": 11,
        "Released": 12,
    }
    assert numbers.keys() == {kind.__name__ for kind in get_args(Record)}


def test_a_claim_without_a_lease_is_stored_as_it_was_before_there_were_any() -> None:
    stored = encode_record(Claimed(1, "host a", 2))
    assert stored == b"\x94\x00\x01\xa6host a\x02"
    assert decode_record(stored) == Claimed(1, "host a", 2, lease_ms=0)


def test_a_claim_that_can_not_be_stored_is_refused_with_a_lease_or_without() -> None:
    for lease_ms in (0, 20_000):
        with pytest.raises(EncodeError, match="surrogates not allowed"):
            encode_record(Claimed(1, "caf\udce9", 2, lease_ms))


@pytest.mark.parametrize("record", EACH, ids=lambda record: type(record).__name__)
def test_fields_that_a_later_version_appends_are_ignored(record: Record) -> None:
    fields = msgspec.msgpack.decode(encode_record(record))
    later = msgspec.msgpack.encode([*fields, "appended", 42])
    assert decode_record(later) == record


def test_an_earlier_version_reads_a_claim_without_its_lease() -> None:
    class Earlier(
        msgspec.Struct, array_like=True, tag_field="number", tag=0, frozen=True
    ):
        epoch: int
        owner: str
        at: int

    stored = encode_record(Claimed(1, "host a", 2, 20_000))
    assert msgspec.msgpack.decode(stored, type=Earlier) == Earlier(1, "host a", 2)


def test_fields_that_an_earlier_version_did_not_have_get_their_default() -> None:
    earlier = msgspec.msgpack.encode([1, "Order", "json", b"{}", 1])
    assert decode_record(earlier) == Accepted("Order", "json", b"{}", 1, "", "")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        msgspec.msgpack.encode([99, 1]),
        msgspec.msgpack.encode([0]),
        msgspec.msgpack.encode([0, "one", "x", 1]),
        msgspec.msgpack.encode([4, 1, 17, b"", 1]),
        b"\x91" * 5000,
    ],
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(DecodeError, match="not a journal record"):
        decode_record(data)


@given(st.binary())
def test_any_bytes_are_a_record_or_refused(data: bytes) -> None:
    try:
        record = decode_record(data)
    except DecodeError:
        return
    assert decode_record(encode_record(record)) == record


def test_a_lost_record_may_be_its_number_alone() -> None:
    assert decode_record(msgspec.msgpack.encode([10])) == Lost()


def test_a_text_that_is_none_is_no_record() -> None:
    data = encode_record(Stuck(1, "bug", 6)).replace(b"bug", b"b\xffg")
    with pytest.raises(DecodeError, match="not a journal record"):
        decode_record(data)


def test_a_text_that_is_none_is_refused_before_it_is_written() -> None:
    with pytest.raises(EncodeError, match="surrogates not allowed"):
        encode_record(Accepted("PlaceOrder", "msgpack", b"", 1, "caf\udce9"))
