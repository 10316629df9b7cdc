"""A circuit breaker: stop asking a service that does not answer. Pure; no clock.

It knows nothing of cmd-stream, and is not only for it: `cmdstream.circuit` puts it
around sends, and coordinator around the calls of all its gateways.

              failures / calls >= failure_rate
              and calls >= calls_min (a rolling window)
    closed ------------------------------------------> open <---------+
      ^                                                 |             | one trial fails:
      |                                                 | open time   | open, for longer
      |  trials_to_close trials succeeded               v is over     |
      +---------------------------------------------- half-open ------+
                                                        at most trials_max in flight

Each call asks `Breaker.admit` for a ticket, and hands it back with what came of the
call: `succeeded`, `failed` or `abandoned` (cancelled, or its end says nothing about the
service). A ticket is the number of the period of one state in which the call began.
When the state changes the number changes, so a late result of an earlier period finds
itself outdated and counts for nothing: the success of a call that began before the
circuit opened does not close it, and a failure of one does not spoil a trial.

There is no timer: an open circuit becomes half-open when it is next asked. Nothing can
fire late, and a simulation's clock is as good as a real one.

Not thread-safe: a breaker belongs to one event loop.
"""

import enum
from typing import NewType

import msgspec

__all__ = ["Breaker", "BreakerOptions", "BreakerSnapshot", "BreakerState", "Ticket"]

Ticket = NewType("Ticket", int)
"""What an admitted call hands back: the number of the period it began in."""


class BreakerState(enum.StrEnum):
    """What a breaker does with a call: lets it pass, turns it away, tries with it."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class BreakerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """When a circuit opens, for how long, and what closes it again."""

    window_s: float = 10.0
    """Seconds over which the rate is taken; more than 0. Long enough for `calls_min`
    calls of a quiet service, short enough to forget a deploy's hiccup."""
    buckets: int = 10
    """Parts of the window that are forgotten one by one; 1 to 1,000. The window is
    exact to one part; each costs two integers."""
    failure_rate: float = 0.5
    """Share of failures that opens the circuit; above 0, at most 1. Well above what
    retries absorb (a few per cent), well below a service that is down (all)."""
    calls_min: int = 20
    """Calls in the window below which no rate is taken; 1 or more. One failure of one
    call is a rate of 1, and means nothing."""
    open_first_s: float = 1.0
    """Seconds the circuit stays open the first time; more than 0. About a process's
    restart."""
    open_factor: float = 2.0
    """By how much each opening without a closing between is longer; 1 or more."""
    open_longest_s: float = 30.0
    """Seconds that no opening exceeds; `open_first_s` or more. It is how late the end
    of a long outage may be noticed."""
    trials_max: int = 2
    """Calls in flight while half-open; 1 or more. What a service that just came up is
    asked to carry."""
    trials_to_close: int = 2
    """Successes that close the circuit; 1 or more. One may be luck."""

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ValueError: A field is out of its bounds.
        """
        if not (self.window_s > 0 and 1 <= self.buckets <= 1000):
            raise ValueError(
                f"a breaker needs window_s > 0 and 1 <= buckets <= 1000, got {self}"
            )
        if not (0 < self.failure_rate <= 1 and self.calls_min >= 1):
            raise ValueError(
                f"a breaker needs 0 < failure_rate <= 1 and calls_min >= 1, got {self}"
            )
        if not (0 < self.open_first_s <= self.open_longest_s and self.open_factor >= 1):
            raise ValueError(
                "a breaker needs 0 < open_first_s <= open_longest_s and "
                f"open_factor >= 1, got {self}"
            )
        if self.trials_max < 1 or self.trials_to_close < 1:
            raise ValueError(
                f"a breaker needs trials_max >= 1 and trials_to_close >= 1, got {self}"
            )


class BreakerSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What a person wants to know about a breaker."""

    state: BreakerState
    calls: int
    """Calls that ended in the window; only those of the closed state are counted."""
    failures: int
    """Those of `calls` that failed."""
    open_left_s: float
    """Seconds until a trial may pass; 0 unless open."""
    trials_in_flight: int
    trials_succeeded: int
    """Successes of this half-open period; `trials_to_close` of them close it."""
    openings: int
    """How often the circuit opened since it was made."""
    turned_away: int
    """Calls that were not admitted since it was made."""
    last_failure: str
    """What the last failure that counted said; empty if there was none."""

    @property
    def failure_rate(self) -> float:
        """Share of the window's calls that failed; 0 without calls."""
        return self.failures / self.calls if self.calls else 0.0


class Breaker:
    """One circuit. Times are seconds of any clock that does not go back."""

    __slots__ = (
        "_bucket",
        "_bucket_end_s",
        "_bucket_s",
        "_calls",
        "_calls_in_bucket",
        "_failures",
        "_failures_in_bucket",
        "_last_failure",
        "_open_s",
        "_open_until_s",
        "_openings",
        "_options",
        "_period",
        "_slot",
        "_state",
        "_trials_in_flight",
        "_trials_succeeded",
        "_turned_away",
    )

    def __init__(self, options: BreakerOptions | None = None) -> None:
        self._options = options = options or BreakerOptions()
        self._state = BreakerState.CLOSED
        self._period = Ticket(0)
        self._open_s = options.open_first_s
        self._open_until_s = 0.0
        self._trials_in_flight = 0
        self._trials_succeeded = 0
        self._openings = 0
        self._turned_away = 0
        self._last_failure = ""
        self._bucket_s = options.window_s / options.buckets
        self._empty_window()

    @property
    def state(self) -> BreakerState:
        """The state it is in; open until the first call after the open time."""
        return self._state

    def admit(self, now_s: float) -> Ticket | None:
        """Let a call pass, or return None to turn it away.

        Who gets a ticket hands it back exactly once, whatever happens: a trial that
        never did would hold its place for ever.
        """
        if self._state is BreakerState.CLOSED:
            return self._period
        if self._state is BreakerState.OPEN and now_s >= self._open_until_s:
            self._enter(BreakerState.HALF_OPEN)
        if (
            self._state is BreakerState.OPEN
            or self._trials_in_flight >= self._options.trials_max
        ):
            self._turned_away += 1
            return None
        self._trials_in_flight += 1
        return self._period

    def turn_away(self, now_s: float) -> bool:
        """Turn a call away that has a queue before it, if the circuit is open.

        Returns:
            Whether it was. If not, it asks `admit` when its turn comes.
        """
        if not self.open_left_s(now_s):
            return False
        self._turned_away += 1
        return True

    def succeeded(self, ticket: Ticket, now_s: float) -> None:
        """Count a call that the service answered, be it with a refusal."""
        if ticket != self._period:
            return
        if self._state is BreakerState.CLOSED:
            # The common case, spelled out: it runs once per call of every service.
            if now_s >= self._bucket_end_s:
                self._roll(now_s)
            self._calls += 1
            self._calls_in_bucket[self._slot] += 1
            return
        self._end_trial()
        self._trials_succeeded += 1
        if self._trials_succeeded >= self._options.trials_to_close:
            self._close()

    def failed(self, ticket: Ticket, now_s: float, reason: str = "") -> None:
        """Count a call that nobody knows the outcome of.

        Only a failure opens the circuit: a success that completes `calls_min` does not,
        though the rate may be high enough. The next failure will.
        """
        if ticket != self._period:
            return
        self._last_failure = reason
        if self._state is BreakerState.HALF_OPEN:
            self._end_trial()
            longer_s = self._open_s * self._options.open_factor
            self._open_s = min(longer_s, self._options.open_longest_s)
            self._open(now_s)
            return
        if now_s >= self._bucket_end_s:
            self._roll(now_s)
        self._calls += 1
        self._failures += 1
        self._calls_in_bucket[self._slot] += 1
        self._failures_in_bucket[self._slot] += 1
        if (
            self._calls >= self._options.calls_min
            and self._failures >= self._options.failure_rate * self._calls
        ):
            self._open(now_s)

    def abandoned(self, ticket: Ticket) -> None:
        """Take back the ticket of a call whose end says nothing about the service."""
        if ticket == self._period and self._state is BreakerState.HALF_OPEN:
            self._end_trial()

    def reset(self) -> None:
        """Close the circuit by hand and forget its past; calls in flight don't count.

        There is no timer, so nothing can open it again later for what was before.
        """
        self._close()

    def open_left_s(self, now_s: float) -> float:
        """Return the seconds until a trial may pass; 0 unless open."""
        if self._state is not BreakerState.OPEN:
            return 0.0
        return max(0.0, self._open_until_s - now_s)

    def snapshot(self, now_s: float) -> BreakerSnapshot:
        """Return its state at *now_s*, for people and dashboards."""
        if now_s >= self._bucket_end_s:
            self._roll(now_s)
        return BreakerSnapshot(
            state=self._state,
            calls=self._calls,
            failures=self._failures,
            open_left_s=self.open_left_s(now_s),
            trials_in_flight=self._trials_in_flight,
            trials_succeeded=self._trials_succeeded,
            openings=self._openings,
            turned_away=self._turned_away,
            last_failure=self._last_failure,
        )

    def _enter(self, state: BreakerState) -> None:
        """Begin a period of *state*: every ticket given out before is outdated."""
        self._state = state
        self._period = Ticket(self._period + 1)
        self._trials_in_flight = 0
        self._trials_succeeded = 0

    def _open(self, now_s: float) -> None:
        self._openings += 1
        self._open_until_s = now_s + self._open_s
        self._enter(BreakerState.OPEN)

    def _close(self) -> None:
        self._open_s = self._options.open_first_s
        self._empty_window()  # or the failures that opened it would open it again
        self._enter(BreakerState.CLOSED)

    def _end_trial(self) -> None:
        assert self._trials_in_flight > 0, "a ticket was handed back twice"
        self._trials_in_flight -= 1

    def _empty_window(self) -> None:
        self._calls = 0
        self._failures = 0
        self._calls_in_bucket = [0] * self._options.buckets
        self._failures_in_bucket = [0] * self._options.buckets
        self._slot = 0
        self._bucket = 0
        self._bucket_end_s = float("-inf")  # the first count finds its bucket

    def _roll(self, now_s: float) -> None:
        """Go on to the bucket of *now_s* and forget those that left the window."""
        bucket = int(now_s // self._bucket_s)
        # Never back: a clock that does, counts into the bucket it was in.
        passed = min(max(bucket - self._bucket, 0), self._options.buckets)
        self._bucket = max(bucket, self._bucket)
        for slot in range(self._bucket - passed + 1, self._bucket + 1):
            self._slot = slot % self._options.buckets
            self._calls -= self._calls_in_bucket[self._slot]
            self._failures -= self._failures_in_bucket[self._slot]
            self._calls_in_bucket[self._slot] = 0
            self._failures_in_bucket[self._slot] = 0
        self._bucket_end_s = (self._bucket + 1) * self._bucket_s
