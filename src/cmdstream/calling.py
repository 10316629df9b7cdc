"""One connection of a client: what is under way on it, and who waits for what.

It is one generation: a client that reconnects makes a new one, with a new table of
pending commands. So a command is written to the connection that it is in the table of,
in one step without an await (`send_command`), and ends with it at the latest.

Results go to their waiters as they arrive, and no waiter may hold up the others. A
`OneAnswer` takes one result. A `ResultQueue` keeps as many as it is allowed to; when it
is full its reader gets one turn of the loop, during which the connection is not read
from, and is then given up: one segment may bring more results than the queue holds
before the reader has run once, but a reader that does not keep up is not waited for.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, Protocol, TypeAlias, TypeVar

from cmdstream.codec import Codec
from cmdstream.errors import (
    CmdStreamError,
    ConnectionClosedError,
    RemoteProtocolError,
    ResultsOverflowError,
)
from cmdstream.messages import ClientEvent, ResultReceived, ServerInfoReceived
from cmdstream.pending import PendingCommands, closed_error
from cmdstream.protocol import ClientConnection
from cmdstream.transport import Link, LinkOptions

__all__ = ["ClientLink", "OneAnswer", "ResultQueue", "Unexpected", "Waiter"]

T = TypeVar("T")

Unexpected: TypeAlias = Callable[[ResultReceived], None]
"""Takes a result that nobody waits for."""


class Waiter(Protocol):
    """Who waits for the results of one command."""

    def is_full(self) -> bool:
        """Tell whether the next result would be one too many."""
        ...

    def deliver(self, received: ResultReceived) -> bool:
        """Take a result; False if no more of them are wanted."""
        ...

    def fail(self, error: CmdStreamError) -> None:
        """Take note that no more results will come."""
        ...


class OneAnswer(Generic[T]):
    """Waits for one result, or one pong."""

    def __init__(self) -> None:
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def is_full(self) -> bool:
        """See `Waiter.is_full`."""
        return False

    def deliver(self, received: T) -> bool:
        """See `Waiter.deliver`."""
        if not self.future.done():
            self.future.set_result(received)
        return False

    def fail(self, error: CmdStreamError) -> None:
        """See `Waiter.fail`."""
        if not self.future.done():
            self.future.set_exception(error)

    def retire(self) -> None:
        """Own up to an error that came in the moment in which the sender was cancelled.

        asyncio would report it as never retrieved, though it has nobody to go to.
        """
        if self.future.done() and not self.future.cancelled():
            self.future.exception()


class ResultQueue:
    """Waits for many results, of which only so many are kept."""

    def __init__(self, results_max: int) -> None:
        self._results: deque[ResultReceived] = deque()
        self._results_max = results_max
        self._error: CmdStreamError | None = None
        self._reader: asyncio.Future[None] | None = None

    def is_full(self) -> bool:
        """See `Waiter.is_full`."""
        return len(self._results) >= self._results_max

    def deliver(self, received: ResultReceived) -> bool:
        """See `Waiter.deliver`; one too many ends the queue with an error."""
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
        """See `Waiter.fail`; what is queued is still given out first."""
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
        self.pending: PendingCommands[Waiter] = PendingCommands()
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        self._on_unexpected = on_unexpected
        self._held: ResultReceived | None = None
        self._pings: deque[OneAnswer[None]] = deque()

    def send_command(self, command: object, waiter: Waiter) -> tuple[int, int]:
        """Send *command* and note who waits for its results, or do neither.

        Returns:
            Its seq, and the size of its frame in bytes.
        """
        self.pending.check_open()
        seq, frame = self.core.send_command(command)
        self.pending.add(seq, waiter)
        self.write(frame)
        return seq, len(frame)

    def send_ping(self) -> OneAnswer[None]:
        """Send a ping; return who waits for its pong."""
        self.pending.check_open()
        pong: OneAnswer[None] = OneAnswer()
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
        try:
            if held is not None:
                self._deliver(held)
            while (event := self.core.next_event()) is not None:
                if not self._take(event):
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
        """Fail everything that waits; the table is closed before the first one."""
        self._held = None
        for waiter in self.pending.close(reason):
            waiter.fail(closed_error(reason, may_have_run=True))
        for pong in self._pings:
            pong.fail(_no_pong(reason))
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
            waiter = self.pending.get(event.seq)
            if waiter is not None and waiter.is_full():
                self._held = event
                return False
            self._deliver(event)
        elif isinstance(event, ServerInfoReceived):
            self.greeted.set_result(None)
        elif self._pings:
            self._pings.popleft().deliver(None)
        return True

    def _tell_whose(self, error: RemoteProtocolError) -> None:
        """Give an answer that can't be read to who waits for it, as what it is.

        The connection ends, and the others can't know whether theirs would have come.
        This one did come, so its command has run.
        """
        if error.seq is not None:
            waiter = self.pending.take(error.seq, is_last=True)
            if waiter is not None:
                waiter.fail(error)

    def _deliver(self, received: ResultReceived) -> None:
        waiter = self.pending.take(received.seq, is_last=received.is_last)
        if waiter is not None:
            if not waiter.deliver(received):
                self.pending.forget(received.seq)
        elif self._on_unexpected is not None:
            self._on_unexpected(received)


def _no_pong(reason: CmdStreamError) -> ConnectionClosedError:
    error = ConnectionClosedError(str(reason), may_have_run=False)
    error.__cause__ = reason
    return error
