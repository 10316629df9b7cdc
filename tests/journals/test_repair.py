"""A person says: go on without the checkpoint. Nothing else may be lost by that."""

import errno
from collections.abc import Callable

import pytest
from tests.journals.disk import (
    Data,
    Disk,
    MemoryFolder,
    Names,
    PowerCut,
    cut_at,
    fail_at,
)
from tests.journals.parts import IDENTITY, append, batches_of, make_store, open_store

from coordinator.batch import Batch
from coordinator.errors import (
    JournalDamagedError,
    JournalFormatError,
    JournalLockedError,
)
from coordinator.journals.segments.format import segment_name
from coordinator.journals.segments.repair import (
    Forgotten,
    checkpoint_problem,
    forget_checkpoint,
)


@pytest.fixture
def folder() -> MemoryFolder:
    """Hold three segments, of four that were; and a checkpoint."""
    folder = Disk().folder("/journal/p0")
    store = open_store(folder)
    for _ in range(10):
        append(store, 1000)
    store.save_checkpoint(6, b"what only it knows")
    store.trim(6)
    store.close()
    assert [*folder.names()] == [*map(segment_name, (4, 7, 10)), "checkpoint"]
    return folder


def damage(folder: MemoryFolder) -> bytes:
    folder.bytes_of("checkpoint")[-1] ^= 1
    return bytes(folder.bytes_of("checkpoint"))


def forget(folder: MemoryFolder) -> Forgotten | None:
    return forget_checkpoint(
        folder, IDENTITY, empty=lambda low: b"from %d" % low, holder="a person"
    )


def stored(folder: MemoryFolder) -> tuple[list[Batch], bytes | None]:
    store = make_store(folder)
    try:
        store.open("test")
        return batches_of(store), store.load_checkpoint()
    finally:
        store.close()


def test_the_segments_alone_are_gone_on_from_and_the_damaged_one_is_kept(
    folder: MemoryFolder,
) -> None:
    whole, _ = stored(folder)
    damaged = damage(folder)
    assert "checkpoint: header crc is" in checkpoint_problem(folder, IDENTITY)
    done = Forgotten(partition=0, low=4, kept="/journal/p0/checkpoint.damaged")
    assert forget(folder) == done
    assert stored(folder) == (whole, b"from 4")
    assert bytes(folder.bytes_of("checkpoint.damaged")) == damaged
    assert checkpoint_problem(folder, IDENTITY) == ""


def test_no_kept_one_is_written_over(folder: MemoryFolder) -> None:
    kept: list[bytes] = []
    for name in ("", ".1", ".2"):
        kept.append(damage(folder))
        forget(folder)
        assert bytes(folder.bytes_of(f"checkpoint.damaged{name}")) == kept[-1]
    assert bytes(folder.bytes_of("checkpoint.damaged")) == kept[0]


def test_one_that_is_gone_is_replaced_too(folder: MemoryFolder) -> None:
    whole, _ = stored(folder)
    folder.remove("checkpoint")
    assert "without a checkpoint" in checkpoint_problem(folder, IDENTITY)
    assert forget(folder) == Forgotten(partition=0, low=4, kept="")
    assert stored(folder) == (whole, b"from 4")


def test_a_sound_one_and_one_that_is_not_needed_are_left_alone(
    folder: MemoryFolder,
) -> None:
    before = folder.copy_of()
    assert forget(folder) is None
    assert folder.copy_of() == before
    fresh = Disk().folder("/journal/p0")
    open_store(fresh).close()
    fresh.disk.kill()
    before = fresh.copy_of()
    assert forget(fresh) is None
    assert fresh.copy_of() == before


def _held(folder: MemoryFolder) -> None:
    folder.lock("LOCK", "pid 1")


def _segment_damaged(folder: MemoryFolder) -> None:
    folder.bytes_of(segment_name(7))[100] ^= 1


def _no_segment(folder: MemoryFolder) -> None:
    folder.put_back({"checkpoint": folder.copy_of()["checkpoint"]})


def _newer_segment(folder: MemoryFolder) -> None:
    folder.bytes_of(segment_name(7))[64 + 4] = 2


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (_held, JournalLockedError),
        (_segment_damaged, JournalDamagedError),
        (_no_segment, JournalDamagedError),
        (_newer_segment, JournalFormatError),
    ],
)
def test_it_is_refused_where_the_segments_are_not_sound_and_changes_nothing(
    folder: MemoryFolder,
    change: Callable[[MemoryFolder], None],
    error: type[Exception],
) -> None:
    damage(folder)
    change(folder)
    before = folder.copy_of()
    with pytest.raises(error):
        forget(folder)
    assert folder.copy_of() == before


def calls_of_it(folder: MemoryFolder) -> range:
    before = folder.disk.calls
    forget(folder)
    return range(folder.disk.calls - before)


@pytest.mark.parametrize("names", Names)
@pytest.mark.parametrize("data", Data)
def test_a_power_cut_leaves_the_damaged_one_or_the_empty_one(
    folder: MemoryFolder, data: Data, names: Names
) -> None:
    damaged = damage(folder)
    before = folder.copy_of()
    disk = folder.disk
    for number in calls_of_it(folder):
        folder.put_back(before)
        disk.fault = cut_at(disk.calls + number)
        with pytest.raises(PowerCut):
            forget(folder)
        disk.cut_power(data, names)
        if bytes(folder.bytes_of("checkpoint")) == damaged:
            forget(folder)
        kept = [name for name in folder.names() if ".damaged" in name]
        assert damaged in [bytes(folder.bytes_of(name)) for name in kept]
        assert stored(folder)[1] == b"from 4"


def test_a_disk_that_fails_leaves_the_damaged_one_or_the_empty_one(
    folder: MemoryFolder,
) -> None:
    damage(folder)
    before = folder.copy_of()
    disk = folder.disk
    for number in calls_of_it(folder):
        folder.put_back(before)
        disk.fault = fail_at(disk.calls + number, errno.EIO)
        with pytest.raises(OSError, match="Input/output"):
            forget(folder)
        disk.kill()
        forget(folder)
        assert stored(folder)[1] == b"from 4"
