"""The file system's port on a simulated disk, as one life holds it.

Every operation asks first whether the life goes on, and tells an observer before and
after: where a crash may be planned. What is done to the disk is done here; what becomes
of it in a crash is `disk`'s.
"""

import errno
import os
from collections.abc import Callable
from typing import Protocol, TypeVar

from tests.simulation.contents import (
    SECTOR,
    Directory,
    Inode,
    NameChange,
    Resize,
    Write,
    blocks,
)
from tests.simulation.disk import Disk

from coordinator.journals.segments.files import Folder
from coordinator.testing.loop import Life

__all__ = ["SimulatedFile", "SimulatedFolder", "open_root"]

T = TypeVar("T")


class Observer(Protocol):
    """Hears of each operation, around it: where a crash may be planned."""

    def __call__(self, what: str, *, after: bool) -> None:
        """Raises: DeadError: The life ends here."""
        ...


def open_root(
    disk: Disk, life: Life, observer: Observer | None = None
) -> "SimulatedFolder":
    """Open the root of *disk* in *life*."""
    return SimulatedFolder(disk, disk.root, life, observer)


class SimulatedLock:
    """A held lock of one life."""

    def __init__(self, disk: Disk, key: tuple[str, str], life: Life) -> None:
        self._disk = disk
        self._key = key
        self._life = life
        self._held = True

    def held(self) -> bool:
        """See `FileLock`. Nobody removes its file here."""
        self._life.check()
        return self._held

    def release(self) -> None:
        """See `FileLock`."""
        if self._held and self._life.alive:
            self._disk.unlock(self._key)
        self._held = False


class _Operations:
    """What files and folders share: every operation passes `_do`."""

    def __init__(self, disk: Disk, life: Life, observer: Observer | None) -> None:
        self._disk = disk
        self._life = life
        self._observer = observer

    def _do(self, what: str, action: Callable[[], T]) -> T:
        self._life.check()
        observer = self._observer
        if observer is None:
            return action()
        observer(what, after=False)
        self._life.check()
        try:
            result = action()
        except OSError as error:
            observer(f"{what}: {errno.errorcode[error.errno or 0]}", after=True)
            self._life.check()
            raise
        observer(what, after=True)
        self._life.check()
        return result

    def _maybe_fail_names(self) -> None:
        if self._disk.draw(self._disk.faults.names_eio, "EIO of a name"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class SimulatedFile(_Operations):
    """An open file of one life; see `coordinator.journals.segments.files.File`."""

    def __init__(
        self, folder: "SimulatedFolder", name: str, inode: Inode, *, writable: bool
    ) -> None:
        super().__init__(folder._disk, folder._life, folder._observer)
        self._label = f"{folder.path}/{name}"
        self._inode = inode
        self._writable = writable
        self._open = True

    def read(self, offset: int, size: int) -> bytes:
        return self._do(
            f"read {self._label} {offset}+{size}", lambda: self._read(offset, size)
        )

    def write(self, offset: int, data: bytes) -> None:
        self._do(
            f"write {self._label} {offset}+{len(data)}",
            lambda: self._write(offset, data),
        )

    def sync(self) -> None:
        self._do(f"sync {self._label}", self._sync)

    def allocate(self, size: int) -> None:
        self._do(f"allocate {self._label} {size}", lambda: self._allocate(size))

    def truncate(self, size: int) -> None:
        self._do(f"truncate {self._label} {size}", lambda: self._truncate(size))

    def size(self) -> int:
        self._life.check()
        self._check_open()
        return len(self._inode.cache)

    def linked(self) -> bool:
        self._life.check()
        directories = self._disk.root.walk()
        return any(self._inode in d.names.values() for d in directories)

    def close(self) -> None:
        self._open = False

    def _read(self, offset: int, size: int) -> bytes:
        self._check_open()
        return bytes(self._inode.cache[offset : offset + size])

    def _write(self, offset: int, data: bytes) -> None:
        self._check_open(writing=True)
        faults = self._disk.faults
        for fault, what, number in (
            (faults.write_eio, "EIO of a write", errno.EIO),
            (faults.short, "short write", errno.ENOSPC),
        ):
            if self._disk.draw(fault, what):
                self._put(offset, data[: self._disk.draw_part(len(data))])
                raise OSError(number, os.strerror(number))
        self._put(offset, data)

    def _put(self, offset: int, data: bytes) -> None:
        if not data:
            return
        inode = self._inode
        cache = inode.cache
        end = offset + len(data)
        self._disk.reserve(inode, max(end, len(cache)))
        if len(cache) < offset:
            cache.extend(bytes(offset - len(cache)))
        cache[offset:end] = data
        start = offset - offset % SECTOR
        stop = min(end + -end % SECTOR, len(cache))
        inode.changes.append(Write(start, bytes(cache[start:stop])))

    def _sync(self) -> None:
        self._check_open()
        if self._disk.draw(self._disk.faults.sync_eio, "EIO of a sync"):
            self._disk.fail_sync(self._inode)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._inode.flush()

    def _allocate(self, size: int) -> None:
        self._check_open(writing=True)
        if self._disk.draw(self._disk.faults.allocate_eio, "EIO of an allocation"):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        inode = self._inode
        self._disk.reserve(inode, size)
        if len(inode.cache) < size:
            inode.cache.extend(bytes(size - len(inode.cache)))
            inode.changes.append(Resize(size, cut=False))

    def _truncate(self, size: int) -> None:
        self._check_open(writing=True)
        inode = self._inode
        if size < len(inode.cache):
            del inode.cache[size:]
            inode.taken = blocks(size)
            inode.changes.append(Resize(size, cut=True))
        elif size > len(inode.cache):
            inode.cache.extend(bytes(size - len(inode.cache)))
            inode.changes.append(Resize(size, cut=False))

    def _check_open(self, *, writing: bool = False) -> None:
        if not self._open or (writing and not self._writable):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class SimulatedFolder(_Operations):
    """A folder of one life; see `coordinator.journals.segments.files.Folder`."""

    def __init__(
        self, disk: Disk, directory: Directory, life: Life, observer: Observer | None
    ) -> None:
        super().__init__(disk, life, observer)
        self._directory = directory

    @property
    def path(self) -> str:
        return self._directory.path

    def names(self) -> list[str]:
        self._life.check()
        return sorted([*self._directory.names, *self._directory.folders])

    def open(self, name: str, *, writable: bool = False) -> SimulatedFile:
        self._life.check()
        return SimulatedFile(self, name, self._find(name), writable=writable)

    def create(self, name: str) -> SimulatedFile:
        return self._do(f"create {self.path}/{name}", lambda: self._create(name))

    def rename(self, old: str, new: str) -> None:
        self._do(f"rename {self.path}/{old} {new}", lambda: self._move(old, self, new))

    def move(self, name: str, target: Folder) -> None:
        assert isinstance(target, SimulatedFolder)
        self._do(
            f"move {self.path}/{name} {target.path}",
            lambda: self._move(name, target, name),
        )

    def remove(self, name: str) -> None:
        self._do(f"remove {self.path}/{name}", lambda: self._remove(name))

    def sync(self) -> None:
        self._do(f"sync {self.path}", self._sync)

    def folder(self, name: str) -> "SimulatedFolder":
        self._life.check()
        directory = self._directory.folders.get(name)
        if directory is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return SimulatedFolder(self._disk, directory, self._life, self._observer)

    def make_folder(self, name: str) -> "SimulatedFolder":
        return self._do(f"folder {self.path}/{name}", lambda: self._make_folder(name))

    def lock(self, name: str, owner: str) -> SimulatedLock:
        return self._do(f"lock {self.path}/{name}", lambda: self._lock(name, owner))

    def free(self) -> int:
        self._life.check()
        return self._disk.free()

    def _find(self, name: str) -> Inode:
        inode = self._directory.names.get(name)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return inode

    def _create(self, name: str) -> SimulatedFile:
        self._maybe_fail_names()
        directory = self._directory
        inode = directory.names.get(name)
        if inode is None:
            inode = Inode()
            directory.names[name] = inode
            change = NameChange(removed=None, added=(directory, name, inode))
            directory.changes.append(change)
        file = SimulatedFile(self, name, inode, writable=True)
        if inode.cache:
            file._truncate(0)
        return file

    def _move(self, old: str, target: "SimulatedFolder", new: str) -> None:
        self._maybe_fail_names()
        inode = self._find(old)
        source, goal = self._directory, target._directory
        change = NameChange(removed=(source, old), added=(goal, new, inode))
        del source.names[old]
        goal.names[new] = inode
        source.changes.append(change)
        if goal is not source:
            goal.changes.append(change)

    def _remove(self, name: str) -> None:
        self._maybe_fail_names()
        directory = self._directory
        if directory.names.pop(name, None) is not None:
            directory.changes.append(NameChange(removed=(directory, name), added=None))

    def _sync(self) -> None:
        if self._disk.draw(self._disk.faults.names_eio, "EIO of a name"):
            self._disk.fail_names_sync(self._directory)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._directory.flush()

    def _make_folder(self, name: str) -> "SimulatedFolder":
        directory = self._directory.folders.get(name)
        if directory is None:
            directory = Directory(f"{self.path}/{name}")
            self._directory.folders[name] = directory
            self._directory.flush()
        return SimulatedFolder(self._disk, directory, self._life, self._observer)

    def _lock(self, name: str, owner: str) -> SimulatedLock:
        key = (self.path, name)
        self._disk.lock(key, owner)
        if name not in self._directory.names:
            inode = Inode()
            self._directory.names[name] = inode
            change = NameChange(removed=None, added=(self._directory, name, inode))
            self._directory.changes.append(change)
        return SimulatedLock(self._disk, key, self._life)
