"""How long to wait before the next try to connect: longer each time, and by chance.

    the n-th try waits    random() * min(first_s * factor^n, longest_s)

Full jitter: the clients of a server that restarts come back spread over the interval,
not together at its end. Go waits not at all, and dials 26,000 times a second (W-C3).
"""

import random
from collections.abc import Callable

import msgspec

__all__ = ["Backoff", "ReconnectOptions"]


class ReconnectOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a client comes back, and when it gives up."""

    first_s: float = 0.1
    """Seconds that the first try waits at most; more than 0."""
    factor: float = 2.0
    """By how much the next may wait longer; 1 or more."""
    longest_s: float = 10.0
    """Seconds that no try waits longer than; `first_s` or more. Half of it is how late
    the end of a long outage is noticed, on average."""
    tries_max: int | None = None
    """Tries in one outage, after which the client is closed; 1 or more. None: any."""
    outage_max_s: float | None = None
    """Seconds of one outage, after which the client is closed; more than 0. None: any
    time. Both limits end the sends that wait, too."""
    random: Callable[[], float] = random.random  # noqa: S311 -- keeps no secret
    """The chance: numbers from 0 to below 1."""

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ValueError: A field is out of its bounds.
        """
        if not (0 < self.first_s <= self.longest_s and self.factor >= 1):
            raise ValueError(
                "reconnecting needs 0 < first_s <= longest_s and factor >= 1, "
                f"got {self}"
            )
        if self.tries_max is not None and self.tries_max < 1:
            raise ValueError(f"reconnecting needs tries_max >= 1, got {self}")
        if self.outage_max_s is not None and not self.outage_max_s > 0:
            raise ValueError(f"reconnecting needs outage_max_s > 0, got {self}")


class Backoff:
    """The delays of one client. Pure, but for the chance that it is given."""

    def __init__(self, options: ReconnectOptions) -> None:
        self._options = options
        self._interval_s = options.first_s

    def next_s(self) -> float:
        """Return the seconds to wait before the next try; the one after is longer."""
        options = self._options
        delay_s = options.random() * self._interval_s
        self._interval_s = min(self._interval_s * options.factor, options.longest_s)
        return delay_s

    def lasted(self, seconds: float) -> None:
        """Begin anew after a connection that lasted *seconds*, if that was long enough.

        A shorter one goes on as a failed try would: a server that greets and hangs up
        at once must not be dialled as fast as it does that.
        """
        if seconds >= self._options.longest_s:
            self._interval_s = self._options.first_s
