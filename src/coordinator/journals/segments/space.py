"""Space on the disk, taken before it is needed.

The active segment is allocated at its full size when it is made. When half of it is
used, the next one is allocated beside it, as `NEXT`; the other half of the active one
is then the reserve from which running workflows finish while the disk is full.

A shortage is no failure: it is `JournalFullError`, and nothing was written. Where a new
file is to be made, file descriptors and memory may be short as well as the disk: then
there is no file, or one that nothing refers to, so it passes by itself as a full disk
does. Every other `OSError` goes through to the caller, who stops trusting the disk.
"""

import errno

from coordinator.errors import (
    JournalBrokenError,
    JournalError,
    JournalFullError,
    JournalUnavailableError,
)
from coordinator.journals.segments.files import File, Folder

__all__ = ["NEXT", "NO_SPACE", "SHORT", "allocate", "not_opened"]

NEXT = "next.tmp"
"""The segment that was allocated ahead: empty, or with a header and no final name."""

NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})
"""The disk is full, for us."""
SHORT = NO_SPACE | {errno.EMFILE, errno.ENFILE, errno.ENOMEM}
"""Something is missing that others may give back: space, descriptors, memory."""


_PLACE = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.EROFS,
        errno.ENOENT,
        errno.EEXIST,
        errno.ENOTDIR,
        errno.ELOOP,
        errno.ENAMETOOLONG,
    }
)
"""What is said of a place that is no good, however sound the disk is."""


def allocate(folder: Folder, name: str, size: int) -> File:
    """Create *name* in *folder*, *size* bytes of zeros whose space is taken.

    Raises:
        JournalFullError: There is no space, or no descriptor; the file is gone again.
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
        if error.errno in SHORT:
            folder.remove(name)
            raise JournalFullError(f"{folder.path}: {error.strerror}") from error
        raise
    return file


def not_opened(path: str, error: OSError) -> JournalError:
    """Return what to raise when what is at *path* could not be opened, or made.

    Nothing is acknowledged before it is open, and the next opening reads and writes all
    of it again: so a lack of something is just that, whichever call it came from.
    """
    if error.errno in SHORT:
        return JournalFullError(
            f"{path}: {error.strerror}: it can't be opened now; see to it, then start "
            f"again"
        )
    if error.errno in _PLACE:
        return JournalUnavailableError(
            f"{path} can't be opened: {error}; mend that, then start again"
        )
    return JournalBrokenError(f"{path}: could not open: {error}")
