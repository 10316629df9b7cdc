"""A coordinator that is alone with its journal opens again what it has lost.

    held --UncertainError: nobody knows whether the last write landed--> lost
    lost --open: claim, read--> held
      |'-- JournalUnavailableError, UncertainError, JournalFullError: again, later
      '--- anything else: the process must end

A log on other machines is out of reach now and then: a connection breaks, the leader of
its replicas dies. To open the partition again is to claim it under a new epoch and to
read what landed, and is as safe as a restart, from which it does not differ. Where
somebody newer owns it (`FencedError`), to claim it back would be a fight.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from coordinator.errors import (
    JournalBrokenError,
    JournalError,
    JournalFullError,
    JournalUnavailableError,
    UncertainError,
)
from coordinator.model import Random, Retry
from coordinator.rare import sometimes
from coordinator.retry import slow_interval_s

__all__ = ["Keeper", "can_be_opened_again"]

_LOGGER = logging.getLogger("coordinator")


def can_be_opened_again(error: JournalError) -> bool:
    """Say whether a partition that died of *error* may be opened by this process."""
    return isinstance(error, UncertainError | JournalUnavailableError)


class Keeper:
    """Opens lost partitions again, each in a task of its own."""

    def __init__(
        self,
        take: Callable[[int], Awaitable[None]],
        fail: Callable[[JournalError], None],
        retry: Retry,
        random: Random,
    ) -> None:
        """Prepare.

        Args:
            take: Opens a partition.
            fail: Told of an error after which it makes no sense to go on.
            retry: How long to wait between two tries.
            random: For jitter.
        """
        self._take = take
        self._fail = fail
        self._retry = retry
        self._random = random
        self._tasks: dict[int, asyncio.Task[None]] = {}

    def lost(self, number: int, error: JournalError) -> None:
        """Open partition *number*, which died of *error*, again."""
        _LOGGER.warning("partition %d is opened again: %s", number, error)
        before = self._tasks.get(number)
        self._tasks[number] = asyncio.get_running_loop().create_task(
            self._take_again(number, before)
        )

    async def _take_again(self, number: int, before: asyncio.Task[None] | None) -> None:
        if before is not None:  # the one that opened what was lost at once
            await asyncio.wait({before})
        attempt = 0
        while True:
            try:
                await self._take(number)
            except JournalError as error:
                full = isinstance(error, JournalFullError)
                if not (full or can_be_opened_again(error)):
                    self._fail(error)
                    return
                sometimes("lost partition not opened")
                wait_s = slow_interval_s(self._retry, attempt, self._random)
                attempt += 1
                _LOGGER.warning(
                    "partition %d can't be opened, again in %.1f s: %s",
                    number,
                    wait_s,
                    error,
                )
                await asyncio.sleep(wait_s)
            except Exception as error:  # noqa: BLE001 -- a bug in a backend
                broken = JournalBrokenError(f"the journal failed: {error!r}")
                broken.__cause__ = error
                self._fail(broken)
                return
            else:
                sometimes("lost partition opened again")
                return

    async def aclose(self) -> None:
        """Open nothing more."""
        tasks = {task for task in self._tasks.values() if not task.done()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
