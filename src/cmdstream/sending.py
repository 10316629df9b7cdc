"""Sending: one command, from the wait for a connection to its last result.

    wait for a connection with room    ends at `timeout_s`: nothing was sent
    number, enter and write it         in one step; see `calling.ClientLink`
    wait for results                   ends at `timeout_s`: forgotten, may have run

The time-out is a timer that fails the one who waits, and nothing else: no deadline is
set on the socket, so no later send can meet it (W-C1). It is an error of its own; a
sender that is cancelled sees its cancellation (W-D2). A time that is over before the
command is sent means that it is not.

A send without time-out and hooks goes the short way, `Sender.send` alone.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Protocol, Self

from cmdstream.calling import ClientLink, ResultQueue, Waiter, fail, retire
from cmdstream.errors import LocalProtocolError, SendTimeoutError
from cmdstream.hooks import CommandSent, HookFactory, Layers
from cmdstream.messages import ResultReceived

__all__ = ["LinkSource", "ResultStream", "Sender"]


class LinkSource(Protocol):
    """Where a sender gets its connection from, anew for each command."""

    @property
    def link(self) -> ClientLink | None:
        """One that may be `ready`. Read once for each command."""
        ...

    async def living(self) -> ClientLink:
        """Wait for a connection that lives and has room, and return it.

        Raises:
            ConnectionClosedError: There will be none.
        """
        ...

    def obstacle(self) -> str:
        """Say why there is none, for people."""
        ...


class Sender:
    """What commands are sent with: a `Client`, or a `Group` of connections."""

    def __init__(
        self, source: LinkSource, hooks: Sequence[HookFactory], stream_results_max: int
    ) -> None:
        self._source = source
        self._hooks = tuple(hooks)
        self._stream_results_max = stream_results_max

    async def send(self, command: object, *, timeout_s: float | None = None) -> object:
        """Send *command* and return its one result.

        Waits first while there is no connection, if there is to be one again, and while
        the server reads too slowly. The command is sent once at most.

        Args:
            command: Of a type that the codec knows.
            timeout_s: Seconds for all of it.

        Raises:
            ConnectionClosedError: There is no connection and will be none, or it closes
                before the result arrives; `may_have_run` tells these apart.
            EncodeError: *command* cannot be sent. Nothing was.
            LocalProtocolError: The first result is not the last: `stream` is for that.
            RemoteProtocolError: The result did arrive and can't be read; so the command
                has run. The connection ends.
            SendTimeoutError: The time is over; see `may_have_run`, too.

        And whatever a hook raises.

        Cancellation: the command is forgotten, and may run. Later sends are unaffected.
        """
        if timeout_s is not None or self._hooks:
            return await self._send_guarded(command, timeout_s)
        link = self._source.link
        if link is None or not link.ready:
            link = await self._source.living()
        waiter = link.new_waiter()
        seq, _ = link.send_command(command, waiter)
        try:
            received = await waiter
        except BaseException:
            # If it was the sender who was cancelled; else both are done already.
            link.forget(seq)
            retire(waiter)
            raise
        return received.result if received.is_last else _only_result(command, received)

    def stream(
        self, command: object, *, timeout_s: float | None = None
    ) -> "ResultStream":
        """Prepare to send *command* and iterate over its results.

        It is sent when the iteration begins. An iteration that is left early should be
        closed, with ``async with`` or `ResultStream.aclose`, so that the results still
        to come are not kept for it.

        Args:
            command: Of a type that the codec knows.
            timeout_s: Seconds from the beginning of the iteration to the arrival of the
                last result, however long these then wait to be read. To bound each
                result instead: ``asyncio.timeout`` around ``anext``, which may then be
                called again.
        """
        queue = ResultQueue(self._stream_results_max)
        layers = Layers(self._hooks)
        exchange = _Exchange(self._source, layers, command, queue, timeout_s)
        return ResultStream(exchange, queue)

    async def ping(self, *, timeout_s: float | None = None) -> None:
        """Ask the server for a sign of life, and wait for it.

        Args:
            timeout_s: Seconds for all of it, the wait for a connection included.

        Raises:
            ConnectionClosedError: The connection is closed, or closes first.
            SendTimeoutError: There is no pong in time.

        Cancellation: safe; the pong will be taken for this ping all the same.
        """
        pong: asyncio.Future[None] | None = None
        try:
            async with asyncio.timeout(timeout_s):
                link = self._source.link
                if link is None or not link.ready:
                    link = await self._source.living()
                pong = link.send_ping()
                await pong
        except TimeoutError as error:
            why = "" if pong is not None else f": {self._source.obstacle()}"
            raise SendTimeoutError(
                f"no pong within {timeout_s} s{why}", may_have_run=False
            ) from error
        finally:
            if pong is not None:
                retire(pong)

    async def _send_guarded(self, command: object, timeout_s: float | None) -> object:
        """Send with a time-out, with hooks, or both."""
        waiter = asyncio.get_running_loop().create_future()
        layers = Layers(self._hooks)
        exchange = _Exchange(self._source, layers, command, waiter, timeout_s)
        try:
            await exchange.begin()
            received = await waiter
            layers.received(received)
            result = _only_result(command, received)
        except BaseException as error:
            exchange.end(error)
            raise
        finally:
            retire(waiter)
        problem = exchange.end(None)
        if problem is not None:
            raise problem
        return result


class ResultStream(AsyncIterator[object]):
    """The results of one command, in the order in which they were sent."""

    def __init__(self, exchange: "_Exchange", queue: ResultQueue) -> None:
        self._exchange = exchange
        self._queue = queue
        self._is_read = False
        self._is_over = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # A `for` that is left by `break` closes nothing. Its hooks have to hear of the
        # end all the same: a circuit breaker would wait for it for ever.
        self._leave()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> object:
        """Give the next result; the first call sends the command.

        Raises:
            ConnectionClosedError: The connection closed before the last result. Those
                that had arrived were given first.
            EncodeError: The command cannot be sent.
            LocalProtocolError: Another task reads the stream. It goes on.
            RemoteProtocolError: The next one did arrive and can't be read.
            ResultsOverflowError: Too many results were left waiting, see
                `ClientOptions.stream_results_max`.
            SendTimeoutError: The time is over. What had arrived was given first.
            StopAsyncIteration: The last result was given, or the stream is closed.

        And whatever a hook raises.

        Cancellation: safe; no result is lost, and the stream may be read on.
        """
        if self._is_over:
            raise StopAsyncIteration
        if self._is_read:
            raise LocalProtocolError("two tasks read the same stream")
        self._is_read = True
        try:
            if not self._exchange.is_sent:
                await self._exchange.begin()
            received = await self._queue.get()
            self._exchange.layers.received(received)
        except Exception as error:
            if self._is_over:  # closed by another task, meanwhile
                raise StopAsyncIteration from None
            self._is_over = True
            self._exchange.end(error)
            raise
        finally:
            self._is_read = False
        if received.is_last:
            self._is_over = True
            problem = self._exchange.end(None)
            if problem is not None:
                raise problem
        return received.result

    async def aclose(self) -> None:
        """Forget the command, if it is not over. The server is not told. Idempotent."""
        self._leave()

    def _leave(self) -> None:
        if not self._is_over:
            self._is_over = True
            left = asyncio.CancelledError("the stream was left")
            self._exchange.end(left)
            self._queue.fail(LocalProtocolError(str(left)))


class _Exchange:
    """One command on its way: its time, its hooks, and its place in the table."""

    def __init__(
        self,
        source: LinkSource,
        layers: Layers,
        command: object,
        waiter: Waiter,
        timeout_s: float | None,
    ) -> None:
        self.layers = layers
        self.is_sent = False
        self._source = source
        self._command = command
        self._waiter = waiter
        self._timeout_s = timeout_s
        self._deadline: float | None = None  # loop time, from the first `begin` on
        self._is_prepared = False
        self._is_ended = False
        self._link: ClientLink | None = None
        self._seq = 0
        self._timer: asyncio.TimerHandle | None = None

    async def begin(self) -> None:
        """Wait for a connection and send the command.

        Raises:
            LocalProtocolError: `end` was called meanwhile.
            SendTimeoutError: The time is over; nothing was sent.

        And see `Sender.send`.

        Cancellation: not sent. It may be called again, and goes on.
        """
        loop = asyncio.get_running_loop()
        if not self._is_prepared:
            self._is_prepared = True
            if self._timeout_s is not None:
                self._deadline = loop.time() + self._timeout_s
            self._command = self.layers.before(self._command)
        link = await self._link_in_time()
        if self._is_ended:
            raise LocalProtocolError("closed before the command was sent")
        self._seq, size = link.send_command(self._command, self._waiter)
        self._link, self.is_sent = link, True
        if self._deadline is not None:
            self._timer = loop.call_at(self._deadline, self._time_out)
        self.layers.sent(CommandSent(self._seq, size, link.peer))

    def end(self, error: BaseException | None) -> BaseException | None:
        """Forget the command and tell the hooks. The first call counts.

        Returns:
            What the sender is to see, see `Layers.ended`.
        """
        self._is_ended = True
        if self._timer is not None:
            self._timer.cancel()
        if self._link is not None:
            self._link.forget(self._seq)
        return self.layers.ended(error)

    async def _link_in_time(self) -> ClientLink:
        loop = asyncio.get_running_loop()
        # Also if there is a connection: who has no time left does not want it done. It
        # is "not less", since a time that is no number compares with none.
        if self._deadline is not None and not loop.time() < self._deadline:
            raise self._not_sent()
        if (link := self._source.link) is not None and link.ready:
            return link
        try:
            async with asyncio.timeout_at(self._deadline):
                return await self._source.living()
        except TimeoutError as error:
            raise self._not_sent() from error

    def _not_sent(self) -> SendTimeoutError:
        return SendTimeoutError(
            f"{type(self._command).__qualname__} was not sent within "
            f"{self._timeout_s} s: {self._source.obstacle()}",
            may_have_run=False,
        )

    def _time_out(self) -> None:
        assert self._link is not None
        self._link.forget(self._seq)
        error = SendTimeoutError(
            f"{type(self._command).__qualname__} has no last result after "
            f"{self._timeout_s} s; it may have run",
            may_have_run=True,
        )
        fail(self._waiter, error)


def _only_result(command: object, received: ResultReceived) -> object:
    if not received.is_last:
        raise LocalProtocolError(
            f"{type(command).__qualname__} has several results, the first being "
            f"{type(received.result).__qualname__}: use stream()"
        )
    return received.result
