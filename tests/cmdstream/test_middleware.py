"""Functions around a handler, and what they are told."""

import asyncio
import contextvars
from typing import Any

import msgspec
import pytest
from tests.cmdstream.helpers import (
    CODEC,
    AddCmd,
    CalcResult,
    EchoCmd,
    EchoResult,
    FailCmd,
    Held,
    RangeCmd,
    RawPeer,
    StreamResult,
    answer,
    answer_later,
    frame,
    run,
    serving,
    until,
)

from cmdstream import CommandReceived, Handler, Reply, Server, TaskHandler, WatchedReply
from cmdstream.serving import ServedClient

THREE = b"\x01\x00\x013"


class Diary:
    """Notes what becomes of a command."""

    def __init__(self) -> None:
        self.notes: list[Any] = []

    def sent(self, result: object, size: int, *, is_last: bool) -> None:
        self.notes.append((result, size, is_last))

    def ended(self, reason: str | None, error: BaseException | None) -> None:
        self.notes.append((reason, error))


def watched_by(diary: Diary) -> Any:
    def watch(received: CommandReceived, reply: WatchedReply, inner: Handler) -> None:
        reply.watch(diary)
        inner(received, reply)

    return watch


def test_middleware_is_called_from_the_outside_in_and_not_for_pings() -> None:
    calls: list[Any] = []

    def outer(received: CommandReceived, reply: WatchedReply, inner: Handler) -> None:
        calls.append(("outer", received.command, received.seq))
        inner(received, reply)
        calls.append("back outside")

    def middle(received: CommandReceived, reply: WatchedReply, inner: Handler) -> None:
        calls.append("middle")
        inner(received, reply)

    async def main() -> None:
        async with (
            serving(answer, middleware=[outer, middle]) as (_, port),
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(b"\x00" + frame(1, AddCmd(1, 2)))
            assert await peer.receive(5) == b"\x00" + THREE

    run(main())
    assert calls == [("outer", AddCmd(1, 2), 1), "middle", "back outside"]


def test_a_watcher_is_told_of_each_result_and_of_the_end() -> None:
    diary = Diary()

    async def main() -> None:
        async with (
            serving(TaskHandler(answer_later), middleware=[watched_by(diary)]) as (
                server,
                port,
            ),
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, RangeCmd(5, 2)))
            await until(lambda: len(diary.notes) == 3)
            assert server.in_flight == 0

    run(main())
    first, last = StreamResult(5, last=False), StreamResult(6, last=True)
    sizes = [1 + len(CODEC.encode_result(result)) for result in (first, last)]
    assert diary.notes == [
        (first, sizes[0], False),
        (last, sizes[1], True),
        (None, None),
    ]


def test_a_watcher_is_told_why_a_command_failed_once() -> None:
    diary = Diary()
    error = LookupError("none")

    async def fail(_command: object, reply: Reply) -> None:
        try:
            raise error
        finally:
            reply.fail("first", None)
            reply.fail("second", None)

    async def main() -> None:
        async with (
            serving(TaskHandler(fail), middleware=[watched_by(diary)]) as (_, port),
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, FailCmd()))
            assert await peer.rest() == b""

    run(main())
    assert diary.notes == [("first", None)]


@pytest.mark.parametrize("failure", [None, EchoResult])
def test_a_watcher_sees_the_exception_of_a_handler(failure: Any) -> None:
    diary = Diary()
    error = LookupError("none")

    async def fail(_command: object, _reply: Reply) -> None:
        raise error

    def told(reason: str) -> object:
        return failure(reason)

    async def main() -> None:
        async with (
            serving(
                TaskHandler(fail),
                failure=told if failure else None,
                middleware=[watched_by(diary)],
            ) as (_, port),
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, FailCmd()))
            await until(lambda: bool(diary.notes) and diary.notes[-1][-1] is error)

    run(main())
    assert len(diary.notes) == (2 if failure else 1)
    assert diary.notes[-1] == ("LookupError in FailCmd: none", error)


def test_what_is_dropped_since_the_client_left_is_told_with_no_size() -> None:
    diary = Diary()

    async def main() -> None:
        held = Held()
        async with serving(held, middleware=[watched_by(diary)]) as (_, port):
            async with await RawPeer.connect(port) as peer:
                await peer.send(frame(1, EchoCmd("x")))
                reply = await held.reply()
            await until(lambda: reply.closed)
            reply.send_nowait(EchoResult("x"))

    run(main())
    assert diary.notes == [(EchoResult("x"), 0, True), (None, None)]


def test_a_task_sees_the_context_that_middleware_sets() -> None:
    who: contextvars.ContextVar[str] = contextvars.ContextVar("who")

    def name(received: CommandReceived, reply: WatchedReply, inner: Handler) -> None:
        token = who.set(f"seq {received.seq}")
        try:
            inner(received, reply)
        finally:
            who.reset(token)

    async def tell(_command: object, reply: Reply) -> None:
        await asyncio.sleep(0)
        await reply.send(EchoResult(who.get()))

    async def main() -> None:
        async with (
            serving(TaskHandler(tell), middleware=[name]) as (_, port),
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, FailCmd()) + frame(2, FailCmd()))
            assert await peer.receive(2 * 10) == (
                b'\x01\x01\x07"seq 1"' + b'\x02\x01\x07"seq 2"'
            )

    run(main())


def test_middleware_may_answer_by_itself_or_change_the_command() -> None:
    def guard(received: CommandReceived, reply: WatchedReply, inner: Handler) -> None:
        match received.command:
            case EchoCmd("forbidden"):
                reply.send_nowait(EchoResult("no"))
            case EchoCmd():
                changed = msgspec.structs.replace(received, command=AddCmd(1, 2))
                inner(changed, reply)
            case _:
                raise LookupError("as in a handler")

    async def main() -> None:
        async with (
            serving(answer, middleware=[guard]) as (_, port),
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, EchoCmd("x")) + frame(2, EchoCmd("forbidden")))
            assert await peer.receive(11) == THREE + b'\x02\x01\x04"no"'
            await peer.send(frame(3, FailCmd()))
            assert await peer.rest() == b""

    run(main())


def test_a_watcher_that_fails_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def sent(self, result: object, size: int, *, is_last: bool) -> None:
            raise LookupError("sent")

        def ended(self, reason: str | None, error: BaseException | None) -> None:
            raise LookupError("ended")

    diary = Diary()

    def watch(received: CommandReceived, reply: WatchedReply, inner: Handler) -> None:
        reply.watch(Broken())
        reply.watch(diary)
        inner(received, reply)

    async def main() -> None:
        async with (
            serving(answer, middleware=[watch]) as (server, port),
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, AddCmd(1, 2)))
            assert await peer.receive(4) == THREE
            assert server.in_flight == 0

    run(main())
    assert diary.notes == [(CalcResult(3), 4, True), (None, None)]
    assert len(caplog.records) == 2


def test_without_middleware_the_handler_itself_gets_a_plain_reply() -> None:
    async def main() -> None:
        held = Held()
        async with serving(held) as (server, port), await RawPeer.connect(port) as peer:
            assert isinstance(server, Server)
            (client,) = server._clients
            assert isinstance(client, ServedClient)
            assert client._handler is held
            await peer.send(frame(1, EchoCmd("x")))
            reply = await held.reply()
            assert type(reply) is Reply
            reply.finish()

    run(main())
