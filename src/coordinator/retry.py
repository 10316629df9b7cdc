"""When to try again: intervals with jitter, and one queue of due times.

Nothing here is stored: after a restart everything unfinished is due at once.
"""

import heapq
from typing import Generic, TypeVar

from coordinator.model import Random, Retry

__all__ = ["DueQueue", "fast_interval_s", "slow_interval_s"]

T = TypeVar("T")

DEAD_SPARE = 16
"""Dead entries more than living ones at which the heap is made anew: so many are not
worth it, however few live."""


def slow_interval_s(retry: Retry, attempt: int, random: Random) -> float:
    """Return the seconds to wait before the *attempt*-th retry (from 0).

    Grows by `Retry.factor` up to `Retry.longest_s`, then jitter: commands that were
    delayed together do not come back together.
    """
    try:
        # A float: the power of an int would be exact, and of any size.
        interval_s = min(
            retry.first_s * float(retry.factor) ** attempt, retry.longest_s
        )
    except OverflowError:  # beyond every float, so beyond the longest interval
        interval_s = retry.longest_s
    return interval_s * (1 + retry.jitter * (2 * random.random() - 1))


def fast_interval_s(retry: Retry, random: Random) -> float:
    """Return the seconds to wait once the service answers again: 0, plus jitter.

    The base is zero, so the jitter is a share of the first slow interval, and only ever
    a delay: a negative one (as in the Go original) is none.
    """
    return retry.first_s * retry.jitter * random.random()


class DueQueue(Generic[T]):
    """Things with due times, earliest first. A thing's later time replaces its earlier.

    Each `push` costs O(log n); replaced and removed entries are dropped when they come
    up, and never outnumber the living by more than `DEAD_SPARE`.
    """

    def __init__(self) -> None:
        # The number breaks ties, first in first out, so that no items are compared.
        # An entry is dead once `_entries` has another one, or none, for its item.
        self._heap: list[tuple[float, int, T]] = []
        self._entries: dict[T, tuple[float, int, T]] = {}
        self._counter = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, item: object) -> bool:
        return item in self._entries

    def push(self, item: T, due_s: float) -> None:
        """Put *item* in, due at *due_s* on the caller's clock."""
        self.remove(item)
        self._counter += 1
        self._entries[item] = entry = (due_s, self._counter, item)
        heapq.heappush(self._heap, entry)

    def remove(self, item: T) -> bool:
        """Take *item* out; False if it was not in."""
        if self._entries.pop(item, None) is None:
            return False
        self._bury()
        return True

    def due_s(self, item: T) -> float | None:
        """Return when *item* is due; None if it is not in."""
        entry = self._entries.get(item)
        return None if entry is None else entry[0]

    def next_due_s(self) -> float | None:
        """Return when the next thing is due; None if there is none."""
        while self._heap and not self._lives(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def pop_due(self, now_s: float) -> T | None:
        """Take out the next thing that is due by *now_s*; None if none is."""
        due_s = self.next_due_s()
        if due_s is None or due_s > now_s:
            return None
        _, _, item = heapq.heappop(self._heap)
        del self._entries[item]
        self._bury()
        return item

    def _lives(self, entry: tuple[float, int, T]) -> bool:
        return self._entries.get(entry[2]) is entry

    def _bury(self) -> None:
        """Make the heap anew if the dead are too many in it."""
        if len(self._heap) > 2 * len(self._entries) + DEAD_SPARE:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)
