"""Keepalive: pings on a quiet connection, and the end of one that does not answer.

A connection is quiet while in one of the two directions nothing has moved for `idle_s`:
no command of ours (or the server's idle time-out strikes, though it streams to us), or
no byte of the server's (or we send into the void, and never notice).

    quiet, no ping out, `interval_s` since the last    a ping is sent
    ping out, a byte arrives                           it lives; the time begins anew
    ping out, nothing arrives for `pong_timeout_s`     the connection is dead: cut
    pong                                               no ping is out

Never more than one ping of ours is out, so a server that reads nothing is owed one
byte. Any byte is a sign of life, not the pong alone: results that were sent first
arrive first. But a server that holds commands back, since it has too many in flight or
its gate is closed, reads no pings behind them: `pong_timeout_s` has to be longer than
it may do so in silence.

In Go every ping leaves a write deadline on the socket, which fails a later command
(W-C2), and nobody looks for the pong (W-C7). Here nothing is set on the socket, and the
cost is one timer for each connection: nothing is done per command but to note the time.
"""

import asyncio
import math

import msgspec

from cmdstream.calling import ClientLink, Unexpected, Waiter, retire
from cmdstream.codec import Codec
from cmdstream.errors import CmdStreamError, ConnectionClosedError
from cmdstream.transport import LinkOptions

__all__ = ["KeepaliveOptions", "WatchedLink"]


class KeepaliveOptions(msgspec.Struct, frozen=True, kw_only=True):
    """When to ping, and when to give up waiting for the pong."""

    idle_s: float = 3.0
    """Seconds without a command of ours, or without a byte of the server's, before the
    first ping; more than 0. Less than the server's idle time-out. Go's default."""
    interval_s: float = 1.0
    """Seconds between one ping and the next while the quiet lasts; more than 0."""
    pong_timeout_s: float = 10.0
    """Seconds without a byte behind a ping, after which the connection is dead; more
    than 0. Longer than the server may leave commands unread; infinity: never."""

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ValueError: A time is not more than 0.
        """
        if not (self.idle_s > 0 and self.interval_s > 0 and self.pong_timeout_s > 0):
            raise ValueError(f"keepalive needs times of more than 0 s, got {self}")


class WatchedLink(ClientLink):
    """A client's connection that is kept alive, from its greeting on."""

    def __init__(
        self,
        codec: Codec,
        server_info: bytes,
        options: LinkOptions,
        on_unexpected: Unexpected | None,
        next_seq: int,
        *,
        keepalive: KeepaliveOptions,
    ) -> None:
        super().__init__(codec, server_info, options, on_unexpected, next_seq)
        self._keepalive = keepalive
        self._commanded_at = self._heard_at = 0.0  # times of the loop
        self._pinged_at = -math.inf
        self._pong: asyncio.Future[None] | None = None
        self._watch: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Begin; the server has greeted. Nothing if it has left since."""
        if self.reason is None:
            self._commanded_at = self._heard_at = self._loop.time()
            self._look()

    def send_command(self, command: object, waiter: Waiter) -> tuple[int, int]:
        """Note the time."""
        self._commanded_at = self._loop.time()
        return super().send_command(command, waiter)

    def data_received(self, data: bytes) -> None:
        """Note the time."""
        self._heard_at = self._loop.time()
        super().data_received(data)

    def ended(self, reason: CmdStreamError, *, notable: bool) -> None:
        """Stop watching."""
        super().ended(reason, notable=notable)
        if self._watch is not None:
            self._watch.cancel()
        if self._pong is not None:
            retire(self._pong)

    def _look(self) -> None:
        """Ping, or give up, or neither; and look again when one of them may be due."""
        options, now_s = self._keepalive, self._loop.time()
        if self._pong is None or self._pong.done():
            quiet_since_s = min(self._commanded_at, self._heard_at)
            due_s = max(
                quiet_since_s + options.idle_s, self._pinged_at + options.interval_s
            )
            if now_s < due_s:
                self._watch = self._loop.call_at(due_s, self._look)
                return
            self._pong = self.send_ping()
            self._pinged_at = now_s
        dead_s = max(self._pinged_at, self._heard_at) + options.pong_timeout_s
        if now_s >= dead_s:
            self.abort(
                ConnectionClosedError(
                    f"the server gave no sign of life for {options.pong_timeout_s} s"
                )
            )
            return
        # Not only when it is dead: the pong may come, and the next ping be due.
        look_s = min(now_s + options.interval_s, dead_s)
        self._watch = self._loop.call_at(look_s, self._look)
