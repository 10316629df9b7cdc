"""Read a journal's folder without a server: what is unfinished, and one story.

Nothing is locked or changed, so a running coordinator does not notice. What is read may
not be acknowledged yet.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from coordinator.cli.exits import CliError, ExitCode, exit_code_of
from coordinator.errors import CoordinatorError
from coordinator.journals.segments import inspect
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.journal import read_journal_file
from coordinator.journals.segments.posix import PosixFolder
from coordinator.model import WorkflowId, parse_workflow_id
from coordinator.runs import WorkflowInfo
from coordinator.state import PartitionState
from coordinator.timeline import Timeline, build_timeline

__all__ = ["opened", "partitions", "timeline_of", "unfinished"]

READS_MAX = 10
"""Times that a journal is read which is trimmed while it is read."""


@contextmanager
def opened(path: str) -> Generator[Folder]:
    """Open the journal at *path* for reading; errors become messages and exit codes.

    Raises:
        CliError: It is not a journal, is damaged, or can't be read.
    """
    try:
        if not Path(path).is_dir():
            raise CliError(f"{path} is not a folder", ExitCode.UNAVAILABLE)
        folder = PosixFolder(path)
    except OSError as error:
        raise CliError(f"can't read {path}: {error}", ExitCode.UNAVAILABLE) from error
    try:
        yield folder
    except CoordinatorError as error:
        code = exit_code_of(error)
        # A record that makes no sense was not written by a coordinator.
        damaged = code in {ExitCode.FAILED, ExitCode.USAGE}
        raise CliError(str(error), ExitCode.DAMAGED if damaged else code) from error
    except OSError as error:
        raise CliError(f"can't read {path}: {error}", ExitCode.UNAVAILABLE) from error


def timeline_of(folder: Folder, workflow_id: str) -> Timeline:
    """Return the story of one workflow.

    Raises:
        CliError: It is not in the journal (any more).
        ValueError: *workflow_id* is not one.
        CoordinatorError: The journal can't be read.
    """
    id_ = WorkflowId(workflow_id)
    partition, _ = parse_workflow_id(workflow_id)
    identity = read_journal_file(folder)
    timeline = None
    if identity is None or partition < identity.partitions:
        entries = inspect.dump(folder, workflow=id_, claims=True)
        timeline = build_timeline(id_, (entry.record for entry in entries))
    if timeline is None:
        raise CliError(
            f"no workflow {workflow_id} is in {folder.path}; it never was, or ended "
            f"longer ago than the journal's retention",
            ExitCode.NOT_FOUND,
        )
    return timeline


def unfinished(folder: Folder) -> Iterator[WorkflowInfo]:
    """Yield the workflows that have not ended, as the next start would find them.

    Raises:
        CoordinatorError: The journal can't be read.
    """
    for partition in partitions(folder):
        for workflow in partition.workflows.values():
            stuck = workflow.stuck
            yield WorkflowInfo(
                id=workflow.id,
                type=workflow.accepted.type,
                key=workflow.accepted.key,
                status=workflow.describe(),
                accepted_at=workflow.accepted.at,
                outcomes=len(workflow.outcomes),
                attempts=0,
                reason="" if stuck is None else stuck.reason,
                due_s=None,
            )


def partitions(folder: Folder) -> Iterator[PartitionState]:
    """Yield the state of each partition, read when it is its turn.

    Raises:
        CoordinatorError: The journal can't be read.
    """
    for partition in inspect.info(folder).partitions:
        yield _read(folder, partition)


def _read(folder: Folder, partition: inspect.PartitionInfo) -> PartitionState:
    """Read a partition from its checkpoint on, though its writer trims it meanwhile.

    A newer checkpoint lets segments go that we are about to read; what follows them
    speaks of workflows that we have not heard of, as damage would. So if the checkpoint
    has moved, it is read again.

    Raises:
        CoordinatorError: The journal can't be read.
    """
    for _ in range(READS_MAX - 1):
        try:
            return _read_from(folder, partition)
        except CoordinatorError:
            again = inspect.info(folder).partitions[partition.number]
            if again.checkpoint == partition.checkpoint:
                raise
            partition = again
    return _read_from(folder, partition)


def _read_from(folder: Folder, partition: inspect.PartitionInfo) -> PartitionState:
    low = partition.checkpoint.low if partition.checkpoint is not None else 0
    state = PartitionState(partition.number, low=low)
    for entry in inspect.dump(folder, partition=partition.number, since=low):
        state.apply(entry.position, entry.record)
    return state
