"""One client as the server sees it, where no socket is needed."""

import asyncio
import functools
import logging

import pytest
from tests.cmdstream.helpers import (
    CODEC,
    AddCmd,
    CalcResult,
    EchoCmd,
    EchoResult,
    Held,
    RangeCmd,
    RawPeer,
    StreamResult,
    frame,
    run,
    serving,
    until,
)

from cmdstream import EncodeError, LocalProtocolError, Registry, Reply, ResultType
from cmdstream.codecs.json import JsonBody, JsonCodec
from cmdstream.codecs.tagged import Body


def test_a_result_that_cannot_be_sent_leaves_the_reply_open() -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (_, port), await RawPeer.connect(port) as peer:
            await peer.send(frame(1, AddCmd(1, 2)))
            reply = await held.reply()
            with pytest.raises(EncodeError):
                reply.send_nowait(object())
            with pytest.raises(EncodeError):
                reply.send_nowait(EchoResult("\ud800"))
            assert not reply.finished
            reply.send_nowait(CalcResult(3))
            assert await peer.receive(4) == b"\x01\x00\x013"
            with pytest.raises(LocalProtocolError, match="after the last one: seq 1"):
                reply.send_nowait(CalcResult(3))

    run(main())


def test_a_reply_is_finished_once_and_failing_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "cmdstream.server")

    async def main() -> None:
        held = Held()
        async with serving(held) as (server, port), await RawPeer.connect(port) as peer:
            await peer.send(frame(1, AddCmd(1, 2)) + frame(2, AddCmd(1, 2)))
            first, second = await held.reply(), await held.reply()
            first.finish()
            first.finish()
            assert server.in_flight == 1
            first.fail("too late, but true")
            second.fail("not logged any more")
            assert repr(second).startswith("<Reply finished seq=2")
            assert server.in_flight == 0
            assert await peer.rest() == b""

    run(main())
    warnings = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert [text.split(": ", 1)[1] for text in warnings] == [
        "seq 1: too late, but true"
    ]


def test_a_reply_to_a_client_that_left_says_so() -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (_, port):
            async with await RawPeer.connect(port) as peer:
                await peer.send(frame(1, AddCmd(1, 2)))
                reply = await held.reply()
            await until(lambda: reply.closed)
            assert repr(reply).startswith("<Reply closed seq=1")
            with pytest.raises(EncodeError):  # a bug is told even if nobody listens
                await reply.send(object())
            reply.finish()

    run(main())


def test_a_client_that_leaves_is_told_of_once_for_each_open_reply() -> None:
    async def main() -> None:
        held = Held()
        left: list[int] = []
        async with serving(held) as (server, port):
            async with await RawPeer.connect(port) as peer:
                await peer.send(b"".join(frame(n, AddCmd(1, 2)) for n in range(1, 5)))
                replies = [await held.reply() for _ in range(4)]
                for reply in replies[:3]:
                    reply.when_closed(functools.partial(left.append, reply.seq))
                replies[0].finish()

                def leave() -> None:
                    left.append(0)
                    replies[1].finish()
                    replies[2].finish()

                replies[1].when_closed(leave)
            await until(lambda: replies[1].closed)
            assert left == [0]
            replies[3].finish()
            assert server.in_flight == 0

    run(main())


def test_an_endless_sender_lets_others_have_a_turn() -> None:
    """A client that reads fast never makes the sender wait for it."""

    async def main() -> None:
        held = Held()
        async with serving(held) as (_, port), await RawPeer.connect(port) as peer:
            await peer.send(frame(1, RangeCmd(1, 1)))
            reply = await held.reply()
            others: list[int] = []

            async def endless() -> None:
                while not others:
                    await reply.send(StreamResult(1, last=False))

            async def read() -> None:
                while True:
                    await peer.receive(1)

            async with asyncio.TaskGroup() as group:
                reading = group.create_task(read())
                sending = group.create_task(endless())
                asyncio.get_running_loop().call_soon(others.append, 1)
                await asyncio.wait([sending])
                reading.cancel()
            reply.finish()

    run(main())


class Buggy:
    """A body whose decoder has a bug."""

    def __init__(self, body: Body) -> None:
        self.encode = body.encode

    def decode(self, body: bytes) -> object:
        return body[1_000_000]


def test_a_bug_in_a_codec_ends_one_connection(caplog: pytest.LogCaptureFixture) -> None:
    codec = JsonCodec(
        Registry([AddCmd, EchoCmd], [ResultType(CalcResult)]),
        bodies={EchoCmd: Buggy(JsonBody(EchoCmd))},
    )
    assert codec.encode_command(EchoCmd("x")) == CODEC.encode_command(EchoCmd("x"))

    def answer(_received: object, reply: Reply) -> None:
        reply.send_nowait(CalcResult(3))

    async def main() -> None:
        async with (
            serving(answer, codec=codec) as (_, port),
            await RawPeer.connect(port) as bystander,
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, EchoCmd("x")))
            assert await peer.rest() == b""
            await bystander.send(frame(1, AddCmd(1, 2)))
            assert await bystander.receive(4) == b"\x01\x00\x013"

    run(main())
    assert "IndexError while decoding" in caplog.text
    assert "Traceback" in caplog.text
