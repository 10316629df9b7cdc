"""What the engine holds in memory of a workflow, and who waits for it."""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias, TypeVar

import msgspec

from coordinator.errors import CoordinatorError
from coordinator.execution import Execution
from coordinator.log import Log
from coordinator.model import Direction, EndStatus, StepId, WorkflowId
from coordinator.sharing import shared_map, shared_text
from coordinator.state import WorkflowState

__all__ = ["Caller", "Outcome", "Run", "Submission", "WorkflowInfo", "refuse", "tell"]

_LOGGER = logging.getLogger("coordinator")

T = TypeVar("T")

Failures: TypeAlias = Mapping[tuple[StepId, Direction], int]
"""How often each step was unknown in a row."""
NO_FAILURES: Failures = shared_map({})


class Submission(msgspec.Struct, frozen=True):
    """A command that somebody wants run."""

    type: str
    codec: str
    payload: bytes
    key: str = ""
    trace: str = ""
    command: Any = None
    """The decoded command, if nobody else holds it; else it is decoded here."""
    nested: bool = False
    """Offered by a step: by a command that holds its place while it waits."""


class Outcome(msgspec.Struct, frozen=True):
    """How a workflow ended, or that it is stuck, as its callers are told."""

    workflow_id: WorkflowId
    type: str
    status: EndStatus | None
    """None: it is stuck, and has not ended."""
    value: bytes
    """As in `records.Finished`."""
    reason: str = ""
    """Why it is stuck."""


class Caller(Protocol):
    """Who asked for a command. Called in the engine's loop; must not block."""

    def accepted(self, workflow_id: WorkflowId) -> None:
        """The command is durable and will run."""
        ...

    def ended(self, outcome: Outcome) -> None:
        """Its workflow ended; or it is stuck, and this is called again later."""
        ...

    def refused(self, error: CoordinatorError) -> None:
        """It was not accepted, or nobody can say any more: the coordinator stopped."""
        ...

    @property
    def gone(self) -> bool:
        """Whether nobody is there any more to be told."""
        ...

    def forget(self) -> None:
        """It will not be told of anything more: another asked by the same key."""
        ...


def tell(hear: Callable[[T], object], what: T) -> None:
    """Call a caller's *hear* with *what*.

    What it raises is logged, not handed on: it has to do with that caller alone, and
    whoever waits for the same workflow, or runs beside it, must not suffer by it.
    """
    try:
        hear(what)
    except Exception:
        _LOGGER.exception("a caller could not be told: %s", what)


def refuse(callers: Iterable[Caller], error: CoordinatorError) -> None:
    """Tell *callers* that they were not accepted, or that nobody knows any more."""
    for caller in callers:
        tell(caller.refused, error)


class Run:
    """One unfinished workflow in memory.

    There may be 100,000 that are delayed: what is kept of those is shared where they
    are alike, see `rest`.
    """

    __slots__ = (
        "callers",
        "command",
        "counted",
        "delays",
        "durable",
        "execution",
        "failures",
        "fresh",
        "known",
        "last_error",
        "log",
        "not_before_s",
        "patient",
        "state",
        "task",
    )

    def __init__(self, log: Log, state: WorkflowState) -> None:
        self.log = log
        self.state = state
        self.callers: tuple[Caller, ...] = ()
        self.counted = False
        """Counted by `Admission`: neither ended nor stuck."""
        self.durable = False
        """`Accepted` is."""
        self.command: Any = None
        self.task: asyncio.Task[None] | None = None
        self.execution: Execution | None = None
        self.failures = NO_FAILURES
        self.fresh = False
        """Accepted by this process, and never run."""
        self.patient = False
        """A run missed steps that were started; refusals wait for these now."""
        self.delays = 0
        """Runs in a row that ended delayed without a new outcome."""
        self.known = 0
        """Outcomes that were recorded when the last run ended."""
        self.not_before_s = 0.0
        """If a service blocked it: it does not run sooner, though that answers, for the
        sake of what failed beside; on the loop's clock."""
        self.last_error = ""

    def rest(self) -> None:
        """Keep no more than is needed until it runs again."""
        self.failures = shared_map(self.failures)
        self.last_error = shared_text(self.last_error)
        if self.callers:
            self.forget_gone()

    def forget_gone(self) -> None:
        """Forget the callers who left without an answer."""
        for caller in self.callers:
            if caller.gone:
                caller.forget()
        self.callers = tuple(caller for caller in self.callers if not caller.gone)

    def join(self, caller: Caller) -> None:
        """Tell *caller*, too, from now on; and now, if it has stuck fast before."""
        # Those who left without an answer would otherwise pile up as they ask again.
        self.forget_gone()
        self.callers = (*self.callers, caller)
        if not self.durable:
            return  # told with the others when it is
        tell(caller.accepted, self.state.id)
        if self.state.stuck is not None and self.task is None:
            tell(caller.ended, self.outcome())

    def forgive(self) -> None:
        """Forget what went wrong: a person says that it goes now."""
        self.failures = NO_FAILURES
        self.delays = 0
        self.last_error = ""

    def tell_accepted(self) -> None:
        """Tell the callers that the command is durable, which is so from now on."""
        self.durable = True
        for caller in self.callers:
            tell(caller.accepted, self.state.id)

    def tell_over(self) -> None:
        """Tell the callers what is durable: that it ended, or is stuck."""
        if self.callers:
            outcome = self.outcome()
            for caller in self.callers:
                tell(caller.ended, outcome)

    def tell_refused(self, error: CoordinatorError) -> None:
        """Tell the callers that nobody knows any more; there are none then."""
        callers, self.callers = self.callers, ()
        refuse(callers, error)

    def outcome(self) -> Outcome:
        """Return how it ended, or that it is stuck: one of both is so."""
        state, finished = self.state, self.state.finished
        type_ = state.accepted.type
        if finished is not None:
            return Outcome(state.id, type_, finished.status, finished.value)
        assert state.stuck is not None
        return Outcome(state.id, type_, None, b"", state.stuck.reason)


class WorkflowInfo(msgspec.Struct, frozen=True):
    """One unfinished workflow, for people."""

    id: str
    type: str
    key: str
    status: str
    accepted_at: int
    outcomes: int
    attempts: int
    """Runs in a row that ended delayed."""
    reason: str
    """Why it is delayed or stuck; empty if it is neither."""
    due_s: float | None
    """Seconds until it is tried again; None if that is not planned."""
