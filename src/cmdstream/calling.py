"""One connection of a client: what is under way on it, and who waits for what.

It is one generation: a client that reconnects makes a new one, with a new table of
those who wait. So a command is written to the connection that it is in the table of, in
one step without an await (`send_command`). An entry leaves the table in exactly one of
three ways: it has had its last result, its sender forgets it, or the connection ends
and fails it. The connection is closed before the first one is failed: an entry added
while the others are would be in a table that nobody empties any more, and wait for
ever.

Results go to their waiters as they arrive, and no waiter may hold up the others. A
future takes one result. A `ResultQueue` keeps as many as it is allowed to; when it is
full its reader gets one turn of the loop, during which the connection is not read from,
and is then given up: one segment may bring more results than the queue holds before the
reader has run once, but a reader that does not keep up is not waited for.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from cmdstream.codec import Codec
from cmdstream.errors import (
    CmdStreamError,
    ConnectionClosedError,
    RemoteProtocolError,
    ResultsOverflowError,
)
from cmdstream.messages import ClientEvent, ResultReceived, ServerInfoReceived
from cmdstream.protocol import ClientConnection
from cmdstream.transport import Link, LinkOptions

__all__ = [
    "ClientLink",
    "ResultQueue",
    "Unexpected",
    "Waiter",
    "closed_error",
    "fail",
    "retire",
]

T = TypeVar("T")

Unexpected: TypeAlias = Callable[[ResultReceived], None]
"""Takes a result that nobody waits for."""


class ResultQueue:
    """Waits for many results, of which only so many are kept."""

    def __init__(self, results_max: int) -> None:
        self._results: deque[ResultReceived] = deque()
        self._results_max = results_max
        self._error: CmdStreamError | None = None
        self._reader: asyncio.Future[None] | None = None

    def is_full(self) -> bool:
        """Tell whether the next result would be one too many."""
        return len(self._results) >= self._results_max

    def deliver(self, received: ResultReceived) -> bool:
        """Take a result; False if it was one too many, which ends the queue."""
        if self.is_full():
            self.fail(
                ResultsOverflowError(
                    f"{self._results_max} results of seq {received.seq} are waiting, "
                    "which is the limit"
                )
            )
            return False
        self._results.append(received)
        self._wake()
        return True

    def fail(self, error: CmdStreamError) -> None:
        """Take note that no more will come; what is queued is given out first."""
        self._error = self._error or error
        self._wake()

    async def get(self) -> ResultReceived:
        """Wait for the next result and take it. For one task at a time.

        Cancellation: safe; no result is lost.

        Raises:
            CmdStreamError: What ended the queue, once it is empty.
        """
        while not self._results:
            if self._error is not None:
                raise self._error
            assert self._reader is None
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        return self._results.popleft()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


Waiter: TypeAlias = asyncio.Future[ResultReceived] | ResultQueue
"""Who waits for one result, or for many."""


class ClientLink(Link):
    """One connection to a server, from the moment there is a socket."""

    def __init__(
        self,
        codec: Codec,
        server_info: bytes,
        options: LinkOptions,
        on_unexpected: Unexpected | None,
        next_seq: int,
    ) -> None:
        super().__init__(options)
        self.core = ClientConnection(codec, server_info=server_info, next_seq=next_seq)
        self.new_waiter: Callable[[], asyncio.Future[ResultReceived]]
        """Makes who waits for one result."""
        self.new_waiter = self._loop.create_future
        self.waiting: dict[int, Waiter] = {}
        """By the seq of their command."""
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        self._on_unexpected = on_unexpected
        self._held: ResultReceived | None = None
        self._pings: deque[asyncio.Future[None]] = deque()

    def send_command(self, command: object, waiter: Waiter) -> tuple[int, int]:
        """Send *command* and note who waits for its results, or do neither.

        Returns:
            Its seq, and the size of its frame in bytes.

        Raises:
            ConnectionClosedError: The connection is closing. Nothing was sent.
            EncodeError: See `cmdstream.codec.Codec.encode_command`.
        """
        if self.reason is not None:
            raise closed_error(self.reason, may_have_run=False)
        seq, frame = self.core.send_command(command)
        self.waiting[seq] = waiter
        self.write(frame)
        return seq, len(frame)

    def forget(self, seq: int) -> None:
        """Expect no more results for *seq*, if any are expected. Nobody is told."""
        self.waiting.pop(seq, None)

    def send_ping(self) -> asyncio.Future[None]:
        """Send a ping; return who waits for its pong.

        Raises:
            ConnectionClosedError: The connection is closing. Nothing was sent.
        """
        if self.reason is not None:
            raise closed_error(self.reason, may_have_run=False)
        pong = self._loop.create_future()
        self._pings.append(pong)
        self.write(self.core.send_ping())
        return pong

    def data_received(self, data: bytes) -> None:
        """Hand each result to who waits for it."""
        if self.reason is not None:
            return
        assert self._held is None  # reading is paused while something is held back
        self.core.receive_data(data)
        self._take_all(None)

    def _take_all(self, held: ResultReceived | None) -> None:
        assert self._transport is not None
        next_event = self.core.next_event
        try:
            if held is not None:
                self._go_on(held)
            while (event := next_event()) is not None:
                # Nearly always a result of a command that has one: without a call. The
                # table is another one once a callback has closed the connection.
                if isinstance(event, ResultReceived) and isinstance(
                    waiter := self.waiting.get(event.seq), asyncio.Future
                ):
                    del self.waiting[event.seq]
                    if not waiter.done():
                        waiter.set_result(event)
                elif not self._take(event):
                    self._transport.pause_reading()
                    self._loop.call_soon(self._take_held)
                    return
            self._transport.resume_reading()
        except RemoteProtocolError as error:
            self._tell_whose(error)
            # Cut, not closed: the peer is broken, and may not take what is unsent. A
            # new connection should not wait for that.
            self.abort(error)
        except Exception as error:  # noqa: BLE001 -- a bug in a codec or a callback
            reason = ConnectionClosedError(f"cannot go on after {error!r}")
            reason.__cause__ = error
            self.abort(reason)

    def eof_received(self) -> None:
        """Tell a server that hangs up from one that breaks off inside a frame."""
        if self.reason is None:
            try:
                self.core.receive_eof()
            except RemoteProtocolError as error:
                self.abort(error)

    def ended(self, reason: CmdStreamError, *, notable: bool) -> None:
        """Fail everything that waits; nothing can be added any more."""
        self._held = None
        waiting, self.waiting = self.waiting, {}
        for waiter in waiting.values():
            fail(waiter, closed_error(reason, may_have_run=True))
        for pong in self._pings:
            fail(pong, _no_pong(reason))
        self._pings.clear()
        if not self.greeted.done():
            self.greeted.set_result(None)

    def _take_held(self) -> None:
        """Go on after the turn that the readers had, whatever they made of it."""
        held, self._held = self._held, None
        if held is not None:
            self._take_all(held)

    def _take(self, event: ClientEvent) -> bool:
        """Hand on what arrived; or hold it back, once, if its stream is full: False."""
        if isinstance(event, ResultReceived):
            queue = self.waiting.get(event.seq)
            if isinstance(queue, ResultQueue) and queue.is_full():
                self._held = event
                return False
            self._go_on(event)
        elif isinstance(event, ServerInfoReceived):
            self.greeted.set_result(None)
        elif self._pings:
            pong = self._pings.popleft()
            if not pong.done():
                pong.set_result(None)
        return True

    def _go_on(self, received: ResultReceived) -> None:
        """Hand on one result of a stream, or one that nobody waits for."""
        queue = self.waiting.get(received.seq)
        if isinstance(queue, ResultQueue):
            if not queue.deliver(received) or received.is_last:
                del self.waiting[received.seq]
        elif self._on_unexpected is not None:
            self._on_unexpected(received)

    def _tell_whose(self, error: RemoteProtocolError) -> None:
        """Give an answer that can't be read to who waits for it, as what it is.

        The connection ends, and the others can't know whether theirs would have come.
        This one did come, so its command has run.
        """
        if error.seq is not None:
            waiter = self.waiting.pop(error.seq, None)
            if waiter is not None:
                fail(waiter, error)


def fail(waiter: asyncio.Future[T] | ResultQueue, error: CmdStreamError) -> None:
    """Tell *waiter* that no more will come, unless it knows."""
    if isinstance(waiter, ResultQueue):
        waiter.fail(error)
    elif not waiter.done():
        waiter.set_exception(error)


def retire(waiter: asyncio.Future[T]) -> None:
    """Own up to an error that came in the moment in which the sender was cancelled.

    asyncio would report it as never retrieved, though it has nobody to go to.
    """
    if waiter.done() and not waiter.cancelled():
        waiter.exception()


def closed_error(
    reason: CmdStreamError, *, may_have_run: bool
) -> ConnectionClosedError:
    """Make a fresh error for one waiter out of the *reason* they all share."""
    what = "may have run" if may_have_run else "was not sent"
    error = ConnectionClosedError(
        f"{reason}; the command {what}", may_have_run=may_have_run
    )
    error.__cause__ = reason
    return error


def _no_pong(reason: CmdStreamError) -> ConnectionClosedError:
    error = ConnectionClosedError(str(reason), may_have_run=False)
    error.__cause__ = reason
    return error
