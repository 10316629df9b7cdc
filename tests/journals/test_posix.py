"""The real file system: links, locks, short writes, and a disk that is really full."""

import errno
import fcntl
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.journals.parts import append, batches_of, make_store, open_store
from tests.small_disk import mounted

from coordinator.errors import JournalFullError, JournalLockedError
from coordinator.journals.segments.posix import PosixFolder
from coordinator.journals.segments.store import StoreOptions

HOLD = """
import sys
from coordinator.journals.segments.posix import PosixFolder
lock = PosixFolder(sys.argv[1]).lock("LOCK", "pid 4711 on host a")
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(tmp_path: Path) -> PosixFolder:
    return PosixFolder.make(str(tmp_path / "journal"))


def test_a_folder_is_made_for_us_alone(tmp_path: Path) -> None:
    folder = PosixFolder.make(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700
    assert PosixFolder.make(folder.path).names() == []
    folder.make_folder("p0").create("x").close()
    assert (tmp_path / "a" / "b" / "p0").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "a" / "b" / "p0" / "x").stat().st_mode & 0o777 == 0o600
    assert folder.folder("p0").names() == ["x"]


def test_the_name_of_a_new_folder_is_made_durable(
    folder: PosixFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def noted(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", noted)
    folder.make_folder("p0")
    assert synced == [folder.path]
    # Also if it is there: who made it may have been killed before that.
    folder.make_folder("p0")
    assert synced == [folder.path] * 2


def test_every_level_that_was_made_is_durable_also_if_another_process_made_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []

    def noted(descriptor: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))

    monkeypatch.setattr(os, "fsync", noted)
    for _ in range(2):
        synced.clear()
        PosixFolder.make(f"{tmp_path}/var/lib/orders")
        wanted = [f"{tmp_path}/var/lib", f"{tmp_path}/var", str(tmp_path)]
        assert synced[:3] == wanted
    assert (tmp_path / "var" / "lib" / "orders").stat().st_mode & 0o777 == 0o700


def test_a_parent_that_may_not_be_read_or_is_of_another_disk_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "closed" / "orders").mkdir(parents=True)
    really = PosixFolder.__init__

    def closed(self: PosixFolder, path: str, *, within: int | None = None) -> None:
        if path.endswith("/closed"):
            self._descriptor = -1
            raise PermissionError(errno.EACCES, "Permission denied", path)
        really(self, path, within=within)

    monkeypatch.setattr(PosixFolder, "__init__", closed)
    assert PosixFolder.make(f"{tmp_path}/closed/orders").names() == []
    PosixFolder.make("/proc/self")  # neither its parent nor the root above is synced

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        PosixFolder.make(f"{tmp_path}/orders")


def test_a_folder_may_be_named_from_where_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert PosixFolder.make("orders").names() == []
    assert (tmp_path / "orders").is_dir()


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        PosixFolder(str(tmp_path / "missing"))


def test_what_is_written_is_read(folder: PosixFolder) -> None:
    file = folder.create("a")
    file.write(0, b"hello")
    file.write(10, b"there")
    assert file.size() == 15
    assert file.read(0, 5) == b"hello"
    assert file.read(3, 100) == b"lo" + bytes(5) + b"there"
    assert file.read(15, 1) == b""
    file.truncate(4)
    file.sync()
    file.close()
    file.close()
    file = folder.open("a")
    assert file.read(0, 100) == b"hell"
    with pytest.raises(OSError, match="Bad file"):
        file.write(0, b"read only")
    file.close()
    assert folder.create("a").size() == 0


def test_names_are_changed_and_listed_in_order(folder: PosixFolder) -> None:
    for name in ("c", "a", "b"):
        folder.create(name).close()
    folder.rename("c", "a")
    folder.remove("b")
    folder.remove("b")
    other = folder.make_folder("other")
    folder.move("a", other)
    folder.sync()
    assert folder.names() == ["other"]
    assert other.names() == ["a"]
    assert other.path == f"{folder.path}/other"
    assert folder.device() == other.device()
    assert folder.free() > 0


def test_links_are_not_followed(folder: PosixFolder, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"secret")
    (tmp_path / "folder").mkdir()
    path = Path(folder.path)
    (path / "file").symlink_to(tmp_path / "elsewhere")
    (path / "p0").symlink_to(tmp_path / "folder")
    for call in (
        lambda: folder.open("file"),
        lambda: folder.create("file"),
        lambda: folder.lock("file", "x"),
        lambda: folder.folder("p0"),
    ):
        with pytest.raises(OSError, match=r"symbolic|Not a directory"):
            call()
    assert (tmp_path / "elsewhere").read_bytes() == b"secret"


def test_descriptors_are_not_inherited_by_what_is_executed(folder: PosixFolder) -> None:
    file = folder.create("a")
    assert not os.get_inheritable(file._descriptor)
    assert not os.get_inheritable(folder._descriptor)


def test_a_folder_closes_its_descriptor_when_nobody_refers_to_it(
    folder: PosixFolder,
) -> None:
    descriptor = PosixFolder(folder.path)._descriptor
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(descriptor)


def test_allocated_space_reads_as_zeros_and_is_taken(folder: PosixFolder) -> None:
    file = folder.create("a")
    file.write(0, b"kept")
    file.allocate(3_000_000)
    assert file.read(0, 4_000_000) == b"kept" + bytes(2_999_996)
    assert os.fstat(file._descriptor).st_blocks * 512 >= 3_000_000
    file.allocate(10)
    assert file.size() == 3_000_000


def test_space_is_taken_by_zeros_where_it_cannot_be_allocated(
    folder: PosixFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_supported(_fd: int, _offset: int, _size: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "not here")

    monkeypatch.setattr(os, "posix_fallocate", not_supported)
    file = folder.create("a")
    file.write(0, b"kept")
    file.allocate(3_000_001)
    assert file.read(0, 4_000_000) == b"kept" + bytes(2_999_997)
    file.sync()
    assert os.fstat(file._descriptor).st_blocks * 512 >= 3_000_000


def test_short_writes_and_reads_are_gone_on_with(
    folder: PosixFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, read = os.pwrite, os.pread

    def seven(descriptor: int, data: bytes, offset: int) -> int:
        return write(descriptor, data[:7], offset)

    def five(descriptor: int, size: int, offset: int) -> bytes:
        return read(descriptor, min(size, 5), offset)

    monkeypatch.setattr(os, "pwrite", seven)
    monkeypatch.setattr(os, "pread", five)
    file = folder.create("a")
    data = bytes(range(100))
    file.write(3, data)
    assert file.read(3, 100) == data
    assert file.read(3, 200) == data
    assert file.read(50, 10) == data[47:57]


def test_a_second_handle_of_the_same_process_is_locked_out(folder: PosixFolder) -> None:
    lock = folder.lock("LOCK", "the first")
    with pytest.raises(JournalLockedError, match="the first"):
        PosixFolder(folder.path).lock("LOCK", "the second")
    lock.release()
    lock.release()
    folder.lock("LOCK", "the third").release()


def test_a_holder_without_a_name_is_still_a_holder(folder: PosixFolder) -> None:
    lock = folder.lock("LOCK", "")
    with pytest.raises(JournalLockedError, match="has not written a name"):
        folder.lock("LOCK", "x")
    lock.release()


def test_a_file_that_cannot_be_locked_is_closed(
    folder: PosixFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_fd: int, _how: int) -> None:
        raise OSError(errno.ENOLCK, "no locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(OSError, match="no locks"):
        folder.lock("LOCK", "x")
    # Not their number: something of an earlier test may be closed meanwhile.
    assert f"{folder.path}/LOCK" not in _open_files()


def _open_files() -> set[str]:
    """Return the paths of all files that this process has open."""
    found: set[str] = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # what lists them is closed by now
            found.add(str(descriptor.readlink()))
    return found


def test_another_process_is_named_and_its_lock_goes_when_it_is_killed(
    folder: PosixFolder,
) -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, folder.path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": "src"},
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(JournalLockedError, match="in use by pid 4711 on host a"):
            folder.lock("LOCK", "us")
        other.kill()
    folder.lock("LOCK", "us").release()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[PosixFolder]:
    """Mount a file system of 256 KiB."""
    point = tmp_path / "small"
    point.mkdir()
    with mounted(point, "256k"):
        yield PosixFolder.make(str(point / "p0"))


def test_a_disk_that_is_really_full_is_told_survived_and_recovered_from(
    small_disk: PosixFolder,
) -> None:
    options = StoreOptions(segment_size=65536)
    store = open_store(small_disk, options)
    hog = PosixFolder.make(f"{small_disk.path}/../hog").create("hog")
    hog.allocate(180_000)
    written = [append(store, 33_000)]
    store.prepare()
    assert "65536 bytes are needed" in store.full
    written.append(append(store, 25_000))
    with pytest.raises(JournalFullError):
        append(store, 30_000)
    with pytest.raises(JournalFullError):
        store.save_checkpoint(0, bytes(100_000))
    # A process that starts while it is full goes on in what it had.
    store.close()
    store = open_store(small_disk, options)
    assert store.full
    assert batches_of(store)[1:3] == written
    hog.truncate(0)
    store.prepare()
    assert not store.full
    written.append(append(store, 30_000))
    store.close()
    store = open_store(small_disk, options)
    found = [batch for batch in batches_of(store) if len(batch.data) > 1000]
    assert found == written
    store.close()


def test_descriptors_that_are_used_up_are_told_survived_and_recovered_from(
    folder: PosixFolder,
) -> None:
    options = StoreOptions(segment_size=4096)
    store = open_store(folder, options)
    written = [append(store, 2500)]
    another = make_store(folder)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)  # the descriptor that the next file would have
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        store.prepare()
        assert "Too many open files" in store.full
        written.append(append(store, 500))
        with pytest.raises(JournalFullError, match="Too many open files"):
            append(store, 2000)
        with pytest.raises(JournalFullError, match="Too many open files"):
            store.save_checkpoint(0, b"")
        with pytest.raises(JournalFullError, match="Too many open files"):
            another.open("another")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    store.prepare()
    assert not store.full
    written.append(append(store, 2000))
    assert batches_of(store)[1:] == written
    store.close()


def test_space_that_is_gone_while_it_is_allocated_is_a_full_disk_too(
    small_disk: PosixFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def plenty(_: PosixFolder) -> int:
        return 1 << 40

    monkeypatch.setattr(PosixFolder, "free", plenty)
    store = open_store(small_disk, StoreOptions(segment_size=65536))
    with pytest.raises(JournalFullError, match="No space left"):
        append(store, 400_000)
    assert "next.tmp" not in small_disk.names()
    append(store, 100)
    store.close()
