"""What lies in the topic is ours, a stranger's, or damaged; never guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.journals.kafka.fake import IDENTITY

from coordinator.batch import Batch, encode_batch
from coordinator.errors import JournalFormatError
from coordinator.journals.kafka.messages import (
    Chunk,
    Commit,
    DamagedMessageError,
    Founding,
    Identity,
    Landmark,
    Message,
    Stranger,
    decode_message,
    encode_batch_message,
    encode_chunk,
    encode_commit,
    encode_founding,
    read_identity,
)
from coordinator.model import Position

OTHER = Identity(b"o" * 16, 0, 1)
BATCH = encode_batch([b"record"], epoch=1, first=0, previous_crc=0)
CHUNK = Chunk(3, 1, 7, b"piece")
COMMIT = Commit(
    epoch=3,
    number=1,
    chunks=8,
    size=100,
    crc=1,
    since=5,
    low=Position(2),
    end=Position(9),
    base=Landmark(4, 2, 1, 77),
)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (encode_founding(IDENTITY), Founding()),
        (encode_batch_message(IDENTITY, BATCH), BATCH),
        (encode_chunk(IDENTITY, CHUNK), CHUNK),
        (encode_commit(IDENTITY, COMMIT), COMMIT),
        (encode_founding(OTHER), Founding()),
    ],
)
def test_each_kind_is_read_as_it_was_written(data: bytes, message: Message) -> None:
    assert decode_message(data, IDENTITY) == message


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not written by a coordinator"),
        (b"CKAF" + bytes(27), "not written by a coordinator"),
        (b"CKAG" + bytes(40), "not written by a coordinator"),
        (encode_batch_message(OTHER, BATCH), f"belongs to journal {b'o'.hex() * 16}"),
        (encode_chunk(IDENTITY.of(3), CHUNK), "belongs to partition 3"),
    ],
)
def test_what_others_wrote_is_a_strangers(data: bytes, why: str) -> None:
    message = decode_message(data, IDENTITY)
    assert isinstance(message, Stranger)
    assert message.why.endswith(why)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (encode_batch_message(IDENTITY, BATCH)[:-1], "batch of"),
        (encode_chunk(IDENTITY, CHUNK)[:40], "unpack_from"),
        (encode_commit(IDENTITY, COMMIT)[:-1], "truncated"),
        (encode_founding(IDENTITY).replace(b"\1\0\0\0", b"\1\x09\0\0", 1), "kind 9"),
    ],
)
def test_ours_that_makes_no_sense_is_damage(data: bytes, problem: str) -> None:
    with pytest.raises(DamagedMessageError, match=problem):
        decode_message(data, IDENTITY)


def test_a_newer_format_is_said_to_be_one() -> None:
    data = bytearray(encode_founding(IDENTITY))
    data[4] = 2
    with pytest.raises(JournalFormatError, match="a message of format 2"):
        decode_message(bytes(data), IDENTITY)


def test_a_prefix_says_whose_it_is() -> None:
    assert read_identity(encode_founding(OTHER)) == (OTHER, True)
    assert read_identity(encode_batch_message(IDENTITY, BATCH)) == (IDENTITY, False)
    assert read_identity(b"hello") is None


WHOLE = [
    encode_batch_message(IDENTITY, BATCH),
    encode_chunk(IDENTITY, CHUNK),
    encode_commit(IDENTITY, COMMIT),
]


@given(st.sampled_from(WHOLE), st.data())
def test_no_bytes_break_it(whole: bytes, data: st.DataObject) -> None:
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    index = data.draw(st.integers(0, len(whole) - 1))
    flipped = bytearray(whole)
    flipped[index] ^= 1 << data.draw(st.integers(0, 7))
    for damaged in (cut, bytes(flipped), data.draw(st.binary())):
        try:
            message = decode_message(damaged, IDENTITY)
        except (DamagedMessageError, JournalFormatError):
            continue
        assert not isinstance(message, Batch) or message == BATCH
