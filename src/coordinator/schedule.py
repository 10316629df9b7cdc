"""When delayed workflows run again: due times, one timer, suspended services.

delayed(run) --> due after the slow interval --> start
   |                                     |         ^
   |                                     v         |  a try is left, see `admission`
   '-- blocked by a service --------> parked ------'
                |                                  ^
passed(service) '--> due after the fast interval --'
                     and that of what failed beside
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from coordinator.admission import Admission
from coordinator.errors import CommandBlocked, CommandDelayed
from coordinator.model import Random, Retry
from coordinator.retry import DueQueue, fast_interval_s, slow_interval_s
from coordinator.runs import Run
from coordinator.saga import Unknown

__all__ = ["Schedule"]

_LOGGER = logging.getLogger("coordinator")

STARTS_PER_TURN = 250
"""Workflows started in one turn of the loop: after a restart, or an outage, 100,000 may
be due at once, and who comes in meanwhile must not wait for them all."""


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
        self._told: tuple[str, ...] = ()
        """The suspended services that people were told of last."""

    def __contains__(self, run: object) -> bool:
        return run in self._due or self._admission.is_parked(run)

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
        self._admission.take_out(run)

    def due_in_s(self, run: Run) -> float | None:
        """Return the seconds until *run* is due; None if it is not delayed.

        0 for one that is due and waits for a try.
        """
        due_s = self._due.due_s(run)
        if due_s is None:
            return 0.0 if self._admission.is_parked(run) else None
        return max(0.0, due_s - self._loop.time())

    def soon(self, run: Run) -> None:
        """Run *run* as soon as it may."""
        self._push(run, 0.0)

    def later(self, run: Run, retry: Retry) -> None:
        """Run *run* after the slow interval of *retry*."""
        attempt = max(0, run.delays - 1)
        self._push(run, slow_interval_s(retry, attempt, self._random))

    def delayed(self, run: Run, unknown: Iterable[Unknown]) -> None:
        """Run *run* again some time: it left *unknown*, each of which waits its own."""
        known = len(run.state.outcomes)
        run.delays = run.delays + 1 if known == run.known else 1
        run.known = known
        wait_s = failed_s = 0.0
        services: list[str] = []
        for one in unknown:
            one_s = slow_interval_s(one.retry, run.delays - 1, self._random)
            cause = one.cause
            if isinstance(cause, CommandDelayed) and cause.retry_after_s is not None:
                one_s = max(one_s, cause.retry_after_s)
            if isinstance(cause, CommandBlocked):
                services.append(cause.service)
            else:
                failed_s = max(failed_s, one_s)
            wait_s = max(wait_s, one_s)
        for service in services:
            self._admission.blocked(service, run)
        if not services and self._admission.suspensions:
            self._admission.left(run)
        run.not_before_s = 0.0
        if services and failed_s:
            run.not_before_s = self._loop.time() + failed_s
        self._push(run, wait_s)
        self._tell()

    def passed(self, run: Run, service: str) -> None:
        """*service*, which is suspended, answered *run*: who waits for it is due."""
        waiting = self._admission.suspensions[service].waiting
        first = self._admission.passed(service, run)
        if first:
            now_s = self._loop.time()
            for other in waiting:
                if isinstance(other, Run) and self._due.remove(other):
                    self._try(other, now_s)
        self._unpark()
        self._tell()

    def tried(self, run: Run, *, ended: bool) -> None:
        """*run* is put down; what it took of suspended services goes to others."""
        if self._admission.suspensions:
            self._admission.tried(run)
            if ended:
                self._admission.left(run)
            self._unpark()
            self._tell()

    def _try(self, run: Run, now_s: float) -> None:
        """Have *run* start after the fast interval if it may try; else it is parked.

        If something else failed in it, it waits for that, and takes no try meanwhile.
        """
        if run.not_before_s > now_s:
            self._due.push(run, run.not_before_s)
        elif self._admission.try_or_park(run, now_s):
            self._due.push(run, now_s + fast_interval_s(self._retry, self._random))

    def _unpark(self) -> None:
        """Have those start who were parked and may try now."""
        now_s = self._loop.time()
        for run in self._admission.unpark(now_s):
            assert isinstance(run, Run)
            self._due.push(run, now_s + fast_interval_s(self._retry, self._random))
        self._arm()

    def _tell(self) -> None:
        """Log which services were suspended since the last time, and which answer."""
        told, suspended = self._told, tuple(self._admission.suspensions)
        if told == suspended:
            return
        self._told = suspended
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
        """Set the timer to the next time at which there is something to do."""
        if self._stopped:
            return
        due_s = self._due.next_due_s()
        if self._admission.suspensions:
            unpark_s = self._admission.unpark_s()
            if unpark_s is not None and (due_s is None or unpark_s < due_s):
                due_s = unpark_s
        if due_s is not None:
            self._arm_at(due_s)

    def _arm_at(self, due_s: float) -> None:
        if self._timer is not None:
            if self._timer.when() <= due_s:
                return  # wakes early, finds nothing, and arms again
            self._timer.cancel()
        self._timer = self._loop.call_at(due_s, self._wake)

    def _wake(self) -> None:
        """Start what is due, as far as it may run."""
        self._timer = None
        now_s = self._loop.time()
        for _ in range(STARTS_PER_TURN):
            if not self._may_start():
                # Look again when some may have ended.
                self._arm_at(now_s + self._retry.first_s)
                return
            run = self._due.pop_due(now_s)
            if run is None:
                break
            if self._admission.try_or_park(run, now_s):
                self._start(run)
        if self._admission.suspensions:
            self._unpark()
        self._arm()
