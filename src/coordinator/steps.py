"""The steps of one run of `exec`: asked for, replayed or called, recorded.

Each outcome is durable before `exec` learns of it, so a crash at any await repeats at
most the calls in flight, under the same keys.

The calls of `exec`'s own task run in that task, without one of their own: the common
case costs no task. If that task is cancelled (by ``asyncio.timeout`` around a step,
say), the call ends unknown, and the run is delayed. A call made from any other task of
the user's is a task of ours, which outlives the user's: `settle` waits for it.
"""

import asyncio
import functools
from collections.abc import Awaitable, Callable, Collection, Coroutine
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from coordinator import values
from coordinator.calls import call
from coordinator.commit import Durable
from coordinator.context import StepContext
from coordinator.errors import (
    CommandDelayed,
    ConcurrentStepsError,
    DecodeError,
    EncodeError,
    Refused,
)
from coordinator.model import (
    Direction,
    OutcomeStatus,
    Retry,
    StepId,
    idempotency_key,
    service_of,
)
from coordinator.records import Outcome, Record, Started
from coordinator.saga import Answer, Attempt, Unwind
from coordinator.state import WorkflowState
from coordinator.workflow import Names, RecordedOutcome, Step

__all__ = ["Host", "Steps"]

T = TypeVar("T")


class Host(Protocol):
    """What an execution needs of the engine."""

    receiver: Any
    loop: asyncio.AbstractEventLoop
    names: Names
    retry: Retry
    step_timeout_s: float

    @property
    def threads(self) -> Executor:
        """Where plain ``def`` steps run."""
        ...

    @property
    def suspended(self) -> Collection[str]:
        """The services that are suspended."""
        ...

    def now(self) -> int:
        """Return microseconds since 1970."""
        ...

    def warn(self, message: str) -> None:
        """Tell people."""
        ...


class Steps:
    """What `exec` asks for in one run; the `workflow.Runner` of its `Workflow`."""

    def __init__(
        self,
        host: Host,
        state: WorkflowState,
        append: Callable[[Record], Durable],
        *,
        journal_id: str,
        epoch: int,
        failures: dict[tuple[StepId, Direction], int],
        passed: Callable[[str], None],
        first: bool = False,
    ) -> None:
        """Prepare a run over what is recorded in *state*.

        Args:
            host: The engine.
            state: Of the workflow; changes with what is appended.
            append: Applies a record to *state* and to the journal.
            journal_id: Part of every idempotency key.
            epoch: Handed to the services as a fencing token.
            failures: How often each step was unknown in a row; kept between runs.
            passed: Called with the name of a service that answered.
            first: No run of this workflow came before, in any process.
        """
        self.attempt = Attempt(state, first=first)
        self.undoable: dict[StepId, Step[Any]] = {}
        """The steps asked for that have an undo."""
        self.failed: Step[Any] | None = None
        """The first step of which nobody knows, or in which a bug was found."""
        self.abandoned = False
        self.number = self.attempt.number
        """Return the identity of the next step of a name."""
        self.renumber = self.attempt.renumber
        """Give a step that was just numbered another name."""
        self._host = host
        # Handed on wherever asyncio would look for it: before Python 3.12 that asks the
        # system for the process id, several times per step.
        self._loop = host.loop
        self._state = state
        self._append = append
        self._journal_id = journal_id
        self._epoch = epoch
        self._failures = failures
        self._tell_passed = passed
        self._calls: dict[asyncio.Task[Any], None] = {}  # in order: a seed repeats
        self._task: asyncio.Task[Any] | None = None
        self._inline = False
        self._asked: asyncio.Event | None = None
        """Set when `exec` asks for a step; there once somebody waits for that."""
        self._released = False
        """Nothing is kept from `exec` any more: it ended, or is about to."""

    # -- from outside ----------------------------------------------------------------

    def begin(self) -> None:
        """`exec` begins, in the task that calls this."""
        self._task = asyncio.current_task(self._loop)

    async def settle(self) -> None:
        """`exec` ended: wait until none of its calls is in flight."""
        self._task = None
        self._release()
        while self._calls:
            await asyncio.wait(self._calls)

    def cancel(self) -> None:
        """Turn back: `Cancelled` was just recorded. What is in flight is awaited."""
        self.attempt.cancel()
        self._interrupt()

    def park(self) -> None:
        """Stop at the next step. What is in flight is awaited."""
        self.attempt.park()
        self._interrupt()

    def abandon(self) -> None:
        """Stop at once, whatever is in flight: the process ends, or the journal did."""
        self.abandoned = True
        for task in (self._task, *self._calls):
            if task is not None:
                task.cancel()

    def _interrupt(self) -> None:
        """Wake `exec` from whatever it waits for, unless that is a call of ours."""
        self._release()
        if self._task is not None and not self._inline:
            self.attempt.unwound = True
            self._task.cancel()

    def _release(self) -> None:
        self._released = True
        if self._asked is not None:
            self._asked.set()

    # -- what `exec` asks for --------------------------------------------------------

    def perform(self, step: Step[T]) -> Coroutine[Any, Any, T]:
        """Replay, call or unwind *step*; see `saga.Attempt.answer`."""
        # Not a coroutine of its own: each layer between a step and its outcome is gone
        # through again whenever the task wakes.
        answer = self._ask(step)
        if answer is not Answer.CALL:
            return self._answer(step, answer)
        if asyncio.current_task(self._loop) is self._task:
            return self._call(step, inline=True)
        return self._wait(self._detach(step))

    async def _wait(self, call: Awaitable[T]) -> T:
        return await call

    async def _answer(self, step: Step[T], answer: Answer) -> T:
        if answer is Answer.REPLAY:
            if self._state.started:
                await self._until_others_asked(step)
            return self._replay(step)
        raise self._stop_error(answer)

    def start(self, step: Step[T]) -> Awaitable[T] | None:
        """Call *step* in a task; None if there is no call to be made."""
        return self._detach(step) if self._ask(step) is Answer.CALL else None

    def _ask(self, step: Step[Any]) -> Answer:
        answer = self.attempt.answer(step.id)
        if step.undo_function is not None:
            # Now, and not when its outcome is handed over: whoever waits for that may
            # be cancelled meanwhile, and what was done would stay done.
            self.undoable[step.id] = step
        if self._asked is not None:
            self._asked.set()
        return answer

    async def _until_others_asked(self, step: Step[Any]) -> None:
        """Keep what is known of *step* from `exec` until it asked for those beside it.

        Not for ever: code that was changed may not ask for them any more. Then `_judge`
        finds them missing, and says so.
        """
        attempt = self.attempt
        asked = self._asked = self._asked or asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(step.timeout_s or self._host.step_timeout_s):
                while attempt.awaited_by(step.id) and not self._released:
                    asked.clear()
                    await asked.wait()

    def _stop_error(self, answer: Answer) -> BaseException:
        if answer is Answer.UNWIND:
            return Unwind()
        assert self.attempt.stopped_by is not None
        return self.attempt.stopped_by

    def _detach(self, step: Step[T]) -> Awaitable[T]:
        """Call *step* in a task of ours, which the caller's cancellation spares."""
        task = self._loop.create_task(self._call(step))
        self._calls[task] = None
        task.add_done_callback(lambda done: self._calls.pop(done, None))
        shielded = asyncio.shield(task)
        for future in (task, shielded):
            future.add_done_callback(_retrieve)
        return shielded

    def _replay(self, step: Step[T]) -> T:
        outcome = self._state.outcome(step.id)
        assert outcome is not None
        if outcome.status is OutcomeStatus.REFUSED:
            refusal = values.load_refusal(outcome.value)
            self.attempt.refused(step.id, refusal)
            raise refusal
        try:
            value: T = values.decode(outcome.value, step.callee.returns)
        except DecodeError as error:
            self._stop(step, error)
            raise
        return value

    def _stop(self, step: Step[Any], cause: BaseException) -> None:
        if isinstance(cause, asyncio.CancelledError):
            # The call was cut off, so nobody knows.
            cause = CommandDelayed("the call was cancelled")
        if self.attempt.stopped_by is None:
            self.failed = step
        self.attempt.stop(cause)
        self._release()

    async def _call(self, step: Step[T], *, inline: bool = False) -> T:
        """Call the service, and return when what it said is durable.

        Args:
            step: To be called.
            inline: Whether it is called in `exec`'s own task.
        """
        attempt = self.attempt
        try:
            beside = attempt.begin(step.id)
        except ConcurrentStepsError as error:
            self._stop(step, error)
            raise
        self._inline = self._inline or inline
        try:
            if beside:
                await self._append(
                    Started(self._state.position, beside, self._host.now())
                )
            callee = step.callee
            value = await self._invoke(
                step,
                Direction.DO,
                step.function,
                callee.is_async,
                step.args,
                step.kwargs,
            )
            data, value = values.round_trip(value, callee.returns)
            await self._record(step, Direction.DO, OutcomeStatus.DONE, data)
            self._passed(step)
        except Refused as refusal:
            await self._record(
                step, Direction.DO, OutcomeStatus.REFUSED, values.refusal_of(refusal)
            )
            self._passed(step)
            attempt.refused(step.id, refusal)
            if self._state.started:
                await self._until_others_asked(step)
            if attempt.turning:
                raise self._turned() from refusal
            raise
        except BaseException as error:
            self._stop(step, error)
            raise
        finally:
            attempt.end(step.id)
            if inline:
                self._inline = False
        if self._state.started:
            await self._until_others_asked(step)
        if attempt.turning:
            raise self._turned()
        result: T = value
        return result

    def _passed(self, step: Step[Any]) -> None:
        if self._host.suspended:
            self._tell_passed(step.service_of)

    def _turned(self) -> Unwind:
        self.attempt.unwound = True
        return Unwind()

    def _record(
        self, step: Step[Any], direction: Direction, status: OutcomeStatus, value: bytes
    ) -> Durable:
        """Write down what a service said; what is returned is done when durable."""
        host, (name, occurrence) = self._host, step.id
        outcome = Outcome(
            self._state.position,
            name,
            occurrence,
            value,
            host.now(),
            direction,
            status,
            step.service_name,
        )
        try:
            durable = self._append(outcome)
        except EncodeError as error:
            self._stop(step, error)  # whatever exec makes of it
            raise
        if direction is Direction.DO:
            self.attempt.learned()
        if self._failures:
            self._failures.pop((step.id, direction), None)
        return durable

    def _invoke(
        self,
        step: Step[Any],
        direction: Direction,
        function: Callable[..., Any],
        is_async: bool,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Coroutine[Any, Any, Any]:
        return call(
            function,
            args,
            kwargs,
            is_async=is_async,
            context=functools.partial(self._context, step.id, direction),
            timeout_s=step.timeout_s or self._host.step_timeout_s,
            threads=self._host.threads,
        )

    def _context(self, step: StepId, direction: Direction) -> StepContext:
        id_ = self._state.id
        return StepContext(
            idempotency_key(self._journal_id, id_, step, direction),
            self._epoch,
            id_,
            step,
            direction,
            self._failures.get((step, direction), 0),
            self._state.accepted.trace,
        )

    async def undo(self, step: Step[Any]) -> None:
        """Call the undo of *step*, and return when that is recorded.

        Raises:
            Exception: Whatever the undo raises; nothing is recorded then.
        """
        recorded = self._state.outcome(step.id)
        assert recorded is not None
        assert step.undo_function is not None
        value = values.decode(recorded.value, step.callee.returns)
        function = step.undo_function
        is_async = self._host.names.of(function).is_async
        await self._invoke(step, Direction.UNDO, function, is_async, (value,), {})
        await self._record(step, Direction.UNDO, OutcomeStatus.DONE, values.NONE)
        self._passed(step)

    # -- the primitives --------------------------------------------------------------

    def outcomes(self) -> tuple[RecordedOutcome, ...]:
        """Return what is recorded, in order."""
        return tuple(
            RecordedOutcome(
                service=outcome.service or service_of(outcome.step),
                step=outcome.step,
                occurrence=outcome.occurrence,
                status=outcome.status,
                value=values.decode(outcome.value, Any),
            )
            for outcome in self._state.outcomes.values()
            if outcome.direction is Direction.DO
        )

    async def append_outcome(self, service: str, value: object) -> None:
        """Record *value* behind all that is recorded of *service* already."""
        attempt = self.attempt
        if attempt.stopped_by is not None:
            raise attempt.stopped_by
        if attempt.turning:
            raise self._turned()
        data = values.encode(value)
        occurrence = sum(o.step == service for o in self._state.outcomes.values())
        await self._append(
            Outcome(
                self._state.position,
                service,
                occurrence,
                data,
                self._host.now(),
                status=OutcomeStatus.NOTED,
            )
        )


def _retrieve(future: "asyncio.Future[Any]") -> None:
    """Mark a failure as seen: whoever waited for it may have been cancelled."""
    if not future.cancelled():
        future.exception()
