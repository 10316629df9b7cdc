"""One client as the server sees it: its commands go to the handler, in what measure.

A command is held back, and with it everything the client sends behind it, while

* the client does not read its results (`Link.writable` is false), or
* it has `in_flight_per_connection_max` commands running, or
* the server as a whole may not start one: `Admission` says so.

Held back means: one decoded command is kept, the transport is told to read no more, and
TCP does the rest. Pings in front of a held command are answered, those behind it wait
with it; so a client that only pings is answered even while the gate is closed.

What one read brings may be a quarter of a million pings. After `_EVENTS_PER_TURN` of
them, or of commands, the others on the loop have a turn.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Protocol

import msgspec

from cmdstream.codec import Codec
from cmdstream.errors import (
    CmdStreamError,
    ConnectionClosedError,
    LocalProtocolError,
    RemoteProtocolError,
)
from cmdstream.messages import CommandReceived
from cmdstream.protocol import SERVER_INFO_DEFAULT, ServerConnection
from cmdstream.transport import Link, LinkOptions

__all__ = [
    "Admission",
    "Failure",
    "Handler",
    "Reply",
    "ServedClient",
    "ServerOptions",
    "Service",
]

logger = logging.getLogger("cmdstream.server")

_EVENTS_PER_TURN = 1024  # some milliseconds, if the handler answers at once
_CLIENT_HELLO = b"\x16\x03"  # what TLS begins with; a seq of 22 and a tag of 3 may, too


class ServerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of a server. All are on by default but the two that need a choice."""

    server_info: bytes = SERVER_INFO_DEFAULT
    """What clients compare with their own; put the version of your schema into it."""
    connections_max: int = 4096
    """Clients at a time, those included that are in the middle of a TLS handshake; one
    more is hung up on at once. Mind the file descriptors; and with TLS the memory, of
    which asyncio takes 256 KiB for each of them to read into."""
    tls_handshake_timeout_s: float = 10.0
    """Seconds that a client may take for its TLS handshake."""
    in_flight_max: int = 16_384
    """Commands running at a time, in all. At the limit no client is read from."""
    in_flight_per_connection_max: int = 4096
    """Commands running at a time for one client, so that it leaves room for others."""
    first_frame_timeout_s: float | None = None
    """Seconds in which a new client has to send something whole, from its connection or
    TLS handshake on. Off by default, since a pool of Go clients connects long before it
    sends."""
    idle_timeout_s: float | None = None
    """Seconds after which a client is hung up on that has sent nothing whole, or takes
    that long over one frame, while nothing runs for it and it is not we who make it
    wait. Off by default: a Go client without keepalive is silent between its commands.
    Where they keep alive, they ping every second."""
    link: LinkOptions = LinkOptions()
    """The bounds of writing to one client."""


class Admission(Protocol):
    """What a client's connection asks of its server."""

    def joined(self, client: "ServedClient") -> bool:
        """Take in a new client; or hang up on it and return False."""
        ...

    def left(self, client: "ServedClient") -> None:
        """Take note that the socket of *client* is closed."""
        ...

    def admit(self, client: "ServedClient") -> bool:
        """Take a slot for one command; or queue *client* to be woken, and say False."""
        ...

    def withdraw(self, client: "ServedClient") -> None:
        """Take *client* out of the queue, if it is there."""
        ...

    def release(self) -> None:
        """Give a slot back, and wake a client that waits for one."""
        ...

    def wake_next(self) -> None:
        """Wake one more client if there is room, unless one has been woken."""
        ...

    def turn_over(self) -> None:
        """Take note that the woken client started what it could, or is gone.

        Wakes the next: so one call of `wake_next` starts a chain that ends only when
        the room or the queue does, and a freed slot cannot be lost with the client that
        it woke.
        """
        ...


class Reply(msgspec.Struct, eq=False):
    """The way back to the client for one command. May be kept and used later.

    The command's in-flight slot is held until the reply is finished: by a last result,
    by `finish` or by `fail`. That goes for a client that has left, too; results for it
    are dropped without an error, so that work which must go on can go on.

    """

    _client: "ServedClient"
    seq: int
    """The client's number for the command."""
    received_at_s: float
    """When its last bytes arrived, by the loop's clock: what a deadline counts from."""
    finished: bool = False
    """True once nothing more may be sent."""

    def __repr__(self) -> str:
        state = "finished" if self.finished else "closed" if self.closed else "open"
        return f"<Reply {state} seq={self.seq} peer={self.peer}>"

    @property
    def closed(self) -> bool:
        """True once the client is gone and results are dropped."""
        return self._client.reason is not None

    @property
    def peer(self) -> str:
        """Who asked, for logs."""
        return self._client.peer

    def send_nowait(self, result: object) -> None:
        """Send *result*; the reply is finished if it is the last by its type's rule.

        What the client does not read in time is buffered; beyond the limit of
        `LinkOptions.unsent_size_max` the client is dropped. `send` waits instead.

        Raises:
            EncodeError: *result* cannot be sent. Nothing was, and the reply is as open
                as before: another result may be sent, or `fail` called.
            LocalProtocolError: The reply is finished.
        """
        if self.finished:
            raise self.too_late()
        if self._client.send_result(self.seq, result):
            self.finish()

    def too_late(self) -> LocalProtocolError:
        """Make what is raised where something is sent by a reply that is finished."""
        return LocalProtocolError(
            f"a result after the last one: seq {self.seq}, {self.peer}"
        )

    async def send(self, result: object) -> None:
        """Send *result*, and wait while the client has too much unread.

        Cancellation: *result* is sent all the same; only the waiting ends.

        Raises:
            EncodeError: As `send_nowait`.
            LocalProtocolError: As `send_nowait`.
        """
        self.send_nowait(result)
        if self._client.must_wait:
            await self._client.drained()

    def finish(self) -> None:
        """Free the slot without sending anything more. Does nothing the second time.

        If no last result was sent, the client waits on: only for a client that is known
        not to, because it has asked again, or has left.
        """
        if not self.finished:
            self.finished = True
            self._client.command_finished(self)

    def when_closed(self, leave: Callable[[], None]) -> None:
        """Call *leave* as soon as `closed`, unless the reply is finished before.

        For work that has not begun and need not, if nobody waits for it. Not called if
        the client is gone already.
        """
        self._client.when_closed[self] = leave

    def fail(self, reason: str, error: BaseException | None = None) -> None:
        """Give up on the command: log *reason*, and let the client know.

        By the server's failure result, if it has one (`Server`). Else by hanging up:
        the protocol has no other word. The client's other commands run on then, and
        what they send is dropped.

        Args:
            reason: What happened, for the log and the failure result.
            error: Its traceback is logged.
        """
        self._client.fail_command(self, reason, error)


Handler = Callable[[CommandReceived, Reply], None]
"""Called for each command as it arrives, on the loop; must not block. An exception
fails the command, see `Reply.fail`."""

Failure = Callable[..., object]
"""Makes a registered result of ``reason=``, a text; a class with that field does it."""


class Service(msgspec.Struct, frozen=True):
    """What all clients of a server have in common."""

    codec: Codec
    handler: Handler
    options: ServerOptions
    failure: Failure | None
    new_reply: Callable[["ServedClient", int, float], Reply] = Reply


class ServedClient(Link):
    """The connection of one client."""

    def __init__(self, service: Service, admission: Admission) -> None:
        super().__init__(service.options.link)
        self.in_flight = 0
        self.when_closed: dict[Reply, Callable[[], None]] = {}
        self._codec = service.codec
        self._handler = service.handler
        self._new_reply = service.new_reply
        self._admission = admission
        self._options = service.options
        self._failure = service.failure
        self._core = ServerConnection(
            service.codec, server_info=service.options.server_info
        )
        self._held: CommandReceived | None = None
        self._waits_for_own_slot = False
        self._joined_at = 0.0  # loop time, as are the next two
        self._alive_at = 0.0  # the last sign of life; only where silence is limited
        self._received_at = 0.0
        self._has_framed = False  # since it was set so; something whole arrived
        self._has_spoken = False  # something whole arrived, ever
        self._speaks_tls = False  # by the look of its first bytes
        self._watch: asyncio.TimerHandle | None = None

    def send_result(self, seq: int, result: object) -> bool:
        """Send *result*, if the client is there; tell whether it is the last."""
        is_last = self._codec.is_last(result)
        if self.reason is None:
            self.write(self._core.send_result(seq, result))
        return is_last

    def send_measured(self, seq: int, result: object) -> tuple[bool, int]:
        """As `send_result`; with the size of the frame, 0 if it was dropped."""
        is_last = self._codec.is_last(result)
        if self.reason is not None:
            return is_last, 0
        frame = self._core.send_result(seq, result)
        self.write(frame)
        return is_last, len(frame)

    def fail_command(
        self, reply: Reply, reason: str, error: BaseException | None
    ) -> None:
        """Finish *reply* with a failure result, or hang up; see `Reply.fail`."""
        reason = f"seq {reply.seq}: {reason}"
        if self.reason is not None:
            reply.finish()
            if error is not None:  # nobody else would ever hear of it
                logger.warning("%s has left, and %s", self.peer, reason, exc_info=error)
            return
        if self._failure is not None:
            # If it has its last result, only what came after that failed.
            problem = (
                ""
                if reply.finished
                else self._send_failure(self._failure, reply, reason)
            )
            if not problem:
                logger.warning(
                    "a command of %s failed: %s", self.peer, reason, exc_info=error
                )
                return
            reason += problem
        reply.finish()
        self.hang_up(reason, error)

    def _send_failure(self, failure: Failure, reply: Reply, reason: str) -> str:
        """Send what *failure* makes of *reason*; return why that did not do."""
        try:
            reply.send_nowait(failure(reason=reason))
        except Exception as error:  # noqa: BLE001 -- the user's class may do anything
            return f"; and the failure result can't be sent: {error!r}"
        return "" if reply.finished else "; and the failure result is not a last one"

    def command_finished(self, reply: Reply) -> None:
        """Free a slot, and go on with what was held back for want of one."""
        if self.when_closed:
            self.when_closed.pop(reply, None)
        self.in_flight -= 1
        if self._watch is not None:
            self._alive_at = self._loop.time()
        if self._waits_for_own_slot:
            self._waits_for_own_slot = False
            self._loop.call_soon(self._dispatch_held)
        self._admission.release()

    def wake(self) -> None:
        """Try the held command again, in the next turn."""
        self._loop.call_soon(self._dispatch_woken)

    def hang_up(self, reason: str, error: BaseException | None = None) -> None:
        """Close this connection for *reason*, which is logged, with *error*."""
        cause = ConnectionClosedError(reason)
        cause.__cause__ = error
        self.close(cause, notable=True)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet the client, or refuse it."""
        super().connection_made(transport)
        if not self._admission.joined(self):
            return
        self.write(self._core.greeting())
        self._joined_at = self._alive_at = self._loop.time()
        self._watch_over()

    def data_received(self, data: bytes) -> None:
        """Take in what arrived and start what may be started."""
        if self.reason is not None:
            return
        self._received_at = self._loop.time()
        # The first byte of a frame is a sign of life, and so is the last. Those between
        # are not: who sends one a second has no more to say than who sends none.
        begins = self._core.is_between_frames
        if not self._has_spoken and begins:
            self._speaks_tls = data.startswith(_CLIENT_HELLO)
        self._core.receive_data(data)
        self._has_framed = False
        self._dispatch()
        if self._has_framed:
            self._has_spoken = True
            self._alive_at = self._received_at
        elif begins:
            self._alive_at = self._received_at

    def eof_received(self) -> None:
        """Note a client that stops in the middle; asyncio then closes the socket."""
        if self.reason is None and self._held is None:
            try:
                self._core.receive_eof()
            except RemoteProtocolError as error:
                self.hang_up(str(error))

    def writable_again(self) -> None:
        """Go on with the commands of a client that reads its results again."""
        self._alive_at = self._loop.time()
        self._dispatch()

    def ended(self, reason: CmdStreamError, *, notable: bool) -> None:
        """Forget what was held back, and log why."""
        self._held = None
        self._waits_for_own_slot = False
        self._admission.withdraw(self)
        if self._watch is not None:
            self._watch.cancel()
        leaving, self.when_closed = self.when_closed, {}
        for reply, leave in leaving.items():
            if not reply.finished:  # by what another of them did
                self._call(leave)
        if notable:
            logger.warning(
                "hung up on %s: %s", self.peer, reason, exc_info=reason.__cause__
            )
        else:
            logger.debug("%s is gone: %s", self.peer, reason)

    def gone(self) -> None:
        """Tell the server that the socket is closed."""
        self._admission.left(self)

    def _call(self, leave: Callable[[], None]) -> None:
        try:
            leave()
        except Exception:
            # Whatever it is, the connection has to be put down to its end.
            logger.exception("what to do when %s leaves failed", self.peer)

    def _dispatch_woken(self) -> None:
        self._dispatch_held()
        self._admission.turn_over()

    def _dispatch_held(self) -> None:
        if self._held is not None:
            self._dispatch()

    def _dispatch_rest(self) -> None:
        if self.reason is None:
            self._dispatch()

    def _dispatch(self) -> None:
        """Start commands until there is none, or none may be started."""
        assert self._transport is not None
        try:
            drained = self._start_all()
        except RemoteProtocolError as error:
            hint = ""
            if self._speaks_tls and not self._has_spoken:
                hint = " (it looks like TLS, which is not spoken here)"
            self.hang_up(f"{error}{hint}")
        except Exception as error:  # noqa: BLE001 -- a codec's bug ends one connection
            self.hang_up(f"{type(error).__name__} while decoding", error)
        else:
            if self.reason is not None:
                return
            if drained:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _start_all(self) -> bool:
        """Start what may be started; True if all that has arrived was dealt with."""
        for _ in range(_EVENTS_PER_TURN):
            if self.reason is not None or not self.writable:
                return False
            event = self._held or self._core.next_event()
            if event is None:
                return True
            self._has_framed = True
            if not isinstance(event, CommandReceived):
                self.write(self._core.send_pong())
            elif self._may_start():
                self._held = None
                self._start(event)
            else:
                self._held = event
                return False
        self._loop.call_soon(self._dispatch_rest)
        return False

    def _may_start(self) -> bool:
        if self.in_flight >= self._options.in_flight_per_connection_max:
            self._waits_for_own_slot = True
            return False
        return self._admission.admit(self)

    def _start(self, received: CommandReceived) -> None:
        self.in_flight += 1
        reply = self._new_reply(self, received.seq, self._received_at)
        try:
            self._handler(received, reply)
        except KeyboardInterrupt:
            raise  # the one exception that is not of the command
        except BaseException as error:  # noqa: BLE001 -- also a SystemExit ends no others
            reply.fail(f"{type(error).__name__} in the handler: {error}", error)

    def _watch_over(self) -> None:
        """Hang up on a client that has been silent too long; else look again later."""
        self._watch = None
        timeout_s, since = self._options.first_frame_timeout_s, self._joined_at
        if self._has_spoken or timeout_s is None:
            timeout_s, since = self._options.idle_timeout_s, self._alive_at
        if timeout_s is None:
            return
        # It is not silent if it is we who work, who do not read, or who it reads from.
        busy = self.in_flight > 0 or self._held is not None or not self.writable
        left_s = timeout_s - (0 if busy else self._loop.time() - since)
        if left_s <= 0:
            self.hang_up(f"no whole frame for {timeout_s} s")
        else:
            if not self._has_spoken and self._options.idle_timeout_s is not None:
                left_s = min(left_s, self._options.idle_timeout_s)  # for when it has
            self._watch = self._loop.call_later(left_s, self._watch_over)
