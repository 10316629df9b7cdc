"""What hooks see of a send, in which order, and what their mistakes cost."""

import asyncio
import gc
from collections.abc import Callable

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
    StreamResult,
    frame,
    let_time_pass,
    result_frame,
    run,
    serving,
)

from cmdstream import (
    Client,
    CommandSent,
    ConnectionClosedError,
    EncodeError,
    Hook,
    HookFactory,
    LocalProtocolError,
    ResultReceived,
    SendTimeoutError,
)


class Spy(Hook):
    """Notes every call into a list that all hooks share, and fails where it should."""

    def __init__(self, notes: list[str], name: str, fails_in: str) -> None:
        self._notes = notes
        self._name = name
        self._fails_in = fails_in

    def _note(self, call: str, said: object) -> None:
        self._notes.append(f"{self._name} {call} {said}")
        if call == self._fails_in:
            raise LookupError(f"{self._name} fails in {call}")

    def before(self, command: object) -> object:
        self._note("before", command)
        return command

    def sent(self, sent: CommandSent) -> None:
        self._note("sent", sent.seq)

    def received(self, received: ResultReceived) -> None:
        self._note("received", received.result)

    def ended(self, error: BaseException | None) -> None:
        self._note("ended", type(error).__name__)


class Spies:
    """Makes spies, in two layers."""

    def __init__(self, fails_in: str = "") -> None:
        self.notes: list[str] = []
        self._fails_in = fails_in

    @property
    def hooks(self) -> list[HookFactory]:
        return [
            lambda: Spy(self.notes, "outer", ""),
            lambda: Spy(self.notes, "inner", self._fails_in),
        ]


async def connect(port: int, hooks: list[HookFactory]) -> Client:
    return await Client.connect("127.0.0.1", port, CODEC, hooks=hooks)


def spawn(client: Client, command: object) -> "asyncio.Task[object]":
    return asyncio.get_running_loop().create_task(client.send(command))


def test_hooks_lie_around_a_send_like_layers() -> None:
    async def main() -> None:
        spies = Spies()
        async with serving() as (_, port), await connect(port, spies.hooks) as client:
            assert await client.send(EchoCmd("x")) == "x"
        assert spies.notes == [
            "outer before x",
            "inner before x",
            "inner sent 1",
            "outer sent 1",
            "inner received x",
            "outer received x",
            "inner ended NoneType",
            "outer ended NoneType",
        ]

    run(main())


def test_a_stream_is_one_send_with_many_results() -> None:
    async def main() -> None:
        spies = Spies()
        hooks = spies.hooks[:1]
        async with serving() as (_, port), await connect(port, hooks) as client:
            assert len([one async for one in client.stream(RangeCmd(1, 2))]) == 2
        assert [note.split("(")[0] for note in spies.notes] == [
            "outer before RangeCmd",
            "outer sent 1",
            "outer received StreamResult",
            "outer received StreamResult",
            "outer ended NoneType",
        ]

    run(main())


def test_every_send_has_a_hook_of_its_own() -> None:
    async def main() -> None:
        made: list[Hook] = []

        def make() -> Hook:
            made.append(Hook())
            return made[-1]

        async with serving() as (_, port), await connect(port, [make]) as client:
            await client.send(AddCmd(1, 2))
            await client.send(AddCmd(1, 2))
            await client.ping()
        assert len(made) == 2

    run(main())


def test_a_hook_sees_what_was_sent_and_received() -> None:
    async def main() -> None:
        seen: list[object] = []

        class Seeing(Hook):
            def sent(self, sent: CommandSent) -> None:
                seen.append(sent)

            def received(self, received: ResultReceived) -> None:
                seen.append(received)

        async with serving() as (_, port), await connect(port, [Seeing]) as client:
            await client.send(AddCmd(1, 2))
        size = len(frame(1, AddCmd(1, 2)))
        assert seen == [
            CommandSent(1, size, f"127.0.0.1:{port}"),
            ResultReceived(1, 3, True, len(result_frame(1, CalcResult(3)))),
        ]

    run(main())


def test_a_veto_sends_nothing_and_is_what_the_sender_gets() -> None:
    async def main() -> None:
        spies = Spies("before")
        async with serving() as (_, port), await connect(port, spies.hooks) as client:
            with pytest.raises(LookupError, match="inner fails in before"):
                await client.send(AddCmd(1, 2))
            with pytest.raises(LookupError, match="inner fails in before"):
                await anext(client.stream(AddCmd(1, 2)))
            assert client.next_seq == 1
        assert spies.notes[2::3] == ["outer ended LookupError"] * 2

    run(main())


def test_a_hook_may_send_another_command_in_its_place() -> None:
    """So a trace travels: a wrapper around the command, or a field of a copy."""

    class Doubled(Hook):
        def before(self, command: object) -> object:
            assert isinstance(command, AddCmd)
            return AddCmd(command.A * 2, command.B * 2)

    async def main() -> None:
        hooks: list[HookFactory] = [Doubled, Doubled]
        async with serving() as (_, port), await connect(port, hooks) as client:
            assert await client.send(AddCmd(1, 2)) == CalcResult(12)

    run(main())


async def encode_error(client: Client, _held: Held) -> None:
    with pytest.raises(EncodeError):
        await client.send(object())


async def time_out(client: Client, held: Held) -> None:
    asked = asyncio.get_running_loop().create_task(
        client.send(EchoCmd("x"), timeout_s=5.0)
    )
    await held.reply()
    let_time_pass(5.0)
    with pytest.raises(SendTimeoutError):
        await asked


async def cancel(client: Client, held: Held) -> None:
    asked = spawn(client, EchoCmd("x"))
    await held.reply()
    asked.cancel()
    await asyncio.wait([asked])
    assert asked.cancelled()


async def lose(client: Client, held: Held) -> None:
    asked = spawn(client, EchoCmd("x"))
    (await held.reply()).fail("for the test")
    with pytest.raises(ConnectionClosedError):
        await asked


async def take_several(client: Client, held: Held) -> None:
    asked = spawn(client, EchoCmd("x"))
    await (await held.reply()).send(StreamResult(1, last=False))
    with pytest.raises(LocalProtocolError):
        await asked


async def leave_a_stream(client: Client, held: Held) -> None:
    stream = client.stream(EchoCmd("x"))
    read = asyncio.get_running_loop().create_task(anext(stream))
    await (await held.reply()).send(StreamResult(1, last=False))
    await read
    await stream.aclose()
    await stream.aclose()


async def drop_a_stream(client: Client, held: Held) -> None:
    stream = client.stream(EchoCmd("x"))
    read = asyncio.get_running_loop().create_task(anext(stream))
    await (await held.reply()).send(StreamResult(1, last=False))
    await read
    del stream, read
    gc.collect()


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (encode_error, "EncodeError"),
        (time_out, "SendTimeoutError"),
        (cancel, "CancelledError"),
        (lose, "ConnectionClosedError"),
        (take_several, "LocalProtocolError"),
        (leave_a_stream, "CancelledError"),
        (drop_a_stream, "CancelledError"),
    ],
)
def test_a_hook_hears_of_every_end_once(
    end: Callable[[Client, Held], "asyncio.Future[None]"], kind: str
) -> None:
    """W-D1, W-D2: what it gets is what the sender sees, and tells the ends apart."""

    async def main() -> None:
        held, spies = Held(), Spies()
        async with serving(held) as (_, port):
            client = await connect(port, spies.hooks)
            await end(client, held)
            await client.aclose()
        ends = [note for note in spies.notes if " ended " in note]
        assert ends == [f"inner ended {kind}", f"outer ended {kind}"]
        assert spies.notes[-2:] == ends

    run(main())


@pytest.mark.parametrize("fails_in", ["sent", "received", "ended"])
def test_a_hook_that_fails_harms_only_its_send(fails_in: str) -> None:
    async def main() -> None:
        held, spies = Held(), Spies(fails_in)
        async with serving(held) as (_, port):
            plain = await Client.connect("127.0.0.1", port, CODEC)
            async with plain, await connect(port, spies.hooks) as client:
                hooks, client._hooks = client._hooks, ()
                other = spawn(client, EchoCmd("other"))
                other_reply = await held.reply()
                client._hooks = hooks
                asked = spawn(client, EchoCmd("x"))
                (await held.reply()).send_nowait(EchoResult("x"))
                with pytest.raises(LookupError, match=f"inner fails in {fails_in}"):
                    await asked
                other_reply.send_nowait(EchoResult("other"))
                assert await other == "other"
                assert client.pending == 0
        assert spies.notes[-1] == "outer ended LookupError"

    run(main())


def test_a_stream_ends_with_the_mistake_of_a_hook() -> None:
    async def main() -> None:
        for fails_in in ("received", "ended"):
            hooks = Spies(fails_in).hooks
            async with serving() as (_, port), await connect(port, hooks) as client:
                stream = client.stream(RangeCmd(1, 1))
                with pytest.raises(LookupError, match=f"inner fails in {fails_in}"):
                    await anext(stream)
                assert [one async for one in stream] == []
                assert client.pending == 0

    run(main())


def test_a_hook_that_fails_at_an_end_does_not_hide_how_it_ended() -> None:
    """A cancellation must not get lost, whatever a hook makes of it."""

    async def main() -> None:
        async def silent(peer: RawPeer) -> None:
            await peer.send(GREETING)
            await peer.rest()

        hooks = Spies("ended").hooks
        async with (
            RawServer(silent) as server,
            await connect(server.port, hooks) as client,
        ):
            asked = spawn(client, AddCmd(1, 2))
            with pytest.raises(EncodeError) as caught:
                await client.send(object())
            assert caught.value.__notes__ == [
                "and then Spy: LookupError('inner fails in ended')"
            ]
            asked.cancel()
            await asyncio.wait([asked])
            assert asked.cancelled()

    run(main())
