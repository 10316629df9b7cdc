"""What is left of a damaged partition: its segments in a row, and what is no part."""

import struct
import zlib
from collections.abc import Callable

import pytest
from tests.journals.disk import Disk, MemoryFolder
from tests.journals.parts import IDENTITY, chained, segment_header

from coordinator.batch import Batch
from coordinator.errors import JournalDamagedError, JournalFormatError
from coordinator.journals.segments.format import segment_name
from coordinator.journals.segments.gaps import Gap, Run
from coordinator.journals.segments.reading import Identity
from coordinator.journals.segments.salvage import (
    SKIPPED,
    Salvaged,
    batches_in,
    salvage,
)

BATCHES = chained(6)


@pytest.fixture
def folder() -> MemoryFolder:
    """Hold three segments of two batches each."""
    folder = Disk().folder("/journal/p0")
    folder.put_back({segment_name(base): segment(base) for base in (0, 2, 4)})
    return folder


def segment(base: int, batches: list[Batch] = BATCHES, count: int = 2) -> bytes:
    before = batches[base - 1] if base else None
    header = segment_header(
        base,
        epoch=before.epoch if before else 0,
        previous_crc=before.crc if before else 0,
    )
    return header + b"".join(b.data for b in batches[base : base + count])


def found_in(folder: MemoryFolder) -> Salvaged:
    before = folder.copy_of()
    salvaged = salvage(folder, IDENTITY)
    assert folder.copy_of() == before
    return salvaged


def lost(salvaged: Salvaged) -> list[tuple[int, int]]:
    return [(gap.first, gap.end) for gap in salvaged.gaps]


def unused(salvaged: Salvaged) -> dict[str, str]:
    return {path.rpartition("/")[2]: why for path, why in salvaged.unused}


def test_what_is_sound_is_left_alone(folder: MemoryFolder) -> None:
    salvaged = found_in(folder)
    assert salvaged.sound
    assert salvaged.chain.end == 6
    assert [part.intact for part in salvaged.parts] == [True, True, False]


@pytest.mark.parametrize(
    ("identity", "why"),
    [
        (Identity(b"x" * 16, 0, 1), f"it belongs to journal {(b'x' * 16).hex()}"),
        (Identity(IDENTITY.journal_id, 1, 2), "it belongs to partition 1"),
    ],
)
def test_a_file_from_elsewhere_is_no_part_of_it(
    folder: MemoryFolder, identity: Identity, why: str
) -> None:
    name = segment_name(6)
    files = folder.copy_of()
    folder.put_back({**files, name: segment_header(6, identity=identity)})
    salvaged = found_in(folder)
    assert unused(salvaged) == {name: why}
    assert not salvaged.sound
    assert lost(salvaged) == []


def test_a_segment_of_a_newer_format_is_refused_with_its_path(
    folder: MemoryFolder,
) -> None:
    data = folder.bytes_of(segment_name(2))
    data[4] = 2
    data[60:64] = struct.pack("<I", zlib.crc32(data[:60]))
    with pytest.raises(JournalFormatError, match=f"/journal/p0/{segment_name(2)}: "):
        found_in(folder)


def test_of_two_files_of_one_segment_the_sound_one_in_its_place_is_taken(
    folder: MemoryFolder,
) -> None:
    files = folder.copy_of()
    copy = segment_name(9)
    folder.put_back({**files, copy: files[segment_name(2)]})
    salvaged = found_in(folder)
    assert unused(salvaged) == {copy: f"{segment_name(2)} is the same segment"}
    assert [part.name for part in salvaged.parts] == list(files)
    # The one in its place lost its header: then it is the other one.
    folder.bytes_of(segment_name(2))[8] ^= 1
    salvaged = found_in(folder)
    assert unused(salvaged) == {segment_name(2): f"{copy} is the same segment"}
    assert salvaged.parts[1].name == copy
    assert lost(salvaged) == []
    assert not salvaged.parts[1].intact


def test_a_segment_whose_positions_are_there_is_no_part_of_it(
    folder: MemoryFolder,
) -> None:
    files = folder.copy_of()
    folder.put_back({**files, segment_name(3): segment(3)})
    salvaged = found_in(folder)
    assert unused(salvaged) == {segment_name(3): "positions from 3 on are there"}
    assert lost(salvaged) == []


def test_a_segment_of_another_time_is_no_part_of_it(folder: MemoryFolder) -> None:
    """Of a copy that was restored over it, say: it follows what is not there."""
    others = chained(8, size=50)
    files = folder.copy_of()
    name = segment_name(6)
    folder.put_back({**files, name: segment(6, others)})
    salvaged = found_in(folder)
    assert unused(salvaged) == {
        name: "it follows other records than those that are there"
    }
    assert salvaged.chain.end == 6


def test_behind_a_gap_an_older_epoch_is_of_another_time(folder: MemoryFolder) -> None:
    batches = chained(6, epoch=3)
    older = chained(8, epoch=2)
    folder.put_back(
        {
            segment_name(0): segment(0, batches),
            segment_name(4): segment(4, older),
            segment_name(5): segment(5, batches, 1),
        }
    )
    salvaged = found_in(folder)
    assert list(unused(salvaged)) == [segment_name(4)]
    assert lost(salvaged) == [(2, 5)]


def test_a_segment_that_is_missing_is_a_gap_of_a_known_size(
    folder: MemoryFolder,
) -> None:
    folder.remove(segment_name(2))
    (gap,) = found_in(folder).gaps
    assert (gap.first, gap.end, gap.size, gap.problem) == (2, 4, 0, "it is missing")
    assert gap.where == f"/journal/p0/{segment_name(2)}"


def without_header(folder: MemoryFolder, base: int) -> None:
    folder.bytes_of(segment_name(base))[20] ^= 1


@pytest.mark.parametrize("base", [0, 2, 4])
def test_a_lost_header_is_made_up_by_what_is_before_it(
    folder: MemoryFolder, base: int
) -> None:
    without_header(folder, base)
    salvaged = found_in(folder)
    assert lost(salvaged) == []
    assert not salvaged.sound
    assert salvaged.chain.end == 6


def test_behind_a_gap_its_first_batch_makes_it_up_if_it_is_sound(
    folder: MemoryFolder,
) -> None:
    folder.remove(segment_name(0))
    folder.remove(segment_name(2))
    files = folder.copy_of()
    folder.put_back({segment_name(0): segment(0), **files})
    without_header(folder, 4)
    salvaged = found_in(folder)
    assert lost(salvaged) == [(2, 4)]
    (run,) = salvaged.parts[-1].pieces
    assert isinstance(run, Run)
    assert (run.before.end, run.behind.end) == (4, 6)


def _flipped(data: bytearray) -> None:
    data[100] ^= 1


def _elsewhere(data: bytearray) -> None:
    data[64:] = b"".join(batch.data for batch in BATCHES[:2])


def _older(data: bytearray) -> None:
    data[64:] = b"".join(batch.data for batch in chained(2, first=4, epoch=0))


@pytest.mark.parametrize("change", [_flipped, _elsewhere, _older])
def test_and_if_it_is_not_all_of_the_segment_is_lost(
    folder: MemoryFolder, change: Callable[[bytearray], None]
) -> None:
    folder.remove(segment_name(2))
    without_header(folder, 4)
    change(folder.bytes_of(segment_name(4)))
    salvaged = found_in(folder)
    # Where it ended is not known: more positions than it had are given up.
    assert lost(salvaged) == [(2, 4), (4, 4 + SKIPPED)]
    assert salvaged.tail is salvaged.gaps[-1]
    assert "header crc" in salvaged.gaps[-1].problem


def test_without_any_segment_positions_go_on_far_behind_those_that_were_given_out(
    folder: MemoryFolder,
) -> None:
    folder.put_back({})
    salvaged = found_in(folder)
    assert salvaged.parts == ()
    assert lost(salvaged) == [(0, 1 << 40)]


def test_what_changed_since_is_noticed_when_it_is_read_again(
    folder: MemoryFolder,
) -> None:
    part = found_in(folder).parts[0]
    (run,) = part.pieces
    assert isinstance(run, Run)
    assert [*batches_in(folder, part, run)] == BATCHES[:2]
    folder.bytes_of(segment_name(0))[-1] ^= 1
    with pytest.raises(JournalDamagedError, match="it changed while it was read"):
        list(batches_in(folder, part, run))


def test_a_gap_says_where_it_is() -> None:
    gap = Gap(path="p0/0.seg", offset=64, size=16, first=1, end=3, problem="crc")
    assert gap.where == "p0/0.seg at bytes 64 to 79"
    assert not gap.complete
