"""Making one connection: to the socket, through TLS, up to the right greeting.

    TCP or unix socket       connect_timeout_s          ConnectError
    TLS handshake            tls_handshake_timeout_s    ConnectError
    the server's ServerInfo  server_info_timeout_s      ConnectError
      another one                                       ServerInfoMismatchError
      none that could be one                            RemoteProtocolError

Every way out but success leaves no socket open (W-C10), and each step is bounded by
default (W-C11).
"""

import asyncio
import ssl
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from cmdstream.backoff import ReconnectOptions
from cmdstream.calling import ClientLink, Unexpected
from cmdstream.codec import Codec
from cmdstream.errors import ConnectError, ConnectionClosedError
from cmdstream.keepalive import KeepaliveOptions, WatchedLink
from cmdstream.protocol import SERVER_INFO_DEFAULT
from cmdstream.tls import handshake_failure
from cmdstream.transport import LinkOptions

__all__ = ["Address", "ClientOptions", "Dialer"]

Address: TypeAlias = tuple[str, int] | str
"""A host and its TCP port, or the path of a unix socket."""


class ClientOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a client, and what it does beyond sending."""

    server_info: bytes = SERVER_INFO_DEFAULT
    """What the server must announce; anything else ends the connection."""
    connect_timeout_s: float = 10.0
    """Seconds for the connection to be made."""
    tls_handshake_timeout_s: float = 10.0
    """Seconds for the handshake of TLS."""
    tls_server_name: str | None = None
    """The name that the server's certificate has to have. None: the host's."""
    server_info_timeout_s: float = 10.0
    """Seconds for the server's greeting. A full Go server accepts and stays silent."""
    stream_results_max: int = 16_384
    """Results of one stream that may wait for their reader. One more, after a turn of
    the loop in which the reader could have taken some, ends the stream: waiting longer
    would stall every other command of the connection."""
    keepalive: KeepaliveOptions | None = None
    """When to ping a quiet connection, and when to take it for dead. None: never."""
    reconnect: ReconnectOptions | None = None
    """How to come back once the connection is lost. None: the client ends with it."""
    link: LinkOptions = LinkOptions()
    """The bounds of writing."""


@dataclass(frozen=True)
class Dialer:
    """Makes the connections of one client."""

    address: Address
    codec: Codec
    options: ClientOptions
    tls: ssl.SSLContext | None
    on_unexpected: Unexpected | None

    def __str__(self) -> str:
        if isinstance(self.address, str):
            return self.address
        return f"{self.address[0]}:{self.address[1]}"

    async def dial(self, next_seq: int) -> ClientLink:
        """Make a connection, and see that it is the server we expect.

        Args:
            next_seq: The number of its first command.

        Raises:
            ConnectError: There is no connection, or no greeting.
            RemoteProtocolError: The greeting is not one.
            ServerInfoMismatchError: The server is another one; do not try again.

        Cancellation: safe; nothing is left open.
        """
        limit_s = self.options.connect_timeout_s
        if self.tls is not None:
            limit_s += self.options.tls_handshake_timeout_s
        try:
            async with asyncio.timeout(limit_s):
                link = await self._connect(next_seq)
        except TimeoutError as error:
            raise ConnectError(f"cannot connect to {self} in time") from error
        except OSError as error:
            why = handshake_failure(error)
            raise ConnectError(f"cannot connect to {self}: {why}") from error
        await self._be_greeted(link)
        if isinstance(link, WatchedLink):
            link.watch()
        return link

    async def _connect(self, next_seq: int) -> ClientLink:
        options = self.options

        def make_link() -> ClientLink:
            arguments = (
                self.codec,
                options.server_info,
                options.link,
                self.on_unexpected,
                next_seq,
            )
            if options.keepalive is None:
                return ClientLink(*arguments)
            return WatchedLink(*arguments, keepalive=options.keepalive)

        loop = asyncio.get_running_loop()
        name = options.tls_server_name if self.tls is not None else None
        tls_handshake_timeout_s = (
            options.tls_handshake_timeout_s if self.tls is not None else None
        )
        if isinstance(self.address, str):
            _, link = await loop.create_unix_connection(
                make_link,
                self.address,
                ssl=self.tls,
                server_hostname=name,
                ssl_handshake_timeout=tls_handshake_timeout_s,
            )
        else:
            _, link = await loop.create_connection(
                make_link,
                *self.address,
                ssl=self.tls,
                server_hostname=name,
                ssl_handshake_timeout=tls_handshake_timeout_s,
            )
        return link

    async def _be_greeted(self, link: ClientLink) -> None:
        """Wait for the greeting, and leave nothing open if it is not the right one."""
        timeout_s = self.options.server_info_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                await link.greeted
        except TimeoutError as error:
            reason = ConnectError(f"{self} sent no server info within {timeout_s} s")
            link.abort(reason)
            await link.wait_closed()
            raise reason from error
        except asyncio.CancelledError:
            link.abort(ConnectionClosedError("connecting was cancelled"))
            raise
        if (ended := link.reason) is not None:
            await link.wait_closed()
            if isinstance(ended, ConnectionClosedError):
                raise ConnectError(f"{self} sent no server info: {ended}") from ended
            raise ended
