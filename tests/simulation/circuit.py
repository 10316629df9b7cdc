"""What a circuit breaker must do, said again, slowly: every call of the window is kept.

    closed     all pass; opens when a failure makes the window's failures too many
    open       none passes before its time is over; then it is half-open
    half-open  at most `trials_max` at a time; one failure opens it, for longer; so many
               successes close it

A call belongs to the period of one state in which it began; the end of one that began
in another period says nothing.
"""

from collections.abc import Callable

from tests.simulation.history import Event
from tests.simulation.shop import GatewayPlan

from cmdstream.breaker import BreakerOptions

__all__ = ["Circuit", "Gate"]


class Circuit:
    """One circuit of one process."""

    def __init__(self, options: BreakerOptions) -> None:
        self._options = options
        self._period = 0
        self._state = "closed"
        self._window: list[tuple[int, bool]] = []
        """Buckets of the calls that ended while closed, and whether they failed."""
        self._open_s = options.open_first_s
        self._open_until_s = 0.0
        self._trials = 0
        self._successes = 0

    def passes(self, now_s: float) -> tuple[int, str]:
        """Note that a call was let through; return its period, and what is wrong."""
        problem = ""
        if self._state == "open":
            if now_s < self._open_until_s:
                left_s = self._open_until_s - now_s
                problem = f"was let through {left_s:.3f} s before the circuit may close"
            else:
                self._enter("half-open")
        if self._state == "half-open":
            if self._trials >= self._options.trials_max:
                problem = f"is trial {self._trials + 1} at a time"
            self._trials += 1
        return self._period, problem

    def turns_away(self, now_s: float) -> str:
        """Note that a call was turned away; return what is wrong with that."""
        if self._state == "closed":
            return "was turned away by a closed circuit"
        if self._state == "open" and now_s >= self._open_until_s:
            return "was turned away when a trial was due"
        if self._state == "half-open" and self._trials < self._options.trials_max:
            return f"was turned away though only {self._trials} trials are on the way"
        return ""

    def ends(self, period: int, now_s: float, fate: str) -> None:
        """Note that a call ended: ``success``, ``failure`` or ``nothing``."""
        if period != self._period:
            return
        if self._state == "half-open":
            self._end_trial(now_s, fate)
        elif fate != "nothing":
            self._count(now_s, failed=fate == "failure")

    def _end_trial(self, now_s: float, fate: str) -> None:
        self._trials -= 1
        if fate == "failure":
            longer_s = self._open_s * self._options.open_factor
            self._open_s = min(longer_s, self._options.open_longest_s)
            self._open(now_s)
        elif fate == "success":
            self._successes += 1
            if self._successes >= self._options.trials_to_close:
                self._open_s = self._options.open_first_s
                self._window.clear()
                self._enter("closed")

    def _count(self, now_s: float, *, failed: bool) -> None:
        options = self._options
        bucket = int(now_s // (options.window_s / options.buckets))
        self._window.append((bucket, failed))
        self._window = [
            one for one in self._window if one[0] > bucket - options.buckets
        ]
        calls, failures = len(self._window), sum(one[1] for one in self._window)
        if (
            failed
            and calls >= options.calls_min
            and failures >= options.failure_rate * calls
        ):
            self._open(now_s)

    def _open(self, now_s: float) -> None:
        self._open_until_s = now_s + self._open_s
        self._enter("open")

    def _enter(self, state: str) -> None:
        self._state = state
        self._period += 1
        self._trials = self._successes = 0


class Gate:
    """Follows what a gateway lets through, and what it turns away.

    Args:
        plan: How it was made; None if there is none.
        violated: Called with the kind of a violation, and what is wrong.
    """

    def __init__(
        self, plan: GatewayPlan | None, violated: Callable[[str, str], None]
    ) -> None:
        self._plan = plan
        self._violated = violated
        self.restart()

    def restart(self) -> None:
        """Another process begins: its circuit is closed."""
        plan = self._plan
        self._circuit = Circuit(plan.breaker) if plan is not None else None
        self._under_way: dict[int, int] = {}
        """Calls, and the periods in which they began."""

    def passes(self, event: Event) -> None:
        """Note that a call begins."""
        assert self._circuit is not None
        assert self._plan is not None
        period, problem = self._circuit.passes(event.fields["now_s"])
        if problem:
            self._violated("breaker", f"a call of shipping {problem}")
        calls = self._under_way
        calls[event.fields["call"]] = period
        if len(calls) > self._plan.calls_max:
            self._violated(
                "bound",
                f"{len(calls)} calls of shipping are under way, "
                f"{self._plan.calls_max} may be",
            )

    def turns_away(self, event: Event) -> None:
        """Note that a call was turned away."""
        assert self._circuit is not None
        problem = self._circuit.turns_away(event.fields["now_s"])
        if problem:
            self._violated("breaker", f"a call of shipping {problem}")

    def ends(self, event: Event) -> None:
        """Note that a call ended."""
        fields = event.fields
        assert self._circuit is not None
        period = self._under_way.pop(fields["call"])
        self._circuit.ends(period, fields["now_s"], fields["fate"])
