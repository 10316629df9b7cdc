"""All that is retained of a partition: its archive first, then its own segments.

    archive/<journal id>/p0/0.seg, 48211.seg      moved there by trimming
    p0/96400.seg, ...                             the last one is being written

Each segment is looked for where it is when its turn comes: a coordinator that runs may
move it to the archive meanwhile, or delete it. Nothing is locked or changed.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from coordinator.batch import Batch
from coordinator.errors import JournalDamagedError
from coordinator.journals.segments.files import File, Folder
from coordinator.journals.segments.format import parse_segment_name, segment_name
from coordinator.journals.segments.reading import (
    Identity,
    SegmentReader,
    check_follows,
    path_in,
    read_header,
    read_live,
)
from coordinator.journals.segments.recovery import is_marked, read_checkpoint

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
    # Read first, for while we read on it may come to know of more than we find.
    durable = _durable(folders[-1], identity)
    before: SegmentReader | None = None
    while True:
        bases = _bases(folders)
        base = min((base for base in bases if base >= end), default=None)
        if base is None:
            _check_end(folders[-1], end, durable)
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
            if any(other > base for other in bases):
                yield from reader.batches()
                reader.check_closed()
            else:
                yield from read_live(reader)
        finally:
            file.close()
        if reader.chain.end == base:
            _check_end(folders[-1], base, durable)
            return  # Nothing is in it yet.
        end, before = reader.chain.end, reader


def _durable(folder: Folder, identity: Identity) -> int:
    """Return the position before which all was durable, as the checkpoint says.

    Raises:
        JournalDamagedError: A repair was cut off: the segments are a mixture.
    """
    try:
        stored = read_checkpoint(folder, identity)
    except JournalDamagedError:
        if is_marked(folder):
            raise
        return 0  # It says nothing then, and nothing is read from it here.
    return 0 if stored is None else stored[0].end


def _check_end(folder: Folder, end: int, durable: int) -> None:
    if end < durable:
        raise JournalDamagedError(
            folder.path,
            0,
            f"the records end at position {end}, but those before {durable} were "
            f"durable when the checkpoint was saved",
        )


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
