"""A disk that keeps what it must, and of the rest what a seed says.

Every file has two contents: what a reader sees (the page cache) and what is on the
platter; the difference is a list of changes that were not synced. So has every folder,
for its names. `Disk.crash` decides what becomes of the changes:

* The process was killed: the cache survives, unsynced and visible. What the next life
  reads there may still be lost to the power cut after it.
* The power was cut: of the changes none survive, or all, or the first few with one torn
  in the middle, or any of them in any order, sector by sector; and the file may end in
  zeros where its size was written and its bytes were not. Names likewise, except that a
  rename is never seen half done.

`sync` may fail. Then some of the changes are on the platter, all are marked clean, and
readers still see them: a second sync succeeds without them (ATC'20, "Can applications
recover from fsync failures?"). After a kill the cache may have been dropped.

Offsets are bytes. A sector is written whole or not at all, except in a torn change,
which now and then ends in mid-sector: the cache may be flushed in mid-write.
"""

import errno
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from tests.simulation.loop import Life

from coordinator.errors import JournalLockedError
from coordinator.journals.segments.files import Folder

__all__ = [
    "BLOCK",
    "SECTOR",
    "Disk",
    "DiskFaults",
    "SimulatedFile",
    "SimulatedFolder",
]

T = TypeVar("T")

SECTOR = 512
BLOCK = 4096
"""Bytes in which space is taken."""

assert BLOCK % SECTOR == 0


@dataclass
class DiskFaults:
    """How likely what goes wrong is, per operation (or per crash); zero when healed."""

    write_eio: float = 0.0
    sync_eio: float = 0.0
    names_eio: float = 0.0
    """Of create, rename, move, remove, and the sync of a folder."""
    no_space: float = 0.0
    """Of what takes space: others on the machine were faster."""
    power: float = 1.0
    """Share of crashes that cut the power; the others only kill the process."""
    survival: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    """Weights of: nothing unsynced survives, everything, a torn prefix, any part."""
    zero_tail: float = 0.3
    """Chance that a file's unsynced size survives where its bytes don't."""

    def heal(self) -> None:
        """Let nothing go wrong from here on."""
        self.write_eio = self.sync_eio = self.names_eio = self.no_space = 0.0


class Observer(Protocol):
    """Hears of each operation, around it: where a crash may be planned."""

    def __call__(self, what: str, *, after: bool) -> None:
        """Raises: DeadError: The life ends here."""
        ...


@dataclass(frozen=True)
class _Write:
    start: int
    """A multiple of `SECTOR`."""
    data: bytes
    """Whole sectors as they are in the cache, up to the end of the file."""


@dataclass(frozen=True)
class _Resize:
    size: int
    cut: bool


_Change = _Write | _Resize


@dataclass(eq=False)
class _Inode:
    cache: bytearray = field(default_factory=bytearray)
    platter: bytearray = field(default_factory=bytearray)
    changes: list[_Change] = field(default_factory=list[_Change])
    taken: int = 0
    """Bytes of whole blocks that it holds."""

    def apply(self, change: _Change) -> None:
        """Put *change* on the platter."""
        platter = self.platter
        match change:
            case _Write(start, data):
                if len(platter) < start:
                    platter.extend(bytes(start - len(platter)))
                platter[start : start + len(data)] = data
            case _Resize(size, cut):
                if cut:
                    del platter[size:]
                elif len(platter) < size:
                    platter.extend(bytes(size - len(platter)))

    def flush(self) -> None:
        for change in self.changes:
            self.apply(change)
        self.changes.clear()


@dataclass(eq=False)
class _NameChange:
    """One atomic change of one or two folders' names."""

    removed: tuple["_Directory", str] | None
    added: "tuple[_Directory, str, _Inode] | None"


@dataclass(eq=False)
class _Directory:
    path: str
    names: dict[str, _Inode] = field(default_factory=dict[str, _Inode])
    platter: dict[str, _Inode] = field(default_factory=dict[str, _Inode])
    changes: list[_NameChange] = field(default_factory=list[_NameChange])
    folders: dict[str, "_Directory"] = field(default_factory=dict[str, "_Directory"])
    """Never renamed or removed, and synced when made: the port knows no other way."""

    def apply(self, change: _NameChange) -> None:
        """Put our half of *change* on the platter."""
        if change.removed is not None and change.removed[0] is self:
            self.platter.pop(change.removed[1], None)
        if change.added is not None and change.added[0] is self:
            self.platter[change.added[1]] = change.added[2]

    def flush(self) -> None:
        for change in self.changes:
            self.apply(change)
        self.changes.clear()

    def walk(self) -> "Iterator[_Directory]":
        yield self
        for folder in self.folders.values():
            yield from folder.walk()


class Disk:
    """What outlives every process; the lives open `SimulatedFolder`s of it."""

    def __init__(
        self,
        chance: random.Random,
        faults: DiskFaults | None = None,
        *,
        capacity: int = 1 << 30,
    ) -> None:
        self.capacity = capacity
        """Bytes; others may take of it at any time."""
        self.faults = faults or DiskFaults(power=1.0)
        self._chance = chance
        self._root = _Directory("/simulated")
        self._locks: dict[tuple[str, str], str] = {}

    def folder(self, life: Life, observer: Observer | None = None) -> "SimulatedFolder":
        """Open the root in *life*."""
        return SimulatedFolder(self, self._root, life, observer)

    def copy(self) -> "Disk":
        """Return what a reader would see now, on a disk without faults."""
        other = Disk(random.Random(0), DiskFaults(), capacity=self.capacity + (1 << 30))
        _copy_names(self._root, other._root)
        return other

    def free(self) -> int:
        """Return the bytes that no file holds."""
        held = {
            id(inode): inode.taken
            for directory in self._root.walk()
            for inode in directory.names.values()
        }
        return max(0, self.capacity - sum(held.values()))

    def crash(self) -> str:
        """Let go of all locks, and of what the seed says; return what happened."""
        self._locks.clear()
        if self._chance.random() < self.faults.power:
            self._cut_power()
            return "power cut"
        self._drop_clean_pages()
        return "kill"

    def _drop_clean_pages(self) -> None:
        for inode in self._inodes():
            if self._chance.random() < 0.5:
                continue
            # Only a failed sync makes a difference: its pages were clean, and lost.
            seen = _Inode(platter=bytearray(inode.platter), changes=inode.changes[:])
            seen.flush()
            inode.cache = seen.platter

    def _cut_power(self) -> None:
        names: list[_NameChange] = []
        for directory in self._root.walk():
            names += [one for one in directory.changes if one not in names]
        inodes = self._inodes()
        kept = set(self._draw_survivors(names))
        for directory in self._root.walk():
            for change in directory.changes:
                if change in kept:
                    directory.apply(change)
            directory.changes.clear()
            directory.names = dict(directory.platter)
        for inode in inodes:
            self._lose_changes(inode)

    def _inodes(self) -> list[_Inode]:
        """Return every inode that has or may get a name, in a repeatable order."""
        found: dict[int, _Inode] = {}
        for directory in self._root.walk():
            for names in (directory.platter, directory.names):
                found.update((id(inode), inode) for inode in names.values())
            for change in directory.changes:
                if change.added is not None:
                    found[id(change.added[2])] = change.added[2]
        return list(found.values())

    def _draw_survivors(self, changes: list[T]) -> list[T]:
        """Return which of *changes* survive, none of them torn."""
        match self._draw_mode():
            case 0:
                return []
            case 1:
                return changes
            case 2:
                return changes[: self._chance.randint(0, len(changes))]
            case _:
                share = self._chance.random()
                return [one for one in changes if self._chance.random() < share]

    def _draw_mode(self) -> int:
        return self._chance.choices(range(4), self.faults.survival)[0]

    def _lose_changes(self, inode: _Inode) -> None:
        changes = inode.changes
        if changes:
            chance = self._chance
            match self._draw_mode():
                case 0:
                    pass
                case 1:
                    inode.flush()
                case 2:
                    whole = chance.randrange(len(changes) + 1)
                    for change in changes[:whole]:
                        inode.apply(change)
                    if whole < len(changes):
                        self._apply_torn(inode, changes[whole])
                case _:
                    self._apply_scattered(inode, changes)
            size = len(inode.cache)
            if len(inode.platter) < size and chance.random() < self.faults.zero_tail:
                inode.apply(_Resize(size, cut=False))
            changes.clear()
        inode.cache = bytearray(inode.platter)
        inode.taken = max(_blocks(len(inode.cache)), 0)

    def _apply_torn(self, inode: _Inode, change: _Change) -> None:
        if isinstance(change, _Resize):
            return
        size = self._chance.randrange(len(change.data) + 1)
        if self._chance.random() < 0.7:
            size -= size % SECTOR
        # What lies behind the tear keeps what was there: `apply` only puts our part.
        inode.apply(_Write(change.start, change.data[:size]))

    def _apply_scattered(self, inode: _Inode, changes: list[_Change]) -> None:
        share = self._chance.random()
        for change in changes:
            if isinstance(change, _Resize):
                if self._chance.random() < share:
                    inode.apply(change)
                continue
            for offset in range(0, len(change.data), SECTOR):
                if self._chance.random() < share:
                    sector = change.data[offset : offset + SECTOR]
                    inode.apply(_Write(change.start + offset, sector))

    # What the files and folders need of it.

    def draw(self, probability: float) -> bool:
        """Return whether something of this *probability* happens now."""
        return probability > 0 and self._chance.random() < probability

    def fail_sync(self, inode: _Inode) -> None:
        """Lose a part of the changes, and mark all of them clean."""
        self._apply_scattered(inode, inode.changes)
        inode.changes.clear()

    def fail_names_sync(self, directory: _Directory) -> None:
        """Put some of the changes on the platter; the others stay unsynced.

        Names don't lie as bytes do: they are in the file system's own journal, and one
        that fails to write that stops altogether.
        """
        for change in self._draw_survivors(directory.changes):
            directory.apply(change)

    def draw_part(self, size: int) -> int:
        """Return how much of *size* was done before it failed."""
        return self._chance.randint(0, size)

    def reserve(self, inode: _Inode, size: int) -> None:
        """Take the blocks for *size* bytes.

        Raises:
            OSError: There are not enough.
        """
        more = _blocks(size) - inode.taken
        if more > 0:
            if more > self.free() or self.draw(self.faults.no_space):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            inode.taken += more

    def lock(self, key: tuple[str, str], owner: str) -> None:
        """Take a lock.

        Raises:
            JournalLockedError: Somebody has it.
        """
        if key in self._locks:
            raise JournalLockedError(key[0], self._locks[key])
        self._locks[key] = owner

    def unlock(self, key: tuple[str, str]) -> None:
        self._locks.pop(key, None)


class SimulatedLock:
    """A held lock of one life."""

    def __init__(self, disk: Disk, key: tuple[str, str], life: Life) -> None:
        self._disk = disk
        self._key = key
        self._life = life
        self._held = True

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

    def _maybe_fail(self, probability: float) -> None:
        if self._disk.draw(probability):
            raise OSError(errno.EIO, os.strerror(errno.EIO))


class SimulatedFile(_Operations):
    """An open file of one life; see `coordinator.journals.segments.files.File`."""

    def __init__(
        self, folder: "SimulatedFolder", name: str, inode: _Inode, *, writable: bool
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

    def close(self) -> None:
        self._open = False

    def _read(self, offset: int, size: int) -> bytes:
        self._check_open()
        return bytes(self._inode.cache[offset : offset + size])

    def _write(self, offset: int, data: bytes) -> None:
        self._check_open(writing=True)
        if self._disk.draw(self._disk.faults.write_eio):
            self._put(offset, data[: self._disk.draw_part(len(data))])
            raise OSError(errno.EIO, os.strerror(errno.EIO))
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
        inode.changes.append(_Write(start, bytes(cache[start:stop])))

    def _sync(self) -> None:
        self._check_open()
        if self._disk.draw(self._disk.faults.sync_eio):
            self._disk.fail_sync(self._inode)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._inode.flush()

    def _allocate(self, size: int) -> None:
        self._check_open(writing=True)
        inode = self._inode
        self._disk.reserve(inode, size)
        if len(inode.cache) < size:
            inode.cache.extend(bytes(size - len(inode.cache)))
            inode.changes.append(_Resize(size, cut=False))

    def _truncate(self, size: int) -> None:
        self._check_open(writing=True)
        inode = self._inode
        if size < len(inode.cache):
            del inode.cache[size:]
            inode.taken = _blocks(size)
            inode.changes.append(_Resize(size, cut=True))
        elif size > len(inode.cache):
            inode.cache.extend(bytes(size - len(inode.cache)))
            inode.changes.append(_Resize(size, cut=False))

    def _check_open(self, *, writing: bool = False) -> None:
        if not self._open or (writing and not self._writable):
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))


class SimulatedFolder(_Operations):
    """A folder of one life; see `coordinator.journals.segments.files.Folder`."""

    def __init__(
        self, disk: Disk, directory: _Directory, life: Life, observer: Observer | None
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

    def _find(self, name: str) -> _Inode:
        inode = self._directory.names.get(name)
        if inode is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return inode

    def _create(self, name: str) -> SimulatedFile:
        self._maybe_fail(self._disk.faults.names_eio)
        directory = self._directory
        inode = directory.names.get(name)
        if inode is None:
            inode = _Inode()
            directory.names[name] = inode
            change = _NameChange(removed=None, added=(directory, name, inode))
            directory.changes.append(change)
        file = SimulatedFile(self, name, inode, writable=True)
        if inode.cache:
            file._truncate(0)
        return file

    def _move(self, old: str, target: "SimulatedFolder", new: str) -> None:
        self._maybe_fail(self._disk.faults.names_eio)
        inode = self._find(old)
        source, goal = self._directory, target._directory
        change = _NameChange(removed=(source, old), added=(goal, new, inode))
        del source.names[old]
        goal.names[new] = inode
        source.changes.append(change)
        if goal is not source:
            goal.changes.append(change)

    def _remove(self, name: str) -> None:
        self._maybe_fail(self._disk.faults.names_eio)
        directory = self._directory
        if directory.names.pop(name, None) is not None:
            directory.changes.append(_NameChange(removed=(directory, name), added=None))

    def _sync(self) -> None:
        if self._disk.draw(self._disk.faults.names_eio):
            self._disk.fail_names_sync(self._directory)
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        self._directory.flush()

    def _make_folder(self, name: str) -> "SimulatedFolder":
        directory = self._directory.folders.get(name)
        if directory is None:
            directory = _Directory(f"{self.path}/{name}")
            self._directory.folders[name] = directory
            self._directory.flush()
        return SimulatedFolder(self._disk, directory, self._life, self._observer)

    def _lock(self, name: str, owner: str) -> SimulatedLock:
        key = (self.path, name)
        self._disk.lock(key, owner)
        if name not in self._directory.names:
            inode = _Inode()
            self._directory.names[name] = inode
            change = _NameChange(removed=None, added=(self._directory, name, inode))
            self._directory.changes.append(change)
        return SimulatedLock(self._disk, key, self._life)


def _blocks(size: int) -> int:
    return size + -size % BLOCK


def _copy_names(source: _Directory, target: _Directory) -> None:
    for name, inode in source.names.items():
        content = bytearray(inode.cache)
        copy = _Inode(cache=content, platter=bytearray(content), taken=inode.taken)
        target.names[name] = target.platter[name] = copy
    for name, folder in source.folders.items():
        target.folders[name] = _Directory(f"{target.path}/{name}")
        _copy_names(folder, target.folders[name])
