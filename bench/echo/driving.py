"""Which peers there are, and how they are driven: each role in its own process.

server PEER         serves until it is told to end
client LOAD         calls, and prints what it measured
idle PORT N         connects that often, says "0" and stays
"""

import asyncio
import functools
import resource
import sys
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any

import msgspec

from bench.echo import Echo, EchoLoad, bare, grpc_aio, http, ours, text_of
from bench.load import Measured, closed_loop
from bench.processes import raise_on_sigterm

__all__ = ["PEERS", "Peer", "drive"]


class Peer(msgspec.Struct, frozen=True):
    """How it serves, how it is called, and the bytes that its format adds to a text."""

    serve: Callable[[], Coroutine[Any, Any, None]]
    calling: Callable[[int, int], AbstractAsyncContextManager[Echo]]
    added: int


def _ours(wire: ours.Wire) -> Peer:
    return Peer(
        functools.partial(ours.serve, wire),
        functools.partial(ours.calling, wire),
        wire.added,
    )


PEERS = {
    "bare": Peer(bare.serve, bare.calling, 0),
    **{name: _ours(wire) for name, wire in ours.WIRES.items()},
    "grpc": Peer(grpc_aio.serve, grpc_aio.calling, 0),
    "aiohttp": Peer(http.serve, http.calling, 0),
}


async def drive(load: EchoLoad) -> Measured | None:
    """Call as *load* says; every answer is compared with what was asked."""
    peer = PEERS[load.peer]
    async with peer.calling(load.port, load.connections) as echo:

        async def send(number: int) -> None:
            text = text_of(number, peer.added)
            assert await echo(text) == text

        if load.calls is None:
            return await closed_loop(send, load.in_flight, load.seconds)
        left = iter(range(load.calls))

        async def call(number: int) -> None:
            # Once: what is counted is a round trip, not the making of what is sent.
            text = text_of(number, peer.added)
            for _ in left:
                assert await echo(text) == text

        async with asyncio.TaskGroup() as group:
            for number in range(load.in_flight):
                group.create_task(call(number))
        return None


async def idle(port: int, connections: int) -> None:
    """Keep *connections* to a server of ours that has greeted each, and say nothing."""
    opened: list[asyncio.StreamWriter] = []
    for _ in range(connections):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await reader.readexactly(1)  # of its greeting
        opened.append(writer)
    print(0, flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Play a role."""
    raise_on_sigterm()
    match sys.argv[1:]:
        case ["server", name]:
            asyncio.run(PEERS[name].serve())
        case ["client", text]:
            load = msgspec.json.decode(text, type=EchoLoad)
            sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(drive(load))))
        case ["idle", port, connections]:
            asyncio.run(idle(int(port), int(connections)))
        case arguments:
            raise ValueError(f"no such role: {arguments}")


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    main()
