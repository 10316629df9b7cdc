"""The server over real sockets: who is served, who is held back, and how it ends."""

import asyncio
import contextlib
import socket
import tracemalloc
from pathlib import Path

import pytest
from tests.cmdstream.helpers import (
    CODEC,
    TIMEOUT_S,
    AddCmd,
    CalcResult,
    EchoCmd,
    EchoResult,
    FailCmd,
    Held,
    RangeCmd,
    RawPeer,
    StreamResult,
    TestGate,
    answer,
    answer_later,
    connect,
    frame,
    let_time_pass,
    result_frame,
    run,
    serving,
    until,
)

from cmdstream import (
    Client,
    CmdStreamError,
    ConnectionClosedError,
    JsonCodec,
    LinkOptions,
    Registry,
    Reply,
    ResultType,
    Server,
    ServerOptions,
    TaskHandler,
)
from cmdstream.wire import write_size

MIB = 1024 * 1024


def test_commands_of_every_shape_are_answered() -> None:
    async def main() -> None:
        async with (
            serving(TaskHandler(answer_later)) as (server, port),
            await connect(port) as client,
        ):
            assert await client.send(AddCmd(2, 3)) == CalcResult(5)
            assert await client.send(EchoCmd("hello")) == EchoResult("hello")
            assert [part async for part in client.stream(RangeCmd(10, 2))] == [
                StreamResult(10, last=False),
                StreamResult(11, last=True),
            ]
            assert server.in_flight == 0
            assert server.connections == 1

    run(main())


def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        async with Server(CODEC, answer) as server:
            await server.listen_unix(path)
            assert server.addresses == [path]
            async with await Client.connect_unix(path, CODEC) as client:
                assert await client.send(AddCmd(1, 1)) == CalcResult(2)

    run(main())


def test_one_server_listens_in_several_places() -> None:
    async def main() -> None:
        async with serving() as (server, first):
            host, second = await server.listen("127.0.0.1", 0)
            assert server.addresses == [(host, first), (host, second)]
            for port in (first, second):
                async with await connect(port) as client:
                    assert await client.send(EchoCmd("x")) == EchoResult("x")

    run(main())


def test_the_server_speaks_first_and_answers_pings() -> None:
    async def main() -> None:
        async with serving() as (_, port), await RawPeer.connect(port) as peer:
            await peer.send(b"\x00\x00\x00" + frame(1, AddCmd(1, 2)))
            assert await peer.receive(7) == b"\x00\x00\x00" + b"\x01\x00\x013"

    run(main())


def test_a_seq_may_be_long_and_may_come_twice() -> None:
    async def main() -> None:
        async with serving() as (_, port), await RawPeer.connect(port) as peer:
            body = frame(1, AddCmd(1, 2))[1:]
            await peer.send(b"\x81\x00" + body + b"\x01" + body)
            assert await peer.receive(8) == b"\x01\x00\x013" * 2

    run(main())


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\x01\x09\x02{}", "unknown command tag 9: 5 are registered"),
        (b"\x01\x00\x02{{", "command AddCmd: "),
        (b"\x01\x00\x00", "command AddCmd: "),
        (b"\x01\x00\x03\x08\x96\x01", "command AddCmd: "),  # Protobuf's
        (b"\xff" * 9 + b"\x02", "varint exceeds 64 bits"),
        (b"\x80" * 10, "varint is longer than 10 bytes"),
        (b"\xff" * 9 + b"\x01\x00", "negative number: -1"),
        (b"\x01\x00" + b"\xff" * 9 + b"\x01", "negative number: -1"),
        (b"\x01\x00" + write_size(16 * MIB + 1), "announces 16777217 bytes"),
        (b"\x01\x00" + write_size(2**63 - 1), "announces 9223372036854775807 bytes"),
    ],
)
def test_a_malformed_frame_ends_its_connection_and_no_other(
    sent: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with (
            serving() as (server, port),
            await connect(port) as bystander,
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, EchoCmd("fine")) + sent)
            assert await peer.rest() == result_frame(1, EchoResult("fine"))
            assert await bystander.send(AddCmd(1, 2)) == CalcResult(3)
            await until(lambda: server.connections == 1)

    run(main())
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "hung up on 127.0.0.1:" in record.getMessage()
    assert reason in record.getMessage()


def test_no_flipped_bit_harms_anybody_else(caplog: pytest.LogCaptureFixture) -> None:
    good = frame(1, AddCmd(1, 2)) + frame(2, EchoCmd("fine")) + b"\x00"

    async def main() -> None:
        async with (
            serving(TaskHandler(answer_later)) as (server, port),
            await connect(port) as bystander,
        ):
            for bit in range(len(good) * 8):
                bad = bytearray(good)
                bad[bit // 8] ^= 1 << bit % 8
                async with await RawPeer.connect(port) as peer:
                    await peer.send(bytes(bad))
                    peer.writer.write_eof()
                    await peer.rest()
            assert await bystander.send(AddCmd(1, 2)) == CalcResult(3)
            await until(lambda: server.connections == 1)
            assert server.in_flight == 0

    run(main())
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert not any(record.exc_info for record in caplog.records)


def test_a_client_that_leaves_inside_a_frame_is_noted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with serving() as (server, port):
            async with await RawPeer.connect(port) as peer:
                await peer.send(frame(1, AddCmd(1, 2))[:5])
            await until(lambda: server.connections == 0)

    run(main())
    assert "connection closed inside a frame, after 5 bytes" in caplog.text


def test_an_announced_body_takes_no_memory_until_it_comes() -> None:
    """W-B1: in Go eleven bytes that announce a huge body end the process."""

    async def main() -> int:
        async with serving() as (_, port), await RawPeer.connect(port) as peer:
            tracemalloc.start()
            await peer.send(b"\x00" + b"\x01\x01" + write_size(16 * MIB) + b'"')
            assert await peer.receive(1) == b"\x00"
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return peak

    assert run(main()) < MIB


def test_ten_thousand_commands_may_be_under_way() -> None:
    async def main() -> None:
        async with (
            serving(TaskHandler(answer_later)) as (_, port),
            await connect(port) as client,
        ):
            async with asyncio.TaskGroup() as group:
                sent = [
                    group.create_task(client.send(AddCmd(n, 1))) for n in range(10_000)
                ]
            assert [task.result() for task in sent] == list(range(1, 10_001))

    run(main())


def test_results_come_in_the_order_in_which_they_are_ready() -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (_, port), await RawPeer.connect(port) as peer:
            await peer.send(frame(1, EchoCmd("slow")) + frame(2, EchoCmd("fast")))
            slow, fast = await held.reply(), await held.reply()
            fast.send_nowait(EchoResult("fast"))
            slow.send_nowait(EchoResult("slow"))
            expected = result_frame(2, EchoResult("fast"))
            expected += result_frame(1, EchoResult("slow"))
            assert await peer.receive(len(expected)) == expected

    run(main())


def test_a_command_of_a_client_that_has_left_goes_on() -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (server, port):
            async with await RawPeer.connect(port) as peer:
                await peer.send(frame(1, RangeCmd(1, 2)))
                reply = await held.reply()
            await until(lambda: reply.closed)
            assert server.in_flight == 1
            await reply.send(StreamResult(1, last=False))
            assert server.in_flight == 1
            await reply.send(StreamResult(2, last=True))
            assert reply.finished
            assert server.in_flight == 0

    run(main())


# Limits.


class Comings:
    """Notes who comes and goes; may fail at it."""

    def __init__(self, *, fails: bool = False) -> None:
        self.notes: list[str] = []
        self._fails = fails

    def joined(self, peer: str) -> None:
        self._note(f"{peer} joined")

    def left(self, peer: str, reason: CmdStreamError) -> None:
        self._note(f"{peer} left: {reason}")

    def _note(self, note: str) -> None:
        self.notes.append(note)
        if self._fails:
            raise LookupError("no such gauge")


def test_a_watcher_is_told_once_of_each_client_that_comes_and_goes() -> None:
    comings = Comings()

    async def main() -> None:
        async with serving(watcher=comings) as (server, port):
            async with await RawPeer.connect(port) as first:
                name = "{}:{}".format(*first.writer.get_extra_info("sockname"))
            await until(lambda: server.connections == 0)
            assert comings.notes == [
                f"{name} joined",
                f"{name} left: the peer closed the connection",
            ]
            async with await RawPeer.connect(port) as second:
                await second.send(b"\x01\x09")
                await second.rest()
            assert comings.notes[3].endswith(
                " left: unknown command tag 9: 5 are registered"
            )
            async with await RawPeer.connect(port):
                await server.aclose()
            assert comings.notes[5].endswith(" left: the server is shutting down")
            assert len(comings.notes) == 6

    run(main())


def test_a_watcher_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    comings = Comings(fails=True)

    async def main() -> None:
        async with serving(watcher=comings) as (server, port):
            async with await connect(port) as client:
                assert await client.send(AddCmd(1, 2)) == CalcResult(3)
            await until(lambda: server.connections == 0)

    run(main())
    assert len(comings.notes) == 2
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]
    assert "no such gauge" in caplog.text


def test_one_client_too_many_is_hung_up_on(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        options = ServerOptions(connections_max=1)
        async with serving(options=options) as (server, port):
            async with await connect(port) as client:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                with contextlib.suppress(ConnectionResetError):
                    assert await reader.read(-1) == b""
                writer.close()
                assert await client.send(AddCmd(1, 2)) == CalcResult(3)
            await until(lambda: server.connections == 0)
            async with await connect(port) as client:
                assert await client.send(AddCmd(1, 2)) == CalcResult(3)

    run(main())
    assert "1 clients are connected, which is the limit" in caplog.text


def test_idle_clients_keep_nobody_from_being_served() -> None:
    """W-B4: in Go eight clients, or eight who say nothing, are all there can be."""

    async def main() -> None:
        async with serving() as (server, port), contextlib.AsyncExitStack() as stack:
            for _ in range(64):
                await stack.enter_async_context(await RawPeer.connect(port))
            async with await connect(port) as client:
                assert await client.send(AddCmd(1, 2)) == CalcResult(3)
                assert server.connections == 65

    run(main())


def test_a_client_with_enough_running_is_not_read_from() -> None:
    """W-B5: Go has no limit on what runs, for one client or in all."""

    async def main() -> None:
        held = Held()
        options = ServerOptions(in_flight_per_connection_max=2)
        async with (
            serving(held, options=options) as (server, port),
            await connect(port) as other,
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(b"".join(frame(n, EchoCmd(f"{n}")) for n in range(1, 6)))
            replies = [await held.reply(), await held.reply()]
            # Nothing tells that a third does not come; another client's command does.
            asked = asyncio.get_running_loop().create_task(other.send(EchoCmd("o")))
            received, reply = await held.next()
            assert received.command == "o"
            reply.send_nowait(EchoResult("o"))
            assert await asked == "o"
            assert held.arrived.empty()
            assert server.in_flight == 2
            for n in range(1, 6):
                replies.pop(0).send_nowait(EchoResult(f"{n}"))
                if n <= 3:
                    replies.append(await held.reply())
            assert server.in_flight == 0
            size = len(result_frame(1, EchoResult("1")))
            assert (await peer.receive(5 * size))[-2:] == b'5"'

    run(main())


def test_the_server_takes_only_so_much_from_all_clients_and_is_fair() -> None:
    async def main() -> None:
        held = Held()
        options = ServerOptions(in_flight_max=1)
        async with (
            serving(held, options=options) as (server, port),
            await RawPeer.connect(port) as first,
            await RawPeer.connect(port) as second,
        ):
            await first.send(b"".join(frame(n, EchoCmd("1")) for n in range(1, 4)))
            reply = await held.reply()
            await second.send(b"".join(frame(n, EchoCmd("2")) for n in range(1, 4)))
            await until(lambda: len(server._waiting) == 2)
            order = ""
            for _ in range(5):
                assert held.arrived.empty()
                reply.send_nowait(EchoResult("x"))
                received, reply = await held.next()
                order += str(received.command)
            assert order in {"12122", "21212"}

    run(main())


def test_nobody_takes_the_slot_of_a_client_that_was_woken_and_waits_its_turn() -> None:
    async def main() -> None:
        held = Held()
        options = ServerOptions(in_flight_max=1)
        async with (
            serving(held, options=options) as (server, port),
            await RawPeer.connect(port) as first,
            await RawPeer.connect(port) as second,
            await RawPeer.connect(port),
        ):
            await first.send(frame(1, AddCmd(1, 1)))
            reply = await held.reply()
            await second.send(frame(2, AddCmd(2, 2)))
            await until(lambda: len(server._waiting) == 1)
            (waiting,) = server._waiting
            reply.finish()
            # Data of a third client, before the woken one has had its turn.
            (late,) = (c for c in server._clients if c not in {reply._client, waiting})
            late.data_received(frame(3, AddCmd(3, 3)))
            for seq in (2, 3):
                reply = await held.reply()
                assert reply.seq == seq
                reply.finish()

    run(main())


def test_a_slot_that_wakes_a_client_that_leaves_is_not_lost() -> None:
    async def main() -> None:
        held = Held()
        options = ServerOptions(in_flight_max=1)
        async with (
            serving(held, options=options) as (server, port),
            await RawPeer.connect(port) as first,
            await RawPeer.connect(port) as second,
            await RawPeer.connect(port) as third,
        ):
            await first.send(frame(1, EchoCmd("1")))
            reply = await held.reply()
            await second.send(frame(1, EchoCmd("2")))
            await until(lambda: len(server._waiting) == 1)
            (leaving,) = server._waiting
            await third.send(frame(1, EchoCmd("3")))
            await until(lambda: len(server._waiting) == 2)
            reply.send_nowait(EchoResult("x"))  # wakes the second in the next turn,
            leaving.hang_up("for the test")  # in which it is gone
            received, reply = await held.next()
            assert received.command == "3"

    run(main())


def test_while_the_gate_is_closed_nothing_starts_but_pings_are_answered() -> None:
    async def main() -> None:
        gate = TestGate(is_open=False)
        held = Held()
        async with (
            serving(held, gate=gate) as (server, port),
            await RawPeer.connect(port) as pinger,
            await RawPeer.connect(port) as sender,
        ):
            await sender.send(frame(1, EchoCmd("1")) + frame(2, EchoCmd("2")))
            await until(lambda: bool(server._waiting))
            await pinger.send(b"\x00")
            assert await pinger.receive(1) == b"\x00"
            assert held.arrived.empty()
            gate.open()
            received, reply = await held.next()
            assert received.command == "1"
            gate.close()
            reply.finish()
            (await held.reply()).finish()
            await sender.send(frame(3, EchoCmd("3")))
            await until(lambda: bool(server._waiting))
            gate.open()
            assert (await held.next())[0].seq == 3
        assert gate.subscribers == []

    run(main())


def test_a_client_that_does_not_read_is_not_read_from_and_then_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        link = LinkOptions(unsent_high_size=MIB, write_stall_timeout_s=0.05)
        async with (
            serving(options=ServerOptions(link=link)) as (server, port),
            await RawPeer.connect(port) as peer,
        ):
            with contextlib.suppress(ConnectionError):
                for n in range(1, 200):
                    await peer.send(frame(n, EchoCmd("x" * MIB)))
            await until(lambda: server.connections == 0)

    run(main())
    assert "reads too slowly: its buffer was full for 0.05 s" in caplog.text


def test_a_sender_that_does_not_wait_costs_its_client_the_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        held = Held()
        link = LinkOptions(unsent_size_max=4 * MIB)
        async with (
            serving(held, options=ServerOptions(link=link)) as (_, port),
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, RangeCmd(1, 1)))
            reply = await held.reply()
            for _ in range(32):
                reply._client.write(b"\x00" * MIB)
            assert reply.closed
            reply.finish()

    run(main())
    assert "reads too slowly" in caplog.text
    assert "bytes wait to be sent, the limit is 4194304" in caplog.text


def test_a_sender_that_waits_is_let_go_when_the_client_reads() -> None:
    # Texts are the last result only if they are empty, so there can be many long ones.
    codec = JsonCodec(
        Registry([FailCmd], [ResultType(EchoResult, lambda text: not text)])
    )
    sent: list[int] = []

    async def stream(_command: object, reply: Reply) -> None:
        for n in range(24):
            await reply.send(EchoResult("x" * MIB))
            sent.append(n)
        await reply.send(EchoResult(""))

    async def main() -> None:
        link = LinkOptions(unsent_high_size=MIB)
        handler = TaskHandler(stream)
        options = ServerOptions(link=link)
        async with (
            serving(handler, options=options, codec=codec) as (server, port),
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(b"\x01\x00\x02{}")
            assert await peer.receive(1) == b"\x01"
            assert len(sent) < 24
            size = 24 * (MIB + 7) - 1  # seq, tag, length of 3, quotes
            assert len(await peer.receive(size)) == size
            assert await peer.receive(5) == b'\x01\x00\x02""'
            assert len(sent) == 24
            assert server.in_flight == 0

    run(main())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (ServerOptions(first_frame_timeout_s=0.02), "no whole frame for 0.02 s"),
        (ServerOptions(idle_timeout_s=0.02), "no whole frame for 0.02 s"),
    ],
)
def test_a_silent_client_is_hung_up_on(
    options: ServerOptions, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """W-B4, W-C10: whoever connects and says nothing keeps a worker of Go's busy."""

    async def main() -> None:
        async with (
            serving(options=options) as (_, port),
            await RawPeer.connect(port) as peer,
        ):
            assert await peer.rest() == b""

    run(main())
    assert reason in caplog.text


def test_a_client_that_waits_for_its_result_is_not_silent() -> None:
    """W-C5: Go's limit on silence ends connections that are busy."""

    async def main() -> None:
        held = Held()
        idle_s = 10.0
        options = ServerOptions(idle_timeout_s=idle_s)
        async with (
            serving(held, options=options) as (_, port),
            await RawPeer.connect(port) as quiet,
            await RawPeer.connect(port) as busy,
        ):
            await busy.send(frame(1, EchoCmd("x")))
            reply = await held.reply()
            let_time_pass(idle_s)
            assert await quiet.rest() == b""  # that long it took for the other
            assert not reply.closed
            reply.send_nowait(EchoResult("x"))
            let_time_pass(idle_s)
            assert await busy.rest() == result_frame(1, EchoResult("x"))

    run(main())


@pytest.mark.parametrize(
    "options",
    [
        ServerOptions(first_frame_timeout_s=60.0),
        ServerOptions(idle_timeout_s=60.0),
        ServerOptions(first_frame_timeout_s=3600.0, idle_timeout_s=60.0),
    ],
    ids=["first frame", "idle", "both"],
)
def test_a_byte_now_and_then_is_no_sign_of_life(
    options: ServerOptions, caplog: pytest.LogCaptureFixture
) -> None:
    """Slowloris: a frame that never ends, and a byte of it now and then."""

    async def main() -> None:
        async with (
            serving(options=options) as (server, port),
            await RawPeer.connect(port) as peer,
            await RawPeer.connect(port) as pinger,
        ):
            if options.first_frame_timeout_s != 60.0:
                await peer.send(b"\x00")
                assert await peer.receive(1) == b"\x00"
            (slow,) = (
                c
                for c in server._clients
                if c.peer.endswith(f":{peer.writer.get_extra_info('sockname')[1]}")
            )

            async def send(byte: int) -> None:
                received_at_s = slow._received_at
                await peer.send(bytes([byte]))
                await until(lambda: slow._received_at != received_at_s)
                await pinger.send(b"\x00")
                assert await pinger.receive(1) == b"\x00"

            for byte in frame(1, EchoCmd("x" * 100))[:7]:
                assert slow.reason is None
                await send(byte)
                let_time_pass(9.0)  # 63 s in all
            assert await peer.rest() == b""
            assert server.connections == 1

    run(main())
    assert "no whole frame for 60.0 s" in caplog.text


def test_a_client_that_takes_its_time_to_read_is_not_silent() -> None:
    """W-C5, and no reason to be cut for what is in the kernel's hands."""

    async def main() -> None:
        idle_s = 10.0
        link = LinkOptions(unsent_high_size=64 * 1024, write_stall_timeout_s=None)
        options = ServerOptions(idle_timeout_s=idle_s, link=link)
        held = Held()
        async with (
            serving(held, options=options) as (server, port),
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, EchoCmd("x")))
            reply = await held.reply()
            text = EchoResult("x" * 8 * MIB)
            reply.send_nowait(text)
            await until(lambda: not reply._client.writable)
            assert server.in_flight == 0
            for _ in range(3):
                let_time_pass(idle_s)
                async with await connect(port) as other:  # the timers had their turn
                    await other.ping()
            expected = result_frame(1, text)
            assert await peer.receive(len(expected)) == expected
            await peer.send(b"\x00")
            assert await peer.receive(1) == b"\x00"

    run(main())


def test_a_client_that_was_slow_once_is_not_cut_later() -> None:
    """W-C4: in Go the greeting's deadline stays, and cuts whatever comes after it."""

    async def main() -> None:
        stall_s = 10.0
        link = LinkOptions(unsent_high_size=64 * 1024, write_stall_timeout_s=stall_s)
        held = Held()
        async with (
            serving(held, options=ServerOptions(link=link)) as (server, port),
            await RawPeer.connect(port) as peer,
        ):
            text = EchoResult("x" * 8 * MIB)
            expected = result_frame(1, text)
            (client,) = server._clients
            for _ in range(3):
                await peer.send(frame(1, EchoCmd("x")))
                (await held.reply()).send_nowait(text)
                await until(lambda: not client.writable)
                assert await peer.receive(len(expected)) == expected
                let_time_pass(stall_s)

    run(main())


def test_a_flood_of_pings_takes_no_memory_from_one_who_does_not_read_pongs() -> None:
    async def main() -> int:
        link = LinkOptions(unsent_high_size=64 * 1024, write_stall_timeout_s=None)
        async with (
            serving(options=ServerOptions(link=link)) as (server, port),
            await RawPeer.connect(port) as peer,
        ):
            (client,) = server._clients
            flood = asyncio.get_running_loop().create_task(
                peer.send(b"\x00" * 64 * MIB)
            )
            await until(lambda: not client.writable)
            assert client._transport is not None
            unsent = client._unsent_size + client._transport.get_write_buffer_size()
            flood.cancel()
            peer.writer.transport.abort()
            return unsent

    assert run(main()) < 256 * 1024


def test_one_client_s_flood_leaves_turns_to_the_others() -> None:
    async def main() -> None:
        async with (
            serving() as (server, port),
            await RawPeer.connect(port) as peer,
            await RawPeer.connect(port) as other,
        ):
            (flooding,) = (
                c
                for c in server._clients
                if c.peer.endswith(f":{peer.writer.get_extra_info('sockname')[1]}")
            )
            flooding.data_received(b"\x00" * 4 * 1024)
            assert flooding._unsent_size == 1024
            await other.send(b"\x00")
            assert await peer.receive(4 * 1024) == b"\x00" * 4 * 1024
            assert await other.receive(1) == b"\x00"
            await peer.send(frame(1, AddCmd(1, 2)))
            assert await peer.receive(4) == b"\x01\x00\x013"

    run(main())


def test_a_flood_of_commands_is_answered_whole_and_in_order() -> None:
    async def main() -> None:
        count = 5_000
        sent = b"".join(frame(n, AddCmd(n, 0)) for n in range(1, count + 1))
        expected = b"".join(result_frame(n, CalcResult(n)) for n in range(1, count + 1))
        async with serving() as (_, port), await RawPeer.connect(port) as peer:
            await peer.send(sent)
            assert await peer.receive(len(expected)) == expected

    run(main())


def test_when_a_command_arrived_is_known_to_its_handler() -> None:
    """W-D7: in Go it is the year 1 unless asked for, and deadlines are made of it."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        held = Held()
        async with serving(held) as (_, port), await RawPeer.connect(port) as peer:
            before_s = loop.time()
            await peer.send(frame(1, EchoCmd("x")))
            reply = await held.reply()
            assert before_s <= reply.received_at_s <= loop.time()
            async with asyncio.timeout_at(reply.received_at_s + 60):
                await reply.send(EchoResult("x"))

    run(main())


# Coming down.


def test_a_drain_lets_running_commands_end_and_starts_no_more() -> None:
    async def main() -> None:
        held = Held()
        async with (
            serving(held) as (server, port),
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, EchoCmd("1")))
            reply = await held.reply()
            drain = asyncio.get_running_loop().create_task(server.drain(20))
            await until(lambda: server._draining)
            await peer.send(frame(2, EchoCmd("2")))
            await until(lambda: bool(server._waiting))
            assert not drain.done()
            reply.send_nowait(EchoResult("x" * MIB))
            assert await peer.rest() == result_frame(1, EchoResult("x" * MIB))
            assert await drain
            assert held.arrived.empty()
            assert (server.connections, server.in_flight) == (0, 0)
            with pytest.raises(OSError, match="Connect"):
                await asyncio.open_connection("127.0.0.1", port)

    run(main())


def test_a_drain_that_takes_too_long_gives_up_and_closing_still_works() -> None:
    """W-C6: after Go's Shutdown, Close does nothing."""

    async def main() -> None:
        held = Held()
        async with serving(held) as (server, port), await connect(port) as client:
            asked = asyncio.get_running_loop().create_task(client.send(EchoCmd("x")))
            reply = await held.reply()
            server.stop_accepting()
            assert not await server.drain(0.01)
            await server.aclose()
            await server.aclose()
            await server.wait_closed()
            assert reply.closed
            with pytest.raises(ConnectionClosedError):
                await asked
            assert server.connections == 0

    run(main())


def test_a_client_that_does_not_read_cannot_delay_the_end() -> None:
    async def main() -> None:
        held = Held()
        link = LinkOptions(close_timeout_s=0.05, unsent_size_max=64 * MIB)
        async with serving(held, options=ServerOptions(link=link)) as (server, port):
            peer = await RawPeer.connect(port)
            await peer.send(frame(1, EchoCmd("x")))
            reply = await held.reply()
            reply._client.write(b"\x00" * 32 * MIB)
            await server.aclose()
            assert server.connections == 0
            await peer.aclose()

    run(main())


def test_closing_that_is_cancelled_cuts_what_is_left() -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (server, port):
            peer = await RawPeer.connect(port)
            await peer.send(frame(1, EchoCmd("x")))
            (await held.reply())._client.write(b"\x00" * 32 * MIB)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.01):
                    await server.aclose()
            await until(lambda: server.connections == 0)
            await peer.aclose()

    run(main())


def test_a_client_that_comes_while_the_server_goes_is_hung_up_on() -> None:
    async def main() -> None:
        async with serving() as (server, port):
            # Accepted, and not yet a client: the server goes in between.
            with socket.create_connection(("127.0.0.1", port)) as sock:
                await until(lambda: bool(server._arriving))
                server.stop_accepting()
                await until(lambda: not server._arrivals)
                with contextlib.suppress(ConnectionResetError):
                    assert sock.recv(1) == b""
            assert server.connections == 0

    run(main())


def test_a_shutdown_lets_running_commands_end() -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (server, port), await RawPeer.connect(port) as peer:
            await peer.send(frame(1, EchoCmd("1")))
            reply = await held.reply()
            ending = asyncio.get_running_loop().create_task(server.shutdown(60))
            await until(lambda: server._draining)
            reply.send_nowait(EchoResult("1"))
            assert await ending
            assert await peer.rest() == result_frame(1, EchoResult("1"))
            await server.wait_closed()

    run(main())


def test_idle_clients_do_not_hold_up_a_shutdown_and_are_told() -> None:
    """W-C6: in Go one of them keeps the server for ever, and is told nothing."""

    async def main() -> None:
        async with (
            serving() as (server, port),
            await RawPeer.connect(port) as idle,
            await RawPeer.connect(port) as half,
        ):
            await half.send(frame(1, AddCmd(1, 2))[:3])
            assert await server.shutdown(drain_s=TIMEOUT_S)
            assert await idle.rest() == await half.rest() == b""
            assert server.connections == 0

    run(main())


def test_a_shutdown_that_takes_too_long_closes_all_the_same() -> None:
    """W-C6: an idle client keeps Go's server alive for ever, and Close does nothing."""

    async def main() -> None:
        drain_s = 60.0
        held = Held()
        async with (
            serving(held) as (server, port),
            await RawPeer.connect(port) as idle,
            await RawPeer.connect(port) as busy,
        ):
            await busy.send(frame(1, EchoCmd("1")))
            reply = await held.reply()
            ending = asyncio.get_running_loop().create_task(server.shutdown(drain_s))
            await until(lambda: server._draining)
            let_time_pass(drain_s)
            assert not await ending
            assert reply.closed
            assert (await idle.rest(), await busy.rest()) == (b"", b"")
            assert server.connections == 0
            reply.finish()

    run(main())


def test_a_shutdown_may_be_repeated_to_be_quicker_and_repeated_when_it_is_over() -> (
    None
):
    async def main() -> None:
        held = Held()
        async with serving(held) as (server, port), await RawPeer.connect(port) as peer:
            await peer.send(frame(1, EchoCmd("1")))
            reply = await held.reply()
            patient = asyncio.get_running_loop().create_task(server.shutdown(3600))
            await until(lambda: server._draining)
            assert not await server.shutdown(0)
            assert not await patient
            reply.finish()
            assert await server.shutdown(0)

    run(main())


def test_a_shutdown_that_is_cancelled_closes_first() -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (server, port), await RawPeer.connect(port) as peer:
            await peer.send(frame(1, EchoCmd("1")))
            reply = await held.reply()
            ending = asyncio.get_running_loop().create_task(server.shutdown(3600))
            await until(lambda: server._draining)
            ending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ending
            assert server.connections == 0
            await server.wait_closed()
            reply.finish()

    run(main())
