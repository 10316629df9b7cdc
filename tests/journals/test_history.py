"""What is retained of a partition, wherever it lies, in order and without a lock."""

from collections.abc import Iterator

import pytest
from tests.journals.disk import Disk, MemoryFile, MemoryFolder
from tests.journals.parts import IDENTITY, append, make_store, open_store

from coordinator.batch import Batch
from coordinator.errors import JournalDamagedError
from coordinator.journals.segments.format import segment_name
from coordinator.journals.segments.history import Missing, history
from coordinator.journals.segments.recovery import REPAIR_MARK
from coordinator.journals.segments.store import Store

Part = Batch | Missing


def positions(parts: Iterator[Part]) -> list[tuple[int, int]]:
    return [(p.first, p.end) for p in parts]


def filled(folder: MemoryFolder, archive: MemoryFolder | None) -> Store:
    """Hold ten batches of one record behind the claim; those before 6 are trimmed."""
    store = open_store(folder, archive=archive)
    for _ in range(10):
        append(store, 1000)
    store.save_checkpoint(6, b"")
    store.trim(6)
    return store


@pytest.fixture
def disk() -> Disk:
    return Disk()


def test_the_archive_comes_first_and_nothing_is_doubled(disk: Disk) -> None:
    folder, archive = disk.folder("/journal/p0"), disk.folder("/archive/p0")
    filled(folder, archive)
    assert archive.names()
    wanted = [(n, n + 1) for n in range(11)]
    assert positions(history([archive, folder], IDENTITY)) == wanted
    for name in archive.names():  # a crash may leave both names
        file = folder.create(name)
        file.write(0, archive.copy_of()[name])
    assert positions(history([archive, folder], IDENTITY)) == wanted


def test_what_was_trimmed_away_is_told(disk: Disk) -> None:
    folder = disk.folder("/journal/p0")
    filled(folder, None)
    first, *rest = history([folder], IDENTITY)
    assert first == Missing(0, 4)
    assert [part.first for part in rest] == [*range(4, 11)]


def test_a_segment_that_moves_while_others_are_read_is_found(disk: Disk) -> None:
    folder, archive = disk.folder("/journal/p0"), disk.folder("/archive/p0")
    filled(folder, None)
    parts = history([archive, folder], IDENTITY)
    found = [next(parts), next(parts)]
    folder.move(segment_name(7), archive)
    found += parts
    assert [part.first for part in found] == [0, *range(4, 11)]


def test_damage_is_raised_where_it_is(disk: Disk) -> None:
    folder = disk.folder("/journal/p0")
    filled(folder, None)
    folder.bytes_of(segment_name(7))[200] ^= 1
    with pytest.raises(JournalDamagedError, match=segment_name(7)):
        list(history([folder], IDENTITY))


def test_a_bad_batch_with_a_sound_one_behind_it_is_damage_in_the_last_one_too(
    disk: Disk,
) -> None:
    folder = disk.folder("/journal/p0")
    store = open_store(folder)
    for _ in range(3):
        append(store)
    last = append(store).data
    data = folder.bytes_of(segment_name(0))
    place = bytes(data).index(last)
    data[place - 9] ^= 1
    with pytest.raises(JournalDamagedError, match="a valid batch lies behind it"):
        list(history([folder], IDENTITY))
    data[place:] = bytes(len(data) - place)  # a torn tail, as far as anybody can tell
    assert len(positions(history([folder], IDENTITY))) == 3


def test_an_end_before_that_of_the_checkpoint_is_damage(disk: Disk) -> None:
    folder = disk.folder("/journal/p0")
    store = open_store(folder)
    for _ in range(10):
        append(store, 1000)
    store.save_checkpoint(0, b"")
    folder.remove([n for n in folder.names() if n.endswith("seg")][-1])
    with pytest.raises(JournalDamagedError, match="were durable when the checkpoint"):
        list(history([folder], IDENTITY))
    folder.bytes_of("checkpoint")[-1] ^= 1  # it says nothing any more
    assert positions(history([folder], IDENTITY))


def test_a_partition_whose_repair_was_cut_off_is_not_read(disk: Disk) -> None:
    folder = disk.folder("/journal/p0")
    filled(folder, None)
    folder.put_back({**folder.copy_of(), "checkpoint": REPAIR_MARK})
    with pytest.raises(JournalDamagedError, match="a repair was cut off"):
        list(history([folder], IDENTITY))


def test_a_segment_in_which_nothing_is_yet_is_the_end(disk: Disk) -> None:
    folder = disk.folder("/journal/p0")
    make_store(folder)  # makes the first segment, and claims nothing
    assert [*folder.names()] == [segment_name(0)]
    assert positions(history([folder], IDENTITY)) == []


class Trimmed(MemoryFolder):
    """Loses its first segment between being listed and being opened."""

    def __init__(self, folder: MemoryFolder) -> None:
        super().__init__(folder.disk, folder.path)
        self.put_back(folder.copy_of())
        self._gone = False

    def open(self, name: str, *, writable: bool = False) -> MemoryFile:
        if name.endswith("seg") and not self._gone:
            self._gone = True
            self.remove(name)
        return super().open(name, writable=writable)


def test_a_segment_that_is_trimmed_meanwhile_is_told_as_missing(disk: Disk) -> None:
    folder = disk.folder("/journal/p0")
    filled(folder, None)
    first, *rest = history([Trimmed(folder)], IDENTITY)
    assert first == Missing(0, 7)
    assert [part.first for part in rest] == [*range(7, 11)]
