"""The partitions of a journal that are held: where a command goes, and where it is."""

import zlib
from collections.abc import Callable, Iterator

from coordinator.checkpoint import Ended
from coordinator.log import Log
from coordinator.state import WorkflowState

__all__ = ["ANY", "Logs"]

ANY = -1
"""In the place of a partition's number: whichever is held."""


class Logs:
    """The partitions of one journal that are held at present."""

    def __init__(self, partitions: int, clock: Callable[[], int]) -> None:
        """Begin with none.

        Args:
            partitions: How many the journal has.
            clock: Microseconds since 1970.
        """
        self.partitions = partitions
        self._clock = clock
        self._held: dict[int, Log] = {}
        self._logs: tuple[Log, ...] = ()
        """The same, by their numbers."""
        self._turn = 0

    def __iter__(self) -> Iterator[Log]:
        return iter(self._logs)

    def __contains__(self, number: object) -> bool:
        return number in self._held or (number == ANY and bool(self._held))

    def add(self, log: Log) -> None:
        """Hold *log*, whose partition was not."""
        assert log.state.number not in self._held
        self._set({**self._held, log.state.number: log})

    def remove(self, log: Log) -> None:
        """Hold *log* no longer."""
        held = dict(self._held)
        del held[log.state.number]
        self._set(held)

    def _set(self, held: dict[int, Log]) -> None:
        self._held = held
        self._logs = tuple(held[number] for number in sorted(held))

    def partition_of(self, key: str) -> int:
        """Return where a command of that key belongs; `ANY` if it has none."""
        if not key:
            return ANY
        return zlib.crc32(key.encode()) % self.partitions

    def choose(self, key: str) -> Log | None:
        """Return the partition for a new command: by its key, or in turn.

        None if that one is not held, or none is.
        """
        if key:
            return self._held.get(self.partition_of(key))
        if not self._logs:
            return None
        self._turn = (self._turn + 1) % len(self._logs)
        return self._logs[self._turn]

    def find(self, type_: str, key: str) -> tuple[Log, WorkflowState | Ended] | None:
        """Return the workflow of that key, running or remembered, and where it is."""
        log = self._held.get(self.partition_of(key))
        if log is None:
            return None
        found = log.state.find(type_, key, self._clock())
        return None if found is None else (log, found)

    def stop_waiting(self) -> None:
        """Wait no longer for space on a full disk; see `GroupCommit.stop_waiting`."""
        for log in self._logs:
            log.stop_waiting()

    async def aclose(self) -> None:
        """Flush, and give all partitions up. May be called twice.

        Cancellation: each is given up all the same.
        """
        while self._logs:
            log = self._logs[0]
            self.remove(log)
            try:
                await log.aclose()
            except BaseException:
                await self.aclose()
                raise
