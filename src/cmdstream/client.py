"""The asyncio client: any number of commands at a time over one connection.

    async with await Client.connect("127.0.0.1", 9000, codec) as client:
        result = await client.send(AddCmd(2, 3), timeout_s=1.0)
        async for part in client.stream(StreamCmd(10, 3)):
            ...

A client ends with its connection, unless `ClientOptions.reconnect` says how to come
back. Every command belongs to one connection, and ends: with its result, with its
time-out, or with an error that says whether it may have run. It is never sent twice;
`cmdstream.reconnecting` says why that holds.

When a time-out strikes, or the sender is cancelled, the command is forgotten here and
runs on there: the protocol has no way to stop it. Nothing else on the connection
notices, and what it answers late goes to `on_unexpected`.
"""

import ssl
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from cmdstream.calling import Unexpected
from cmdstream.codec import Codec
from cmdstream.connecting import Address, ClientOptions, Dialer
from cmdstream.errors import CmdStreamError, ConnectionClosedError
from cmdstream.hooks import HookFactory
from cmdstream.reconnecting import Changes, Line
from cmdstream.sending import Sender

__all__ = ["Client"]


class Client(Sender):
    """One connection to a server, or one at a time.

    Make it with `connect` or `connect_unix`, which wait for the connection, or with
    `start`, which does not.
    """

    def __init__(self, line: Line, hooks: Sequence[HookFactory] = ()) -> None:
        """Send over *line*; see `connect`."""
        super().__init__(line, hooks, line.options.stream_results_max)
        self._line = line

    @classmethod
    async def connect(
        cls,
        host: str,
        port: int,
        codec: Codec,
        *,
        options: ClientOptions | None = None,
        tls: ssl.SSLContext | None = None,
        hooks: Sequence[HookFactory] = (),
        on_unexpected: Unexpected | None = None,
        next_seq: int = 1,
    ) -> Self:
        """Connect to *host* and *port*, and check that it is the server we expect.

        One try, also if the client is to reconnect: a wrong address shows at once.

        Args:
            host: Name or address.
            port: Its TCP port.
            codec: Must number the types as the server's does.
            options: Bounds; whether to keep the connection alive, and to come back.
            tls: Speak TLS by its settings, with a client certificate if it has one.
            hooks: What to do around each send; see `cmdstream.hooks`.
            on_unexpected: Called with each result that nobody waits for: late ones of
                forgotten commands, those behind a last one, and inventions.
            next_seq: The number of the first command; see `next_seq`.

        Raises:
            ConnectError: There is no connection, or no greeting.
            RemoteProtocolError: The greeting is not one.
            ServerInfoMismatchError: The server is another one; do not try again.

        Cancellation: safe; nothing is left open.
        """
        dialer = Dialer(
            (host, port), codec, options or ClientOptions(), tls, on_unexpected
        )
        return await cls._connected(dialer, hooks, next_seq)

    @classmethod
    async def connect_unix(
        cls,
        path: str,
        codec: Codec,
        *,
        options: ClientOptions | None = None,
        tls: ssl.SSLContext | None = None,
        hooks: Sequence[HookFactory] = (),
        on_unexpected: Unexpected | None = None,
        next_seq: int = 1,
    ) -> Self:
        """Connect to the unix socket *path*; the rest is as in `connect`.

        With *tls*, `ClientOptions.tls_server_name` is needed: a path is no name.
        """
        dialer = Dialer(path, codec, options or ClientOptions(), tls, on_unexpected)
        return await cls._connected(dialer, hooks, next_seq)

    @classmethod
    def start(
        cls,
        address: Address,
        codec: Codec,
        *,
        options: ClientOptions,
        tls: ssl.SSLContext | None = None,
        hooks: Sequence[HookFactory] = (),
        on_unexpected: Unexpected | None = None,
        next_seq: int = 1,
    ) -> Self:
        """Begin to connect, and do not wait: the server may be down for now.

        Sends wait for the connection. The rest is as in `connect`.

        Args:
            address: Host and port, or the path of a unix socket.
            codec: As in `connect`.
            options: Must say how to reconnect; the first connection is made that way.
            tls: As in `connect`.
            hooks: As in `connect`.
            on_unexpected: As in `connect`.
            next_seq: As in `connect`.

        Raises:
            ValueError: `ClientOptions.reconnect` is None.
        """
        if options.reconnect is None:
            raise ValueError("a client that is started needs ClientOptions.reconnect")
        dialer = Dialer(address, codec, options, tls, on_unexpected)
        line = Line(dialer, Changes(), next_seq)
        line.keep()
        return cls(line, hooks)

    @classmethod
    async def _connected(
        cls, dialer: Dialer, hooks: Sequence[HookFactory], next_seq: int
    ) -> Self:
        line = Line(dialer, Changes(), next_seq)
        await line.open()
        line.keep()
        return cls(line, hooks)

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
    def connected(self) -> bool:
        """True while there is a connection."""
        return self._line.link is not None and self._line.link.reason is None

    @property
    def closed(self) -> bool:
        """True once nothing can be sent any more, now or later."""
        return self._line.reason is not None

    @property
    def pending(self) -> int:
        """Commands that await results."""
        return 0 if self._line.link is None else len(self._line.link.waiting)

    @property
    def next_seq(self) -> int:
        """The number of the next command, for a successor of this client."""
        return self._line.next_seq

    async def wait_closed(self) -> CmdStreamError:
        """Wait until the client is closed, by whichever side, and tell why.

        One that reconnects is closed by `aclose`, by another ServerInfo, or when it
        gives up.

        Cancellation: safe.
        """
        return await self._line.wait_closed()

    async def aclose(self) -> None:
        """Send what is written, hang up, and fail what is pending. Idempotent.

        Cancellation: the connection closes by itself, if need be by force.
        """
        self._line.close(ConnectionClosedError("the client was closed"))
        await self._line.wait_closed()
