"""When delayed workflows run again: due times, one timer, suspended services.

delayed(run) --> due after the slow interval --> start
   |                    ^         |  no try left for its suspended service
   |                    '---------'
   '-- blocked by a service: waits for it, see `admission`
                |
passed(service) '--> due after the fast interval
"""

import asyncio
import logging
from collections.abc import Callable

from coordinator.admission import Admission
from coordinator.errors import CommandBlocked, CommandDelayed
from coordinator.model import Random, Retry
from coordinator.retry import DueQueue, fast_interval_s, slow_interval_s
from coordinator.runs import Run

__all__ = ["Schedule"]

_LOGGER = logging.getLogger("coordinator")

DEFERRED_SHARE = 0.1
"""Of the first interval: how long a workflow that finds no try left waits at least, so
that a queue of thousands is not gone through in every turn of the loop."""


class Schedule:
    """The delayed workflows of one engine."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        admission: Admission,
        retry: Retry,
        random: Random,
        *,
        may_start: Callable[[], bool],
        start: Callable[[Run], None],
    ) -> None:
        """Start with nothing delayed.

        Args:
            loop: For its clock and the timer.
            admission: Knows the suspended services.
            retry: The engine's own policy.
            random: For jitter.
            may_start: Whether another workflow may run now.
            start: Runs one.
        """
        self._loop = loop
        self._admission = admission
        self._retry = retry
        self._random = random
        self._may_start = may_start
        self._start = start
        self._due: DueQueue[Run] = DueQueue()
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = False
        self.told_suspensions: dict[str, None] = {}
        """The suspended services that people were told of last."""

    def __contains__(self, run: object) -> bool:
        return run in self._due

    def __len__(self) -> int:
        return len(self._due)

    def stop(self) -> None:
        """Start nothing more."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def remove(self, run: Run) -> None:
        """Take *run* out."""
        self._due.remove(run)

    def due_in_s(self, run: Run) -> float | None:
        """Return the seconds until *run* is due; None if it is not delayed."""
        due_s = self._due.due_s(run)
        return None if due_s is None else max(0.0, due_s - self._loop.time())

    def soon(self, run: Run) -> None:
        """Run *run* as soon as it may."""
        self._push(run, 0.0)

    def later(self, run: Run, retry: Retry) -> None:
        """Run *run* after the slow interval of *retry*."""
        attempt = max(0, run.delays - 1)
        self._push(run, slow_interval_s(retry, attempt, self._random))

    def delayed(self, run: Run, cause: BaseException, retry: Retry) -> None:
        """Run *run* again some time: *cause* left a step of it unknown."""
        known = len(run.state.outcomes)
        run.delays = run.delays + 1 if known == run.known else 1
        run.known = known
        if isinstance(cause, CommandBlocked):
            self._admission.blocked(cause.service, run)
        elif self._admission.suspensions:
            self._admission.left(run)
        wait_s = slow_interval_s(retry, run.delays - 1, self._random)
        if isinstance(cause, CommandDelayed) and cause.retry_after_s is not None:
            wait_s = max(wait_s, cause.retry_after_s)
        self._push(run, wait_s)

    def passed(self, run: Run, service: str) -> None:
        """*service*, which is suspended, answered *run*: who waits for it is due."""
        waiting = self._admission.suspensions[service].waiting
        first = self._admission.passed(service, run)
        if not first:
            return
        now_s = self._loop.time()
        for other in waiting:
            if isinstance(other, Run) and self._due.remove(other):
                self._due.push(
                    other, now_s + fast_interval_s(self._retry, self._random)
                )
        self._arm()

    def tell_suspensions(self) -> None:
        """Log which services were suspended since the last time, and which answer."""
        told, suspended = self.told_suspensions, self._admission.suspensions
        self.told_suspensions = dict.fromkeys(suspended)
        for service in suspended:
            if service not in told:
                _LOGGER.warning(
                    "service %s is suspended: new commands that need it wait", service
                )
        for service in told:
            if service not in suspended:
                _LOGGER.warning("service %s answers again", service)

    def _push(self, run: Run, wait_s: float) -> None:
        self._due.push(run, self._loop.time() + wait_s)
        self._arm()

    def _arm(self) -> None:
        """Set the timer to the next due time."""
        due_s = self._due.next_due_s()
        if due_s is None or self._stopped:
            return
        if self._timer is not None:
            if self._timer.when() <= due_s:
                return  # wakes early, finds nothing, and arms again
            self._timer.cancel()
        self._timer = self._loop.call_at(due_s, self._wake)

    def _wake(self) -> None:
        """Start what is due, as far as it may run."""
        self._timer = None
        now_s = self._loop.time()
        while self._may_start():
            run = self._due.pop_due(now_s)
            if run is None:
                self._arm()
                return
            if self._admission.may_try(run):
                self._start(run)
            else:
                self._defer(run, now_s)
        # As many as may run do; look again when some may have ended.
        self._timer = self._loop.call_at(now_s + self._retry.first_s, self._wake)

    def _defer(self, run: Run, now_s: float) -> None:
        if self._admission.is_answering(run):
            wait_s = fast_interval_s(self._retry, self._random)
        else:
            wait_s = slow_interval_s(self._retry, 0, self._random)
        self._due.push(run, now_s + max(wait_s, DEFERRED_SHARE * self._retry.first_s))
