"""``coordinator journal forget-checkpoint``: go on without a damaged checkpoint.

See `coordinator.journals.segments.repair` for what is done, and what is lost.
"""

import os
import socket

import msgspec

from coordinator.cli.exits import CliError, ExitCode
from coordinator.cli.offline import opened
from coordinator.cli.output import confirmed, emit_lines
from coordinator.cli.remote import folder_of, operator_name
from coordinator.errors import JournalFormatError
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.journal import read_journal_file
from coordinator.journals.segments.reading import Identity
from coordinator.journals.segments.recovery import partition_folder
from coordinator.journals.segments.repair import checkpoint_problem, forget_checkpoint
from coordinator.model import Position
from coordinator.state import PartitionState

__all__ = ["forget"]


def forget(journal: str, *, partition: int | None, yes: bool) -> ExitCode:
    """Replace the damaged checkpoints, or that of *partition*, by empty ones.

    Raises:
        CliError: It is not a journal, is in use, or its segments are damaged; there is
            no such partition, or the answer was no. Nothing was changed.
    """
    with opened(folder_of(journal)) as folder:
        found = _damaged(folder, partition)
        if not found:
            emit_lines([[("every checkpoint is sound: nothing to forget", "")]])
            return ExitCode.OK
        emit_lines([[(problem, "red")] for _, problem in found])
        if not yes and not confirmed(
            "Keys and results of commands that ended before the oldest segment are "
            "forgotten, all else is in the segments. Go on?"
        ):
            raise CliError("nothing was changed", ExitCode.FAILED)
        for identity, _ in found:
            _forget(folder, identity)
    return ExitCode.OK


def _damaged(folder: Folder, partition: int | None) -> list[tuple[Identity, str]]:
    identity = read_journal_file(folder)
    if identity is None:
        raise JournalFormatError(f"{folder.path} is not a journal")
    if partition is not None and partition >= identity.partitions:
        raise CliError(
            f"there is no partition {partition}; the journal has "
            f"{identity.partitions}, from 0",
            ExitCode.USAGE,
        )
    numbers = range(identity.partitions) if partition is None else (partition,)
    problems = (
        (one, checkpoint_problem(partition_folder(folder, one.partition), one))
        for one in (msgspec.structs.replace(identity, partition=n) for n in numbers)
    )
    return [(one, problem) for one, problem in problems if problem]


def _forget(folder: Folder, identity: Identity) -> None:
    number = identity.partition

    def empty(low: int) -> bytes:
        _, data = PartitionState(number, low=low).encode_checkpoint(Position(low))
        return data

    done = forget_checkpoint(
        partition_folder(folder, number),
        identity,
        empty=empty,
        holder=f"pid {os.getpid()} on {socket.gethostname()} "
        f"({operator_name()}, forget-checkpoint)",
    )
    if done is not None:  # else somebody else was quicker
        kept = f"; the damaged one is {done.kept}" if done.kept else ""
        said = f"is read from position {done.low} on now{kept}"
        emit_lines([[(f"partition {number}: ", "bold"), (said, "")]])
