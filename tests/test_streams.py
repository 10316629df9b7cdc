"""The server that other tests use; its clients are nobody's at no moment."""

import asyncio
import socket
from pathlib import Path

import pytest
from tests.gateways.relay import Relay
from tests.streams import StreamServer

HOST = "127.0.0.1"


def open_now() -> int:
    """Count this process' descriptors."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def arrive(port: int, turns: int) -> socket.socket:
    """Connect; give it back when the loop has turned so often since."""
    client = socket.socket()
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, (HOST, port))
    for _ in range(turns):
        await asyncio.sleep(0)
    return client


@pytest.mark.parametrize("turns", range(12))
def test_a_relay_that_is_stopped_while_a_client_arrives_leaves_nothing_open(
    turns: int,
) -> None:
    """Seen as a test that failed for what the one before it had left open."""

    async def main() -> None:
        with socket.create_server((HOST, 0)) as upstream:
            async with Relay(upstream.getsockname()[1]) as relay:
                listening = open_now()
                client = await arrive(relay.port, turns)
                await relay.stop()
                client.close()
                assert open_now() == listening - 1

    asyncio.run(main())


@pytest.mark.parametrize("turns", range(12))
def test_a_server_that_is_closed_while_a_client_arrives_waits_for_it(
    turns: int,
) -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> None:
        before = open_now()
        async with StreamServer(serve) as server:
            (await arrive(server.port, turns)).close()
        assert open_now() == before

    asyncio.run(main())


def test_what_serving_a_client_raises_is_heard() -> None:
    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        assert await reader.read() == b"expected"

    async def main() -> None:
        async with StreamServer(serve) as server:
            (await arrive(server.port, 0)).close()

    with pytest.raises(AssertionError):
        asyncio.run(main())
