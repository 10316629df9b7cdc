"""Handlers that are coroutines."""

import asyncio
from collections.abc import Callable

import pytest
from tests.cmdstream.helpers import (
    AddCmd,
    CalcResult,
    EchoCmd,
    EchoResult,
    FailCmd,
    Held,
    RangeCmd,
    RawPeer,
    StreamResult,
    connect,
    frame,
    run,
    serving,
    until,
)

from cmdstream import (
    ConnectionClosedError,
    LinkOptions,
    Reply,
    ServerOptions,
    TaskHandler,
)


class Sneaky(BaseException):
    """What is no `Exception`, and none of Python's own either."""


RAISED: dict[str, Callable[[], BaseException]] = {
    "raise": lambda: LookupError("no such thing"),
    "cancel": asyncio.CancelledError,
    # What a client raises that the command asked, and in Go the server itself.
    "closed": lambda: ConnectionClosedError("the server is closed"),
    "exit": lambda: SystemExit(1),
    "sneak": lambda: Sneaky("out"),
}


async def misbehave(command: object, reply: Reply) -> None:
    """Do what the command's text says, and answer everything else."""
    match command:
        case EchoCmd() if command in RAISED:
            error = RAISED[command]()
            raise error
        case EchoCmd("nothing"):
            return
        case EchoCmd("finish"):
            reply.finish()
        case EchoCmd("unlisted"):
            await reply.send(object())
        case RangeCmd():
            await reply.send(StreamResult(1, last=False))
        case EchoCmd("twice"):
            await reply.send(EchoResult("once"))
            await reply.send(EchoResult("twice"))
        case _:
            await reply.send(CalcResult(3))


@pytest.mark.parametrize(
    ("command", "answer", "reason"),
    [
        (EchoCmd("raise"), b"", "LookupError in EchoCmd: no such thing"),
        (EchoCmd("cancel"), b"", "EchoCmd was cancelled"),
        (EchoCmd("closed"), b"", "ConnectionClosedError in EchoCmd: the server is"),
        (EchoCmd("exit"), b"", "SystemExit in EchoCmd: 1"),
        (EchoCmd("sneak"), b"", "Sneaky in EchoCmd: out"),
        (EchoCmd("nothing"), b"", "EchoCmd ended without a last result"),
        (
            EchoCmd("unlisted"),
            b"",
            "EncodeError in EchoCmd: object is not a registered",
        ),
        (EchoCmd("twice"), b'\x01\x01\x06"once"', "a result after the last one: seq 1"),
        (
            RangeCmd(1, 1),
            b'\x01\x02\x18{"value":1,"last":false}',
            "RangeCmd ended without a last result",
        ),
    ],
)
def test_whatever_a_command_does_it_does_to_its_own_client(
    command: object, answer: bytes, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """W-B2, W-B3: Go's server dies of a panic, or a cancellation it did not make."""

    async def main() -> None:
        async with (
            serving(TaskHandler(misbehave)) as (server, port),
            await connect(port) as bystander,
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, command))
            assert (await peer.rest()).replace(b"\x19{", b"\x18{") == answer
            assert await bystander.send(AddCmd(1, 2)) == CalcResult(3)
            assert server.in_flight == 0

    run(main())
    (record,) = caplog.records
    assert "seq 1: " in record.getMessage()
    assert reason in record.getMessage()


def test_a_command_may_end_without_a_result_if_it_says_so() -> None:
    async def main() -> None:
        async with (
            serving(TaskHandler(misbehave)) as (server, port),
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, EchoCmd("finish")) + frame(2, AddCmd(1, 2)))
            assert await peer.receive(4) == b"\x02\x00\x013"
            assert server.in_flight == 0

    run(main())


def test_a_coroutine_that_fails_may_be_answered_with_a_result_of_its_own() -> None:
    """W-D4."""

    async def main() -> None:
        async with (
            serving(TaskHandler(misbehave), failure=_told) as (server, port),
            await connect(port) as client,
        ):
            for text, reason in (
                ("raise", "seq 1: LookupError in EchoCmd: no such thing"),
                ("cancel", "seq 2: EchoCmd was cancelled"),
                ("nothing", "seq 3: EchoCmd ended without a last result"),
            ):
                assert await client.send(EchoCmd(text)) == EchoResult(reason)
            assert server.in_flight == 0

    run(main())


def _told(reason: str) -> object:
    return EchoResult(reason)


def test_an_exception_in_a_plain_handler_ends_its_client_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def handler(received: object, reply: Reply) -> None:
        raise LookupError(f"no {reply.seq}")

    async def main() -> None:
        async with (
            serving(handler) as (server, port),
            await RawPeer.connect(port) as peer,
        ):
            await peer.send(frame(1, FailCmd()))
            assert await peer.rest() == b""
            assert server.in_flight == 0

    run(main())
    assert "LookupError in the handler: no 1" in caplog.text
    assert "Traceback" in caplog.text


def test_closing_the_server_cancels_the_tasks_and_waits_for_them() -> None:
    cleaned: list[str] = []
    started = asyncio.Event()

    async def wait(_command: object, _reply: Reply) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cleaned.append("up")

    async def main() -> None:
        async with serving(TaskHandler(wait)) as (server, port):
            client = await connect(port)
            asked = asyncio.get_running_loop().create_task(client.send(FailCmd()))
            await started.wait()
            await server.aclose()
            assert cleaned == ["up"]
            assert server.in_flight == 0
            with pytest.raises(ConnectionClosedError):
                await asked
            await client.aclose()

    run(main())


def test_a_task_cancelled_before_its_first_step_gives_its_slot_back() -> None:
    async def main() -> None:
        held = Held()
        handler = TaskHandler(misbehave)
        async with serving(held) as (server, port), await RawPeer.connect(port) as peer:
            await peer.send(frame(1, FailCmd()))
            handler(*await held.next())
            await handler.aclose(1)
            await until(lambda: server.in_flight == 0)

    run(main())


def test_a_task_that_ignores_its_cancellation_does_not_stop_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """W-C9: in Go such a command blocks its worker, and the server's end."""
    started, release = asyncio.Event(), asyncio.Event()

    async def stubborn(_command: object, _reply: Reply) -> None:
        started.set()
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    async def main() -> None:
        options = ServerOptions(link=LinkOptions(close_timeout_s=0.02))
        async with serving(TaskHandler(stubborn), options=options) as (server, port):
            async with await RawPeer.connect(port) as peer:
                await peer.send(frame(1, FailCmd()))
                await started.wait()
                await server.aclose()
            release.set()
            await until(lambda: server.in_flight == 0)

    run(main())
    assert "1 commands ignore their cancellation" in caplog.text
