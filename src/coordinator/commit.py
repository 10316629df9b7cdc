"""Group commit: what is appended while a batch is being written becomes the next one.

    append --> the open group --close--> closed groups --write--> durable
                     ^                                   |
                     '---- on the next loop turn, or when the write before returned

No timer: the flush itself is the window in which the next group collects. One future
is shared by all that wait for a group, and one write is in flight. Records are numbered
here, when they are appended; `Partition.write` then puts them exactly there or fails
for good.

Written once, for all backends.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any

from coordinator.batch import encode_batch
from coordinator.errors import (
    JournalBrokenError,
    JournalClosedError,
    JournalError,
    JournalFullError,
    UncertainError,
)
from coordinator.ports import Partition
from coordinator.rare import sometimes
from coordinator.records import Record, encode_record

__all__ = ["GROUP_RECORDS_MAX", "GROUP_SIZE_MAX", "Durable", "GroupCommit"]

GROUP_SIZE_MAX = 1024 * 1024
"""Bytes of records after which a group is closed; a larger record is a group alone."""
GROUP_RECORDS_MAX = 1000
"""Records after which a group is closed: their waiters wake in one loop turn."""
FULL_RETRY_S = 1.0
"""Seconds between two tries to write while the disk is full."""


class Durable(asyncio.Future[None]):
    """Done once a group is on the disk; shared by all that wait for it.

    A future, with two differences. It can't be cancelled, or one cancelled waiter would
    take it from the others: a task that is cancelled while it waits gets its
    cancellation when the group is written, at most one flush later, and knowing that
    what it appended is durable. And all that wait wake in one callback of the loop:
    there may be a hundred of them.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self._waiting: deque[tuple[Callable[[Any], object], Context]] = deque()

    def finish(self, error: JournalError | None = None) -> None:
        """Wake all that wait, in the next turn of the loop."""
        if error is None:
            self.set_result(None)
        else:
            self.set_exception(error)
            self.exception()  # seen: it is told by `on_failure`, whoever waits or not
        self.get_loop().call_soon(self._wake)

    def _wake(self) -> None:
        waiting = self._waiting
        try:
            while waiting:
                callback, context = waiting.popleft()
                context.run(callback, self)
        finally:
            if waiting:  # one of them ends the process; the others wake all the same
                self.get_loop().call_soon(self._wake)

    def cancel(self, msg: object = None) -> bool:
        """Refuse: it is not the caller's alone."""
        return False

    def add_done_callback(
        self, fn: Callable[[Any], object], /, *, context: Context | None = None
    ) -> None:
        """Call *fn* when it is done."""
        if self.done():
            self.get_loop().call_soon(fn, self, context=context)
        else:
            # Not `context or ...`: one without variables is false.
            where = copy_context() if context is None else context
            self._waiting.append((fn, where))

    def remove_done_callback(self, fn: Callable[[Any], object], /) -> int:
        """Call *fn* no longer."""
        kept = [entry for entry in self._waiting if entry[0] != fn]
        removed = len(self._waiting) - len(kept)
        self._waiting = deque(kept)
        return removed


class _Group:
    """Records that become durable together."""

    __slots__ = ("done", "records", "size_end")

    def __init__(self, loop: asyncio.AbstractEventLoop, size: int) -> None:
        self.records: list[bytes] = []
        self.size_end = size + GROUP_SIZE_MAX
        """How far `GroupCommit.size` may grow by it; by its first record, any."""
        self.done = Durable(loop)


class GroupCommit:
    """The writing end of one opened partition."""

    def __init__(
        self, partition: Partition, on_failure: Callable[[JournalError], None]
    ) -> None:
        """Write behind `partition.end`.

        Args:
            partition: Opened and read; nobody else writes to it.
            on_failure: Called once, when the partition is dead. All waiters fail with
                the same error.
        """
        self.partition = partition
        self.next: int = partition.end
        """The position that the next appended record gets."""
        self.size = 0
        """Bytes appended so far."""
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._open: _Group | None = None
        self._closed: deque[_Group] = deque()
        self._writing: _Group | None = None
        self._writer: asyncio.Task[None] | None = None
        self.failure: JournalError | None = None
        """Why nothing more can be appended: the partition is dead or closed."""
        self._patient = True

    def append(self, record: Record) -> Durable:
        """Put *record* at `next`, and return what is done once it is durable.

        Raises:
            EncodeError: It is too large; nothing was appended.
            JournalError: The partition is dead or closed; nothing was appended.
        """
        if self.failure is not None:
            raise self.failure
        return self.put(encode_record(record))

    def put(self, data: bytes) -> Durable:
        """Put an encoded record at `next`; what is returned is done when durable.

        Does not fail, so that a record can be applied once it is encoded.
        """
        assert self.failure is None
        group = self._open
        size = self.size + len(data)
        if group is None or size > group.size_end:
            group = self._next_group(group)
        self.size = size
        self.next += 1
        records = group.records
        records.append(data)
        if len(records) == GROUP_RECORDS_MAX:
            sometimes("group full by its count")
            self._closed.append(group)
            self._open = None
        return group.done

    def _next_group(self, full: _Group | None) -> _Group:
        """Open a group; that before it, if any, is closed."""
        if full is not None:
            sometimes("group full by its size")
            self._closed.append(full)
        elif self._writer is None:
            # The task starts on the next loop turn: all that is appended in this one
            # goes into the same group.
            self._writer = self._loop.create_task(self._write())
        self._open = _Group(self._loop, self.size)
        return self._open

    async def flush(self) -> None:
        """Return once everything appended so far is durable.

        Raises:
            JournalError: It will never be.
        """
        last = self._open or (self._closed[-1] if self._closed else self._writing)
        if last is not None:
            # Not the writer's end: it has none while others go on appending.
            await last.done
        elif self.failure is not None:
            raise self.failure

    def stop_waiting(self) -> None:
        """Wait for space no longer: what is not written then fails instead.

        For a process that is about to end while its disk is full. Nothing of it was
        acknowledged.
        """
        self._patient = False

    async def aclose(self) -> None:
        """Flush if it can, then refuse more. Does not close the partition."""
        if self.failure is None:
            try:
                await self.flush()
            except JournalError:
                return  # reported through on_failure
            self.failure = JournalClosedError("the journal was closed")
            if self._writer is not None:
                await asyncio.wait({self._writer})

    async def _write(self) -> None:
        try:
            while (group := self._take()) is not None:
                try:
                    await self._write_group(group)
                except JournalError as error:
                    self._fail(group, error)
                    return
                except Exception as error:  # noqa: BLE001 -- a bug in a backend
                    broken = JournalBrokenError(f"the journal failed: {error!r}")
                    broken.__cause__ = error
                    self._fail(group, broken)
                    return
                except BaseException as error:
                    # Cancelled from outside: by a program that ends its loop without
                    # closing us. Those who wait could otherwise never end.
                    self._fail(
                        group,
                        UncertainError(
                            f"nobody knows whether the write at position "
                            f"{self.partition.end} landed: it ended in "
                            f"{type(error).__name__}"
                        ),
                    )
                    raise
                group.done.finish()
                self._writing = None
                # The waiters wake in the coming loop turn, and what they append then
                # goes into one group.
                await asyncio.sleep(0)
        finally:
            self._writer = None

    def _take(self) -> _Group | None:
        if self._closed:
            self._writing = self._closed.popleft()
        else:
            self._writing, self._open = self._open, None
        return self._writing

    async def _write_group(self, group: _Group) -> None:
        partition = self.partition
        batch = encode_batch(
            group.records,
            epoch=partition.epoch,
            first=partition.end,
            previous_crc=partition.crc,
        )
        while True:
            try:
                await partition.write(batch)
            except JournalFullError as error:
                if not self._patient:
                    sometimes("write given up, to close on a full disk")
                    raise JournalClosedError(
                        f"closed while waiting: {error}"
                    ) from error
                sometimes("write waits for space")
                # Nothing was written and the handle lives, so the same batch may be
                # tried again. Its waiters wait: they are what is running; new
                # commands are refused at the door, by `Partition.full`.
                await asyncio.sleep(FULL_RETRY_S)
            else:
                return

    def _fail(self, group: _Group, error: JournalError) -> None:
        if isinstance(error, UncertainError):
            sometimes("uncertain write")
        self.failure = error
        for failed in (group, *self._closed, *([self._open] if self._open else [])):
            failed.done.finish(error)
        self._closed.clear()
        self._open = self._writing = None
        if not isinstance(error, JournalClosedError):
            self._on_failure(error)
