"""Read a partition while somebody else writes it.

`inspect` says what the reader relies on. Nothing is held between two polls but the
place: the active segment is replaced by a copy when a writer starts, and a file that
was kept open would be the old one for ever.
"""

from collections.abc import Iterator

from coordinator.batch import Batch
from coordinator.journals.chain import Chain
from coordinator.journals.segments.files import File, Folder
from coordinator.journals.segments.format import segment_name
from coordinator.journals.segments.reading import (
    Identity,
    SegmentReader,
    check_follows,
    path_in,
    read_header,
    read_live,
)
from coordinator.journals.segments.recovery import segment_bases

__all__ = ["Follower"]


class Follower:
    """A place in a partition, and what comes behind it."""

    def __init__(self, folder: Folder, identity: Identity, since: int) -> None:
        """Begin with the batch that holds *since*, or the oldest one behind it."""
        self._folder = folder
        self._identity = identity
        self._since = since
        self._base = -1
        """Of the segment that we are in; -1 before the first one."""
        self._offset = 0
        """Where in it; 0 if it was not begun."""
        self._chain: Chain | None = None
        """What was read so far; None if nothing was, or what followed it is gone."""

    def poll(self, *, to_the_end: bool = False) -> Iterator[Batch]:
        """Yield the batches that are complete by now and were not yielded before.

        Args:
            to_the_end: Also look behind the last one, whether a later one makes a bad
                batch damage. That reads the rest of the active segment.

        Raises:
            JournalDamagedError: Stored bytes are not what was written.
            JournalFormatError: Of a newer format.
        """
        while True:
            bases = segment_bases(self._folder)
            if self._base not in bases:
                self._enter(bases)
            try:
                file = self._folder.open(segment_name(self._base))
            except FileNotFoundError:
                continue  # Trimmed since the folder was listed.
            try:
                yield from self._read(
                    file, closed=self._base != bases[-1], to_the_end=to_the_end
                )
            finally:
                file.close()
            if self._base == bases[-1]:
                return
            self._base = bases[bases.index(self._base) + 1]
            self._offset = 0

    def _enter(self, bases: list[int]) -> None:
        """Go to the segment where we want to be, or the oldest one behind it."""
        position = self._since if self._chain is None else self._chain.end
        self._base = max((b for b in bases if b <= position), default=bases[0])
        self._offset = 0
        self._chain = None

    def _read(self, file: File, *, closed: bool, to_the_end: bool) -> Iterator[Batch]:
        path = path_in(self._folder, segment_name(self._base))
        header = read_header(file, path, self._identity, self._base)
        reader = SegmentReader(file, path, header)
        if self._chain is not None:
            if self._offset == 0:
                check_follows(path, header, self._chain)
            else:
                reader.go_on(self._chain, self._offset)
        batches = read_live(reader) if to_the_end and not closed else reader.batches()
        for batch in batches:
            self._offset, self._chain = reader.offset, reader.chain
            if batch.end > self._since:
                yield batch
        self._offset, self._chain = reader.offset, reader.chain
        if closed:
            reader.check_closed()
