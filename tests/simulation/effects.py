"""What may stand in the world once a workflow has ended, by the services' own ledgers.

The journal is asked for no more than how it ended, and what it owns up to.
"""

from tests.simulation.durable import DurableWorkflow
from tests.simulation.services import Effect

from coordinator.model import Direction, EndStatus, StepId

__all__ = ["ENDS", "FORGETFUL", "HEEDLESS", "judge"]

FORGETFUL = frozenset({"Fork"})
"""Types of commands that may not ask again for the call for which `exec` waited alone
when the process died. If neither a `Started` nor an outcome tells of it, what it did
may stay."""
HEEDLESS = frozenset({"Leaky", "Sprint"})
"""Types of commands that may complete without having asked again for what was called.
What they did not ask for, their end has to say."""

ENDS = {
    EndStatus.COMPLETED: "completed",
    EndStatus.COMPENSATED: "refused",
    EndStatus.CANCELLED: "cancelled",
}
"""How clients are told of an end."""


def judge(
    effect: Effect, workflow: DurableWorkflow, step: StepId, direction: int
) -> tuple[str, str]:
    """Return what kind of violation *effect* of *step* is, and what is wrong."""
    finished = workflow.finished
    if finished is None or _is_forgotten(effect, workflow, step):
        return "", ""  # told elsewhere; not promised
    what = f"{step} of workflow {workflow.id} ({workflow.accepted.type})"
    completed = finished.status is EndStatus.COMPLETED
    if not completed:
        if effect.undoable and not effect.undone:
            end = ENDS[finished.status]
            return "leftover", f"{what} is still done, and the workflow is {end}"
    elif effect.undone:
        return "undo", f"{what} is undone, and the workflow is completed"
    elif (*step, direction) not in workflow.outcomes and not _owns_up(workflow, step):
        return "unrecorded", f"{what} was done, and its outcome is not recorded"
    return "", ""


def _is_forgotten(effect: Effect, workflow: DurableWorkflow, step: StepId) -> bool:
    return (
        workflow.accepted.type in FORGETFUL
        and effect.key in workflow.cut_off
        and tuple(step) not in workflow.started
        and (*step, int(Direction.DO)) not in workflow.outcomes
    )


def _owns_up(workflow: DurableWorkflow, step: StepId) -> bool:
    finished = workflow.finished
    return (
        workflow.accepted.type in HEEDLESS
        and finished is not None
        and str(step) in finished.ignored
    )
