"""The store: rolling, the reserve, retention, and what breaks it."""

import errno
import os
from collections.abc import Callable

import pytest
from tests.journals.disk import Data, Disk, MemoryFolder, Names, fail_at
from tests.journals.parts import (
    SMALL,
    Clock,
    append,
    batch_behind,
    batches_of,
    make_store,
    open_store,
)

from coordinator.errors import JournalBrokenError, JournalError, JournalFullError
from coordinator.journals.handle import encode_claim
from coordinator.journals.segments.format import segment_name
from coordinator.journals.segments.store import StoreOptions

DAY_S = 24 * 3600.0


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def folder(disk: Disk) -> MemoryFolder:
    return disk.folder("/journal/p0")


def segments_in(folder: MemoryFolder) -> list[str]:
    return [name for name in folder.names() if name.endswith(".seg")]


def fill(folder: MemoryFolder, clock: Clock | None = None, **how: MemoryFolder) -> None:
    """Write four segments, with a checkpoint at the end of what they hold."""
    store = open_store(folder, StoreOptions(segment_size=4096), clock=clock, **how)
    for _ in range(20):
        append(store, 700)
    store.save_checkpoint(store.chain.end, b"")
    store.close()


def test_a_segment_is_rolled_when_the_next_batch_does_not_fit(
    folder: MemoryFolder,
) -> None:
    store = open_store(folder)
    written = [append(store, 1000) for _ in range(10)]
    assert segments_in(folder) == [segment_name(base) for base in (0, 4, 7, 10)]
    assert batches_of(store)[1:] == written
    # Closed ones end with their last batch, the active one has room.
    sizes = [len(folder.bytes_of(name)) for name in segments_in(folder)]
    assert all(size < 4096 for size in sizes[:-1])
    assert sizes[-1] == 4096


def test_no_segment_outgrows_its_size(folder: MemoryFolder) -> None:
    store = open_store(folder)
    for size in range(0, 3900, 37):
        append(store, size)
    assert all(len(folder.bytes_of(name)) <= 4096 for name in segments_in(folder))


def test_a_batch_larger_than_a_segment_gets_one_of_its_own(
    folder: MemoryFolder,
) -> None:
    store = open_store(folder)
    large = append(store, 9000)
    small = append(store)
    assert segments_in(folder) == [segment_name(base) for base in (0, 1, 2)]
    assert len(folder.bytes_of(segment_name(1))) == 64 + len(large.data)
    store.close()
    store = open_store(folder)
    assert batches_of(store)[1:3] == [large, small]


def test_an_empty_segment_is_made_larger_and_not_rolled(
    disk: Disk, folder: MemoryFolder
) -> None:
    # A roll would give the next one the same name, and a trim would remove it.
    disk.space = 0
    store = make_store(folder)
    store.open("test")
    for _ in range(2):
        with pytest.raises(JournalFullError):
            append(store, 10)
    disk.space = 1 << 20
    claim = encode_claim(store.chain, owner="test", at=1)
    store.append(claim)
    assert [header.base for header in store.segments] == [0]
    assert len(folder.bytes_of(segment_name(0))) == 4096
    append(store, 3000)
    disk.fault = fail_at(disk.calls + 9, errno.ENOSPC)  # behind the roll: the write
    with pytest.raises(JournalFullError):
        append(store, 3000)
    assert len(folder.bytes_of(segment_name(2))) == 4096
    large = append(store, 9000)
    store.save_checkpoint(store.chain.end, b"")
    store.trim(store.chain.end)
    assert segments_in(folder) == [segment_name(2)]
    assert batches_of(store) == [large]
    store.close()
    assert batches_of(open_store(folder))[0] == large


def test_the_next_segment_is_allocated_when_half_of_the_active_one_is_used(
    folder: MemoryFolder,
) -> None:
    store = open_store(folder)
    assert not store.wants_space
    store.prepare()
    assert "next.tmp" not in folder.names()
    append(store, 2500)
    store.prepare()
    assert bytes(folder.bytes_of("next.tmp")) == bytes(4096)
    assert not store.wants_space
    append(store, 2500)
    assert "next.tmp" not in folder.names()
    assert segment_name(2) in folder.names()


def test_a_full_disk_is_told_early_and_the_reserve_is_used_meanwhile(
    disk: Disk, folder: MemoryFolder
) -> None:
    store = open_store(folder)
    disk.space = 4000
    store.prepare()
    assert store.full == ""
    append(store, 2000)
    store.prepare()
    assert "4096 bytes are needed" in store.full
    assert "next.tmp" not in folder.names()
    kept = [append(store, 700), append(store, 700)]
    too_much = batch_behind(store, 700)
    for _ in range(3):
        with pytest.raises(JournalFullError, match="4000 are free"):
            store.append(too_much)
    assert batches_of(store)[2:] == kept
    disk.space = 1 << 20
    assert store.wants_space
    store.prepare()
    assert store.full == ""
    store.append(too_much)
    assert batches_of(store)[2:] == [*kept, too_much]


def test_space_that_comes_back_is_used_by_a_write_too(
    disk: Disk, folder: MemoryFolder
) -> None:
    store = open_store(folder)
    append(store, 3000)
    disk.space = 0
    with pytest.raises(JournalFullError):
        append(store, 3000)
    disk.space = 1 << 20
    append(store, 3000)
    store.prepare()
    assert store.full == ""


def test_no_space_for_a_large_batch_does_not_keep_small_ones_out(
    disk: Disk, folder: MemoryFolder
) -> None:
    store = open_store(folder)
    append(store, 2500)
    store.prepare()
    disk.space = 0
    with pytest.raises(JournalFullError):
        append(store, 9000)
    assert store.full == ""
    append(store, 2500)
    assert len(batches_of(store)) == 3


def test_no_space_within_a_write_leaves_the_store_alive(
    disk: Disk, folder: MemoryFolder
) -> None:
    store = open_store(folder)
    first = append(store, 100)
    disk.fault = fail_at(disk.calls, errno.ENOSPC)
    with pytest.raises(JournalFullError):
        append(store, 900)
    # What is allocated says nothing about a file system that copies on write.
    for _ in range(2):
        assert "No space left" in store.full
        store.prepare()
    # A shorter one: of the one before it something sticks out behind.
    second = append(store, 10)
    assert store.full == ""
    store.close()
    store = open_store(folder)
    assert batches_of(store)[1:3] == [first, second]


@pytest.mark.parametrize("call", ["write", "sync"])
@pytest.mark.parametrize("survives", [None, *Data])
def test_no_space_for_the_header_of_the_next_segment_leaves_the_store_alive(
    disk: Disk, folder: MemoryFolder, call: str, survives: Data | None
) -> None:
    store = open_store(folder)
    written = [append(store, 2500)]
    store.prepare()

    def fault(_: int, name: str) -> None:
        if name == call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    disk.fault = fault
    for _ in range(2):
        with pytest.raises(JournalFullError, match="No space left"):
            append(store, 2500)
        assert "No space left" in store.full
        assert "next.tmp" not in folder.names()
    if survives is not None:
        disk.cut_power(survives, Names.ALL)
        store = open_store(folder)
    disk.fault = lambda _call, _name: None
    # In the rest of the active one, then behind it.
    written += [append(store, 100), append(store, 2500)]
    assert store.full == ""
    assert [b for b in batches_of(store) if len(b.data) > 80] == written
    store.close()


def test_no_space_within_a_flush_breaks_the_store(
    disk: Disk, folder: MemoryFolder
) -> None:
    store = open_store(folder)
    disk.fault = fail_at(disk.calls + 1, errno.ENOSPC)
    with pytest.raises(JournalBrokenError):
        append(store)


def test_a_quota_that_is_used_up_is_a_full_disk(
    disk: Disk, folder: MemoryFolder
) -> None:
    store = open_store(folder)
    append(store, 2500)
    disk.fault = fail_at(disk.calls + 2, errno.EDQUOT)
    store.prepare()
    assert "quota" in store.full
    assert "next.tmp" not in folder.names()


def test_a_partition_opens_on_a_full_disk(disk: Disk, folder: MemoryFolder) -> None:
    store = open_store(folder)
    written = append(store, 700)
    disk.kill()
    folder.bytes_of(segment_name(0))[2000:2100] = b"torn" * 25
    disk.space = 0
    store = open_store(folder)
    assert store.full != ""
    append(store, 700)
    assert batches_of(store)[1] == written
    assert folder.bytes_of(segment_name(0))[2000:2100] == bytes(100)
    disk.space = 1 << 20
    store.prepare()
    assert not store.full


def test_a_new_partition_does_not_open_on_a_full_disk(
    disk: Disk, folder: MemoryFolder
) -> None:
    disk.space = 0
    with pytest.raises(JournalFullError):
        open_store(folder)


@pytest.mark.parametrize("call", ["append", "prepare", "save", "load", "trim"])
def test_a_broken_store_stays_broken(
    disk: Disk, folder: MemoryFolder, call: str
) -> None:
    store = open_store(folder)
    batch = batch_behind(store)
    disk.fault = fail_at(disk.calls + 1, errno.EIO)
    with pytest.raises(JournalBrokenError, match="could not append"):
        store.append(batch)
    calls = disk.calls
    again: dict[str, Callable[[], object]] = {
        "append": lambda: store.append(batch),
        "prepare": store.prepare,
        "save": lambda: store.save_checkpoint(0, b""),
        "load": store.load_checkpoint,
        "trim": lambda: store.trim(0),
    }
    with pytest.raises(JournalBrokenError, match="could not append"):
        again[call]()
    assert disk.calls == calls


def test_what_is_not_needed_is_deleted_when_its_retention_is_over(
    folder: MemoryFolder,
) -> None:
    clock = Clock()
    fill(folder, clock)
    clock.move(3 * DAY_S)
    store = open_store(folder, StoreOptions(segment_size=4096), clock=clock)
    append(store, 3000)
    store.save_checkpoint(store.chain.end, b"")
    before = segments_in(folder)
    clock.move(3.9 * DAY_S)
    store.trim(store.chain.end)
    assert segments_in(folder) == before
    clock.move(0.2 * DAY_S)
    store.trim(store.chain.end)
    # The last one of the fill was closed later than the others.
    assert segments_in(folder) == before[-2:]
    store.close()
    assert open_store(folder).chain.end == 24


def test_only_whole_segments_go(folder: MemoryFolder) -> None:
    fill(folder)
    store = open_store(folder)
    bases = [header.base for header in store.segments]
    store.trim(bases[2] - 1)
    assert [header.base for header in store.segments] == bases[1:]
    store.trim(bases[2] - 1)
    assert [header.base for header in store.segments] == bases[1:]


def test_a_trim_that_has_nothing_to_do_asks_the_disk_nothing(
    disk: Disk, folder: MemoryFolder
) -> None:
    store = open_store(folder)
    calls = disk.calls
    store.trim(store.chain.end)
    assert disk.calls == calls


def test_segments_go_to_the_archive_if_there_is_one(
    disk: Disk, folder: MemoryFolder
) -> None:
    archive = disk.folder("/archive/p0")
    fill(folder)
    held = folder.copy_of()
    store = open_store(folder, archive=archive)
    store.trim(store.chain.end)
    gone = sorted(held.keys() - set(folder.names()) - {"next.tmp"})
    assert len(gone) == 3
    assert archive.copy_of() == {name: held[name] for name in gone}


def test_a_segment_that_was_removed_and_came_back_is_removed_again(
    folder: MemoryFolder,
) -> None:
    fill(folder)
    held = folder.copy_of()
    store = open_store(folder)
    store.trim(store.chain.end)
    store.close()
    oldest = segment_name(0)
    folder.put_back({**folder.copy_of(), oldest: held[oldest]})
    store = open_store(folder)
    store.trim(store.chain.end)
    assert oldest not in folder.names()


def test_a_checkpoint_that_finds_no_space_leaves_the_one_before(
    disk: Disk, folder: MemoryFolder
) -> None:
    store = open_store(folder)
    store.save_checkpoint(1, b"before")
    disk.space = 10
    with pytest.raises(JournalFullError):
        store.save_checkpoint(1, b"behind")
    disk.space = 1 << 20
    disk.fault = fail_at(disk.calls + 3, errno.ENOSPC)
    with pytest.raises(JournalFullError):
        store.save_checkpoint(1, b"behind")
    assert disk.log[-2:] == ["write", "remove"]
    assert "checkpoint.tmp" not in folder.names()
    assert store.load_checkpoint() == b"before"
    append(store)


def test_a_checkpoint_that_cannot_be_read_breaks_the_store(
    disk: Disk, folder: MemoryFolder
) -> None:
    store = open_store(folder)
    disk.fault = fail_at(disk.calls, errno.EIO)
    with pytest.raises(JournalBrokenError, match="read the checkpoint"):
        store.load_checkpoint()


def test_what_a_crash_left_half_made_is_removed(folder: MemoryFolder) -> None:
    store = open_store(folder)
    store.close()
    for name in ("next.tmp", "copy.tmp", "checkpoint.tmp"):
        folder.create(name)
    open_store(folder)
    assert not [name for name in folder.names() if name.endswith(".tmp")]


def test_a_segment_larger_than_the_new_size_is_gone_on_with(
    folder: MemoryFolder,
) -> None:
    store = open_store(folder, StoreOptions(segment_size=1 << 20))
    for _ in range(20):
        append(store, 1000)
    store.close()
    store = open_store(folder, SMALL)
    append(store, 1000)
    assert len(batches_of(store)) == 23


def test_an_active_segment_that_shrinks_while_it_is_copied_is_noticed(
    disk: Disk, folder: MemoryFolder
) -> None:
    store = open_store(folder)
    append(store, 1000)
    store.close()

    def shrink(_: int, name: str) -> None:
        if name == "create":
            del folder.bytes_of(segment_name(0))[500:]

    disk.fault = shrink
    store = make_store(folder)
    with pytest.raises(JournalBrokenError, match="became shorter"):
        store.open("test")


def test_closed_with_nothing_to_do_it_gives_back_what_was_allocated_ahead(
    disk: Disk, folder: MemoryFolder
) -> None:
    store = open_store(folder)
    written = append(store, 2500)
    store.prepare()
    assert "next.tmp" in folder.names()
    claim, _ = batches_of(store)
    store.save_checkpoint(store.chain.end, b"")
    store.close()
    assert "next.tmp" not in folder.names()
    size = len(folder.bytes_of(segment_name(0)))
    assert size == 64 + len(claim.data) + len(written.data) + 1024
    # Not synced, for nothing depends on it.
    disk.cut_power(Data.NONE, Names.NONE)
    assert len(folder.bytes_of(segment_name(0))) == 4096
    again = open_store(folder)
    assert batches_of(again)[:2] == [claim, written]


def test_closed_on_a_full_disk_it_keeps_what_it_has_and_can_start_again(
    disk: Disk, folder: MemoryFolder
) -> None:
    store = open_store(folder)
    append(store, 2500)
    disk.space = 0
    store.prepare()
    assert store.full
    disk.space = 64
    store.save_checkpoint(store.chain.end, b"")
    disk.space = 0
    store.close()
    assert len(folder.bytes_of(segment_name(0))) == 4096
    append(open_store(folder), 700)


def test_closed_with_something_unfinished_it_keeps_all_it_needs_to_go_on(
    disk: Disk, folder: MemoryFolder
) -> None:
    store = open_store(folder)
    append(store, 2000)
    store.prepare()
    store.save_checkpoint(store.chain.end - 1, b"")
    store.close()
    assert "next.tmp" in folder.names()
    disk.space = 0  # the disk filled up meanwhile
    store = open_store(folder)
    assert store.full
    written = append(store, 1700)
    assert batches_of(store)[-1] == written


def test_closed_with_nothing_to_do_it_can_start_when_the_disk_is_full(
    disk: Disk, folder: MemoryFolder
) -> None:
    store = open_store(folder)
    written = append(store, 700)
    store.save_checkpoint(store.chain.end, b"")
    store.close()
    disk.space = 0
    for _ in range(8):
        store = open_store(folder)
        assert store.full
        assert batches_of(store)[1] == written
        store.close()
    disk.space = 1 << 20
    append(open_store(folder), 3000)


@pytest.mark.parametrize("call", ["truncate", "remove"])
def test_space_that_can_not_be_given_back_is_no_failure(
    disk: Disk, folder: MemoryFolder, call: str
) -> None:
    store = open_store(folder)
    append(store, 2500)
    store.prepare()

    def fault(_: int, name: str) -> None:
        if name == call:
            raise OSError(errno.EIO, "input/output error")

    store.save_checkpoint(store.chain.end, b"")
    disk.fault = fault
    store.close()
    disk.kill()
    assert len(batches_of(open_store(folder))) == 3


def test_a_broken_store_cuts_nothing_when_it_is_closed(
    disk: Disk, folder: MemoryFolder
) -> None:
    store = open_store(folder)
    disk.fault = fail_at(disk.calls + 1, errno.EIO)
    with pytest.raises(JournalBrokenError):
        append(store)
    calls = disk.calls
    store.close()
    assert disk.calls == calls


def test_a_store_that_was_closed_does_nothing_more(folder: MemoryFolder) -> None:
    store = open_store(folder)
    append(store, 2500)
    store.prepare()
    store.close()
    store.close()
    with pytest.raises(JournalError, match="was closed"):
        append(store)


@pytest.mark.parametrize("wrong", [{"segment_size": 4095}, {"retention_s": -1.0}])
def test_options_out_of_their_bounds_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"segment|retention"):
        StoreOptions(**wrong)  # type: ignore[arg-type]
