"""Move a segment into the archive, and write over nothing there.

    only in the journal           renamed into the archive, that folder synced
    in both, of equal bytes       a crash left both names, or a copy of the journal was
                                  archived before: the journal's is removed
    in both, of other bytes       whoever made them so has to decide: both stay

The archive of a partition has one writer, the owner of the partition: it is a folder
with the journal's id in its path. So nothing comes there between looking and renaming.
"""

from coordinator.journals.segments.files import File, Folder
from coordinator.journals.segments.reading import CHUNK_SIZE, path_in
from coordinator.journals.segments.space import SHORT
from coordinator.rare import sometimes

__all__ = ["archive_segment"]


def archive_segment(folder: Folder, name: str, archive: Folder) -> str:
    """Move *name* from *folder* to *archive*; there its name is durable on return.

    Returns:
        Why it was left where it is, for people; empty if it was not.

    Raises:
        OSError: The file system failed. It has either name, or both.
    """
    try:
        there = archive.open(name)
    except FileNotFoundError:
        folder.move(name, archive)
        # First where it went: in between it may have both names, not none.
        archive.sync()
        return ""
    except OSError as error:
        if error.errno not in SHORT:
            raise
        return f"{path_in(archive, name)}: {error.strerror}"
    try:
        return _leave_one(folder, name, archive, there)
    finally:
        there.close()


def _leave_one(folder: Folder, name: str, archive: Folder, there: File) -> str:
    sometimes("segment in the journal and in the archive")
    try:
        here = folder.open(name)
    except OSError as error:
        if error.errno not in SHORT:
            raise
        return f"{path_in(folder, name)}: {error.strerror}"
    try:
        equal = _equal(here, there)
    finally:
        here.close()
    if not equal:
        return (
            f"{path_in(archive, name)} is there already, and differs from "
            f"{path_in(folder, name)}: move one of them away, or name another archive"
        )
    archive.sync()
    folder.remove(name)
    return ""


def _equal(one: File, other: File) -> bool:
    size = one.size()
    return size == other.size() and all(
        one.read(offset, CHUNK_SIZE) == other.read(offset, CHUNK_SIZE)
        for offset in range(0, size, CHUNK_SIZE)
    )
