"""The ``file:`` journal: a folder, and in it a folder per partition.

orders/journal.json                 format, id, number of partitions; never changes
orders/LOCK                         held while that file is made
orders/p0/LOCK                      held by the owner of partition 0, with its name
orders/p0/00000000000000000000.seg  a segment; its name is its base position
orders/p0/next.tmp                  the next one, allocated ahead
orders/p0/checkpoint
<archive>/<journal id>/p0/          where segments go if an archive is asked for; it
                                    may be orders/archive, or lie anywhere else on
                                    the same file system, and be shared by journals
"""

import asyncio
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial

import msgspec

from coordinator.errors import (
    JournalDamagedError,
    JournalFormatError,
    JournalLockedError,
)
from coordinator.journals.segments.files import FileLock, Folder
from coordinator.journals.segments.format import (
    JOURNAL_ID_SIZE,
    SEGMENT_HEADER_SIZE,
    HeaderError,
    decode_segment_header,
    parse_segment_name,
    segment_name,
)
from coordinator.journals.segments.partition import SegmentPartition
from coordinator.journals.segments.reading import Identity, path_in
from coordinator.journals.segments.recovery import partition_folder
from coordinator.journals.segments.renewal import make_partition
from coordinator.journals.segments.space import not_opened
from coordinator.journals.segments.store import Store, StoreOptions

__all__ = [
    "SegmentJournal",
    "describe_journal",
    "read_journal_file",
    "told_by_segments",
]

_JOURNAL_FILE = "journal.json"
_JOURNAL_COPY = "journal.json.tmp"
_LOCK = "LOCK"
_ARCHIVE = "archive"
_MAKING_POLL_S = 0.02
"""Seconds between two looks whether another process has made the journal."""
_PARTITION = re.compile(r"p[0-9]+")
_FORMAT = 1
_DEFAULT = StoreOptions()


class _JournalFile(msgspec.Struct, frozen=True):
    """What ``journal.json`` holds."""

    format: int
    id: str
    partitions: int


def _process() -> str:
    return f"pid {os.getpid()} on {socket.gethostname()}"


def _now() -> int:
    return time.time_ns() // 1000


def _new_id() -> bytes:
    return os.urandom(JOURNAL_ID_SIZE)


class SegmentJournal:
    """A journal in a folder; see `coordinator.ports.Journal`.

    Make one with `open_folder`.
    """

    def __init__(
        self,
        folder: Folder,
        identity: Identity,
        options: StoreOptions,
        *,
        archive: Folder | None,
        clock: Callable[[], int],
        process: str,
    ) -> None:
        self._folder = folder
        self._identity = identity
        self._options = options
        self._archive = archive
        self._clock = clock
        self._process = process
        self._opened: list[SegmentPartition] = []

    @classmethod
    async def open_folder(
        cls,
        folder: Folder,
        *,
        partitions: int | None = None,
        options: StoreOptions = _DEFAULT,
        archive: Folder | None = None,
        clock: Callable[[], int] = _now,
        new_id: Callable[[], bytes] = _new_id,
        process: str = "",
        patience_s: float = 10.0,
    ) -> "SegmentJournal":
        """Open the journal in *folder*, which is made into one if it is empty.

        Args:
            folder: Where it is.
            partitions: How many it has, if that is to be checked; 1 if it is new.
            options: How partitions are kept.
            archive: Where trimmed segments go, into folders of this journal's own; on
                the same file system.
            clock: Returns microseconds since 1970.
            new_id: Returns 16 bytes that no other journal has.
            process: What lock files say of us; process id and host, if empty.
            patience_s: Seconds to wait while another process is making the journal.

        Raises:
            JournalFormatError: The folder is something else, or has another number of
                partitions.
            JournalDamagedError: Its description can't be read.
            JournalLockedError: Another process is making the journal, and stays at it.
            JournalUnavailableError: The place is no good, e.g. for want of rights.
            JournalFullError: There is no space for a new one.
            JournalBrokenError: The file system failed.
        """
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(1, thread_name_prefix="journal")
        process = process or _process()
        try:
            identity = await loop.run_in_executor(
                executor,
                partial(
                    _read_or_create,
                    folder,
                    partitions,
                    new_id=new_id,
                    clock=clock,
                    lock=partial(_lock_to_make, folder, process, patience_s),
                ),
            )
        finally:
            executor.shutdown(wait=False)
        return cls(
            folder, identity, options, archive=archive, clock=clock, process=process
        )

    @property
    def id(self) -> str:
        """See the port."""
        return self._identity.journal_id.hex()

    @property
    def partitions(self) -> int:
        """See the port."""
        return self._identity.partitions

    @property
    def full(self) -> str:
        """See the port."""
        return "; ".join(opened.full for opened in self._opened if opened.full)

    async def open(self, partition: int, *, owner: str, at: int) -> SegmentPartition:
        """See the port."""
        assert 0 <= partition < self.partitions, partition
        loop = asyncio.get_running_loop()
        executor = ThreadPoolExecutor(1, thread_name_prefix="journal")
        try:
            store = await loop.run_in_executor(executor, self._make_store, partition)
        except BaseException:
            executor.shutdown(wait=False)
            raise
        since = datetime.fromtimestamp(at / 1e6, UTC).isoformat(timespec="seconds")
        who = owner if owner == self._process else f"{self._process} ({owner})"
        holder = f"{who} since {since}"
        opened = await SegmentPartition.open(
            store, executor, holder=holder, owner=owner, at=at
        )
        self._opened.append(opened)
        return opened

    def _make_store(self, partition: int) -> Store:
        try:
            folder = partition_folder(self._folder, partition)
            archive = self._archive
            for name in (self.id, f"p{partition}"):
                archive = archive and archive.make_folder(name)
        except OSError as error:
            raise not_opened(self._folder.path, error) from error
        return Store(
            folder,
            msgspec.structs.replace(self._identity, partition=partition),
            self._options,
            clock=self._clock,
            archive=archive,
        )

    async def aclose(self) -> None:
        """See the port."""
        while self._opened:
            await self._opened.pop().aclose()


def read_journal_file(folder: Folder) -> Identity | None:
    """Read which journal is in *folder*; None if it holds nothing of one.

    Returns:
        The identity of its partition 0.

    Raises:
        JournalDamagedError: The file is not what was written.
        JournalFormatError: It is of a newer format.
    """
    try:
        file = folder.open(_JOURNAL_FILE)
    except FileNotFoundError:
        return None
    path = path_in(folder, _JOURNAL_FILE)
    try:
        described = msgspec.json.decode(file.read(0, file.size()), type=_JournalFile)
        journal_id = bytes.fromhex(described.id)
    except (msgspec.DecodeError, ValueError) as error:
        raise JournalDamagedError(path, 0, str(error)) from error
    finally:
        file.close()
    if described.format != _FORMAT:
        raise JournalFormatError(
            f"{path}: format {described.format}; this version reads format {_FORMAT}, "
            f"use the one that wrote it"
        )
    if len(journal_id) != JOURNAL_ID_SIZE or described.partitions < 1:
        raise JournalDamagedError(path, 0, f"it says {described}")
    return Identity(journal_id, 0, described.partitions)


def _read_or_create(
    folder: Folder,
    partitions: int | None,
    *,
    new_id: Callable[[], bytes],
    clock: Callable[[], int],
    lock: Callable[[], FileLock],
) -> Identity:
    try:
        identity = read_journal_file(folder)
        if identity is None:
            identity = _create(folder, partitions or 1, new_id, clock, lock)
        else:
            # Who made it may have been killed between the rename and the sync. What is
            # acknowledged from here on needs its name, and the partitions' names.
            folder.sync()
    except OSError as error:
        raise not_opened(folder.path, error) from error
    if partitions is not None and partitions != identity.partitions:
        raise JournalFormatError(
            f"{folder.path} has {identity.partitions} partitions, not {partitions}; "
            f"their number is fixed when a journal is made"
        )
    return identity


def _create(
    folder: Folder,
    partitions: int,
    new_id: Callable[[], bytes],
    clock: Callable[[], int],
    lock: Callable[[], FileLock],
) -> Identity:
    """Make a journal of *folder*, once and for ever.

    The partitions come first, and ``journal.json`` last: with it the journal is made,
    and whatever is missing from then on is damage. It appears whole or not at all, and
    under the lock: of two processes that start at once, one makes it and the other one
    must not put its own id in its place.
    """
    strangers = [name for name in folder.names() if not _is_ours(folder, name)]
    if strangers:
        # Or it was made, and opened, since we looked.
        identity = read_journal_file(folder)
        if identity is not None:
            return identity
        raise JournalFormatError(
            f"{folder.path} is not a journal: it has no {_JOURNAL_FILE}, but "
            f"{strangers[0]}; use an empty folder"
        )
    held = lock()
    try:
        identity = read_journal_file(folder)
        if identity is not None:
            return identity
        identity = Identity(new_id(), 0, partitions)
        for number in range(partitions):
            make_partition(
                folder.make_folder(f"p{number}"),
                msgspec.structs.replace(identity, partition=number),
                created_at=clock(),
            )
        describe_journal(folder, identity)
    finally:
        held.release()
    return identity


def describe_journal(folder: Folder, identity: Identity, *, kept: str = "") -> None:
    """Write the file that makes *folder* a journal; durable on return.

    Args:
        folder: Of the journal; nobody else does that.
        identity: Which one it is.
        kept: The name that the file gets which is there; empty if there is none.

    Raises:
        OSError: The file system failed. The folder has the file, or not, as before.
    """
    described = _JournalFile(_FORMAT, identity.journal_id.hex(), identity.partitions)
    file = folder.create(_JOURNAL_COPY)
    try:
        file.write(0, msgspec.json.encode(described) + b"\n")
        file.sync()
    finally:
        file.close()
    if kept and _JOURNAL_FILE in folder.names():
        folder.rename(_JOURNAL_FILE, kept)
    folder.rename(_JOURNAL_COPY, _JOURNAL_FILE)
    folder.sync()


def told_by_segments(folder: Folder) -> Iterator[Identity]:
    """Yield which journal each segment in *folder* says that it belongs to.

    Of partition 0, for all of them say the same. Those that are damaged are left out.

    Raises:
        JournalFormatError: One is of a newer format.
    """
    for place in folder.names():
        if _PARTITION.fullmatch(place) is None:
            continue
        partition = folder.folder(place)
        for name in partition.names():
            if parse_segment_name(name) is None:
                continue
            file = partition.open(name)
            try:
                header = decode_segment_header(file.read(0, SEGMENT_HEADER_SIZE))
            except HeaderError:
                continue
            finally:
                file.close()
            yield Identity(header.journal_id, 0, header.partitions)


def _lock_to_make(folder: Folder, process: str, patience_s: float) -> FileLock:
    """Take the lock under which the journal is made; others do that in a moment.

    Raises:
        JournalLockedError: Somebody has held it for *patience_s* seconds.
    """
    tries = round(patience_s / _MAKING_POLL_S)
    for _ in range(tries):
        try:
            return folder.lock(_LOCK, process)
        except JournalLockedError:
            time.sleep(_MAKING_POLL_S)
    return folder.lock(_LOCK, process)


def _is_ours(folder: Folder, name: str) -> bool:
    """Tell whether *name* is what a making that was cut off leaves: nothing of value.

    A partition of it holds a header and no record; one with more has lost its
    ``journal.json``, and must not be made anew.
    """
    if name in {_LOCK, _JOURNAL_COPY, _JOURNAL_FILE, _ARCHIVE}:
        return True
    if _PARTITION.fullmatch(name) is None:
        return False
    try:
        partition = folder.folder(name)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not set(partition.names()) <= {segment_name(0)}:
        return False
    try:
        file = partition.open(segment_name(0))
    except FileNotFoundError:
        return True
    try:
        return file.size() <= SEGMENT_HEADER_SIZE
    finally:
        file.close()
