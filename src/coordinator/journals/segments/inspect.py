"""Look into a journal's folder, without a lock and without changing anything.

All of it works while a coordinator writes there, because of what a writer promises:

* A batch is written behind the last one and never changed. One that is not complete
  is being written, or torn; who reads again later sees which.
* A segment is closed (cut to its end) before the next one gets its name. So one that
  had a successor when the folder was listed, before it was read, must end with a batch.
* At its start a writer replaces the active segment by a copy that has the same batches.
* Segments are removed oldest first.

What is shown may not be durable yet, nor acknowledged.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from coordinator.batch import Batch
from coordinator.errors import JournalDamagedError, JournalFormatError
from coordinator.journals.chain import Chain
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.follow import Follower
from coordinator.journals.segments.format import CheckpointHeader, segment_name
from coordinator.journals.segments.journal import read_journal_file
from coordinator.journals.segments.reading import (
    Identity,
    SegmentReader,
    check_follows,
    path_in,
    read_header,
    read_live,
)
from coordinator.journals.segments.recovery import (
    CHECKPOINT,
    check_start,
    partition_folder,
    read_checkpoint,
    segment_bases,
)
from coordinator.model import Position, WorkflowId, parse_workflow_id
from coordinator.records import Accepted, Claimed, Lost, PartitionRecord, Record

__all__ = [
    "CheckpointInfo",
    "Entry",
    "JournalInfo",
    "PartitionInfo",
    "PartitionReport",
    "Problem",
    "SegmentInfo",
    "SegmentReport",
    "dump",
    "info",
    "tail",
    "verify",
]


class SegmentInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a segment's header says."""

    path: str
    base: int
    """Position of its first record."""
    size: int
    """Bytes of the file, with what was allocated ahead."""
    created_at: int
    """Microseconds since 1970."""
    epoch: int
    """Of the batch before its first one."""


class CheckpointInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a checkpoint says about itself."""

    low: int
    """No record before this position is needed."""
    end: int
    """Records before this position were durable when it was saved."""
    size: int
    """Bytes of the engine's data."""


class PartitionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a partition's folder holds, from headers alone."""

    number: int
    path: str
    segments: tuple[SegmentInfo, ...]
    """Oldest first; the last one is active."""
    checkpoint: CheckpointInfo | None
    holder: str
    """Who locked it last; it may have let go since."""


class JournalInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a journal's folder holds, from headers alone."""

    path: str
    id: str
    partitions: tuple[PartitionInfo, ...]
    """All of them."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """A place where stored bytes are not what was written."""

    path: str
    offset: int
    """Bytes from the start of the file; 0 if the whole file is meant."""
    problem: str


class SegmentReport(msgspec.Struct, frozen=True, kw_only=True):
    """What reading a whole segment found."""

    path: str
    base: int
    end: int
    """Position behind its last valid record."""
    batches: int
    records: int
    size: int
    """Bytes up to the end of its last valid batch."""


class PartitionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What reading a whole partition found."""

    number: int
    segments: tuple[SegmentReport, ...]
    """Oldest first."""
    epochs: tuple[int, int] | None
    """The first and the last one; None if there are no batches."""
    problems: tuple[Problem, ...]
    """Damage. A coordinator refuses to open the partition if it is not all before the
    low position of the checkpoint."""
    torn: Problem | None
    """A tail that is incomplete: left by a crash, or being written right now."""


class Entry(NamedTuple):
    """A record and where it is."""

    partition: int
    position: Position
    epoch: int
    record: Record


def info(folder: Folder) -> JournalInfo:
    """Say what is in *folder*, quickly: only headers and checkpoints are read.

    Raises:
        JournalFormatError: It is not a journal, or a newer one.
        JournalDamagedError: A header or a checkpoint is not what was written.
    """
    identity = _identity(folder)
    return JournalInfo(
        path=folder.path,
        id=identity.journal_id.hex(),
        partitions=tuple(
            _partition_info(folder, identity, number)
            for number in range(identity.partitions)
        ),
    )


def verify(folder: Folder) -> tuple[PartitionReport, ...]:
    """Read every segment of every partition, and report what is found.

    Damage is reported, not raised; reading goes on with the next segment.

    Raises:
        JournalFormatError: It is not a journal, or a newer one.
        JournalDamagedError: Its description can't be read.
    """
    identity = _identity(folder)
    return tuple(
        _verify(folder, _of(identity, number)) for number in range(identity.partitions)
    )


def dump(
    folder: Folder,
    *,
    partition: int | None = None,
    since: int = 0,
    workflow: WorkflowId | None = None,
    claims: bool = False,
) -> Iterator[Entry]:
    """Yield the records that are there, partition by partition, in order.

    Args:
        folder: Of the journal.
        partition: Only this one.
        since: From this position on, in each partition.
        workflow: Only the records about this workflow.
        claims: Along with these, who claimed its partition since, and which records
            are lost.

    Raises:
        JournalFormatError: It is not a journal, or a newer one.
        JournalDamagedError: Stored bytes are not what was written; what lies before
            them was yielded.
        DecodeError: A record is of a kind that this version does not know.
        ValueError: *workflow* is not a workflow's id.
    """
    identity = _identity(folder)
    accepted: int | None = None
    if workflow is not None:
        partition, accepted = parse_workflow_id(workflow)
        since = max(since, accepted)
    numbers = range(identity.partitions) if partition is None else (partition,)
    for number in numbers:
        opened = partition_folder(folder, number)
        follower = Follower(opened, _of(identity, number), since)
        for batch in follower.poll(to_the_end=True):
            for position, record in batch.records():
                about = claims and isinstance(record, Claimed | Lost)
                about = about or _is_about(record, position, accepted)
                if about and position >= since:
                    yield Entry(number, position, batch.epoch, record)


def tail(
    folder: Folder, *, partition: int = 0, since: int | None = None
) -> Iterator[Sequence[Batch]]:
    """Follow a partition: each `next` yields the batches that are new by then.

    That may be none; the caller waits a little and asks again. It never ends. What
    comes is complete, but possibly not acknowledged. Batches that were trimmed away
    before they were asked for are left out.

    Args:
        folder: Of the journal.
        partition: Which one.
        since: From the batch that holds this position on; if None, only what comes
            behind the end that the first `next` finds.

    Raises:
        JournalFormatError: It is not a journal, or a newer one.
        JournalDamagedError: Stored bytes are not what was written.
    """
    identity = _of(_identity(folder), partition)
    opened = partition_folder(folder, partition)
    if since is None:
        follower = Follower(opened, identity, segment_bases(opened)[-1])
        list(follower.poll())
        yield []
    else:
        follower = Follower(opened, identity, since)
    while True:
        yield list(follower.poll())


def _identity(folder: Folder) -> Identity:
    identity = read_journal_file(folder)
    if identity is None:
        raise JournalFormatError(f"{folder.path} is not a journal")
    return identity


def _of(identity: Identity, partition: int) -> Identity:
    return Identity(identity.journal_id, partition, identity.partitions)


def _is_about(record: Record, position: int, accepted: int | None) -> bool:
    if accepted is None:
        return True
    if isinstance(record, Accepted):
        return position == accepted
    return not isinstance(record, PartitionRecord) and record.workflow == accepted


def _partition_info(folder: Folder, identity: Identity, number: int) -> PartitionInfo:
    partition = partition_folder(folder, number)
    identity = _of(identity, number)
    stored = read_checkpoint(partition, identity)
    return PartitionInfo(
        number=number,
        path=partition.path,
        segments=tuple(_segment_infos(partition, identity)),
        checkpoint=None
        if stored is None
        else CheckpointInfo(low=stored[0].low, end=stored[0].end, size=stored[0].size),
        holder=_holder(partition),
    )


def _holder(partition: Folder) -> str:
    try:
        file = partition.open("LOCK")
    except FileNotFoundError:
        return ""
    try:
        return file.read(0, 1024).decode("utf-8", "replace")
    finally:
        file.close()


def _segment_infos(partition: Folder, identity: Identity) -> Iterator[SegmentInfo]:
    for base in segment_bases(partition):
        name = segment_name(base)
        try:
            file = partition.open(name)
        except FileNotFoundError:
            continue  # Trimmed away since the folder was listed.
        try:
            path = path_in(partition, name)
            header = read_header(file, path, identity, base)
            yield SegmentInfo(
                path=path,
                base=base,
                size=file.size(),
                created_at=header.created_at,
                epoch=header.epoch,
            )
        finally:
            file.close()


def _verify(folder: Folder, identity: Identity) -> PartitionReport:
    try:
        partition = partition_folder(folder, identity.partition)
    except JournalDamagedError as error:
        return PartitionReport(
            number=identity.partition,
            segments=(),
            epochs=None,
            problems=(_problem(error),),
            torn=None,
        )
    return _Verification(partition, identity).run()


def _problem(error: JournalDamagedError) -> Problem:
    return Problem(path=error.path, offset=error.offset, problem=error.problem)


class _Verification:
    """One partition, being read from its oldest segment to the end."""

    def __init__(self, folder: Folder, identity: Identity) -> None:
        self._folder = folder
        self._identity = identity
        self._segments: list[SegmentReport] = []
        self._problems: list[Problem] = []
        self._epochs: tuple[int, int] | None = None
        self._torn: Problem | None = None
        self._before: Chain | None = None
        """Where the segment before ended, if that could be read to its end."""

    def run(self) -> PartitionReport:
        """Read the segments that are there now."""
        checkpoint, known = self._checkpoint()
        bases: list[int] = []
        self._expect(lambda: bases.extend(segment_bases(self._folder)))
        oldest: int | None = None
        for base in bases:
            try:
                self._read(base, closed=base != bases[-1])
            except FileNotFoundError:
                # Trimmed since the folder was listed, and all before it too.
                self._before = None
                continue
            except OSError as error:
                path = path_in(self._folder, segment_name(base))
                self._note(path, 0, str(error))
            oldest = base if oldest is None else oldest
        if known:  # else that was noted, and need not be twice
            self._check_extent(checkpoint, oldest)
        return PartitionReport(
            number=self._identity.partition,
            segments=tuple(self._segments),
            epochs=self._epochs,
            problems=tuple(self._problems),
            torn=self._torn,
        )

    def _read(self, base: int, *, closed: bool) -> None:
        name = segment_name(base)
        path = path_in(self._folder, name)
        file = self._folder.open(name)
        before, self._before = self._before, None
        try:
            header = read_header(file, path, self._identity, base)
            if before is not None:
                self._expect(lambda: check_follows(path, header, before))
            self._read_batches(SegmentReader(file, path, header), path, closed=closed)
        except JournalDamagedError as error:
            self._problems.append(_problem(error))
        except JournalFormatError as error:
            self._note(path, 0, str(error))
        finally:
            file.close()

    def _read_batches(self, reader: SegmentReader, path: str, *, closed: bool) -> None:
        base = reader.chain.end
        batches = 0
        try:
            for batch in reader.batches() if closed else read_live(reader):
                batches += 1
                first, _ = self._epochs or (batch.epoch, 0)
                self._epochs = (first, batch.epoch)
            if closed:
                reader.check_closed()
        finally:
            self._segments.append(
                SegmentReport(
                    path=path,
                    base=base,
                    end=reader.chain.end,
                    batches=batches,
                    records=reader.chain.end - base,
                    size=reader.offset,
                )
            )
        self._before = reader.chain
        if reader.torn:
            self._torn = Problem(
                path=path, offset=reader.offset, problem=reader.problem
            )

    def _checkpoint(self) -> tuple[CheckpointHeader | None, bool]:
        """Read the checkpoint; return it, if there is one, and whether we know."""
        try:
            stored = read_checkpoint(self._folder, self._identity)
        except JournalDamagedError as error:
            self._problems.append(_problem(error))
        except (JournalFormatError, OSError) as error:
            self._note(path_in(self._folder, CHECKPOINT), 0, str(error))
        else:
            return stored and stored[0], True
        return None, False

    def _check_extent(
        self, before: CheckpointHeader | None, oldest: int | None
    ) -> None:
        """Check that what checkpoints speak of was there, from segment *oldest* on.

        The end by the one from before the segments were read, for it grows. The low
        position by the one from after it, for what lies before it is trimmed.
        """
        end = self._segments[-1].end if self._segments else 0
        if before is not None and end < before.end and self._before is not None:
            self._note(
                self._segments[-1].path,
                self._segments[-1].size,
                f"the records end at position {end}, but those before {before.end} "
                f"were durable when the checkpoint was saved",
            )
        after, known = self._checkpoint()
        if known and oldest is not None:
            path = path_in(self._folder, segment_name(oldest))
            self._expect(lambda: check_start(path, oldest, self._identity, after))

    def _expect(self, check: Callable[[], None]) -> None:
        """Note what *check* raises, and go on."""
        try:
            check()
        except JournalDamagedError as error:
            self._problems.append(_problem(error))

    def _note(self, path: str, offset: int, problem: str) -> None:
        self._problems.append(Problem(path=path, offset=offset, problem=problem))
