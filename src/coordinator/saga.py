"""What one run of `exec` may do, decided from what is recorded; nothing is done here.

`exec` runs again from its beginning after every delay and every crash. An `Attempt` is
one such run: it numbers the steps, and says of each what is to happen.

    recorded                 mode         answer
    -----------------------  -----------  ---------------------------------------------
    done, refused            any          REPLAY: what is recorded
    nothing                  FORWARD      CALL the service
    nothing                  CANCELLING   CALL what may have been started before: what a
                                          `Started` names, and the first other step of
                                          `exec`'s own task in this process; else UNWIND
    nothing                  ABORTING     UNWIND: it was never started, see rule 2
    nothing                  any, ending  CALL what a `Started` names; else UNWIND:
                                          `exec` ended, and a task of it lives on
    nothing                  any, parked  UNWIND: the process is about to stop
    anything                 any, closed  UNWIND: a step became unknown, and the run
                                          ends so, whatever user code makes of it; or it
                                          has ended, and a task of it lives on

A step that may be *open*, called and without an outcome, must not be forgotten: whoever
turned back without knowing of it would leave its effect in the world. A `Started` names
it where the next run may miss it: before a call that is not all that `exec` waits for,
and when a call ended unknown. In every run, an outcome is kept from `exec` until it has
asked for the steps that a `Started` before that outcome names (`Attempt.holds`): or a
refusal that is replayed at once would make a `TaskGroup` cancel a sibling which, last
time, had got as far as its call. What `exec`'s own task asks for has to be answered,
too: that call is not shielded, and the same refusal would cut it off in each run, for
ever; so would the `Unwind` of a step that must not start. Code that takes the first of
two outcomes and never looks at the other may miss a step even so; then the next run is
patient, before the workflow is stuck.

One call at most is open and not named: the one that `exec` itself waited for, alone,
when the process died. A run over the same code asks for it first.

The five rules of compensation (DESIGN: "decided once", "nothing in flight when it is
decided", "last finished first", "an aborting run starts nothing", "a recorded outcome
is never ignored") are kept by three functions: `Attempt.answer`, `undo_plan`, and
`execution.Execution`, which settles everything in flight before it writes `Aborting`.
"""

import enum
from collections.abc import Collection
from itertools import islice
from typing import TypeAlias, cast

import msgspec

from coordinator.errors import ConcurrentStepsError, Refused
from coordinator.model import OutcomeStatus, Retry, StepId
from coordinator.rare import sometimes
from coordinator.records import Finished
from coordinator.state import OutcomeKey, WorkflowState

__all__ = [
    "Answer",
    "Attempt",
    "Delayed",
    "Ended",
    "Mode",
    "Parked",
    "Stuck",
    "Unknown",
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


# Before Python 3.12 each look at a member through its class runs Python code.
_FORWARD, _CANCELLING, _ABORTING = Mode.FORWARD, Mode.CANCELLING, Mode.ABORTING
_REPLAY, _CALL, _UNWIND = Answer.REPLAY, Answer.CALL, Answer.UNWIND
_DONE, _REFUSED = OutcomeStatus.DONE, OutcomeStatus.REFUSED


class Ended(msgspec.Struct, frozen=True):
    """`Finished` is durable."""

    finished: Finished


class Unknown(msgspec.Struct, frozen=True):
    """A step of which nobody knows whether it was done."""

    step: str
    cause: BaseException
    retry: Retry


class Delayed(msgspec.Struct, frozen=True):
    """Nobody knows what became of a step, or of several: run again later."""

    unknown: tuple[Unknown, ...]
    """In the order in which they ended; at least one."""
    missed: bool = False
    """It missed steps that were started, or cut one off: the next run is to be
    patient."""


class Stuck(msgspec.Struct, frozen=True):
    """A person must look. Not yet recorded."""

    reason: str
    missing: tuple[StepId, ...] = ()
    """Those that it would have to undo, or ask for first, and that this run lacks."""


class Parked(msgspec.Struct, frozen=True):
    """The process is about to stop; the next one goes on."""


Verdict: TypeAlias = Ended | Delayed | Stuck | Parked


class Attempt:
    """One run of `exec` over a workflow's recorded outcomes."""

    # Slots: before Python 3.12 a default kept by the class is looked up the long way.
    __slots__ = (
        "_alone",
        "_counts",
        "_doubt",
        "_ranks",
        "_refusals",
        "_running",
        "_state",
        "_turned",
        "asked",
        "awaited",
        "closed",
        "ending",
        "mode",
        "numbered",
        "parked",
        "patient",
        "turning",
        "unwound",
    )

    def __init__(
        self, state: WorkflowState, *, first: bool = False, patient: bool = False
    ) -> None:
        """Begin a run.

        Args:
            state: What is recorded.
            first: No run of this workflow came before, in any process: no step can be
                open.
            patient: A refusal waits for every step that was started, also for those
                started behind it.
        """
        self.mode = _FORWARD
        self.turning = False
        """Whether a step that just ended must not give control back to `exec`."""
        if state.aborting is not None or state.cancelled is not None:
            self.mode = _CANCELLING if state.aborting is None else _ABORTING
            self.turning = True
        self.closed = False
        """No step goes on any more: one became unknown, or the run ended."""
        self.parked = False
        """Nothing further starts: the process is about to stop."""
        self.ending = False
        """`exec` ended: only what was started before is called again."""
        self.unwound = False
        """A step was not started, or the run interrupted: what `exec` returns or raises
        after that says nothing."""
        self.numbered = 0
        """How many steps were made; see `forgotten`."""
        self.asked: set[StepId] = set()
        """Every step that this run asked for."""
        self.awaited = dict(state.started) if state.started else {}
        """The steps that were started and that this run has not asked for yet, or that
        `exec`'s own task is calling, in the order of the journal; how many outcomes
        were recorded before each."""
        self.patient = patient
        self._state = state
        self._doubt = not first
        self._turned = False
        self._counts: dict[str, int] = {}
        self._alone: StepId | None = None
        """The running call of `exec`'s own task that no `Started` names. It is not
        among `_running`: the common case is neither put in nor taken out."""
        self._running: dict[str, StepId] = {}
        self._refusals: list[tuple[int, Refused]] = []
        self._ranks: dict[OutcomeKey, int] = {}

    def number(self, first: StepId) -> StepId:
        """Return the identity of the next step of the name of *first*."""
        self.numbered += 1
        counts, name = self._counts, first[0]
        if name in counts:
            occurrence = counts[name]
            counts[name] = occurrence + 1
            return StepId(name, occurrence)
        counts[name] = 1
        return first

    def renumber(self, step: StepId, name: str) -> StepId:
        """Give *step* another name; its old number goes to the next of the old name."""
        self.numbered -= 1
        if self._counts[step.name] == step.occurrence + 1:
            self._counts[step.name] = step.occurrence
        return self.number(StepId(name, 0))

    def answer(self, step: StepId, alone: bool) -> Answer:
        """Say what is to happen with *step*, which `exec` now waits for.

        Args:
            step: Asked for.
            alone: By `exec`'s own task, which does nothing else meanwhile.
        """
        self.asked.add(step)
        if self.closed:
            return _UNWIND
        if step in self._state.outcomes:
            if self.awaited:
                self.awaited.pop(step, None)
            return _REPLAY
        if not self.parked and (
            (self.mode is _FORWARD and not self.ending)
            or (
                self.mode is not _ABORTING
                and (
                    step in self._state.started
                    or (alone and self._doubt and not self._turned)
                )
            )
        ):
            if self.awaited and not alone:
                self.awaited.pop(step, None)
            return _CALL
        if self.awaited:
            self.awaited.pop(step, None)
        if not self.ending:
            self.unwound = True
        return _UNWIND

    def close(self) -> None:
        """Let no further step go on: one became unknown, or the run has ended."""
        self.closed = True

    def cancel(self) -> None:
        """Turn back in mid-run: nothing further starts, what runs is awaited."""
        assert self.mode is _FORWARD
        sometimes("cancelled in mid-run")
        self.mode = _CANCELLING
        self._turned = self.turning = True

    @property
    def doubtful(self) -> bool:
        """Whether `cancel` came before a step that an earlier run may have left open.

        Only a run that is cancelling from its start finds out: it asks again.
        """
        return self._turned and (self._doubt or bool(self.unknown()))

    def park(self) -> None:
        """Start nothing further: the process is about to stop."""
        self.parked = self.turning = True

    def begin(self, step: StepId, alone: bool) -> tuple[StepId, ...]:
        """Note that *step* is being called.

        Returns:
            The steps that a `Started` has to name before it is; empty if none has to.

        Raises:
            ConcurrentStepsError: Another step of its name is being called.
        """
        running, first = self._running, self._alone
        if step[0] in running or (first is not None and step[0] == first[0]):
            raise ConcurrentStepsError(step.name)
        if alone:
            # What an earlier process left open without a word is this one.
            self._doubt = False
            if first is None and not running:
                self._alone = step
                return ()
        running[step.name] = step
        steps: tuple[StepId, ...] = (step,)
        if first is not None:
            running[first.name] = first
            self._alone = None
            steps = (first, step)
        return tuple(step for step in steps if step not in self._state.started)

    def end(self, step: StepId) -> None:
        """Note that the call of *step* is over."""
        if self.awaited:
            self.awaited.pop(step, None)
        if self._alone is step:
            self._alone = None
        elif self._running.get(step.name) == step:
            del self._running[step.name]

    def holds(self, step: StepId) -> int | None:
        """Say whether the outcome of *step* is to be kept from `exec` for now.

        Returns:
            None if it may have it; else what `released` compares.
        """
        rank = self._rank(step)
        if self.patient and self._state.outcomes[step].status is _REFUSED:
            rank = len(self._state.outcomes)  # behind all that was started
        if self.released(rank):
            return None
        sometimes("outcome held")
        return rank

    def _rank(self, step: StepId) -> int:
        """Return how many outcomes were recorded before that of *step*."""
        ranks = self._ranks
        for key in islice(self._state.outcomes, len(ranks), None):
            ranks[key] = len(ranks)
        return ranks[step]

    def released(self, rank: int) -> bool:
        """Say whether an outcome that was held may go on to `exec` now."""
        return not self.awaited or next(iter(self.awaited.values())) > rank

    def release(self) -> None:
        """Hold nothing any more: what is waited for does not come."""
        sometimes("held outcome released by its time-out")
        self.awaited.clear()

    def refused(self, step: StepId, refusal: Refused) -> None:
        """Note that `exec` was told of *refusal* as the outcome of *step*."""
        self._refusals.append((self._rank(step), refusal))

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
        order = {id(refusal): order for order, refusal in self._refusals}
        return min(refusals, key=lambda refusal: order.get(id(refusal), -1))

    def unknown(self) -> list[StepId]:
        """Return the steps that may have been started but were not asked for.

        Nobody knows whether they were done.
        """
        return [step for step in self._state.unknown() if step not in self.asked]

    def forgotten(self) -> list[StepId]:
        """Return the steps that this run made and did not ask for: an await is missing.

        Not those whose number was given away, by a name that was given late.
        """
        made = (
            StepId(name, occurrence)
            for name, count in self._counts.items()
            for occurrence in range(count)
        )
        return [step for step in made if step not in self.asked]

    def ignored(self) -> list[StepId]:
        """Return the steps that are recorded as done and that this run never asked for.

        Their undo is not known: the code was changed, or took another way.
        """
        return [
            step
            for step, outcome in self._state.steps()
            if outcome.status is _DONE and step not in self.asked
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
