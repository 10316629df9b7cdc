"""How fast new commands come in: as fast as the loop and the journal take them.

    let_in(command)  --> Accepted is appended --> durable(command)
         |                                             |
         '---- at most `allowed` are between these ----'

One of them at a time is timed. While that takes many times what it takes in a quiet
engine, fewer are let in, down to one; while it takes less and somebody has to wait,
more are. What is bounded so is the work in the engine: what waits for its turn of the
loop, and for the journal. A saga that waits for a service or for its time has no part
in it, however many do.

Each interval's delay is that of the fastest, as in CoDel (RFC 8289): a slow write or
another program delays some commands, and fewer of ours would not help; a queue that
stands in the engine delays every one.
"""

from collections.abc import Hashable
from math import inf

from coordinator.rare import sometimes

__all__ = ["FIRST", "LAG_S_MIN", "LAG_TIMES", "SAMPLES", "Pace"]

LAG_TIMES = 5.0
"""How many times what it takes in a quiet engine it may take until a new command is
durable. Two are the least, as one write is under way and its own is the next. More
records in each make more of the disk, and of the loop, which waits for it."""
LAG_S_MIN = 0.005
"""Seconds that it may take in any case: there are journals that take no time."""
SAMPLES = 5
"""Commands that are timed until the pace changes. What was let in shows in full only
when it comes to its last record; by then the pace must not have changed many times."""
FIRST = 128.0
"""How many may be coming in while nobody has to wait: what was learned under another
load is forgotten. A hundred clients that go in step are not held back by it: apart,
they would make more writes of less."""
SLOWER_MIN = 0.25  # of the pace before, at once
FASTER_MAX = 1.4
QUIET_RECORDS_MAX = 8
"""Records that are appended while one is timed in a quiet engine."""
FEW = 2.0
"""With fewer that come in at a time, it is not they who keep the engine busy. So where
a disk became slow, what is usual is learned anew."""
USUAL = 1.05
"""What is usual is the median: it moves by so much towards each of them."""


class Pace:
    """Counts who is coming in, and learns how many may be at a time."""

    def __init__(self) -> None:
        self.allowed = FIRST
        """How many may be coming in at a time; its whole part counts."""
        self.coming = 0
        """Commands that were let in, and are not known to be durable yet."""
        self.lag_s = 0.0
        """Seconds that the fastest of those timed last took to be durable."""
        self.usual_s = LAG_S_MIN / LAG_TIMES
        """Seconds that it takes in a quiet engine."""
        self.holds_back = False
        """Whether somebody had to wait lately."""
        self._timed: Hashable | None = None
        self._since_s = 0.0
        self._samples = 0
        self._least_s = inf
        self._held_back = False
        """Whether somebody is, and was not told yet that one more may come in."""
        self._wanted = False
        """Whether somebody was held back since the pace changed last."""

    def may_enter(self) -> bool:
        """Say whether one more may come in; if not, take note that it has to wait."""
        if self.coming + 1 <= self.allowed:
            return True
        self._held_back = self._wanted = True
        return False

    def let_in(self, command: Hashable, now_s: float) -> None:
        """Note that *command* is coming in."""
        self.coming += 1
        if self._timed is None:
            self._timed, self._since_s = command, now_s

    def durable(self, command: Hashable, now_s: float, records: int) -> bool:
        """Note that *command* is durable.

        Args:
            command: Was let in.
            now_s: On the clock of `let_in`.
            records: How many were appended since it was let in.

        Returns:
            Whether somebody was held back, and one more may come in now.
        """
        self.coming -= 1
        if self._timed == command:
            self._timed = None
            taken_s = now_s - self._since_s
            if records <= QUIET_RECORDS_MAX or self.allowed < FEW:
                self.usual_s *= USUAL if taken_s > self.usual_s else 1 / USUAL
            self._least_s = min(self._least_s, taken_s)
            self._samples += 1
            if self._samples == SAMPLES:
                self._change()
        if not self._held_back or self.coming + 1 > self.allowed:
            return False
        self._held_back = False
        return True

    def lost(self, command: Hashable) -> None:
        """Note that *command*, which was let in, will not be durable here."""
        self.coming -= 1
        if self._timed == command:
            self._timed = None

    def _change(self) -> None:
        lag_s = self.lag_s = self._least_s
        target_s = max(LAG_S_MIN, LAG_TIMES * self.usual_s)
        if lag_s > target_s:
            sometimes("too much in the engine")
            slower = max(target_s / lag_s, SLOWER_MIN)
            self.allowed = max(1.0, self.allowed * slower)
        elif self._wanted:
            faster = (target_s / max(lag_s, target_s / FASTER_MAX**2)) ** 0.5
            self.allowed *= faster
        else:
            self.allowed = FIRST
        self.holds_back = self._wanted
        self._least_s, self._samples, self._wanted = inf, 0, False
