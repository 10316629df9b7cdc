"""Calls across the language border, both ways, with every codec."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.cmdstream.helpers import run
from tests.interop.peers import GoError, go_client, go_server
from tests.interop.wires import WIRES, Wire

from cmdstream import Client, ConnectionClosedError, Reply, Server, TaskHandler

MIB = 1024 * 1024

each_wire = pytest.mark.parametrize("wire", WIRES, ids=lambda wire: wire.name)


def serving(wire: Wire) -> Server:
    """A server of ours that does what the Go server does."""

    async def handle(command: object, reply: Reply) -> None:
        results = wire.results(command)
        if not results:
            raise LookupError("intentional")
        for result in results:
            await reply.send(result)

    return Server(wire.codec, TaskHandler(handle))


@asynccontextmanager
async def our_client(wire: Wire, port: int) -> AsyncGenerator[Client]:
    async with await Client.connect("127.0.0.1", port, wire.codec) as client:
        yield client


def answers(wire: Wire, text: str) -> list[Any]:
    """What the echo of *text* is, in plain values."""
    command = wire.make(*wire.echo(text))
    return [wire.plain(result) for result in wire.results(command)]


def stream_of(wire: Wire, start: int, count: int) -> list[Any]:
    """What the results of a stream are, in plain values."""
    command = wire.make(*wire.stream(start, count))
    return [wire.plain(result) for result in wire.results(command)]


@each_wire
def test_a_go_server_answers_us(peer: str, wire: Wire) -> None:
    async def main() -> None:
        async with (
            go_server(peer, wire.name) as server,
            our_client(wire, server.port) as client,
        ):
            for text in ("", "hello", "<é> & \u2028", "x" * 200, "x" * 20_000):
                result = await client.send(wire.make(*wire.echo(text)))
                assert [wire.plain(result)] == answers(wire, text)
            await client.ping()

    run(main())


@each_wire
def test_we_answer_a_go_client(peer: str, wire: Wire) -> None:
    async def main() -> None:
        async with serving(wire) as server:
            _, port = await server.listen("127.0.0.1", 0)
            async with go_client(peer, wire.name, port) as client:
                for text in ("", "hello", "<é> & \u2028", "x" * 200, "x" * 20_000):
                    got = await client.send(*wire.echo(text))
                    assert got == answers(wire, text)

    run(main())


@each_wire
def test_a_stream_of_a_go_server_arrives_in_order(peer: str, wire: Wire) -> None:
    async def main() -> None:
        async with (
            go_server(peer, wire.name) as server,
            our_client(wire, server.port) as client,
        ):
            for count in (1, 3, 1000):
                command = wire.make(*wire.stream(-1, count))
                got = [wire.plain(part) async for part in client.stream(command)]
                assert got == stream_of(wire, -1, count)

    run(main())


@each_wire
def test_a_go_client_gets_our_stream_in_order(peer: str, wire: Wire) -> None:
    async def main() -> None:
        async with serving(wire) as server:
            _, port = await server.listen("127.0.0.1", 0)
            async with go_client(peer, wire.name, port) as client:
                for count in (1, 3, 1000):
                    got = await client.send(*wire.stream(-1, count))
                    assert got == stream_of(wire, -1, count)

    run(main())


@each_wire
def test_10_000_commands_in_flight_at_a_go_server_come_back(
    peer: str, wire: Wire
) -> None:
    async def main() -> None:
        async with (
            go_server(peer, wire.name) as server,
            our_client(wire, server.port) as client,
        ):

            async def ask(number: int) -> None:
                result = await client.send(wire.make(*wire.echo(f"{number}")))
                assert [wire.plain(result)] == answers(wire, f"{number}")

            async with asyncio.TaskGroup() as group:
                for number in range(10_000):
                    group.create_task(ask(number))
            assert client.pending == 0

    run(main())


@each_wire
def test_10_000_commands_in_flight_of_a_go_client_come_back(
    peer: str, wire: Wire
) -> None:
    async def main() -> None:
        async with serving(wire) as server:
            _, port = await server.listen("127.0.0.1", 0)
            async with go_client(peer, wire.name, port) as client:

                async def ask(number: int) -> None:
                    got = await client.send(*wire.echo(f"{number}"))
                    assert got == answers(wire, f"{number}")

                async with asyncio.TaskGroup() as group:
                    for number in range(10_000):
                        group.create_task(ask(number))
            assert server.in_flight == 0

    run(main())


@each_wire
def test_bodies_of_8_mib_pass_both_ways(peer: str, wire: Wire) -> None:
    big = "0123456789abcdef" * (8 * MIB // 16)

    async def main() -> None:
        async with (
            go_server(peer, wire.name) as theirs,
            our_client(wire, theirs.port) as client,
        ):
            result = await client.send(wire.make(*wire.echo(big)))
            assert [wire.plain(result)] == answers(wire, big)
        async with serving(wire) as ours:
            _, port = await ours.listen("127.0.0.1", 0)
            async with go_client(peer, wire.name, port) as asking:
                assert await asking.send(*wire.echo(big)) == answers(wire, big)

    run(main())


@each_wire
def test_a_command_that_fails_in_go_closes_the_connection(
    peer: str, wire: Wire
) -> None:
    """W-D4: there is no error result, so all other commands of the client end, too."""

    async def main() -> None:
        async with (
            go_server(peer, wire.name) as server,
            our_client(wire, server.port) as client,
            our_client(wire, server.port) as bystander,
        ):
            with pytest.raises(ConnectionClosedError, match="peer closed"):
                await client.send(wire.make("FailCmd", {}))
            assert await server.lost() == "intentional"
            result = await bystander.send(wire.make(*wire.echo("still here")))
            assert [wire.plain(result)] == answers(wire, "still here")

    run(main())


@each_wire
def test_a_command_that_fails_here_closes_the_connection_of_its_go_client(
    peer: str, wire: Wire
) -> None:
    async def main() -> None:
        async with serving(wire) as server:
            _, port = await server.listen("127.0.0.1", 0)
            async with (
                go_client(peer, wire.name, port) as client,
                go_client(peer, wire.name, port) as bystander,
            ):
                with pytest.raises(GoError, match="EOF"):
                    await client.send("FailCmd", {})
                assert "EOF" in await client.done
                got = await bystander.send(*wire.echo("still here"))
                assert got == answers(wire, "still here")

    run(main())
