"""One command: its time-out, its cancellation, its stream."""

import asyncio
import gc
from typing import Any

import pytest
from tests.cmdstream.helpers import (
    CODEC,
    GREETING,
    AddCmd,
    EchoCmd,
    EchoResult,
    Held,
    RangeCmd,
    RawPeer,
    RawServer,
    StreamResult,
    connect,
    let_time_pass,
    run,
    serving,
    turns,
    until,
)

from cmdstream import (
    Client,
    ClientOptions,
    CmdStreamError,
    ConnectionClosedError,
    LinkOptions,
    LocalProtocolError,
    ReconnectOptions,
    ResultReceived,
    ResultStream,
    SendTimeoutError,
)

MIB = 1024 * 1024


def spawn(work: Any) -> "asyncio.Task[Any]":
    return asyncio.get_running_loop().create_task(work)


async def next_of(stream: ResultStream) -> object:
    try:
        return await anext(stream)
    except StopAsyncIteration:
        return "the end"


# Time-outs of a send.


def test_a_time_out_is_an_error_of_its_own_and_hurts_no_later_send() -> None:
    """W-C1: in Go the deadline stays on the socket, and every later send fails."""

    async def main() -> None:
        held = Held()
        late: list[ResultReceived] = []
        async with (
            serving(held) as (_, port),
            await Client.connect(
                "127.0.0.1", port, CODEC, on_unexpected=late.append
            ) as client,
        ):
            asked = spawn(client.send(EchoCmd("slow"), timeout_s=5.0))
            slow = await held.reply()
            let_time_pass(5.0)
            with pytest.raises(SendTimeoutError, match=r"EchoCmd .* after 5\.0 s"):
                await asked
            assert client.pending == 0
            again = spawn(client.send(EchoCmd("fast"), timeout_s=5.0))
            fast = await held.reply()
            slow.send_nowait(EchoResult("late"))
            fast.send_nowait(EchoResult("fast"))
            assert await again == "fast"
            assert [(one.seq, one.result) for one in late] == [(1, "late")]
            let_time_pass(20.0)
            await turns()
            asked = spawn(client.send(EchoCmd("x")))
            (await held.reply()).send_nowait(EchoResult("x"))
            assert await asked == "x"

    run(main())


def test_a_time_out_says_whether_the_command_may_have_run() -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (_, port), await connect(port) as client:
            asked = spawn(client.send(EchoCmd("x"), timeout_s=5.0))
            await held.reply()
            let_time_pass(5.0)
            with pytest.raises(SendTimeoutError) as caught:
                await asked
            assert caught.value.may_have_run
            # What a caller may catch it as.
            assert issubclass(SendTimeoutError, TimeoutError)
            assert issubclass(SendTimeoutError, CmdStreamError)

    run(main())


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan")])
def test_a_time_that_is_over_before_it_begins_sends_nothing(timeout_s: float) -> None:
    """W-D2: Go does not look at the context before it sends."""

    async def main() -> None:
        async with serving() as (_, port), await connect(port) as client:
            with pytest.raises(SendTimeoutError, match="was not sent") as caught:
                await client.send(AddCmd(1, 2), timeout_s=timeout_s)
            assert not caught.value.may_have_run
            with pytest.raises(SendTimeoutError):
                await anext(client.stream(AddCmd(1, 2), timeout_s=timeout_s))
            assert client.next_seq == 1

    run(main())


def test_waiting_for_a_server_that_does_not_read_is_part_of_the_time() -> None:
    async def main() -> None:
        proceed = asyncio.Event()

        async def talk(peer: RawPeer) -> None:
            await peer.send(GREETING)
            await proceed.wait()
            await peer.rest()

        options = ClientOptions(link=LinkOptions(unsent_high_size=MIB))
        async with RawServer(talk) as server:
            client = await connect(server.port, options)
            line = client._line
            sent = [spawn(client.send(EchoCmd("x" * MIB))) for _ in range(24)]
            await until(lambda: not (line.link and line.link.ready))
            seq = client.next_seq
            asked = spawn(client.send(AddCmd(1, 2), timeout_s=5.0))
            pinged = spawn(client.ping(timeout_s=5.0))
            await turns()
            let_time_pass(5.0)
            with pytest.raises(SendTimeoutError, match="reads too slowly") as caught:
                await asked
            assert not caught.value.may_have_run
            with pytest.raises(SendTimeoutError, match=r"no pong .* reads too slowly"):
                await pinged
            assert client.next_seq == seq
            proceed.set()
            for task in sent:
                task.cancel()
            await asyncio.wait(sent)
            await client.aclose()

    run(main())


def test_a_cancellation_is_not_a_time_out() -> None:
    """W-D2: Go reports both as a time-out."""

    async def main() -> None:
        held = Held()
        async with serving(held) as (_, port), await connect(port) as client:
            asked = spawn(client.send(EchoCmd("x"), timeout_s=5.0))
            await held.reply()
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert client.pending == 0
            let_time_pass(5.0)
            await turns()
            assert client.connected

    run(main())


def test_an_answer_in_the_last_moment_counts() -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (_, port), await connect(port) as client:
            asked = spawn(client.send(EchoCmd("x"), timeout_s=5.0))
            reply = await held.reply()
            reply.send_nowait(EchoResult("x"))
            await until(lambda: client.pending == 0)
            let_time_pass(5.0)  # in the turn in which the result has arrived
            assert await asked == "x"

    run(main())


def test_a_ping_has_a_time_out_too() -> None:
    async def main() -> None:
        async def silent(peer: RawPeer) -> None:
            await peer.send(GREETING)
            await peer.rest()

        async with RawServer(silent) as server, await connect(server.port) as client:
            pinged = spawn(client.ping(timeout_s=5.0))
            await turns()
            let_time_pass(5.0)
            with pytest.raises(SendTimeoutError, match=r"^no pong within 5\.0 s$"):
                await pinged
        async with serving() as (_, port), await connect(port) as client:
            await client.ping(timeout_s=60.0)

    run(main())


# Streams.


def test_a_stream_that_takes_too_long_gives_what_came_and_then_the_error() -> None:
    """W-D1: in Go nobody is told that a stream timed out."""

    async def main() -> None:
        held = Held()
        late: list[ResultReceived] = []
        async with (
            serving(held) as (_, port),
            await Client.connect(
                "127.0.0.1", port, CODEC, on_unexpected=late.append
            ) as client,
        ):
            stream = client.stream(RangeCmd(1, 3), timeout_s=5.0)
            first = spawn(anext(stream))
            reply = await held.reply()
            await reply.send(StreamResult(1, last=False))
            assert await first == StreamResult(1, last=False)
            await reply.send(StreamResult(2, last=False))
            await client.ping()
            let_time_pass(5.0)
            await turns()
            assert await anext(stream) == StreamResult(2, last=False)
            with pytest.raises(SendTimeoutError, match="RangeCmd has no last result"):
                await anext(stream)
            with pytest.raises(StopAsyncIteration):
                await anext(stream)
            await reply.send(StreamResult(3, last=True))
            await client.ping()
            assert [one.result for one in late] == [StreamResult(3, last=True)]

    run(main())


def test_a_stream_whose_results_are_all_here_may_be_read_at_leisure() -> None:
    async def main() -> None:
        async with serving() as (_, port), await connect(port) as client:
            stream = client.stream(RangeCmd(1, 3), timeout_s=5.0)
            await anext(stream)
            await client.ping()
            let_time_pass(50.0)
            await turns()
            assert [one async for one in stream] == [
                StreamResult(2, last=False),
                StreamResult(3, last=True),
            ]

    run(main())


def test_a_connection_that_is_lost_reaches_the_reader_of_a_full_stream() -> None:
    """W-A5: in Go the error is dropped if the channel is full, and the reader hangs."""

    async def main() -> None:
        held = Held()
        options = ClientOptions(stream_results_max=1)
        async with serving(held) as (server, port):
            client = await connect(port, options)
            stream = client.stream(RangeCmd(1, 3))
            first = spawn(anext(stream))
            reply = await held.reply()
            await reply.send(StreamResult(1, last=False))
            await first
            await reply.send(StreamResult(2, last=False))
            await client.ping()
            await server.aclose()
            await client.wait_closed()
            assert await anext(stream) == StreamResult(2, last=False)
            with pytest.raises(ConnectionClosedError, match="may have run"):
                await anext(stream)

    run(main())


def test_a_stream_that_is_dropped_is_forgotten() -> None:
    async def main() -> None:
        async with serving() as (_, port), await connect(port) as client:
            async for _ in client.stream(RangeCmd(1, 1000), timeout_s=60.0):
                break
            gc.collect()
            assert client.pending == 0

    run(main())


def test_closing_a_stream_wakes_the_task_that_reads_it() -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (_, port), await connect(port) as client:
            stream = client.stream(RangeCmd(1, 3))
            read = spawn(next_of(stream))
            await held.reply()
            await stream.aclose()
            assert await read == "the end"
            assert client.pending == 0

    run(main())


def test_a_stream_that_is_closed_before_there_is_a_connection_sends_nothing() -> None:
    async def main() -> None:
        proceed = asyncio.Event()
        received: list[bytes] = []

        async def talk(peer: RawPeer) -> None:
            await proceed.wait()
            await peer.send(GREETING)
            received.append(await peer.rest())

        options = ClientOptions(reconnect=ReconnectOptions())
        async with RawServer(talk) as server:
            address = ("127.0.0.1", server.port)
            client = Client.start(address, CODEC, options=options)
            stream = client.stream(RangeCmd(1, 3))
            read = spawn(next_of(stream))
            await turns()
            with pytest.raises(LocalProtocolError, match="two tasks read"):
                await anext(stream)
            await stream.aclose()
            proceed.set()
            assert await read == "the end"
            await client.aclose()
        assert received == [b""]

    run(main())


def test_a_stream_that_is_cancelled_before_it_is_sent_may_be_read_on() -> None:
    async def main() -> None:
        async with serving() as (_, port), await connect(port) as client:
            stream = client.stream(RangeCmd(1, 2), timeout_s=60.0)
            client._line.link, link = None, client._line.link  # for the moment
            client._line._reconnect = ReconnectOptions()
            read = spawn(anext(stream))
            await turns()
            read.cancel()
            await asyncio.wait([read])
            client._line.link, client._line._reconnect = link, None
            assert len([one async for one in stream]) == 2
            assert client.next_seq == 2

    run(main())
