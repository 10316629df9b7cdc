"""What instances say of themselves; and whatever else is found in its place."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cluster.notices import (
    NAME_LENGTH_MAX,
    NOTICE_SIZE_MAX,
    Notice,
    decode_notice,
    encode_notice,
)
from coordinator.errors import DecodeError

NOTICE = Notice("j1", 4, "a", 7, "tcp://a:1", holds=((0, 3), (2, 9)), claims=(1,))


def decode(data: bytes) -> Notice:
    return decode_notice(data, journal="j1", partitions=4)


def test_it_is_read_as_it_was_written() -> None:
    assert decode(encode_notice(NOTICE)) == NOTICE


def test_its_bytes_stay_what_they_are() -> None:
    assert encode_notice(NOTICE) == bytes.fromhex(
        "9aa26a3104a16107a97463703a2f2f613a31c392920003920209910101a0"
    )


def test_what_a_later_version_adds_is_skipped() -> None:
    later = [*msgspec.to_builtins(NOTICE), "more", {"of": "it"}]
    assert decode(msgspec.msgpack.encode(later)) == NOTICE


def test_what_an_earlier_version_lacks_has_its_default() -> None:
    assert decode(msgspec.msgpack.encode(["j1", 4, "a", 7])) == Notice("j1", 4, "a", 7)


def test_the_largest_one_fits() -> None:
    holds = tuple((number, 2**40) for number in range(4000))
    encode_notice(Notice("j" * 32, 4000, "n" * NAME_LENGTH_MAX, 2**40, holds=holds))


@pytest.mark.parametrize(
    ("notice", "what"),
    [
        (Notice("j2", 4, "a", 1), "journal is 'j2'; this one is 'j1'"),
        (Notice("j1", 8, "a", 1), "sees 8 partitions and not 4"),
        (Notice("j1", 4, "", 1), "a name of 0 characters"),
        (Notice("j1", 4, "a" * 201, 1), "a name of 201 characters"),
        (Notice("j1", 4, "a", 1, "x" * 201), "an address of 201 characters"),
        (Notice("j1", 4, "a", -1), "count -1"),
        (Notice("j1", 4, "a", 2**63 - 1), "count"),
        (Notice("j1", 4, "a", 1, holds=((0, -3),)), "epoch -3"),
        (Notice("j1", 4, "a", 1, holds=((4, 3),)), "partition 4"),
        (Notice("j1", 4, "a", 1, claims=(0, -1)), "partition -1 to 0"),
    ],
)
def test_a_notice_that_can_not_be_ours_is_named(notice: Notice, what: str) -> None:
    with pytest.raises(DecodeError, match=what):
        decode(encode_notice(notice))


def test_one_that_is_too_large_is_not_read() -> None:
    with pytest.raises(DecodeError, match=f"at most {NOTICE_SIZE_MAX}"):
        decode(bytes(NOTICE_SIZE_MAX + 1))


@given(st.binary(max_size=200))
def test_any_other_bytes_are_an_error_and_nothing_worse(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data)


def test_a_text_that_is_none_is_an_error_too() -> None:
    data = encode_notice(NOTICE).replace(b"tcp", b"t\xff\xff")
    with pytest.raises(DecodeError, match="not a notice"):
        decode(data)
