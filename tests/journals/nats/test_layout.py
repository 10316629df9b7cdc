"""Every byte of a message, and what is told from what."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.errors import JournalDamagedError, JournalFormatError
from coordinator.journals.nats.layout import (
    CheckpointHead,
    Description,
    Kind,
    Message,
    MessageError,
    Names,
    Tail,
    decode_checkpoint_head,
    decode_description,
    decode_message,
    encode_checkpoint_head,
    encode_description,
    encode_message,
    split,
)

JOURNAL = bytes(range(16))
U64 = st.integers(0, 2**64 - 1)
U32 = st.integers(0, 2**32 - 1)
tails = st.builds(Tail, U64, U64, U32, U64)
messages = st.builds(
    Message, st.sampled_from(Kind), U64, U32, U32, tails, st.binary(max_size=200)
)


def encode(message: Message) -> bytes:
    return encode_message(message, journal_id=JOURNAL, partition=7)


def decode(data: bytes, sequence: int, **other: object) -> Message:
    place = {"journal_id": JOURNAL, "partition": 7, **other}
    return decode_message(data, sequence=sequence, **place)  # type: ignore[arg-type]  # a dict of what the test changes


def test_the_bytes_are_those_that_are_drawn() -> None:
    tail = Tail(epoch=3, end=70, crc=0xABCD, checkpoint=5)
    data = encode(Message(Kind.BATCH, 9, 1, 2, tail, b"body"))
    assert data[:8] == b"CNAT\x01\x02\x00\x00"
    assert data[8:24] == JOURNAL
    assert data[24:28] == (7).to_bytes(4, "little")
    assert data[32:40] == (9).to_bytes(8, "little")
    assert data[40:48] == bytes([1, 0, 0, 0, 2, 0, 0, 0])
    assert data[48:64] == bytes([3, *bytes(7), 70, *bytes(7)])
    assert data[64:72] == bytes([0xCD, 0xAB, *bytes(6)])
    assert data[72:80] == (5).to_bytes(8, "little")
    assert data[80:] == b"body"


@given(messages)
def test_what_was_encoded_is_decoded(message: Message) -> None:
    assert decode(encode(message), message.sequence) == message


@given(messages, st.data())
def test_any_flipped_bit_is_found(message: Message, data: st.DataObject) -> None:
    encoded = bytearray(encode(message))
    bit = data.draw(st.integers(0, len(encoded) * 8 - 1))
    encoded[bit // 8] ^= 1 << bit % 8
    with pytest.raises(MessageError):
        decode(bytes(encoded), message.sequence)


@given(st.binary(max_size=200))
def test_what_no_coordinator_wrote_is_no_message(data: bytes) -> None:
    with pytest.raises(MessageError):
        decode(data, 1)


def test_whose_it_is_and_where_it_belongs_is_told() -> None:
    data = encode(Message(Kind.BATCH, 9, 0, 1, Tail(), b""))
    with pytest.raises(MessageError, match="a copy of the message at sequence 9"):
        decode(data, 10)
    with pytest.raises(MessageError, match=f"partition 7 of journal {JOURNAL.hex()}"):
        decode(data, 9, journal_id=bytes(16))
    with pytest.raises(MessageError, match="partition 7"):
        decode(data, 9, partition=6)


def test_a_newer_format_is_not_taken_for_damage() -> None:
    data = bytearray(encode(Message(Kind.BATCH, 9, 0, 1, Tail(), b"")))
    data[4] = 2
    with pytest.raises(JournalFormatError, match="format 2; this version reads"):
        decode(_mended(data), 9)


def test_a_kind_that_is_not_known_is_no_message() -> None:
    data = bytearray(encode(Message(Kind.BATCH, 9, 0, 1, Tail(), b"")))
    data[5] = 9
    with pytest.raises(MessageError, match="of kind 9"):
        decode(_mended(data), 9)


def _mended(data: bytearray) -> bytes:
    import zlib

    crc = zlib.crc32(data[80:], zlib.crc32(data[32:80], zlib.crc32(data[:28])))
    data[28:32] = crc.to_bytes(4, "little")
    return bytes(data)


@given(U64, U64, U64, U64, U64, U32, st.binary(max_size=20))
def test_the_head_of_a_checkpoint_comes_back(
    low: int, anchor: int, first: int, last: int, size: int, crc: int, rest: bytes
) -> None:
    head = CheckpointHead(low, anchor, first, last, size, crc)
    body = encode_checkpoint_head(head) + rest
    message = Message(Kind.CHECKPOINT, 9, 0, 1, Tail(), body)
    assert decode_checkpoint_head(message) == (head, rest)


def test_what_is_no_checkpoint_is_not_taken_for_one() -> None:
    for kind, body in ((Kind.CHUNK, bytes(100)), (Kind.CHECKPOINT, bytes(47))):
        with pytest.raises(MessageError, match="no checkpoint"):
            decode_checkpoint_head(Message(kind, 9, 0, 1, Tail(), body))


def test_a_description_says_which_journal_it_is() -> None:
    data = encode_description(Description(1, JOURNAL.hex(), 4))
    assert msgspec.json.decode(data) == {
        "format": 1,
        "id": JOURNAL.hex(),
        "partitions": 4,
    }
    assert decode_description(data, stream="s") == (JOURNAL, 4)


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        (b"hello", JournalDamagedError, "stream s is damaged at sequence 1"),
        (b'{"format":1}', JournalDamagedError, "restore the stream from a backup"),
        (b'{"format":1,"id":"xx","partitions":1}', JournalDamagedError, "damaged"),
        (b'{"format":1,"id":"00","partitions":1}', JournalDamagedError, "it says"),
        (
            b'{"format":1,"id":"%b","partitions":0}' % (b"00" * 16),
            JournalDamagedError,
            "it says",
        ),
        (b'{"format":2,"id":"00","partitions":1}', JournalFormatError, "format 2"),
    ],
)
def test_a_description_that_is_none_is_refused(
    data: bytes, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        decode_description(data, stream="s")


@given(st.binary(max_size=100), st.integers(1, 30))
def test_parts_make_the_whole_and_none_is_too_large(data: bytes, size: int) -> None:
    parts = list(split(data, size))
    assert b"".join(parts) == data
    assert parts
    assert all(len(part) <= size for part in parts)
    assert all(len(part) == size for part in parts[:-1])


def test_streams_of_two_journals_never_have_one_name() -> None:
    a, b = Names("a"), Names("a-0")
    names = [x.stream for x in (a, b)] + [
        x.partition_stream(n) for x in (a, b) for n in range(3)
    ]
    assert len(set(names)) == len(names)
    assert a.partition_subject(0, Kind.CHUNK) == "coordinator.a.0.chunk"
    assert a.partition_subjects(0) == "coordinator.a.0.*"


@pytest.mark.parametrize("name", ["", "a.b", "a b", "a_0", "a*", "ä", "a" * 101])
def test_a_name_that_no_stream_can_have_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="letters, digits and hyphens"):
        Names(name)
