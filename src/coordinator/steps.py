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
from collections.abc import Awaitable, Callable, Generator
from contextlib import suppress
from heapq import heappop, heappush
from typing import Any, TypeVar

from coordinator import values
from coordinator.calls import Lazy, Reins, retrieve, wait_for
from coordinator.commit import Durable
from coordinator.context import StepContext
from coordinator.errors import (
    CommandDelayed,
    ConcurrentStepsError,
    DecodeError,
    EncodeError,
    JournalError,
    Refused,
)
from coordinator.host import Host
from coordinator.model import (
    Direction,
    OutcomeStatus,
    StepId,
    idempotency_key,
    service_of,
)
from coordinator.records import Outcome, Record, Started
from coordinator.saga import Answer, Attempt, Unwind
from coordinator.state import WorkflowState
from coordinator.workflow import RecordedOutcome, Step

__all__ = ["Steps"]

T = TypeVar("T")

UNWINDS_MAX = 100
"""Steps that one task may ask for in vain, before its run is given up: it catches what
is to end it."""

# Before Python 3.12 each look at a member through its class runs Python code.
_CALL, _UNWIND = Answer.CALL, Answer.UNWIND
_DO, _UNDO = Direction.DO, Direction.UNDO
_DONE, _REFUSED = OutcomeStatus.DONE, OutcomeStatus.REFUSED
_NOTED = OutcomeStatus.NOTED


class Steps(Reins):
    """What `exec` asks for in one run; the `workflow.Runner` of its `Workflow`.

    Its reins are cut if `exec` catches what is to end it, again and again.
    """

    __slots__ = (
        "_append",
        "_calls",
        "_epoch",
        "_failures",
        "_held",
        "_holds",
        "_host",
        "_inline",
        "_journal_id",
        "_loop",
        "_released",
        "_state",
        "_task",
        "_tell_passed",
        "_unwinds",
        "abandoned",
        "attempt",
        "cut_off",
        "failed",
        "number",
        "renumber",
        "undoable",
    )

    def __init__(
        self,
        host: Host,
        state: WorkflowState,
        append: Callable[[Record], Durable],
        attempt: Attempt,
        *,
        journal_id: str,
        epoch: int,
        failures: dict[tuple[StepId, Direction], int],
        passed: Callable[[str], None],
    ) -> None:
        """Prepare a run over what is recorded in *state*.

        Args:
            host: The engine.
            state: Of the workflow; changes with what is appended.
            append: Applies a record to *state* and to the journal.
            attempt: Decides what is done with each step.
            journal_id: Part of every idempotency key.
            epoch: Handed to the services as a fencing token.
            failures: How often each step was unknown in a row; kept between runs.
            passed: Called with the name of a service that answered.
        """
        self.cut = None
        self.attempt = attempt
        self.failed: tuple[tuple[Step[Any], BaseException], ...] = ()
        """The steps of which nobody knows, or that have a bug, and why; in order."""
        self.cut_off = False
        """User code cancelled a call of `exec`'s own task, of which nobody knows
        now."""
        self.abandoned = False
        self.undoable: dict[StepId, Step[Any]] = {}
        """The steps asked for that have an undo."""
        self.number, self.renumber = attempt.number, attempt.renumber
        """See `workflow.Runner`."""
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
        self._task: asyncio.Task[Any] | None = None
        self._inline = False
        self._released = False
        """Nothing is kept from `exec` any more: it ended, or is about to."""
        self._calls: dict[asyncio.Task[Any], None] = {}  # in order: a seed repeats
        self._held: list[tuple[int, int, asyncio.Future[None]]] = []
        self._holds = 0
        self._unwinds: dict[asyncio.Task[Any] | None, int] = {}

    # -- from outside ----------------------------------------------------------------

    def begin(self) -> None:
        """`exec` begins, in the task that calls this."""
        self._task = asyncio.current_task(self._loop)

    def end(self) -> bool:
        """`exec` ended: start nothing more. True if there is something to `settle`."""
        self._task = None
        attempt = self.attempt
        attempt.ending = True
        if self._calls or attempt.awaited:
            return True
        attempt.close()
        self._release()
        return False

    async def settle(self) -> None:
        """Wait until nothing is in flight; `exec` ended."""
        attempt = self.attempt
        if attempt.patient and attempt.awaited and not attempt.closed:
            # `exec` may not be the one to ask for that: a task which it left may be.
            await self._keep(len(self._state.outcomes), self._host.step_timeout_s)
        attempt.close()
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
        self.attempt.close()
        self._release()
        for task in (self._task, *self._calls):
            if task is not None:
                task.cancel()

    def _interrupt(self) -> None:
        """Wake `exec` from whatever it waits for, unless that is a call of ours."""
        self._release()
        if self._task is not None and not self._inline:
            self.attempt.unwound = True
            self._task.cancel()

    # -- what `exec` asks for --------------------------------------------------------

    def perform(self, step: Step[T]) -> Generator[Any, Any, T]:
        """Replay, call or unwind *step*; see `saga.Attempt.answer`."""
        alone = asyncio.current_task(self._loop) is self._task
        answer = self._ask(step, alone)
        if answer is not _CALL:
            return self._answer(step, answer).__await__()
        # Each layer between a step and its outcome is gone through again whenever the
        # task wakes: a generator needs none around it to be awaited.
        return self._call(step, True) if alone else self._detach(step).__await__()

    def start(self, step: Step[T]) -> Awaitable[T]:
        """Ask for *step* now; what is returned is to be awaited for its outcome."""
        answer = self._ask(step, False)
        if answer is _CALL:
            return self._detach(step)
        return Lazy(lambda: self._answer(step, answer).__await__())

    def _ask(self, step: Step[Any], alone: bool) -> Answer:
        answer = self.attempt.answer(step.id, alone)
        if step.undo_function is not None:
            # Now, and not when its outcome is handed over: whoever waits for that may
            # be cancelled meanwhile, and what was done would stay done.
            self.undoable[step.id] = step
        if self._held:
            self._let_go()
        return answer

    async def _answer(self, step: Step[T], answer: Answer) -> T:
        if answer is _UNWIND:
            await self._unwind()
        if self.attempt.awaited:
            await self._hold(step)
        return self._replay(step)

    async def _unwind(self) -> None:
        """Leave `exec`, which asks for a step that must not go on.

        Raises:
            Unwind: Always.
        """
        attempt = self.attempt
        if attempt.awaited and (self._inline or attempt.patient):
            # A group would cut off the call of `exec`'s own task, or who was to ask.
            await self._keep(len(self._state.outcomes), self._host.step_timeout_s)
        # A turn of the loop each time: code that catches everything, and asks again and
        # again, keeps nobody else from running.
        await asyncio.sleep(0)
        task = asyncio.current_task(self._loop)
        self._unwinds[task] = count = self._unwinds.get(task, 0) + 1
        if count > UNWINDS_MAX:
            self.cut = Unwind()
            if task is self._task:
                await asyncio.sleep(0)  # to whoever drives `exec`; it ends here
            elif self._task is not None:
                self._task.cancel()
            await self._loop.create_future()
        raise Unwind

    def _detach(self, step: Step[T]) -> Awaitable[T]:
        """Call *step* in a task of ours, which the caller's cancellation spares."""
        call = Lazy(functools.partial(self._call, step, False))
        task = self._loop.create_task(wait_for(call))
        self._calls[task] = None
        task.add_done_callback(lambda done: self._calls.pop(done, None))
        shielded = asyncio.shield(task)
        for future in (task, shielded):
            future.add_done_callback(retrieve)
        return shielded

    def _replay(self, step: Step[T]) -> T:
        outcome = self._state.outcome(step.id)
        assert outcome is not None
        if outcome.status is _REFUSED:
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
            self.cut_off = True
            cause = CommandDelayed("the call was cancelled")
            if self.failed:
                return  # since another failed, which counts: not for its own sake
        self.failed += ((step, cause),)
        self.attempt.close()
        self._release()

    # -- outcomes that are held ------------------------------------------------------

    async def _hold(self, step: Step[Any]) -> None:
        """Keep the outcome of *step* from `exec` while it is to; see `saga`.

        Not for ever: code that was changed, or took another way, may not ask for that
        any more. Then `_judge` finds it missing, and says so.
        """
        rank = self.attempt.holds(step.id)
        if rank is not None:
            await self._keep(rank, step.timeout_s or self._host.step_timeout_s)

    async def _keep(self, rank: int, timeout_s: float) -> None:
        future = self._loop.create_future()
        self._holds += 1
        heappush(self._held, (rank, self._holds, future))
        if self._released:
            self._let_go()
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            self.attempt.release()
            self._let_go()

    def _let_go(self) -> None:
        held = self._held
        while held and (self._released or self.attempt.released(held[0][0])):
            _, _, future = heappop(held)
            if not future.done():
                future.set_result(None)

    def _release(self) -> None:
        self._released = True
        if self._held:
            self._let_go()

    # -- calls -----------------------------------------------------------------------

    def _call(self, step: Step[T], alone: bool) -> Generator[Any, Any, T]:
        """Call the service, and return when what it said is durable.

        Args:
            step: To be called.
            alone: Whether it is called in `exec`'s own task.
        """
        attempt, host, id_ = self.attempt, self._host, step.id
        refusal: Refused | None = None
        value: Any = None
        self._inline = self._inline or alone
        try:
            names = attempt.begin(id_, alone)
            if names:
                started = Started(self._state.position, names, host.now())
                yield from self._append(started)
            try:
                value = yield from host.call(
                    step.function,
                    step.args,
                    step.kwargs,
                    step.callee.is_async,
                    lambda: self._context(id_, _DO),
                    step.timeout_s or host.step_timeout_s,
                    host.threads,
                ).__await__()
            except Refused as error:
                refusal = error
                data, status = values.refusal_of(error), _REFUSED
            else:
                data, value = values.round_trip(value, step.callee.returns)
                status = _DONE
            yield from self._record(step, _DO, status, data)
        except BaseException as error:
            self._open(step, error)
            raise
        finally:
            attempt.end(id_)
            if alone:
                self._inline = False
                if self._held:
                    self._let_go()
        if host.suspended:
            self._tell_passed(step.service_called)
        if attempt.awaited:
            yield from self._hold(step).__await__()
        if attempt.turning or refusal is not None:
            raise self._leave(id_, refusal)
        result: T = value
        return result

    def _leave(self, step: StepId, refusal: Refused | None) -> BaseException:
        if refusal is not None:
            self.attempt.refused(step, refusal)
        if refusal is not None and not self.attempt.turning:
            return refusal
        self.attempt.unwound = True
        return Unwind()

    def _open(self, step: Step[Any], error: BaseException) -> None:
        """The call of *step* ended, and nobody knows what became of it."""
        self._stop(step, error)
        state = self._state
        if (
            self.abandoned
            or isinstance(error, JournalError | ConcurrentStepsError)
            or step.id in state.outcomes
            or step.id in state.started
        ):
            return
        # Before any outcome that comes now, so nobody has to wait for it.
        with suppress(JournalError, EncodeError):
            self._append(Started(state.position, (step.id,), self._host.now()))

    def _record(
        self, step: Step[Any], direction: Direction, status: OutcomeStatus, value: bytes
    ) -> Durable:
        """Write down what a service said; what is returned is done when durable."""
        name, occurrence = step.id
        if self._failures:
            self._failures.pop((step.id, direction), None)
        return self._append(
            Outcome(
                self._state.position,
                name,
                occurrence,
                value,
                self._host.now(),
                direction,
                status,
                step.service_to_record if step.service_name else "",
            )
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
        host = self._host
        recorded = self._state.outcome(step.id)
        function = step.undo_function
        assert recorded is not None
        assert function is not None
        await host.call(
            function,
            (values.decode(recorded.value, step.callee.returns),),
            {},
            host.names.of(function).is_async,
            lambda: self._context(step.id, _UNDO),
            step.timeout_s or host.step_timeout_s,
            host.threads,
        )
        await self._record(step, _UNDO, _DONE, values.NONE)
        if host.suspended:
            self._tell_passed(step.service_called)

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
            if outcome.direction is _DO
        )

    async def append_outcome(self, service: str, value: object) -> None:
        """Record *value* behind all that is recorded of *service* already."""
        attempt = self.attempt
        if attempt.closed:
            await self._unwind()
        if attempt.turning:
            attempt.unwound = True
            await self._unwind()
        data = values.encode(value)
        occurrence = sum(
            o.step == service and o.status is _NOTED
            for o in self._state.outcomes.values()
        )
        position, now = self._state.position, self._host.now()
        await self._append(
            Outcome(position, service, occurrence, data, now, status=_NOTED)
        )
