"""Whatever happens to its connections, every send ends, and tells the truth.

Random servers: each connection greets or does not, answers so many commands, leaves so
many in between unanswered, and then ends in one of the ways in which connections end.
Random users: they send, stream and ping, with and without time, cancel, and let time
pass. What must hold in the end, for a client and for a group:

* every send has ended once the client is closed, and nothing is pending;
* no command reached a server twice, and one that was answered reached it once;
* one whose answer is said to be unreadable did reach one, and one that is said to be
  not sent reached none.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cmdstream.helpers import (
    CODEC,
    GREETING,
    EchoCmd,
    EchoResult,
    RawPeer,
    RawServer,
    let_time_pass,
    run,
    turns,
)

from cmdstream import (
    Client,
    ClientOptions,
    CommandReceived,
    ConnectionClosedError,
    Group,
    KeepaliveOptions,
    ReconnectOptions,
    RemoteProtocolError,
    ResultStream,
    SendTimeoutError,
)
from cmdstream.protocol import ServerConnection
from cmdstream.wire import write_size

OPTIONS = ClientOptions(
    keepalive=KeepaliveOptions(idle_s=5.0, interval_s=2.0, pong_timeout_s=10.0),
    reconnect=ReconnectOptions(random=lambda: 0.0),
)

End = Literal["end", "reset", "garbage", "torn", "unreadable", "silence"]
Greeting = Literal["ours", "none", "torn", "another"]


@dataclass(frozen=True)
class Connection:
    """What a server does on one connection."""

    greeting: Greeting
    answers: int
    every: int
    """One of so many commands is answered."""
    end: End


@dataclass(frozen=True)
class Act:
    """What a user does."""

    what: Literal["send", "stream", "ping", "cancel", "wait", "time"]
    timeout_s: float | None
    which: int
    """Of the sends, for "cancel"; of loop's turns, for "wait"."""


CONNECTIONS = st.builds(
    Connection,
    st.sampled_from(["ours", "ours", "ours", "none", "torn", "another"]),
    st.integers(0, 4),
    st.integers(1, 3),
    st.sampled_from(["end", "reset", "garbage", "torn", "unreadable", "silence"]),
)
ACTS = st.builds(
    Act,
    st.sampled_from(["send", "send", "stream", "ping", "cancel", "wait", "time"]),
    st.sampled_from([None, None, 0.0, 3.0, 30.0]),
    st.integers(0, 9),
)


@dataclass
class Servers:
    """One server that plays its connections in turn, and then answers everything."""

    script: list[Connection]
    received: list[str] = field(default_factory=list[str])

    async def __call__(self, peer: RawPeer) -> None:
        played = self.script.pop(0) if self.script else None
        with suppress(ConnectionError):
            await self._play(peer, played or Connection("ours", 10**9, 1, "end"))

    async def _play(self, peer: RawPeer, played: Connection) -> None:
        greetings = {"ours": GREETING, "torn": GREETING[:3], "another": b"\x01x"}
        if played.greeting != "ours":
            await peer.send(greetings.get(played.greeting, b""))
            if played.greeting == "none":
                await peer.rest()
            return
        await peer.send(GREETING)
        core, seen, answered, seq = ServerConnection(CODEC), 0, 0, 1
        while answered < played.answers:
            if not (data := await peer.reader.read(4096)):
                return
            core.receive_data(data)
            while (event := core.next_event()) is not None:
                if not isinstance(event, CommandReceived):
                    await peer.send(core.send_pong())
                    continue
                assert isinstance(event.command, EchoCmd)
                self.received.append(str(event.command))
                seen, seq = seen + 1, event.seq
                if seen % played.every == 0:
                    answered += 1
                    result = EchoResult(event.command)
                    await peer.send(core.send_result(event.seq, result))
        if played.end == "silence":
            await peer.rest()
        elif played.end == "reset":
            peer.writer.transport.abort()
        else:
            last_words = {
                "garbage": b"\xff" * 10,
                "torn": b"\x01\x01",
                "unreadable": write_size(seq) + b"\x07\x00",  # no such tag
            }
            await peer.send(last_words.get(played.end, b""))


class User:
    """Does the acts, and keeps what came of them."""

    def __init__(self, client: Client | Group) -> None:
        self._client = client
        self.sends: dict[str, asyncio.Task[object]] = {}
        self.pings: list[asyncio.Task[None]] = []

    async def do(self, act: Act) -> None:
        loop = asyncio.get_running_loop()
        name = f"c{len(self.sends)}"
        match act.what:
            case "send":
                work = self._client.send(EchoCmd(name), timeout_s=act.timeout_s)
                self.sends[name] = loop.create_task(work)
            case "stream":
                stream = self._client.stream(EchoCmd(name), timeout_s=act.timeout_s)
                self.sends[name] = loop.create_task(last_of(stream))
            case "ping":
                ping = self._client.ping(timeout_s=act.timeout_s)
                self.pings.append(loop.create_task(ping))
            case "cancel":
                if task := self.sends.get(f"c{act.which}"):
                    task.cancel()
            case "wait":
                await turns(10 * act.which)
            case "time":
                let_time_pass(6.0)
                await turns()


async def last_of(stream: ResultStream) -> object:
    async with stream:
        return await anext(stream)


def may_have_run(task: "asyncio.Task[object]") -> bool:
    """What its end says; and it ends in no other way."""
    if task.cancelled():
        return True
    error = task.exception()
    if isinstance(error, ConnectionClosedError | SendTimeoutError):
        return error.may_have_run
    assert isinstance(error, RemoteProtocolError | None)
    return True


@given(
    st.lists(CONNECTIONS, max_size=6),
    st.lists(ACTS, max_size=25),
    st.sampled_from([1, 3]),
)
@settings(max_examples=60, deadline=None)
def test_every_send_ends_and_tells_the_truth(
    script: list[Connection], acts: list[Act], connections: int
) -> None:
    async def main() -> None:
        servers = Servers(list(script))
        async with RawServer(servers) as server:
            address = ("127.0.0.1", server.port)
            client: Client | Group
            if connections == 1:
                client = Client.start(address, CODEC, options=OPTIONS)
            else:
                client = Group.start(
                    [address], CODEC, connections=connections, options=OPTIONS
                )
            user = User(client)
            for act in acts:
                await user.do(act)
            await turns(100)
            await client.aclose()
            if started := {*user.sends.values(), *user.pings}:
                await asyncio.wait(started)
            assert client.closed
            assert client.pending == 0
        for ping in user.pings:
            assert isinstance(
                ping.exception(), ConnectionClosedError | SendTimeoutError | None
            )
        for name, task in user.sends.items():
            times = servers.received.count(name)
            assert times <= 1
            if not may_have_run(task):
                assert times == 0
            elif not task.cancelled():
                error = task.exception()
                assert error is not None or task.result() == EchoResult(name)
                if error is None or isinstance(error, RemoteProtocolError):
                    assert times == 1

    run(main())
