"""What lies between clients and servers, and breaks: one port for each connection.

It takes bytes from one end to the other, with back-pressure. `Proxy.break_one` does to
a living connection what networks do: resets, cuts in the middle, silence, small parts.
"""

import asyncio
import random
import socket
import struct
from collections import Counter
from typing import Self, cast

__all__ = ["Proxy"]

_FAULTS = (
    "reset",
    "end",
    "cut to client",
    "cut to server",
    "silence",
    "deafness",
    "small parts",
)
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, and no time


class Proxy:
    """Listens on ports of its own, each of which leads to a server."""

    def __init__(self, chance: random.Random) -> None:
        self.faults: Counter[str] = Counter()
        self._chance = chance
        self._servers: list[asyncio.Server] = []
        self._living: list[_Way] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self._servers:
            server.close()
        for way in list(self._living):
            way.end(reset=False)
        for server in self._servers:
            await server.wait_closed()

    async def to(self, upstream: int) -> int:
        """Return a new port that leads to the port *upstream*."""
        server = await asyncio.get_running_loop().create_server(
            lambda: _Way(self._living, upstream).client, "127.0.0.1", 0
        )
        self._servers.append(server)
        port: int = server.sockets[0].getsockname()[1]
        return port

    def break_one(self) -> None:
        """Do something bad to one connection, if there is one."""
        ways = [way for way in self._living if way.is_whole]
        if not ways:
            return
        way = self._chance.choice(ways)
        fault = self._chance.choice(_FAULTS)
        self.faults[f"connection: {fault}"] += 1
        match fault:
            case "reset":
                way.end(reset=True)
            case "end":
                way.end(reset=False)
            case "cut to client":
                way.client.cut_after = self._chance.randrange(200)
            case "cut to server":
                way.server.cut_after = self._chance.randrange(200)
            case "silence":
                way.freeze(self._chance.uniform(0.1, 5.0), way.client, way.server)
            case "deafness":
                way.freeze(self._chance.uniform(0.1, 5.0), way.client)
            case _:
                way.client.is_split = way.server.is_split = True


class _Way:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(self, living: "list[_Way]", upstream: int) -> None:
        self.client = _End(self)
        self.server = _End(self)
        self.client.other, self.server.other = self.server, self.client
        self._living = living
        self._upstream = upstream
        self._connecting: asyncio.Task[None] | None = None
        self.is_ended = False

    @property
    def is_whole(self) -> bool:
        return self.server.transport is not None and not self.is_ended

    def begin(self) -> None:
        self._living.append(self)
        self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def end(self, *, reset: bool) -> None:
        if self.is_ended:
            return
        self.is_ended = True
        self._living.remove(self)
        for end in (self.client, self.server):
            end.thaw()
            if end.transport is None:
                continue
            if reset:
                sock = end.transport.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                end.transport.abort()
            else:
                end.transport.close()

    def freeze(self, seconds: float, *ends: "_End") -> None:
        for end in ends:
            end.freeze(seconds)

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: self.server, "127.0.0.1", self._upstream
            )
        except OSError:
            self.end(reset=True)
        else:
            self.server.send(b"")  # what came in the meantime


class _End(asyncio.Protocol):
    """One of the two sockets."""

    other: "_End"

    def __init__(self, way: _Way) -> None:
        self.cut_after: int | None = None
        """Bytes that still go out here before the end."""
        self.is_split = False
        self.transport: asyncio.Transport | None = None
        self._way = way
        self._early = bytearray()
        self._thawing: asyncio.TimerHandle | None = None
        self._is_full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        if self._way.is_ended:  # while the server was dialled
            self.transport.abort()
        elif self is self._way.client:
            self._way.begin()

    def data_received(self, data: bytes) -> None:
        self.other.send(data)

    def eof_received(self) -> None:
        self._way.end(reset=False)

    def connection_lost(self, exc: Exception | None) -> None:
        self._way.end(reset=exc is not None)

    def pause_writing(self) -> None:
        self._is_full = True
        self.other.read_on(going=False)

    def resume_writing(self) -> None:
        self._is_full = False
        self.other.read_on(going=not self.other.is_frozen)

    @property
    def is_frozen(self) -> bool:
        return self._thawing is not None

    def send(self, data: bytes) -> None:
        if self.transport is None:
            self._early += data
            return
        if self._early:
            data, self._early = bytes(self._early) + data, bytearray()
        if self.cut_after is not None and len(data) > self.cut_after:
            self.transport.write(data[: self.cut_after])
            self._way.end(reset=False)
            return
        if self.cut_after is not None:
            self.cut_after -= len(data)
        if self.is_split and len(data) > 1:
            # In two segments, so that frames come in parts.
            middle = len(data) // 2
            self.transport.write(data[:middle])
            data = data[middle:]
        self.transport.write(data)

    def freeze(self, seconds: float) -> None:
        """Read nothing here for *seconds*."""
        if self._thawing is None:
            self.read_on(going=False)
            loop = asyncio.get_running_loop()
            self._thawing = loop.call_later(seconds, self.thaw)

    def thaw(self) -> None:
        if self._thawing is not None:
            self._thawing.cancel()
            self._thawing = None
            self.read_on(going=not self.other.is_full)

    @property
    def is_full(self) -> bool:
        return self._is_full

    def read_on(self, *, going: bool) -> None:
        if self.transport is None or self.transport.is_closing():
            return
        if going:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()
