"""What is known of each workflow: records in, state out, and nothing else changes it.

The engine applies a record when it appends it, recovery when it reads it: the same
function, in the same order, so what is recovered is what was.

    record     may follow                                      and then
    ---------  ----------------------------------------------  ------------------------
    Accepted   nothing                                         running
    Outcome    Accepted, until Aborting (DO) or after it       the step is known; its
               (UNDO); once per step and direction             value is replayed
    Started    Accepted, until Aborting, Stuck or Finished     outcomes behind it wait
                                                               until it is asked for
    Cancelled  anything but Aborting, Cancelled, Finished      running, on its way back
    Aborting   anything but Aborting, Stuck, Finished          aborting: only undos
    Stuck      anything but Stuck, Finished                    waits for a person
    Resumed    Stuck                                           as before Stuck
    Finished   COMPLETED: neither Cancelled nor Aborting;      ended, forgotten but for
               else: Aborting; never Stuck                     its key and result
    Carried    anything but Finished; replaces the state       as it says

About the partition are

    Claimed    anything                                        its epoch, and its lease
                                                               if that is the longest
    Held       anything                                        as before
    Released   anything                                        nobody acts: no lease;
                                                               Claimed is to follow
    Lost       anything                                        as before; a repair's

A record about a workflow that is not known is that of a finished one, if it was
accepted before the checkpoint; otherwise the journal is not ours.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias, TypeGuard, assert_never

import msgspec

from coordinator.checkpoint import Checkpoint, Ended, encode_checkpoint
from coordinator.errors import CoordinatorError
from coordinator.model import (
    Direction,
    EndStatus,
    OutcomeStatus,
    Position,
    StepId,
    WorkflowId,
    format_workflow_id,
)
from coordinator.records import (
    Aborting,
    Accepted,
    Cancelled,
    Carried,
    Claimed,
    Finished,
    Held,
    Lost,
    Outcome,
    PartitionRecord,
    Record,
    Released,
    Resumed,
    Started,
    Stuck,
    WorkflowRecord,
)
from coordinator.sharing import shared_map

__all__ = [
    "InvalidRecordError",
    "OutcomeKey",
    "PartitionState",
    "WorkflowState",
]

OutcomeKey: TypeAlias = tuple[str, int] | tuple[str, int, int]
"""A `StepId`; with a third element for what is not a step's own outcome: `_UNDO` for
that of its undo, `_NOTED` for what `exec` wrote down itself."""

# Before Python 3.12 each look at a member through its class runs Python code.
_DO, _UNDO = Direction.DO, Direction.UNDO
_DONE, _NOTED = OutcomeStatus.DONE, OutcomeStatus.NOTED

_Turn: TypeAlias = Finished | Aborting | Stuck | Resumed | Cancelled | Started | Carried
"""Records that change more of a workflow's state than what is known of a step."""


class InvalidRecordError(CoordinatorError):
    """A record can't follow the ones before it: a bug, or not our journal."""


class WorkflowState(msgspec.Struct, gc=False):
    """One unfinished workflow, as far as the journal tells.

    ``gc=False`` spares the collector 100,000 parked workflows; nothing in here can be
    part of a cycle.
    """

    id: WorkflowId
    position: Position
    accepted: Accepted
    first: Position
    """No record before this position is needed to rebuild this state."""
    outcomes: dict[OutcomeKey, Outcome] = {}
    """In the order of the journal."""
    cancelled: Cancelled | None = None
    aborting: Aborting | None = None
    stuck: Stuck | None = None
    finished: Finished | None = None
    started: Mapping[StepId, int] = {}
    """The steps that a `Started` names, in order; how many outcomes came before it."""

    def outcome(
        self, step: StepId, direction: Direction = Direction.DO
    ) -> Outcome | None:
        """Return what is recorded of *step*, if anything."""
        if direction is _DO:
            return self.outcomes.get(step)
        return self.outcomes.get((step.name, step.occurrence, _UNDO))

    def standing(self) -> list[StepId]:
        """Return the steps whose effect is still in the world, in journal order."""
        return [
            step
            for step, outcome in self.steps()
            if outcome.status is _DONE and self.outcome(step, _UNDO) is None
        ]

    def steps(self) -> Iterator[tuple[StepId, Outcome]]:
        """Yield the steps that have an outcome, in journal order."""
        for key, outcome in self.outcomes.items():
            if len(key) == 2:
                yield StepId(*key), outcome

    def unknown(self) -> list[StepId]:
        """Return the steps that a `Started` names and that have no outcome."""
        return [step for step in self.started if step not in self.outcomes]

    def carry(self, at: int) -> Carried:
        """Return a record that says all of this state again."""
        return Carried(
            workflow=self.position,
            at=at,
            accepted=self.accepted,
            outcomes=tuple(self.outcomes.values()),
            cancelled=self.cancelled,
            aborting=self.aborting,
            stuck=self.stuck,
            started=self._started_by_outcomes(),
        )

    def _started_by_outcomes(self) -> tuple[tuple[tuple[str, int], ...], ...]:
        groups: list[list[tuple[str, int]]] = []
        for step, before in self.started.items():
            groups += ([] for _ in range(before + 1 - len(groups)))
            groups[before].append((step.name, step.occurrence))
        return tuple(map(tuple, groups))

    def apply(self, record: Record) -> None:
        """Change the state as *record* says; see the table in this module's docstring.

        Raises:
            InvalidRecordError: *record* can't follow. The state is unchanged.
        """
        if isinstance(record, Outcome):
            self.learn(record)
        elif self.finished is None and self._may_follow(record):
            self._turn(record)
        else:
            raise self._invalid(record)

    def learn(self, outcome: Outcome) -> None:
        """Do what `apply` does, for the records that are most.

        Raises:
            InvalidRecordError: As `apply`.
        """
        key: OutcomeKey = (outcome.step, outcome.occurrence)
        if outcome.direction is _UNDO or outcome.status is _NOTED:
            key = _key(outcome)
        if (
            key in self.outcomes
            or (outcome.direction is _UNDO) is (self.aborting is None)
            or self.stuck is not None
            or self.finished is not None
        ):
            raise self._invalid(outcome)
        self.outcomes[key] = outcome

    def _turn(self, record: _Turn) -> None:
        match record:
            case Finished():
                self.finished = record
            case Aborting():
                self.aborting = record
            case Stuck():
                self.stuck = record
            case Resumed():
                self.stuck = None
            case Cancelled():
                self.cancelled = record
                self.stuck = None
            case Started():
                self.started = self._named(record)
            case Carried():
                self.outcomes = {_key(outcome): outcome for outcome in record.outcomes}
                self.cancelled = record.cancelled
                self.aborting = record.aborting
                self.stuck = record.stuck
                self.started = {
                    StepId(name, occurrence): before
                    for before, steps in enumerate(record.started)
                    for name, occurrence in steps
                }
            case _:
                assert_never(record)

    def _named(self, record: Started) -> Mapping[StepId, int]:
        """Return `started` with what *record* names."""
        started = dict(self.started)
        for step in record.steps:
            started.setdefault(StepId(*step), len(self.outcomes))
        return started if len(started) > 1 else shared_map(started)

    def _may_follow(self, record: Record) -> TypeGuard[_Turn]:
        match record:
            case Finished(status=EndStatus.COMPLETED):
                turned = self.aborting is not None or self.cancelled is not None
                return self.stuck is None and not turned
            case Finished():
                return self.stuck is None and self.aborting is not None
            case Aborting():
                return self.stuck is None and self.aborting is None
            case Stuck():
                return self.stuck is None
            case Resumed():
                return self.stuck is not None
            case Cancelled():
                return self.cancelled is None and self.aborting is None
            case Started():
                return self.stuck is None and self.aborting is None
            case Carried():
                return True
            case Accepted() | Claimed() | Held() | Lost() | Outcome() | Released():
                return False
            case _:
                assert_never(record)

    def _invalid(self, record: Record) -> InvalidRecordError:
        return InvalidRecordError(
            f"workflow {self.id}: {record} can't follow {self.describe()}"
        )

    def describe(self) -> str:
        """Return the state in a word, for messages."""
        if self.finished is not None:
            return self.finished.status.name.lower()
        if self.stuck is not None:
            return "stuck"
        if self.aborting is not None:
            return "aborting"
        return "cancelling" if self.cancelled is not None else "running"


def _key(outcome: Outcome) -> OutcomeKey:
    if outcome.direction is _UNDO:
        return (outcome.step, outcome.occurrence, _UNDO)
    if outcome.status is _NOTED:
        return (outcome.step, outcome.occurrence, _NOTED)
    return (outcome.step, outcome.occurrence)


AGED_PER_END = 2
"""How many results one end makes forgotten for their age. More than one: they grow old
as fast as they come. Not all: who reads a clock that is two days ahead, once, would
lose every key."""


class PartitionState:
    """All that is known of one partition: unfinished workflows, keys, recent results.

    Attributes:
        workflows: The unfinished ones, by position.
        epoch: Of the last claim read.
        lease_ms: The longest lease of an owner since the last that said, by `Released`,
            that nobody acts on the partition any more; 0 if none had one.
        earlier_lease_ms: That before the last claim: whoever made it waits for as long
            before it turns back what it found.
    """

    def __init__(
        self,
        number: int,
        *,
        low: int = 0,
        ended: Iterable[Ended] = (),
        ended_before: int = 0,
        ended_max: int = 100_000,
        ended_size_max: int = 64 * 1024 * 1024,
        ended_age_us_max: int = 24 * 3600 * 1_000_000,
        lease_ms: int = 0,
    ) -> None:
        """Start from a checkpoint, or from nothing.

        Args:
            number: Of the partition.
            low: Where reading starts. Records about workflows accepted before it, and
                not carried over, are those of finished ones.
            ended: Keyed workflows that had ended at the checkpoint, oldest first.
            ended_before: The checkpoint's end. What finished before it is in *ended*,
                or was forgotten: read once more behind what is newer, it would push
                that out, or be given out again.
            ended_max: How many ended ones are remembered, at most.
            ended_size_max: How many bytes of results and keys, at most. The newest
                result is remembered whatever its size: its caller may have lost it.
            ended_age_us_max: For how long, at most, in microseconds.
            lease_ms: As the checkpoint says.
        """
        self.number = number
        self.workflows: dict[int, WorkflowState] = {}
        self.epoch = 0
        self.lease_ms = self.earlier_lease_ms = lease_ms
        self._low = low
        self._keys: dict[tuple[str, str], WorkflowState] = {}
        self._ended: OrderedDict[tuple[str, str], Ended] = OrderedDict(
            ((e.type, e.key), e) for e in ended
        )
        self._ended_size = sum(ended.size for ended in self._ended.values())
        self._ended_before = ended_before
        self._ended_max = ended_max
        self._ended_size_max = ended_size_max
        self._ended_age_us_max = ended_age_us_max

    def apply(self, position: int, record: Record) -> WorkflowState | None:
        """Fold the record at *position* in.

        Returns:
            The workflow it is about, finished ones for the last time; None for what is
            about the partition, and for a workflow that had finished before the
            checkpoint.

        Raises:
            InvalidRecordError: It can't follow the ones before it.
        """
        if isinstance(record, Outcome):  # most are: the short way
            state = self.workflows.get(record.workflow)
            if state is not None:
                state.learn(record)
                return state
        elif isinstance(record, Accepted):
            return self._accept(position, record)
        elif isinstance(record, PartitionRecord):
            self._pass_on(record)
            return None
        state = self.workflows.get(record.workflow) or self._unknown(position, record)
        if state is None:
            return None
        state.apply(record)
        if isinstance(record, Finished):
            self._finish(position, state, record)
        elif isinstance(record, Carried):
            state.first = Position(position)
        return state

    def _pass_on(self, record: PartitionRecord) -> None:
        """Note what *record* says of owners: which is the last, and who may still act.

        What lies before a checkpoint's end is in its lease, and read again changes
        nothing: if there is a Released among it, from there on; else it is no longer.
        """
        if isinstance(record, Claimed):
            self.epoch = record.epoch
            self.earlier_lease_ms = self.lease_ms
            self.lease_ms = max(self.lease_ms, record.lease_ms)
        elif isinstance(record, Released):
            self.lease_ms = 0

    def _unknown(self, position: int, record: WorkflowRecord) -> WorkflowState | None:
        """Return the state for a record about a workflow that is not known.

        Raises:
            InvalidRecordError: It ought to be.
        """
        if record.workflow >= self._low:
            raise InvalidRecordError(
                f"{record} at position {position}: no such workflow"
            )
        if isinstance(record, Carried):
            return self._accept(record.workflow, record.accepted)
        return None

    def _finish(self, position: int, state: WorkflowState, finished: Finished) -> None:
        del self.workflows[state.position]
        if state.accepted.key:
            self._keys.pop((state.accepted.type, state.accepted.key), None)
            if position >= self._ended_before:
                self._remember(state, finished)

    def _accept(self, position: int, accepted: Accepted) -> WorkflowState:
        first = Position(position)
        id_ = format_workflow_id(self.number, position)
        state = WorkflowState(id_, first, accepted, first)
        if position in self.workflows:
            raise InvalidRecordError(f"workflow {state.id} is accepted twice")
        self.workflows[position] = state
        if accepted.key:
            self._keys[accepted.type, accepted.key] = state
        return state

    def _remember(self, state: WorkflowState, finished: Finished) -> None:
        """Keep the result, as the newest."""
        accepted = state.accepted
        key = (accepted.type, accepted.key)
        before = self._ended.pop(key, None)
        ended = self._ended[key] = Ended(
            type=accepted.type,
            key=accepted.key,
            position=state.position,
            status=finished.status,
            value=finished.value,
            at=finished.at,
        )
        self._ended_size += ended.size - (0 if before is None else before.size)
        self._forget(finished.at)

    def _forget(self, now: int) -> None:
        """Drop what is beyond the limits, oldest first."""
        ended = self._ended
        while len(ended) > self._ended_max or (
            self._ended_size > self._ended_size_max and len(ended) > 1
        ):
            self._forget_oldest()
        for _ in range(AGED_PER_END):
            if not ended or not self._is_old(next(iter(ended.values())), now):
                break
            self._forget_oldest()

    def _forget_oldest(self) -> None:
        _, ended = self._ended.popitem(last=False)
        self._ended_size -= ended.size

    def _is_old(self, ended: Ended, now: int) -> bool:
        return ended.at < now - self._ended_age_us_max

    def find(self, type_: str, key: str, now: int = 0) -> WorkflowState | Ended | None:
        """Return the workflow of that key: running, or ended and still remembered.

        Args:
            type_: Of the command.
            key: Of the command.
            now: Microseconds since 1970, by which a result may be too old. It is not
                forgotten by this: whoever ends next sees to that.
        """
        state = self._keys.get((type_, key))
        if state is not None:
            return state
        ended = self._ended.get((type_, key))
        return None if ended is None or self._is_old(ended, now) else ended

    def low(self, end: Position) -> Position:
        """Return the position before which no unfinished workflow has a record.

        *end*, the position behind the last record, if there is no unfinished one.
        """
        return min((state.first for state in self.workflows.values()), default=end)

    def older_than(self, position: int) -> Iterator[WorkflowState]:
        """Yield the unfinished workflows that need records before *position*."""
        return (s for s in self.workflows.values() if s.first < position)

    def encode_checkpoint(self, end: Position) -> tuple[Position, bytes]:
        """Return `low`, and a checkpoint that lets recovery start there.

        True only once everything before *end* is durable: the caller waits for that.
        """
        low = self.low(end)
        ended = list(self._ended.values())
        checkpoint = Checkpoint(low, end, ended, self.lease_ms)
        return low, encode_checkpoint(checkpoint)
