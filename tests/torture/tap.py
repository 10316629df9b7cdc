"""Between the journal and the kernel: every system call of the real file system.

`posix.py` makes its calls through the `os` module. `tapped` puts itself in between, in
this process, for the files of one folder: each call gets a number, and a `Fault` is
asked to make it. It may make it, make a part of it, fail it, or end the process before,
within or behind it. All else is real: the file system, the page cache, SIGKILL.

    write     pwrite              open      open, also when it makes the file
    sync      fdatasync           rename    rename, also into another folder
    names     fsync of a folder   unlink    unlink
    truncate  ftruncate           mkdir     mkdir
    allocate  posix_fallocate     read      pread
    size      fstat               list      listdir of a folder
    free      fstatvfs            held      stat of a name
    lock      flock

One call at a time: their order is the order in which the kernel got them.
"""

import fcntl
import os
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = [
    "CHANGES",
    "READS",
    "Call",
    "Fault",
    "die",
    "fails",
    "path_of",
    "tapped",
    "through",
]

CHANGES = frozenset(
    ("write", "sync", "names", "truncate", "allocate", "open", "rename", "unlink")
) | {"mkdir"}
READS = frozenset(("read", "size", "list", "free", "held", "lock"))


@dataclass
class Call:
    """A system call that is about to be made."""

    number: int
    """From 0, counted over all threads."""
    name: str
    path: str
    """Of the file; what a link in `/proc` says of its descriptor."""
    arguments: tuple[Any, ...]
    make: Callable[..., Any] = field(repr=False)
    """Makes it; takes other arguments if they are given."""

    def done(self, *arguments: Any) -> Any:
        """Make the call."""
        return self.make(*(arguments or self.arguments))


Fault = Callable[[Call], Any]


def through(call: Call) -> Any:
    """Be no fault."""
    return call.done()


def die() -> None:
    """End this process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
    threading.Event().wait()  # until it arrives


def fails(code: int) -> OSError:
    """Return the error that the kernel gives with *code*."""
    return OSError(code, os.strerror(code))


@contextmanager
def tapped(root: str, names: frozenset[str], fault: Fault) -> Generator[None]:
    """Ask *fault* to make all calls of *names* that are about what is in *root*.

    Not to be nested, and for this process alone: fork first.
    """
    taps = _Tap(os.path.realpath(root), names, fault).taps()
    before = [(module, name, getattr(module, name)) for module, name, _ in taps]
    for module, name, tap in taps:
        setattr(module, name, tap)
    try:
        yield
    finally:
        for module, name, function in before:
            setattr(module, name, function)


class _Tap:
    def __init__(self, root: str, names: frozenset[str], fault: Fault) -> None:
        self._root = root
        self._names = names
        self._fault = fault
        self._lock = threading.RLock()
        self._count = 0

    def taps(self) -> list[tuple[Any, str, Any]]:
        """Return what goes in the place of which function of which module."""
        return [
            (os, "pwrite", self._of_file("write", os.pwrite)),
            (os, "pread", self._of_file("read", os.pread)),
            (os, "fdatasync", self._of_file("sync", os.fdatasync)),
            (os, "fsync", self._of_file("names", os.fsync)),
            (os, "ftruncate", self._of_file("truncate", os.ftruncate)),
            (os, "posix_fallocate", self._of_file("allocate", os.posix_fallocate)),
            (os, "fstat", self._of_file("size", os.fstat)),
            (os, "fstatvfs", self._of_file("free", os.fstatvfs)),
            (os, "listdir", self._of_file("list", os.listdir)),
            (fcntl, "flock", self._of_file("lock", fcntl.flock)),
            (os, "open", self._of_name("open", os.open)),
            (os, "unlink", self._of_name("unlink", os.unlink)),
            (os, "mkdir", self._of_name("mkdir", os.mkdir)),
            (os, "stat", self._of_name("held", os.stat)),
            (os, "replace", self._of_two_names("rename", os.replace)),
        ]

    def _make(
        self,
        name: str,
        path: str,
        function: Callable[..., Any],
        arguments: tuple[Any, ...],
    ) -> Any:
        ours = path == self._root or path.startswith(self._root + "/")
        if name not in self._names or not ours:
            return function(*arguments)
        with self._lock:
            call = Call(self._count, name, path, arguments, function)
            self._count += 1
            return self._fault(call)

    def _of_file(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def tap(descriptor: Any, *more: Any) -> Any:
            if not isinstance(descriptor, int):
                return function(descriptor, *more)
            return self._make(name, path_of(descriptor), function, (descriptor, *more))

        return tap

    def _of_name(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def tap(path: Any, *more: Any, dir_fd: int | None = None, **rest: Any) -> Any:
            def at(path: Any, *more: Any) -> Any:
                return function(path, *more, dir_fd=dir_fd, **rest)

            where = "" if dir_fd is None else f"{path_of(dir_fd)}/{path}"
            return self._make(name, where, at, (path, *more))

        return tap

    def _of_two_names(
        self, name: str, function: Callable[..., Any]
    ) -> Callable[..., Any]:
        def tap(
            old: Any,
            new: Any,
            *,
            src_dir_fd: int | None = None,
            dst_dir_fd: int | None = None,
        ) -> Any:
            def at(old: str, new: str) -> Any:
                # The folders are those of the descriptors: a name is all it takes.
                names = Path(old).name, Path(new).name
                return function(*names, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

            if src_dir_fd is None or dst_dir_fd is None:
                return function(old, new)
            source = f"{path_of(src_dir_fd)}/{old}"
            target = f"{path_of(dst_dir_fd)}/{new}"
            return self._make(name, source, at, (source, target))

        return tap


def path_of(descriptor: int) -> str:
    """Return the path of an open file, as the kernel has it now."""
    try:
        return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 -- a third
    except OSError:
        return ""
