"""The headers: laid out as drawn, and refused when they are not what was written."""

from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.errors import JournalFormatError
from coordinator.journals.segments.format import (
    BatchClaim,
    CheckpointHeader,
    HeaderError,
    SegmentHeader,
    batch_claims,
    decode_checkpoint,
    decode_segment_header,
    encode_checkpoint,
    encode_segment_header,
    is_zeros,
    parse_segment_name,
    segment_name,
)

HEADER = SegmentHeader(
    journal_id=bytes(range(16)),
    partition=2,
    partitions=4,
    base=1000,
    created_at=1_700_000_000_000_000,
    epoch=3,
    previous_crc=0xDEADBEEF,
)

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
ids = st.binary(min_size=16, max_size=16)


def little(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def test_a_segment_header_is_laid_out_as_drawn() -> None:
    data = encode_segment_header(HEADER)
    assert data[:60] == b"".join(
        (
            b"CSEG\x01\x01\x00\x00",
            little(2, 4),
            little(4, 4),
            bytes(range(16)),
            little(1000, 8),
            little(1_700_000_000_000_000, 8),
            little(3, 8),
            little(0xDEADBEEF, 4),
        )
    )
    assert len(data) == 64


def test_a_checkpoint_is_laid_out_as_drawn() -> None:
    data = encode_checkpoint(
        b"data", journal_id=bytes(range(16)), partition=2, low=7, end=9
    )
    assert data[:60] == b"".join(
        (
            b"CCKP\x01\x01\x00\x00",
            little(2, 4),
            bytes(4),
            bytes(range(16)),
            little(7, 8),
            little(9, 8),
            little(4, 8),
            bytes(4),
        )
    )
    assert data[64:] == b"data"


@given(
    st.builds(
        SegmentHeader,
        journal_id=ids,
        partition=u32,
        partitions=u32,
        base=u64,
        created_at=u64,
        epoch=u64,
        previous_crc=u32,
    )
)
def test_a_segment_header_comes_back_as_it_was(header: SegmentHeader) -> None:
    assert decode_segment_header(encode_segment_header(header)) == header


@given(st.binary(max_size=100), ids, u32, u64, u64)
def test_a_checkpoint_comes_back_as_it_was(
    data: bytes, journal_id: bytes, partition: int, low: int, end: int
) -> None:
    encoded = encode_checkpoint(
        data, journal_id=journal_id, partition=partition, low=low, end=end
    )
    assert decode_checkpoint(encoded) == CheckpointHeader(
        journal_id=journal_id, partition=partition, low=low, end=end, size=len(data)
    )


def test_every_flipped_bit_and_truncation_is_found() -> None:
    checkpoint = encode_checkpoint(
        b"data", journal_id=bytes(16), partition=0, low=7, end=9
    )
    for data, decode in (
        (encode_segment_header(HEADER), decode_segment_header),
        (checkpoint, decode_checkpoint),
    ):
        for bit in range(8 * len(data)):
            flipped = bytearray(data)
            flipped[bit // 8] ^= 1 << bit % 8
            with pytest.raises(HeaderError):
                decode(bytes(flipped))
        for size in range(len(data)):
            with pytest.raises(HeaderError):
                decode(data[:size])


def test_a_newer_format_is_told_from_damage() -> None:
    data = b"CSEG\x02\x01" + bytes(54)
    with pytest.raises(JournalFormatError, match="format 2"):
        decode_segment_header(data + little(crc32(data), 4))
    data = b"CSEG\x01\x09" + bytes(54)
    with pytest.raises(JournalFormatError, match="crc kind 9"):
        decode_segment_header(data + little(crc32(data), 4))


def test_a_checkpoint_of_another_length_than_it_says_is_refused() -> None:
    head = bytearray(
        encode_checkpoint(b"", journal_id=bytes(16), partition=0, low=0, end=0)[:60]
    )
    head[48] = 5
    data = bytes(head) + little(crc32(b"abc", crc32(head)), 4) + b"abc"
    with pytest.raises(HeaderError, match="5 bytes of data are announced"):
        decode_checkpoint(data)


def test_a_segment_is_named_by_its_base_position() -> None:
    assert segment_name(42) == "00000000000000000042.seg"
    assert parse_segment_name(segment_name(2**63)) == 2**63
    for name in (
        "42.seg",
        segment_name(1) + ".bak",
        "x" + segment_name(1),
        "LOCK",
        segment_name(1).replace("0", "\u0660"),
    ):
        assert parse_segment_name(name) is None


def test_names_sort_as_positions_do() -> None:
    positions = [0, 9, 10, 99, 100, 2**40]
    assert sorted(map(segment_name, positions)) == [*map(segment_name, positions)]


def claim(kind: bytes = b"CBAT\1\0\1\0", count: int = 1, length: int = 9) -> bytes:
    fields = (little(7, 8), little(30, 8), little(count, 4), little(length, 4))
    return kind + b"".join(fields) + bytes(8)


def test_a_batch_may_start_at_each_aligned_header_that_a_writer_could_put_there() -> (
    None
):
    found = BatchClaim(offset=0, epoch=7, first=30, size=56)
    assert list(batch_claims(claim())) == [found]
    assert list(batch_claims(claim()[:-1])) == []
    for wrong in (
        claim(b"CBAT\2\0\1\0"),
        claim(b"CBAT\1\0\0\0"),
        claim(count=0),
        claim(length=2**32 - 1),
        b"x" + claim(),
        b"CBAT" * 10,
        bytes(100),
    ):
        assert list(batch_claims(wrong)) == []
        behind = wrong.ljust(104)
        assert list(batch_claims(behind + claim())) == [found._replace(offset=104)]


def test_zeros_are_zeros() -> None:
    assert is_zeros(b"")
    assert is_zeros(bytes(100))
    assert not is_zeros(bytes(99) + b"\1")
