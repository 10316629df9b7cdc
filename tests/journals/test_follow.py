"""Following a partition, byte by byte and through rolls, restarts and trims."""

import pytest
from tests.journals.disk import Disk, MemoryFolder
from tests.journals.parts import (
    IDENTITY,
    append,
    batch_behind,
    batches_of,
    open_store,
)

from coordinator.batch import Batch
from coordinator.errors import JournalDamagedError
from coordinator.journals.segments.follow import Follower
from coordinator.journals.segments.format import segment_name
from coordinator.journals.segments.store import Store


@pytest.fixture
def folder() -> MemoryFolder:
    return Disk().folder("/journal/p0")


@pytest.fixture
def store(folder: MemoryFolder) -> Store:
    return open_store(folder)


def test_a_batch_is_seen_once_it_is_complete(
    folder: MemoryFolder, store: Store
) -> None:
    follower = Follower(folder, IDENTITY, 1)
    assert list(follower.poll()) == []
    end = len(bytes(folder.bytes_of(segment_name(0))).rstrip(b"\0")) + 7 & ~7
    batch = batch_behind(store, 50)
    for size in range(len(batch.data.rstrip(b"\0"))):
        folder.bytes_of(segment_name(0))[end : end + size] = batch.data[:size]
        assert list(follower.poll()) == []
    store.append(batch)
    assert list(follower.poll()) == [batch]


def test_rolls_and_restarts_are_followed(folder: MemoryFolder) -> None:
    follower = Follower(folder, IDENTITY, 0)
    seen: list[Batch] = []
    for _ in range(4):
        store = open_store(folder)
        for _ in range(7):
            append(store, 1500)
            seen += follower.poll()
        store.close()
        seen += follower.poll()
    store = open_store(folder)
    seen += follower.poll()
    assert seen == batches_of(store)


def test_what_was_trimmed_away_is_left_out(folder: MemoryFolder, store: Store) -> None:
    follower = Follower(folder, IDENTITY, 0)
    append(store, 1500)
    assert len(list(follower.poll())) == 2
    for _ in range(9):
        append(store, 1500)
    store.save_checkpoint(store.chain.end, b"")
    store.trim(store.chain.end)
    batches = list(follower.poll())
    assert [batch.first for batch in batches] == [9, 10]
    append(store)
    assert [batch.first for batch in follower.poll()] == [11]


def test_a_segment_that_goes_between_listing_and_opening_is_left_out(
    folder: MemoryFolder, store: Store
) -> None:
    for _ in range(9):
        append(store, 1500)
    last = store.segments[-1].base
    kept = {segment_name(last): folder.copy_of()[segment_name(last)]}

    def trimmed(_: int, name: str) -> None:
        if name == "open":
            folder.put_back(kept)

    folder.disk.fault = trimmed
    batches = list(Follower(folder, IDENTITY, 0).poll())
    assert batches[0].first == last


def test_a_hole_is_damage(folder: MemoryFolder, store: Store) -> None:
    for _ in range(9):
        append(store, 1500)
    files = folder.copy_of()
    del files[segment_name(store.segments[1].base)]
    folder.put_back(files)
    with pytest.raises(JournalDamagedError, match="is missing"):
        list(Follower(folder, IDENTITY, 0).poll())


def test_a_closed_segment_with_a_bad_end_is_damage(
    folder: MemoryFolder, store: Store
) -> None:
    for _ in range(9):
        append(store, 1500)
    folder.bytes_of(segment_name(0))[-1] ^= 1
    with pytest.raises(JournalDamagedError, match="crc is"):
        list(Follower(folder, IDENTITY, 0).poll())


def test_a_bad_batch_with_a_later_one_is_damage_if_the_end_is_looked_at(
    folder: MemoryFolder, store: Store
) -> None:
    for _ in range(2):
        append(store, 100)
    data = folder.bytes_of(segment_name(0))
    second = data.index(b"CBAT", 70)
    data[second + 50] ^= 1
    assert len(list(Follower(folder, IDENTITY, 0).poll())) == 1
    with pytest.raises(JournalDamagedError, match="a valid batch lies behind"):
        list(Follower(folder, IDENTITY, 0).poll(to_the_end=True))
