"""The asyncio client: any number of commands at a time over one connection.

    async with await Client.connect("127.0.0.1", 9000, codec) as client:
        result = await client.send(AddCmd(2, 3))
        async for part in client.stream(StreamCmd(10, 3)):
            ...

A client lives as long as its connection: it does not reconnect. `wait_closed` tells
when and why it ended, and `next_seq` lets a successor count on, which is all that a
reconnecting client needs to be built on top.

Time limits are the caller's, one `asyncio.timeout` around a send. When it strikes, the
command is forgotten here, and runs on there: the protocol has no way to stop it.
Nothing else on the connection notices.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Generic, Protocol, Self, TypeVar

import msgspec

from cmdstream.codec import Codec
from cmdstream.errors import (
    CmdStreamError,
    ConnectError,
    ConnectionClosedError,
    LocalProtocolError,
    RemoteProtocolError,
    ResultsOverflowError,
)
from cmdstream.messages import ClientEvent, ResultReceived, ServerInfoReceived
from cmdstream.pending import PendingCommands, closed_error
from cmdstream.protocol import SERVER_INFO_DEFAULT, ClientConnection
from cmdstream.transport import Link, LinkOptions

__all__ = ["Client", "ClientOptions", "ResultStream"]

T = TypeVar("T")

Unexpected = Callable[[ResultReceived], None]


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


class _Waiter(Protocol):
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


class Client:
    """A connection to a server. Make one with `connect` or `connect_unix`."""

    def __init__(self, link: "_ClientLink", options: ClientOptions) -> None:
        """Wrap a connection that has been greeted; see `connect`."""
        self._link = link
        self._options = options

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        codec: Codec,
        *,
        options: ClientOptions | None = None,
        on_unexpected: Unexpected | None = None,
        next_seq: int = 1,
    ) -> Self:
        """Connect to *host* and *port*, and check that it is the server we expect.

        Args:
            host: Name or address.
            port: Its TCP port.
            codec: Must number the types as the server's does.
            options: Bounds.
            on_unexpected: Called with each result that nobody waits for: late ones of
                forgotten commands, those behind a last one, and inventions.
            next_seq: The number of the first command; see `next_seq`.

        Raises:
            ConnectError: There is no connection, or no greeting, in time.
            ConnectionClosedError: The server hung up before it greeted.
            RemoteProtocolError: The greeting is not one.
            ServerInfoMismatchError: The server is another one; do not try again.

        Cancellation: safe; nothing is left open.
        """
        options = options or ClientOptions()
        loop = asyncio.get_running_loop()

        def make_link() -> _ClientLink:
            return _ClientLink(codec, options, on_unexpected, next_seq)

        where = f"{host}:{port}"
        try:
            async with asyncio.timeout(options.connect_timeout_s):
                _, link = await loop.create_connection(make_link, host, port)
        except (OSError, TimeoutError) as error:
            raise _connect_error(where, error) from error
        return cls(await _greeted(link, where, options), options)

    @classmethod
    async def connect_unix(
        cls,
        path: str,
        codec: Codec,
        *,
        options: ClientOptions | None = None,
        on_unexpected: Unexpected | None = None,
        next_seq: int = 1,
    ) -> Self:
        """Connect to the unix socket *path*; the rest is as in `connect`."""
        options = options or ClientOptions()
        loop = asyncio.get_running_loop()

        def make_link() -> _ClientLink:
            return _ClientLink(codec, options, on_unexpected, next_seq)

        try:
            async with asyncio.timeout(options.connect_timeout_s):
                _, link = await loop.create_unix_connection(make_link, path)
        except (OSError, TimeoutError) as error:
            raise _connect_error(path, error) from error
        return cls(await _greeted(link, path, options), options)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    @property
    def closed(self) -> bool:
        """True once nothing can be sent any more."""
        return self._link.reason is not None

    @property
    def pending(self) -> int:
        """Commands that await results."""
        return len(self._link.pending)

    @property
    def next_seq(self) -> int:
        """The number of the next command, for a successor of this client."""
        return self._link.core.next_seq

    async def send(self, command: object) -> object:
        """Send *command* and return its one result.

        Waits for room first if the server reads too slowly.

        Raises:
            ConnectionClosedError: The connection is closed, or closes before the result
                arrives; then the command may have run.
            EncodeError: *command* cannot be sent. Nothing was.
            LocalProtocolError: The first result is not the last: `stream` is for that.

        Cancellation: the command is forgotten, and may run. Later sends are unaffected.
        """
        link = self._link
        if not link.writable:
            await link.drained()
        waiter: _OneAnswer[ResultReceived] = _OneAnswer()
        seq = link.send_command(command, waiter)
        try:
            received = await waiter.future
        finally:
            # Forgotten on cancellation; else the entry is gone already.
            link.pending.forget(seq)
            waiter.retire()
        if not received.is_last:
            raise LocalProtocolError(
                f"{type(command).__qualname__} has several results, the first being "
                f"{type(received.result).__qualname__}: use stream()"
            )
        return received.result

    def stream(self, command: object) -> "ResultStream":
        """Prepare to send *command* and iterate over its results.

        It is sent when the iteration begins. An iteration that is left early should be
        closed, with ``async with`` or `ResultStream.aclose`, so that the results still
        to come are not kept for it.
        """
        return ResultStream(self._link, command, self._options.stream_results_max)

    async def ping(self) -> None:
        """Ask the server for a sign of life, and wait for it.

        Raises:
            ConnectionClosedError: The connection is closed, or closes first.

        Cancellation: safe; the pong will be taken for this ping all the same.
        """
        link = self._link
        if not link.writable:
            await link.drained()
        await link.send_ping()

    async def wait_closed(self) -> CmdStreamError:
        """Wait until the connection is closed, by whichever side, and tell why.

        Cancellation: safe.
        """
        await self._link.wait_closed()
        assert self._link.reason is not None
        return self._link.reason

    async def aclose(self) -> None:
        """Send what is written, hang up, and fail what is pending. Idempotent.

        Cancellation: the connection closes by itself, if need be by force.
        """
        self._link.close(ConnectionClosedError("the client was closed"))
        await self._link.wait_closed()


class ResultStream(AsyncIterator[object]):
    """The results of one command, in the order in which they were sent."""

    def __init__(self, link: "_ClientLink", command: object, results_max: int) -> None:
        self._link = link
        self._command = command
        self._queue = _ResultQueue(results_max)
        self._seq: int | None = None
        self._is_over = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        """Give the next result; the first call sends the command.

        Raises:
            ConnectionClosedError: The connection closed before the last result. Those
                that had arrived were given first.
            EncodeError: The command cannot be sent.
            ResultsOverflowError: Too many results were left waiting, see
                `ClientOptions.stream_results_max`.
            StopAsyncIteration: The last result was given, or the stream is closed.

        Cancellation: safe; no result is lost, and the stream may be read on.
        """
        if self._is_over:
            raise StopAsyncIteration
        if self._seq is None:
            if not self._link.writable:
                await self._link.drained()
            self._seq = self._link.send_command(self._command, self._queue)
        try:
            received = await self._queue.get()
        except CmdStreamError:
            self._is_over = True
            raise
        self._is_over = received.is_last
        return received.result

    async def aclose(self) -> None:
        """Forget the command, if it is not over. The server is not told."""
        self._is_over = True
        if self._seq is not None:
            self._link.pending.forget(self._seq)


class _OneAnswer(Generic[T]):
    """Waits for one result, or one pong."""

    def __init__(self) -> None:
        self.future: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def is_full(self) -> bool:
        return False

    def deliver(self, received: T) -> bool:
        if not self.future.done():
            self.future.set_result(received)
        return False

    def fail(self, error: CmdStreamError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def retire(self) -> None:
        """Own up to an error that came in the moment in which the sender was cancelled.

        asyncio would report it as never retrieved, though it has nobody to go to.
        """
        if not self.future.cancelled():
            self.future.exception()


class _ResultQueue:
    """Waits for many results, of which only so many are kept."""

    def __init__(self, results_max: int) -> None:
        self._results: deque[ResultReceived] = deque()
        self._results_max = results_max
        self._error: CmdStreamError | None = None
        self._reader: asyncio.Future[None] | None = None

    def is_full(self) -> bool:
        return len(self._results) >= self._results_max

    def deliver(self, received: ResultReceived) -> bool:
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
        self._error = error
        self._wake()

    async def get(self) -> ResultReceived:
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


class _ClientLink(Link):
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
        self.pending: PendingCommands[_Waiter] = PendingCommands()
        self.greeted: asyncio.Future[None] = self._loop.create_future()
        self._on_unexpected = on_unexpected
        self._held: ResultReceived | None = None
        self._pings: deque[_OneAnswer[None]] = deque()

    def send_command(self, command: object, waiter: _Waiter) -> int:
        """Send *command* and note who waits for its results, or do neither."""
        self.pending.check_open()
        seq, frame = self.core.send_command(command)
        self.pending.add(seq, waiter)
        self.write(frame)
        return seq

    async def send_ping(self) -> None:
        """Send a ping and wait for its pong."""
        self.pending.check_open()
        pong: _OneAnswer[None] = _OneAnswer()
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
        """Hand on what arrived; or hold it back, once, if its stream is full: False.

        One segment may bring thousands of results of one stream, more than its queue
        holds, before its reader has had any chance to run.
        """
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

    def _deliver(self, received: ResultReceived) -> None:
        waiter = self.pending.take(received.seq, is_last=received.is_last)
        if waiter is not None:
            if not waiter.deliver(received):
                self.pending.forget(received.seq)
        elif self._on_unexpected is not None:
            self._on_unexpected(received)


async def _greeted(
    link: _ClientLink, where: str, options: ClientOptions
) -> _ClientLink:
    """Wait for the greeting, and leave nothing open if it is not the right one."""
    try:
        async with asyncio.timeout(options.server_info_timeout_s):
            await link.greeted
    except TimeoutError as error:
        reason = ConnectError(
            f"{where} sent no server info within {options.server_info_timeout_s} s"
        )
        link.abort(reason)
        raise reason from error
    except asyncio.CancelledError:
        link.abort(ConnectionClosedError("connecting was cancelled"))
        raise
    if link.reason is not None:
        await link.wait_closed()
        raise link.reason
    return link


def _connect_error(where: str, error: Exception) -> ConnectError:
    if isinstance(error, TimeoutError):
        return ConnectError(f"cannot connect to {where} in time")
    return ConnectError(f"cannot connect to {where}: {error}")
