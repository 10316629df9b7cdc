"""Who waits at the door: submissions that may not come in yet, in the order they came.

Kept by command type, because a suspended service keeps some types out and others not.
The bound is whoever fills it: a connection's limit of commands in flight, and the tasks
that wait in `submit`.
"""

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["Door"]

T = TypeVar("T")


class Door(Generic[T]):
    """Waiting things, each of a type."""

    def __init__(self) -> None:
        self._waiting: dict[str, deque[tuple[int, T]]] = {}
        self._counter = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, type_: str, item: T) -> None:
        """Let *item* wait, behind all the others."""
        self._counter += 1
        self._count += 1
        self._waiting.setdefault(type_, deque()).append((self._counter, item))

    def pop(self, may_enter: Callable[[str], bool]) -> T | None:
        """Take out the first whose type may enter; None if there is none."""
        heads = [
            (queue[0][0], type_)
            for type_, queue in self._waiting.items()
            if may_enter(type_)
        ]
        if not heads:
            return None
        _, type_ = min(heads)
        queue = self._waiting[type_]
        _, item = queue.popleft()
        if not queue:
            del self._waiting[type_]
        self._count -= 1
        return item

    def remove(self, leaves: Callable[[T], bool]) -> None:
        """Take out all of which *leaves* is true."""
        for type_, queue in list(self._waiting.items()):
            kept = deque(entry for entry in queue if not leaves(entry[1]))
            self._count -= len(queue) - len(kept)
            if kept:
                self._waiting[type_] = kept
            else:
                del self._waiting[type_]
