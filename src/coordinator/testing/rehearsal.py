"""`Rehearsal`: one's own saga on a journal in memory, in time that passes when told to.

    with Rehearsal(Shop(), commands=[PlaceOrder]) as rehearsal:
        rehearsal.services.lose_reply("payments.charge")
        order = rehearsal.submit(PlaceOrder("o-1", "sku-7", 1999))
        rehearsal.crash()
        assert order.result() == Receipt("o-1")

It runs on a loop of its own; within an ``async def``, in a thread of its own, too.
"""

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from coordinator import values
from coordinator.app import result_of
from coordinator.model import WorkflowId, format_workflow_id
from coordinator.options import EngineOptions
from coordinator.records import Accepted, Finished
from coordinator.runs import Outcome
from coordinator.testing.durations import Duration, seconds
from coordinator.testing.errors import RehearsalError
from coordinator.testing.scene import Moment
from coordinator.testing.services import Services
from coordinator.testing.stage import START, Stage
from coordinator.testing.words import timeline_of
from coordinator.timeline import Timeline, build_timeline
from coordinator.workflow import Command

__all__ = ["Clock", "Rehearsal", "Submitted", "apart"]

ReceiverT = TypeVar("ReceiverT")
ResultT = TypeVar("ResultT")
T = TypeVar("T")

LIMIT: Duration = "1d"
"""How long `Rehearsal.finish` lets time pass: back-off is 30 s at most by default."""


def apart(work: Callable[[], T], pool: ThreadPoolExecutor | None = None) -> T:
    """Call *work*; in a thread if a loop runs in this one, which can't run another."""
    __tracebackhide__ = True  # pytest shows the caller's line, not ours
    if not _loop_runs():
        return work()
    context = contextvars.copy_context()
    if pool is not None:
        return pool.submit(context.run, work).result()
    with ThreadPoolExecutor(1, "rehearsal") as own:
        return own.submit(context.run, work).result()


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class Clock:
    """The time of a rehearsal, which passes when it is told to."""

    def __init__(self, stage: Stage, run: Callable[[Callable[[], None]], None]) -> None:
        self._stage = stage
        self._run = run

    @property
    def now(self) -> datetime:
        """What the clock says, in UTC."""
        return START + timedelta(seconds=self._stage.loop.time())

    def advance(self, duration: Duration) -> None:
        """Let *duration* pass: ``"2h"``, ``"30s"``, ``"200ms"``, seconds, a timedelta.

        Raises:
            RehearsalError: *duration* is none.
        """
        duration_s = seconds(duration)
        self._run(lambda: self._stage.pass_time(duration_s))


class Rehearsal(Generic[ReceiverT]):
    """The real engine on a journal in memory, with services that follow a script."""

    def __init__(
        self,
        receiver: ReceiverT,
        *,
        commands: Sequence[type[Command[ReceiverT, Any]]],
        options: EngineOptions | None = None,
        seed: int = 0,
    ) -> None:
        """Prepare; `__enter__` starts it.

        Args:
            receiver: As for `Coordinator`: what `exec` gets, with fakes in it, or with
                the real gateways and `Services.returns` for each.
            commands: As for `Coordinator`.
            options: As for `Coordinator`.
            seed: Of jitter, and of the order of timers that are due together.
        """
        self.receiver = receiver
        self.services = Services()
        """What the services answer; see `Services`."""
        self._acts: dict[Moment, str] = {}
        self._stage = Stage(
            receiver,
            tuple(commands),
            services=self.services,
            options=options,
            seed=seed,
            direct=lambda moment: self._acts.pop(moment, ""),
        )
        self.clock = Clock(self._stage, self._run)
        """The virtual time."""
        self._pool: ThreadPoolExecutor | None = None
        self._started = False

    def _run(self, work: Callable[[], T]) -> T:
        if not self._started:
            raise RehearsalError(
                "the rehearsal has not begun, or is over; write "
                "`with Rehearsal(...) as rehearsal:` and stay in the block"
            )
        return self._apart(work)

    def _apart(self, work: Callable[[], T]) -> T:
        __tracebackhide__ = True
        if self._pool is None:
            if not _loop_runs():
                return work()
            # One for all: a fake may hold what belongs to a thread.
            self._pool = ThreadPoolExecutor(1, "rehearsal")
        return apart(work, self._pool)

    def __enter__(self) -> Self:
        self._apart(self._stage.start)
        self._started = True
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it.

        Raises:
            RehearsalError: The test went well, but a line of the script never came to
                anything: a name is wrong.
        """
        self._started = False
        try:
            self._apart(self._stage.close)
        finally:
            if self._pool is not None:
                self._pool.shutdown()
        if exc is not None:
            exc.add_note(f"The rehearsal:\n{self.story}")
        elif unused := self._unused():
            raise RehearsalError(unused)

    def _unused(self) -> str:
        if self._acts:
            came = ", ".join(map(repr, dict.fromkeys(m.what for m in self._moments)))
            return (
                f"it never came to {', '.join(map(repr, map(str, self._acts)))}; it "
                f"came to {came or 'nothing'}"
            )
        return self.services.unused()

    @property
    def _moments(self) -> list[Moment]:
        return self._stage.moments

    def submit(self, command: Command[ReceiverT, ResultT]) -> "Submitted[ResultT]":
        """Have *command* run. It is durable on return, and has just begun.

        Raises:
            CommandTypeError: Its class is not among the commands.
        """
        position = self._run(lambda: self._stage.submit(command))
        return Submitted(self._stage, self._run, position, type(command))

    def finish(self, within: Duration = LIMIT) -> None:
        """Let time pass until every workflow has ended or is stuck.

        Raises:
            RehearsalError: One has not within so much virtual time.
        """
        limit_s = seconds(within)
        self._run(lambda: self._stage.finish(limit_s))

    def crash(self, at: str | None = None, *, after: int = 0) -> None:
        """Kill the process, as ``kill -9`` does; the next one recovers at once.

        Args:
            at: A moment, in the words of `story` and of `crash_everywhere`: ``before
                payments.charge was called``, ``after payments.charge had done its
                work``, ``before the outcome of payments.charge was written``. By
                default now.
            after: How often it comes to that moment before.
        """
        if at is None:
            self._run(lambda: self._stage.kill("by the test"))
        else:
            self._acts[Moment(at, after)] = "kill"

    def retry(self, order: "Submitted[Any]", *, by: str = "the test") -> None:
        """Do as an operator: run a stuck workflow again.

        Raises:
            UnknownWorkflowError: It has ended.
            WorkflowStateError: It is not stuck.
        """
        stage = self._stage
        self._run(lambda: stage.run(lambda: stage.coordinator.retry(order.id, by=by)))

    def cancel(
        self, order: "Submitted[Any]", *, by: str = "the test", reason: str = ""
    ) -> None:
        """Do as an operator: stop a workflow, and undo what it did.

        Raises:
            UnknownWorkflowError: It has ended.
            WorkflowStateError: It is being undone already.
        """
        stage = self._stage
        self._run(
            lambda: stage.run(
                lambda: stage.coordinator.cancel(order.id, by=by, reason=reason)
            )
        )

    @property
    def story(self) -> str:
        """All that happened, line by line, with times; for people."""
        return self._stage.story()


class Submitted(Generic[ResultT]):
    """A command that was submitted to a rehearsal."""

    def __init__(
        self,
        stage: Stage,
        run: Callable[[Callable[[], None]], None],
        position: int,
        class_: type[Any],
    ) -> None:
        self.id: WorkflowId = format_workflow_id(0, position)
        """``partition-position``."""
        self._stage = stage
        self._run = run
        self._position = position
        self._result_type = values.return_type(class_.exec)

    def __repr__(self) -> str:
        return f"<{self._story.type} {self.id}: {self.status}>"

    @property
    def _story(self) -> Timeline:
        records = (record for _, record in self._own())
        told = build_timeline(self.id, records)
        assert told is not None
        return told

    def _own(self) -> list[tuple[int, Any]]:
        return [
            (position, record)
            for position, record in self._stage.records
            if getattr(record, "workflow", None) == self._position
            or (isinstance(record, Accepted) and position == self._position)
        ]

    @property
    def status(self) -> str:
        """``running``, ``stuck``, ``cancelling``, ``aborting``; or how it ended.

        That is ``completed``, ``compensated`` or ``cancelled``.
        """
        return self._story.status

    @property
    def reason(self) -> str:
        """Why it was undone, or is stuck; else empty."""
        return self._story.reason

    @property
    def standing(self) -> tuple[str, ...]:
        """The steps whose effect is still in the world."""
        return self._story.standing

    @property
    def timeline(self) -> list[str]:
        """What the journal holds of it, an entry each, to be compared.

        ``["accepted", "inventory.reserve done", "payments.charge refused: no credit",
        "turned back: no credit", "inventory.reserve undone", "compensated"]``. A crash
        leaves no entry: a workflow that recovers well has the timeline of one that had
        nothing to recover from.
        """
        return timeline_of(self._position, self._stage.records)

    def result(self, within: Duration = LIMIT) -> ResultT:
        """Let time pass until it ends, and return its result.

        Raises:
            Refused: A service refused, and what was done before was undone.
            WorkflowCancelledError: It was cancelled, and undone.
            WorkflowStuckError: It waits for a person: see `Rehearsal.retry`.
            RehearsalError: It has not ended within so much virtual time.
        """
        limit_s = seconds(within)
        self._run(lambda: self._stage.finish(limit_s, self._position))
        story = self._story
        last = self._own()[-1][1]
        ended = last if isinstance(last, Finished) else None
        outcome = Outcome(
            self.id,
            story.type,
            ended.status if ended is not None else None,
            ended.value if ended is not None else b"",
            story.reason,
        )
        result: ResultT = result_of(outcome, self._result_type)
        return result
