"""What new code would do with a workflow that old code began; no service is called.

    recorded outcomes --> exec of the new code --> the first call --> cut there: goes on
                          (the engine's own run)   an end         --> ends
                                                   neither        --> says what is wrong

The run is that of a restart: `Attempt`, `Steps` and `Execution` decide. Only the host
is another one. Its calls never call, what is appended changes the state in memory and
nothing else, and its time is virtual: it passes at once where `exec` sleeps.

Time stands still once a call was asked for, or a time-out around it would seem to have
expired; unless something recorded was not asked for yet, which another task of `exec`
may be about to do.
"""

import asyncio
import enum
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, TypeVar, TypeVarTuple

import msgspec
from msgspec.structs import replace

from coordinator.calls import Call, describe
from coordinator.commands import Commands
from coordinator.commit import Durable
from coordinator.context import StepContext
from coordinator.errors import CommandTypeError, DecodeError
from coordinator.execution import MEND, Execution
from coordinator.model import Direction, OutcomeStatus, StepId
from coordinator.options import EngineOptions
from coordinator.records import Record, Resumed
from coordinator.saga import Attempt, Delayed, Ended, Stuck, Verdict
from coordinator.state import WorkflowState
from coordinator.steps import Steps
from coordinator.threads import Threads
from coordinator.workflow import Names

__all__ = ["Asked", "Finding", "Preview", "Prospect", "Recorded"]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

TURNS_MAX = 10_000
"""Turns of the loop after which a run is given up, and `TURNS_PER_OUTCOME` more for
each recorded outcome: one that is replayed takes none, or very few."""
TURNS_PER_OUTCOME = 10
CLOSES_MAX = 10
"""Times that a coroutine is closed which awaits while it is."""


class Prospect(enum.StrEnum):
    """What would become of a workflow."""

    GOES_ON = "goes_on"
    """At the steps that it would call next."""
    ENDS = "ends"
    """At once: nothing is left to be called."""
    DIFFERS = "differs"
    """It takes a path on which something recorded was not asked for."""
    UNDO_LOST = "undo_lost"
    """It turns back, and is stuck: exec no longer asks for what is to be undone."""
    OUTCOME_UNREADABLE = "outcome_unreadable"
    """Stuck: a recorded outcome does not decode to the type that a step returns now."""
    PAYLOAD_UNREADABLE = "payload_unreadable"
    """Stuck: the command does not decode."""
    COMMAND_GONE = "command_gone"
    """Stuck: there is no such command, or no reader for how it is stored."""
    STUCK = "stuck"
    """For another reason, such as a bug."""
    NO_STEP = "no_step"
    """Exec comes neither to a step nor to an end."""
    STILL_STUCK = "still_stuck"
    """It is stuck already, and would be again, for the same reason."""

    @property
    def is_fine(self) -> bool:
        """Whether the new code makes nothing worse."""
        return self in {Prospect.GOES_ON, Prospect.ENDS, Prospect.STILL_STUCK}


class Recorded(msgspec.Struct, frozen=True):
    """A step of which something is recorded."""

    step: str
    occurrence: int
    outcome: str
    """``done`` or ``refused``; ``unknown`` if it was started, and nobody knows more."""

    def __str__(self) -> str:
        return f"{StepId(self.step, self.occurrence)} ({self.outcome})"


class Asked(msgspec.Struct, frozen=True):
    """A call that would be made next."""

    step: str
    occurrence: int
    direction: str
    """``do`` or ``undo``."""

    def __str__(self) -> str:
        undo = "undo of " if self.direction == "undo" else ""
        return f"{undo}{StepId(self.step, self.occurrence)}"


class Finding(
    msgspec.Struct, frozen=True, kw_only=True, tag="finding", tag_field="event"
):
    """What new code would do with one workflow."""

    id: str
    type: str
    key: str
    status: str
    """Now: ``running``, ``cancelling``, ``aborting`` or ``stuck``."""
    prospect: Prospect
    said: str
    """The same for people, with the steps concerned."""
    asked: tuple[Asked, ...] = ()
    """What would be called next."""
    recorded: tuple[Recorded, ...] = ()
    """What is recorded and was not asked for; or the outcome that does not decode."""
    without_undo: tuple[Recorded, ...] = ()
    """Done, asked for, and without an undo in the new code: would stay done."""


class Preview:
    """Judges the unfinished workflows of a journal by new code."""

    def __init__(
        self, receiver: Any, commands: Commands, options: EngineOptions
    ) -> None:
        """Prepare.

        Args:
            receiver: Handed to every `exec`; no step of it is called.
            commands: The new code.
            options: As the new process would have them.
        """
        self.receiver = receiver
        self.names = Names(receiver)
        self.options = options
        self.threads = Threads(1)  # never used, so it starts none
        self._commands = commands

    def judge(self, state: WorkflowState) -> Finding:
        """Run the new code over *state*, which is used up.

        Must not be called from a running loop: it has one of its own.
        """
        now, stuck = state.describe(), state.stuck
        if stuck is not None:
            state.apply(Resumed(state.position, "", 0))
        finding = self._run(state, patient=False) or self._run(state, patient=True)
        assert finding is not None
        said, prospect = finding.said, finding.prospect
        if stuck is not None:
            if prospect.is_fine:
                said = f"{said}, once it is retried"
            elif _first_line(stuck.reason) == _first_line(said):
                prospect = Prospect.STILL_STUCK
        return replace(finding, status=now, prospect=prospect, said=said)

    def _run(self, state: WorkflowState, *, patient: bool) -> Finding | None:
        """Return what one run comes to; None if the engine would make a patient one."""
        accepted = state.accepted
        found = Finding(
            id=state.id,
            type=accepted.type,
            key=accepted.key,
            status=state.describe(),
            prospect=Prospect.COMMAND_GONE,
            said="",
        )
        try:
            command = self._commands.decode(accepted)
        except CommandTypeError as error:
            return replace(found, said=str(error))
        except DecodeError as error:
            unreadable = Prospect.PAYLOAD_UNREADABLE
            return replace(found, prospect=unreadable, said=f"{error}{MEND}")
        run = _Run(self, state, command, patient=patient)
        try:
            verdict = run.drive()
            if isinstance(verdict, Delayed) and verdict.missed:
                return None
            prospect, said, recorded = run.tell(verdict)
            return replace(
                found,
                prospect=prospect,
                said=said,
                asked=run.asked(),
                recorded=recorded,
                without_undo=run.without_undo(),
            )
        finally:
            run.bury()


class _CutError(BaseException):
    """Ends the loop of a run that has come as far as it can."""


class _Run:
    """One run of `exec`; the `Host` of it."""

    suspended = ()

    def __init__(
        self, preview: Preview, state: WorkflowState, command: Any, *, patient: bool
    ) -> None:
        self.receiver = preview.receiver
        self.names = preview.names
        self.retry = preview.options.retry
        self.step_timeout_s = preview.options.step_timeout_s
        self.threads = preview.threads
        self.call: Call = self._note
        self.calls: list[StepContext] = []
        """What would be called."""
        self._own_loop = _Loop(self._turn, self._idle)
        self.loop: asyncio.AbstractEventLoop = self._own_loop
        self._state = state
        self._attempt = Attempt(state, patient=patient)
        self._turns = 0
        self._turns_max = TURNS_MAX + TURNS_PER_OUTCOME * len(state.outcomes)
        self._why = ""
        self._interrupted = False
        self._steps = Steps(
            self,
            state,
            self._append,
            self._attempt,
            journal_id="preview",
            epoch=0,
            failures={},
            passed=lambda _: None,
        )
        self._execution = Execution(command, self, state, self._append, self._steps, {})

    def now(self) -> int:
        return 0  # of records that nobody reads

    def warn(self, message: str) -> None:
        """Nobody: the finding says it."""

    def _append(self, record: Record) -> Durable:
        self._state.apply(record)
        durable = Durable(self.loop)
        durable.finish()
        return durable

    async def _note(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        is_async: bool,
        context: Callable[[], StepContext],
        timeout_s: float,
        threads: Threads,
    ) -> Any:
        self.calls.append(context())
        try:
            await self.loop.create_future()
        except asyncio.CancelledError:
            self._interrupted = True
            raise

    # -- the loop's ------------------------------------------------------------------

    def _turn(self) -> None:
        self._turns += 1
        if self._turns > self._turns_max:
            self._why = f"exec comes to no step and no end in {self._turns_max} turns"
            raise _CutError

    def _idle(self, wait_s: float | None) -> float:
        """Every task waits. Return the seconds that pass."""
        if self.calls and (self._interrupted or wait_s is None or not self._unasked()):
            raise _CutError
        if wait_s is None:
            self._why = "exec waits for what is no step, and nothing wakes it"
            raise _CutError
        return wait_s

    def bury(self) -> None:
        """End what is left of it. Before that, it is as it was when it was cut."""
        self._own_loop.bury()

    # -- what came of it -------------------------------------------------------------

    def drive(self) -> Verdict | None:
        """Run `exec` up to its end, or until it waits for a call; None for that."""
        try:
            return self.loop.run_until_complete(self._execution.run())
        except _CutError:
            return None
        except (asyncio.CancelledError, SystemExit) as error:
            self._why = f"exec ended its own task or the process: {describe(error)}"
            return None

    def tell(
        self, verdict: Verdict | None
    ) -> tuple[Prospect, str, tuple[Recorded, ...]]:
        """Say what the run came to: in a word, in words, and what is concerned."""
        if self.calls:
            unasked = self._unasked()
            where = ", ".join(map(str, self.asked()))
            if unasked:
                said = f"calls {where}, and has not asked for {_list(unasked)}"
                return Prospect.DIFFERS, said, unasked
            return Prospect.GOES_ON, f"goes on at {where}", ()
        match verdict:
            case None:
                return Prospect.NO_STEP, self._why, self._unasked()
            case Ended(finished):
                unasked = () if self._turned_back else self._unasked()
                said = f"ends at once, {finished.status.name.lower()}"
                if unasked:
                    said += f", and has not asked for {_list(unasked)}"
                    return Prospect.DIFFERS, said, unasked
                return Prospect.ENDS, said, ()
            case Stuck():
                return self._tell_stuck(verdict)
            case _:
                # It delays itself. (Parked is who was told to stop: nobody here.)
                return Prospect.GOES_ON, "goes on: exec delays itself", ()

    def _tell_stuck(self, stuck: Stuck) -> tuple[Prospect, str, tuple[Recorded, ...]]:
        failed = self._steps.failed
        if failed and isinstance(failed[0][1], DecodeError):
            unreadable = self._recorded([failed[0][0].id])
            return Prospect.OUTCOME_UNREADABLE, stuck.reason, unreadable
        if stuck.missing:
            return Prospect.UNDO_LOST, stuck.reason, self._recorded(stuck.missing)
        return Prospect.STUCK, stuck.reason, ()

    @property
    def _turned_back(self) -> bool:
        return self._state.aborting is not None

    def _unasked(self) -> tuple[Recorded, ...]:
        """Return what is recorded and was not asked for.

        Of one that turned back only what stands matters, and `Execution` has looked.
        """
        if self._turned_back:
            return ()
        asked = self._attempt.asked
        known = [step for step, _ in self._state.steps() if step not in asked]
        return self._recorded(known + self._attempt.unknown())

    def _recorded(self, steps: Iterable[StepId]) -> tuple[Recorded, ...]:
        return tuple(
            Recorded(step.name, step.occurrence, self._outcome_of(step))
            for step in steps
        )

    def _outcome_of(self, step: StepId) -> str:
        outcome = self._state.outcome(step)
        return "unknown" if outcome is None else outcome.status.name.lower()

    def asked(self) -> tuple[Asked, ...]:
        """Return what would be called."""
        return tuple(
            Asked(
                call.step.name,
                call.step.occurrence,
                "undo" if call.direction is Direction.UNDO else "do",
            )
            for call in self.calls
        )

    def without_undo(self) -> tuple[Recorded, ...]:
        """Return what is done, was asked for, and has no undo."""
        return self._recorded(
            [
                step
                for step, outcome in self._state.steps()
                if outcome.status is OutcomeStatus.DONE
                and step in self._attempt.asked
                and step not in self._steps.undoable
            ]
        )


def _list(recorded: tuple[Recorded, ...]) -> str:
    return ", ".join(map(str, recorded))


def _first_line(text: str) -> str:
    return text.partition("\n")[0]


class _Loop(asyncio.BaseEventLoop):
    """A loop without a clock, a network and threads, for one run.

    What `exec` hands to a thread is run in its place; a connection can't be made.
    """

    def __init__(
        self, turn: Callable[[], None], idle: Callable[[float | None], float]
    ) -> None:
        super().__init__()
        self._now_s = 0.0
        self._turn = turn
        self._idle = idle
        # What `BaseEventLoop` waits with: this loop has nothing else to wait for.
        self._selector = self
        self.set_exception_handler(lambda _loop, _context: None)

    def time(self) -> float:
        """Return virtual seconds."""
        return self._now_s

    def select(self, timeout: float | None) -> list[Any]:
        """Wait for *timeout* seconds, or for ever: no time at all."""
        self._turn()
        if timeout is None or timeout > 0:
            # A microsecond more: the sum may be rounded down, and the timer missed.
            self._now_s += self._idle(timeout) + 1e-6
        return []

    def _process_events(self, event_list: object) -> None: ...

    def _write_to_self(self) -> None: ...

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run *func* now."""
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 -- it is the caller's
            future.set_exception(error)
        return future

    def bury(self) -> None:
        """End what is left, without a word, and close."""
        for task in asyncio.all_tasks(self):
            # Not in the stubs; both the C and the Python task have it.
            setattr(task, "_log_destroy_pending", False)  # noqa: B010 -- as above
            coroutine: Any = task.get_coro()
            for _ in range(CLOSES_MAX):  # a finally that awaits refuses to be closed
                with suppress(BaseException):
                    coroutine.close()
                    break
        self.close()
