"""The clock on the wall, which is set right, or wrong, while we look at it.

What it says decides when segments are old enough to be removed and when a result is too
old to be remembered, and is written into records. It decides nothing else: intervals
are the loop's.
"""

import random
from collections import Counter
from collections.abc import Callable

from coordinator.testing.loop import Life

__all__ = ["DRIFT_S_MAX", "WallClock"]

START_US = 1_700_000_000_000_000
"""What it says when virtual time starts."""

DRIFT_S_MAX = 11 * 3600.0
"""Seconds that it is ever wrong by. Twice that is less than a day: while it is wrong by
more than results are remembered, keys may be forgotten; that is not promised."""

_JUMPS_S = (0.001, 1.0, 90.0, 3600.0, 8 * 3600.0)


class WallClock:
    """A clock; it outlives the processes that read it.

    Args:
        chance: Draws its jumps.
        jumps: Chance that it jumps, each time that somebody reads it.
        now_s: Returns virtual seconds.
        faults: Counts the jumps.
    """

    def __init__(
        self,
        chance: random.Random,
        jumps: float,
        now_s: Callable[[], float],
        faults: Counter[str],
    ) -> None:
        self.jumps = jumps
        self._chance = chance
        self._now_s = now_s
        self._faults = faults
        self._wrong_s = 0.0

    def of(self, life: Life) -> Callable[[], int]:
        """Return the clock that *life* reads, which stands still once that is over.

        What was cut off is closed in an order, and at a time, that the seed does not
        decide; were it to draw a jump, the next life would be another one.
        """
        return lambda: self() if life.alive else START_US

    def __call__(self) -> int:
        """Return microseconds since 1970, or what it takes them for."""
        if self.jumps and self._chance.random() < self.jumps:
            jump_s = self._chance.choice(_JUMPS_S) * self._chance.uniform(-1, 1)
            wrong_s = self._wrong_s + jump_s
            self._wrong_s = min(max(wrong_s, -DRIFT_S_MAX), DRIFT_S_MAX)
            back = " back" if jump_s < 0 else ""
            self._faults[f"clock jumped{back}"] += 1
        return START_US + int((self._now_s() + self._wrong_s) * 1e6)
