"""Batches: what was put in comes out, and whatever is damaged is refused."""

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.batch import (
    ALIGNMENT,
    BATCH_SIZE_MAX,
    HEADER_SIZE,
    Batch,
    BatchError,
    IncompleteBatchError,
    NewerFormatError,
    decode_batch,
    encode_batch,
)
from coordinator.errors import DecodeError
from coordinator.records import Record, Resumed, Stuck, encode_record

RECORDS: list[Record] = [Resumed(7, "somebody", 1), Stuck(7, "no stock", 2)]

records = st.lists(
    st.builds(
        Resumed, st.integers(0, 2**63), st.text(max_size=40), st.integers(0, 2**62)
    ),
    min_size=1,
    max_size=20,
)


def batch_of(records: list[Record], *, epoch: int = 3, first: int = 40) -> Batch:
    return encode_batch(
        [encode_record(record) for record in records],
        epoch=epoch,
        first=first,
        previous_crc=0xDEADBEEF,
    )


def sealed(data: bytes) -> bytes:
    """Give *data* the crc that fits it: a writer's bug, not damage."""
    crc = zlib.crc32(data[HEADER_SIZE:], zlib.crc32(data[:36]))
    return data[:36] + crc.to_bytes(4, "little") + data[HEADER_SIZE:]


def test_a_batch_is_laid_out_as_drawn() -> None:
    batch = encode_batch([b"abc", b""], epoch=5, first=9, previous_crc=1)
    assert batch.data[:8] == b"CBAT\x01\x00\x01\x00"
    assert batch.data[8:24] == (5).to_bytes(8, "little") + (9).to_bytes(8, "little")
    assert batch.data[24:32] == (2).to_bytes(4, "little") + (11).to_bytes(4, "little")
    assert batch.data[32:36] == (1).to_bytes(4, "little")
    assert batch.data[36:40] == batch.crc.to_bytes(4, "little")
    assert batch.data[40:] == b"\3\0\0\0abc\0\0\0\0" + bytes(5)


@given(records, st.integers(0, 2**64 - 1), st.integers(0, 2**62))
def test_what_is_put_in_comes_out(
    records: list[Record], epoch: int, first: int
) -> None:
    batch = batch_of(records, epoch=epoch, first=first)
    assert len(batch.data) % ALIGNMENT == 0
    decoded = decode_batch(b"x" * 16 + batch.data + b"rest", 16)
    assert decoded == batch
    assert decoded.end == first + len(records)
    assert list(decoded.records()) == list(enumerate(records, first))


def test_a_batch_is_decoded_out_of_a_memoryview_too() -> None:
    batch = batch_of(RECORDS)
    assert decode_batch(memoryview(b"12345678" + batch.data), 8) == batch


def test_every_flipped_bit_is_found() -> None:
    data = batch_of(RECORDS).data
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BatchError):
            decode_batch(bytes(flipped))


def test_every_truncation_is_found_and_said_to_be_incomplete() -> None:
    data = batch_of(RECORDS).data
    for size in range(len(data)):
        with pytest.raises(IncompleteBatchError):
            decode_batch(data[:size])


def test_a_batch_whose_end_was_not_written_is_bad_and_not_newer() -> None:
    data = batch_of(RECORDS).data
    for size in range(len(data.rstrip(b"\0"))):
        torn = data[:size] + bytes(len(data) - size)
        with pytest.raises(BatchError) as caught:
            decode_batch(torn)
        assert not isinstance(caught.value, NewerFormatError)


def test_zeros_are_no_batch() -> None:
    with pytest.raises(BatchError, match="no batch starts here"):
        decode_batch(bytes(4096))


@pytest.mark.parametrize("offset", [4, 5, 6, 7])
def test_a_batch_of_another_kind_is_newer(offset: int) -> None:
    data = bytearray(batch_of(RECORDS).data)
    data[offset] += 1
    with pytest.raises(NewerFormatError):
        decode_batch(sealed(bytes(data)))


@pytest.mark.parametrize(
    ("count", "length"), [(0, 8), (1, BATCH_SIZE_MAX), (1, 2**32 - 1)]
)
def test_impossible_sizes_are_refused_before_anything_is_read(
    count: int, length: int
) -> None:
    data = bytearray(batch_of(RECORDS).data)
    data[24:28] = count.to_bytes(4, "little")
    data[28:32] = length.to_bytes(4, "little")
    with pytest.raises(BatchError, match="claims"):
        decode_batch(bytes(data))


@pytest.mark.parametrize("count", [1, 3, 1000])
def test_records_that_do_not_fill_the_batch_are_refused(count: int) -> None:
    data = bytearray(batch_of(RECORDS).data)
    data[24:28] = count.to_bytes(4, "little")
    batch = decode_batch(sealed(bytes(data)))
    with pytest.raises(DecodeError):
        list(batch.records())


def test_a_batch_whose_first_record_is_too_long_is_refused() -> None:
    record = encode_record(Resumed(7, "nobody!", 1))
    assert (4 + len(record)) % ALIGNMENT == 0
    data = bytearray(encode_batch([record], epoch=1, first=0, previous_crc=0).data)
    data[HEADER_SIZE : HEADER_SIZE + 4] = (len(record) + 100).to_bytes(4, "little")
    batch = decode_batch(sealed(bytes(data)))
    with pytest.raises(BatchError, match="do not fill"):
        list(batch.records())


def test_a_batch_that_ends_before_its_last_record_is_refused() -> None:
    record = encode_record(Resumed(7, "nobody!", 1))
    data = bytearray(encode_batch([record], epoch=1, first=0, previous_crc=0).data)
    data[24] = 2
    batch = decode_batch(sealed(bytes(data)))
    with pytest.raises(BatchError, match="do not fill"):
        list(batch.records())


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    with pytest.raises(BatchError):
        decode_batch(data)
