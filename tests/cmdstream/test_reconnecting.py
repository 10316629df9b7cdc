"""A client that comes back: what of its commands, and when it does not."""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
from tests.cmdstream.helpers import (
    CODEC,
    GREETING,
    AddCmd,
    CalcResult,
    EchoCmd,
    EchoResult,
    RangeCmd,
    RawPeer,
    RawServer,
    StreamResult,
    connect,
    frame,
    let_time_pass,
    result_frame,
    run,
    turns,
    until,
)

from cmdstream import (
    Client,
    ClientOptions,
    ConnectError,
    ConnectionClosedError,
    KeepaliveOptions,
    ReconnectOptions,
    SendTimeoutError,
    ServerInfoMismatchError,
)
from cmdstream.calling import ClientLink

AT_ONCE = ReconnectOptions(random=lambda: 0.0)
OPTIONS = ClientOptions(reconnect=AT_ONCE)
SLOWLY = ReconnectOptions(first_s=10.0, longest_s=40.0, random=lambda: 0.5)

Talk = Callable[[RawPeer], Awaitable[None]]


class Script:
    """A server that says something else on each connection; the last for all others."""

    def __init__(self, *talks: Talk) -> None:
        self._talks = talks
        self.connections = 0
        self.open = 0

    async def __call__(self, peer: RawPeer) -> None:
        talk = self._talks[min(self.connections, len(self._talks) - 1)]
        self.connections += 1
        self.open += 1
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await talk(peer)
        finally:
            self.open -= 1


async def add(peer: RawPeer) -> None:
    """Greet, and answer one AddCmd after the other."""
    await peer.send(GREETING)
    while True:
        seq, a, b = await read_add(peer)
        await peer.send(result_frame(seq, CalcResult(a + b)))


async def read_add(peer: RawPeer) -> tuple[int, int, int]:
    """The next command, which is an AddCmd with one digit each."""
    data = await peer.receive(len(frame(1, AddCmd(1, 1))))
    for a in range(10):
        for b in range(10):
            if data[1:] == frame(1, AddCmd(a, b))[1:]:
                return data[0], a, b
    raise AssertionError(data)


async def greet_and_leave(peer: RawPeer) -> None:
    await peer.send(GREETING)


async def leave(_peer: RawPeer) -> None: ...


def end_with(data: bytes) -> Talk:
    """Greet, take a command, answer it with *data*, and leave."""

    async def talk(peer: RawPeer) -> None:
        await peer.send(GREETING)
        await read_add(peer)
        await peer.send(data)

    return talk


async def reset(peer: RawPeer) -> None:
    """Greet, take a command, and break off rudely."""
    await peer.send(GREETING)
    await read_add(peer)
    peer.writer.transport.abort()


def link_of(client: Client) -> ClientLink:
    assert client._line.link is not None
    return client._line.link


def spawn(client: Client, command: object) -> "asyncio.Task[object]":
    return asyncio.get_running_loop().create_task(client.send(command))


async def lost(client: Client) -> None:
    await until(lambda: not client.connected)


# Coming back.


@pytest.mark.parametrize(
    "talk",
    [
        end_with(b""),
        end_with(b"\x01"),
        end_with(b"\x01\x00"),
        end_with(b"\x01\x00\x05{"),
        end_with(b"\x09\x07\x00"),
        end_with(b"\xff" * 10),
        reset,
    ],
    ids=["end", "in a seq", "in a head", "in a body", "tag", "varint", "reset"],
)
def test_every_end_of_a_connection_is_a_reason_to_come_back(talk: Talk) -> None:
    """W-A4: Go comes back from some, and not from one inside a frame."""

    async def main() -> None:
        script = Script(talk, add)
        async with RawServer(script) as server:
            async with await connect(server.port, OPTIONS) as client:
                with pytest.raises(ConnectionClosedError) as caught:
                    await client.send(AddCmd(1, 2))
                assert caught.value.may_have_run
                assert await client.send(AddCmd(1, 2)) == CalcResult(3)
                assert client.next_seq == 3  # the numbers go on
                assert not client.closed
            assert script.connections == 2

    run(main())


def test_a_send_without_a_connection_waits_for_the_next_one_and_is_sent_once() -> None:
    """W-A2: Go writes it to the dead socket, and nobody is ever told."""

    async def main() -> None:
        proceed = asyncio.Event()
        received: list[bytes] = []

        async def later(peer: RawPeer) -> None:
            await proceed.wait()
            await peer.send(GREETING)
            received.append(await peer.receive(2 * len(frame(1, AddCmd(1, 1)))))
            await peer.send(result_frame(1, CalcResult(3)))
            await peer.send(result_frame(2, CalcResult(7)))
            received.append(await peer.rest())

        async with RawServer(Script(greet_and_leave, later)) as server:
            client = await connect(server.port, OPTIONS)
            await lost(client)
            first, second = spawn(client, AddCmd(1, 2)), spawn(client, AddCmd(3, 4))
            left = spawn(client, AddCmd(5, 6))
            await turns()
            assert client.pending == 0
            left.cancel()
            proceed.set()
            assert (await first, await second) == (CalcResult(3), CalcResult(7))
            await client.aclose()
        assert received == [frame(1, AddCmd(1, 2)) + frame(2, AddCmd(3, 4)), b""]

    run(main())


def test_every_send_around_many_losses_ends_and_none_is_sent_twice() -> None:
    """W-A2, W-A3: in Go some are in no table when it is failed, and wait for ever."""

    async def main() -> None:
        ran: list[EchoCmd] = []
        ends: list[object] = []

        async def moody(peer: RawPeer) -> None:
            await peer.send(GREETING)
            for n in range(7):
                seq = (await peer.receive(1))[0]
                _, size = await peer.receive(2)
                command = EchoCmd((await peer.receive(size))[1:-1].decode())
                ran.append(command)
                if n % 3:
                    await peer.send(result_frame(seq, EchoResult(command)))

        async def ask(client: Client, name: str) -> None:
            for n in range(4):
                command = EchoCmd(f"{name}-{n}")
                try:
                    assert await client.send(command) == command
                except ConnectionClosedError as error:
                    ends.append(error.may_have_run)
                else:
                    ends.append(command)

        async with (
            RawServer(Script(moody)) as server,
            await connect(server.port, OPTIONS) as client,
        ):
            async with asyncio.TaskGroup() as group:
                for n in range(30):  # 120 in all: every seq is one byte
                    group.create_task(ask(client, f"{n:02}"))
            assert client.pending == 0
        assert len(ends) == 120
        assert False not in ends  # a send that finds no connection waits
        assert len(ran) == len(set(ran)) > 20
        assert {end for end in ends if isinstance(end, EchoCmd)} <= set(ran)

    run(main())


def test_who_sends_again_in_the_moment_of_the_loss_is_not_lost() -> None:
    """W-A3: Go fails the entries before the table is closed."""

    async def main() -> None:
        async def again(client: Client) -> object:
            with suppress(ConnectionClosedError):
                await client.send(AddCmd(1, 2))
            return await client.send(AddCmd(3, 4))

        async with (
            RawServer(Script(end_with(b""), add)) as server,
            await connect(server.port, OPTIONS) as client,
        ):
            assert await again(client) == CalcResult(7)
            assert client.next_seq == 3

    run(main())


def test_a_stream_ends_with_its_connection_and_is_not_taken_up_again() -> None:
    async def one(peer: RawPeer) -> None:
        await peer.send(GREETING)
        await peer.receive(len(frame(1, RangeCmd(1, 2))))
        await peer.send(result_frame(1, StreamResult(1, last=False)))

    async def main() -> None:
        script = Script(one, add)
        async with (
            RawServer(script) as server,
            await connect(server.port, OPTIONS) as client,
        ):
            stream = client.stream(RangeCmd(1, 2))
            assert await anext(stream) == StreamResult(1, last=False)
            with pytest.raises(ConnectionClosedError, match="may have run"):
                await anext(stream)
            assert await client.send(AddCmd(1, 2)) == CalcResult(3)

    run(main())


def test_the_old_socket_is_closed_before_a_new_one_is_opened() -> None:
    """W-C8: in Go they stay open, all of them."""

    async def main() -> None:
        clients: list[Client] = []
        were_closed: list[bool] = []

        async def look(peer: RawPeer) -> None:
            if clients:
                were_closed.append(link_of(clients[0])._transport is None)
            await peer.send(GREETING)
            await peer.receive(1)
            await peer.send(b"\xff" * 10)  # and it is the client who hangs up
            await peer.rest()

        script = Script(look)
        async with RawServer(script) as server:
            async with await connect(server.port, OPTIONS) as client:
                clients.append(client)
                for _ in range(6):
                    with pytest.raises(ConnectionClosedError):
                        await client.send(AddCmd(1, 2))
                await until(lambda: client.connected and script.open == 1)
            assert were_closed == [True] * 6

    run(main())


def test_a_server_that_greets_and_hangs_up_is_dialled_less_and_less() -> None:
    """W-C3: Go dials 26,000 times a second."""

    async def main() -> None:
        script = Script(greet_and_leave)
        options = ClientOptions(reconnect=SLOWLY)
        async with RawServer(script) as server:
            client = await connect(server.port, options)
            for count, delay_s in enumerate([5.0, 10.0, 20.0, 20.0], 1):
                await lost(client)
                await turns()
                let_time_pass(delay_s - 1)
                await turns(100)
                assert script.connections == count
                let_time_pass(1)
                await until(lambda count=count: script.connections == count + 1)  # type: ignore[misc]
            await client.aclose()

    run(main())


def test_a_dead_connection_is_replaced_and_the_new_one_is_watched_too() -> None:
    """W-C7, and what is gained by noticing."""

    async def main() -> None:
        async def silent(peer: RawPeer) -> None:
            await peer.send(GREETING)
            await peer.rest()

        script = Script(silent, silent, add)
        keepalive = KeepaliveOptions(idle_s=5.0, interval_s=2.0, pong_timeout_s=10.0)
        options = ClientOptions(reconnect=AT_ONCE, keepalive=keepalive)
        async with (
            RawServer(script) as server,
            await connect(server.port, options) as client,
        ):
            for count in (2, 3):
                let_time_pass(5.0)
                await turns()
                let_time_pass(10.0)
                await until(lambda count=count: script.connections == count)  # type: ignore[misc]
                await until(lambda: client.connected)
            assert await client.send(AddCmd(1, 2)) == CalcResult(3)

    run(main())


def test_a_client_that_is_started_need_not_find_its_server_there() -> None:
    async def main() -> None:
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))  # and not listened on; nobody else gets its port
        address = bound.getsockname()
        with pytest.raises(ValueError, match=r"needs ClientOptions\.reconnect"):
            Client.start(address, CODEC, options=ClientOptions())
        client = Client.start(address, CODEC, options=OPTIONS, next_seq=41)
        assert not client.connected
        assert client.pending == 0
        assert client.next_seq == 41
        asked = spawn(client, AddCmd(1, 2))
        await until(lambda: "cannot connect" in str(client._line.last_failure))
        assert client.pending == 0
        async with RawServer(Script(add), bound):
            assert await asked == CalcResult(3)
            assert client.next_seq == 42
            await client.aclose()

    run(main())


# Not coming back.


def test_without_the_option_a_client_ends_with_its_connection() -> None:
    async def main() -> None:
        script = Script(greet_and_leave)
        async with RawServer(script) as server:
            client = await connect(server.port)
            ended = await client.wait_closed()
            assert client.closed
            with pytest.raises(ConnectionClosedError, match="was not sent") as caught:
                await client.send(AddCmd(1, 2))
            assert not caught.value.may_have_run
            assert caught.value.__cause__ is ended
            await client.aclose()
            assert await client.wait_closed() is ended  # the first reason stands
            assert script.connections == 1

    run(main())


def test_the_first_connection_is_not_tried_for_twice() -> None:
    async def main() -> None:
        script = Script(leave)
        async with RawServer(script) as server:
            with pytest.raises(ConnectionClosedError):
                await connect(server.port, OPTIONS)
            await turns()
            assert script.connections == 1

    run(main())


def test_another_server_info_is_the_end() -> None:
    async def other(peer: RawPeer) -> None:
        await peer.send(b"\x07another")
        await peer.rest()

    async def main() -> None:
        script = Script(greet_and_leave, other)
        async with RawServer(script) as server:
            client = await connect(server.port, OPTIONS)
            await lost(client)
            asked = spawn(client, AddCmd(1, 2))
            with pytest.raises(ConnectionClosedError, match="has b'another'") as caught:
                await asked
            assert not caught.value.may_have_run
            assert type(await client.wait_closed()) is ServerInfoMismatchError
            assert client.closed
            await turns()
            assert script.connections == 2
            await until(lambda: script.open == 0)  # W-C10: it was hung up on

    run(main())


def test_it_gives_up_after_so_many_tries_and_says_why() -> None:
    async def main() -> None:
        script = Script(greet_and_leave, leave)
        reconnect = ReconnectOptions(random=lambda: 0.0, tries_max=3)
        async with RawServer(script) as server:
            client = await connect(server.port, ClientOptions(reconnect=reconnect))
            await lost(client)
            asked = spawn(client, AddCmd(1, 2))
            with pytest.raises(
                ConnectionClosedError,
                match=r"gave up on 127.* after 3 tries .*: the peer closed the conn",
            ) as caught:
                await asked
            assert not caught.value.may_have_run
            assert type(await client.wait_closed()) is ConnectError
            assert script.connections == 4

    run(main())


def test_it_gives_up_after_so_long_also_within_a_try() -> None:
    async def main() -> None:
        async def silent(peer: RawPeer) -> None:
            await peer.rest()

        script = Script(greet_and_leave, leave, silent)
        reconnect = ReconnectOptions(random=lambda: 0.0, outage_max_s=30.0)
        options = ClientOptions(reconnect=reconnect, server_info_timeout_s=100.0)
        async with RawServer(script) as server:
            client = await connect(server.port, options)
            await until(lambda: script.connections == 3)
            let_time_pass(30.0)
            ended = await client.wait_closed()
            assert "gave up" in str(ended)
            assert "after 2 tries in 30." in str(ended)
            await until(lambda: script.open == 0)

    run(main())


def test_a_time_out_without_a_connection_says_the_last_reason() -> None:
    async def main() -> None:
        script = Script(greet_and_leave)
        options = ClientOptions(reconnect=SLOWLY)
        async with RawServer(script) as server:
            client = await connect(server.port, options)
            await lost(client)
            asked = asyncio.get_running_loop().create_task(
                client.send(AddCmd(1, 2), timeout_s=2.0)
            )
            await turns()
            let_time_pass(2.0)
            with pytest.raises(
                SendTimeoutError,
                match=r"AddCmd was not sent within 2.0 s: no connection to 127.*: "
                "the peer closed",
            ) as caught:
                await asked
            assert not caught.value.may_have_run
            assert client.next_seq == 1
            assert not client._line.changes._waiters  # nor is it waited for any more
            await client.aclose()

    run(main())


@pytest.mark.parametrize("while_", ["waiting", "dialling", "connected"])
def test_the_users_close_is_the_end_at_any_moment(while_: str) -> None:
    async def main() -> None:
        async def silent(peer: RawPeer) -> None:
            await peer.rest()

        script = Script(greet_and_leave, add if while_ == "connected" else silent)
        reconnect = SLOWLY if while_ == "waiting" else AT_ONCE
        async with RawServer(script) as server:
            client = await connect(server.port, ClientOptions(reconnect=reconnect))
            await lost(client)
            if while_ == "dialling":
                await until(lambda: script.connections == 2)
            elif while_ == "connected":
                await until(lambda: client.connected)
            asked = spawn(client, EchoCmd("x"))
            await turns()
            await client.aclose()
            await client.aclose()
            with pytest.raises(ConnectionClosedError, match="client was closed") as end:
                await asked
            assert end.value.may_have_run is (while_ == "connected")
            with pytest.raises(ConnectionClosedError, match="client was closed"):
                await client.send(AddCmd(1, 2))
            await until(lambda: script.open == 0)
            let_time_pass(50.0)
            await turns()
            assert script.connections == (1 if while_ == "waiting" else 2)

    run(main())


def test_a_loop_that_ends_ends_the_client() -> None:
    async def main() -> None:
        async with RawServer(Script(add)) as server:
            client = await connect(server.port, OPTIONS)
            asked = spawn(client, AddCmd(1, 2))
            assert await asked == CalcResult(3)
            assert client._line._keeper is not None
            client._line._keeper.cancel()  # as `asyncio.run` does with what is left
            with pytest.raises(ConnectionClosedError, match="was cancelled"):
                raise await client.wait_closed()
            assert client.closed
            assert not client.connected

    run(main())


def test_what_no_connection_can_be_made_to_ends_with_its_reason() -> None:
    async def main() -> None:
        client = Client.start(("a" * 70, 1), CODEC, options=OPTIONS)
        with pytest.raises(ConnectionClosedError, match="cannot go on after Unicode"):
            await client.send(AddCmd(1, 2))
        assert isinstance((await client.wait_closed()).__cause__, UnicodeError)
        await client.aclose()

    run(main())
