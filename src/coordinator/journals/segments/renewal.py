"""Make what was read of the active segment durable, and cut its torn tail.

What was read may be in the page cache and nowhere else: after a failed flush the kernel
calls the pages clean. So it is written again, to another file. That is done at each
start and not only after a crash: no mark has to be trusted, and 64 MiB take a fraction
of a second.

Also the first segment of a new partition is made here: a header, and no more. The next
start takes its space.
"""

from typing import NamedTuple

from coordinator.errors import JournalFullError
from coordinator.journals.segments.files import File, Folder
from coordinator.journals.segments.format import (
    SegmentHeader,
    encode_segment_header,
    segment_name,
)
from coordinator.journals.segments.reading import CHUNK_SIZE, Identity, path_in
from coordinator.journals.segments.recovery import Recovered
from coordinator.journals.segments.space import allocate
from coordinator.rare import sometimes

__all__ = ["Renewed", "describe_cut", "make_partition", "renew"]

_COPY = "copy.tmp"


def make_partition(folder: Folder, identity: Identity, *, created_at: int) -> None:
    """Make the first segment of a new partition, in its folder; durable on return.

    Args:
        folder: Of the partition.
        identity: Of the partition.
        created_at: Now, in microseconds since 1970.

    Raises:
        OSError: The file system failed.
    """
    header = SegmentHeader(
        journal_id=identity.journal_id,
        partition=identity.partition,
        partitions=identity.partitions,
        base=0,
        created_at=created_at,
        epoch=0,
        previous_crc=0,
    )
    file = folder.create(segment_name(0))
    try:
        file.write(0, encode_segment_header(header))
        file.sync()
    finally:
        file.close()
    folder.sync()


class Renewed(NamedTuple):
    """The active segment, ready to be written behind its last batch."""

    file: File
    limit: int
    """Bytes that it may have."""
    short: str
    """Why there was no space for a copy; empty if there was."""


def renew(folder: Folder, found: Recovered, size: int) -> Renewed:
    """Write the active segment anew, *size* bytes long or more.

    Raises:
        OSError: The file system failed. What was read is there still.
    """
    name = segment_name(found.segments[-1].base)
    old = folder.open(name, writable=True)
    size = max(size, found.active_size)
    opened = [old]
    try:
        try:
            new = allocate(folder, _COPY, size)
        except JournalFullError as error:
            return Renewed(old, _renew_in_place(folder, found, old), str(error))
        opened.append(new)
        _copy(folder, found, old, new)
        new.sync()
        folder.rename(_COPY, name)
        folder.sync()
    except BaseException:
        for file in opened:
            file.close()
        raise
    old.close()
    return Renewed(new, size, "")


def _renew_in_place(folder: Folder, found: Recovered, file: File) -> int:
    """Write the active segment over itself, where there is no space for a copy.

    The pages are dirty then, so the flush takes them all to the disk. A crash
    meanwhile changes nothing: each sector is replaced by what was read from it.
    """
    sometimes("active segment renewed in place")
    limit = file.size()
    _copy(folder, found, file, file)
    for offset in range(found.active_size, limit, CHUNK_SIZE):
        size = min(CHUNK_SIZE, limit - offset)
        if file.read(offset, size) != bytes(size):
            file.write(offset, bytes(size))
    file.sync()
    # A copy's rename makes all names durable; here they may be a killed process's.
    folder.sync()
    return limit


def _copy(folder: Folder, found: Recovered, old: File, new: File) -> None:
    for offset in range(0, found.active_size, CHUNK_SIZE):
        size = min(CHUNK_SIZE, found.active_size - offset)
        data = old.read(offset, size)
        if len(data) != size:
            path = path_in(folder, segment_name(found.segments[-1].base))
            raise OSError(f"{path} became shorter while it was read")
        new.write(offset, data)


def describe_cut(folder: Folder, found: Recovered) -> str:
    """Say what was cut off; empty if nothing was torn."""
    if not found.torn:
        return ""
    sometimes("torn tail cut")
    path = path_in(folder, segment_name(found.segments[-1].base))
    return (
        f"{path} ended in the middle of a batch, as after a crash: cut off "
        f"{found.torn} bytes at byte {found.active_size}; they were never "
        f"acknowledged, there is nothing to do"
    )
