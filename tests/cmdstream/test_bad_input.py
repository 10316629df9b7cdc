"""Whatever arrives, on either side: it does harm to its own connection at most.

`docs/wire-format.md`, "Bad input, and what it gets", says what each gets. Here are
those rows that are about both sides, or about all codecs.
"""

import asyncio
import logging
from collections.abc import Iterator

import pytest
from tests.cmdstream.helpers import (
    CODEC,
    COMMANDS,
    GREETING,
    RESULTS,
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
    result_frame,
    run,
    serving,
    until,
)
from tests.cmdstream.messages import Cmd1, Cmd2, Result1

from cmdstream import (
    Client,
    ClientOptions,
    CmdStreamError,
    Codec,
    ConnectionClosedError,
    LinkOptions,
    MusCodec,
    Registry,
    RemoteProtocolError,
    ResultReceived,
)
from cmdstream.codecs.protobuf import ProtobufCodec
from cmdstream.wire import write_size

MIB = 1024 * 1024
HUGE = write_size(2**63 - 1)
NEGATIVE = b"\xff" * 9 + b"\x01"

CODECS: dict[str, Codec] = {
    "json": CODEC,
    "mus": MusCodec(Registry(COMMANDS, RESULTS)),
    "protobuf": ProtobufCodec(Registry([Cmd1, Cmd2], [Result1])),
}
SENT = {
    "json": [AddCmd(1, 2), EchoCmd("hello"), RangeCmd(1, 3)],
    "mus": [AddCmd(1, 2), EchoCmd("hello"), RangeCmd(1, 3)],
    "protobuf": [Cmd1(X=150), Cmd2(Y="hello"), Cmd1(X=-1)],
}
FOREIGN = [
    (served, spoken) for served in CODECS for spoken in CODECS if served != spoken
]


def flipped(data: bytes) -> Iterator[bytes]:
    """*data* with each of its bits the other way round, one at a time."""
    for bit in range(len(data) * 8):
        bad = bytearray(data)
        bad[bit // 8] ^= 1 << bit % 8
        yield bytes(bad)


def cut(data: bytes) -> Iterator[bytes]:
    """The beginnings of *data*."""
    for size in range(len(data)):
        yield data[:size]


def no_accident(caplog: pytest.LogCaptureFixture) -> bool:
    """What was logged is about peers, and nothing of ours failed."""
    return not any(
        record.exc_info or record.levelno > logging.WARNING for record in caplog.records
    )


# Bytes to a server.


@pytest.mark.parametrize(("served", "spoken"), FOREIGN)
def test_a_client_with_another_codec_harms_nobody(
    served: str, spoken: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It may be answered with nonsense: nothing on the wire says what is spoken."""
    foreign, own = CODECS[spoken], CODECS[served]
    frames = [
        write_size(seq) + foreign.encode_command(command)
        for seq, command in enumerate(SENT[spoken], 1)
    ]
    good = write_size(1) + own.encode_command(SENT[served][0])

    async def main() -> None:
        async with (
            serving(lambda _, reply: reply.finish(), codec=own) as (server, port),
            await RawPeer.connect(port) as bystander,
        ):
            for sent in [*frames, b"".join(frames)]:
                async with await RawPeer.connect(port) as peer:
                    await peer.send(sent)
                    peer.writer.write_eof()
                    await peer.rest()
            await bystander.send(good + b"\x00")
            assert await bystander.receive(1) == b"\x00"
            await until(lambda: server.connections == 1)
            assert server.in_flight == 0

    run(main())
    assert no_accident(caplog)


@pytest.mark.parametrize("name", CODECS)
def test_frames_that_are_cut_anywhere_or_have_a_bit_flipped_harm_nobody(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    codec = CODECS[name]
    good = b"\x00" + b"".join(
        write_size(seq) + codec.encode_command(command)
        for seq, command in enumerate(SENT[name], 1)
    )

    async def main() -> None:
        async with (
            serving(lambda _, reply: reply.finish(), codec=codec) as (server, port),
            await RawPeer.connect(port) as bystander,
        ):
            for sent in (*cut(good), *flipped(good)):
                async with await RawPeer.connect(port) as peer:
                    await peer.send(sent)
                    peer.writer.write_eof()
                    await peer.rest()
            await bystander.send(good + b"\x00")
            assert await bystander.receive(2) == b"\x00\x00"
            await until(lambda: server.connections == 1)
            assert server.in_flight == 0

    run(main())
    assert no_accident(caplog)


# Bytes to a client.


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\xff" * 9 + b"\x02", "varint exceeds 64 bits"),
        (b"\x80" * 10, "varint is longer than 10 bytes"),
        (NEGATIVE, "negative number: -1"),
        (b"\x01" + NEGATIVE, "negative number: -1"),
        (b"\x01\x00" + NEGATIVE, "negative number: -1"),
        (b"\x01\x07\x00", "unknown result tag 7: 3 are registered"),
        (b"\x01\x00\x00", "result CalcResult: "),
        (b"\x01\x00\x03abc", "result CalcResult: "),
        (b"\x01\x01\x02\x08\x01", "result EchoResult: "),  # Protobuf's
        (b"\x01\x00" + write_size(16 * MIB + 1), "announces 16777217 bytes"),
        (b"\x01\x00" + HUGE, "announces 9223372036854775807 bytes"),
        (b"\x01\x00\x02", "connection closed inside a frame, after 3 bytes"),
    ],
)
def test_a_malformed_result_ends_its_connection_and_every_send_on_it(
    sent: bytes, reason: str
) -> None:
    async def main() -> None:
        async def talk(peer: RawPeer) -> None:
            await peer.send(GREETING)
            await peer.receive(len(frame(1, AddCmd(1, 2))) * 2)
            await peer.send(result_frame(2, CalcResult(3)) + sent)
            peer.writer.write_eof()
            await peer.rest()

        async with RawServer(talk) as server, await connect(server.port) as client:
            loop = asyncio.get_running_loop()
            sends = [loop.create_task(client.send(AddCmd(1, 2))) for _ in range(2)]
            await asyncio.wait(sends)
            assert sends[1].result() == CalcResult(3)
            # Where it tells whose result it is, its sender is told that it came.
            expected = (ConnectionClosedError, RemoteProtocolError)
            with pytest.raises(expected, match=reason):
                sends[0].result()
            assert isinstance(await client.wait_closed(), RemoteProtocolError)
            assert client.pending == 0

    run(main())


def test_longer_varints_than_needed_are_results_all_the_same() -> None:
    async def main() -> None:
        async def talk(peer: RawPeer) -> None:
            await peer.send(b"\x87\x00default")
            await peer.receive(len(frame(1, AddCmd(1, 2))))
            await peer.send(b"\x81\x80\x00\x80\x00\x81\x00" + b"3")
            await peer.rest()

        async with RawServer(talk) as server, await connect(server.port) as client:
            assert await client.send(AddCmd(1, 2)) == CalcResult(3)

    run(main())


def test_results_that_are_cut_or_have_a_bit_flipped_leave_no_sender_waiting() -> None:
    """A result may be another one then, or go to nobody; but every send ends."""
    good = b"\x00" + b"".join(
        [
            result_frame(1, CalcResult(3)),
            result_frame(2, StreamResult(7, last=False)),
            result_frame(2, StreamResult(8, last=True)),
            result_frame(3, EchoResult("hello")),
        ]
    )

    async def main() -> None:
        bad = iter([*cut(good), *flipped(good)])
        asked = len(frame(1, AddCmd(1, 2)) + frame(2, RangeCmd(1, 2)))
        asked += len(frame(3, EchoCmd("hello")))

        async def talk(peer: RawPeer) -> None:
            await peer.send(GREETING)
            await peer.receive(asked)
            await peer.send(next(bad))
            peer.writer.write_eof()
            await peer.rest()

        async def results(client: Client) -> None:
            async for _ in client.stream(RangeCmd(1, 2)):
                pass

        async with RawServer(talk) as server:
            for _ in range(len(good) * 9):
                async with await connect(server.port) as client:
                    loop = asyncio.get_running_loop()
                    sends = {
                        loop.create_task(client.send(AddCmd(1, 2))),
                        loop.create_task(results(client)),
                        loop.create_task(client.send(EchoCmd("hello"))),
                    }
                    await asyncio.wait(sends)
                    for send in sends:
                        error = send.exception()
                        assert error is None or isinstance(error, CmdStreamError)
                    await client.wait_closed()
                    assert client.pending == 0

    run(main())


def test_a_greeting_that_is_cut_anywhere_or_has_a_bit_flipped_is_none() -> None:
    async def main() -> None:
        bad = [*cut(GREETING), *flipped(GREETING)]
        left = iter(bad)

        async def talk(peer: RawPeer) -> None:
            await peer.send(next(left))
            peer.writer.write_eof()
            await peer.rest()

        async with RawServer(talk) as server:
            for _ in bad:
                with pytest.raises((RemoteProtocolError, ConnectionClosedError)):
                    await connect(server.port)

    run(main())


def test_pongs_and_results_without_end_that_nobody_asked_for_stop_no_answer() -> None:
    """And take no memory: the results go to `on_unexpected`, pongs nowhere."""
    unasked = b"\x00" * 100_000 + result_frame(99, EchoResult("?")) * 10_000

    async def main() -> None:
        late: list[ResultReceived] = []

        async def talk(peer: RawPeer) -> None:
            await peer.send(GREETING)
            await peer.receive(len(frame(1, AddCmd(1, 2))))
            await peer.send(unasked + result_frame(1, CalcResult(3)) + unasked)
            await peer.rest()

        async with (
            RawServer(talk) as server,
            await Client.connect(
                "127.0.0.1", server.port, CODEC, on_unexpected=late.append
            ) as client,
        ):
            assert await client.send(AddCmd(1, 2)) == CalcResult(3)
            await until(lambda: len(late) == 20_000)
            assert client.pending == 0
            assert not client.closed

    run(main())


def test_a_server_that_stops_reading_is_dropped_and_every_send_to_it_ends() -> None:
    async def main() -> None:
        finished = asyncio.Event()

        async def talk(peer: RawPeer) -> None:
            await peer.send(GREETING)
            await finished.wait()

        options = ClientOptions(link=LinkOptions(write_stall_timeout_s=0.05))
        async with RawServer(talk) as server:
            client = await connect(server.port, options)
            loop = asyncio.get_running_loop()
            large = EchoCmd("x" * MIB)
            sends = [loop.create_task(client.send(large)) for _ in range(24)]
            await asyncio.wait(sends)
            for send in sends:
                with pytest.raises(ConnectionClosedError, match="reads too slowly"):
                    send.result()
            assert client.pending == 0
            finished.set()
            await client.aclose()

    run(main())
