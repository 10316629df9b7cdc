"""Several connections behind one face."""

import asyncio
import socket
from collections.abc import Sequence
from contextlib import AsyncExitStack

import pytest
from tests.cmdstream.helpers import (
    CODEC,
    GREETING,
    AddCmd,
    CalcResult,
    EchoCmd,
    EchoResult,
    Held,
    RangeCmd,
    RawPeer,
    RawServer,
    let_time_pass,
    run,
    serving,
    turns,
    until,
)

from cmdstream import (
    Client,
    ClientOptions,
    ConnectError,
    ConnectionClosedError,
    Group,
    LeastPending,
    LinkOptions,
    ReconnectOptions,
    RoundRobin,
    SendTimeoutError,
    Server,
    ServerInfoMismatchError,
    ServerOptions,
)

MIB = 1024 * 1024
AT_ONCE = ClientOptions(reconnect=ReconnectOptions(random=lambda: 0.0))
HOST = "127.0.0.1"


def bound_socket() -> socket.socket:
    """A port that nobody listens on, nor else gets."""
    bound = socket.socket()
    bound.bind((HOST, 0))
    return bound


def spawn(group: Group, command: object) -> "asyncio.Task[object]":
    return asyncio.get_running_loop().create_task(group.send(command))


async def spread(group: Group, helds: Sequence[Held], count: int) -> list[int]:
    """Send *count* commands and return how many each server got; answer them all."""
    asked = [spawn(group, EchoCmd("x")) for _ in range(count)]
    await until(lambda: sum(held.arrived.qsize() for held in helds) == count)
    counts = [held.arrived.qsize() for held in helds]
    for held in helds:
        while not held.arrived.empty():
            (await held.reply()).send_nowait(EchoResult("x"))
    assert {await task for task in asked} == {"x"}
    return counts


async def servers(
    stack: AsyncExitStack, count: int
) -> tuple[list[Held], list[Server], list[tuple[str, int]]]:
    """Servers that keep their commands for the test to answer."""
    helds = [Held() for _ in range(count)]
    found: list[Server] = []
    addresses: list[tuple[str, int]] = []
    for held in helds:
        server, port = await stack.enter_async_context(serving(held))
        found.append(server)
        addresses.append((HOST, port))
    return helds, found, addresses


def test_a_group_sends_streams_and_pings_as_a_client_does() -> None:
    async def main() -> None:
        async with serving() as (server, port):
            async with await Group.connect(
                [(HOST, port)], CODEC, connections=3
            ) as group:
                assert server.connections == 3
                assert await group.send(AddCmd(1, 2), timeout_s=60.0) == CalcResult(3)
                assert await group.send(AddCmd(1, 2)) == CalcResult(3)
                assert len([one async for one in group.stream(RangeCmd(1, 5))]) == 5
                await group.ping()
                assert group.connected
                assert group.pending == 0
                assert sum(member.next_seq - 1 for member in group.members) == 3
            assert [member.closed for member in group.members] == [True] * 3
            assert [group.closed, group.connected] == [True, False]
            await until(lambda: server.connections == 0)
            with pytest.raises(ConnectionClosedError, match="group was closed") as end:
                await group.send(AddCmd(1, 2))
            assert not end.value.may_have_run
            await group.aclose()

    run(main())


def test_round_robin_gives_each_its_turn() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            helds, _, addresses = await servers(stack, 3)
            async with await Group.connect(addresses, CODEC) as group:
                assert await spread(group, helds, 7) == [3, 2, 2]

    run(main())


def test_least_pending_goes_where_the_fewest_are_under_way() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            helds, _, addresses = await servers(stack, 2)
            group = await Group.connect(addresses, CODEC, strategy=LeastPending())
            async with group:
                slow = [spawn(group, EchoCmd("slow")) for _ in range(6)]
                await until(lambda: helds[0].arrived.qsize() == 3)
                for _ in range(3):
                    (await helds[0].reply()).send_nowait(EchoResult("x"))
                await until(lambda: group.pending == 3)
                assert await spread(group, helds[:1], 3) == [3]
                for _ in range(3):
                    (await helds[1].reply()).send_nowait(EchoResult("x"))
                await asyncio.wait(slow)
                assert await spread(group, helds, 4) == [2, 2]

    run(main())


def test_a_member_that_is_down_is_not_chosen_until_it_is_back() -> None:
    """W-D3: in Go it keeps its share, and those sends fail."""

    async def main() -> None:
        async with AsyncExitStack() as stack:
            helds, found, addresses = await servers(stack, 2)
            group = await Group.connect(addresses, CODEC, options=AT_ONCE)
            async with group:
                assert await spread(group, helds, 4) == [2, 2]
                await found[0].aclose()
                await until(lambda: not group.members[0].connected)
                assert await spread(group, helds, 6) == [0, 6]
                again = await stack.enter_async_context(Server(CODEC, helds[0]))
                await again.listen(*addresses[0])
                await until(lambda: group.members[0].connected)
                assert await spread(group, helds, 4) == [2, 2]

    run(main())


def test_a_send_waits_for_the_first_member_that_is_back() -> None:
    async def main() -> None:
        sockets = [bound_socket(), bound_socket()]
        addresses = [sock.getsockname() for sock in sockets]
        with pytest.raises(ValueError, match=r"needs ClientOptions\.reconnect"):
            Group.start(addresses, CODEC, options=ClientOptions())
        group = Group.start(addresses, CODEC, options=AT_ONCE)
        asked = spawn(group, AddCmd(1, 2))
        timed = asyncio.get_running_loop().create_task(
            group.send(AddCmd(1, 2), timeout_s=5.0)
        )
        await turns()
        assert not group.connected
        let_time_pass(5.0)
        with pytest.raises(
            SendTimeoutError, match=r"no connection to .*; no conn"
        ) as end:
            await timed
        assert not end.value.may_have_run

        async def answer(peer: RawPeer) -> None:
            await peer.send(GREETING)
            await peer.receive(1)
            await peer.send(b"\x01\x00\x013")
            await peer.rest()

        async with RawServer(answer, sockets[1]):
            assert await asked == CalcResult(3)
            assert [member.connected for member in group.members] == [False, True]
            await group.aclose()
        sockets[0].close()

    run(main())


def test_a_member_that_reads_too_slowly_is_passed_over_if_another_does_not() -> None:
    async def main() -> None:
        proceed = asyncio.Event()

        async def stuck(peer: RawPeer) -> None:
            await peer.send(GREETING)
            await proceed.wait()
            await peer.rest()

        options = ClientOptions(link=LinkOptions(unsent_high_size=MIB))
        async with AsyncExitStack() as stack:
            slow = [await stack.enter_async_context(RawServer(stuck)) for _ in range(2)]
            _, port = await stack.enter_async_context(serving())
            addresses = [(HOST, one.port) for one in slow]
            group = await Group.connect(
                [*addresses, (HOST, port)], CODEC, options=options
            )
            lines = list(group._pool._lines.values())
            loop = asyncio.get_running_loop()
            fill = [
                loop.create_task(member.send(EchoCmd("x" * MIB)))
                for member in group.members[:2]
                for _ in range(24)
            ]
            await until(
                lambda: not any(line.link and line.link.ready for line in lines[:2])
            )
            assert [await group.send(AddCmd(1, 2)) for _ in range(4)] == [3, 3, 3, 3]
            await group.members[2].aclose()
            waits = spawn(group, AddCmd(1, 2))
            await turns()
            pending = group.pending
            proceed.set()
            await until(lambda: group.pending > pending)
            for task in (*fill, waits):
                task.cancel()
            await asyncio.wait([*fill, waits])
            await group.aclose()

    run(main())


def test_a_send_fails_when_every_member_is_closed() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            _, found, addresses = await servers(stack, 2)
            group = await Group.connect(addresses, CODEC)
            for server in found:
                await server.aclose()
            await until(lambda: group.closed)
            with pytest.raises(ConnectionClosedError, match="was not sent"):
                await group.send(AddCmd(1, 2))
            await group.aclose()

    run(main())


# Connecting.


@pytest.mark.parametrize("options", [None, AT_ONCE], ids=["once", "reconnecting"])
def test_another_server_info_of_one_member_leaves_no_member_open(
    options: ClientOptions | None,
) -> None:
    """W-C10: in Go the constructor leaks the connections that were made."""

    async def main() -> None:
        async with serving() as (good, port):
            another = ServerOptions(server_info=b"another")
            async with serving(options=another) as (bad, other_port):
                with pytest.raises(ServerInfoMismatchError):
                    await Group.connect(
                        [(HOST, port), (HOST, other_port)],
                        CODEC,
                        connections=2,
                        options=options,
                    )
                await until(lambda: good.connections == bad.connections == 0)

    run(main())


def test_one_member_that_is_down_fails_a_group_that_does_not_reconnect() -> None:
    async def main() -> None:
        async with serving() as (server, port):
            with bound_socket() as first, bound_socket() as second:
                addresses = [(HOST, port), first.getsockname(), second.getsockname()]
                with pytest.raises(ConnectError) as caught:
                    await Group.connect(addresses, CODEC)
                assert str(addresses[1][1]) in str(caught.value)
                assert str(addresses[2][1]) in caught.value.__notes__[0]
            await until(lambda: server.connections == 0)

    run(main())


def test_one_member_that_is_up_is_enough_for_one_that_does() -> None:
    async def main() -> None:
        with bound_socket() as down:
            async with serving() as (_, port):
                addresses = [down.getsockname(), (HOST, port)]
                group = await Group.connect(addresses, CODEC, options=AT_ONCE)
                assert [member.connected for member in group.members] == [False, True]
                assert await group.send(AddCmd(1, 2)) == CalcResult(3)
                await group.aclose()
            with pytest.raises(ConnectError):
                await Group.connect([down.getsockname()], CODEC, options=AT_ONCE)

    run(main())


def test_connecting_that_is_cancelled_leaves_nothing_open() -> None:
    async def main() -> None:
        async def silent(peer: RawPeer) -> None:
            await peer.rest()

        async with serving() as (server, port), RawServer(silent) as never:
            addresses = [(HOST, port), (HOST, never.port)]
            connecting = asyncio.get_running_loop().create_task(
                Group.connect(addresses, CODEC)
            )
            await until(lambda: server.connections == 1)
            await turns()
            connecting.cancel()
            await asyncio.wait([connecting])
            assert connecting.cancelled()
            await until(lambda: server.connections == 0)

    run(main())


def test_a_group_of_none_is_refused() -> None:
    async def main() -> None:
        with pytest.raises(ValueError, match="needs an address"):
            await Group.connect([], CODEC)
        with pytest.raises(ValueError, match="connections=0"):
            Group.start([("x", 1)], CODEC, connections=0, options=AT_ONCE)

    run(main())


def test_strategies_choose_among_what_they_are_given() -> None:
    members = [Client.__new__(Client) for _ in range(3)]
    choose = RoundRobin()
    assert [members.index(choose(members)) for _ in range(4)] == [0, 1, 2, 0]
    assert [members.index(choose(members[:2])) for _ in range(2)] == [0, 1]
