"""Servers that are gone when they say so.

With asyncio's own servers nobody owns a client that was accepted shortly before the
server is closed: it becomes a connection some turns of the loop later, in a task that
nobody waits for. If the loop ends meanwhile the socket is left open, and whichever test
runs when it is collected fails for it. Here a client is somebody's from the moment it
is accepted, and `Listener.wait_idle` waits for it.
"""

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Self

__all__ = ["Listener", "StreamServer", "with_streams"]

Take = Callable[[socket.socket], Coroutine[Any, Any, object]]
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Listener:
    """Accepts clients, and runs *take* with each one's socket in a task."""

    def __init__(self, take: Take) -> None:
        """Make it; `listen` is to follow. *take* has to close the socket."""
        self._take = take
        self._socket: socket.socket | None = None
        self._clients: set[asyncio.Task[object]] = set()
        self._failures: list[BaseException] = []
        self.port = 0

    def listen(self, sock: socket.socket) -> None:
        """Take clients on *sock*, which is bound, and which `close` closes."""
        sock.listen()
        sock.setblocking(False)
        self._socket = sock
        if sock.family == socket.AF_INET:
            self.port = sock.getsockname()[1]
        asyncio.get_running_loop().add_reader(sock, self._accept, sock)

    def close(self) -> None:
        """Take no more clients; those that were accepted go on. Idempotent."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    async def wait_idle(self) -> None:
        """Wait until each *take* has ended.

        Raises:
            BaseException: What one of them raised.
        """
        while self._clients:
            await asyncio.wait(set(self._clients))
        if self._failures:
            raise self._failures.pop()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(BlockingIOError, ConnectionAbortedError):
            sock, _ = listening.accept()
            task = asyncio.get_running_loop().create_task(self._take(sock))
            self._clients.add(task)
            task.add_done_callback(self._taken)

    def _taken(self, task: asyncio.Task[object]) -> None:
        self._clients.discard(task)
        if not task.cancelled() and (failure := task.exception()) is not None:
            self._failures.append(failure)


def with_streams(serve: Serve, tls: ssl.SSLContext | None = None) -> Take:
    """Make a `Take` of what serves a client with streams; it then hangs up."""

    async def take(sock: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        with suppress(ConnectionError, ssl.SSLError):  # as the client wants it
            transport, _ = await loop.connect_accepted_socket(
                lambda: protocol, sock, ssl=tls
            )
            writer = asyncio.StreamWriter(transport, protocol, reader, loop)
            try:
                await serve(reader, writer)
            finally:
                writer.close()
                await writer.wait_closed()

    return take


class StreamServer:
    """Serves each client with asyncio's streams, and hangs up on it at the end.

    async with StreamServer(serve) as server:
        await asyncio.open_connection("127.0.0.1", server.port)

    At the end of the block it takes nobody any more, waits for *serve* to end for each
    client, and raises what it raised; the loss of a client does not count.
    """

    def __init__(
        self,
        serve: Serve,
        sock: socket.socket | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Make a server for *sock*, which is bound, or for a free port."""
        self._given = sock
        self._listener = Listener(with_streams(serve, tls))

    async def __aenter__(self) -> Self:
        sock = self._given or socket.create_server(("127.0.0.1", 0))
        self._listener.listen(sock)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listener.close()
        await self._listener.wait_idle()

    @property
    def port(self) -> int:
        """Where it listens, unless that is a unix socket."""
        return self._listener.port
