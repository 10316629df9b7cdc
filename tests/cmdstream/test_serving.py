"""One client as the server sees it, where no socket is needed."""

import asyncio
import functools
import logging

import msgspec
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

from cmdstream import (
    CommandReceived,
    EncodeError,
    Failure,
    LinkOptions,
    LocalProtocolError,
    Registry,
    Reply,
    ResultType,
    ServerOptions,
)
from cmdstream.codecs.json import JsonBody, JsonCodec
from cmdstream.codecs.tagged import Body


class Sneaky(BaseException):
    """What is no `Exception`, and none of Python's own either."""


def test_a_result_that_cannot_be_sent_leaves_the_reply_open() -> None:
    """W-A1: in Go a part of it stays in the buffer, and corrupts what comes after."""

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


def test_a_broken_farewell_does_not_keep_the_others_from_theirs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        held = Held()
        left: list[int] = []
        async with serving(held) as (server, port):
            async with await RawPeer.connect(port) as peer:
                await peer.send(frame(1, AddCmd(1, 2)) + frame(2, AddCmd(1, 2)))
                first, second = await held.reply(), await held.reply()

                def fail() -> None:
                    raise LookupError("farewell")

                first.when_closed(fail)
                second.when_closed(lambda: left.append(2))
            await until(lambda: server.connections == 0)
            assert left == [2]
            first.finish()
            second.finish()

    run(main())
    assert "LookupError: farewell" in caplog.text


def test_all_senders_learn_that_the_client_is_gone() -> None:
    """W-D5: in Go one of them gets the error of a flush, and the others succeed."""

    async def main() -> None:
        held = Held()
        options = ServerOptions(link=LinkOptions(unsent_high_size=64 * 1024))
        async with serving(held, options=options) as (_, port):
            async with await RawPeer.connect(port) as peer:
                await peer.send(b"".join(frame(n, EchoCmd("")) for n in range(1, 4)))
                replies = [await held.reply() for _ in range(3)]
                client = replies[0]._client
                while client.writable:
                    client.write(b"\x00" * 256 * 1024)
                    await asyncio.sleep(0)
                async with asyncio.TaskGroup() as group:
                    for reply in replies:
                        group.create_task(reply.send(EchoResult("x")))
                    await until(lambda: len(client._waiters) == 3)
                    peer.writer.transport.abort()
            assert all(reply.closed for reply in replies)

    run(main())


class CommandFailed(msgspec.Struct):
    """What a client is told in the place of a hang-up."""

    reason: str


FAILING = Registry([AddCmd, EchoCmd], [EchoResult, CommandFailed])


def _not_registered(reason: str) -> object:
    return {"reason": reason}


def _not_the_last(reason: str) -> object:
    return StreamResult(len(reason), last=False)


def _raise_for_add(received: CommandReceived, reply: Reply) -> None:
    match received.command:
        case AddCmd():
            raise LookupError("no such number")
        case _:
            reply.send_nowait(EchoResult("fine"))


def test_a_command_that_fails_may_be_answered_with_a_result_of_its_own(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """W-D4: in Go one failing command takes the connection, and with it the others."""
    codec = JsonCodec(FAILING)

    async def main() -> None:
        async with (
            serving(_raise_for_add, codec=codec, failure=CommandFailed) as (
                server,
                port,
            ),
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, AddCmd(1, 2)) + frame(2, EchoCmd("x")))
            failed = CommandFailed("seq 1: LookupError in the handler: no such number")
            expected = b"\x01" + codec.encode_result(failed) + b'\x02\x00\x06"fine"'
            assert await peer.receive(len(expected)) == expected
            assert server.in_flight == 0

    run(main())
    (record,) = caplog.records
    assert "a command of 127.0.0.1:" in record.getMessage()
    assert "failed: seq 1: LookupError in the handler" in record.getMessage()
    assert record.exc_info is not None


@pytest.mark.parametrize(
    ("failure", "problem"),
    [
        (_not_registered, "the failure result can't be sent: EncodeError"),
        (object, "the failure result can't be sent: TypeError"),
        (_not_the_last, "is not a last one"),
    ],
)
def test_a_failure_result_that_does_not_do_is_a_hang_up_again(
    failure: Failure, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with (
            serving(_raise_for_add, failure=failure) as (server, port),
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, AddCmd(1, 2)))
            await peer.rest()
            assert server.in_flight == 0

    run(main())
    (record,) = caplog.records
    assert "LookupError in the handler: no such number" in record.getMessage()
    assert problem in record.getMessage()


def test_a_failure_behind_the_last_result_is_logged_and_costs_nobody_a_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handler(_received: CommandReceived, reply: Reply) -> None:
        reply.send_nowait(CalcResult(3))
        raise LookupError("too late")

    async def main() -> None:
        async with (
            serving(handler, failure=CommandFailed) as (_, port),
            await RawPeer.connect(port) as peer,
        ):
            for seq in (1, 2):
                await peer.send(frame(seq, AddCmd(1, 2)))
                assert await peer.receive(4) == bytes([seq]) + b"\x00\x013"

    run(main())
    assert len(caplog.records) == 2


def test_a_command_that_fails_when_its_client_has_left_is_logged_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (server, port):
            async with await RawPeer.connect(port) as peer:
                await peer.send(frame(1, AddCmd(1, 2)))
                reply = await held.reply()
            await until(lambda: reply.closed)
            reply.fail("LookupError in AddCmd", LookupError("none"))
            assert server.in_flight == 0

    run(main())
    (record,) = caplog.records
    assert "has left, and seq 1: LookupError in AddCmd" in record.getMessage()


@pytest.mark.parametrize("error", [SystemExit(1), asyncio.CancelledError(), Sneaky()])
def test_a_handler_cannot_end_the_server(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    """W-B2, W-B3: a panic in a command, or a cancellation of its own, ends Go's."""

    def handler(received: CommandReceived, reply: Reply) -> None:
        if isinstance(received.command, AddCmd):
            raise error
        reply.send_nowait(EchoResult("fine"))

    async def main() -> None:
        async with (
            serving(handler) as (server, port),
            await RawPeer.connect(port) as bystander,
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, AddCmd(1, 2)))
            assert await peer.rest() == b""
            await bystander.send(frame(1, EchoCmd("x")))
            assert await bystander.receive(9) == b'\x01\x01\x06"fine"'
            assert server.in_flight == 0

    run(main())
    (record,) = caplog.records
    assert f"{type(error).__name__} in the handler" in record.getMessage()


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
