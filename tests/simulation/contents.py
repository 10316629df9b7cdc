"""Files and folders as they are twice: in the cache, and on the platter.

The difference is a list of changes that were not synced; `disk` decides which of them a
crash leaves.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

__all__ = [
    "BLOCK",
    "SECTOR",
    "Change",
    "Directory",
    "Inode",
    "NameChange",
    "Resize",
    "Write",
    "blocks",
]

SECTOR = 512
BLOCK = 4096
"""Bytes in which space is taken."""

assert BLOCK % SECTOR == 0


@dataclass(frozen=True)
class Write:
    start: int
    """A multiple of `SECTOR`."""
    data: bytes
    """Whole sectors as they are in the cache, up to the end of the file."""


@dataclass(frozen=True)
class Resize:
    size: int
    cut: bool


Change: TypeAlias = Write | Resize


@dataclass(eq=False)
class Inode:
    cache: bytearray = field(default_factory=bytearray)
    platter: bytearray = field(default_factory=bytearray)
    changes: list[Change] = field(default_factory=list[Change])
    taken: int = 0
    """Bytes of whole blocks that it holds."""

    def apply(self, change: Change) -> None:
        """Put *change* on the platter."""
        platter = self.platter
        match change:
            case Write(start, data):
                if len(platter) < start:
                    platter.extend(bytes(start - len(platter)))
                platter[start : start + len(data)] = data
            case Resize(size, cut):
                if cut:
                    del platter[size:]
                elif len(platter) < size:
                    platter.extend(bytes(size - len(platter)))

    def flush(self) -> None:
        for change in self.changes:
            self.apply(change)
        self.changes.clear()


@dataclass(eq=False)
class NameChange:
    """One atomic change of one or two folders' names."""

    removed: tuple["Directory", str] | None
    added: "tuple[Directory, str, Inode] | None"


@dataclass(eq=False)
class Directory:
    path: str
    names: dict[str, Inode] = field(default_factory=dict[str, Inode])
    platter: dict[str, Inode] = field(default_factory=dict[str, Inode])
    changes: list[NameChange] = field(default_factory=list[NameChange])
    folders: dict[str, "Directory"] = field(default_factory=dict[str, "Directory"])
    """Never renamed or removed, and synced when made: the port knows no other way."""

    def apply(self, change: NameChange) -> None:
        """Put our half of *change* on the platter."""
        if change.removed is not None and change.removed[0] is self:
            self.platter.pop(change.removed[1], None)
        if change.added is not None and change.added[0] is self:
            self.platter[change.added[1]] = change.added[2]

    def flush(self) -> None:
        for change in self.changes:
            self.apply(change)
        self.changes.clear()

    def walk(self) -> "Iterator[Directory]":
        yield self
        for folder in self.folders.values():
            yield from folder.walk()


def blocks(size: int) -> int:
    """Return the bytes of the blocks that *size* bytes take."""
    return size + -size % BLOCK
