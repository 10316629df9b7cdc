"""Reading across segments, also while they are trimmed."""

import pytest
from tests.journals.disk import Disk, MemoryFolder
from tests.journals.parts import append, batches_of, open_store

from coordinator.errors import JournalDamagedError
from coordinator.journals.segments.format import segment_name
from coordinator.journals.segments.scan import scan
from coordinator.journals.segments.store import Store


@pytest.fixture
def folder() -> MemoryFolder:
    return Disk().folder("/journal/p0")


@pytest.fixture
def store(folder: MemoryFolder) -> Store:
    """Hold one claim and nine batches in three segments."""
    store = open_store(folder)
    for _ in range(9):
        append(store, 1000)
    assert [header.base for header in store.segments] == [0, 4, 7]
    return store


def test_nothing_is_read_that_is_not_asked_for(store: Store) -> None:
    assert [b.first for b in scan(store, 5, 8)] == [5, 6, 7]
    assert list(scan(store, 5, 5)) == []
    assert [b.first for b in scan(store, 3, 5)] == [3, 4]


def test_a_segment_that_is_trimmed_while_it_is_read_is_read_to_its_end(
    store: Store,
) -> None:
    store.save_checkpoint(store.chain.end, b"")
    batches = scan(store, 0, store.chain.end)
    assert next(batches).first == 0
    store.trim(store.chain.end)
    assert [batch.first for batch in batches] == [1, 2, 3, 7, 8, 9]


def test_reading_behind_a_trim_begins_with_the_oldest_one_kept(store: Store) -> None:
    store.save_checkpoint(5, b"")
    store.trim(5)
    assert batches_of(store)[0].first == 4


def test_bytes_that_changed_since_they_were_recovered_are_damage(
    store: Store, folder: MemoryFolder
) -> None:
    folder.bytes_of(segment_name(4))[500] ^= 1
    with pytest.raises(JournalDamagedError, match="crc is"):
        batches_of(store)
    folder.bytes_of(segment_name(4))[500] ^= 1
    del folder.bytes_of(segment_name(7))[2000:]
    with pytest.raises(JournalDamagedError, match=r"bytes, .* are there"):
        batches_of(store)
    del folder.bytes_of(segment_name(7))[64:]
    with pytest.raises(JournalDamagedError, match="ends before position 10"):
        batches_of(store)
