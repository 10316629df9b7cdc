"""Bodies that nobody looks into."""

from contextlib import suppress

import pytest
from tests.cmdstream.helpers import CODEC, VECTORS, AddCmd

from cmdstream import EncodeError, RemoteProtocolError
from cmdstream.codec import Decoded
from cmdstream.codecs.opaque import Opaque, OpaqueCodec

ANY = OpaqueCodec(lambda _: True)


def test_what_it_writes_is_what_the_typed_codec_writes() -> None:
    assert ANY.encode_command(Opaque(0, b'{"A":2,"B":3}')) == CODEC.encode_command(
        AddCmd(2, 3)
    )


def test_what_it_reads_is_tag_and_body() -> None:
    data = b"\x07" + CODEC.encode_command(AddCmd(2, 3)) + b"rest"
    body = b'{"A":2,"B":3}'
    assert ANY.decode_command(data, 1) == Decoded(Opaque(0, body), 0, body, 16)


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300])
def test_a_frame_that_is_cut_anywhere_says_how_much_it_needs(size: int) -> None:
    frame = ANY.encode_result(Opaque(300, b"x" * size))
    for end in range(len(frame)):
        needed = ANY.decode_result(frame[:end], 0)
        assert isinstance(needed, int)
        assert end < needed <= len(frame)
    assert ANY.decode_result(frame, 0) == Decoded(
        Opaque(300, b"x" * size), 300, b"x" * size, len(frame)
    )


def test_every_recorded_frame_with_a_length_is_read_and_written_again() -> None:
    read = 0
    for exchange in VECTORS["exchanges"]:
        if exchange["codec"] not in {"json", "protobuf"}:
            continue
        for step in exchange["steps"]:
            data = bytes.fromhex(step["hex"].replace(" ", ""))
            found: Decoded | int = 0
            if len(data) < 3 or data[0] >= 0x80:
                continue
            with suppress(RemoteProtocolError):  # some are recorded for being wrong
                found = ANY.decode_command(data, 1)
            if isinstance(found, Decoded) and found.end == len(data):
                assert ANY.encode_command(found.value) == data[1:]
                read += 1
    assert read > 20


def test_a_body_over_the_limit_is_neither_sent_nor_waited_for() -> None:
    small = OpaqueCodec(lambda _: True, body_size_max=3)
    with pytest.raises(EncodeError, match="tag 1 has 4 bytes, the limit is 3"):
        small.encode_command(Opaque(1, b"four"))
    with pytest.raises(RemoteProtocolError, match="tag 1 announces 4 bytes"):
        small.decode_result(b"\x01\x04", 0)


def test_anything_else_is_no_command_and_no_result() -> None:
    with pytest.raises(EncodeError, match="AddCmd is not Opaque"):
        ANY.encode_command(AddCmd(2, 3))
    with pytest.raises(EncodeError, match="AddCmd is not Opaque"):
        ANY.is_last(AddCmd(2, 3))


def test_the_rule_says_which_is_the_last() -> None:
    codec = OpaqueCodec(lambda result: result.tag == 2)
    assert not codec.is_last(Opaque(1, b""))
    assert codec.is_last(Opaque(2, b""))
