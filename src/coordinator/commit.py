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
from typing import Any

from coordinator.batch import encode_batch
from coordinator.errors import (
    JournalBrokenError,
    JournalClosedError,
    JournalError,
    JournalFullError,
)
from coordinator.model import Position
from coordinator.ports import Partition
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

    It can't be cancelled, or one cancelled waiter would take it from the others. A task
    that is cancelled while it waits gets its cancellation when the group is written: at
    most one flush later, and knowing that what it appended is durable.
    """

    def cancel(self, msg: Any | None = None) -> bool:
        """Refuse: it is not the caller's alone."""
        return False


class _Group:
    """Records that become durable together."""

    __slots__ = ("done", "records", "size")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.records: list[bytes] = []
        self.size = 0
        self.done = Durable(loop=loop)


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
        self._appended: int = partition.end
        self.size = 0
        """Bytes appended so far."""
        self._on_failure = on_failure
        self._loop = asyncio.get_running_loop()
        self._open: _Group | None = None
        self._closed: deque[_Group] = deque()
        self._writing: _Group | None = None
        self._writer: asyncio.Task[None] | None = None
        self._failure: JournalError | None = None
        self._patient = True

    @property
    def next(self) -> Position:
        """The position that the next appended record gets."""
        return Position(self._appended)

    def append(self, record: Record) -> Durable:
        """Put *record* at `next`, and return what is done once it is durable.

        Raises:
            EncodeError: It is too large; nothing was appended.
            JournalError: The partition is dead or closed; nothing was appended.
        """
        return self.put(self.encode(record))

    def encode(self, record: Record) -> bytes:
        """Encode *record* for `put`, which does not fail if it follows at once.

        Raises:
            EncodeError: It is too large.
            JournalError: The partition is dead or closed.
        """
        if self._failure is not None:
            raise self._failure
        return encode_record(record)

    def put(self, data: bytes) -> Durable:
        """Put an encoded record at `next`; what is returned is done when durable."""
        assert self._failure is None
        group = self._open
        if group is None:
            group = self._open = _Group(self._loop)
            if self._writer is None:
                # The task starts on the next loop turn: all that is appended in this
                # one goes into the same group.
                self._writer = self._loop.create_task(self._write())
        elif group.size + len(data) > GROUP_SIZE_MAX:
            self._closed.append(group)
            group = self._open = _Group(self._loop)
        group.records.append(data)
        group.size += len(data)
        self.size += len(data)
        self._appended += 1
        if len(group.records) >= GROUP_RECORDS_MAX:
            self._closed.append(group)
            self._open = None
        return group.done

    async def flush(self) -> None:
        """Return once everything appended so far is durable.

        Raises:
            JournalError: It will never be.
        """
        last = self._open or (self._closed[-1] if self._closed else self._writing)
        if last is not None:
            # Not the writer's end: it has none while others go on appending.
            await last.done
        elif self._failure is not None:
            raise self._failure

    def stop_waiting(self) -> None:
        """Wait for space no longer: what is not written then fails instead.

        For a process that is about to end while its disk is full. Nothing of it was
        acknowledged.
        """
        self._patient = False

    async def aclose(self) -> None:
        """Flush if it can, then refuse more. Does not close the partition."""
        if self._failure is None:
            try:
                await self.flush()
            except JournalError:
                return  # reported through on_failure
            self._failure = JournalClosedError("the journal was closed")
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
                group.done.set_result(None)
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
                    raise JournalClosedError(
                        f"closed while waiting: {error}"
                    ) from error
                # Nothing was written and the handle lives, so the same batch may be
                # tried again. Its waiters wait: they are what is running; new
                # commands are refused at the door, by `Partition.full`.
                await asyncio.sleep(FULL_RETRY_S)
            else:
                return

    def _fail(self, group: _Group, error: JournalError) -> None:
        self._failure = error
        for failed in (group, *self._closed, *([self._open] if self._open else [])):
            failed.done.set_exception(error)
            failed.done.exception()  # retrieved: there may be nobody left waiting
        self._closed.clear()
        self._open = self._writing = None
        if not isinstance(error, JournalClosedError):
            self._on_failure(error)
