"""Which peers there are, and how they are driven: each role in its own process."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import msgspec

from bench.echo import Echo, EchoLoad, bare, grpc_aio, http, ours, text_of
from bench.load import Measured, closed_loop

__all__ = ["PEERS", "drive", "serve"]

Serve = Callable[[], Awaitable[None]]
Calling = Callable[[int, int], AbstractAsyncContextManager[Echo]]

PEERS: dict[str, tuple[Serve, Calling, int]] = {
    "bare": (bare.serve, bare.calling, bare.ADDED),
    "json": (
        lambda: ours.serve(ours.json()),
        lambda port, connections: ours.calling(ours.json(), port, connections),
        2,
    ),
    "grpc": (grpc_aio.serve, grpc_aio.calling, grpc_aio.ADDED),
    "aiohttp": (http.serve, http.calling, http.ADDED),
}
"""How each serves, how it is called, and the bytes that its format adds to a text."""


async def serve(peer: str) -> None:
    """Serve as *peer* does."""
    await PEERS[peer][0]()


async def drive(load: EchoLoad) -> Measured:
    """Call as *load* says; every answer is compared with what was asked."""
    _, calling, added = PEERS[load.peer]
    async with calling(load.port, load.connections) as echo:

        async def send(number: int) -> None:
            text = text_of(number, added)
            assert await echo(text) == text

        return await closed_loop(send, load.in_flight, load.seconds)


def main() -> None:
    """Play ``server PEER``, or ``client LOAD`` and print what it measured."""
    match sys.argv[1:]:
        case ["server", peer]:
            asyncio.run(serve(peer))
        case ["client", load]:
            measured = asyncio.run(drive(msgspec.json.decode(load, type=EchoLoad)))
            sys.stdout.buffer.write(msgspec.json.encode(measured))
        case arguments:
            raise ValueError(f"no such role: {arguments}")


if __name__ == "__main__":
    main()
