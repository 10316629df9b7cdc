"""A client's connection: what is under way on it, and who waits for what.

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

import msgspec

from cmdstream.codec import Codec
from cmdstream.errors import (
    CmdStreamError,
    ConnectionClosedError,
    LocalProtocolError,
    RemoteProtocolError,
    ResultsOverflowError,
)
from cmdstream.messages import ClientEvent, ResultReceived, ServerInfoReceived
from cmdstream.pending import PendingCommands, closed_error
from cmdstream.protocol import SERVER_INFO_DEFAULT, ClientConnection
from cmdstream.transport import Link, LinkOptions

__all__ = ["ClientLink", "ClientOptions", "OneAnswer", "ResultQueue", "Unexpected"]

T = TypeVar("T")

Unexpected: TypeAlias = Callable[[ResultReceived], None]
"""Takes a result that nobody waits for."""


class ClientOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a client."""

    server_info: bytes = SERVER_INFO_DEFAULT
    """What the server must announce; anything else ends the connection."""
    connect_timeout_s: float = 10.0
    """Seconds for the connection to be made."""
    server_info_timeout_s: float = 10.0
    """Seconds for the server's greeting. A full Go server accepts and stays silent."""
    stream_results_max: int = 16_384
    """Results of one stream that may wait for their reader. One more, after a turn of
    the loop in which the reader could have taken some, ends the stream: waiting longer
    would stall every other command of the connection."""
    link: LinkOptions = LinkOptions()
    """The bounds of writing."""


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
        if not self.future.cancelled():
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
        self._error = error
        self._wake()

    async def get(self) -> ResultReceived:
        """Wait for the next result and take it.

        Cancellation: safe; no result is lost.

        Raises:
            CmdStreamError: What ended the queue, once it is empty.
            LocalProtocolError: Another task is waiting.
        """
        while not self._results:
            if self._error is not None:
                raise self._error
            if self._reader is not None:
                raise LocalProtocolError("two tasks read the same stream")
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
    """The connection under a `Client`."""

    def __init__(
        self,
        codec: Codec,
        options: ClientOptions,
        on_unexpected: Unexpected | None,
        next_seq: int,
    ) -> None:
        super().__init__(options.link)
        self.core = ClientConnection(
            codec, server_info=options.server_info, next_seq=next_seq
        )
        self.pending: PendingCommands[Waiter] = PendingCommands()
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        self._on_unexpected = on_unexpected
        self._held: ResultReceived | None = None
        self._pings: deque[OneAnswer[None]] = deque()

    def send_command(self, command: object, waiter: Waiter) -> int:
        """Send *command* and note who waits for its results, or do neither."""
        self.pending.check_open()
        seq, frame = self.core.send_command(command)
        self.pending.add(seq, waiter)
        self.write(frame)
        return seq

    async def send_ping(self) -> None:
        """Send a ping and wait for its pong."""
        self.pending.check_open()
        pong: OneAnswer[None] = OneAnswer()
        self._pings.append(pong)
        self.write(self.core.send_ping())
        try:
            await pong.future
        finally:
            pong.retire()

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
            self.close(error)
        except Exception as error:  # noqa: BLE001 -- a bug in a codec or a callback
            reason = ConnectionClosedError(f"cannot go on after {error!r}")
            reason.__cause__ = error
            self.close(reason)

    def eof_received(self) -> None:
        """Tell a server that hangs up from one that breaks off inside a frame."""
        if self.reason is None:
            try:
                self.core.receive_eof()
            except RemoteProtocolError as error:
                self.close(error)

    def ended(self, reason: CmdStreamError, *, notable: bool) -> None:
        """Fail everything that waits; the table is closed before the first one."""
        self._held = None
        for waiter in self.pending.close(reason):
            waiter.fail(closed_error(reason))
        for pong in self._pings:
            pong.fail(closed_error(reason))
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
