"""What one run of `exec` may do, decided from what is recorded; nothing is done here.

`exec` runs again from its beginning after every delay and every crash. An `Attempt` is
one such run: it numbers the steps, and says of each what is to happen.

    recorded                 mode         answer
    -----------------------  -----------  ---------------------------------------------
    done, refused            any          REPLAY: what is recorded
    nothing                  FORWARD      CALL the service
    nothing                  CANCELLING   CALL while no new outcome was learned in this
                                          run, or if a `Started` names it: it may have
                                          been started before a crash; else UNWIND
    nothing                  ABORTING     UNWIND: it was never started, see rule 2
    nothing                  any, parked  UNWIND: the process is about to stop
    anything                 any, after   STOP: the run ends as that step did, whatever
                             a step that  user code makes of the exception
                             is unknown

Calls made at the same time are named in a `Started` record first. In every later run
the outcome of one of them is kept from `exec` until it has asked for all the others
(`Attempt.awaited_by`): or a refusal that is replayed at once would make a `TaskGroup`
cancel a sibling which, last time, had got as far as its call.

The five rules of compensation (DESIGN: "decided once", "nothing in flight when it is
decided", "last finished first", "an aborting run starts nothing", "a recorded outcome
is never ignored") are kept by three functions: `Attempt.answer`, `undo_plan`, and
`execution.Execution`, which settles everything in flight before it writes `Aborting`.
"""

import enum
from collections.abc import Collection
from typing import TypeAlias, cast

import msgspec

from coordinator.errors import ConcurrentStepsError, Refused
from coordinator.model import Direction, OutcomeStatus, Retry, StepId
from coordinator.records import Finished
from coordinator.state import WorkflowState

__all__ = [
    "Answer",
    "Attempt",
    "Delayed",
    "Ended",
    "Mode",
    "Parked",
    "Stuck",
    "Unwind",
    "Verdict",
    "undo_plan",
]


class Unwind(BaseException):
    """Leaves `exec` from a step that must not start. Not for user code to catch.

    A `BaseException`, so that ``except Exception`` lets it through; where user code
    stops it all the same, the next step raises it again.
    """


class Mode(enum.Enum):
    """What a run of `exec` is for."""

    FORWARD = "forward"
    CANCELLING = "cancelling"
    ABORTING = "aborting"


class Answer(enum.Enum):
    """What is to happen with a step that `exec` asks for."""

    REPLAY = "replay"
    CALL = "call"
    UNWIND = "unwind"
    STOP = "stop"


class Ended(msgspec.Struct, frozen=True):
    """`Finished` is durable."""

    finished: Finished


class Delayed(msgspec.Struct, frozen=True):
    """Nobody knows what became of a step: run again later."""

    cause: BaseException
    step: str
    retry: Retry


class Stuck(msgspec.Struct, frozen=True):
    """A person must look. Not yet recorded."""

    reason: str


class Parked(msgspec.Struct, frozen=True):
    """The process is about to stop; the next one goes on."""


Verdict: TypeAlias = Ended | Delayed | Stuck | Parked


class Attempt:
    """One run of `exec` over a workflow's recorded outcomes."""

    def __init__(self, state: WorkflowState, *, first: bool = False) -> None:
        """Begin a run.

        Args:
            state: What is recorded.
            first: No run of this workflow came before, in any process: no step can be
                unknown.
        """
        self.mode = (
            Mode.ABORTING
            if state.aborting is not None
            else Mode.CANCELLING
            if state.cancelled is not None
            else Mode.FORWARD
        )
        self.asked: set[StepId] = set()
        """Every step that this run asked for."""
        self.stopped_by: BaseException | None = None
        """Why no further step may go on: the first unknown step, or a bug."""
        self.parked = False
        """Nothing further starts: the process is about to stop."""
        self.unwound = False
        """A step was not started, or the run interrupted: what `exec` returns or raises
        after that says nothing."""
        self._first = first
        self._turned = False
        self._turned_early = False
        self._state = state
        self._counts: dict[str, int] = {}
        self._running: dict[str, StepId] = {}
        self._learned = False
        self._refusals: dict[int, tuple[int, Refused]] = {}

    def number(self, name: str) -> StepId:
        """Return the identity of the next step of that name."""
        occurrence = self._counts.get(name, 0)
        self._counts[name] = occurrence + 1
        return StepId(name, occurrence)

    def renumber(self, step: StepId, name: str) -> StepId:
        """Give *step* another name; its old number goes to the next of the old name."""
        if self._counts[step.name] == step.occurrence + 1:
            self._counts[step.name] = step.occurrence
        return self.number(name)

    def answer(self, step: StepId) -> Answer:
        """Say what is to happen with *step*, which `exec` now waits for."""
        self.asked.add(step)
        if self.stopped_by is not None:
            return Answer.STOP
        if self._state.outcome(step) is not None:
            return Answer.REPLAY
        if not self.parked and (
            self.mode is Mode.FORWARD
            or (
                self.mode is Mode.CANCELLING
                and (not self._learned or self._may_be_started(step))
            )
        ):
            return Answer.CALL
        self.unwound = True
        return Answer.UNWIND

    def stop(self, cause: BaseException) -> None:
        """Let no further step go on: *cause* decides how this run ends."""
        if self.stopped_by is None:
            self.stopped_by = cause

    def cancel(self) -> None:
        """Turn back in mid-run: nothing further starts, what runs is awaited."""
        assert self.mode is Mode.FORWARD
        self.mode = Mode.CANCELLING
        self._turned = True
        self._turned_early = not (self._first or self._learned or self._running)
        self._learned = True

    @property
    def doubtful(self) -> bool:
        """Whether `cancel` came before a step that an earlier run may have left open.

        Only a run that is cancelling from its start finds out: it asks again.
        """
        return self._turned_early or (self._turned and bool(self.unknown()))

    def park(self) -> None:
        """Start nothing further: the process is about to stop."""
        self.parked = True

    @property
    def turning(self) -> bool:
        """Whether a step that just ended must not give control back to `exec`."""
        return self.parked or self.mode is not Mode.FORWARD

    def _may_be_started(self, step: StepId) -> bool:
        return any(step in steps for steps in self._state.started)

    def begin(self, step: StepId) -> tuple[StepId, ...]:
        """Note that *step* is being called.

        Returns:
            The steps that a `Started` has to name before it is; empty if none has to.

        Raises:
            ConcurrentStepsError: Another step of its name is being called.
        """
        if step.name in self._running:
            raise ConcurrentStepsError(step.name)
        self._running[step.name] = step
        if len(self._running) == 1:
            return ()
        steps = tuple(self._running.values())
        known = any(named.issuperset(steps) for named in self._state.started)
        return () if known else steps

    def end(self, step: StepId) -> None:
        """Note that the call of *step* is over."""
        self._running.pop(step.name, None)

    def awaited_by(self, step: StepId) -> set[StepId]:
        """Return the steps that `exec` must ask for before it learns of *step*."""
        if not self._state.started:
            return set()
        beside = (steps for steps in self._state.started if step in steps)
        return {other for steps in beside for other in steps} - self.asked

    def learned(self) -> None:
        """Note that a step has an outcome now, recorded."""
        self._learned = True

    def refused(self, step: StepId, refusal: Refused) -> None:
        """Note that `exec` was told of *refusal* as the outcome of *step*."""
        order = list(self._state.outcomes).index(
            (step.name, step.occurrence, Direction.DO)
        )
        self._refusals[id(refusal)] = (order, refusal)

    def refusal_in(self, error: BaseException) -> Refused | None:
        """Return the refusal that *error* is or consists of; None if it is none.

        An `asyncio.TaskGroup` wraps what its tasks raise. A group of nothing but
        refusals is a refusal: the one recorded first, so that every run says the same.
        """
        if isinstance(error, Refused):
            return error
        leaves = _leaves(error)
        if leaves == [error]:
            return None
        refusals = [leaf for leaf in leaves if isinstance(leaf, Refused)]
        if len(refusals) < len(leaves):
            return None
        return min(refusals, key=lambda r: self._refusals.get(id(r), (-1, r))[0])

    def unknown(self) -> list[StepId]:
        """Return the steps that may have been started but were not asked for.

        Nobody knows whether they were done.
        """
        started = {step for steps in self._state.started for step in steps}
        return sorted(
            step for step in started - self.asked if self._state.outcome(step) is None
        )

    def ignored(self) -> list[StepId]:
        """Return the steps that are recorded as done and that this run never asked for.

        Their undo is not known: the code was changed, or took another way.
        """
        return [
            StepId(name, occurrence)
            for (name, occurrence, direction), outcome in self._state.outcomes.items()
            if direction is Direction.DO
            and outcome.status is OutcomeStatus.DONE
            and StepId(name, occurrence) not in self.asked
        ]


def undo_plan(state: WorkflowState, undoable: Collection[StepId]) -> list[StepId]:
    """Return the steps to undo, in order: those that stand, last finished first.

    "Last finished" is the order of the outcomes in the journal, not of the code. Steps
    without an undo are left out: that they stand is the command's choice.
    """
    return [step for step in reversed(state.standing()) if step in undoable]


def _leaves(error: BaseException) -> list[BaseException]:
    """Return the exceptions in a group of groups; *error* itself if it is no group."""
    if not isinstance(error, BaseExceptionGroup):
        return [error]
    group = cast(
        "BaseExceptionGroup[BaseException]", error
    )  # isinstance loses the type
    return [leaf for inner in group.exceptions for leaf in _leaves(inner)]
