"""Who came in: in order, within the limit, and whose key was remembered.

order   of one type, commands come in as they were offered
bound   no command comes in while as many as may be are in memory; no more results
        are kept in a checkpoint than may be
twice   one key is one workflow, until its result may be forgotten: for its age, or
        for the number or the size of what ended since
"""

from collections.abc import Iterator
from dataclasses import dataclass

from coordinator.model import format_workflow_id
from coordinator.records import (
    Accepted,
    Cancelled,
    Finished,
    Resumed,
    Stuck,
    WorkflowRecord,
)

__all__ = ["Admitted", "Bounds"]


@dataclass(frozen=True)
class Bounds:
    """What may be in memory, at most."""

    commands_max: int = 1 << 30
    keys_max: int = 1 << 30
    keys_size_max: int = 1 << 60
    keys_age_us: int = 1 << 60


class Admitted:
    """Follows what was offered, accepted and ended, in the order of the journal."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._offered: dict[str, int] = {}
        """Orders of this life, by when they were offered."""
        self._last: dict[str, int] = {}
        """By type: which of them came in last, in this life."""
        self._in_memory: set[int] = set()
        self._keys: dict[tuple[str, str], int] = {}
        self._ended: list[tuple[tuple[str, str], int, int]] = []
        """Keyed workflows in the order of their ends: key, size, microseconds."""
        self._keyed: dict[int, tuple[str, str]] = {}

    def restart(self) -> None:
        """Another process begins."""
        self._offered.clear()
        self._last.clear()

    def offer(self, order: str) -> None:
        """Note that *order* is offered; a second time if it has a key."""
        self._offered.setdefault(order, len(self._offered))

    def accept(
        self, position: int, record: Accepted, order: str
    ) -> Iterator[tuple[str, str]]:
        """Note that *order* was accepted; yield kinds of violations, and what they are.

        To be gone through to its end.
        """
        what = f"workflow {format_workflow_id(0, position)}"
        if len(self._in_memory) >= self._bounds.commands_max:
            problem = f"{what} came in beside {len(self._in_memory)} others, "
            yield "bound", f"{problem}{self._bounds.commands_max} may be in memory"
        self._in_memory.add(position)
        if record.key:
            yield from self._accept_key(what, position, record)
        elif order in self._offered:
            offered = self._offered[order]
            if offered < self._last.get(record.type, -1):
                yield "order", f"{what} came in behind one that was offered later"
            self._last[record.type] = offered

    def _accept_key(
        self, what: str, position: int, record: Accepted
    ) -> Iterator[tuple[str, str]]:
        key = (record.type, record.key)
        other = self._keys.get(key)
        if other is not None and not self._may_forget(key, record.at):
            other_id = format_workflow_id(0, other)
            yield "twice", f"key {record.key} is workflow {other_id}, and {what} has it"
        self._keys[key] = position
        self._keyed[position] = key

    def _may_forget(self, key: tuple[str, str], now: int) -> bool:
        since: list[tuple[tuple[str, str], int, int]] = []
        for one in reversed(self._ended):
            since.append(one)
            if one[0] == key:
                break
        else:
            return False  # it has not ended
        bounds = self._bounds
        return (
            len({one[0] for one in since}) > bounds.keys_max
            or sum(one[1] for one in since) > bounds.keys_size_max
            or since[-1][2] < now - bounds.keys_age_us
        )

    def follow(self, record: WorkflowRecord) -> None:
        """Note what *record* says of who is in memory, and of what is remembered."""
        position = record.workflow
        match record:
            case Finished():
                self._in_memory.discard(position)
                key = self._keyed.get(position)
                if key is not None:
                    size = len(key[1]) + len(record.value)
                    self._ended.append((key, size, record.at))
            case Stuck():
                self._in_memory.discard(position)
            case Resumed() | Cancelled():
                self._in_memory.add(position)
            case _:
                pass

    def kept(self, count: int, size: int) -> str:
        """Return what is wrong with a checkpoint that keeps so many results."""
        bounds = self._bounds
        if count > bounds.keys_max or (size > bounds.keys_size_max and count > 1):
            return f"a checkpoint keeps {count} results of {size} bytes"
        return ""
