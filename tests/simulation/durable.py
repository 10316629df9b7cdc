"""One workflow as the journal durably says, folded by rules of the checker's own.

They say the same as ``coordinator.state`` in other words, and know nothing of it: a
mistake that both make would have to be made twice.
"""

from dataclasses import dataclass, field

from coordinator.model import Direction, EndStatus, OutcomeStatus
from coordinator.records import (
    Aborting,
    Accepted,
    Cancelled,
    Carried,
    Finished,
    Outcome,
    Resumed,
    Started,
    Stuck,
    WorkflowRecord,
)

__all__ = ["DurableWorkflow"]


@dataclass
class DurableWorkflow:
    """What the journal durably says of one workflow, and who is calling for it."""

    id: str
    position: int
    accepted: Accepted
    outcomes: dict[tuple[str, int, int], Outcome] = field(
        default_factory=dict[tuple[str, int, int], Outcome]
    )
    late: bool = False
    """It came in while the process drained: this process is to call nothing of it."""
    cancelled: bool = False
    aborting: bool = False
    stuck: bool = False
    resuming: bool = False
    """A person asked for it to go on, in this life; that need not be durable yet."""
    finished: Finished | None = None
    calls: dict[str, int] = field(default_factory=dict[str, int])
    """Keys of the calls under way, with their directions."""
    cut_off: set[str] = field(default_factory=set[str])
    """Keys of the calls that a process made which ended, and that none made since."""
    made: set[str] = field(default_factory=set[str])
    """Keys of the calls made in this life."""
    started: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    """What a `Started` names."""
    undoable: dict[tuple[str, int], str] = field(
        default_factory=dict[tuple[str, int], str]
    )
    """Steps that were called in any life and can be undone, with their keys."""

    def standing(self) -> list[tuple[str, int]]:
        """Return the undoable steps that are done and not undone, in journal order."""
        return [
            (step, occurrence)
            for (step, occurrence, direction), outcome in self.outcomes.items()
            if direction == Direction.DO
            and outcome.status is OutcomeStatus.DONE
            and (step, occurrence, int(Direction.UNDO)) not in self.outcomes
            and (step, occurrence) in self.undoable
        ]

    def take(self, record: WorkflowRecord) -> tuple[str, str]:
        """Fold *record* in; return what kind of violation it is, and what is wrong."""
        kind, problem = "state", ""
        match record:
            case Outcome():
                problem = self._check_outcome(record)
                key = (record.step, record.occurrence, int(record.direction))
                self.outcomes.setdefault(key, record)
            case Aborting():
                kind, problem = "undo", self._check_aborting()
                self.aborting = True
            case Finished():
                problem = self._check_finished(record)
                self.finished = record
            case Carried():
                carried = {
                    (o.step, o.occurrence, int(o.direction)): o for o in record.outcomes
                }
                if list(carried.items()) != list(self.outcomes.items()):
                    problem = "carries other outcomes"
            case Started():
                self.started |= set(record.steps)
                if self.aborting or self.stuck:
                    problem = "comes while nothing may start"
            case Cancelled() | Stuck() | Resumed():
                problem = self._take_persons_word(record)
        return kind, problem

    def _check_outcome(self, record: Outcome) -> str:
        key = (record.step, record.occurrence, int(record.direction))
        if key in self.outcomes:
            return "is there twice"
        if (record.direction is Direction.UNDO) is not self.aborting:
            return "comes on the wrong side of Aborting"
        return ""

    def _check_aborting(self) -> str:
        if self.calls:
            return f"comes while {', '.join(self.calls)} is under way"
        return "comes twice" if self.aborting else ""

    def _take_persons_word(self, record: Cancelled | Stuck | Resumed) -> str:
        """Fold in what only people cause, and what only people end."""
        was_stuck, self.stuck = self.stuck, isinstance(record, Stuck)
        if not self.stuck:
            self.resuming = False
        match record:
            case Stuck():
                return "comes twice" if was_stuck else ""
            case Resumed():
                return "" if was_stuck else "comes while it is not stuck"
            case Cancelled():
                self.cancelled = True
                return "comes after Aborting" if self.aborting else ""

    def _check_finished(self, record: Finished) -> str:
        if self.finished is not None:
            return "comes twice"
        if self.stuck:
            return "comes while it is stuck"
        if self.calls:
            return f"comes while {', '.join(self.calls)} is under way"
        completed = record.status is EndStatus.COMPLETED
        if completed is (self.aborting or self.cancelled):
            return "does not fit how it went"
        if not completed and self.standing():
            return f"comes while {self.standing()} stands"
        return ""
