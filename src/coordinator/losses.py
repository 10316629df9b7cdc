"""What is still known of each workflow when records of its partition are lost.

The records that are left are folded by `state`, as at every start. What that refuses,
because the record that it follows is lost, is put right where there is one way to do
so, and its workflow is marked:

    left                             then lost was      so
    -------------------------------  -----------------  ----------------------------
    anything but Resumed, if stuck   Resumed            it is resumed
    an undo's outcome, or an end     Aborting           it is aborting: undoing had
    that is not COMPLETED                               begun, so it can't complete
    anything, of an unknown          Accepted           dropped; a `Carried` behind
    workflow                                            it brings all of it back
    anything else                    something          passed over

Nobody knows of whom a lost record was, unless the bad bytes can be read and say so for
each position. If they don't, every workflow that was open at the gap may have lost one,
a decision to undo among them: so each ends stuck, for a person to decide, and says why.
One that was written whole behind the gap (`Carried`), or ended there, has lost nothing.
"""

from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple, Protocol

import msgspec

from coordinator.model import (
    Direction,
    EndStatus,
    OutcomeStatus,
    StepId,
    WorkflowId,
    format_workflow_id,
)
from coordinator.records import (
    Aborting,
    Accepted,
    Cancelled,
    Carried,
    Finished,
    Outcome,
    PartitionRecord,
    Record,
    Resumed,
    Started,
    Stuck,
    WorkflowRecord,
)
from coordinator.state import InvalidRecordError, PartitionState, WorkflowState

__all__ = ["Dropped", "Losses", "LostRecords", "Marked", "describe_lost"]

BY = "journal repair"
"""Who resumed what can't have gone on otherwise."""
_SAID_MAX = 20
"""Losses that one workflow's reason names; it says how many more there are."""


class LostRecords(Protocol):
    """Positions whose records can't be read."""

    @property
    def first(self) -> int:
        """The first one."""
        ...

    @property
    def end(self) -> int:
        """Behind the last one."""
        ...

    @property
    def held(self) -> tuple[tuple[int, Record], ...]:
        """What seems to have been there."""
        ...

    @property
    def complete(self) -> bool:
        """Whether that is said of each position."""
        ...

    @property
    def where(self) -> str:
        """File and bytes."""
        ...


class Marked(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow that may have lost records: it will be stuck."""

    id: WorkflowId
    type: str
    key: str
    losses: tuple[str, ...]
    """What is lost, or may be, and what that means."""


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow whose beginning is lost: it can't go on."""

    id: WorkflowId
    type: str
    """As far as the bad bytes say; empty if they don't. So is `key`."""
    key: str
    recorded: tuple[str, ...]
    """What is recorded of it, in spite: services did that."""


class _Gone(NamedTuple):
    """A workflow that nothing describes."""

    accepted: Accepted | None
    """What seems to have been its beginning."""
    records: list[Record]


class Losses:
    """Folds what is left of one partition; feed it all records and gaps, in order.

    Attributes:
        state: What is known.
    """

    def __init__(self, state: PartitionState, *, ended_before: int) -> None:
        """Begin where *state* stands.

        Args:
            state: As a checkpoint says, or an empty one.
            ended_before: What was accepted before this position, and is not known, had
                ended; 0 if nothing says so.
        """
        self.state = state
        self._ended_before = ended_before
        self._marked: dict[int, list[str]] = {}
        self._gone: dict[int, _Gone] = {}
        self._last: LostRecords | None = None
        self._outcomes: Counter[int] = Counter()
        """How many outcomes of each workflow are lost, as far as they are named."""

    def lose(self, gap: LostRecords) -> None:
        """Take note that the records of *gap* are lost."""
        self._last = gap
        said = _positions(gap)
        named: dict[int, list[str]] = {}
        for position, record in gap.held:
            if isinstance(record, Accepted):
                self._gone[position] = _Gone(record, [])
            elif not isinstance(record, PartitionRecord):
                self._outcomes[record.workflow] += isinstance(record, Outcome)
                what = f"{describe_lost(record, position)} (in {gap.where})"
                named.setdefault(record.workflow, []).append(what)
        workflows = self.state.workflows
        for workflow, losses in named.items():
            if workflow in workflows:
                self._mark(workflow, *losses)
        if not gap.complete:
            for workflow in workflows.keys() - named.keys():
                self._mark(
                    workflow, f"{said} are lost, of which any may have been its own"
                )

    def take(self, position: int, record: Record) -> None:
        """Fold the record at *position* in."""
        if isinstance(record, PartitionRecord | Accepted):
            self._apply(position, record)
            return
        workflow = record.workflow
        known = workflow in self.state.workflows
        if isinstance(record, Carried):
            self._gone.pop(workflow, None)
            if not known:
                # By its beginning, as if that were there: it may not be an old one.
                self._apply(workflow, record.accepted)
            self._apply(position, record)
            self._marked.pop(workflow, None)
            self._outcomes.pop(workflow, None)
            return
        if not known:
            if isinstance(record, Finished):
                self._gone.pop(workflow, None)
            elif workflow >= self._ended_before:
                gone = self._gone.setdefault(workflow, _Gone(None, []))
                gone.records.append(record)
            return
        state = self.state.workflows[workflow]
        self._make_way(state, record)
        known_steps = set(state.started)
        if not self._apply(position, record):
            self._mark(workflow, self._why(record))
        elif isinstance(record, Finished):
            self._marked.pop(workflow, None)
        if state.started.keys() - known_steps:
            # It counts the outcomes before it. Those that are lost come again before
            # `exec` asks for it, and must not be kept from it until then.
            lost = self._outcomes[workflow]
            state.started = {
                step: before if step in known_steps else before + lost
                for step, before in state.started.items()
            }

    def marked(self) -> Iterator[Marked]:
        """Yield the unfinished workflows that may have lost something."""
        for workflow, losses in self._marked.items():
            state = self.state.workflows[workflow]
            yield Marked(
                id=state.id,
                type=state.accepted.type,
                key=state.accepted.key,
                losses=tuple(losses),
            )

    def dropped(self) -> Iterator[Dropped]:
        """Yield the workflows that can't go on, for nothing says what they are."""
        for workflow, gone in self._gone.items():
            accepted = gone.accepted
            yield Dropped(
                id=format_workflow_id(self.state.number, workflow),
                type="" if accepted is None else accepted.type,
                key="" if accepted is None else accepted.key,
                recorded=tuple(_recorded(record) for record in gone.records),
            )

    def carry(self, at: int) -> Iterator[Carried]:
        """Yield all unfinished workflows, those that are marked stuck.

        Args:
            at: Now, in microseconds since 1970.
        """
        for workflow, state in self.state.workflows.items():
            carried = state.carry(at)
            losses = self._marked.get(workflow)
            if losses:
                reason = _reason(losses, carried.stuck)
                stuck = Stuck(workflow=workflow, reason=reason, at=at)
                carried = msgspec.structs.replace(carried, stuck=stuck)
            yield carried

    def _apply(self, position: int, record: Record) -> bool:
        try:
            self.state.apply(position, record)
        except InvalidRecordError:
            return False
        return True

    def _make_way(self, state: WorkflowState, record: WorkflowRecord) -> None:
        """Put back what *record* shows to be lost before it."""
        workflow = state.position
        if state.stuck is not None and not isinstance(record, Resumed | Cancelled):
            state.apply(Resumed(workflow=workflow, by=BY, at=record.at))
            self._mark(workflow, self._why(record))
        undo = isinstance(record, Outcome) and record.direction is Direction.UNDO
        end = isinstance(record, Finished) and record.status is not EndStatus.COMPLETED
        if state.aborting is None and (undo or end):
            state.apply(
                Aborting(
                    workflow=workflow,
                    reason="the decision to undo is lost; what followed it is not",
                    at=record.at,
                    refusal=_refusal_in(state),
                )
            )
            self._mark(workflow, self._why(record))

    def _why(self, record: Record) -> str:
        name = type(record).__name__
        if self._last is None:
            return f"its {name} can't follow what is recorded before it"
        return (
            f"its {name} follows what is lost; {_positions(self._last)} are, before it"
        )

    def _mark(self, workflow: int, *losses: str) -> None:
        self._marked.setdefault(workflow, []).extend(losses)


def describe_lost(record: Record, position: int) -> str:
    """Say what it means that *record*, once at *position*, is lost."""
    match record:
        case Outcome(status=OutcomeStatus.NOTED):
            return f"the note {record.step} at position {position} is lost"
        case Outcome():
            step = StepId(record.step, record.occurrence)
            undo = "the undo of " if record.direction is Direction.UNDO else ""
            return (
                f"the outcome of {undo}{step} at position {position} is lost: it will "
                f"be asked for again under its key"
            )
        case Finished():
            return (
                f"its end at position {position} is lost: it had ended, and services "
                f"will be asked under the same keys until it ends again"
            )
        case Aborting():
            return (
                f"the decision to undo it at position {position} is lost "
                f"({record.reason})"
            )
        case Cancelled():
            return f"that {record.by} cancelled it, at position {position}, is lost"
        case Started():
            steps = ", ".join(str(StepId(*step)) for step in record.steps)
            return (
                f"that it called {steps}, at position {position}, is lost: nobody "
                f"waits for what these did"
            )
        case _:
            return f"its {type(record).__name__} at position {position} is lost"


def _positions(gap: LostRecords) -> str:
    last = gap.end - 1
    records = f"{gap.first} to {last}" if last > gap.first else f"{last}"
    return f"records {records} ({gap.where})"


def _recorded(record: Record) -> str:
    if isinstance(record, Outcome):
        undo = "the undo of " if record.direction is Direction.UNDO else ""
        done = record.status.name.lower()
        return f"{undo}{StepId(record.step, record.occurrence)}: {done}"
    return type(record).__name__


def _refusal_in(state: WorkflowState) -> bytes:
    """Return what the client will get: the last refusal, if one is recorded."""
    found = b""
    if state.cancelled is None:
        for _, outcome in state.steps():
            if outcome.status is OutcomeStatus.REFUSED:
                found = outcome.value
    return found


def _reason(losses: list[str], before: Stuck | None) -> str:
    said = losses[:_SAID_MAX]
    if len(losses) > len(said):
        said.append(f"and {len(losses) - len(said)} more")
    reason = (
        f"the journal was repaired: {'; '.join(said)}. See `coordinator show`; "
        f"`coordinator retry` lets it go on, `coordinator cancel` undoes it"
    )
    return reason if before is None else f"{before.reason}\n{reason}"
