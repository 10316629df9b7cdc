"""The half of an asyncio connection that servers and clients share: writing and ending.

Writing. Frames are collected and handed to the transport in pieces of some kilobytes,
and at the end of each turn of the loop: a hundred results that become ready together
cost two or three system calls, and the peer works on the first while we go on with the
others. Sent all at once they would have it wait for us, and us for it, by turns.

While the peer reads too slowly the transport says so, `Link.writable` is false, and
`Link.drained` waits; nobody is forced to wait, so there is also a hard limit, and a
time limit, after which the peer is dropped: memory must not depend on a peer's
goodwill.

Ending. There is one way down, `Link._end`, which notes the first reason and no later
one:

    open ── close(reason) ──► closing: flushes, reads nothing ── flushed ──► closed
      │                           └── close_timeout_s passes ── abort ──────► closed
      ├── abort(reason) ────────────────────────────────────────────────────► closed
      └── the peer closes, or the network fails ────────────────────────────► closed
"""

import asyncio
import ssl
import threading
from collections.abc import Callable
from typing import Any, cast

import msgspec

from cmdstream.errors import CmdStreamError, ConnectionClosedError

__all__ = ["Link", "LinkOptions", "describe"]

_PIECE_SIZE = 4 * 1024  # bytes; so many are sent at once: the peer can begin on them
_BURST_SIZE = 64 * 1024  # bytes that are written in one turn; then others have one
_RECEIVE_SIZE = 256 * 1024  # bytes at once


class _Received(threading.local):
    """Where the connections of a thread's loop receive, one after the other.

    What arrives is copied out before anybody else receives. asyncio would allocate as
    much for each read, and give nearly all of it back.
    """

    def __init__(self) -> None:
        self.buffer = bytearray(_RECEIVE_SIZE)


_RECEIVED = _Received()


class LinkOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of one connection's writing and ending."""

    unsent_high_size: int = 256 * 1024
    """Bytes that wait to be sent, above which senders wait and reading stops."""
    unsent_size_max: int = 64 * 1024 * 1024
    """Bytes that wait to be sent, above which the peer is dropped. Reached only by
    senders that do not wait; must leave room for some of the largest frames."""
    write_stall_timeout_s: float | None = 60.0
    """Seconds a peer may leave the bytes above `unsent_high_size`; None: for ever."""
    close_timeout_s: float = 5.0
    """Seconds that a closing connection may take to flush before it is cut."""


class Link(asyncio.BufferedProtocol):
    """One connection. Subclasses add what is done with the bytes that arrive."""

    def __init__(self, options: LinkOptions) -> None:
        self._loop = asyncio.get_running_loop()
        self._link_options = options
        self._transport: asyncio.Transport | None = None
        self._received = memoryview(_RECEIVED.buffer)
        self._unsent: list[bytes] = []
        self._unsent_size = 0
        self._turn_is_on = False
        self._written_size = 0  # in this turn
        self._waiters: list[asyncio.Future[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self.reason: CmdStreamError | None = None
        """Why the connection is closing or closed; None while it is open."""
        self._closed: asyncio.Future[None] = self._loop.create_future()
        self._owes_turn = False
        self.writable = True
        self.ready = False
        """True while it is open and writable: what is sent now is on its way."""
        self.peer = "?"
        """Who is at the other end, for logs."""

    def write(self, data: bytes) -> None:
        """Send *data* with what else is sent in this turn; dropped once closing."""
        if self.reason is not None:
            return
        self._unsent.append(data)
        self._unsent_size += len(data)
        if not self._turn_is_on:
            self._turn_is_on = True
            self._loop.call_soon(self._end_turn)
        if self._unsent_size >= _PIECE_SIZE:
            self._send_piece()

    @property
    def must_wait(self) -> bool:
        """True if a considerate sender awaits `drained` before it goes on.

        Not only because of the peer: one that reads fast would let an endless sender
        keep the loop from everybody else, as nothing ever made it wait.
        """
        return self._owes_turn or not self.writable

    async def drained(self) -> None:
        """Wait until the peer has taken enough, or the connection is closing.

        Cancellation: safe; nothing was promised.
        """
        if self._owes_turn:
            self._owes_turn = False
            await asyncio.sleep(0)  # one turn of the loop
        while not self.writable and self.reason is None:
            waiter = self._loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def close(self, reason: CmdStreamError, *, notable: bool = False) -> None:
        """Send what is written so far and hang up. Does nothing the second time.

        Args:
            reason: The first one is kept; see `reason`.
            notable: Somebody should read about it in the log.
        """
        if self.reason is not None:
            return
        self._flush()
        self._end(reason, notable=notable)
        if self._transport is not None:
            self._transport.close()
            self._restart_timer(self._link_options.close_timeout_s, self._cut)

    def abort(self, reason: CmdStreamError, *, notable: bool = False) -> None:
        """Hang up at once; what is not sent is lost. Also ends a slow `close`."""
        self._end(reason, notable=notable)
        self._cut()

    def data_received(self, data: bytes) -> None:
        """Take in *data*. For subclasses."""

    def ended(self, reason: CmdStreamError, *, notable: bool) -> None:
        """Take note that nothing more is read or written. For subclasses; once."""

    def gone(self) -> None:
        """Take note that the socket is closed. For subclasses; called once, last."""

    def writable_again(self) -> None:
        """Take note that the peer reads again. For subclasses."""

    async def wait_closed(self) -> None:
        """Wait until the connection is gone and its socket closed.

        Cancellation: safe.
        """
        await asyncio.shield(self._closed)

    # asyncio calls the rest.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        # A cast: to be one, a transport need not be a subclass. uvloop's are not.
        self._transport = cast("asyncio.Transport", transport)
        self.ready = True
        self.peer = describe(transport.get_extra_info("peername"))
        high = self._link_options.unsent_high_size
        self._transport.set_write_buffer_limits(high=high)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Say where to receive."""
        return self._received

    def buffer_updated(self, nbytes: int) -> None:
        """Take out what was received."""
        self.data_received(bytes(self._received[:nbytes]))

    def pause_writing(self) -> None:
        """Hold the senders: too much is unsent."""
        self.writable = self.ready = False
        if self.reason is None and self._link_options.write_stall_timeout_s is not None:
            self._restart_timer(
                self._link_options.write_stall_timeout_s, self._drop_stalled
            )

    def resume_writing(self) -> None:
        """Release the senders."""
        self.writable = True
        if self.reason is None:
            self.ready = True
            self._stop_timer()
            self._wake_waiters()
            self.writable_again()

    def connection_lost(self, exc: Exception | None) -> None:
        """End: the socket is closed, by whichever side."""
        self._stop_timer()
        if exc is None:
            self._end(ConnectionClosedError("the peer closed the connection"))
        else:
            error = ConnectionClosedError(f"connection lost: {exc}")
            # Bytes that do not decrypt are no accident: TCP has checked them. Where in
            # asyncio they were found out says nothing.
            is_hostile = isinstance(exc, ssl.SSLError)
            error.__cause__ = None if is_hostile else exc
            self._end(error, notable=is_hostile)
        self._transport = None
        self._closed.set_result(None)
        self.gone()

    def _end(self, reason: CmdStreamError, *, notable: bool = False) -> None:
        if self.reason is None:
            self.reason = reason
            self.ready = False
            self._unsent.clear()
            self._wake_waiters()
            self.ended(reason, notable=notable)

    def _end_turn(self) -> None:
        self._turn_is_on = False
        self._written_size = 0
        self._flush()

    def _send_piece(self) -> None:
        self._written_size += self._unsent_size
        if self._written_size >= _BURST_SIZE:
            self._owes_turn = True
        self._flush()

    def _flush(self) -> None:
        if not self._unsent or self._transport is None:
            return
        unsent, self._unsent, self._unsent_size = self._unsent, [], 0
        self._transport.write(unsent[0] if len(unsent) == 1 else b"".join(unsent))
        waiting = self._transport.get_write_buffer_size()
        if waiting > self._link_options.unsent_size_max:
            self.abort(
                ConnectionClosedError(
                    f"the peer reads too slowly: {waiting} bytes wait to be sent, "
                    f"the limit is {self._link_options.unsent_size_max}"
                ),
                notable=True,
            )

    def _drop_stalled(self) -> None:
        self.abort(
            ConnectionClosedError(
                "the peer reads too slowly: its buffer was full for "
                f"{self._link_options.write_stall_timeout_s} s"
            ),
            notable=True,
        )

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    def _restart_timer(self, delay_s: float, callback: Callable[[], None]) -> None:
        self._stop_timer()
        self._timer = self._loop.call_later(delay_s, callback)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def describe(name: Any) -> str:
    """Name a peer for logs, from its socket address."""
    if isinstance(name, tuple):
        return f"{name[0]}:{name[1]}"
    return str(name) if name else "unix socket"
