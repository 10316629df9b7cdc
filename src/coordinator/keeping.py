"""The partitions that an engine holds: opened, lost, and opened again.

    away --open: claim, read--> held --UncertainError, JournalUnavailableError--> away
     |'-- these, JournalFullError: again, later       '--- anything else: the process
     '--- anything else: the process must end                            must end

A log on other machines is out of reach now and then: a connection breaks, the leader of
its replicas dies, and nobody knows whether the last write landed. To open the partition
again is to claim it under a new epoch and to read what landed, and is as safe as a
restart, from which it does not differ. Where somebody newer owns it (`FencedError`), to
claim it back would be a fight.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

from coordinator.errors import (
    JournalBrokenError,
    JournalError,
    JournalFullError,
    JournalUnavailableError,
    UncertainError,
)
from coordinator.log import Log, LogOptions
from coordinator.logs import Logs
from coordinator.model import Random, Retry
from coordinator.ports import Journal
from coordinator.rare import sometimes
from coordinator.retry import slow_interval_s

__all__ = ["Keeper", "Keeping"]

_LOGGER = logging.getLogger("coordinator")


class Keeping(Protocol):
    """What a keeper tells its engine."""

    def held(self, log: Log) -> None:
        """A partition is held again."""
        ...

    def lost(self, log: Log, error: JournalError) -> None:
        """A partition is held no longer; it will be opened again."""
        ...

    def broken(self, error: JournalError) -> None:
        """The process must end."""
        ...


class Keeper:
    """Opens the partitions of one journal, and opens again what is lost of them."""

    def __init__(
        self,
        journal: Journal,
        logs: Logs,
        engine: Keeping,
        *,
        owner: str,
        clock: Callable[[], int],
        options: LogOptions,
        retry: Retry,
        random: Random,
    ) -> None:
        """Prepare.

        Args:
            journal: Opened; of nobody else in this process.
            logs: The partitions that are held are put here, and taken out.
            engine: Told of what changes behind `start`.
            owner: Says to people who we are.
            clock: Microseconds since 1970.
            options: Of the logs.
            retry: How long to wait between two tries.
            random: For jitter.
        """
        self._journal = journal
        self._logs = logs
        self._engine = engine
        self._owner = owner
        self._clock = clock
        self._options = options
        self._retry = retry
        self._random = random
        self._tasks: dict[int, asyncio.Task[None]] = {}
        """The last that opened a partition again, of each."""
        self._closing: dict[int, asyncio.Task[None]] = {}
        """The last that closed a lost one, of each. Never cut off: the partition would
        stay locked for as long as the process lives."""
        self._stopped = False

    async def start(self) -> list[Log]:
        """Open all partitions.

        Returns:
            Them. One may have been given up meanwhile: that is told like any other.

        Raises:
            JournalError: One can't be claimed or read; none is held then.
        """
        opened: list[Log] = []
        try:
            for number in range(self._journal.partitions):
                log = await self._open(number)
                self._logs.add(log)
                opened.append(log)
        except BaseException:
            await self.aclose()
            raise
        return opened

    async def stop(self) -> None:
        """Open nothing more; what is held stays so."""
        self._stopped = True
        tasks = {task for task in self._tasks.values() if not task.done()}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    async def aclose(self) -> None:
        """Flush, and give all partitions up. May be called twice."""
        await self.stop()
        await self._logs.aclose()
        if self._closing:
            await asyncio.wait(self._closing.values())

    async def _open(self, number: int) -> Log:
        def on_failure(error: JournalError) -> None:
            for held in self._logs:
                if held.state.number == number:
                    self._lose(held, error)

        log = await Log.open(
            self._journal,
            number,
            owner=self._owner,
            clock=self._clock,
            options=self._options,
            on_failure=on_failure,
        )
        if log.failure is not None:
            await log.aclose()
            raise log.failure
        return log

    def _lose(self, log: Log, error: JournalError) -> None:
        number = log.state.number
        if self._stopped or not _may_be_opened_again(error):
            self._engine.broken(error)
            return
        sometimes("partition lost")
        _LOGGER.warning("partition %d is opened again: %s", number, error)
        self._logs.remove(log)
        log.given_up = True
        self._engine.lost(log, error)
        loop = asyncio.get_running_loop()
        closing = self._closing[number] = loop.create_task(log.aclose())
        earlier = {closing}
        if (before := self._tasks.get(number)) is not None:
            earlier.add(before)  # which opened what was lost at once
        self._tasks[number] = loop.create_task(self._replace(number, earlier))

    async def _replace(self, number: int, earlier: set[asyncio.Task[None]]) -> None:
        """Open partition *number* again, once what was before it is closed."""
        await asyncio.wait(earlier)
        log = await self._open_patiently(number)
        if log is None:
            return
        sometimes("lost partition opened again")
        self._logs.add(log)
        _LOGGER.info(
            "partition %d is held, with %d unfinished workflows, under epoch %d",
            number,
            len(log.state.workflows),
            log.partition.epoch,
        )
        self._engine.held(log)

    async def _open_patiently(self, number: int) -> Log | None:
        """Try until it is open; None if that makes no sense, which is told."""
        attempt = 0
        while True:
            try:
                return await self._open(number)
            except JournalError as error:
                full = isinstance(error, JournalFullError)
                if not (full or _may_be_opened_again(error)):
                    self._engine.broken(error)
                    return None
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
            except asyncio.CancelledError:
                raise  # stopped
            except BaseException as error:  # a bug in a backend, or the program ends
                broken = JournalBrokenError(f"the journal failed: {error!r}")
                broken.__cause__ = error
                self._engine.broken(broken)
                if not isinstance(error, Exception):
                    raise
                return None


def _may_be_opened_again(error: JournalError) -> bool:
    return isinstance(error, UncertainError | JournalUnavailableError)
