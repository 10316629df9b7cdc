"""One run of `exec`, and what came of it.

    exec --> settle what is in flight --> judge --> Finished
                                            |-----> Aborting --> undo ... --> Finished
                                            |-----> Stuck
                                            |-----> delayed: nothing is written
                                            '-----> parked:  nothing is written

Nothing is in flight when it is judged, and the decision to undo is durable before the
first undo: the first two rules of compensation are the order of lines in this module.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from coordinator import values
from coordinator.calls import describe, go_on
from coordinator.commit import Durable
from coordinator.errors import (
    CommandBlocked,
    CommandDelayed,
    ConcurrentStepsError,
    DecodeError,
    EncodeError,
    JournalError,
    Refused,
)
from coordinator.host import Host
from coordinator.model import Direction, EndStatus, StepId
from coordinator.rare import sometimes
from coordinator.records import Aborting, Finished, Record
from coordinator.saga import (
    Delayed,
    Ended,
    Mode,
    Parked,
    Stuck,
    Unknown,
    Verdict,
    undo_plan,
)
from coordinator.state import WorkflowState
from coordinator.steps import Steps
from coordinator.workflow import Step, Workflow

__all__ = ["MEND", "Execution"]

MEND = "; mend the code, then retry"
"""What to do about what does not fit: said where a workflow gets stuck by it."""


# Before Python 3.12 each look at a member through its class runs Python code.
_DO, _CANCELLING, _COMPLETED = Direction.DO, Mode.CANCELLING, EndStatus.COMPLETED


class Execution:
    """One run of `exec`. Made for one use."""

    __slots__ = (
        "_append",
        "_attempt",
        "_command",
        "_failures",
        "_host",
        "_state",
        "steps",
    )

    def __init__(
        self,
        command: Any,
        host: Host,
        state: WorkflowState,
        append: Callable[[Record], Durable],
        steps: Steps,
        failures: dict[tuple[StepId, Direction], int],
    ) -> None:
        """Prepare a run over what is recorded in *state*.

        Args:
            command: Its `exec` is run.
            host: The engine.
            state: Of the workflow; changes with what is appended.
            append: Applies a record to *state* and to the journal.
            steps: Those of this run.
            failures: How often each step was unknown in a row; kept between runs.
        """
        self.steps = steps
        self._command = command
        self._attempt = steps.attempt
        self._host = host
        self._state = state
        self._append = append
        self._failures = failures

    async def run(self) -> Verdict:
        """Run the command and return what came of it.

        Cancellation: cancels `exec`, leaves what is in flight; only for a process that
        is about to end.

        Raises:
            JournalError: The journal is dead; so is the engine.
        """
        steps, host, command = self.steps, self._host, self._command
        workflow = Workflow(steps, host.names, self._state.id, self._state.accepted.key)
        result: Any = None
        error: BaseException | None = None
        steps.begin()
        try:
            running = command.exec(workflow, host.receiver).__await__()
            result = await go_on(running, running.send(None), steps)
        except StopIteration as stop:
            result = stop.value  # it never waited
        except KeyboardInterrupt:
            raise
        except BaseException as raised:  # noqa: BLE001 -- user code: anything may come
            error = raised
        if steps.end():
            await steps.settle()
        if steps.abandoned:
            raise asyncio.CancelledError
        try:
            verdict = self._judge(result, error) or await self._turn_back(error)
            if isinstance(verdict, Ended):
                await self._append(verdict.finished)
        except EncodeError as unstorable:
            return _stuck(f"how it ended: {unstorable}{MEND}")
        return verdict

    def _judge(self, result: Any, error: BaseException | None) -> Verdict | None:
        """Say what came of it; None if the workflow turns back."""
        attempt = self._attempt
        if self.steps.failed:
            return self._judge_failed(self.steps.failed)
        if self._state.aborting is not None or attempt.mode is _CANCELLING:
            return None
        if attempt.unwound:
            return Parked()
        if error is None:
            return self._completion(result)
        if attempt.refusal_in(error) is not None:
            return None
        if isinstance(error, CommandDelayed):
            return self._judge_failed([(None, error)])
        return _stuck(f"exec raised {describe(error)}")

    def _judge_failed(
        self,
        failed: Iterable[tuple[Step[Any] | None, BaseException]],
        direction: Direction = _DO,
    ) -> Delayed | Stuck:
        """Say what unknown steps, and bugs found in some, come to.

        Args:
            failed: The steps, and why; None is `exec` itself.
            direction: Of all of them.

        Raises:
            JournalError: One of the causes.
        """
        unknown: list[Unknown] = []
        for step, cause in failed:
            if isinstance(cause, JournalError):
                raise cause
            verdict = self._count(step, cause, direction)
            if isinstance(verdict, Stuck):
                return verdict
            unknown.append(verdict)
        missed = self.steps.cut_off and not self._attempt.patient
        return Delayed(tuple(unknown), missed=missed)

    def _count(
        self, step: Step[Any] | None, cause: BaseException, direction: Direction
    ) -> Unknown | Stuck:
        """Count an end that nobody knows; it may be one too many."""
        name = f"{step.id}" if step is not None else "exec"
        if isinstance(cause, ConcurrentStepsError | DecodeError | EncodeError):
            return _stuck(f"{name}: {cause}{MEND}")
        policy = (step.retry_policy if step is not None else None) or self._host.retry
        key = (step.id if step is not None else StepId("", 0), direction)
        failures = self._failures.get(key, 0)
        if not isinstance(cause, CommandBlocked):
            failures += 1
            self._failures[key] = failures
            delayed = isinstance(cause, CommandDelayed)
            limit = policy.delays_max if delayed else policy.attempts_max
            if limit is not None and failures >= limit:
                what = "" if direction is _DO else "undo of "
                return _stuck(
                    f"{what}{name} failed {failures} times, last: "
                    f"{describe(cause)}{self._standing()}"
                )
        return Unknown(name, cause, policy)

    def _standing(self) -> str:
        standing = self._state.standing()
        if self._state.aborting is None or not standing:
            return ""
        return f"; still done: {', '.join(map(str, standing))}"

    def _completion(self, result: Any) -> Ended | Delayed | Stuck:
        attempt = self._attempt
        if attempt.numbered > len(attempt.asked):
            forgotten = ", ".join(map(str, attempt.forgotten()))
            return _stuck(
                f"exec made {forgotten} with workflow.step() and never awaited it, so "
                f"it was not done{MEND}"
            )
        try:
            type_ = self._host.names.result_type(self._command)
            data, _ = values.round_trip(result, type_)
        except EncodeError as error:
            return _stuck(f"the result: {error}{MEND}")
        ignored: tuple[str, ...] = ()
        # Each step that a completing run asked for is recorded; so if there are as many
        # of these as of those, none was ignored.
        if len(attempt.asked) < len(self._state.outcomes) or self._state.started:
            unknown = attempt.unknown()
            if unknown and not attempt.patient:
                return self._once_more(
                    f"nobody knows whether {', '.join(map(str, unknown))} was done, "
                    f"and exec completed without asking for it"
                )
            ignored = tuple(map(str, attempt.ignored() + unknown))
        if ignored:
            sometimes("completed without asking for what was started")
            self._host.warn(
                f"workflow {self._state.id} completed without asking for "
                f"{', '.join(ignored)}, which an earlier version of its code did"
            )
        return Ended(
            Finished(self._state.position, _COMPLETED, data, self._host.now(), ignored)
        )

    # -- turning back ----------------------------------------------------------------

    async def _turn_back(self, error: BaseException | None) -> Verdict:
        if self._state.aborting is not None:
            return await self._compensate(error)
        if self._attempt.mode is _CANCELLING:
            return await self._turn_back_cancelled(error)
        assert error is not None
        refusal = self._attempt.refusal_in(error)
        assert refusal is not None
        return await self._turn_back_refused(refusal)

    async def _turn_back_refused(self, refusal: Refused) -> Verdict:
        """Write down the decision; only then undo."""
        missing = self._missing(refusal)
        if missing is not None:
            return missing
        await self._append(
            Aborting(
                self._state.position,
                values.text_of(refusal.reason) or type(refusal).__name__,
                self._host.now(),
                values.refusal_of(refusal),
            )
        )
        return await self._compensate(refusal)

    async def _turn_back_cancelled(self, error: BaseException | None) -> Verdict:
        cancelled = self._state.cancelled
        assert cancelled is not None
        # Interrupted by `park`, not by `cancel`: a step may have been left unstarted
        # that a crash left unknown. The next process finds out.
        if self._attempt.parked and self._attempt.unwound:
            return Parked()
        if self._attempt.doubtful:
            sometimes("cancelled run repeated from its start")
            return Parked()
        missing = self._missing(error)
        if missing is not None:
            return missing
        why = f": {cancelled.reason}" if cancelled.reason else ""
        reason = f"cancelled by {cancelled.by}{why}"
        await self._append(Aborting(self._state.position, reason, self._host.now()))
        return await self._compensate(error)

    def _missing(self, error: BaseException | None) -> Stuck | Delayed | None:
        """Return a verdict if something stands that this run has no undo for."""
        stuck = self._missed(error)
        if stuck is None or self._attempt.patient or not self._state.started:
            return stuck
        return self._once_more(stuck.reason)

    def _once_more(self, reason: str) -> Delayed:
        """Have it run again, patiently: this run missed what was started."""
        sometimes("patient run")
        missed = Unknown("exec", CommandDelayed(reason), self._host.retry)
        return Delayed((missed,), missed=True)

    def _missed(self, error: BaseException | None) -> Stuck | None:
        unknown = self._attempt.unknown()
        if unknown:
            return _stuck(
                f"nobody knows whether {', '.join(map(str, unknown))} was done, and "
                f"exec no longer asks for it{self._standing()}",
                unknown,
            )
        standing = set(self._state.standing())
        missing = [step for step in self._attempt.ignored() if step in standing]
        if not missing:
            return None
        why = "" if error is None else f" (exec ended with {describe(error)})"
        return _stuck(
            f"can't undo {', '.join(map(str, missing))}: recorded as done, but exec no "
            f"longer asks for it{why}{self._standing()}",
            missing,
        )

    async def _compensate(self, error: BaseException | None) -> Verdict:
        state = self._state
        missing = self._missing(error)
        if missing is not None:
            return missing
        for step_id in undo_plan(state, self.steps.undoable):
            if self._attempt.parked:
                sometimes("parked between two undos")
                return Parked()
            step = self.steps.undoable[step_id]
            try:
                await self.steps.undo(step)
            except Refused as refusal:
                sometimes("undo refused")
                return _stuck(
                    f"undo of {step_id} was refused: {values.text_of(refusal.reason)}"
                    f"{self._standing()}"
                )
            except (JournalError, KeyboardInterrupt):
                raise
            except BaseException as failure:
                if self.steps.abandoned:
                    # Whatever it raised as it was cut off: nobody asks any more.
                    raise asyncio.CancelledError from failure
                if isinstance(failure, asyncio.CancelledError):
                    failure = CommandDelayed("the call was cancelled")
                return self._judge_failed([(step, failure)], Direction.UNDO)
        assert state.aborting is not None
        if state.cancelled is not None:
            reason = values.encode(state.aborting.reason)
            end, value = EndStatus.CANCELLED, reason
        else:
            end, value = EndStatus.COMPENSATED, state.aborting.refusal
        return Ended(Finished(state.position, end, value, self._host.now()))


def _stuck(reason: str, missing: Iterable[StepId] = ()) -> Stuck:
    # It may name steps, which are called what the user likes.
    return Stuck(values.storable(reason), tuple(missing))
