"""Repair one damaged partition: what is left of it, what that means, and the rest.

    salvage (what can be read) --> fold (`losses`) --> report --> prepare --> stage
    --> finish

Up to `stage` nothing is changed; `segments.rebuild` says what a crash leaves after it.
"""

from collections.abc import Iterator

import msgspec

from coordinator.checkpoint import NO_CHECKPOINT, Checkpoint, decode_checkpoint
from coordinator.errors import (
    DecodeError,
    JournalDamagedError,
    JournalFormatError,
)
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.format import CheckpointHeader
from coordinator.journals.segments.gaps import Gap
from coordinator.journals.segments.reading import Identity
from coordinator.journals.segments.rebuild import size_needed, stage, start
from coordinator.journals.segments.recovery import recover
from coordinator.journals.segments.salvage import Salvaged, batches_in, salvage
from coordinator.losses import Dropped, Losses, Marked
from coordinator.model import Position
from coordinator.records import Record, encode_record
from coordinator.state import PartitionState

__all__ = ["LostPositions", "PartitionRepair", "RepairReport"]

_ALL = 1 << 62
"""Of what ended, nothing is forgotten by a repair."""


class LostPositions(msgspec.Struct, frozen=True, kw_only=True):
    """One gap, as ``--json`` prints it."""

    path: str
    offset: int
    size: int
    first: int
    end: int
    problem: str


class RepairReport(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong with a partition, and what a repair makes of it."""

    partition: int
    problem: str
    """Why it does not open; empty if it does, and only its history is damaged."""
    checkpoint: str
    """What is wrong with the checkpoint; empty if nothing is."""
    lost: tuple[LostPositions, ...]
    unused: tuple[tuple[str, str], ...]
    """Files that are no part of it: path, and why."""
    torn: int
    """Bytes of a tail that was being written: never acknowledged."""
    whole: int
    """Unfinished workflows that have lost nothing: they go on."""
    stuck: tuple[Marked, ...]
    dropped: tuple[Dropped, ...]
    kept: str = ""
    """Folder with the files that were replaced, once that is done."""


class PartitionRepair:
    """One partition, looked at under its lock."""

    def __init__(self, folder: Folder, identity: Identity, at: int) -> None:
        """Look at it; change nothing.

        Args:
            folder: Of the partition, locked by us.
            identity: Of the partition.
            at: Now, in microseconds since 1970.

        Raises:
            JournalFormatError: Something is of a newer format.
            DecodeError: A record is of no kind that this version knows.
            OSError: A file can't be read.
        """
        self.folder = folder
        self.identity = identity
        self._at = at
        self.salvaged: Salvaged = _readable(salvage(folder, identity))
        self._losses = _fold(folder, identity, self.salvaged)
        self.stuck = tuple(self._losses.marked())
        self.dropped = tuple(self._losses.dropped())
        self.problem = _problem(folder, identity)

    @property
    def needed(self) -> bool:
        """Whether anything is wrong."""
        marks = self.stuck or self.dropped
        return bool(self.problem or marks or not self.salvaged.sound)

    def report(self) -> RepairReport:
        """Say what is wrong."""
        salvaged = self.salvaged
        return RepairReport(
            partition=self.identity.partition,
            problem=self.problem,
            checkpoint=salvaged.checkpoint_problem,
            lost=tuple(_plain_gap(gap) for gap in salvaged.gaps),
            unused=salvaged.unused,
            torn=salvaged.torn,
            whole=len(self._losses.state.workflows) - len(self.stuck),
            stuck=self.stuck,
            dropped=self.dropped,
        )

    def prepare(self) -> int:
        """Write the losses into the state; return the bytes that `stage` will write.

        Raises:
            EncodeError: All that is recorded of a workflow is too large for a record.
        """
        size = 0
        begin = start(self.salvaged).end + 1
        state = self._losses.state
        for index, carried in enumerate(self._losses.carry(self._at)):
            size += len(encode_record(carried))
            state.apply(begin + index, carried)
        return size_needed(self.salvaged, size)

    def stage(self, kept: str, *, by: str) -> None:
        """Write all that is new beside the partition, behind `prepare`.

        Args:
            kept: Name of the folder for the files that are replaced.
            by: Who repairs it.

        Raises:
            OSError: The file system failed, or has no space. Nothing was changed.
        """
        state = self._losses.state

        def end(begin: int) -> tuple[list[bytes], int, bytes]:
            workflows = state.workflows.values()
            records = [
                encode_record(workflow.carry(self._at)) for workflow in workflows
            ]
            low, data = state.encode_checkpoint(Position(begin + len(records)))
            return records, low, data

        stage(
            self.folder,
            self.identity,
            self.salvaged,
            end=end,
            kept=kept,
            owner=f"journal repair by {by}",
            at=self._at,
        )


def _readable(salvaged: Salvaged) -> Salvaged:
    """Let go of a checkpoint that is intact and makes no sense: as if it were damaged.

    How far it said that the partition goes still counts.
    """
    if salvaged.checkpoint is None:
        return salvaged
    try:
        _checkpoint_in(*salvaged.checkpoint)
    except DecodeError as error:
        return salvaged._replace(checkpoint=None, checkpoint_problem=str(error))
    return salvaged


def _checkpoint_in(header: CheckpointHeader, content: bytes) -> Checkpoint:
    return decode_checkpoint(content[len(content) - header.size :])


def _problem(folder: Folder, identity: Identity) -> str:
    """Return why the partition does not open; empty if its files are sound."""
    try:
        recover(folder, identity)
    except (JournalDamagedError, JournalFormatError) as error:
        return str(error)
    return ""


def _fold(folder: Folder, identity: Identity, salvaged: Salvaged) -> Losses:
    """Fold all that can be read, from where the engine would."""
    checkpoint = NO_CHECKPOINT
    if salvaged.checkpoint is not None:
        checkpoint = _checkpoint_in(*salvaged.checkpoint)
    elif salvaged.parts:
        low = Position(salvaged.parts[0].base)
        checkpoint = Checkpoint(low, low, [])
    low = checkpoint.low
    losses = Losses(
        PartitionState(
            identity.partition,
            low=low,
            ended=checkpoint.ended,
            ended_before=checkpoint.end,
            ended_max=_ALL,
            ended_size_max=_ALL,
            ended_age_us_max=_ALL,
            lease_ms=checkpoint.lease_ms,
        ),
        ended_before=0 if salvaged.checkpoint is None or salvaged.before else low,
    )
    for gap_or_record in _what_is_there(folder, salvaged, low):
        if isinstance(gap_or_record, Gap):
            losses.lose(gap_or_record)
        else:
            losses.take(*gap_or_record)
    return losses


def _what_is_there(
    folder: Folder, salvaged: Salvaged, low: int
) -> Iterator[Gap | tuple[Position, Record]]:
    """Yield the gaps, and the records that can be read, from *low* on."""
    if salvaged.before is not None:
        yield salvaged.before
    for part in salvaged.parts:
        for piece in part.pieces:
            if isinstance(piece, Gap):
                if piece.end > low:
                    yield piece
            elif piece.behind.end > low:
                for batch in batches_in(folder, part, piece):
                    yield from (one for one in batch.records() if one[0] >= low)


def _plain_gap(gap: Gap) -> LostPositions:
    return LostPositions(
        path=gap.path,
        offset=gap.offset,
        size=gap.size,
        first=gap.first,
        end=gap.end,
        problem=gap.problem,
    )
