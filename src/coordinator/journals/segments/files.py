"""The file system as the segments see it: a port, so that a simulated disk fits.

Every call blocks, and is made in the journal's own thread. Errors are the `OSError`
that the system gave; what they mean for the journal is decided by the caller.

What survives a power cut: the bytes of a file up to its last `File.sync`, under the
names that the folder had at its last `Folder.sync`. Nothing else is certain, in either
direction: unsynced bytes may be there in part, and in any order.
"""

from collections.abc import Sequence
from typing import Protocol

__all__ = ["File", "FileLock", "Folder"]


class File(Protocol):
    """An open file."""

    def read(self, offset: int, size: int) -> bytes:
        """Return up to *size* bytes from *offset*; fewer only at the end."""
        ...

    def write(self, offset: int, data: bytes) -> None:
        """Write all of *data* at *offset*. When it raises, any part may be written."""
        ...

    def sync(self) -> None:
        """Make the bytes and the size durable (``fdatasync``)."""
        ...

    def allocate(self, size: int) -> None:
        """Make the file at least *size* bytes long, its space taken, read as zeros."""
        ...

    def truncate(self, size: int) -> None:
        """Cut the file to *size* bytes."""
        ...

    def size(self) -> int:
        """Return the file's length in bytes."""
        ...

    def linked(self) -> bool:
        """Tell whether it still has a name, in whatever folder."""
        ...

    def close(self) -> None:
        """Close it, without syncing. May be called twice."""
        ...


class FileLock(Protocol):
    """A held lock."""

    def held(self) -> bool:
        """Tell whether it still keeps others out: its file has the name it had."""
        ...

    def release(self) -> None:
        """Give it up. May be called twice."""
        ...


class Folder(Protocol):
    """A folder. Names are plain names, without separators."""

    @property
    def path(self) -> str:
        """Where it is, for messages."""
        ...

    def names(self) -> Sequence[str]:
        """Return the names in it, sorted."""
        ...

    def open(self, name: str, *, writable: bool = False) -> File:
        """Open an existing file, without following a link."""
        ...

    def create(self, name: str) -> File:
        """Make an empty file and open it for writing; an existing one is emptied."""
        ...

    def rename(self, old: str, new: str) -> None:
        """Give a file another name, in the place of one that has it."""
        ...

    def move(self, name: str, target: "Folder") -> None:
        """Move a file to another folder of the same file system."""
        ...

    def remove(self, name: str) -> None:
        """Unlink a file; one that does not exist is no error."""
        ...

    def sync(self) -> None:
        """Make the names durable."""
        ...

    def folder(self, name: str) -> "Folder":
        """Return the folder *name* in this one, which exists."""
        ...

    def make_folder(self, name: str) -> "Folder":
        """As `folder`, made if it is missing; its name is durable then."""
        ...

    def lock(self, name: str, owner: str) -> FileLock:
        """Lock the folder through the file *name*, and write *owner* into it.

        Raises:
            JournalLockedError: Another process (or handle) holds it; names the holder.
        """
        ...

    def free(self) -> int:
        """Return the bytes that are free for us on its file system."""
        ...
