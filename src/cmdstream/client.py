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
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Self

from cmdstream.calling import (
    ClientLink,
    ClientOptions,
    OneAnswer,
    ResultQueue,
    Unexpected,
)
from cmdstream.codec import Codec
from cmdstream.errors import (
    CmdStreamError,
    ConnectError,
    ConnectionClosedError,
    LocalProtocolError,
)
from cmdstream.messages import ResultReceived

__all__ = ["Client", "ResultStream"]


class Client:
    """A connection to a server. Make one with `connect` or `connect_unix`."""

    def __init__(self, link: "ClientLink", options: ClientOptions) -> None:
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

        def make_link() -> ClientLink:
            return ClientLink(codec, options, on_unexpected, next_seq)

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

        def make_link() -> ClientLink:
            return ClientLink(codec, options, on_unexpected, next_seq)

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
            RemoteProtocolError: The result did arrive and can't be read; so the command
                has run. The connection ends.
            EncodeError: *command* cannot be sent. Nothing was.
            LocalProtocolError: The first result is not the last: `stream` is for that.

        Cancellation: the command is forgotten, and may run. Later sends are unaffected.
        """
        link = self._link
        if not link.writable:
            await link.drained()
        waiter: OneAnswer[ResultReceived] = OneAnswer()
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

    def __init__(self, link: "ClientLink", command: object, results_max: int) -> None:
        self._link = link
        self._command = command
        self._queue = ResultQueue(results_max)
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
            RemoteProtocolError: The next one did arrive and can't be read.
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


async def _greeted(link: ClientLink, where: str, options: ClientOptions) -> ClientLink:
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
