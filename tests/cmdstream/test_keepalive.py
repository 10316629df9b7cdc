"""Pings on a quiet connection, and the end of one that does not answer."""

import asyncio

import pytest
from tests.cmdstream.helpers import (
    GREETING,
    AddCmd,
    CalcResult,
    EchoCmd,
    RangeCmd,
    RawPeer,
    RawServer,
    StreamResult,
    connect,
    frame,
    let_time_pass,
    result_frame,
    run,
    serving,
    turns,
    until,
)

from cmdstream import Client, ClientOptions, ConnectionClosedError, KeepaliveOptions
from cmdstream.keepalive import WatchedLink

KEEPALIVE = KeepaliveOptions(idle_s=5.0, interval_s=2.0, pong_timeout_s=10.0)
OPTIONS = ClientOptions(keepalive=KEEPALIVE)
ADD = frame(1, AddCmd(1, 2))


class Peer:
    """A server whose every byte is the test's: what came is there to be looked at."""

    def __init__(self) -> None:
        self.received = b""
        self._peer: RawPeer | None = None

    async def __call__(self, peer: RawPeer) -> None:
        self._peer = peer
        await peer.send(GREETING)
        while data := await peer.reader.read(1024):
            self.received += data

    async def send(self, data: bytes) -> None:
        assert self._peer is not None
        await self._peer.send(data)

    async def sees(self, data: bytes) -> None:
        await until(lambda: self.received == data)


def watched(client: Client) -> WatchedLink:
    link = client._line.link
    assert isinstance(link, WatchedLink)
    return link


def heard(client: Client) -> bool:
    """Whether the last ping was answered."""
    pong = watched(client)._pong
    assert pong is not None
    return pong.done()


def test_a_quiet_connection_is_pinged_and_again_until_a_command_is_sent() -> None:
    async def main() -> None:
        peer = Peer()
        async with RawServer(peer) as server, await connect(server.port, OPTIONS) as me:
            let_time_pass(4.0)
            await turns()
            assert watched(me)._pong is None
            let_time_pass(1.0)
            await peer.sees(b"\x00")
            await peer.send(b"\x00")
            await until(lambda: heard(me))
            let_time_pass(2.0)
            await peer.sees(b"\x00" * 2)  # the interval, not the idle time
            await peer.send(b"\x00")
            await until(lambda: heard(me))
            asked = asyncio.get_running_loop().create_task(me.send(AddCmd(1, 2)))
            await peer.sees(b"\x00" * 2 + ADD)
            await peer.send(result_frame(1, CalcResult(3)))
            assert await asked == CalcResult(3)
            let_time_pass(4.0)
            await turns()
            assert heard(me)
            let_time_pass(1.0)
            await peer.sees(b"\x00" * 2 + ADD + b"\x00")

    run(main())


def test_a_server_that_does_not_answer_is_declared_dead() -> None:
    """W-C7: in Go nobody looks for the pong."""

    async def main() -> None:
        peer = Peer()
        async with RawServer(peer) as server, await connect(server.port, OPTIONS) as me:
            asked = asyncio.get_running_loop().create_task(me.send(AddCmd(1, 2)))
            await peer.sees(ADD)
            let_time_pass(5.0)
            await peer.sees(ADD + b"\x00")
            let_time_pass(9.0)
            await turns()
            assert me.connected
            let_time_pass(1.0)
            with pytest.raises(
                ConnectionClosedError, match=r"life for 10\.0 s"
            ) as lost:
                await asked
            assert lost.value.may_have_run
            assert peer.received == ADD + b"\x00"  # one ping is out, never more

    run(main())


def test_any_byte_is_a_sign_of_life() -> None:
    async def main() -> None:
        peer = Peer()
        async with RawServer(peer) as server, await connect(server.port, OPTIONS) as me:
            stream = me.stream(RangeCmd(1, 9))
            first = asyncio.get_running_loop().create_task(anext(stream))
            sent = frame(1, RangeCmd(1, 9))
            await peer.sees(sent)
            let_time_pass(5.0)
            await peer.sees(sent + b"\x00")
            for n in range(3):
                let_time_pass(8.0)
                await peer.send(result_frame(1, StreamResult(n, last=False)))
                assert await (first if n == 0 else anext(stream)) == StreamResult(
                    n, last=False
                )
                await turns()
                assert me.connected

    run(main())


def test_a_server_that_only_talks_is_pinged_too() -> None:
    """A Go server with a receive time-out counts what it gets, not what it sends."""

    async def main() -> None:
        peer = Peer()
        async with RawServer(peer) as server, await connect(server.port, OPTIONS) as me:
            stream = me.stream(RangeCmd(1, 9))
            first = asyncio.get_running_loop().create_task(anext(stream))
            sent = frame(1, RangeCmd(1, 9))
            await peer.sees(sent)
            let_time_pass(4.0)
            await peer.send(result_frame(1, StreamResult(1, last=False)))
            await first
            let_time_pass(1.0)
            await peer.sees(sent + b"\x00")

    run(main())


def test_a_sender_into_the_void_notices() -> None:
    """Commands of ours are no sign of life of the server's."""

    async def main() -> None:
        peer = Peer()
        async with RawServer(peer) as server, await connect(server.port, OPTIONS) as me:
            loop = asyncio.get_running_loop()
            asked = [loop.create_task(me.send(AddCmd(1, 2)))]
            for _ in range(4):
                await turns()
                let_time_pass(4.0)
                asked.append(loop.create_task(me.send(AddCmd(1, 2))))
            await asyncio.wait(asked)
            assert all(
                isinstance(task.exception(), ConnectionClosedError) for task in asked
            )
            assert "no sign of life" in str(await me.wait_closed())

    run(main())


def test_pings_leave_nothing_behind_that_a_later_command_could_meet() -> None:
    """W-C2: in Go a ping's write deadline stays, and the client is dead for sending."""

    async def main() -> None:
        async with serving() as (_, port), await connect(port, OPTIONS) as client:
            for n in range(8):
                let_time_pass(5.0)
                await until(lambda: watched(client)._pong is not None and heard(client))
                assert await client.send(AddCmd(n, 1)) == CalcResult(n + 1)
                let_time_pass(3.0)
                assert await client.send(EchoCmd("x")) == "x"

    run(main())


def test_a_connection_that_ends_while_a_ping_is_out_leaves_no_timer() -> None:
    async def main() -> None:
        peer = Peer()
        async with RawServer(peer) as server:
            client = await connect(server.port, OPTIONS)
            let_time_pass(5.0)
            await peer.sees(b"\x00")
            await client.aclose()
            watch = watched(client)._watch
            assert watch is not None
            assert watch.cancelled()
            watched(client).watch()  # greeted, and gone in the same turn
            assert watched(client)._watch is watch

    run(main())


def test_the_defaults_are_those_of_go_and_are_on_if_nothing_is_said() -> None:
    """W-C7: in Go keepalive without an option is off, and nobody is told."""

    async def main() -> None:
        peer = Peer()
        options = ClientOptions(keepalive=KeepaliveOptions())
        async with RawServer(peer) as server, await connect(server.port, options):
            let_time_pass(3.0)
            await peer.sees(b"\x00")

    run(main())


@pytest.mark.parametrize("name", ["idle_s", "interval_s", "pong_timeout_s"])
def test_times_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="more than 0 s"):
        KeepaliveOptions(**{name: 0.0})
    with pytest.raises(ValueError, match="more than 0 s"):
        KeepaliveOptions(**{name: float("nan")})
