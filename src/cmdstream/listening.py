"""Listening sockets: made, accepted from, and outlived when accepting fails.

asyncio's own servers are not used, for three reasons. Where it has no file descriptor
left, it reports that a hundred times a second per socket (CPython goes on with its
batch after the first failure). Where the socket is broken, it tries again in every turn
of the loop. And nobody is told of a TLS handshake that fails, or that is going on, so
these could be neither logged nor counted. Here:

    accepted                        handed to the server, which counts from here on
    no descriptor, no memory, ...   noted once; tried again every `RETRY_S`
    the socket itself is broken     noted once; it is closed, and the others go on
"""

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress

from cmdstream.serving import logger
from cmdstream.transport import describe

__all__ = ["RETRY_S", "Listener", "bind_tcp", "bind_unix"]

RETRY_S = 0.25
"""Seconds between attempts to accept while the machine has no room for a client."""

_BACKLOG = 1024  # clients that the kernel keeps for us; a restart brings all at once
_ACCEPTS_PER_TURN = 64  # so that a storm of clients leaves turns to those who are in

# A machine that vanished says nothing. These ask it after 15 s without a byte, as Go's
# servers do, and take it for gone after four questions. What a socket listens with, the
# accepted ones have, too.
_KEEPALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 15),  # seconds
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),  # seconds
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)

_BROKEN = {errno.EBADF, errno.EINVAL, errno.ENOTSOCK}
_NO_SUCH_FAMILY = {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}


class Listener:
    """One listening socket, which it owns, and what is done with its clients.

    Attributes:
        address: Host and port, or the path of a unix socket.
    """

    def __init__(
        self,
        sock: socket.socket,
        accepted: Callable[[socket.socket, str], None],
        broken: Callable[["Listener"], None],
    ) -> None:
        """Begin to accept, from the next turn of the loop.

        Args:
            sock: Bound and listening.
            accepted: Takes each client's socket, and who it is.
            broken: Called if the socket is of no use any more.
        """
        name = sock.getsockname()
        self.address: tuple[str, int] | str = (
            (name[0], name[1]) if isinstance(name, tuple) else os.fsdecode(name)
        )
        self._socket = sock
        # Kept: a socket that somebody else closed does not know its number any more.
        self._descriptor = sock.fileno()
        self._accepted = accepted
        self._broken = broken
        self._loop = asyncio.get_running_loop()
        self._retry: asyncio.TimerHandle | None = None
        self._is_failing = False
        sock.setblocking(False)
        self._listen()

    def close(self) -> None:
        """Accept nobody any more. Idempotent."""
        self._loop.remove_reader(self._descriptor)
        if self._retry is not None:
            self._retry.cancel()
        self._socket.close()

    def _listen(self) -> None:
        self._retry = None
        self._loop.add_reader(self._descriptor, self._accept)

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_TURN):
            try:
                sock, name = self._socket.accept()
            except (BlockingIOError, InterruptedError):
                if self._is_failing:
                    self._is_failing = False
                    logger.warning("accepting clients on %s again", self.address)
                return
            except ConnectionAbortedError:
                continue  # it has left while it waited
            except OSError as error:
                self._cannot_accept(error)
                return
            self._accepted(sock, describe(name))

    def _cannot_accept(self, error: OSError) -> None:
        if error.errno in _BROKEN:
            logger.error("no longer listening on %s: %s", self.address, error)
            self.close()
            self._broken(self)
            return
        # The client stays in the kernel's queue, and the socket readable: to look again
        # at once would keep the loop from those whose leaving makes room.
        self._loop.remove_reader(self._descriptor)
        self._retry = self._loop.call_later(RETRY_S, self._listen)
        if not self._is_failing:
            self._is_failing = True
            logger.warning(
                "cannot accept clients on %s: %s; trying again every %s s",
                self.address,
                error,
                RETRY_S,
            )


async def bind_tcp(host: str, port: int) -> list[socket.socket]:
    """Make the listening sockets of *host*: one for each of its addresses.

    Args:
        host: Name or address; empty for all addresses of this machine.
        port: 0 for any free one, another for each address.

    Raises:
        OSError: An address cannot be had, or there is none.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    sockets: list[socket.socket] = []
    absent = OSError(f"{host!r} has no address")
    try:
        for family, _, _, _, address in dict.fromkeys(found):
            try:
                sock = socket.create_server(address, family=family, backlog=_BACKLOG)
            except OSError as error:
                # A container's "localhost" may name ::1 although it has no IPv6.
                if error.errno not in _NO_SUCH_FAMILY:
                    raise
                absent = error
                continue
            sockets.append(sock)
            for level, option, value in _KEEPALIVE:
                sock.setsockopt(level, option, value)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    if not sockets:
        raise absent
    return sockets


def bind_unix(path: str) -> socket.socket:
    """Make a listening unix socket at *path*, in the place of one that is there.

    Raises:
        OSError: The path cannot be had.
    """
    if not path.startswith("\0"):  # which is in no folder
        with suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode):  # noqa: PTH116 -- text, as given
                os.unlink(path)  # noqa: PTH108
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(path)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        # One that is too long has neither number nor text of its own.
        number, text = error.errno or errno.EINVAL, error.strerror or str(error)
        raise OSError(number, f"{text} (at {path!r})") from None
    except BaseException:
        sock.close()
        raise
    return sock
