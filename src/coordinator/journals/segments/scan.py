"""Read a partition's batches across its segments."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import Protocol

from coordinator.batch import Batch
from coordinator.errors import JournalDamagedError
from coordinator.journals.chain import Chain
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.format import SegmentHeader, segment_name
from coordinator.journals.segments.reading import (
    SegmentReader,
    check_follows,
    path_in,
)

__all__ = ["Segments", "scan"]


class Segments(Protocol):
    """Where the segments are, and which; the list may change while it is read."""

    @property
    def folder(self) -> Folder:
        """The partition's folder."""
        ...

    @property
    def segments(self) -> Sequence[SegmentHeader]:
        """Oldest first; the last one is active."""
        ...


def scan(partition: Segments, since: int, until: int) -> Iterator[Batch]:
    """Yield the valid batches that hold the positions from *since* to before *until*.

    From the oldest one kept, if *since* lies before that. Segments that are trimmed
    meanwhile are read to their end if they were begun, and left out if not.

    Args:
        partition: What to read.
        since: A position.
        until: A position behind a batch that was durable before this was called.

    Raises:
        JournalDamagedError: Stored bytes are not what was written.
    """
    chain: Chain | None = None
    if since >= until:
        return
    index = max(bisect_right(partition.segments, since, key=_base) - 1, 0)
    while True:
        header = partition.segments[index]
        name = segment_name(header.base)
        path = path_in(partition.folder, name)
        # If it is the oldest one by now, what was between was trimmed.
        if chain is not None and index > 0:
            check_follows(path, header, chain)
        file = partition.folder.open(name)
        try:
            reader = SegmentReader(file, path, header)
            for batch in reader.batches():
                if batch.end > since:
                    yield batch
                if batch.end >= until:
                    return
        finally:
            file.close()
        reader.check_closed()
        chain = reader.chain
        index = bisect_right(partition.segments, header.base, key=_base)
        if index == len(partition.segments):
            raise JournalDamagedError(
                path, reader.offset, f"it ends before position {until}"
            )


def _base(header: SegmentHeader) -> int:
    return header.base
