"""The floor: `asyncio.Protocol` at both ends, 64 bytes there and the same back.

No numbers, no codec: what comes back is the answer to the oldest call of its
connection. Frames are handed to the transport once per turn of the loop. (In pieces of
4 KiB, as ours are, was tried and is no faster: the server has next to nothing to do.)
"""

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

from bench.echo import BODY_SIZE, Echo

ADDED = 0


class _Server(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


class _Client(asyncio.Protocol):
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[bytes]] = deque()
        self._out: list[bytes] = []
        self._rest = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        end = len(data) - len(data) % BODY_SIZE
        for start in range(0, end, BODY_SIZE):
            self._waiting.popleft().set_result(data[start : start + BODY_SIZE])
        self._rest = data[end:]

    def call(self, body: bytes) -> asyncio.Future[bytes]:
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(body)
        future: asyncio.Future[bytes] = self._loop.create_future()
        self._waiting.append(future)
        return future

    def _flush(self) -> None:
        self.transport.write(b"".join(self._out))
        self._out.clear()


async def serve() -> None:
    """Send back what comes in."""
    loop = asyncio.get_running_loop()
    server = await loop.create_server(_Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


@asynccontextmanager
async def calling(port: int, connections: int) -> AsyncGenerator[Echo]:
    """Call it over *connections*, in turn."""
    loop = asyncio.get_running_loop()
    made = [
        (await loop.create_connection(_Client, "127.0.0.1", port))[1]
        for _ in range(connections)
    ]
    turns = itertools.cycle(made)

    async def echo(text: str) -> str:
        return (await next(turns).call(text.encode())).decode()

    yield echo
    for client in made:
        client.transport.close()
