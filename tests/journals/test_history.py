"""What is retained of a partition, wherever it lies, in order and without a lock."""

from collections.abc import Iterator

import pytest
from tests.journals.disk import Disk, MemoryFolder
from tests.journals.parts import IDENTITY, append, open_store

from coordinator.batch import Batch
from coordinator.errors import JournalDamagedError
from coordinator.journals.segments.format import segment_name
from coordinator.journals.segments.history import Missing, history
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


def test_a_segment_in_which_nothing_is_yet_is_the_end(disk: Disk) -> None:
    folder = disk.folder("/journal/p0")
    store = open_store(folder)
    assert positions(history([folder], IDENTITY)) == [(0, 1)]
    store.close()
