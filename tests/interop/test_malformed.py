"""Bad bytes and bad code: what we survive, and what a Go process dies of.

The second half is about Go's core as it is in the version of go.mod. It is here so that
`docs/interop.md` can say it, and so that we notice when it is no longer so.
"""

import asyncio
import json
from random import Random
from typing import Any

import pytest
from tests.cmdstream.helpers import (
    GREETING,
    AddCmd,
    CalcResult,
    FailCmd,
    RawPeer,
    RawServer,
    run,
)
from tests.interop.peers import GoError, go_client, go_server
from tests.interop.test_calls import answers, each_wire, our_client, serving
from tests.interop.values import everything
from tests.interop.wires import REGISTRY, WIRES, CancelCmd, MirrorCmd, PanicCmd, Wire

from cmdstream import (
    ConnectionClosedError,
    RemoteProtocolError,
    Reply,
    Server,
    TaskHandler,
)
from cmdstream.wire import write_size

JSON = WIRES[0]

NEGATIVE = b"\xff" * 9 + b"\x01"
HUGE = b"\xff" * 8 + b"\x7f"
"""2^63 - 1, as a size."""


def add(body: bytes) -> bytes:
    """An AddCmd with that body, seq 1."""
    return b"\x01\x00" + write_size(len(body)) + body


def message(body: bytes) -> bytes:
    """A TextCmd with that body, seq 1."""
    return b"\x01\x01" + write_size(len(body)) + body


CLOSES = {
    "json": {
        "an unknown tag": b"\x01\x63\x02{}",
        "no JSON": add(b"{{"),
        "an empty body": add(b""),
        "something behind the value": add(b'{"A":1,"B":2} x'),
        "a fraction for an int": add(b'{"A":1.0,"B":2}'),
        "an int beyond int64": add(b'{"A":9223372036854775808,"B":2}'),
        "a string for an int": add(b'{"A":"1","B":2}'),
        "depth": add(b'{"A":' + b"[" * 100_000),
        "a varint over 64 bits": b"\xff" * 9 + b"\x02\x00",
        "a varint without an end": b"\x80" * 32,
        "a negative length": b"\x01\x00" + NEGATIVE,
    },
    "mus": {
        "an unknown DTM": b"\x01\x63",
        "DTM 0": b"\x01\x00",
        "a negative DTM": b"\x01" + NEGATIVE,
        "a negative length": b"\x01\x02" + NEGATIVE,
        "an int over 64 bits": b"\x01\x01" + b"\xff" * 9 + b"\x02",
        # The fields of MirrorCmd, zero each, up to the bad one.
        "a bool of 2": b"\x01\x06" + bytes(10) + b"\x02",
        "a negative count": b"\x01\x06" + bytes(22) + NEGATIVE,
        "a pointer that is neither": b"\x01\x06" + bytes(24) + b"\x05",
    },
    "protobuf": {
        "an unknown tag": b"\x01\x63\x00",
        "a negative length": b"\x01\x01" + NEGATIVE,
        "a field that is cut off": message(b"\x0a\x05x"),
        "text that is no UTF-8": message(b"\x0a\x01\xff"),
        "field 0": message(b"\x02\x01x"),
        "the end of no group": message(b"\x0c"),
    },
}
"""What both languages answer by closing."""


async def is_hung_up_on(port: int, frame: bytes) -> bool:
    """Send *frame*, and tell whether nothing came before the end."""
    async with await RawPeer.connect(port) as raw:
        await raw.send(frame)
        return await raw.rest() == b""


@each_wire
def test_each_side_hangs_up_on_what_it_cannot_read(peer: str, wire: Wire) -> None:
    async def main() -> None:
        async with serving(wire) as ours, go_server(peer, wire.name) as theirs:
            _, port = await ours.listen("127.0.0.1", 0)
            for at in (port, theirs.port):
                async with our_client(wire, at) as bystander:
                    for what, frame in CLOSES[wire.name].items():
                        assert await is_hung_up_on(at, frame), what
                    result = await bystander.send(wire.make(*wire.echo("still here")))
                    assert [wire.plain(result)] == answers(wire, "still here")

    run(main())


def test_a_negative_seq_is_answered_by_go_and_not_by_us(peer: str) -> None:
    frame = NEGATIVE + add(b'{"A":1,"B":2}')[1:]

    async def main() -> None:
        async with serving(JSON) as ours, go_server(peer, "json") as theirs:
            _, port = await ours.listen("127.0.0.1", 0)
            assert await is_hung_up_on(port, frame)
            async with await RawPeer.connect(theirs.port) as raw:
                await raw.send(frame)
                assert await raw.receive(13) == NEGATIVE + b"\x00\x013"

    run(main())


# Numbers that no float64 and no int64 holds: nobody minds them where nobody reads them.

BIG = {
    "an exponent": b"1e999",
    "a negative exponent": b"-1E+999",
    "a fraction": b"1" + b"0" * 400 + b".5",
    "an integer": b"-" + b"9" * 400,
    "more digits than Python reads": b"9" * 10_000,
}
PLACES = {
    "a value": b"%s",
    "in a list": b"[1,[%s]]",
    "in an object": b'{"key":{"":%s}}',
}

each_place = pytest.mark.parametrize("place", PLACES.values(), ids=PLACES)
each_number = pytest.mark.parametrize("number", BIG.values(), ids=BIG)


@each_place
@each_number
def test_a_number_under_an_unknown_key_may_be_as_big_as_it_likes(
    peer: str, number: bytes, place: bytes
) -> None:
    unknown = b',"unknown":' + place % number + b"}"
    command = add(b'{"A":1,"B":2' + unknown)
    body = b'{"value":7,"last":true' + unknown

    async def answer_with_more(raw: RawPeer) -> None:
        await raw.send(GREETING)
        await raw.receive(1)
        await raw.send(b"\x01\x02" + write_size(len(body)) + body)
        await raw.rest()

    async def main() -> None:
        async with serving(JSON) as ours, go_server(peer, "json") as theirs:
            _, port = await ours.listen("127.0.0.1", 0)
            for at in (port, theirs.port):
                async with await RawPeer.connect(at) as raw:
                    await raw.send(command)
                    assert await raw.receive(4) == b"\x01\x00\x013"
        name, range_of = JSON.stream(7, 1)
        async with RawServer(answer_with_more) as raw:
            async with our_client(JSON, raw.port) as client:
                results = [
                    JSON.plain(result)
                    async for result in client.stream(JSON.make(name, range_of))
                ]
                assert results == [{"value": 7, "last": True}]
            async with go_client(peer, "json", raw.port) as go:
                assert await go.send(name, range_of) == results

    run(main())


@each_number
def test_a_number_that_is_too_big_for_its_field_ends_the_connection(
    peer: str, number: bytes
) -> None:
    _, whole = JSON.mirror(everything(Random(1)))
    whole["value"]["fraction"] = "here"

    def with_fraction(fraction: bytes) -> bytes:
        body = json.dumps(whole).encode().replace(b'"here"', fraction)
        tag = REGISTRY.commands.index(MirrorCmd)
        return b"\x01" + write_size(tag) + write_size(len(body)) + body

    async def main() -> None:
        async with serving(JSON) as ours, go_server(peer, "json") as theirs:
            _, port = await ours.listen("127.0.0.1", 0)
            for at in (port, theirs.port):
                async with await RawPeer.connect(at) as raw:
                    await raw.send(with_fraction(b"1e99"))
                    assert await raw.receive(1) == b"\x01"
                assert await is_hung_up_on(at, with_fraction(number))

    run(main())


# What a Go process dies of.

DEADLY = {
    "json": {"a body": b"\x01\x01" + HUGE},
    "mus": {
        "a string": b"\x01\x02" + HUGE,
        "a list": b"\x01\x06" + bytes(22) + HUGE,
    },
    "protobuf": {"a body": b"\x01\x01" + HUGE},
}
"""Commands of 2^63 - 1 bytes or elements: the beginning is enough."""


@each_wire
def test_eleven_bytes_end_a_go_server_and_not_ours(peer: str, wire: Wire) -> None:
    """W-B1: the length is allocated before it is looked at, by mus-stream-go."""

    async def main() -> None:
        async with serving(wire) as ours:
            _, port = await ours.listen("127.0.0.1", 0)
            async with our_client(wire, port) as bystander:
                for what, frame in DEADLY[wire.name].items():
                    assert await is_hung_up_on(port, frame), what
                await bystander.ping()
        for what, frame in DEADLY[wire.name].items():
            async with go_server(peer, wire.name) as go:
                async with our_client(wire, go.port) as lost:
                    assert await is_hung_up_on(go.port, frame), what
                    await lost.wait_closed()
                assert await go.exited() == 2
                assert "panic: runtime error: makeslice: len out of range" in go.stderr

    run(main())


@each_wire
def test_eleven_bytes_end_a_go_client_and_not_ours(peer: str, wire: Wire) -> None:
    async def answer_badly(raw: RawPeer) -> None:
        await raw.send(GREETING)
        await raw.receive(1)
        first, *_ = DEADLY[wire.name].values()
        await raw.send(first)  # the same bytes are an EchoResult's
        await raw.rest()

    async def main() -> None:
        async with RawServer(answer_badly) as raw, our_client(wire, raw.port) as client:
            with pytest.raises(RemoteProtocolError, match=r"more than|announces"):
                await client.send(wire.make(*wire.echo("hello")))
            assert isinstance(await client.wait_closed(), RemoteProtocolError)
        async with (
            RawServer(answer_badly) as raw,
            go_client(peer, wire.name, raw.port) as go,
        ):
            with pytest.raises(GoError, match="it ended"):
                await go.send(*wire.echo("hello"))
            assert await go.exited() == 2
            assert "panic: runtime error: makeslice: len out of range" in go.stderr

    run(main())


async def fail(command: object, reply: Reply) -> None:
    """A handler with the bugs of the Go commands of these names."""
    match command:
        case AddCmd(A=a, B=b):
            await reply.send(CalcResult(a + b))
        case CancelCmd():
            raise asyncio.CancelledError
        case _:
            raise LookupError("intentional")


def test_a_bug_in_one_command_costs_us_one_connection() -> None:
    async def main() -> None:
        async with Server(JSON.codec, TaskHandler(fail)) as ours:
            _, port = await ours.listen("127.0.0.1", 0)
            async with our_client(JSON, port) as bystander:
                for command in (PanicCmd(), CancelCmd(), FailCmd()):
                    async with our_client(JSON, port) as client:
                        with pytest.raises(ConnectionClosedError):
                            await client.send(command)
                    assert await bystander.send(AddCmd(2, 3)) == CalcResult(5)

    run(main())


def test_a_panic_in_one_command_ends_a_go_server(peer: str) -> None:
    """W-B2: nobody recovers."""

    async def main() -> None:
        async with go_server(peer, "json") as server:
            await _dies_of(server.port, PanicCmd())
            assert await server.exited() == 2
            assert "panic: intentional" in server.stderr

    run(main())


def test_a_cancelled_call_in_one_command_stops_a_go_server(peer: str) -> None:
    """W-B3: its error is taken for the worker's own end."""

    async def main() -> None:
        async with go_server(peer, "json") as server:
            await _dies_of(server.port, CancelCmd())
            assert await server.exited() == 1
        assert "closed" in server.last_words

    run(main())


async def _dies_of(port: int, command: Any) -> None:
    """Send *command*, and see another client of the server lose its connection."""
    async with our_client(JSON, port) as bystander, our_client(JSON, port) as client:
        assert await bystander.send(AddCmd(2, 3)) == CalcResult(5)
        with pytest.raises(ConnectionClosedError):
            await client.send(command)
        await bystander.wait_closed()
