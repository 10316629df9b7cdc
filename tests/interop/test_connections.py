"""The life of a connection across the border: greeting, pings, and losing it."""

import asyncio
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from tests.cmdstream.helpers import (
    CODEC,
    GREETING,
    AddCmd,
    CalcResult,
    Held,
    RawPeer,
    RawServer,
    SleepCmd,
    answer,
    run,
    until,
)
from tests.interop.peers import GoClient, GoError, go_client, go_server

from cmdstream import (
    Client,
    ClientOptions,
    ConnectionClosedError,
    RemoteProtocolError,
    Server,
    ServerInfoMismatchError,
    ServerOptions,
)
from cmdstream.wire import write_size

SUM = {"A": 2, "B": 3}
NEVER = SleepCmd(3_600_000, "never")
RETRY_S = 0.2
"""What Go waits for an answer before it asks again; any time would do."""


async def connect(port: int, info: bytes = b"default", next_seq: int = 1) -> Client:
    options = ClientOptions(server_info=info)
    return await Client.connect(
        "127.0.0.1", port, CODEC, options=options, next_seq=next_seq
    )


def serving(info: bytes = b"default") -> Server:
    return Server(CODEC, answer, options=ServerOptions(server_info=info))


async def ask_until_answered(client: GoClient) -> list[Any]:
    """Ask Go again for as long as it gets no answer."""
    while True:
        with suppress(GoError):
            return await client.send("AddCmd", SUM, timeout_s=RETRY_S)


# The greeting.


def test_each_side_refuses_a_server_of_another_kind(peer: str) -> None:
    async def main() -> None:
        async with go_server(peer, "json", "-info", "orders-v3") as theirs:
            with pytest.raises(ServerInfoMismatchError, match="orders-v3"):
                await connect(theirs.port)
            async with await connect(theirs.port, b"orders-v3") as client:
                assert await client.send(AddCmd(2, 3)) == CalcResult(5)
        async with serving(b"orders-v3") as ours:
            _, port = await ours.listen("127.0.0.1", 0)
            with pytest.raises(GoError, match="server info mismatch"):
                async with go_client(peer, "json", port):
                    pass
            async with go_client(peer, "json", port, "-info", "orders-v3") as asking:
                assert await asking.send("AddCmd", SUM) == [5]

    run(main())


def test_a_server_info_of_1024_bytes_is_taken_by_each_side(peer: str) -> None:
    info, size = b"i" * 1024, ("-info-size", "1024")

    async def main() -> None:
        async with (
            go_server(peer, "json", *size) as theirs,
            await connect(theirs.port, info) as client,
        ):
            assert await client.send(AddCmd(2, 3)) == CalcResult(5)
        async with serving(info) as ours:
            _, port = await ours.listen("127.0.0.1", 0)
            async with go_client(peer, "json", port, *size) as asking:
                assert await asking.send("AddCmd", SUM) == [5]

    run(main())


def test_a_server_info_of_1025_bytes_is_refused_by_each_side(peer: str) -> None:
    async def greet(raw: RawPeer) -> None:
        await raw.send(write_size(1025) + b"i" * 1025)
        await raw.rest()

    async def main() -> None:
        # A Go server does not look at what it announces.
        async with go_server(peer, "json", "-info-size", "1025") as theirs:
            with pytest.raises(RemoteProtocolError, match="1025 bytes announced"):
                await connect(theirs.port)
        async with RawServer(greet) as raw:
            with pytest.raises(GoError, match="too large server info"):
                async with go_client(peer, "json", raw.port, "-info-size", "1025"):
                    pass

    run(main())


# Pings.


class Relay:
    """Between a client and the server on *port*; writes down what passes."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.sent = bytearray()
        """By the client."""
        self.answered = bytearray()

    async def talk(self, client: RawPeer) -> None:
        """Serve one connection, for `RawServer`."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        async with asyncio.TaskGroup() as group:
            group.create_task(_pass(client.reader, writer, self.sent))
            group.create_task(_pass(reader, client.writer, self.answered))

    async def pinged(self, times: int) -> None:
        """Wait for so many pings and pongs. Nothing else here has a zero byte."""
        await until(lambda: self.sent.count(0) >= times)
        await until(lambda: self.answered.count(0) >= times)


async def _pass(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, noted: bytearray
) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65_536):
            noted += data
            writer.write(data)
    writer.close()


def test_a_go_client_that_keeps_alive_gets_its_pongs(peer: str) -> None:
    async def main() -> None:
        async with serving() as server:
            relay = Relay((await server.listen("127.0.0.1", 0))[1])
            async with (
                RawServer(relay.talk) as between,
                go_client(peer, "json", between.port, "-keepalive", "20ms") as client,
            ):
                # One ping for each silence: the next would come after an hour.
                for number in range(1, 4):
                    assert await client.send("EchoCmd", "hello") == ["hello"]
                    await relay.pinged(number)

    run(main())


def test_a_ping_of_go_poisons_its_client_and_docs_interop_says_so(peer: str) -> None:
    """W-C2: the ping leaves a write deadline behind, which later commands meet."""
    often = ("-keepalive", "200ms", "-interval", "30ms")

    async def main() -> None:
        async with serving() as server:
            relay = Relay((await server.listen("127.0.0.1", 0))[1])
            async with (
                RawServer(relay.talk) as between,
                go_client(peer, "json", between.port, *often) as client,
            ):
                await relay.pinged(1)
                with pytest.raises(GoError, match="i/o timeout"):
                    await _send_without_end(client)
                with pytest.raises(GoError, match="i/o timeout"):
                    await client.send("EchoCmd", "hello")
                assert not client.done.done()  # and it never connects again

    run(main())


async def _send_without_end(client: GoClient) -> None:
    while True:
        await client.send("EchoCmd", "hello")


# Losing it.


def test_a_reconnecting_go_client_finds_our_server_again(peer: str) -> None:
    async def main() -> None:
        held = Held()
        async with Server(CODEC, held) as first:
            _, port = await first.listen("127.0.0.1", 0)
            async with go_client(peer, "json", port, "-reconnect") as client:
                async with asyncio.TaskGroup() as group:
                    pending = group.create_task(
                        _error_of(client.send("SleepCmd", msgspec.to_builtins(NEVER)))
                    )
                    received, reply = await held.next()
                    assert received.command == NEVER
                    await first.aclose()
                    reply.finish()
                assert "EOF" in pending.result() or "reset" in pending.result()
                async with serving() as second:
                    await second.listen("127.0.0.1", port)
                    # W-A2: what Go sends in between is lost without a word.
                    assert await ask_until_answered(client) == [5]

    run(main())


def test_a_reconnecting_go_client_dials_without_a_pause(peer: str) -> None:
    """W-C3: with a back-off, so many times would take longer than a test may."""
    dials = 0

    async def greet_the_first(raw: RawPeer) -> None:
        nonlocal dials
        dials += 1
        if dials == 1:
            await raw.send(GREETING)

    async def main() -> None:
        async with (
            RawServer(greet_the_first) as raw,
            go_client(peer, "json", raw.port, "-reconnect"),
        ):
            await until(lambda: dials >= 300)

    run(main())


def test_a_reconnecting_go_client_gives_up_inside_a_frame(peer: str) -> None:
    """W-A4: only an end between two frames counts as a loss of the connection."""

    async def break_off(raw: RawPeer) -> None:
        await raw.send(GREETING)
        await raw.receive(1)
        await raw.send(b"\x01\x00\x051")  # one byte of five

    async def main() -> None:
        async with (
            RawServer(break_off) as raw,
            go_client(peer, "json", raw.port, "-reconnect") as client,
        ):
            with pytest.raises(GoError, match="EOF"):
                await client.send("AddCmd", SUM)
            assert "EOF" in await client.done

    run(main())


def test_what_is_under_way_fails_when_a_go_server_dies(peer: str) -> None:
    async def main() -> None:
        async with go_server(peer, "json") as server:
            port = server.port
            client = await connect(port)
            async with client, asyncio.TaskGroup() as group:
                pending = group.create_task(_error_of(client.send(NEVER)))
                await client.ping()  # so it has left
                server.kill()
                assert "peer" in await pending or "reset" in await pending
        # A successor counts on, so that no late result can be mistaken.
        async with (
            go_server(peer, "json", "-listen", f"127.0.0.1:{port}") as server,
            await connect(server.port, next_seq=client.next_seq) as heir,
        ):
            assert await heir.send(AddCmd(2, 3)) == CalcResult(5)
            assert heir.next_seq == client.next_seq + 1

    run(main())


async def _error_of(sending: Any) -> str:
    """Return what *sending* fails with."""
    with pytest.raises((GoError, ConnectionClosedError)) as caught:
        await sending
    return str(caught.value)
