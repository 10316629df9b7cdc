"""The line to one server: the connection there is now, or the next one.

A connection lives once. A line is what lasts: it hands out the living connection, and
makes a new one when that ended, if it was told to.

                     open()                        the connection ends
        new ───────────────────────► up ◄─────────────────────────────────► down
         │  fails: to the caller      │            a try succeeds             │
         │                            │                                       │
         └── keep() ─► down           └────────────► closed ◄─────────────────┘
                                 aclose(); another ServerInfo; `tries_max`,
                                 `outage_max_s`; an end, without `ReconnectOptions`

    state    link                reason   a send
    -----    ----                ------   ------
    up       living              None     is written
    down     None, or ended      None     waits for the next change
    closed   None, or ended      set      fails: not sent

What follows from it, each a mistake of Go's (`docs/wire-format.md` names the tests):

* **Nothing is sent into a connection that is lost** (W-A2). `Line.living` returns a
  connection that lives, and the sender numbers, enters and writes its command before it
  awaits anything: each connection has its own table, which is closed in the moment in
  which it ends. There is no command that is in no table, or in that of another.
* **Nothing is forgotten at the end** (W-A3). The table is closed, then its entries are
  failed; the line is closed, then those who wait for a change are woken. Who comes
  later finds it closed. An end cannot be missed either (W-A5): it is the result of a
  future, or a field of a queue, and neither can be full.
* **Every end is a reason to come back** (W-A4), be it the network's, the server's, a
  frame that is cut off or does not decode, or a pong that is missing. All but two:
  the user's close, and another ServerInfo, which trying again cannot mend.
* **The old socket is closed before a new one is opened** (W-C8): the one task that
  dials waits for that first, and dials one at a time.
* **Late results go nowhere wrong.** The numbers go on, so the server of the next
  connection can not answer a command of this one by accident.

A command that was sent is never sent again: it may have run. Its sender is told so, and
it is he who knows whether that matters.
"""

import asyncio
import logging

from cmdstream.backoff import Backoff, ReconnectOptions
from cmdstream.calling import ClientLink, closed_error
from cmdstream.connecting import Dialer
from cmdstream.errors import (
    CmdStreamError,
    ConnectError,
    ConnectionClosedError,
    ServerInfoMismatchError,
)

__all__ = ["Changes", "Line"]

logger = logging.getLogger("cmdstream.client")


class Changes:
    """Wakes those who wait for a line, or one of several, to be up or closed."""

    def __init__(self) -> None:
        self._waiters: dict[asyncio.Future[None], None] = {}

    def tell(self) -> None:
        """Wake all who wait, in the order in which they came."""
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def wait(self) -> None:
        """Wait until `tell` is called.

        Cancellation: safe.
        """
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            del self._waiters[waiter]


class Line:
    """The connection to one address, over all its generations."""

    def __init__(self, dialer: Dialer, changes: Changes, next_seq: int) -> None:
        self.changes = changes
        self.link: ClientLink | None = None
        """The newest connection; look at its `reason` to see whether it lives.

        And see `LinkSource.link`."""
        self.options = dialer.options
        self._dialer = dialer
        self._first_seq = next_seq
        self._reconnect = dialer.options.reconnect
        self._reason: CmdStreamError | None = None
        self._last_failure: CmdStreamError | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def __str__(self) -> str:
        return str(self._dialer)

    @property
    def reason(self) -> CmdStreamError | None:
        """Why the line is closed for good; None while it is not."""
        if self._reason is None and self._reconnect is None and self.link is not None:
            return self.link.reason
        return self._reason

    @property
    def last_failure(self) -> CmdStreamError | None:
        """What ended the last try to connect, or the connection before it."""
        if self._last_failure is None and self.link is not None:
            return self.link.reason
        return self._last_failure

    @property
    def next_seq(self) -> int:
        """The number of the next command."""
        return self._first_seq if self.link is None else self.link.core.next_seq

    async def open(self) -> None:
        """Make the first connection, in one try.

        Raises:
            CmdStreamError: As `Dialer.dial`. Nothing is left open.

        Cancellation: safe; nothing is left open.
        """
        try:
            self.link = await self._dialer.dial(self._first_seq)
        except CmdStreamError as error:
            self._last_failure = error
            raise

    def keep(self) -> None:
        """Come back from now on, if the options say how. Called once."""
        if self._reconnect is not None:
            keeper = self._keep(self._reconnect)
            self._keeper = asyncio.get_running_loop().create_task(keeper)

    async def living(self) -> ClientLink:
        """See `LinkSource.living`.

        Raises:
            ConnectionClosedError: The line is closed.

        Cancellation: safe.
        """
        while True:
            link = self.link
            if link is not None and link.reason is None:
                if link.writable:
                    return link
                await link.drained()
            elif (reason := self.reason) is not None:
                raise closed_error(reason, may_have_run=False)
            else:
                await self.changes.wait()

    def obstacle(self) -> str:
        """See `LinkSource.obstacle`."""
        if self.link is not None and self.link.reason is None:
            return f"{self} reads too slowly"
        return f"no connection to {self}: {self.last_failure or 'not yet tried'}"

    def close(self, reason: CmdStreamError) -> None:
        """Begin to hang up, for good. Does nothing the second time."""
        if self.reason is None:
            self._end(reason)
        if self._keeper is not None:
            self._keeper.cancel()
        if self.link is not None:
            self.link.close(reason)

    async def wait_closed(self) -> CmdStreamError:
        """Wait until the line is closed for good, and its socket; return the reason.

        Cancellation: safe.
        """
        if self._reconnect is None and self.link is not None:
            await self.link.wait_closed()
        else:
            await asyncio.shield(self._over)
            if self._keeper is not None and not self._keeper.done():
                await asyncio.wait([self._keeper])
            if self.link is not None:
                await self.link.wait_closed()
        assert self.reason is not None
        return self.reason

    def _end(self, reason: CmdStreamError) -> None:
        if self._reason is None:
            self._reason = reason
            self._over.set_result(None)
            self.changes.tell()

    async def _keep(self, options: ReconnectOptions) -> None:
        """Make one connection after the other, until there is to be no more."""
        backoff = Backoff(options)
        loop = asyncio.get_running_loop()
        try:
            while self._reason is None:
                if self.link is not None:
                    up_at = loop.time()
                    await self.link.wait_closed()
                    backoff.lasted(loop.time() - up_at)
                    logger.warning("lost %s: %s", self, self.link.reason)
                await self._come_back(options, backoff)
        except Exception as error:  # noqa: BLE001 -- a bug must not leave senders waiting
            reason = ConnectionClosedError(f"cannot go on after {error!r}")
            reason.__cause__ = error
            self._end(reason)
        finally:
            # Nothing is known yet if it was cancelled, by the end of the loop maybe.
            cancelled = ConnectionClosedError("reconnecting was cancelled")
            self._end(cancelled)
            if self.link is not None:
                self.link.close(self._reason or cancelled)

    async def _come_back(self, options: ReconnectOptions, backoff: Backoff) -> None:
        """Try until there is a connection, or the line is closed."""
        loop = asyncio.get_running_loop()
        lost_at, tries = loop.time(), 0
        try:
            async with asyncio.timeout(options.outage_max_s):
                while tries != options.tries_max:
                    if self.last_failure is not None:  # not the very first
                        await asyncio.sleep(backoff.next_s())
                    tries += 1
                    if await self._try():
                        return
        except TimeoutError:
            pass  # `outage_max_s`: nothing in it raises one by itself
        self._end(self._given_up(tries, loop.time() - lost_at))

    async def _try(self) -> bool:
        """Try once; True if there is no need to try again."""
        try:
            link = await self._dialer.dial(self.next_seq)
        except ServerInfoMismatchError as error:
            self._end(error)
        except CmdStreamError as error:
            self._last_failure = error
            return False
        else:
            self.link = link
            self._last_failure = None
            self.changes.tell()
            logger.info("connected to %s", self)
        return True

    def _given_up(self, tries: int, seconds: float) -> ConnectError:
        why = self.last_failure
        error = ConnectError(
            f"gave up on {self} after {tries} tries in {seconds:.1f} s: {why}"
        )
        error.__cause__ = why
        return error
