"""The asyncio shell of a `Store`: one thread per partition, one hop per message.

As for files, all blocking calls go through one executor of one thread, in order: a
checkpoint takes its turns between the batches, and closing waits for what is under way.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from typing import TypeVar

from coordinator.batch import Batch
from coordinator.errors import JournalError, JournalUnavailableError
from coordinator.journals.handle import HeldPartition
from coordinator.journals.kafka.store import Store
from coordinator.model import Position

__all__ = ["KafkaPartition"]

T = TypeVar("T")

_LOGGER = logging.getLogger("coordinator")

_READ_BATCHES = 1024
"""Batches read per hop, at most; bounds what a reader holds if they are small."""
_READ_SIZE = 4 * 1024 * 1024
"""Bytes after which a hop ends; bounds it if they are large."""


class KafkaPartition(HeldPartition):
    """One opened partition; see `coordinator.ports.Partition`."""

    def __init__(
        self, store: Store, executor: Executor, claim: Batch, owner: str
    ) -> None:
        super().__init__(claim)
        self.owner = owner
        self._store = store
        self._executor = executor
        self._closing: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._told = ""
        self._tell()

    @classmethod
    async def open(
        cls, store: Store, executor: Executor, *, owner: str, at: int
    ) -> "KafkaPartition":
        """Open *store*, claim it and return it.

        Args:
            store: Not opened yet; ours from here on.
            executor: Of one thread; ours too, and shut down with the store.
            owner: What the claim says of us.
            at: Now, in microseconds since 1970.

        Cancellation: the store is closed again, once the thread is done with it. The
        claim may be there, and stops an older owner.

        Raises:
            JournalError: As `Store.open`.
        """
        loop = asyncio.get_running_loop()
        try:
            claim = await loop.run_in_executor(executor, store.open, owner, at)
            return cls(store, executor, claim, owner)
        except BaseException:
            # In its turn, so behind the hop above if that is still under way.
            await _close(loop, executor, store)
            raise

    @property
    def number(self) -> int:
        """See the port."""
        return self._store.place.identity.partition

    @property
    def full(self) -> str:
        """See the port. Brokers do not tell; when they are full, writing fails."""
        return ""

    @property
    def closed(self) -> bool:
        """Whether it was given up."""
        return self._closing is not None

    async def write(self, batch: Batch) -> None:
        """See the port. One hop to the thread: sent, acknowledged by all in sync."""
        handle = self._handle
        handle.begin(batch)
        try:
            await self._call(self._store.append, batch)
        except BaseException as error:
            handle.failed(error)
            raise
        else:
            handle.landed(batch)
        finally:
            self._tell()

    async def read(self, since: Position) -> AsyncIterator[Batch]:
        """See the port. What lies before the stored checkpoint's base is not read."""
        self._handle.check()
        batches = self._store.read(since)
        while chunk := await self._call(_take, batches):
            for batch in chunk:
                yield batch

    async def save_checkpoint(self, low: Position, data: bytes) -> None:
        """See the port. A hop per message; batches get in between.

        Raises:
            FencedError: Somebody newer owns the partition.
            JournalBrokenError: It can't be stored, or nobody knows whether it is. The
                handle is dead, as after a failed write.
        """
        self._handle.check()
        assert 0 <= low <= self.end, (low, self.end)
        steps = self._store.save(low, data)
        try:
            while await self._call(_step, steps):
                self._handle.check()
        except JournalError as error:
            self._handle.failed(error)
            raise
        finally:
            self._tell()

    async def load_checkpoint(self) -> bytes | None:
        """See the port."""
        self._handle.check()
        return await self._call(self._store.load_checkpoint)

    async def trim(self, before: Position) -> None:
        """See the port. At once; Kafka frees the space by whole segments of its own."""
        self._handle.check()
        try:
            await self._call(self._store.trim, before)
        except JournalUnavailableError as error:
            if self._told != str(error):
                _LOGGER.warning("partition %d is not trimmed: %s", self.number, error)
            self._told = str(error)
        else:
            self._told = ""

    async def aclose(self) -> None:
        """See the port."""
        self._handle.closed()
        if self._closing is None:
            # In its turn, so behind a write in flight.
            self._closing = _close(self._loop, self._executor, self._store)
        await asyncio.shield(self._closing)

    async def _call(self, function: Callable[..., T], *args: object) -> T:
        """Call *function* in the thread."""
        return await self._loop.run_in_executor(self._executor, function, *args)

    def _tell(self) -> None:
        if told := self._store.tell():
            _LOGGER.warning("%s", told)


def _close(
    loop: asyncio.AbstractEventLoop, executor: Executor, store: Store
) -> asyncio.Future[None]:
    """Close *store* in its thread, then let the thread end. Goes on if cancelled."""

    def end_thread(_: asyncio.Future[None]) -> None:
        executor.shutdown(wait=False)

    closing = loop.run_in_executor(executor, store.close)
    closing.add_done_callback(end_thread)
    return asyncio.shield(closing)


def _step(steps: Iterator[None]) -> bool:
    """Take one of *steps*, and say whether there was one."""
    return next(steps, _DONE) is not _DONE


_DONE = object()


def _take(batches: Iterator[Batch]) -> list[Batch]:
    chunk: list[Batch] = []
    size = 0
    for batch in batches:
        chunk.append(batch)
        size += len(batch.data)
        if size >= _READ_SIZE or len(chunk) >= _READ_BATCHES:
            break
    return chunk
