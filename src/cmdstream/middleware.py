"""Functions around a handler: for tracing, metrics, access control, rate limits.

    def timed(received, reply, next):
        reply.watch(Timer(received))      # told of each result, and of the end
        next(received, reply)             # or not: then it has to answer by itself

    Server(codec, handler, middleware=[first, second])     # first is the outermost

They run on the loop, as each command arrives, and must not block. What they set in a
`contextvars` variable the handler sees, and so does the task of a `TaskHandler`, which
is made inside the call. A command may outlive the call for long, so its end is told to
watchers rather than by a return. An exception is one in the handler.

Pings are not shown: they are answered where they are read, and nothing is decided about
them. A server without middleware does nothing of what is here, for no command.
"""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

import msgspec

from cmdstream.messages import CommandReceived
from cmdstream.serving import Handler, Reply, logger

__all__ = ["Middleware", "ReplyWatcher", "WatchedReply", "surround"]


class ReplyWatcher(Protocol):
    """Is told what becomes of one command. What it raises is logged, and ends there."""

    def sent(self, result: object, size: int, *, is_last: bool) -> None:
        """Take note of a result, and of the bytes of its frame.

        None (0) if it was dropped because the client has left.
        """
        ...

    def ended(self, reason: str | None, error: BaseException | None) -> None:
        """Take note that nothing more will be sent; called once.

        Args:
            reason: Why the command failed, as in the log; None if it did not.
            error: What its handler raised, if that is why.
        """
        ...


class WatchedReply(Reply, eq=False):
    """The `Reply` that middleware sees."""

    _watchers: list[ReplyWatcher] = msgspec.field(default_factory=list[ReplyWatcher])
    _reason: str | None = None
    _error: BaseException | None = None

    def watch(self, watcher: ReplyWatcher) -> None:
        """Tell *watcher* what becomes of the command, from now on."""
        self._watchers.append(watcher)

    def send_nowait(self, result: object) -> None:
        """See `Reply.send_nowait`."""
        if self.finished:
            raise self.too_late()
        is_last, size = self._client.send_measured(self.seq, result)
        for watcher in self._watchers:
            try:
                watcher.sent(result, size, is_last=is_last)
            except Exception:  # noqa: BLE001 -- the user's class may do anything
                logger.exception("%r of seq %d failed", watcher, self.seq)
        if is_last:
            self.finish()

    def finish(self) -> None:
        """See `Reply.finish`."""
        if self.finished:
            return
        super().finish()
        for watcher in self._watchers:
            try:
                watcher.ended(self._reason, self._error)
            except Exception:  # noqa: BLE001 -- the user's class may do anything
                logger.exception("%r of seq %d failed", watcher, self.seq)

    def fail(self, reason: str, error: BaseException | None = None) -> None:
        """See `Reply.fail`."""
        if not self.finished:
            self._reason, self._error = reason, error
        super().fail(reason, error)


Middleware: TypeAlias = Callable[[CommandReceived, WatchedReply, Handler], None]


def surround(handler: Handler, middleware: Iterable[Middleware]) -> Handler:
    """Put *middleware* around *handler*, the first outermost."""
    for around in reversed(list(middleware)):
        handler = _bound(around, handler)
    return handler


def _bound(around: Middleware, inner: Handler) -> Handler:
    def call(received: CommandReceived, reply: Reply) -> None:
        assert isinstance(reply, WatchedReply)  # as the server makes them, then
        around(received, reply, inner)

    return call
