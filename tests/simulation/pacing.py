"""How soon what nobody knows is asked for again, and how often.

Never sooner than the policy says:

    n-th unknown end in a row  -->  not before  min(first * factor^(n-1), longest)
                                                less the jitter

"In a row": since the workflow last got an outcome recorded. Excused is a repeat which a
person asked for, and that of another process. A block is no unknown end: whoever waits
for a service that answers again is due at once, but for what failed beside it.

Never more often than it says, in this process and until a person has a word.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from coordinator.model import Retry

__all__ = ["Pacing", "Patience", "shortest_us"]


def shortest_us(policies: Iterable[Retry]) -> Callable[[int], int]:
    """Return what gives the shortest interval after so many unknown ends in a row."""
    known = list(policies)

    def shortest(count: int) -> int:
        return min(
            int(
                min(one.first_s * one.factor ** (count - 1), one.longest_s)
                * (1 - one.jitter)
                * 1e6
            )
            for one in known
        )

    return shortest


@dataclass
class _Calls:
    """Of one workflow, in this life."""

    unknown: dict[str, int] = field(default_factory=dict[str, int])
    """Keys whose last call ended unknown, and when."""
    counts: dict[str, int] = field(default_factory=dict[str, int])
    """How often in a row."""


class Pacing:
    """Follows the calls of all workflows.

    Args:
        shortest: See `shortest_us`.
    """

    def __init__(self, shortest: Callable[[int], int]) -> None:
        self._shortest = shortest
        self._workflows: dict[int, _Calls] = {}

    def restart(self) -> None:
        """Another process begins: it asks for everything at once."""
        self._workflows.clear()

    def begin(self, workflow: int, key: str, at: int) -> str:
        """Note that *key* is called; return what is wrong with that."""
        calls = self._workflows.setdefault(workflow, _Calls())
        ended_at = calls.unknown.pop(key, None)
        if ended_at is None:
            return ""
        count = max(1, calls.counts.get(key, 0))
        waited_us, least_us = at - ended_at, self._shortest(count)
        if waited_us >= least_us:
            return ""
        return (
            f"after {waited_us} microseconds, having been unknown {count} times in a "
            f"row; {least_us} is the least"
        )

    def unknown(self, workflow: int, key: str, at: int) -> None:
        """Note that a call of *key* ended, and nobody knows."""
        calls = self._workflows.setdefault(workflow, _Calls())
        calls.unknown[key] = at
        calls.counts[key] = calls.counts.get(key, 0) + 1

    def excuse(self, workflow: int) -> None:
        """Note that a person had a word with the workflow."""
        calls = self._workflows.get(workflow)
        if calls is not None:
            calls.unknown.clear()
            calls.counts.clear()

    def progress(self, workflow: int) -> None:
        """Note that an outcome of the workflow was recorded."""
        calls = self._workflows.get(workflow)
        if calls is not None:
            calls.counts.clear()


class Patience:
    """Follows how often each call ended unknown.

    Args:
        retry: The policy.
    """

    def __init__(self, retry: Retry) -> None:
        self._retry = retry
        self._counts: dict[int, Counter[str]] = {}
        """By workflow: keys, and how often in a row."""
        self._given_up: dict[str, int] = {}

    def restart(self) -> None:
        """Another process begins, and counts anew."""
        self._counts.clear()
        self._given_up.clear()

    def excuse(self, workflow: int) -> None:
        """Note that a person had a word with the workflow."""
        for key in self._counts.pop(workflow, ()):
            self._given_up.pop(key, None)

    def unknown(self, workflow: int, key: str, fate: str) -> None:
        """Note that a call of *key* ended so, and nobody knows."""
        counts = self._counts.setdefault(workflow, Counter())
        counts[key] += 1
        delayed = any(name in fate for name in _DELAYS)
        limit = self._retry.delays_max if delayed else self._retry.attempts_max
        if limit is not None and counts[key] >= limit:
            self._given_up[key] = counts[key]

    def begin(self, workflow: int, key: str) -> Iterator[str]:
        """Yield what is wrong with calling *key*."""
        if key in self._given_up:
            count = self._given_up[key]
            yield f"is called again, having been unknown {count} times; nobody asked"


_DELAYS = ("CommandDelayed", "TimeoutError", "ConnectionResetError", "BrokenPipeError")
"""Exceptions that say no more than that nobody knows."""
