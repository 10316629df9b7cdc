"""A run's changes to the disk, recorded; and what a crash may leave of them.

`Recorder` is a fault that makes every call and writes it down. `Model` is told the
calls again, one by one, and knows at each moment what is durable and what is not:

    a file     its bytes at its last fdatasync; behind that, single sectors of each
               write, each growth, each cut
    a folder   its names at its last fsync; behind that, names made, removed, renamed

`Model.crash` draws a state: of what is not durable, any part in any order. A rename is
one change of its folder, as POSIX has it. A move to another folder is two; only the
removal of the old name does not come without the new one. Real file systems allow less:
ext4 keeps the order of names. So what survives this survives those.
"""

import os
import pickle
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import Any, TypeAlias

from tests.torture.tap import Call

__all__ = ["Model", "Operation", "Recorder", "Survives", "read_recording"]

SECTOR = 512


@dataclass(frozen=True)
class Operation:
    """A system call that was made."""

    name: str
    path: str
    arguments: tuple[Any, ...]
    """Without descriptors: the path says which file."""
    at: int
    """Nanoseconds of the monotonic clock, before it was made."""


class Recorder:
    """Makes each call and appends it to a file: what was recorded outlives SIGKILL."""

    def __init__(self, path: Path, root: Path, dies_at: int | None = None) -> None:
        self._root = str(root.resolve())
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        self._dies_at = dies_at

    def __call__(self, call: Call) -> Any:
        """Make the call, and note it."""
        at = time.monotonic_ns()
        arguments = tuple(map(self._plain, call.arguments[1:]))
        if call.name == "rename":
            arguments = tuple(map(self._plain, call.arguments))
        path = self._plain(call.path)
        if call.name == "open":
            arguments = (arguments[0], Path(call.path).exists())
        elif call.name == "allocate":
            # fallocate is told where and how much; what counts is how long it is then.
            arguments = (arguments[0] + arguments[1],)
        found = call.done()
        operation = Operation(call.name, path, arguments, at)
        os.write(self._descriptor, pickle.dumps(operation))
        if call.number == self._dies_at:
            os.kill(os.getpid(), 9)
        return found

    def _plain(self, what: Any) -> Any:
        if isinstance(what, str):
            return os.path.relpath(what, self._root)
        # What is written may be a view of memory that is written over later.
        return what if isinstance(what, int | bytes) else bytes(what)


def read_recording(path: Path) -> Iterator[Operation]:
    """Yield the calls of a recording, in order."""
    with path.open("rb") as file:
        while file.peek(1):
            yield pickle.load(file)


class Survives(Enum):
    """How what is not durable fares."""

    NONE = auto()
    ALL = auto()
    SOME = auto()
    """Each part by itself, with a probability that is drawn first."""
    FIRST = auto()
    """Up to a drawn part, and nothing behind it."""


Part: TypeAlias = "tuple[int, bytes] | int"
"""Bytes at an offset; or the size that the file was made to have."""


@dataclass(eq=False)
class Inode:
    """A file."""

    durable: bytes = b""
    pending: list[Part] = field(default_factory=list[Part])
    size: int = 0

    def write(self, offset: int, data: bytes) -> None:
        if offset + len(data) > self.size:
            self.resize(offset + len(data))
        end = offset + len(data)
        while offset < end:
            until = min(end, (offset // SECTOR + 1) * SECTOR)
            self.pending.append((offset, data[: until - offset]))
            data = data[until - offset :]
            offset = until

    def resize(self, size: int) -> None:
        self.pending.append(size)
        self.size = size

    def sync(self) -> None:
        self.durable = self.after(self.pending)
        self.pending = []

    def after(self, parts: list[Part]) -> bytes:
        """Return the durable bytes with *parts* of the changes behind them."""
        data = bytearray(self.durable)
        for part in parts:
            size = part if isinstance(part, int) else part[0] + len(part[1])
            if isinstance(part, int):
                del data[size:]
            data.extend(bytes(max(0, size - len(data))))
            if not isinstance(part, int):
                data[part[0] : size] = part[1]
        return bytes(data)


@dataclass(eq=False)
class Change:
    """Names that a folder gets or loses, in one step."""

    gets: dict[str, "Inode | Directory"] = field(default_factory=dict[str, Any])
    loses: list[str] = field(default_factory=list[str])
    needs: "Change | None" = None
    """Another folder's, without which this does not come about."""
    durable: bool = False


@dataclass(eq=False)
class Directory:
    """A folder."""

    durable: dict[str, "Inode | Directory"] = field(default_factory=dict[str, Any])
    pending: list[Change] = field(default_factory=list[Change])
    names: dict[str, "Inode | Directory"] = field(default_factory=dict[str, Any])
    """As a process sees them."""

    def change(self, change: Change) -> None:
        self.pending.append(change)
        _apply(self.names, change)

    def sync(self) -> None:
        for change in self.pending:
            _apply(self.durable, change)
            change.durable = True
        self.pending = []


def _apply(names: dict[str, "Inode | Directory"], change: Change) -> None:
    for name in change.loses:
        names.pop(name, None)
    names.update(change.gets)


class Model:
    """A disk that is told what was done to it."""

    def __init__(self) -> None:
        self.root = Directory()

    def take(self, operation: Operation) -> None:
        """Do as *operation* did."""
        folder, name = self._at(operation.path)
        arguments = operation.arguments
        match operation.name:
            case "open":
                self._open(folder, name, *arguments)
            case "write":
                data, offset = arguments
                self._file(operation.path).write(offset, data)
            case "truncate":
                self._file(operation.path).resize(arguments[0])
            case "allocate":
                file = self._file(operation.path)
                file.resize(max(file.size, arguments[0]))
            case "sync":
                self._file(operation.path).sync()
            case "names":
                self._folder(operation.path).sync()
            case "mkdir":
                folder.change(Change({name: Directory()}))
            case "unlink":
                folder.change(Change(loses=[name]))
            case "rename":
                self._rename(*arguments)
            case other:
                raise AssertionError(f"what is {other}?")

    def crash(self, data: Survives, names: Survives, chance: random.Random) -> "State":
        """Draw what is on the disk when the power comes back."""
        likely = chance.choice((0.15, 0.5, 0.85))
        kept: set[Change] = set()
        folders = list(_folders(self.root))
        for folder in folders:
            kept.update(_some(folder.pending, names, chance, likely))
        state: State = {}
        _collect(self.root, kept, data, chance, likely, "", state)
        return state

    def pending(self) -> bool:
        """Return whether anything is not durable."""
        return any(
            folder.pending or any(isinstance(f, Inode) and f.pending for f in names)
            for folder in _folders(self.root)
            for names in [list(folder.names.values())]
        )

    def _open(self, folder: Directory, name: str, flags: int, existed: bool) -> None:
        if not existed and flags & os.O_CREAT:
            folder.change(Change({name: Inode()}))
        elif flags & os.O_TRUNC:
            file = folder.names[name]
            assert isinstance(file, Inode)
            file.resize(0)

    def _rename(self, old: str, new: str) -> None:
        (source, name), (target, other) = self._at(old), self._at(new)
        what = source.names[name]
        if source is target:
            source.change(Change({other: what}, [name]))
            return
        link = Change({other: what})
        target.change(link)
        source.change(Change(loses=[name], needs=link))

    def _at(self, path: str) -> tuple[Directory, str]:
        parent, name = os.path.split(path)
        return self._folder(parent), name

    def _folder(self, path: str) -> Directory:
        found = self.root
        for part in Path(path).parts:
            inner = found.names[part]
            assert isinstance(inner, Directory)
            found = inner
        return found

    def _file(self, path: str) -> Inode:
        folder, name = self._at(path)
        file = folder.names[name]
        assert isinstance(file, Inode)
        return file


State: TypeAlias = "dict[str, bytes | None]"
"""Files by path, with their bytes; folders with None."""


def _folders(root: Directory) -> Iterator[Directory]:
    yield root
    for inner in root.names.values():
        if isinstance(inner, Directory):
            yield from _folders(inner)


def _some(
    parts: list[Any], survives: Survives, chance: random.Random, likely: float
) -> list[Any]:
    match survives:
        case Survives.NONE:
            return []
        case Survives.ALL:
            return parts
        case Survives.SOME:
            return [part for part in parts if chance.random() < likely]
        case Survives.FIRST:
            return parts[: chance.randint(0, len(parts))]


def _collect(
    folder: Directory,
    kept: set[Change],
    data: Survives,
    chance: random.Random,
    likely: float,
    path: str,
    state: State,
) -> None:
    names = dict(folder.durable)
    for change in folder.pending:
        needs = change.needs
        if change in kept and (needs is None or needs.durable or needs in kept):
            _apply(names, change)
    for name, what in sorted(names.items()):
        if isinstance(what, Directory):
            state[path + name] = None
            _collect(what, kept, data, chance, likely, f"{path}{name}/", state)
        else:
            parts = _some(what.pending, data, chance, likely)
            state[path + name] = what.after(parts)
