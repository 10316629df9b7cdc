"""All partitions of a journal, opened: which one a command goes to, and where it is."""

import zlib
from collections.abc import Callable, Iterator

from coordinator.errors import JournalError
from coordinator.log import Log, LogOptions
from coordinator.ports import Journal
from coordinator.state import Ended, WorkflowState

__all__ = ["Logs"]


class Logs:
    """The opened partitions of one journal."""

    def __init__(self, logs: list[Log], clock: Callable[[], int]) -> None:
        self._logs = logs
        self._clock = clock
        self._turn = 0

    @classmethod
    async def open(
        cls,
        journal: Journal,
        *,
        owner: str,
        clock: Callable[[], int],
        options: LogOptions,
        on_failure: Callable[[JournalError], None],
    ) -> "Logs":
        """Claim all partitions of *journal*, and rebuild their state.

        Raises:
            JournalError: One can't be claimed or read; the others are given up again.
        """
        logs = cls([], clock)
        try:
            for number in range(journal.partitions):
                log = await Log.open(
                    journal,
                    number,
                    owner=owner,
                    clock=clock,
                    options=options,
                    on_failure=on_failure,
                )
                logs._logs.append(log)
        except BaseException:
            await logs.aclose()
            raise
        return logs

    def __iter__(self) -> Iterator[Log]:
        return iter(self._logs)

    def choose(self, key: str) -> Log:
        """Return the partition for a new command: by its key, or in turn."""
        count = len(self._logs)
        if count == 1:
            return self._logs[0]
        if key:
            return self._logs[zlib.crc32(key.encode()) % count]
        self._turn = (self._turn + 1) % count
        return self._logs[self._turn]

    def find(self, type_: str, key: str) -> tuple[Log, WorkflowState | Ended] | None:
        """Return the workflow of that key, running or remembered, and where it is."""
        now = self._clock()
        for log in self._logs:
            found = log.state.find(type_, key, now)
            if found is not None:
                return log, found
        return None

    def stop_waiting(self) -> None:
        """Wait no longer for space on a full disk; see `GroupCommit.stop_waiting`."""
        for log in self._logs:
            log.stop_waiting()

    async def aclose(self) -> None:
        """Flush, and give all partitions up. May be called twice.

        Cancellation: each is given up all the same.
        """
        while self._logs:
            log = self._logs.pop(0)
            try:
                await log.aclose()
            except BaseException:
                await self.aclose()
                raise
