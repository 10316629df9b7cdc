"""Several connections behind one face: to one server, or to several that are alike.

    async with await Group.connect(
        [("10.0.0.1", 9000), ("10.0.0.2", 9000)], codec, connections=2
    ) as group:
        result = await group.send(AddCmd(2, 3), timeout_s=1.0)

Each member is a `Client` that reconnects by itself (if told to). For each command the
strategy chooses among the members that can take it now:

    some are connected and have room       the strategy chooses among these
    some are connected, none has room      it chooses among these; the send waits there
    none is connected, some will be        the send waits for the first that is
    all are closed                         the send fails: not sent

So one that is down gets nothing until it is back (in Go it goes on getting its share,
and those sends fail: W-D3), and is not in anybody's way when it comes back. A command
that was sent stays with its member, and ends with that connection at the latest: what
another member could do with it only its sender knows.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self, TypeAlias

from cmdstream.calling import ClientLink, Unexpected, closed_error
from cmdstream.client import Client
from cmdstream.codec import Codec
from cmdstream.connecting import Address, ClientOptions, Dialer
from cmdstream.errors import (
    CmdStreamError,
    ConnectionClosedError,
    ServerInfoMismatchError,
)
from cmdstream.hooks import HookFactory
from cmdstream.reconnecting import Changes, Line
from cmdstream.sending import Sender

__all__ = ["Group", "LeastPending", "RoundRobin", "Strategy"]

Strategy: TypeAlias = Callable[[Sequence[Client]], Client]
"""Chooses one of the members that may be chosen now; there is at least one."""


class RoundRobin:
    """Choose one after the other."""

    def __init__(self) -> None:
        self._count = -1

    def __call__(self, members: Sequence[Client]) -> Client:
        """See `Strategy`."""
        self._count += 1
        return members[self._count % len(members)]


class LeastPending:
    """Choose the one with the fewest commands under way; in turn, if there are several.

    For commands that take very unequal times, and for servers of unequal strength: who
    is slow has more pending, and gets fewer.
    """

    def __init__(self) -> None:
        self._count = -1

    def __call__(self, members: Sequence[Client]) -> Client:
        """See `Strategy`."""
        self._count += 1
        first = self._count % len(members)
        return min((*members[first:], *members[:first]), key=_pending)


class Group(Sender):
    """Connections that are used as one. Make it with `connect` or `start`."""

    def __init__(self, pool: "_Pool", hooks: Sequence[HookFactory]) -> None:
        """Send over *pool*; see `connect`."""
        super().__init__(pool, hooks, pool.options.stream_results_max)
        self._pool = pool

    @classmethod
    async def connect(
        cls,
        addresses: Sequence[Address],
        codec: Codec,
        *,
        connections: int = 1,
        strategy: Strategy | None = None,
        options: ClientOptions | None = None,
        tls: ssl.SSLContext | None = None,
        hooks: Sequence[HookFactory] = (),
        on_unexpected: Unexpected | None = None,
    ) -> Self:
        """Connect to all *addresses* at once.

        If the members reconnect, it is enough that one is connected: the others go on
        trying. If not, all have to be.

        Args:
            addresses: One or more: host and port, or the path of a unix socket.
            codec: As in `Client.connect`.
            connections: To each address; 1 or more.
            strategy: Who gets the next command; `RoundRobin` if None.
            options: Of each member.
            tls: As in `Client.connect`.
            hooks: What to do around each send of the group.
            on_unexpected: As in `Client.connect`.

        Raises:
            CmdStreamError: As in `Client.connect`: another ServerInfo of any member,
                or what the first one failed of, with notes about the others.
            ValueError: There is no address, or *connections* is less than 1.

        Cancellation: safe; nothing is left open, as after an error.
        """
        options = options or ClientOptions()
        dialers = _dialers(addresses, connections, codec, options, tls, on_unexpected)
        pool = _Pool(dialers, strategy or RoundRobin())
        await pool.open()
        return cls(pool, hooks)

    @classmethod
    def start(
        cls,
        addresses: Sequence[Address],
        codec: Codec,
        *,
        options: ClientOptions,
        connections: int = 1,
        strategy: Strategy | None = None,
        tls: ssl.SSLContext | None = None,
        hooks: Sequence[HookFactory] = (),
        on_unexpected: Unexpected | None = None,
    ) -> Self:
        """Begin to connect, and do not wait; see `connect` and `Client.start`.

        Raises:
            ValueError: `ClientOptions.reconnect` is None, there is no address, or
                *connections* is less than 1.
        """
        if options.reconnect is None:
            raise ValueError("a group that is started needs ClientOptions.reconnect")
        dialers = _dialers(addresses, connections, codec, options, tls, on_unexpected)
        pool = _Pool(dialers, strategy or RoundRobin())
        pool.keep()
        return cls(pool, hooks)

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
    def members(self) -> tuple[Client, ...]:
        """The connections; address by address, in the order of these."""
        return self._pool.members

    @property
    def connected(self) -> bool:
        """True while at least one member is connected."""
        return any(member.connected for member in self.members)

    @property
    def closed(self) -> bool:
        """True once nothing can be sent any more, now or later."""
        return all(member.closed for member in self.members)

    @property
    def pending(self) -> int:
        """Commands that await results."""
        return sum(member.pending for member in self.members)

    async def aclose(self) -> None:
        """Close all members at once, see `Client.aclose`. Idempotent."""
        await self._pool.aclose()


class _Pool:
    """The lines of a group, and who of them is next. A `LinkSource`."""

    def __init__(self, dialers: Sequence[Dialer], strategy: Strategy) -> None:
        self.options = dialers[0].options
        self._changes = Changes()
        self._lines = {
            Client(line): line
            for line in (Line(dialer, self._changes, 1) for dialer in dialers)
        }
        self.members = tuple(self._lines)
        self._strategy = strategy

    async def open(self) -> None:
        """Make the first connections; see `Group.connect`.

        Raises:
            CmdStreamError: See `Group.connect`.
        """
        try:
            async with asyncio.TaskGroup() as group:
                lines = self._lines.values()
                tries = [group.create_task(_failure(line)) for line in lines]
            failures = [failure for task in tries if (failure := task.result())]
            self._judge(failures)
        except BaseException:
            self._close("the group could not be connected")
            raise
        self.keep()

    def keep(self) -> None:
        """See `Line.keep`."""
        for line in self._lines.values():
            line.keep()

    @property
    def link(self) -> ClientLink | None:
        """See `LinkSource.link`."""
        ready = [
            member
            for member, line in self._lines.items()
            if line.link is not None and line.link.ready
        ]
        return self._lines[self._strategy(ready)].link if ready else None

    async def living(self) -> ClientLink:
        """See `LinkSource.living`.

        Raises:
            ConnectionClosedError: All members are closed.
        """
        while (link := self.link) is None:
            full = [member for member in self.members if member.connected]
            if full:
                link = self._lines[self._strategy(full)].link
                assert link is not None
                await link.drained()
                continue
            reasons = [line.reason for line in self._lines.values()]
            if reasons[0] is not None and None not in reasons:
                raise closed_error(reasons[0], may_have_run=False)
            await self._changes.wait()
        return link

    def obstacle(self) -> str:
        """See `LinkSource.obstacle`; each different one once."""
        return "; ".join({line.obstacle(): None for line in self._lines.values()})

    async def aclose(self) -> None:
        """See `Group.aclose`."""
        self._close("the group was closed")
        for line in self._lines.values():
            await line.wait_closed()

    def _close(self, reason: str) -> None:
        for line in self._lines.values():
            line.close(ConnectionClosedError(reason))

    def _judge(self, failures: Sequence[CmdStreamError]) -> None:
        """Raise if the group cannot begin with these *failures*."""
        for failure in failures:
            if isinstance(failure, ServerInfoMismatchError):
                raise failure
        enough = len(failures) < len(self._lines) and self.options.reconnect is not None
        if failures and not enough:
            first, *others = failures
            for other in others:
                first.add_note(f"and {other}")
            raise first


async def _failure(line: Line) -> CmdStreamError | None:
    """Open *line*; return what went wrong, so that the others go on."""
    try:
        await line.open()
    except CmdStreamError as error:
        return error
    return None


def _pending(member: Client) -> int:
    return member.pending


def _dialers(
    addresses: Sequence[Address],
    connections: int,
    codec: Codec,
    options: ClientOptions,
    tls: ssl.SSLContext | None,
    on_unexpected: Unexpected | None,
) -> list[Dialer]:
    if not addresses or connections < 1:
        raise ValueError(
            f"a group needs an address and a connection to it, got {addresses} "
            f"and connections={connections}"
        )
    return [
        Dialer(address, codec, options, tls, on_unexpected)
        for address in addresses
        for _ in range(connections)
    ]
