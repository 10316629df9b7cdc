"""The client over real sockets: against our server, and against worse ones."""

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

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
    SleepCmd,
    StreamResult,
    connect,
    frame,
    result_frame,
    run,
    serving,
    until,
)

from cmdstream import (
    Client,
    ClientOptions,
    CmdStreamError,
    ConnectError,
    ConnectionClosedError,
    DecodeError,
    EncodeError,
    LinkOptions,
    LocalProtocolError,
    RemoteProtocolError,
    ResultReceived,
    ResultsOverflowError,
    ServerInfoMismatchError,
    ServerOptions,
)
from cmdstream.calling import ClientLink

MIB = 1024 * 1024

Talk = Callable[[RawPeer], Awaitable[None]]


def greet_and(talk: Talk | None = None, *, greeting: bytes = GREETING) -> Talk:
    """A server that greets, does *talk*, and then waits for the client to leave."""

    async def server(peer: RawPeer) -> None:
        await peer.send(greeting)
        if talk is not None:
            await talk(peer)
        await peer.rest()

    return server


def link_of(client: Client) -> ClientLink:
    assert client._line.link is not None
    return client._line.link


def spawn(client: Client, command: object) -> "asyncio.Task[object]":
    return asyncio.get_running_loop().create_task(client.send(command))


# Connecting.


def test_another_server_is_refused_and_hung_up_on() -> None:
    """W-C10: Go leaves the connection open."""

    async def main() -> None:
        options = ServerOptions(server_info=b"orders-v3")
        async with serving(options=options) as (server, port):
            with pytest.raises(ServerInfoMismatchError, match="orders-v3"):
                await connect(port)
            await until(lambda: server.connections == 0)
            mine = ClientOptions(server_info=b"orders-v3")
            async with await connect(port, mine) as client:
                assert await client.send(AddCmd(1, 2)) == CalcResult(3)

    run(main())


def test_a_server_that_does_not_greet_is_given_up() -> None:
    """W-C11: Go waits for ever."""

    async def main() -> None:
        async with RawServer(greet_and(greeting=b"\x07def")) as server:
            with pytest.raises(ConnectError, match=r"no server info within 0\.02 s"):
                await connect(server.port, ClientOptions(server_info_timeout_s=0.02))

    run(main())


def test_a_server_that_hangs_up_instead_of_greeting_is_an_error() -> None:
    async def hang_up(peer: RawPeer) -> None:
        await peer.aclose()

    async def main() -> None:
        async with RawServer(hang_up) as server:
            with pytest.raises(
                ConnectError, match="sent no server info: the peer closed"
            ) as caught:
                await connect(server.port)
            assert not caught.value.may_have_run

    run(main())


def test_a_greeting_over_the_limit_is_refused() -> None:
    async def main() -> None:
        async with RawServer(greet_and(greeting=b"\x81\x08")) as server:
            with pytest.raises(RemoteProtocolError, match="1025 bytes announced"):
                await connect(server.port)

    run(main())


def test_nobody_there_is_an_error(tmp_path: Path) -> None:
    async def main() -> None:
        with socket.socket() as bound:  # and not listened on; nobody else gets its port
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
            with pytest.raises(ConnectError, match=f"connect to 127.0.0.1:{port}: "):
                await connect(port)
        with pytest.raises(ConnectError, match="nowhere: "):
            await Client.connect_unix(str(tmp_path / "nowhere"), CODEC)

    run(main())


def test_a_connection_that_takes_too_long_is_given_up() -> None:
    async def main() -> None:
        async with serving() as (server, port):
            with pytest.raises(ConnectError, match="in time"):
                await connect(port, ClientOptions(connect_timeout_s=0.0))
            async with await connect(port) as client:
                assert await client.send(AddCmd(1, 2)) == CalcResult(3)
            await until(lambda: server.connections == 0)

    run(main())


def test_connecting_that_is_cancelled_leaves_nothing_open() -> None:
    async def main() -> None:
        left = asyncio.Event()

        async def silent(peer: RawPeer) -> None:
            await peer.rest()
            left.set()

        async with RawServer(silent) as server:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.02):
                    await connect(server.port)
            await left.wait()

    run(main())


# Sending.


def test_a_command_that_cannot_be_sent_harms_nobody() -> None:
    """W-A1: in Go its number stays in the buffer, and the next frame is garbage."""

    async def main() -> None:
        async with serving() as (_, port), await connect(port) as client:
            # W-D6: the error names the type, not what reflects it.
            with pytest.raises(EncodeError, match=r"^object is not a registered comm"):
                await client.send(object())
            with pytest.raises(EncodeError, match=r"^AddCmd has no JSON form"):
                await client.send(AddCmd(1, 2**70))
            with pytest.raises(EncodeError):
                await anext(client.stream(EchoCmd("\ud800")))
            assert client.pending == 0
            assert client.next_seq == 1
            assert await client.send(AddCmd(1, 2)) == CalcResult(3)
            assert client.next_seq == 2

    run(main())


def test_a_send_that_is_timed_out_is_forgotten_and_hurts_no_later_one() -> None:
    """W-C1, W-C2: in Go a deadline stays, and the client is dead for sending."""

    async def main() -> None:
        held = Held()
        late: list[ResultReceived] = []
        async with (
            serving(held) as (_, port),
            await Client.connect(
                "127.0.0.1", port, CODEC, on_unexpected=late.append
            ) as client,
        ):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await client.send(EchoCmd("slow"))
            assert client.pending == 0
            slow = await held.reply()
            asked = spawn(client, EchoCmd("fast"))
            fast = await held.reply()
            slow.send_nowait(EchoResult("late"))
            fast.send_nowait(EchoResult("fast"))
            assert await asked == "fast"
            assert [(received.seq, received.result) for received in late] == [
                (1, "late")
            ]
            await client.ping()

    run(main())


def test_late_results_are_dropped_if_nobody_asked_for_them() -> None:
    async def talk(peer: RawPeer) -> None:
        await peer.send(result_frame(9, CalcResult(1)) + b"\x00")
        await peer.receive(1)
        await peer.send(b"\x00")

    async def main() -> None:
        async with (
            RawServer(greet_and(talk)) as server,
            await connect(server.port) as client,
        ):
            await client.ping()

    run(main())


def test_several_results_are_no_answer_to_a_send() -> None:
    async def main() -> None:
        async with serving() as (_, port), await connect(port) as client:
            with pytest.raises(
                LocalProtocolError, match=r"StreamResult: use stream\(\)"
            ):
                await client.send(RangeCmd(1, 3))
            assert client.pending == 0
            assert await client.send(AddCmd(1, 2)) == CalcResult(3)

    run(main())


def test_a_sender_waits_while_the_server_does_not_read() -> None:
    async def main() -> None:
        proceed = asyncio.Event()

        async def talk(peer: RawPeer) -> None:
            await proceed.wait()

        options = ClientOptions(link=LinkOptions(unsent_high_size=MIB))
        async with (
            RawServer(greet_and(talk)) as server,
            await connect(server.port, options) as client,
        ):
            sent = [spawn(client, EchoCmd("x" * MIB)) for _ in range(24)]
            streams = client.stream(EchoCmd("x"))
            first = asyncio.get_running_loop().create_task(anext(streams))
            ping = asyncio.get_running_loop().create_task(client.ping())
            await until(lambda: not link_of(client).writable)
            assert client.pending < 24
            proceed.set()
            await until(lambda: client.pending == 25)
            for task in (*sent, first, ping):
                task.cancel()
            await asyncio.wait([*sent, first, ping])

    run(main())


# Streams.


def test_a_stream_ends_with_its_last_result() -> None:
    async def main() -> None:
        async with serving() as (_, port), await connect(port) as client:
            stream = client.stream(RangeCmd(10, 2))
            assert client.pending == 0  # nothing is sent before it is read
            assert [result async for result in stream] == [
                StreamResult(10, last=False),
                StreamResult(11, last=True),
            ]
            assert [result async for result in stream] == []
            assert client.pending == 0

    run(main())


def test_a_stream_that_is_left_early_is_forgotten() -> None:
    async def main() -> None:
        async with serving() as (_, port), await connect(port) as client:
            async with client.stream(RangeCmd(1, 3)) as results:
                async for _ in results:
                    break
            assert client.pending == 0
            with pytest.raises(StopAsyncIteration):
                await anext(results)
            await client.stream(RangeCmd(1, 3)).aclose()  # never begun

    run(main())


def test_reading_a_stream_may_be_cancelled_and_goes_on() -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (_, port), await connect(port) as client:
            stream = client.stream(RangeCmd(1, 2))
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await anext(stream)
            reply = await held.reply()
            await reply.send(StreamResult(1, last=False))
            await reply.send(StreamResult(2, last=True))
            assert len([result async for result in stream]) == 2

    run(main())


def test_a_slow_reader_of_a_stream_stalls_nobody_else() -> None:
    """4.2: Go's receive loop blocks on a full channel, and with it every command."""

    async def main() -> None:
        late: list[ResultReceived] = []
        options = ClientOptions(stream_results_max=4)
        async with (
            serving() as (_, port),
            await Client.connect(
                "127.0.0.1", port, CODEC, options=options, on_unexpected=late.append
            ) as client,
        ):
            stream = client.stream(RangeCmd(1, 20))
            assert await anext(stream) == StreamResult(1, last=False)
            assert await client.send(AddCmd(1, 2)) == CalcResult(3)
            for n in range(2, 6):
                assert await anext(stream) == StreamResult(n, last=False)
            with pytest.raises(ResultsOverflowError, match="4 results of seq 1"):
                await anext(stream)
            assert client.pending == 0
            assert late[-1].result == StreamResult(20, last=True)
            assert [result async for result in stream] == []

    run(main())


def test_a_burst_is_no_fault_of_a_reader_that_keeps_up() -> None:
    async def main() -> None:
        options = ClientOptions(stream_results_max=4)
        async with serving() as (_, port), await connect(port, options) as client:
            stream = client.stream(RangeCmd(1, 1000))
            asked = spawn(client, AddCmd(1, 2))
            assert len([result async for result in stream]) == 1000
            assert await asked == CalcResult(3)

    run(main())


def test_a_connection_may_end_while_a_result_is_held_back() -> None:
    async def main() -> None:
        options = ClientOptions(stream_results_max=1)
        async with serving() as (_, port), await connect(port, options) as client:
            stream = client.stream(RangeCmd(1, 1000))
            assert await anext(stream) == StreamResult(1, last=False)
            assert link_of(client)._held is not None  # the second, in the same segment
            link_of(client).abort(ConnectionClosedError("for the test"))
            with pytest.raises(ConnectionClosedError, match="for the test"):
                await anext(stream)

    run(main())


def test_two_readers_of_one_stream_are_refused() -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (_, port), await connect(port) as client:
            stream = client.stream(RangeCmd(1, 1))
            first = asyncio.get_running_loop().create_task(anext(stream))
            reply = await held.reply()
            with pytest.raises(LocalProtocolError, match="two tasks"):
                await anext(stream)
            await reply.send(StreamResult(1, last=True))
            assert await first == StreamResult(1, last=True)

    run(main())


# Ending.


@pytest.mark.parametrize(
    ("sent", "kind", "reason"),
    [
        (b"", ConnectionClosedError, "the peer closed the connection"),
        (b"\x01\x00", RemoteProtocolError, "connection closed inside a frame, after 2"),
        (b"\x09\x07\x00", DecodeError, "unknown result tag 7: 3 are registered"),
        (b"\x09\x00\x03abc", DecodeError, "result CalcResult: "),
        (b"\xff" * 10, RemoteProtocolError, "varint is longer than 10 bytes"),
    ],
)
def test_everything_pending_fails_when_the_connection_ends(
    sent: bytes, kind: type[CmdStreamError], reason: str
) -> None:
    async def main() -> None:
        async def talk(peer: RawPeer) -> None:
            await peer.receive(len(frame(1, AddCmd(1, 1))) * 2 + 1)
            await peer.send(sent)
            await peer.aclose()

        async with RawServer(greet_and(talk)) as server:
            client = await connect(server.port)
            asked = spawn(client, AddCmd(1, 1))
            stream = client.stream(AddCmd(1, 1))
            read = asyncio.get_running_loop().create_task(anext(stream))
            pinged = asyncio.get_running_loop().create_task(client.ping())
            await asyncio.wait([asked, read, pinged])
            for task in (asked, read, pinged):
                error = task.exception()
                assert type(error) is ConnectionClosedError
                assert reason in str(error)
                assert error.may_have_run is (task is not pinged)
            ended = await client.wait_closed()
            assert type(ended) is kind
            assert client.closed
            assert client.pending == 0
            with pytest.raises(ConnectionClosedError) as caught:
                await client.send(AddCmd(1, 1))
            assert caught.value.__cause__ is ended
            assert not caught.value.may_have_run
            with pytest.raises(ConnectionClosedError):
                await client.ping()
            await client.aclose()

    run(main())


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"\x02\x07\x00", "unknown result tag 7"),
        (b"\x02\x00\x03abc", "result CalcResult: "),
        (b"\x02\x00\xff\xff\xff\x7f", "announces 268435455 bytes"),
    ],
)
def test_an_answer_that_can_not_be_read_is_told_to_whose_it_is(
    answer: bytes, reason: str
) -> None:
    """Only that command is known to have run."""

    async def main() -> None:
        async def talk(peer: RawPeer) -> None:
            await peer.receive(len(frame(1, AddCmd(1, 1))) * 3)
            await peer.send(answer)

        async with RawServer(greet_and(talk)) as server:
            client = await connect(server.port)
            first, second, third = (spawn(client, AddCmd(1, n)) for n in range(3))
            await asyncio.wait([first, second, third])
            whose = second.exception()
            assert isinstance(whose, RemoteProtocolError)
            assert (whose.seq, reason in str(whose)) == (2, True)
            for task in (first, third):
                assert type(task.exception()) is ConnectionClosedError
            await client.aclose()

    run(main())


def test_a_stream_ends_with_the_result_that_can_not_be_read() -> None:
    async def main() -> None:
        async def talk(peer: RawPeer) -> None:
            await peer.receive(len(frame(1, RangeCmd(1, 2))))
            await peer.send(result_frame(1, StreamResult(1, last=False)))
            await peer.send(b"\x01\x02\x01!")

        async with RawServer(greet_and(talk)) as server:
            client = await connect(server.port)
            stream = client.stream(RangeCmd(1, 2))
            assert await anext(stream) == StreamResult(1, last=False)
            with pytest.raises(DecodeError, match="result StreamResult"):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            await client.aclose()

    run(main())


def test_closing_the_client_fails_what_is_pending_and_may_be_repeated() -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (server, port):
            client = await connect(port)
            asked = spawn(client, EchoCmd("x"))
            reply = await held.reply()
            await client.aclose()
            await client.aclose()
            with pytest.raises(ConnectionClosedError, match="the client was closed"):
                await asked
            await until(lambda: reply.closed)
            assert server.connections == 0
            reply.finish()

    run(main())


def test_results_that_had_arrived_come_before_the_end() -> None:
    async def talk(peer: RawPeer) -> None:
        await peer.receive(1)
        await peer.send(result_frame(1, StreamResult(1, last=False)))
        await peer.aclose()

    async def main() -> None:
        async with (
            RawServer(greet_and(talk)) as server,
            await connect(server.port) as client,
        ):
            stream = client.stream(RangeCmd(1, 2))
            assert await anext(stream) == StreamResult(1, last=False)
            with pytest.raises(ConnectionClosedError):
                await anext(stream)

    run(main())


def test_an_error_in_the_moment_of_cancellation_is_not_reported_as_lost() -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (_, port):
            client = await connect(port)
            asked = spawn(client, EchoCmd("x"))
            pinged = asyncio.get_running_loop().create_task(client.ping())
            await pinged
            pinged = asyncio.get_running_loop().create_task(client.ping())
            await held.reply()
            link_of(client).abort(ConnectionClosedError("for the test"))
            asked.cancel()
            pinged.cancel()
            await asyncio.wait([asked, pinged])
            del asked, pinged
            gc.collect()  # `run` fails if asyncio complains
            await client.aclose()

    run(main())


def test_a_failing_callback_ends_the_connection_with_its_reason() -> None:
    def fail(_received: ResultReceived) -> None:
        raise LookupError("nobody expects it")

    async def talk(peer: RawPeer) -> None:
        await peer.receive(1)
        await peer.send(result_frame(9, CalcResult(1)))

    async def main() -> None:
        async with RawServer(greet_and(talk)) as server:
            client = await Client.connect(
                "127.0.0.1", server.port, CODEC, on_unexpected=fail
            )
            with pytest.raises(ConnectionClosedError):
                await client.ping()
            ended = await client.wait_closed()
            assert "LookupError('nobody expects it')" in str(ended)
            assert isinstance(ended.__cause__, LookupError)

    run(main())


def test_a_callback_that_hangs_up_still_sees_the_rest_of_the_segment() -> None:
    unexpected: list[int] = []

    async def talk(peer: RawPeer) -> None:
        await peer.receive(1)
        nobodys, the_senders = CalcResult(1), CalcResult(3)
        await peer.send(result_frame(9, nobodys) + result_frame(1, the_senders))

    async def main() -> None:
        async with RawServer(greet_and(talk)) as server:

            def hang_up(received: ResultReceived) -> None:
                unexpected.append(received.seq)
                link_of(client).close(ConnectionClosedError("enough"))

            client = await Client.connect(
                "127.0.0.1", server.port, CODEC, on_unexpected=hang_up
            )
            with pytest.raises(ConnectionClosedError, match="enough") as failed:
                await client.send(AddCmd(1, 2))
            assert failed.value.may_have_run
            assert unexpected == [9, 1]
            await client.aclose()

    run(main())


def test_a_successor_counts_on() -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (_, port):
            client = await Client.connect("127.0.0.1", port, CODEC, next_seq=41)
            asked = spawn(client, SleepCmd(1, "x"))
            received, reply = await held.next()
            assert received.seq == reply.seq == 41
            assert repr(reply).startswith("<Reply open seq=41 peer=127.0.0.1:")
            reply.send_nowait(EchoResult("x"))
            assert repr(reply).startswith("<Reply finished")
            assert await asked == "x"
            assert client.next_seq == 42
            await client.aclose()

    run(main())
