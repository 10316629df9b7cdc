"""The asyncio server: listens, counts, and comes down in an orderly way.

    async with Server(codec, TaskHandler(handle)) as server:
        await server.listen("127.0.0.1", 9000)
        await server.wait_closed()

Coming down has three steps, each of which includes those before and may be repeated:

    stop_accepting()    no new clients; those that are there go on
    drain(deadline_s)   no new commands; what runs ends, is flushed, and clients hang up
    aclose()            clients are hung up on; tasks are cancelled; what resists is cut

Failures to accept, such as too few file descriptors, are asyncio's: it reports them to
the loop's exception handler, waits a second, and goes on accepting.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from cmdstream.codec import Codec
from cmdstream.errors import ConnectionClosedError
from cmdstream.serving import Handler, ServedClient, ServerOptions, logger
from cmdstream.tasks import TaskHandler

__all__ = ["Gate", "Server"]


class Gate(Protocol):
    """Lets commands into a server, or holds them all back. For admission control."""

    def is_open(self) -> bool:
        """Tell whether the next command may start. Asked once for each command."""
        ...

    def subscribe(self, reopened: Callable[[], None]) -> Callable[[], None]:
        """Call *reopened*, on the loop, whenever the gate opens after being closed.

        Returns:
            What ends the subscription.
        """
        ...


class Server:
    """A server for any number of listening sockets.

    Attributes:
        in_flight: Commands that are running, those of clients that have left included.
    """

    def __init__(
        self,
        codec: Codec,
        handler: Handler | TaskHandler,
        *,
        options: ServerOptions | None = None,
        gate: Gate | None = None,
    ) -> None:
        """Make a server that listens nowhere yet.

        Args:
            codec: Shared by all connections.
            handler: Called for each command; a `TaskHandler` for coroutines, which the
                server then closes.
            options: Bounds.
            gate: While it is closed no command is started, and clients are not read
                from once they have sent one.
        """
        self.in_flight = 0
        self._codec = codec
        self._handler = handler
        self._options = options or ServerOptions()
        self._gate = gate
        self._unsubscribe = gate.subscribe(self.wake_next) if gate else None
        self._listeners: list[asyncio.Server] = []
        self._clients: set[ServedClient] = set()
        # Clients with a command to start, in the order in which they came to wait.
        self._waiting: dict[ServedClient, None] = {}
        self._woken: ServedClient | None = None  # whose turn comes next
        self._accepting = True
        self._draining = False
        self._idle_waiters: list[asyncio.Future[None]] = []
        self._is_closed = asyncio.Event()

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
    def connections(self) -> int:
        """Clients that are connected."""
        return len(self._clients)

    @property
    def addresses(self) -> list[tuple[str, int] | str]:
        """Where the server listens: ``(host, port)``, or the path of a unix socket."""
        names = (
            socket.getsockname()
            for listener in self._listeners
            for socket in listener.sockets
        )
        return [name[:2] if isinstance(name, tuple) else name for name in names]

    async def listen(self, host: str, port: int) -> tuple[str, int]:
        """Accept clients on *host* and *port*, 0 for any free one.

        Returns:
            The address, with the port that was given.

        Raises:
            OSError: The address cannot be had.
        """
        loop = asyncio.get_running_loop()
        listener = await loop.create_server(self._make_client, host, port)
        self._listeners.append(listener)
        name = listener.sockets[0].getsockname()
        return name[0], name[1]

    async def listen_unix(self, path: str) -> None:
        """Accept clients on the unix socket *path*; a stale socket is replaced.

        Raises:
            OSError: The path cannot be had.
        """
        loop = asyncio.get_running_loop()
        listener = await loop.create_unix_server(self._make_client, path)
        self._listeners.append(listener)

    def stop_accepting(self) -> None:
        """Let no more clients in; those that are connected go on."""
        self._accepting = False
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    async def drain(self, deadline_s: float) -> bool:
        """Let what runs come to its end, send it, and hang up on all clients.

        Commands that arrive meanwhile are not started; their clients see the connection
        close, as the protocol has no other word for it.

        Args:
            deadline_s: Seconds after which to give up.

        Returns:
            True if everything ended in time. If not, `aclose` is the next step.

        Cancellation: safe; what was begun goes on, and this may be called again.
        """
        self.stop_accepting()
        self._draining = True
        try:
            async with asyncio.timeout(deadline_s):
                await self._wait_until_idle()
                self._hang_up_all()
                await self._wait_for_clients()
        except TimeoutError:
            return False
        return True

    async def aclose(self) -> None:
        """Hang up on all clients, end all tasks, and be closed. Idempotent.

        What was sent is flushed for as long as `LinkOptions.close_timeout_s` allows.

        Cancellation: whatever is left is cut at once.
        """
        self.stop_accepting()
        self._draining = True
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None
        self._hang_up_all()
        try:
            if isinstance(self._handler, TaskHandler):
                await self._handler.aclose(self._options.link.close_timeout_s)
            await self._wait_for_clients()
        finally:
            for client in list(self._clients):
                client.abort(ConnectionClosedError("the server is closed"))
            self._is_closed.set()

    async def wait_closed(self) -> None:
        """Wait until `aclose` is through.

        Cancellation: safe.
        """
        await self._is_closed.wait()

    # Admission, for `ServedClient`.

    def joined(self, client: ServedClient) -> bool:
        """See `cmdstream.serving.Admission.joined`."""
        if not self._accepting:
            client.abort(ConnectionClosedError("the server is shutting down"))
            return False
        if len(self._clients) >= self._options.connections_max:
            logger.warning(
                "hanging up on %s: %d clients are connected, which is the limit",
                client.peer,
                len(self._clients),
            )
            client.abort(ConnectionClosedError("too many clients"))
            return False
        self._clients.add(client)
        return True

    def left(self, client: ServedClient) -> None:
        """See `cmdstream.serving.Admission.left`."""
        self._clients.discard(client)

    def admit(self, client: ServedClient) -> bool:
        """See `cmdstream.serving.Admission.admit`."""
        # Between a free slot and the turn of the client that it woke, others receive
        # data, too. They have to wait behind it, and behind those who wait already.
        first = self._woken is None and not self._waiting
        if (first or client is self._woken) and self._has_room():
            self.in_flight += 1
            return True
        self._waiting[client] = None
        self.wake_next()
        return False

    def withdraw(self, client: ServedClient) -> None:
        """See `cmdstream.serving.Admission.withdraw`."""
        self._waiting.pop(client, None)

    def release(self) -> None:
        """See `cmdstream.serving.Admission.release`."""
        self.in_flight -= 1
        if self._waiting:
            self.wake_next()
        if not self.in_flight:
            waiters, self._idle_waiters = self._idle_waiters, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def wake_next(self) -> None:
        """See `cmdstream.serving.Admission.wake_next`."""
        if self._waiting and self._woken is None and self._has_room():
            client = self._woken = next(iter(self._waiting))
            del self._waiting[client]
            client.wake()

    def turn_over(self) -> None:
        """See `cmdstream.serving.Admission.turn_over`."""
        self._woken = None
        self.wake_next()

    def _has_room(self) -> bool:
        return (
            self.in_flight < self._options.in_flight_max
            and not self._draining
            and (self._gate is None or self._gate.is_open())
        )

    def _make_client(self) -> ServedClient:
        return ServedClient(self._codec, self._handler, self, self._options)

    async def _wait_until_idle(self) -> None:
        while self.in_flight:
            waiter = asyncio.get_running_loop().create_future()
            self._idle_waiters.append(waiter)
            await waiter

    def _hang_up_all(self) -> None:
        for client in list(self._clients):
            client.close(ConnectionClosedError("the server is shutting down"))

    async def _wait_for_clients(self) -> None:
        # Each one is closing and has a timer that cuts it, so this comes to an end.
        for client in list(self._clients):
            await client.wait_closed()
