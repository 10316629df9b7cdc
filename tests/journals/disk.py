"""A disk in memory that fails or stops at the n-th call, and forgets what it may.

Exhaustive where the simulation's disk is random: each call of a run is made to fail,
and each kind of crash is tried behind it. To unsynced bytes it does what
`coordinator.journals.segments.files` allows, and what real kernels do beside that: a
failed sync marks the changed sectors clean, so that a second one succeeds without them.
"""

import errno
import os
from collections.abc import Callable, Sequence
from enum import Enum, auto

from coordinator.errors import JournalLockedError

__all__ = [
    "Data",
    "Disk",
    "MemoryFile",
    "MemoryFolder",
    "Names",
    "PowerCut",
    "cut_at",
    "fail_at",
    "no_space",
]

SECTOR = 512


class PowerCut(BaseException):
    """The machine stopped. Not an Exception: nobody may handle it."""


class Data(Enum):
    """What becomes of bytes that were not synced."""

    NONE = auto()
    ALL = auto()
    FIRST_HALF = auto()
    EVEN_SECTORS = auto()
    ODD_SECTORS = auto()


class Names(Enum):
    """What becomes of names that were not synced."""

    NONE = auto()
    ALL = auto()
    LAST = auto()
    """Only the last change."""


Fault = Callable[[int, str], None]
"""Is called before each call with its number and name; may raise."""


def fail_at(number: int, code: int, *, for_ever: bool = False) -> Fault:
    """Return a fault: the call of that number fails (and all after it) with *code*."""

    def fault(call: int, _: str) -> None:
        if call == number or (for_ever and call > number):
            raise OSError(code, os.strerror(code))

    return fault


def cut_at(number: int) -> Fault:
    """Return a fault: the machine stops before the call of that number."""

    def fault(call: int, _: str) -> None:
        if call >= number:
            raise PowerCut

    return fault


def no_space(_: int, name: str) -> None:
    """Be a fault: nothing can be made larger."""
    if name in ("create", "allocate"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def healthy(_call: int, _name: str) -> None:
    """Be no fault."""


class _Content:
    """A file's bytes: as read, and as they are on the platter."""

    def __init__(self) -> None:
        self.cache = bytearray()
        self.platter = bytearray()
        self.dirty: set[int] = set()
        """Sectors that the next sync has to write."""

    def write(self, offset: int, data: bytes) -> None:
        if len(self.cache) < offset:
            self.cache.extend(bytes(offset - len(self.cache)))
        self.cache[offset : offset + len(data)] = data
        self.dirty.update(range(offset // SECTOR, -(-(offset + len(data)) // SECTOR)))

    def resize(self, size: int) -> None:
        del self.cache[size:]
        self.cache.extend(bytes(size - len(self.cache)))

    def sync(self) -> None:
        self.settle(sorted(self.dirty))

    def settle(self, sectors: Sequence[int]) -> None:
        """Put *sectors* on the platter, with the size; the others stay as they are."""
        size = len(self.cache)
        del self.platter[size:]
        self.platter.extend(bytes(size - len(self.platter)))
        for sector in sectors:
            start = sector * SECTOR
            self.platter[start : start + SECTOR] = self.cache[start : start + SECTOR]
        self.dirty.clear()

    def cut(self, data: Data) -> None:
        dirty = sorted(self.dirty)
        match data:
            case Data.NONE:
                self.dirty.clear()
            case Data.ALL:
                self.settle(dirty)
            case Data.FIRST_HALF:
                self.settle(dirty[: (len(dirty) + 1) // 2])
            case Data.EVEN_SECTORS:
                self.settle([s for s in dirty if s % 2 == 0])
            case Data.ODD_SECTORS:
                self.settle([s for s in dirty if s % 2])
        self.cache[:] = self.platter


class Disk:
    """What outlives a process: folders, files, and which calls will fail."""

    def __init__(self) -> None:
        self.fault: Fault = healthy
        self.calls = 0
        self.log: list[str] = []
        self.space = 1 << 40
        self.locks: dict[str, str] = {}
        """Who holds them; a test that takes one away removes the lock's file."""
        self._folders: dict[str, MemoryFolder] = {}

    def folder(self, path: str = "/journal") -> "MemoryFolder":
        """Return the folder at *path*, made if it is missing."""
        if path not in self._folders:
            self._folders[path] = MemoryFolder(self, path)
        return self._folders[path]

    def call(self, name: str) -> None:
        """Count a call, and fail if it is planned so."""
        number = self.calls
        self.calls += 1
        self.log.append(name)
        self.fault(number, name)

    def has(self, content: _Content) -> bool:
        """Tell whether a file of *content* has a name."""
        return any(content in f.contents() for f in self._folders.values())

    def kill(self) -> None:
        """End the process: locks go, the cache stays, nothing fails any more."""
        self.locks.clear()
        self.fault = healthy

    def cut_power(self, data: Data, names: Names) -> None:
        """Stop the machine, and start it again."""
        self.kill()
        contents: set[_Content] = set()
        for folder in self._folders.values():
            contents.update(folder.cut(names))
        for content in contents:
            content.cut(data)


class MemoryFile:
    """See `files.File`."""

    def __init__(self, disk: Disk, content: _Content) -> None:
        self.disk = disk
        self._content = content

    def read(self, offset: int, size: int) -> bytes:
        self.disk.call("read")
        return bytes(self._content.cache[offset : offset + size])

    def write(self, offset: int, data: bytes) -> None:
        try:
            self.disk.call("write")
        except BaseException:
            # Half of it is in the cache, as when a signal or a full disk cuts it short.
            self._content.write(offset, data[: len(data) // 2])
            raise
        self._content.write(offset, data)

    def sync(self) -> None:
        try:
            self.disk.call("sync")
        except OSError:
            self._content.settle(sorted(self._content.dirty)[::2])
            raise
        self._content.sync()

    def allocate(self, size: int) -> None:
        self.disk.call("allocate")
        more = size - len(self._content.cache)
        if more > self.disk.space:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if more > 0:
            self._content.resize(size)

    def truncate(self, size: int) -> None:
        self.disk.call("truncate")
        self._content.resize(size)

    def size(self) -> int:
        self.disk.call("size")
        return len(self._content.cache)

    def linked(self) -> bool:
        return self.disk.has(self._content)

    def close(self) -> None:
        pass


class _Lock:
    def __init__(self, disk: Disk, path: str, owner: str) -> None:
        self.disk = disk
        self._path = path
        self._owner = owner

    def held(self) -> bool:
        return self.disk.locks.get(self._path) is self._owner

    def release(self) -> None:
        if self.held():
            del self.disk.locks[self._path]


class MemoryFolder:
    """See `files.Folder`."""

    def __init__(self, disk: Disk, path: str) -> None:
        self.disk = disk
        self._path = path
        self._names: dict[str, _Content] = {}
        self._folders: set[str] = set()
        """Made durably: the port asks for that."""
        self._synced: dict[str, _Content] = {}
        self._before_last: dict[str, _Content] = {}

    @property
    def path(self) -> str:
        return self._path

    def names(self) -> Sequence[str]:
        self.disk.call("names")
        return sorted({*self._names, *self._folders})

    def open(self, name: str, *, writable: bool = False) -> MemoryFile:
        self.disk.call("open")
        if name not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return MemoryFile(self.disk, self._names[name])

    def create(self, name: str) -> MemoryFile:
        self.disk.call("create")
        self._change()
        self._names[name] = content = _Content()
        return MemoryFile(self.disk, content)

    def rename(self, old: str, new: str) -> None:
        self.disk.call("rename")
        self._change()
        self._names[new] = self._names.pop(old)

    def move(self, name: str, target: object) -> None:
        self.disk.call("move")
        assert isinstance(target, MemoryFolder)
        self._change()
        target._change()
        target._names[name] = self._names.pop(name)

    def remove(self, name: str) -> None:
        self.disk.call("remove")
        self._change()
        self._names.pop(name, None)

    def sync(self) -> None:
        self.disk.call("sync names")
        self._synced = dict(self._names)

    def folder(self, name: str) -> "MemoryFolder":
        self.disk.call("folder")
        if name not in self._folders:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self.disk.folder(f"{self._path}/{name}")

    def make_folder(self, name: str) -> "MemoryFolder":
        self.disk.call("make folder")
        self._folders.add(name)
        return self.disk.folder(f"{self._path}/{name}")

    def remove_folder(self, name: str) -> None:
        """Do what no journal does."""
        self._folders.remove(name)

    def lock(self, name: str, owner: str) -> _Lock:
        self.disk.call("lock")
        path = f"{self._path}/{name}"
        if path in self.disk.locks:
            raise JournalLockedError(self._path, self.disk.locks[path])
        owner = str(bytearray(owner, "utf-8"), "utf-8")  # one of its own
        self.disk.locks[path] = owner
        return _Lock(self.disk, path, owner)

    def free(self) -> int:
        self.disk.call("free")
        return self.disk.space

    def contents(self) -> list[_Content]:
        """Return its files."""
        return list(self._names.values())

    def bytes_of(self, name: str) -> bytearray:
        """Return a file's bytes, to be changed in place by who plays the damage."""
        return self._names[name].cache

    def copy_of(self) -> dict[str, bytes]:
        """Return all files' bytes."""
        return {name: bytes(content.cache) for name, content in self._names.items()}

    def put_back(self, files: dict[str, bytes]) -> None:
        """Hold exactly *files*, durably."""
        self._names = {name: _Content() for name in files}
        for name, data in files.items():
            self._names[name].write(0, data)
            self._names[name].sync()
        self._synced = dict(self._names)
        self._before_last = dict(self._names)

    def cut(self, names: Names) -> list[_Content]:
        """Decide which names survive, and return their files."""
        match names:
            case Names.NONE:
                self._names = dict(self._synced)
            case Names.ALL:
                pass
            case Names.LAST:
                survived = dict(self._synced)
                for name in self._before_last.keys() | self._names.keys():
                    now = self._names.get(name)
                    if now is not self._before_last.get(name):
                        survived.pop(name, None)
                        if now is not None:
                            survived[name] = now
                self._names = survived
        self._synced = dict(self._names)
        self._before_last = dict(self._names)
        return list(self._names.values())

    def _change(self) -> None:
        self._before_last = dict(self._names)
