"""All that is retained of a partition: its archive first, then its own segments.

    archive/<journal id>/p0/0.seg, 48211.seg      moved there by trimming
    p0/96400.seg, ...                             the last one is being written

Each segment is looked for where it is when its turn comes: a coordinator that runs may
move it to the archive meanwhile, or delete it. Nothing is locked or changed.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from coordinator.batch import Batch
from coordinator.journals.segments.files import File, Folder
from coordinator.journals.segments.format import parse_segment_name, segment_name
from coordinator.journals.segments.reading import (
    Identity,
    SegmentReader,
    check_follows,
    path_in,
    read_header,
)

__all__ = ["Missing", "history"]


class Missing(NamedTuple):
    """Positions that nothing retains any more."""

    first: int
    end: int
    """Behind the last one."""


def history(folders: Sequence[Folder], identity: Identity) -> Iterator[Batch | Missing]:
    """Yield the batches that are retained, in order, up to the end that is there now.

    Args:
        folders: Of the partition: the archive's, if there is one, and the journal's
            own, which is the last.
        identity: Of the partition.

    Raises:
        JournalDamagedError: Stored bytes are not what was written.
        JournalFormatError: Of a newer format.
        OSError: A file can't be read.
    """
    end = 0
    before: SegmentReader | None = None
    while True:
        bases = _bases(folders)
        base = min((base for base in bases if base >= end), default=None)
        if base is None:
            return
        opened = _open(folders, base)
        if opened is None:
            continue  # It moved, or was trimmed, since the folders were listed.
        if base > end:
            yield Missing(end, base)
            before = None
        file, path = opened
        try:
            header = read_header(file, path, identity, base)
            if before is not None:
                check_follows(path, header, before.chain)
            reader = SegmentReader(file, path, header)
            yield from reader.batches()
            if any(other > base for other in bases):
                reader.check_closed()
        finally:
            file.close()
        if reader.chain.end == base:
            return  # Nothing is in it yet.
        end, before = reader.chain.end, reader


def _bases(folders: Sequence[Folder]) -> set[int]:
    found = (parse_segment_name(name) for f in folders for name in f.names())
    return {base for base in found if base is not None}


def _open(folders: Sequence[Folder], base: int) -> tuple[File, str] | None:
    for folder in reversed(folders):
        name = segment_name(base)
        try:
            return folder.open(name), path_in(folder, name)
        except FileNotFoundError:
            continue
    return None
