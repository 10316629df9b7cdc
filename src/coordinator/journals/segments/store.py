"""One partition's segments, written. Every method blocks; one thread calls them all.

    open     lock, recover, copy the active segment         -> ready for the claim
    append   roll if the batch does not fit; write; sync    -> the batch is durable
    prepare  allocate the next segment ahead                -> `full` is set or empty
    trim     remove or archive old segments                 -> oldest first
    close    give the files, the unused space and the lock back

The first `OSError` that is not a clear lack of space is the last: the store is broken
and says so for ever. Nothing here is tried a second time. `docs/journal-format.md`
argues each crash point.
"""

import contextlib
from collections.abc import Callable

import msgspec

from coordinator.batch import Batch
from coordinator.errors import (
    FencedError,
    JournalBrokenError,
    JournalError,
    JournalFullError,
)
from coordinator.journals.chain import Chain
from coordinator.journals.segments.archive import archive_segment
from coordinator.journals.segments.files import File, FileLock, Folder
from coordinator.journals.segments.format import (
    CHECKPOINT_HEADER_SIZE,
    SEGMENT_HEADER_SIZE,
    SegmentHeader,
    encode_checkpoint,
    encode_segment_header,
    segment_name,
)
from coordinator.journals.segments.reading import Identity
from coordinator.journals.segments.recovery import (
    CHECKPOINT,
    read_checkpoint,
    recover,
)
from coordinator.journals.segments.renewal import describe_cut, renew
from coordinator.journals.segments.space import NEXT, NO_SPACE, allocate, not_opened
from coordinator.rare import sometimes

__all__ = ["Store", "StoreOptions"]

_CHECKPOINT_COPY = "checkpoint.tmp"
_START_SIZE = 64 * 1024
"""Bytes that closing leaves for the next starts, each of which writes a claim of some
100 bytes: a quarter of a segment at most."""


class StoreOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a partition's segments are kept."""

    segment_size: int = 64 * 1024 * 1024
    """Bytes of a segment, at least 4096. A larger batch gets one of its own size."""
    retention_s: float = 7 * 24 * 3600.0
    """Seconds that a closed segment is kept after it is no longer needed."""

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ValueError: A field is out of its bounds.
        """
        if self.segment_size < 4096:
            raise ValueError(f"a segment has 4096 bytes or more, not {self}")
        if self.retention_s < 0:
            raise ValueError(f"retention can't be negative: {self}")


class Store:
    """The segments of one partition.

    Attributes:
        folder: Where they are.
        cut: What `open` cut off; empty if nothing.
        kept: Why the last `trim` could not archive a segment; empty if it could.
        segments: Their headers, oldest first; the last one is active.
        chain: Where the valid batches end.
    """

    def __init__(
        self,
        folder: Folder,
        identity: Identity,
        options: StoreOptions,
        *,
        clock: Callable[[], int],
        archive: Folder | None = None,
    ) -> None:
        """Make a store; `open` it before anything else.

        Args:
            folder: Of the partition.
            identity: Of the partition.
            options: How to keep them.
            clock: Returns microseconds since 1970.
            archive: Where segments go when their retention is over; else they are
                deleted. On the same file system.
        """
        self.folder = folder
        self.cut = ""
        self.kept = ""
        self.segments: list[SegmentHeader] = []
        self.chain = Chain()
        self.identity = identity
        self._options = options
        self._clock = clock
        self._archive = archive
        self._lock: FileLock | None = None
        self._active: File | None = None
        self._offset = 0
        self._limit = 0
        self._next: File | None = None
        self._low = 0
        self._refused = ""
        """Why the last write found no space; the next one that lands clears it."""
        self._short = ""
        """Why nothing is allocated ahead; the next allocation clears it."""
        self._death: tuple[type[JournalError], str] | None = None

    @property
    def full(self) -> str:
        """Why no new command should be taken; empty if there is space."""
        return self._refused or self._short

    @property
    def wants_space(self) -> bool:
        """Whether `prepare` has something to do."""
        return bool(self._short) or (
            self._next is None and self._offset * 2 >= self._limit
        )

    def open(self, holder: str) -> None:
        """Lock and recover the partition, and make sure that what was read is durable.

        Raises:
            JournalLockedError: Another process holds it.
            JournalDamagedError: Stored bytes are not what was written.
            JournalFormatError: Of a newer format.
            JournalFullError: There is no space, or no descriptor, for what it takes.
            JournalBrokenError: The file system failed.
        """
        try:
            self._lock = self.folder.lock("LOCK", holder)
            found = recover(self.folder, self.identity)
            # What a crash left half-made. It also gives back the space for the copy.
            for name in self.folder.names():
                if name.endswith(".tmp"):
                    self.folder.remove(name)
            self.segments = found.segments
            self.chain = found.chain
            if found.checkpoint is not None:
                self._low = found.checkpoint.low
            renewed = renew(self.folder, found, self._options.segment_size)
            self._active, self._limit, self._short = renewed
            self._offset = found.active_size
            self.cut = describe_cut(self.folder, found)
        except OSError as error:
            self.broke("open", error)
            raise not_opened(self.folder.path, error) from error

    def append(self, batch: Batch) -> None:
        """Write *batch* behind the last one, and flush it.

        Raises:
            JournalFullError: There is no space; nothing was written.
            FencedError: The partition is not ours any more.
            JournalBrokenError: The file system failed.
        """
        self.check()
        data = batch.data
        try:
            if self._offset + len(data) > self._limit:
                self._make_room(SEGMENT_HEADER_SIZE + len(data))
            active = self._active
            assert active is not None
            self._write(active, data)
            active.sync()
            # Behind the flush: who takes the partition over from here on finds it.
            self._check_fence()
        except OSError as error:
            raise self.broke("append", error) from error
        self._offset += len(data)
        self.chain.take(batch)
        self._refused = ""

    def prepare(self) -> None:
        """Allocate the next segment if it is time to, and tell by `full` if that fails.

        Raises:
            FencedError: The partition is not ours any more.
            JournalBrokenError: The file system failed.
        """
        self.check()
        try:
            if self.wants_space and self._next is None:
                self._check_fence()  # or it would be another owner's file
                self._next = allocate(self.folder, NEXT, self._options.segment_size)
        except JournalFullError as error:
            sometimes("no space for the next segment")
            self._short = str(error)
        except OSError as error:
            raise self.broke("allocate the next segment", error) from error
        else:
            self._short = ""

    def save_checkpoint(self, low: int, data: bytes) -> None:
        """Store *data* in the place of the checkpoint before.

        Raises:
            JournalFullError: There is no space; the one before stands.
            FencedError: The partition is not ours any more; the one before stands.
            JournalBrokenError: The file system failed.
        """
        self.check()
        content = encode_checkpoint(
            data,
            journal_id=self.identity.journal_id,
            partition=self.identity.partition,
            low=low,
            end=self.chain.end,
        )
        try:
            self._check_fence()
            file = self._write_checkpoint(content)
            try:
                file.sync()
            finally:
                file.close()
            self._check_fence()
            self.folder.rename(_CHECKPOINT_COPY, CHECKPOINT)
            self.folder.sync()
        except OSError as error:
            raise self.broke("save the checkpoint", error) from error
        self._low = low

    def load_checkpoint(self) -> bytes | None:
        """Return the data of the checkpoint; None if there is none.

        Raises:
            JournalDamagedError: It is not what was stored.
            JournalBrokenError: The file system failed.
        """
        self.check()
        try:
            stored = read_checkpoint(self.folder, self.identity)
        except OSError as error:
            raise self.broke("read the checkpoint", error) from error
        if stored is None:
            return None
        _, content = stored
        return content[CHECKPOINT_HEADER_SIZE:]

    def trim(self, before: int, count_max: int = 1 << 30) -> bool:
        """Let go of closed segments before *before* whose retention is over.

        Oldest first, and each is durably gone before the next: what a crash leaves is
        always the newest ones, without a gap.

        Args:
            before: A position.
            count_max: Segments that go, at most: each takes a sync.

        Returns:
            Whether there may be more.

        Raises:
            FencedError: The partition is not ours any more.
            JournalBrokenError: The file system failed.
        """
        self.check()
        before = min(before, self._low)
        closed_before = self._clock() - round(self._options.retention_s * 1e6)
        try:
            self._check_fence()
            while (
                count_max
                and len(self.segments) > 1
                and self.segments[1].base <= before
                and self.segments[1].created_at <= closed_before
            ):
                name = segment_name(self.segments[0].base)
                if self._archive is None:
                    self.folder.remove(name)
                else:
                    self.kept = archive_segment(self.folder, name, self._archive)
                    if self.kept:
                        sometimes("archive collision")
                        return False
                self.folder.sync()
                del self.segments[0]
                count_max -= 1
        except OSError as error:
            raise self.broke("trim", error) from error
        return not count_max

    def close(self) -> None:
        """Close the files and give the lock back. May be called twice.

        What was allocated ahead is given back if nothing is unfinished, that is, if
        the checkpoint needs no record; and not while the disk is full. Else the next
        start needs it, and others would have taken it: what runs could not go on.
        """
        done = self._low == self.chain.end
        if self._active is not None and done and not (self._death or self.full):
            self._give_back(self._active)
        for file in (self._active, self._next):
            if file is not None:
                file.close()
        self._active = self._next = None
        if self._death is None:
            self._death = (JournalBrokenError, f"{self.folder.path} was closed")
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def check(self) -> None:
        """Pass if nothing has failed yet.

        Raises:
            JournalBrokenError: Something has.
            FencedError: The partition was found to be another owner's.
        """
        if self._death is not None:
            kind, message = self._death
            raise kind(message)

    def broke(self, doing: str, error: OSError) -> JournalBrokenError:
        """Note that the file system failed while *doing*; return what to raise."""
        sometimes("file system failed")
        message = f"{self.folder.path}: could not {doing}: {error}"
        self._death = (JournalBrokenError, message)
        return JournalBrokenError(message)

    def _check_fence(self) -> None:
        """Pass if nobody else can have opened the partition since we did.

        A lock is no fence where its file can be removed, or the folder: whoever comes
        then gets a lock of its own. From that moment on ours does not have its name.

        Raises:
            FencedError: Somebody can have.
        """
        assert self._lock is not None
        assert self._active is not None
        if not self._lock.held():
            what = "its lock file was removed or replaced"
        elif not self._active.linked():
            what = "its active segment was removed or replaced"
        else:
            return
        message = (
            f"{self.folder.path} is not ours any more: {what}; another process may own "
            f"it now, so nothing more is written here"
        )
        self._death = (FencedError, message)
        raise FencedError(message)

    def _give_back(self, active: File) -> None:
        """Cut most of the unwritten end off, and remove the segment made ahead.

        Not synced: nothing depends on it, and a crash leaves zeros there as before. So
        a failure is none of the journal's; what was flushed is not touched. Whoever
        owns the partition by now has files of these names, and needs them.
        """
        with contextlib.suppress(OSError, FencedError):
            self._check_fence()
            left = min(_START_SIZE, self._options.segment_size // 4)
            active.truncate(min(self._offset + left, self._limit))
            self.folder.remove(NEXT)

    def _write(self, active: File, data: bytes) -> None:
        """Write *data* at the end of the active segment.

        A lack of space leaves the store alive, where a file system takes space only
        when it is written to. That is safe: nothing was acknowledged, the next batch is
        written over what is there, and what it does not cover is a torn tail to every
        reader. A flush that finds no space is another matter; that one breaks us.
        """
        try:
            active.write(self._offset, data)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            raise self._no_space(error) from error

    def _no_space(self, error: OSError) -> JournalFullError:
        """Note that a write found no space, and return what to raise."""
        sometimes("write refused by a full disk")
        self._refused = f"{self.folder.path}: {error.strerror}"
        return JournalFullError(self._refused)

    def _write_checkpoint(self, content: bytes) -> File:
        file = allocate(self.folder, _CHECKPOINT_COPY, len(content))
        try:
            file.write(0, content)
        except OSError as error:
            file.close()
            if error.errno not in NO_SPACE:
                raise
            sometimes("no space for a checkpoint")
            self.folder.remove(_CHECKPOINT_COPY)
            raise JournalFullError(f"{self.folder.path}: {error.strerror}") from error
        return file

    def _make_room(self, size: int) -> None:
        """Have an active segment with room for a batch, *size* bytes from its start.

        An empty one is made larger: the next one would have the same base position, and
        so the same name. It is empty if what was rolled for found no space, or if it
        was opened so on a full disk.
        """
        if self._offset > SEGMENT_HEADER_SIZE:
            self._roll(size)
            return
        sometimes("empty segment made larger")
        assert self._active is not None
        size = max(size, self._options.segment_size)
        self._extend(self._active, size)
        self._limit = size

    def _roll(self, size: int) -> None:
        """Close the active segment, and go on in the next one of *size* or more."""
        self._check_fence()
        if self._next is None:
            try:
                self._next = allocate(
                    self.folder, NEXT, max(size, self._options.segment_size)
                )
            except JournalFullError as error:
                self._short = str(error)
                raise
        new = self._next
        if size > self._options.segment_size:
            sometimes("batch larger than a segment")
            self._extend(new, size)
        old = self._active
        assert old is not None
        header = self._header()
        self._write_header(new, header)
        # Before the new one has its name: a closed segment has no tail.
        old.truncate(self._offset)
        old.sync()
        self.folder.rename(NEXT, segment_name(header.base))
        self.folder.sync()
        self.segments.append(header)
        old.close()
        self._active, self._next = new, None
        self._offset = SEGMENT_HEADER_SIZE
        self._limit = max(size, self._options.segment_size)

    def _extend(self, file: File, size: int) -> None:
        """Take more space for a batch that is larger than a segment."""
        try:
            file.allocate(size)
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            # Not `full`: for batches of any usual size there is space.
            raise JournalFullError(f"{self.folder.path}: {error.strerror}") from error

    def _header(self) -> SegmentHeader:
        """Return the header of a segment that begins where the chain ends now."""
        return SegmentHeader(
            journal_id=self.identity.journal_id,
            partition=self.identity.partition,
            partitions=self.identity.partitions,
            base=self.chain.end,
            created_at=self._clock(),
            epoch=self.chain.epoch,
            previous_crc=self.chain.crc,
        )

    def _write_header(self, new: File, header: SegmentHeader) -> None:
        """Give the segment that was made ahead its header, durably.

        It has no name yet, so a lack of space is just that, of the flush too. But it is
        not flushed twice, for the second time might lie: the next try takes a new file.
        """
        try:
            new.write(0, encode_segment_header(header))
            new.sync()
        except OSError as error:
            if error.errno not in NO_SPACE:
                raise
            sometimes("no space for the header of a segment")
            new.close()
            self._next = None
            self.folder.remove(NEXT)
            raise self._no_space(error) from error
