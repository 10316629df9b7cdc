"""Space on the disk, taken before it is needed.

The active segment is allocated at its full size when it is made. When half of it is
used, the next one is allocated beside it, as `NEXT`; the other half of the active one
is then the reserve from which running workflows finish while the disk is full.

A shortage is no failure: it is `JournalFullError`, and nothing was written. Every other
`OSError` goes through to the caller, who stops trusting the disk.
"""

import errno

from coordinator.errors import JournalBrokenError, JournalError, JournalFullError
from coordinator.journals.segments.files import File, Folder

__all__ = ["NEXT", "NO_SPACE", "allocate", "not_made"]

NEXT = "next.tmp"
"""The segment that was allocated ahead: empty, or with a header and no final name."""

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


def allocate(folder: Folder, name: str, size: int) -> File:
    """Create *name* in *folder*, *size* bytes of zeros whose space is taken.

    Raises:
        JournalFullError: There is no space; the file is gone again.
        OSError: Anything else.
    """
    # Asked first, because a file system may take what is left before it says no, and
    # this is tried once a second while others on the machine fight for the same space.
    free = folder.free()
    if free < size:
        raise JournalFullError(
            f"{folder.path}: {size} bytes are needed for the next segment or "
            f"checkpoint, {free} are free"
        )
    file: File | None = None
    try:
        file = folder.create(name)
        file.allocate(size)
    except OSError as error:
        if file is not None:
            file.close()
        if error.errno in NO_SPACE:
            folder.remove(name)
            raise JournalFullError(f"{folder.path}: {error.strerror}") from error
        raise
    return file


def not_made(path: str, error: OSError) -> JournalError:
    """Return what to raise when something new could not be made at *path*.

    Where nothing is stored yet, nothing can be in doubt: a lack of space is just that,
    whichever call it came from.
    """
    if error.errno in NO_SPACE:
        return JournalFullError(
            f"{path}: {error.strerror}: a new journal can't be made; free some space, "
            f"then start again"
        )
    return JournalBrokenError(f"{path}: {error}")
