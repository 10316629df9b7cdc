"""What people do with unfinished workflows: look, retry, cancel.

    stuck    -- retry --> Resumed, durable   --> runs again
    any      -- cancel -> Cancelled, durable --> steps of which nobody knows are asked
                                                 again, then everything is undone

What follows from a decision stands behind it in the journal, so that no crash leaves
the one without the other; the operator is answered when the decision is durable.
"""

import asyncio
from collections.abc import Callable, Mapping

from coordinator.commit import Durable
from coordinator.errors import (
    JournalUnavailableError,
    UnknownWorkflowError,
    WorkflowStateError,
)
from coordinator.model import WorkflowId, parse_workflow_id
from coordinator.rare import sometimes
from coordinator.records import Cancelled, Record, Resumed
from coordinator.runs import Run, WorkflowInfo

__all__ = ["Operators"]


class Operators:
    """The operators' side of an engine."""

    def __init__(
        self,
        runs: Mapping[WorkflowId, Run],
        resume: Callable[[Run], None],
        now: Callable[[], int],
        due_in_s: Callable[[Run], float | None],
        is_lost: Callable[[int], bool],
    ) -> None:
        """Look after *runs*.

        Args:
            runs: The unfinished workflows; changes under our hands.
            resume: Runs one that is not running, now.
            now: Microseconds since 1970.
            due_in_s: Seconds until a delayed one is tried again.
            is_lost: Whether a partition of the journal is not held at present.
        """
        self._runs = runs
        self._resume = resume
        self._now = now
        self._due_in_s = due_in_s
        self._is_lost = is_lost

    async def retry(self, workflow_id: str, by: str) -> None:
        """Run a stuck workflow again; durable on return.

        Raises:
            UnknownWorkflowError: It is not here, or has ended.
            WorkflowStateError: It is not stuck.
            JournalError: The journal is dead.
        """
        run = self.find(workflow_id)
        if run.state.stuck is None:
            raise WorkflowStateError(
                f"workflow {workflow_id} is {run.state.describe()}, not stuck; there "
                f"is nothing to retry"
            )
        await self._act(run, Resumed(run.state.position, by, self._now()))

    async def cancel(self, workflow_id: str, by: str, reason: str) -> None:
        """Stop a workflow and undo what it did; the decision is durable on return.

        Raises:
            UnknownWorkflowError: It is not here, or has ended.
            WorkflowStateError: It is being undone already.
            JournalError: The journal is dead.
        """
        run = self.find(workflow_id)
        state = run.state
        if state.aborting is not None or state.cancelled is not None:
            raise WorkflowStateError(f"workflow {workflow_id} is being undone already")
        if state.finished is not None:
            raise WorkflowStateError(f"workflow {workflow_id} has just ended")
        await self._act(run, Cancelled(state.position, by, reason, self._now()))

    async def _act(self, run: Run, record: Record) -> None:
        """Write the decision down, and see to it that somebody acts on it."""
        durable: Durable = run.log.append(record)
        if run.task is None:
            self._resume(run)
        elif run.execution is not None and isinstance(record, Cancelled):
            run.execution.steps.cancel()
        else:
            sometimes("decision while a run begins or ends")
        # Else its task has not begun, and will read the decision from the state; or it
        # is ending, and whoever puts the workflow down looks at the state again.
        # Shielded: the person may go away, however long a full disk takes.
        await asyncio.shield(durable)

    def find(self, workflow_id: str) -> Run:
        """Return the unfinished workflow of that id.

        Raises:
            UnknownWorkflowError: It is not here, or has ended.
            JournalUnavailableError: Its partition is not held at present.
        """
        run = self._runs.get(WorkflowId(workflow_id))
        if run is None or not run.durable:
            try:
                number, _ = parse_workflow_id(workflow_id)
            except ValueError as error:
                raise UnknownWorkflowError(str(error)) from error
            if self._is_lost(number):
                raise JournalUnavailableError(
                    f"partition {number}, where workflow {workflow_id} would be, is "
                    f"lost and being opened again; see the server's log, and ask again"
                )
            raise UnknownWorkflowError(
                f"no unfinished workflow {workflow_id} is here; see `coordinator show`"
            )
        return run

    def count(self) -> tuple[int, int]:
        """Return how many workflows are unfinished, and how many of them are stuck."""
        stuck = sum(run.state.stuck is not None for run in self._runs.values())
        return len(self._runs), stuck

    def workflows(self) -> list[WorkflowInfo]:
        """Return all unfinished workflows."""
        return [self._info(run) for run in self._runs.values()]

    def workflow(self, workflow_id: str) -> WorkflowInfo:
        """Return one unfinished workflow.

        Raises:
            UnknownWorkflowError: It is not here, or has ended.
        """
        return self._info(self.find(workflow_id))

    def _info(self, run: Run) -> WorkflowInfo:
        state = run.state
        status = state.describe()
        if state.stuck is None and run.task is None:
            status = "delayed" if status == "running" else f"{status}, delayed"
        return WorkflowInfo(
            id=state.id,
            type=state.accepted.type,
            key=state.accepted.key,
            status=status,
            accepted_at=state.accepted.at,
            outcomes=len(state.outcomes),
            attempts=run.delays,
            reason=state.stuck.reason if state.stuck is not None else run.last_error,
            due_s=self._due_in_s(run),
        )
