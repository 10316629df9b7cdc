"""The tag and the length around a body."""

import pytest

from cmdstream import (
    DecodeError,
    EncodeError,
    Registry,
    RemoteProtocolError,
    ResultType,
)
from cmdstream.codec import Decoded
from cmdstream.codecs.tagged import TaggedCodec


class Text:
    """A body that is the text itself; it dislikes question marks."""

    def encode(self, value: object) -> bytes:
        return str(value).encode()

    def decode(self, body: bytes) -> object:
        if b"?" in body:
            raise DecodeError("a question")
        return body.decode()


CODEC = TaggedCodec(
    Registry([int, str], [ResultType(str, lambda text: text == "end")]),
    lambda _: Text(),
    body_size_max=130,
)


def test_a_body_follows_its_tag_and_length() -> None:
    assert CODEC.encode_command("hi") == b"\x01\x02hi"
    assert CODEC.encode_result("hi") == b"\x00\x02hi"
    assert CODEC.encode_command("x" * 130) == b"\x01\x82\x01" + b"x" * 130


def test_an_empty_body_is_legal() -> None:
    assert CODEC.decode_command(b"\x01\x00", 0) == Decoded("", 1, b"", 2)


@pytest.mark.parametrize("buffer", [bytes, bytearray])
def test_a_value_is_found_behind_other_bytes(buffer: type[bytes | bytearray]) -> None:
    found = CODEC.decode_result(buffer(b"\xff\x00\x02hi\xff"), 1)
    assert found == Decoded("hi", 0, b"hi", 5)
    assert isinstance(found, Decoded)
    assert type(found.body) is bytes


def test_a_value_cut_short_says_how_much_it_needs() -> None:
    data = b"\xff" + CODEC.encode_command("x" * 130)
    assert [CODEC.decode_command(data[:cut], 1) for cut in range(1, 5)] == [
        2,
        3,
        4,
        134,
    ]
    assert CODEC.decode_command(data[:-1], 1) == len(data)


def test_a_body_over_the_limit_is_refused_both_ways() -> None:
    with pytest.raises(EncodeError, match="command str takes 131 bytes, the limit is"):
        CODEC.encode_command("x" * 131)
    with pytest.raises(RemoteProtocolError, match="command str announces 131 bytes"):
        CODEC.decode_command(b"\x01\x83\x01", 0)


def test_a_tag_that_nobody_registered_is_refused() -> None:
    with pytest.raises(DecodeError, match="unknown result tag 1: 1 are registered"):
        CODEC.decode_result(b"\x01\x00", 0)


def test_a_type_that_nobody_registered_is_refused() -> None:
    for call in (CODEC.encode_result, CODEC.is_last):
        with pytest.raises(EncodeError, match="int is not a registered result: str"):
            call(1)
    with pytest.raises(
        EncodeError, match="float is not a registered command: int, str"
    ):
        CODEC.encode_command(1.0)


def test_a_bool_is_not_an_int() -> None:
    with pytest.raises(EncodeError):
        CODEC.encode_command(True)


def test_an_error_names_the_type_that_did_not_fit() -> None:
    with pytest.raises(DecodeError, match="command str: a question"):
        CODEC.decode_command(b"\x01\x01?", 0)


def test_the_rule_of_the_type_tells_the_last() -> None:
    assert CODEC.is_last("end")
    assert not CODEC.is_last("more")
