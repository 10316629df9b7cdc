"""The asyncio server: listens, counts, and comes down in an orderly way.

    async with Server(codec, TaskHandler(handle)) as server:
        await server.listen("127.0.0.1", 9000)
        await stop.wait()
        await server.shutdown(drain_s=30)

`Server.shutdown` is all that most need. It takes these steps, each of which includes
those before and may be repeated:

    stop_accepting()    no new clients; those that are there go on
    drain(deadline_s)   no new commands; what runs ends, is flushed, and clients hang up
    aclose()            clients are hung up on; tasks are cancelled; what resists is cut

A client counts from the moment it is accepted. Its TLS handshake is over within
`ServerOptions.tls_handshake_timeout_s`, and whatever goes wrong in it is one line in
the log, and nothing to anybody else.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType
from typing import ParamSpec, Protocol, Self

from cmdstream.codec import Codec
from cmdstream.errors import CmdStreamError, ConnectionClosedError
from cmdstream.listening import Listener, bind_tcp, bind_unix
from cmdstream.middleware import Middleware, WatchedReply, surround
from cmdstream.serving import (
    Failure,
    Handler,
    Reply,
    ServedClient,
    ServerOptions,
    Service,
    logger,
)
from cmdstream.tasks import TaskHandler
from cmdstream.tls import ServerTls, handshake_failure

__all__ = ["ClientWatcher", "Gate", "Server"]


P = ParamSpec("P")


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


class ClientWatcher(Protocol):
    """Is told of clients, on the loop. What it raises is logged, and ends there."""

    def joined(self, peer: str) -> None:
        """Take note of a client: its connection stands, through TLS if there is any."""
        ...

    def left(self, peer: str, reason: CmdStreamError) -> None:
        """Take note that a client's socket is closed, and who closed it, and why.

        Called once for each that joined, when its commands may still be running.
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
        failure: Failure | None = None,
        middleware: Iterable[Middleware] = (),
        watcher: ClientWatcher | None = None,
    ) -> None:
        """Make a server that listens nowhere yet.

        Args:
            codec: Shared by all connections.
            handler: Called for each command; a `TaskHandler` for coroutines, which the
                server then closes.
            options: Bounds.
            gate: While it is closed no command is started, and clients are not read
                from once they have sent one.
            failure: Tells a client that its command failed, in the place of hanging up
                on it with all its other commands: called with ``reason=``, a text that
                may hold what an exception says, it gives a registered result, the last
                of its command. A result class with a field `reason` will do.
            middleware: Functions around *handler*, the first outermost; see
                `cmdstream.middleware`.
            watcher: Told of each client that comes and goes.
        """
        self.in_flight = 0
        self._tasks = handler if isinstance(handler, TaskHandler) else None
        self._options = options or ServerOptions()
        around = list(middleware)
        self._service = Service(
            codec,
            surround(handler, around),
            self._options,
            failure,
            WatchedReply if around else Reply,
        )
        self._watcher = watcher
        self._gate = gate
        self._unsubscribe = gate.subscribe(self.wake_next) if gate else None
        self._listeners: list[Listener] = []
        # Accepted, and on the way to be clients: through a handshake, or a turn or two.
        self._arriving: dict[ServedClient, socket.socket] = {}
        self._arrivals: set[asyncio.Task[None]] = set()
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
        return [listener.address for listener in self._listeners]

    async def listen(
        self, host: str, port: int, *, tls: ServerTls | ssl.SSLContext | None = None
    ) -> tuple[str, int]:
        """Accept clients on *host* and *port*, 0 for any free one.

        Args:
            host: Name or address; empty for all of this machine.
            port: Of TCP.
            tls: The certificate to serve with, and whose clients to let in. A
                `ServerTls` may be reloaded; a context is used as it is.

        Returns:
            The address, with the port that was given; of several addresses, the first.

        Raises:
            ConnectionClosedError: The server accepts nobody any more.
            OSError: The address cannot be had.
        """
        sockets = await bind_tcp(host, port)
        if not self._accepting:
            for sock in sockets:
                sock.close()
            raise ConnectionClosedError("the server accepts nobody any more")
        listeners = [self._listen(sock, tls) for sock in sockets]
        self._listeners += listeners
        address = listeners[0].address
        assert isinstance(address, tuple)
        return address

    async def listen_unix(self, path: str) -> None:
        """Accept clients on the unix socket *path*; a stale socket is replaced.

        Raises:
            OSError: The path cannot be had.
        """
        self._listeners.append(self._listen(bind_unix(path), None))

    def stop_accepting(self) -> None:
        """Let no more clients in; those that are connected go on."""
        self._accepting = False
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for sock in self._arriving.values():
            # Its handshake then sees the end of the connection, and closes the socket:
            # that is not ours any more.
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    async def shutdown(self, drain_s: float) -> bool:
        """Come down: let what runs end for *drain_s* seconds, then close all the same.

        Never takes longer than that and `LinkOptions.close_timeout_s`. May be called
        again, also while it is under way, to be quicker.

        Returns:
            True if everything had ended by itself.

        Cancellation: goes on with closing at once, and is cancelled when that is done;
        the second one cuts whatever is left.
        """
        try:
            return await self.drain(drain_s)
        finally:
            await self.aclose()

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
        return not self.in_flight  # closed by somebody else meanwhile, perhaps

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
            if self._tasks is not None:
                await self._tasks.aclose(self._options.link.close_timeout_s)
            await self._wait_for_clients()
        finally:
            for client in list(self._clients):
                client.abort(ConnectionClosedError("the server is closed"))
            self._is_closed.set()
            self._wake_idle_waiters()

    async def wait_closed(self) -> None:
        """Wait until `aclose` is through.

        Cancellation: safe.
        """
        await self._is_closed.wait()

    # Admission, for `ServedClient`.

    def joined(self, client: ServedClient) -> bool:
        """See `cmdstream.serving.Admission.joined`."""
        self._arriving.pop(client, None)
        if not self._accepting:
            client.abort(ConnectionClosedError("the server is shutting down"))
            return False
        self._clients.add(client)
        if self._watcher is not None:
            self._tell(self._watcher.joined, client.peer)
        return True

    def left(self, client: ServedClient) -> None:
        """See `cmdstream.serving.Admission.left`."""
        if client not in self._clients:
            return  # it came too late to join
        self._clients.remove(client)
        if self._watcher is not None:
            assert client.reason is not None
            self._tell(self._watcher.left, client.peer, client.reason)

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
        if not self.in_flight and self._idle_waiters:
            self._wake_idle_waiters()

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

    def _tell(self, told: Callable[P, None], *of: P.args, **by: P.kwargs) -> None:
        try:
            told(*of, **by)
        except Exception:  # noqa: BLE001 -- the user's class may do anything
            logger.exception("%r failed", self._watcher)

    def _has_room(self) -> bool:
        return (
            self.in_flight < self._options.in_flight_max
            and not self._draining
            and (self._gate is None or self._gate.is_open())
        )

    def _listen(
        self, sock: socket.socket, tls: ServerTls | ssl.SSLContext | None
    ) -> Listener:
        def accepted(client: socket.socket, peer: str) -> None:
            self._take(client, peer, tls.context if isinstance(tls, ServerTls) else tls)

        return Listener(sock, accepted, self._listeners.remove)

    def _take(
        self, sock: socket.socket, peer: str, context: ssl.SSLContext | None
    ) -> None:
        """Take in a client that was accepted, or turn it away."""
        present = len(self._clients) + len(self._arriving)
        if present >= self._options.connections_max:
            logger.warning(
                "hanging up on %s: %d clients are connected, which is the limit",
                peer,
                present,
            )
            sock.close()
            return
        client = ServedClient(self._service, self)
        self._arriving[client] = sock
        arrival = asyncio.get_running_loop().create_task(
            self._open(client, sock, peer, context)
        )
        self._arrivals.add(arrival)
        arrival.add_done_callback(self._arrivals.discard)

    async def _open(
        self,
        client: ServedClient,
        sock: socket.socket,
        peer: str,
        context: ssl.SSLContext | None,
    ) -> None:
        """Make *sock* the connection of *client*, who then calls `joined`."""
        loop = asyncio.get_running_loop()
        try:
            if context is None:
                await loop.connect_accepted_socket(lambda: client, sock)
            else:
                await loop.connect_accepted_socket(
                    lambda: client,
                    sock,
                    ssl=context,
                    ssl_handshake_timeout=self._options.tls_handshake_timeout_s,
                    ssl_shutdown_timeout=self._options.link.close_timeout_s,
                )
        except OSError as error:
            if self._accepting:
                what = "connection" if context is None else "TLS"
                logger.warning(
                    "no %s with %s: %s", what, peer, handshake_failure(error)
                )
        finally:
            self._arriving.pop(client, None)

    async def _wait_until_idle(self) -> None:
        while self.in_flight and not self._is_closed.is_set():
            waiter = asyncio.get_running_loop().create_future()
            self._idle_waiters.append(waiter)
            await waiter

    def _wake_idle_waiters(self) -> None:
        waiters, self._idle_waiters = self._idle_waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _hang_up_all(self) -> None:
        for client in list(self._clients):
            client.close(ConnectionClosedError("the server is shutting down"))

    async def _wait_for_clients(self) -> None:
        # Those who arrive see the end of their connection, and each of the others is
        # closing and has a timer that cuts it. So this comes to an end.
        if self._arrivals:
            await asyncio.wait(set(self._arrivals))
        for client in list(self._clients):
            await client.wait_closed()
