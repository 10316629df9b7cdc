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
from collections import Counter
from dataclasses import dataclass
from typing import TypeVar

from tests.simulation.contents import (
    SECTOR,
    Change,
    Directory,
    Inode,
    NameChange,
    Resize,
    Write,
    blocks,
)

from coordinator.errors import JournalLockedError

__all__ = ["Disk", "DiskFaults"]

T = TypeVar("T")


@dataclass
class DiskFaults:
    """How likely what goes wrong is, per operation (or per crash); zero when healed."""

    write_eio: float = 0.0
    sync_eio: float = 0.0
    allocate_eio: float = 0.0
    names_eio: float = 0.0
    """Of create, rename, move, remove, and the sync of a folder."""
    no_space: float = 0.0
    """Of what takes space: others on the machine were faster."""
    short: float = 0.0
    """Of writes to space that was taken before: a part is written, and then there is
    no space, as where a file system writes nothing in its place."""
    power: float = 1.0
    """Share of crashes that cut the power; the others only kill the process."""
    survival: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)
    """Weights of: nothing unsynced survives, everything, a torn prefix, any part."""
    zero_tail: float = 0.3
    """Chance that a file's unsynced size survives where its bytes don't."""

    def heal(self) -> None:
        """Let nothing go wrong from here on."""
        self.write_eio = self.sync_eio = self.names_eio = self.allocate_eio = 0.0
        self.no_space = self.short = 0.0


class Disk:
    """What outlives every process; the lives open its `root`, see `handles`."""

    def __init__(
        self,
        chance: random.Random,
        faults: DiskFaults | None = None,
        *,
        capacity: int = 1 << 30,
        counts: Counter[str] | None = None,
    ) -> None:
        self.capacity = capacity
        """Bytes; others may take of it at any time."""
        self.faults = faults or DiskFaults(power=1.0)
        self.counts: Counter[str] = Counter() if counts is None else counts
        """Of faults, by sort."""
        self._chance = chance
        self.root = Directory("/simulated")
        """Its contents, for the handles of a life."""
        self._locks: dict[tuple[str, str], str] = {}

    def copy(self) -> "Disk":
        """Return what a reader would see now, on a disk without faults."""
        other = Disk(random.Random(0), DiskFaults(), capacity=self.capacity + (1 << 30))
        _copy_names(self.root, other.root)
        return other

    def free(self) -> int:
        """Return the bytes that no file holds."""
        held = {
            id(inode): inode.taken
            for directory in self.root.walk()
            for inode in directory.names.values()
        }
        return max(0, self.capacity - sum(held.values()))

    def crash(self) -> str:
        """Let go of all locks, and of what the seed says; return what happened."""
        self._locks.clear()
        if self._chance.random() < self.faults.power:
            self.counts["power cut"] += 1
            self._cut_power()
            return "power cut"
        self.counts["kill"] += 1
        self._drop_clean_pages()
        return "kill"

    def _drop_clean_pages(self) -> None:
        for inode in self._inodes():
            if self._chance.random() < 0.5:
                continue
            # Only a failed sync makes a difference: its pages were clean, and lost.
            seen = Inode(platter=bytearray(inode.platter), changes=inode.changes[:])
            seen.flush()
            inode.cache = seen.platter

    def _cut_power(self) -> None:
        names: list[NameChange] = []
        for directory in self.root.walk():
            names += [one for one in directory.changes if one not in names]
        inodes = self._inodes()
        kept = set(self._draw_survivors(names))
        for directory in self.root.walk():
            for change in directory.changes:
                if change in kept:
                    directory.apply(change)
            directory.changes.clear()
            directory.names = dict(directory.platter)
        for inode in inodes:
            self._lose_changes(inode)

    def _inodes(self) -> list[Inode]:
        """Return every inode that has or may get a name, in a repeatable order."""
        found: dict[int, Inode] = {}
        for directory in self.root.walk():
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

    def _lose_changes(self, inode: Inode) -> None:
        changes = inode.changes
        if changes:
            chance = self._chance
            match self._draw_mode():
                case 0:
                    pass
                case 1:
                    inode.flush()
                case 2:
                    self.counts["torn write"] += 1
                    whole = chance.randrange(len(changes) + 1)
                    for change in changes[:whole]:
                        inode.apply(change)
                    if whole < len(changes):
                        self._apply_torn(inode, changes[whole])
                case _:
                    self.counts["reordered writes"] += 1
                    self._apply_scattered(inode, changes)
            size = len(inode.cache)
            if len(inode.platter) < size and chance.random() < self.faults.zero_tail:
                self.counts["zero tail"] += 1
                inode.apply(Resize(size, cut=False))
            changes.clear()
        inode.cache = bytearray(inode.platter)
        inode.taken = max(blocks(len(inode.cache)), 0)

    def _apply_torn(self, inode: Inode, change: Change) -> None:
        if isinstance(change, Resize):
            return
        size = self._chance.randrange(len(change.data) + 1)
        if self._chance.random() < 0.7:
            size -= size % SECTOR
        # What lies behind the tear keeps what was there: `apply` only puts our part.
        inode.apply(Write(change.start, change.data[:size]))

    def _apply_scattered(self, inode: Inode, changes: list[Change]) -> None:
        share = self._chance.random()
        for change in changes:
            if isinstance(change, Resize):
                if self._chance.random() < share:
                    inode.apply(change)
                continue
            for offset in range(0, len(change.data), SECTOR):
                if self._chance.random() < share:
                    sector = change.data[offset : offset + SECTOR]
                    inode.apply(Write(change.start + offset, sector))

    # What the files and folders need of it.

    def draw(self, probability: float, what: str) -> bool:
        """Return whether *what* happens now, which is so *probable*."""
        happens = probability > 0 and self._chance.random() < probability
        if happens:
            self.counts[what] += 1
        return happens

    def fail_sync(self, inode: Inode) -> None:
        """Lose a part of the changes, and mark all of them clean."""
        self._apply_scattered(inode, inode.changes)
        inode.changes.clear()

    def fail_names_sync(self, directory: Directory) -> None:
        """Put some of the changes on the platter; the others stay unsynced.

        Names don't lie as bytes do: they are in the file system's own journal, and one
        that fails to write that stops altogether.
        """
        for change in self._draw_survivors(directory.changes):
            directory.apply(change)

    def draw_part(self, size: int) -> int:
        """Return how much of *size* was done before it failed."""
        return self._chance.randint(0, size)

    def reserve(self, inode: Inode, size: int) -> None:
        """Take the blocks for *size* bytes.

        Raises:
            OSError: There are not enough.
        """
        more = blocks(size) - inode.taken
        if more > 0:
            if more > self.free() or self.draw(self.faults.no_space, "no space"):
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


def _copy_names(source: Directory, target: Directory) -> None:
    for name, inode in source.names.items():
        content = bytearray(inode.cache)
        copy = Inode(cache=content, platter=bytearray(content), taken=inode.taken)
        target.names[name] = target.platter[name] = copy
    for name, folder in source.folders.items():
        target.folders[name] = Directory(f"{target.path}/{name}")
        _copy_names(folder, target.folders[name])
