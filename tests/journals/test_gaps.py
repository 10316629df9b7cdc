"""What is read of one damaged segment: what counts as found, and what is given up."""

import struct
import zlib

import pytest
from tests.journals.parts import chained, segment_header

from coordinator.batch import HEADER_SIZE, Batch
from coordinator.errors import JournalFormatError
from coordinator.journals.chain import Chain
from coordinator.journals.segments.format import SEGMENT_HEADER_SIZE
from coordinator.journals.segments.gaps import (
    Following,
    Gap,
    Run,
    SegmentRemains,
    follow,
)

FLAGS = 5
"""Offset in a batch of a byte that its header's sense depends on."""
_CRC = 36


def file_of(*batches: Batch | bytes, room: int = 0) -> bytearray:
    data = bytearray(segment_header(0))
    for batch in batches:
        data += batch if isinstance(batch, bytes) else batch.data
    return data + bytearray(room)


def place_of(batches: list[Batch], number: int) -> int:
    return SEGMENT_HEADER_SIZE + sum(len(batch.data) for batch in batches[:number])


def read(data: bytes | bytearray, following: Following | None = None) -> SegmentRemains:
    remains = SegmentRemains("p0/0.seg", bytes(data), Chain(), following)
    remains.run()
    return remains


def spans(remains: SegmentRemains) -> list[tuple[str, int, int]]:
    """Return the positions of runs and gaps."""
    return [
        ("run", piece.before.end, piece.behind.end)
        if isinstance(piece, Run)
        else ("gap", piece.first, piece.end)
        for piece in remains.pieces
    ]


def problems(remains: SegmentRemains) -> list[str]:
    return [piece.problem for piece in remains.pieces if isinstance(piece, Gap)]


def test_a_sound_batch_that_follows_another_one_is_lost_by_itself() -> None:
    first, _, third = chained(3)
    (other,) = chained(1, first=1, previous_crc=7)
    third = chained(1, first=2, previous_crc=other.crc)[0]
    remains = read(file_of(first, other, third))
    assert spans(remains) == [("run", 0, 1), ("gap", 1, 2), ("run", 2, 3)]
    assert problems(remains) == ["the batch does not follow the one before it"]


def test_a_stale_batch_is_passed_over_as_every_reader_does() -> None:
    (first,) = chained(1, epoch=2)
    (stale,) = chained(1, first=1, epoch=1, previous_crc=first.crc)
    (second,) = chained(1, first=1, epoch=2, previous_crc=first.crc)
    data = bytes(file_of(first, stale, second))
    chain = Chain()
    found = [batch for _, batch in follow(data, SEGMENT_HEADER_SIZE, chain)]
    assert found == [first, second]
    assert spans(read(data)) == [("run", 0, 2)]


def newer(batch: Batch) -> bytearray:
    """Return *batch* as another version may write it: intact, of a format 2."""
    data = bytearray(batch.data)
    data[4] = 2
    crc = zlib.crc32(data[HEADER_SIZE:], zlib.crc32(data[:_CRC]))
    data[_CRC:HEADER_SIZE] = struct.pack("<I", crc)
    return data


def test_a_batch_of_a_newer_format_is_refused_and_not_thrown_away() -> None:
    first, second = chained(2)
    data = file_of(first, bytes(newer(second)))
    place = place_of([first, second], 1)
    with pytest.raises(
        JournalFormatError, match=rf"p0/0\.seg at byte {place}: batch of format 2"
    ):
        read(data)


@pytest.mark.parametrize("cut", [0, 8])
def test_one_that_only_looks_newer_is_damaged(cut: int) -> None:
    first, second = chained(2)
    flipped = bytearray(second.data)
    flipped[4] ^= 2
    data = file_of(first, bytes(flipped[: len(flipped) - cut]))
    assert spans(read(data)) == [("run", 0, 1)]


@pytest.mark.parametrize("known", [True, False])
def test_a_run_behind_a_lost_header_counts_if_it_leads_to_the_next_segment(
    known: bool,
) -> None:
    batches = chained(4)
    data = file_of(*batches)
    data[place_of(batches, 1) + FLAGS] ^= 1
    crc = batches[-1].crc if known else None
    assert spans(read(data, Following(4, crc))) == [
        *(("run", 0, 1), ("gap", 1, 2)),
        ("run", 2, 4),
    ]
    assert spans(read(data, Following(4, batches[-1].crc ^ 1))) == [("run", 0, 1)]


def test_it_may_lead_there_over_other_bad_batches_whose_headers_can_be_read() -> None:
    batches = chained(5)
    data = file_of(*batches)
    data[place_of(batches, 1) + FLAGS] ^= 1
    data[place_of(batches, 4) - 3] ^= 1  # in the last record of the fourth one
    assert spans(read(data, Following(5, batches[-1].crc))) == [
        *(("run", 0, 1), ("gap", 1, 2), ("run", 2, 3), ("gap", 3, 4)),
        ("run", 4, 5),
    ]


def test_a_run_between_two_lost_headers_is_given_up() -> None:
    batches = chained(5)
    data = file_of(*batches)
    data[place_of(batches, 1) + FLAGS] ^= 1
    data[place_of(batches, 3) + FLAGS] ^= 1
    assert spans(read(data, Following(5, batches[-1].crc))) == [
        *(("run", 0, 1), ("gap", 1, 4)),
        ("run", 4, 5),
    ]
    # In the last segment, too: a sound batch is behind it, so it is no torn tail.
    assert spans(read(data)) == [("run", 0, 1), ("gap", 1, 4), ("run", 4, 5)]


def test_a_run_that_ends_in_zeros_before_the_next_segment_was_not_written_so() -> None:
    batches = chained(3)
    data = file_of(*batches, room=64)
    data[place_of(batches, 1) + FLAGS] ^= 1
    assert spans(read(data, Following(9, batches[-1].crc))) == [("run", 0, 1)]
    assert spans(read(data)) == [("run", 0, 1), ("gap", 1, 2), ("run", 2, 3)]


def test_behind_the_last_run_of_all_there_may_be_a_torn_batch() -> None:
    batches = chained(4)
    data = file_of(*batches[:3], batches[3].data[:48])
    data[place_of(batches, 1) + FLAGS] ^= 1
    remains = read(data)
    assert spans(remains) == [("run", 0, 1), ("gap", 1, 2), ("run", 2, 3)]
    assert remains.rest == len(batches[3].data[:48].rstrip(b"\0"))
    # Not before another segment: that would begin behind it.
    assert spans(read(data, Following(9, batches[3].crc))) == [("run", 0, 1)]


@pytest.mark.parametrize(("fakes", "found"), [(3, True), (200, False)])
def test_so_much_is_searched_and_no_more(fakes: int, found: bool) -> None:
    """What is in a record was chosen by who sent it: headers, each of megabytes."""
    first, bad, last = chained(3, size=64)
    behind = 8 * 1024
    claim = bytearray(bad.data[:HEADER_SIZE])
    claim[8:16] = struct.pack("<Q", 1)
    claim[16:24] = struct.pack("<Q", 2)
    claim[24:32] = struct.pack("<II", 1, behind)
    data = file_of(first, b"\xff" * 64 + bytes(claim) * fakes, last)
    data += bytes(behind)
    assert (("run", 2, 3) in spans(read(data))) is found


def test_the_rest_of_a_segment_is_lost_with_what_its_header_says() -> None:
    (first,) = chained(1)
    remains = read(file_of(first, b"\xff" * 16))
    gap = remains.lose_rest(7, "header crc is 0")
    assert (gap.first, gap.end, gap.size) == (1, 7, 16)
    assert gap.problem == "header crc is 0"
    assert remains.chain.end == 7
