"""The engine: takes commands in, runs their workflows, delays, resumes, recovers.

    offer --> [waits at the door] --> Accepted, durable --> run --> Ended: tell callers
                                            ^                |----> Delayed: due later
                 recovery, due times -------'                |----> Stuck: tell callers
                 operators (retry, cancel) --'               '----> Parked

What is unfinished in a partition that is lost (`keeping`) is forgotten here, and found
again when the partition is opened again.

One task per running workflow; a delayed one has none. What a run of `exec` may do is
`execution`'s, who may come in is `entrance`'s, when to try again is `schedule`'s, and
what is known is `log`'s; this module only connects them.
"""

import asyncio
import logging
import traceback
from collections.abc import Callable
from typing import Any

from coordinator import saga
from coordinator.admission import Admission
from coordinator.calls import Call, call, describe
from coordinator.commands import Commands
from coordinator.commit import Durable
from coordinator.entrance import Entrance
from coordinator.errors import (
    CommandTypeError,
    DecodeError,
    JournalClosedError,
    JournalError,
)
from coordinator.execution import MEND, Execution
from coordinator.keeping import Keeper
from coordinator.log import Log
from coordinator.logs import Logs
from coordinator.model import Random, WorkflowId
from coordinator.operators import Operators
from coordinator.options import EngineOptions
from coordinator.orphans import Orphans
from coordinator.ports import Journal
from coordinator.records import Stuck
from coordinator.runs import Caller, Run, Submission
from coordinator.schedule import Schedule
from coordinator.state import WorkflowState
from coordinator.steps import Steps
from coordinator.threads import Threads
from coordinator.workflow import Names

__all__ = ["Engine"]

_LOGGER = logging.getLogger("coordinator")

REASON_LENGTH_MAX = 20_000
"""Characters of a reason that are stored; a service's words may be longer than that."""
ERROR_LENGTH_MAX = 5_000  # characters of one kept in memory, for each delayed workflow
ABANDON_S = 10.0
"""Seconds that cancelled workflows have to end when the coordinator closes: user code
may swallow a cancellation, but not keep us from closing."""


class Engine:
    """Runs the workflows of one journal."""

    def __init__(
        self,
        receiver: Any,
        commands: Commands,
        options: EngineOptions,
        *,
        clock: Callable[[], int],
        random: Random,
        call: Call = call,
    ) -> None:
        """Prepare; nothing is opened.

        Args:
            receiver: Handed to every `exec`.
            commands: What may be submitted and recovered.
            options: The bounds.
            clock: Microseconds since 1970.
            random: For jitter.
            call: Calls the function of a step or an undo.
        """
        self.receiver = receiver
        self.names = Names(receiver)
        self.retry = options.retry
        self.step_timeout_s = options.step_timeout_s
        self.now = clock
        self.call = call
        self.threads = Threads(options.threads_max)
        self.admission = Admission(
            options.commands_max, options.probes, options.retry.first_s
        )
        self.suspended = self.admission.suspensions
        self.journal: Journal | None = None
        self._options = options
        self._commands = commands
        self._random = random
        self._logs: Logs | None = None
        self._runs: dict[WorkflowId, Run] = {}
        self._active: dict[Run, None] = {}  # in order, so that a seed repeats
        self._schedule: Schedule | None = None
        self._abandoned = False
        """Cut off: what is appended, and not known to be durable, may never be."""
        self._idle = asyncio.Event()
        self._keeper: Keeper | None = None
        self.loop: asyncio.AbstractEventLoop
        self.failed: asyncio.Future[JournalError] | None = None
        """Done when the journal is dead, with the reason: the process must end."""
        self.operators = Operators(
            self._runs,
            self._resume,
            clock,
            lambda run: self.schedule.due_in_s(run),  # noqa: PLW0108 -- made at start
            self._is_lost,
        )
        self.entrance = Entrance(
            self._runs, self.admission, commands.services_of, clock, self._let_in
        )
        self._orphans = Orphans(self._runs, self.entrance.let_in_again)

    # -- start and stop --------------------------------------------------------------

    async def start(self, journal: Journal, owner: str) -> None:
        """Claim *journal*, rebuild what is unfinished, and run it.

        Raises:
            JournalError: It can't be claimed or read. Nothing was started.
        """
        self.loop = asyncio.get_running_loop()
        self.failed = self.loop.create_future()
        self.journal = journal
        self._logs = logs = Logs(journal.partitions, self.now)
        self._keeper = Keeper(
            journal,
            logs,
            self,
            owner=owner,
            clock=self.now,
            options=self._options.log,
            retry=self._options.retry,
            random=self._random,
        )
        self.entrance.open(logs, self.loop.time)
        self._schedule = Schedule(
            self.loop,
            self.admission,
            self._options.retry,
            self._random,
            may_start=lambda: len(self._active) < self.admission.nested_max,
            start=self._start,
        )
        for log in await self._keeper.start():
            if not log.given_up:  # the first may be lost while the last is opened
                self._run_unfinished(log)

    def _run_unfinished(self, log: Log) -> None:
        for state in list(log.state.workflows.values()):
            run = self._adopt(log, state)
            run.durable = True
            if state.stuck is None:
                self.schedule.soon(run)

    def _is_lost(self, number: int) -> bool:
        logs = self._logs
        return logs is not None and number < logs.partitions and number not in logs

    async def drain(self, deadline_s: float) -> bool:
        """Take nothing new, let the running steps end, and return.

        Returns:
            Whether all of them ended within *deadline_s* seconds. What did not is cut
            off; the next process asks again, under the same keys.
        """
        self._close("the coordinator is stopping")
        for run in self._active:
            if run.execution is not None:
                run.execution.steps.park()
        try:
            async with asyncio.timeout(deadline_s):
                while self._active:
                    self._idle.clear()
                    await self._idle.wait()
        except TimeoutError:
            pass
        in_time = not self._active
        await self._abandon()
        return in_time

    async def aclose(self) -> None:
        """Stop at once: cut off what runs, flush, give the journal up.

        May be called twice. Nothing acknowledged is lost, and nothing unfinished.
        """
        self._close("the coordinator was stopped")
        try:
            await self._abandon()
        finally:
            try:
                if self._keeper is not None:
                    await self._keeper.aclose()
            finally:
                stopped = JournalClosedError("the coordinator was stopped")
                self._tell_all(self.entrance.failure or stopped)
                self.threads.shutdown(cancel_futures=True)

    @property
    def schedule(self) -> Schedule:
        """What is delayed. There once the engine is started."""
        assert self._schedule is not None
        return self._schedule

    def _close(self, reason: str) -> None:
        if self._schedule is not None:
            self._schedule.stop()
        self.entrance.close(reason)

    async def _abandon(self) -> None:
        self._abandoned = True
        if self._keeper is not None:
            await self._keeper.stop()
        if self._logs is not None:
            self._logs.stop_waiting()
        for run in list(self._active):
            if run.execution is not None:
                run.execution.steps.abandon()
            if run.task is not None:
                run.task.cancel()
        tasks = {run.task for run in self._active if run.task is not None}
        if tasks and (stubborn := (await asyncio.wait(tasks, timeout=ABANDON_S))[1]):
            _LOGGER.error(
                "%d steps do not end although they were cancelled; left behind",
                len(stubborn),
            )

    def _tell_all(self, error: JournalError) -> None:
        for run in self._runs.values():
            run.tell_refused(error)
        self._orphans.refuse(error)

    # -- coming in -------------------------------------------------------------------

    def attach(self, workflow_id: str, caller: Caller) -> None:
        """Tell *caller* when that unfinished workflow ends.

        Raises:
            UnknownWorkflowError: It is not here, or has ended.
        """
        self.operators.find(workflow_id).join(caller)

    def _let_in(
        self,
        log: Log,
        state: WorkflowState,
        submission: Submission,
        callers: tuple[Caller, ...],
        durable: Durable,
    ) -> Run:
        run = self._adopt(log, state)
        run.callers = callers
        run.command = submission.command
        run.fresh = True
        self._start(run, durable)
        return run

    # -- running ---------------------------------------------------------------------

    def _adopt(self, log: Log, state: WorkflowState) -> Run:
        run = self._runs[state.id] = Run(log, state)
        self._count(run, state.stuck is None)
        return run

    def _count(self, run: Run, counted: bool) -> None:
        """Count *run* among the commands in memory, or no longer."""
        if run.counted is not counted:
            run.counted = counted
            self.admission.count += 1 if counted else -1

    def _start(self, run: Run, durable: Durable | None = None) -> None:
        assert run.task is None
        self._active[run] = None
        run.task = self.loop.create_task(self._drive(run, durable))

    async def _drive(self, run: Run, durable: Durable | None) -> None:
        """Run one workflow until it ends, is delayed, stuck or parked."""
        try:
            if durable is not None:
                await durable
                self.entrance.came_in(run)
                run.tell_accepted()
            verdict = self._prepare(run)
            if verdict is None:
                assert run.execution is not None
                verdict = await run.execution.run()
            if not isinstance(verdict, saga.Ended):
                await self._conclude(run, verdict)
        except JournalError as error:
            run.tell_refused(error)
        except asyncio.CancelledError:
            # Abandoned: the process ends, and nobody waits for this task's end. Or user
            # code kept the task of its `exec` and cancelled it behind `exec`. Then what
            # the state says is durable, for no wait for that is ever cut short
            # (`commit.Durable`); and we go by what it says.
            pass
        except Exception:  # noqa: BLE001 -- a bug of ours must not take the rest along
            run.last_error = traceback.format_exc()
            _LOGGER.critical("bug: workflow %s\n%s", run.state.id, run.last_error)
        finally:
            self._put_down(run)

    def _put_down(self, run: Run) -> None:
        """Tell how *run*, whose task ends, ended; or have it taken up again."""
        run.task = run.execution = None
        self._active.pop(run, None)
        if not self._active:
            self._idle.set()
        state = run.state
        over = state.finished is not None or state.stuck is not None
        self.schedule.tried(run, ended=over or run.log.given_up)
        if run.log.given_up:
            return
        if over:
            self._count(run, counted=False)
            if not self._abandoned:
                if state.finished is not None:
                    del self._runs[state.id]
                run.tell_over()
            self.entrance.look()
            return
        run.rest()
        if not self.entrance.closing and run not in self.schedule:
            # An operator changed its state while it ran or was being put down, or a bug
            # of ours did; either way it must not be forgotten.
            self.schedule.later(run, self.retry)

    def _prepare(self, run: Run) -> saga.Verdict | None:
        """Make `run.execution`; or say why it does not come to that."""
        if self.entrance.closing:
            return saga.Parked()
        # Anew for each run: the one of an earlier run may be changed.
        command, run.command = run.command, None
        try:
            if command is None:
                command = self._commands.decode(run.state.accepted)
        except CommandTypeError as error:
            return saga.Stuck(str(error))
        except DecodeError as error:
            return saga.Stuck(f"{error}{MEND}")
        assert self.journal is not None
        run.failures = failures = dict(run.failures) if run.failures else {}
        steps = Steps(
            self,
            run.state,
            run.log.append,
            saga.Attempt(run.state, first=run.fresh, patient=run.patient),
            journal_id=self.journal.id,
            epoch=run.log.partition.epoch,
            failures=failures,
            passed=lambda service: self._passed(run, service),
        )
        run.fresh = False
        run.execution = Execution(
            command, self, run.state, run.log.append, steps, failures
        )
        return None

    def _passed(self, run: Run, service: str) -> None:
        if service in self.suspended:
            self.schedule.passed(run, service)
            self.entrance.look()

    async def _conclude(self, run: Run, verdict: saga.Verdict) -> None:
        state = run.state
        if isinstance(verdict, saga.Delayed):
            run.patient = run.patient or verdict.missed
            first = verdict.unknown[0]
            error = f"{first.step}: {describe(first.cause)}"
            run.last_error = error[:ERROR_LENGTH_MAX]
            self.schedule.delayed(run, verdict.unknown)
            self.entrance.look()
        elif isinstance(verdict, saga.Stuck):
            reason = verdict.reason
            if len(reason) > REASON_LENGTH_MAX:
                reason = f"{reason[:REASON_LENGTH_MAX]} ..."
            await run.log.append(Stuck(state.position, reason, self.now()))
            _LOGGER.error("workflow %s is stuck: %s", state.id, reason)

    def _resume(self, run: Run) -> None:
        """Run a workflow that an operator wants to go on, now."""
        self._count(run, counted=True)
        run.forgive()
        self.schedule.remove(run)
        self._start(run)

    # -- for `keeping.Keeping` -------------------------------------------------------

    def held(self, log: Log) -> None:
        """Run what is unfinished in *log*, whose partition was lost; tell who waits."""
        self._run_unfinished(log)
        self._orphans.give_back(log)
        self.entrance.look()

    def lost(self, log: Log, error: JournalError) -> None:
        """Forget what is unfinished in *log*, and cut it off."""
        lost = [run for run in self._runs.values() if run.log is log]
        self._orphans.take(log, lost, error)
        for run in lost:
            self._forget(run)

    def broken(self, error: JournalError) -> None:
        """The journal is dead: nothing more can be acknowledged, so nothing is done."""
        self._abandoned = True
        self._close(f"the journal failed: {error}")
        if self.failed is not None and not self.failed.done():
            # Once, though every partition of a dead disk finds out for itself.
            _LOGGER.critical(
                "the journal failed: %s; restart the process: only a new one may trust "
                "the disk, and what was accepted goes on there",
                error,
            )
            self.failed.set_result(error)
            self.entrance.failure = error
        for run in list(self._active):
            if run.execution is not None:
                run.execution.steps.abandon()
        self._tell_all(error)

    def _forget(self, run: Run) -> None:
        """Let go of a workflow whose partition was lost."""
        del self._runs[run.state.id]
        self._count(run, counted=False)
        self.schedule.remove(run)
        if not run.durable:
            self.entrance.lost(run)
        if run.execution is not None:
            run.execution.steps.abandon()
        if run.task is not None:
            run.task.cancel()
        else:
            self.schedule.tried(run, ended=True)

    # -- for `host.Host` -------------------------------------------------------------

    def warn(self, message: str) -> None:
        """Tell people."""
        _LOGGER.warning("%s", message)
