"""How soon what nobody knows is asked for again: never sooner than the policy says.

    n-th unknown end in a row  -->  not before  min(first * factor^(n-1), longest)
                                                less the jitter

"In a row": since the workflow last got an outcome recorded. Excused is a repeat which a
person asked for, that of another process, and one after a block, since whoever waits
for a service that answers again is due at once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from coordinator.model import Retry

__all__ = ["Pacing", "shortest_us"]


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
    begun: dict[str, int] = field(default_factory=dict[str, int])
    blocked_at: int = -1


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
        blocked = calls.blocked_at >= calls.begun.get(key, 0)
        calls.begun[key] = at
        ended_at = calls.unknown.pop(key, None)
        if ended_at is None or blocked:
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

    def blocked(self, workflow: int, at: int) -> None:
        """Note that the workflow found a service blocked."""
        self.excuse(workflow)
        self._workflows.setdefault(workflow, _Calls()).blocked_at = at

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
