"""Ours: `cmdstream.Client` and `Server`, with each codec."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from bench.echo import Echo
from cmdstream import Client, Codec, CommandReceived, JsonCodec, Registry, Reply, Server


class EchoCmd(str):
    """``type EchoCmd string``: in JSON its quotes are two of the 64 bytes."""

    __slots__ = ()


class EchoResult(str):
    """``type EchoResult string``."""

    __slots__ = ()


def json() -> Codec:
    """Return the JSON codec."""
    return JsonCodec(Registry([EchoCmd], [EchoResult]))


async def serve(codec: Codec) -> None:
    """Send back what comes in."""

    def answer(received: CommandReceived, reply: Reply) -> None:
        assert isinstance(received.command, EchoCmd)
        reply.send_nowait(EchoResult(received.command))

    async with Server(codec, answer) as server:
        _, port = await server.listen("127.0.0.1", 0)
        print(port, flush=True)
        await server.wait_closed()


@asynccontextmanager
async def calling(codec: Codec, port: int, connections: int) -> AsyncGenerator[Echo]:
    """Call it over *connections*, in turn."""
    clients = [
        await Client.connect("127.0.0.1", port, codec) for _ in range(connections)
    ]
    turn = 0

    async def echo(text: str) -> str:
        nonlocal turn
        turn += 1
        answer = await clients[turn % connections].send(EchoCmd(text))
        assert isinstance(answer, EchoResult)
        return answer

    yield echo
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.aclose())
