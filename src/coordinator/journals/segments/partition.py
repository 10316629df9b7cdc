"""The asyncio shell of a `Store`: one thread per partition, one hop per call.

The store does the work and the deciding; here is only what the loop must see. All
blocking calls of a partition go through one executor of one thread, in order, so the
store needs no locks. They are made by `loop.run_in_executor` and nothing else, which a
simulated loop replaces.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from itertools import islice
from typing import TypeVar

from coordinator.batch import Batch
from coordinator.journals.handle import HeldPartition, encode_claim
from coordinator.journals.segments.scan import scan
from coordinator.journals.segments.store import Store
from coordinator.model import Position

__all__ = ["SegmentPartition"]

T = TypeVar("T")

_LOGGER = logging.getLogger("coordinator")

_SPACE_INTERVAL_S = 1.0
"""How often a full disk is asked again: soon enough for people, nothing for a CPU."""
_TRIM_SEGMENTS = 4
"""Segments that a trim removes per hop, at most: some milliseconds of syncs."""
_READ_BATCHES = 1024
"""Batches read per hop, at most; bounds what a reader holds if they are small."""
_READ_SIZE = 4 * 1024 * 1024
"""Bytes after which a hop ends; bounds it if they are large."""


class SegmentPartition(HeldPartition):
    """One opened partition; see `coordinator.ports.Partition`."""

    def __init__(self, store: Store, executor: Executor, claim: Batch) -> None:
        super().__init__(claim)
        self._store = store
        self._executor = executor
        self._claim = claim
        self._preparing: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._told_full = False
        self._told_kept = ""
        if store.cut:
            _LOGGER.warning("%s", store.cut)
        self._prepare_if_due()

    @classmethod
    async def open(
        cls, store: Store, executor: Executor, *, holder: str, owner: str, at: int
    ) -> "SegmentPartition":
        """Open *store*, claim it and return it.

        Args:
            store: Not opened yet; ours from here on.
            executor: Of one thread; ours too, and shut down with the store.
            holder: What its lock says of us.
            owner: What the claim says of us.
            at: Now, in microseconds since 1970.

        Cancellation: the store is closed again, once the thread is done with it.

        Raises:
            JournalError: As `Store.open` and `Store.append`.
        """
        loop = asyncio.get_running_loop()
        try:
            claim = await loop.run_in_executor(
                executor, _open, store, holder, owner, at
            )
            return cls(store, executor, claim)
        except BaseException:
            # In its turn, so behind the hop above if that is still under way.
            await _close(loop, executor, store)
            raise

    @property
    def number(self) -> int:
        """See the port."""
        return self._store.identity.partition

    @property
    def full(self) -> str:
        """See the port."""
        return self._store.full

    async def write(self, batch: Batch) -> None:
        """See the port. One hop to the thread: write and flush."""
        handle = self._handle
        handle.begin(batch)
        try:
            await self._loop.run_in_executor(self._executor, self._store.append, batch)
        except BaseException as error:
            handle.failed(error)
            raise
        else:
            handle.landed(batch)
        finally:
            self._tell_full()
            self._prepare_if_due()

    async def read(self, since: Position) -> AsyncIterator[Batch]:
        """See the port."""
        self._handle.check()
        batches = scan(self._store, since, self._claim.end)
        while chunk := await self._call(_take, self._store, batches):
            for batch in chunk:
                yield batch

    async def save_checkpoint(self, low: Position, data: bytes) -> None:
        """See the port."""
        self._handle.check()
        assert 0 <= low <= self.end, (low, self.end)
        await self._call(self._store.save_checkpoint, low, data)

    async def load_checkpoint(self) -> bytes | None:
        """See the port."""
        self._handle.check()
        return await self._call(self._store.load_checkpoint)

    async def trim(self, before: Position) -> None:
        """See the port."""
        more = True
        while more:
            # A few at a time: a write that is due in between must not wait for all.
            self._handle.check()
            more = await self._call(self._store.trim, before, _TRIM_SEGMENTS)
        kept = self._store.kept
        if kept and kept != self._told_kept:
            _LOGGER.error("partition %d can't archive: %s", self.number, kept)
        self._told_kept = kept

    async def aclose(self) -> None:
        """See the port."""
        self._handle.closed()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closing is None:
            # In its turn, so behind a write in flight.
            self._closing = _close(self._loop, self._executor, self._store)
        await asyncio.shield(self._closing)

    async def _call(self, function: Callable[..., T], *args: object) -> T:
        """Call *function* in the thread. A store that breaks there stays broken."""
        return await self._loop.run_in_executor(self._executor, function, *args)

    def _prepare_if_due(self) -> None:
        """Have the next segment allocated, behind the write and not within it."""
        if (
            self._store.wants_space
            and self._preparing is None
            and self._timer is None
            and self._handle.alive
        ):
            self._prepare()

    def _prepare(self) -> None:
        self._timer = None
        self._preparing = self._loop.run_in_executor(
            self._executor, self._store.prepare
        )
        self._preparing.add_done_callback(self._prepared)

    def _prepared(self, future: asyncio.Future[None]) -> None:
        self._preparing = None
        if (error := future.exception()) is not None:
            self._died(error)
            return
        self._tell_full()
        if self._store.wants_space and self._handle.alive:
            # By a timer: it recovers although nothing is written any more.
            self._timer = self._loop.call_later(_SPACE_INTERVAL_S, self._prepare)

    def _tell_full(self) -> None:
        """Log that space is short, or is there again: once each."""
        full = self._store.full
        if full and not self._told_full:
            _LOGGER.error(
                "partition %d takes no new command until there is space, what runs "
                "goes on: %s",
                self.number,
                full,
            )
        elif self._told_full and not full:
            _LOGGER.warning("partition %d has space and takes commands", self.number)
        self._told_full = bool(full)


def _open(store: Store, holder: str, owner: str, at: int) -> Batch:
    store.open(holder)
    claim = encode_claim(store.chain, owner=owner, at=at)
    store.append(claim)
    return claim


def _close(
    loop: asyncio.AbstractEventLoop, executor: Executor, store: Store
) -> asyncio.Future[None]:
    """Close *store* in its thread, then let the thread end. Goes on if cancelled."""

    def end_thread(_: asyncio.Future[None]) -> None:
        executor.shutdown(wait=False)

    closing = loop.run_in_executor(executor, store.close)
    closing.add_done_callback(end_thread)
    return asyncio.shield(closing)


def _take(store: Store, batches: Iterator[Batch]) -> list[Batch]:
    chunk: list[Batch] = []
    size = 0
    try:
        for batch in islice(batches, _READ_BATCHES):
            chunk.append(batch)
            size += len(batch.data)
            if size >= _READ_SIZE:
                break
    except OSError as error:
        raise store.broke("read", error) from error
    return chunk
