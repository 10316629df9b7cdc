"""The simulated disk: a folder like any other, until the power goes."""

import errno
import random
from collections import Counter
from pathlib import Path
from typing import TypeAlias

import pytest
from tests.simulation.contents import BLOCK, SECTOR
from tests.simulation.disk import Disk, DiskFaults
from tests.simulation.handles import SimulatedFolder, open_root

from coordinator.errors import JournalLockedError
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.posix import PosixFolder
from coordinator.testing.loop import DeadError, Life

# What every implementation of the port does.


@pytest.fixture(params=["posix", "simulated"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "posix":
        return PosixFolder(str(tmp_path))
    return open_root(Disk(random.Random(0)), Life(0))


def test_what_was_written_is_read(folder: Folder) -> None:
    file = folder.create("a")
    file.write(0, b"hello world")
    file.write(6, b"there")
    assert file.read(0, 100) == b"hello there"
    assert file.read(6, 3) == b"the"
    assert file.read(11, 5) == b""
    assert file.read(99, 5) == b""
    assert file.size() == 11
    file.sync()
    file.close()
    file.close()
    assert folder.open("a").read(0, 100) == b"hello there"


def test_a_gap_reads_as_zeros(folder: Folder) -> None:
    file = folder.create("a")
    file.write(1000, b"end")
    assert file.size() == 1003
    assert file.read(0, 1003) == bytes(1000) + b"end"


def test_allocate_makes_it_longer_and_never_shorter(folder: Folder) -> None:
    file = folder.create("a")
    file.write(0, b"abc")
    file.allocate(10_000)
    assert file.size() == 10_000
    assert file.read(0, 5) == b"abc\0\0"
    file.allocate(100)
    assert file.size() == 10_000


def test_truncate_cuts(folder: Folder) -> None:
    file = folder.create("a")
    file.write(0, b"abcdef")
    file.truncate(3)
    assert file.read(0, 10) == b"abc"
    file.write(5, b"x")
    assert file.read(0, 10) == b"abc\0\0x"


def test_two_handles_see_one_file(folder: Folder) -> None:
    first = folder.create("a")
    second = folder.open("a", writable=True)
    first.write(0, b"abc")
    second.write(1, b"X")
    assert first.read(0, 3) == b"aXc"


def test_create_empties_a_file_that_exists(folder: Folder) -> None:
    folder.create("a").write(0, b"abc")
    assert folder.create("a").size() == 0
    assert folder.open("a").size() == 0


def test_open_wants_a_file_that_exists(folder: Folder) -> None:
    with pytest.raises(FileNotFoundError):
        folder.open("a")
    with pytest.raises(FileNotFoundError):
        folder.rename("a", "b")


def test_only_a_writable_handle_writes(folder: Folder) -> None:
    folder.create("a").close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        folder.open("a").write(0, b"x")


def test_a_closed_handle_is_no_good(folder: Folder) -> None:
    file = folder.create("a")
    file.close()
    with pytest.raises((OSError, ValueError), match="file descriptor"):
        file.read(0, 1)
    with pytest.raises((OSError, ValueError), match="file descriptor"):
        file.sync()


def test_names_are_sorted_and_follow_what_is_done(folder: Folder) -> None:
    for name in ("b", "a", "c"):
        folder.create(name).close()
    assert list(folder.names()) == ["a", "b", "c"]
    folder.rename("c", "a")
    folder.remove("b")
    folder.remove("never there")
    folder.sync()
    assert list(folder.names()) == ["a"]


def test_rename_takes_the_place_of_another(folder: Folder) -> None:
    old, new = folder.create("a"), folder.create("b")
    old.write(0, b"old")
    new.write(0, b"new")
    folder.rename("b", "a")
    assert folder.open("a").read(0, 9) == b"new"
    assert old.read(0, 9) == b"old", "an open handle keeps its file"


def test_folders_nest_and_files_move(folder: Folder) -> None:
    with pytest.raises(FileNotFoundError):
        folder.folder("inner")
    inner = folder.make_folder("inner")
    assert list(inner.names()) == []
    assert list(folder.names()) == ["inner"]
    assert inner.path == f"{folder.path}/inner"
    folder.create("a").write(0, b"abc")
    folder.move("a", inner)
    assert list(folder.names()) == ["inner"]
    assert folder.folder("inner").open("a").read(0, 9) == b"abc"


def test_a_lock_is_held_once_and_names_its_holder(folder: Folder) -> None:
    lock = folder.lock("lock", "pid 1 on host a")
    with pytest.raises(JournalLockedError, match="pid 1 on host a"):
        folder.lock("lock", "pid 2 on host a")
    lock.release()
    lock.release()
    folder.lock("lock", "pid 2 on host a").release()
    assert "lock" in folder.names()


def test_there_is_free_space(folder: Folder) -> None:
    assert folder.free() > BLOCK


# What only a disk that can be crashed shows.

Sectors: TypeAlias = tuple[bytes, ...]

OLD = b"".join(bytes([value]) * SECTOR for value in range(1, 5))
NEW = b"".join(bytes([value]) * SECTOR for value in range(101, 107))


def crashed(seed: int, *, synced: bool, power: float = 1.0) -> bytes:
    """Overwrite a synced file, and crash: with or without a sync in between."""
    disk = Disk(random.Random(seed), DiskFaults(power=power))
    folder = open_root(disk, Life(0))
    file = folder.create("a")
    file.write(0, OLD)
    file.sync()
    folder.sync()
    for offset in range(0, len(NEW), 2 * SECTOR):
        file.write(offset, NEW[offset : offset + 2 * SECTOR])
    if synced:
        file.sync()
    disk.crash()
    return open_root(disk, Life(1)).open("a").read(0, 10_000)


def test_what_is_synced_survives_every_crash() -> None:
    assert all(crashed(seed, synced=True) == NEW for seed in range(300))


def test_a_kill_keeps_the_cache_and_the_next_power_cut_may_not() -> None:
    assert all(crashed(seed, synced=False, power=0.0) == NEW for seed in range(50))
    lost = 0
    for seed in range(100):
        disk = Disk(random.Random(seed), DiskFaults(power=0.0))
        folder = open_root(disk, Life(0))
        file = folder.create("a")
        folder.sync()
        file.write(0, NEW)
        disk.crash()
        disk.faults.power = 1.0
        assert open_root(disk, Life(1)).open("a").read(0, 10_000) == NEW
        disk.crash()
        lost += open_root(disk, Life(2)).open("a").read(0, 10_000) != NEW
    assert lost > 30


def test_the_unsynced_is_lost_kept_torn_and_scattered() -> None:
    seen: Counter[str] = Counter()
    for seed in range(1000):
        content = crashed(seed, synced=False)
        pieces = range(0, len(content), SECTOR)
        sectors = [content[at : at + SECTOR] for at in pieces]
        olds = [OLD[at : at + SECTOR] for at in pieces]
        news = [NEW[at : at + SECTOR] for at in pieces]
        fate = ""
        for sector, old, new in zip(sectors, olds, news, strict=True):
            match sector:
                case _ if sector == old:
                    fate += "o"
                case _ if sector == new:
                    fate += "n"
                case _ if sector == bytes(len(sector)):
                    fate += "0"
                case _:
                    fate += "t"
                    pairs = enumerate(zip(sector, new, strict=False))
                    ends = [index for index, (ours, b) in pairs if ours != b]
                    tear = ends[0] if ends else len(sector)
                    rest = old[tear:] or bytes(len(sector) - tear)
                    assert sector == new[:tear] + rest[: len(sector) - tear]
        seen[fate] += 1
    assert seen["oooo"] > 100, "all lost"
    assert seen["nnnnnn"] > 100, "all kept"
    assert seen["nnoo"] > 10, "a prefix"
    assert any("on" in fate for fate in seen), "out of order"
    assert any("0" in fate for fate in seen), "size without bytes"
    assert any("t" in fate for fate in seen), "torn in mid-sector"
    assert len(seen) > 40


def crashed_names(seed: int, *, synced: bool) -> list[str]:
    disk = Disk(random.Random(seed), DiskFaults())
    folder = open_root(disk, Life(0))
    for name in ("a", "b"):
        folder.create(name).sync()
    folder.sync()
    folder.create("c").sync()
    folder.rename("c", "d")
    folder.remove("a")
    folder.rename("b", "e")
    if synced:
        folder.sync()
    disk.crash()
    return open_root(disk, Life(1)).names()


def test_synced_names_survive_and_others_may_not() -> None:
    assert all(crashed_names(seed, synced=True) == ["d", "e"] for seed in range(100))
    seen = Counter(tuple(crashed_names(seed, synced=False)) for seed in range(500))
    assert seen["a", "b"] > 50, "all lost"
    assert seen["d", "e"] > 50, "all kept"
    assert len(seen) > 5
    assert all(("b" in names) != ("e" in names) for names in seen), "renames are whole"


def test_a_synced_name_does_not_save_unsynced_bytes() -> None:
    sizes: Counter[int] = Counter()
    for seed in range(200):
        disk = Disk(random.Random(seed), DiskFaults())
        folder = open_root(disk, Life(0))
        folder.create("a").write(0, b"x" * 100)
        folder.sync()
        disk.crash()
        sizes[open_root(disk, Life(1)).open("a").size()] += 1
    assert sizes[0] > 20
    assert sizes[100] > 20


def test_an_unsynced_cut_may_come_back() -> None:
    seen: Counter[int] = Counter()
    for seed in range(200):
        disk = Disk(random.Random(seed), DiskFaults())
        folder = open_root(disk, Life(0))
        file = folder.create("a")
        file.write(0, OLD)
        file.sync()
        folder.sync()
        file.truncate(10)
        disk.crash()
        seen[open_root(disk, Life(1)).open("a").size()] += 1
    assert set(seen) == {10, len(OLD)}


def test_a_failed_sync_lies_ever_after() -> None:
    lost = 0
    for seed in range(100):
        disk = Disk(random.Random(seed), DiskFaults(sync_eio=1.0))
        folder = open_root(disk, Life(0))
        file = folder.create("a")
        file.write(0, NEW)
        with pytest.raises(OSError, match="Input/output error"):
            file.sync()
        disk.faults.heal()
        file.sync()
        folder.sync()
        assert file.read(0, 10_000) == NEW, "the cache shows what was written"
        disk.crash()
        lost += open_root(disk, Life(1)).open("a").read(0, 10_000) != NEW
    assert lost > 80


def test_a_failed_write_may_be_there_in_part() -> None:
    sizes: set[int] = set()
    for seed in range(50):
        disk = Disk(random.Random(seed), DiskFaults(write_eio=1.0))
        file = open_root(disk, Life(0)).create("a")
        with pytest.raises(OSError, match="Input/output error") as caught:
            file.write(0, NEW)
        assert caught.value.errno == errno.EIO
        sizes.add(file.size())
    assert len(sizes) > 20


def test_space_ends_and_allocated_space_does_not() -> None:
    disk = Disk(random.Random(0), capacity=4 * BLOCK)
    folder = open_root(disk, Life(0))
    file = folder.create("a")
    file.allocate(2 * BLOCK)
    other = folder.create("b")
    other.write(0, bytes(2 * BLOCK))
    assert folder.free() == 0
    file.write(0, bytes(2 * BLOCK))
    with pytest.raises(OSError, match="No space left") as caught:
        file.write(2 * BLOCK, b"x")
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="No space left"):
        file.allocate(3 * BLOCK)
    folder.remove("b")
    assert folder.free() == 2 * BLOCK
    file.allocate(3 * BLOCK)
    disk.capacity = BLOCK
    assert folder.free() == 0


def test_a_dead_life_changes_nothing_and_holds_nothing() -> None:
    disk = Disk(random.Random(0), DiskFaults(power=0.0))
    life = Life(0)
    folder = open_root(disk, life)
    file = folder.create("a")
    file.write(0, b"abc")
    lock = folder.lock("lock", "the dead")
    life.end("crash")
    disk.crash()
    for action in (
        lambda: file.write(0, b"xyz"),
        file.sync,
        lambda: folder.remove("a"),
        folder.sync,
        folder.names,
    ):
        with pytest.raises(DeadError):
            action()
    file.close()
    again = open_root(disk, Life(1))
    again.lock("lock", "the living")
    lock.release()
    with pytest.raises(JournalLockedError, match="the living"):
        again.lock("lock", "a third")
    assert again.open("a").read(0, 9) == b"abc"


def test_a_crash_may_come_before_or_after_an_operation() -> None:
    for after, content in ((False, b""), (True, b"abc")):
        disk = Disk(random.Random(0), DiskFaults(power=0.0))
        life = Life(0)
        file = open_root(disk, life, Killer(life, "write", after=after)).create("a")
        with pytest.raises(DeadError):
            file.write(0, b"abc")
        disk.crash()
        assert open_root(disk, Life(1)).open("a").read(0, 9) == content


class Killer:
    def __init__(self, life: Life, what: str, *, after: bool) -> None:
        self._life = life
        self._what = what
        self._after = after

    def __call__(self, what: str, *, after: bool) -> None:
        if what.startswith(self._what) and after is self._after:
            self._life.end(what)


def test_a_seed_repeats() -> None:
    def contents() -> list[bytes]:
        return [crashed(seed, synced=False) for seed in range(50)]

    assert contents() == contents()


def test_a_move_is_never_seen_in_neither_folder_once_the_target_is_synced() -> None:
    seen: Counter[tuple[bool, bool]] = Counter()
    for seed in range(300):
        disk = Disk(random.Random(seed), DiskFaults())
        folder: SimulatedFolder = open_root(disk, Life(0))
        inner = folder.make_folder("inner")
        folder.create("a").sync()
        folder.sync()
        folder.move("a", inner)
        inner.sync()
        disk.crash()
        again = open_root(disk, Life(1))
        seen["a" in again.names(), "a" in again.folder("inner").names()] += 1
    assert set(seen) == {(True, True), (False, True)}
