"""Writing and ending, over a pair of connected sockets."""

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop
from tests.cmdstream.helpers import (
    AddCmd,
    CalcResult,
    EchoCmd,
    EchoResult,
    connect,
    run,
    serving,
    until,
)

from cmdstream import CmdStreamError, ConnectionClosedError, LinkOptions
from cmdstream.transport import Link

KIB = 1024
BYE = ConnectionClosedError("bye")


class Noting(Link):
    """A link that notes what it is told."""

    def __init__(self, options: LinkOptions) -> None:
        super().__init__(options)
        self.notes: list[str] = []

    def writable_again(self) -> None:
        super().writable_again()
        self.notes.append("writable again")

    def ended(self, reason: CmdStreamError, *, notable: bool) -> None:
        super().ended(reason, notable=notable)
        self.notes.append(f"ended: {reason}{' (notable)' if notable else ''}")

    def gone(self) -> None:
        super().gone()
        self.notes.append("gone")


@asynccontextmanager
async def linked(
    options: LinkOptions | None = None,
) -> AsyncGenerator[tuple[Noting, socket.socket]]:
    """A link, and the socket at its other end."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    loop = asyncio.get_running_loop()
    _, link = await loop.create_connection(
        lambda: Noting(options or LinkOptions()), sock=ours
    )
    try:
        yield link, theirs
    finally:
        theirs.close()
        link.abort(BYE)
        await link.wait_closed()


async def receive(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += await asyncio.get_running_loop().sock_recv(sock, size - len(data))
    return data


def test_what_is_written_in_one_turn_is_sent_at_once() -> None:
    async def main() -> None:
        async with linked() as (link, peer):
            writes: list[bytes] = []
            assert link._transport is not None
            link._transport.write = writes.append  # type: ignore[assignment, method-assign]  # only to look
            for n in range(100):
                link.write(b"%02d" % n)
            assert writes == []
            await until(lambda: bool(writes))
            assert writes == [b"".join(b"%02d" % n for n in range(100))]
            del link._transport.write
            link.write(b"x")
            assert await receive(peer, 1) == b"x"

    run(main())


def test_a_burst_is_written_within_the_turn_and_owes_one() -> None:
    async def main() -> None:
        async with linked() as (link, peer):
            before = link.must_wait
            link.write(b"x" * 64 * KIB)
            burst = (link.must_wait, link.writable)
            await link.drained()
            assert (before, burst, link.must_wait) == (False, (True, True), False)
            assert await receive(peer, 64 * KIB) == b"x" * 64 * KIB

    run(main())


def test_closing_sends_what_is_written_and_nothing_after() -> None:
    async def main() -> None:
        async with linked() as (link, peer):
            link.write(b"one")
            link.close(BYE)
            link.write(b"two")
            link.close(ConnectionClosedError("again"))
            assert link.reason is BYE
            assert await receive(peer, 3) == b"one"
            assert await asyncio.get_running_loop().sock_recv(peer, 1) == b""
            await link.wait_closed()
            assert link.notes == ["ended: bye", "gone"]

    run(main())


def test_a_peer_that_leaves_ends_the_link() -> None:
    async def main() -> None:
        async with linked() as (link, peer):
            assert link.peer == "unix socket"
            peer.close()
            await link.wait_closed()
            assert link.notes == ["ended: the peer closed the connection", "gone"]

    run(main())


def test_a_broken_connection_tells_why() -> None:
    async def main() -> None:
        async with linked() as (link, peer):
            assert link._transport is not None
            link._transport.pause_reading()  # else the end is seen before the failure
            peer.close()
            link.write(b"x" * 200 * KIB)
            await link.wait_closed()
            assert link.reason is not None
            assert str(link.reason).startswith("connection lost: ")
            assert isinstance(link.reason.__cause__, OSError)

    run(main())


def test_senders_wait_until_the_peer_reads() -> None:
    async def main() -> None:
        size = 4 * KIB * KIB
        async with linked(LinkOptions(unsent_high_size=KIB)) as (link, peer):
            link.write(b"x" * size)
            full = not link.writable
            loop = asyncio.get_running_loop()
            waiting = [loop.create_task(link.drained()) for _ in range(2)]
            given_up = loop.create_task(link.drained())
            await until(lambda: len(link._waiters) == 3)
            given_up.cancel()
            await receive(peer, size)
            await asyncio.wait(waiting)
            assert full
            assert link.writable
            assert link.notes == ["writable again"]

    run(main())


def test_senders_are_let_go_when_the_link_ends() -> None:
    async def main() -> None:
        async with linked(LinkOptions(unsent_high_size=KIB)) as (link, _):
            link.write(b"x" * 4 * KIB * KIB)
            waiting = asyncio.get_running_loop().create_task(link.drained())
            await until(lambda: bool(link._waiters))
            link.close(BYE)
            await waiting
            link.abort(ConnectionClosedError("does not read"))  # cuts the slow close
            await link.wait_closed()
            assert link.notes == ["ended: bye", "gone"]
            link.abort(BYE)
            assert link.notes == ["ended: bye", "gone"]

    run(main())


def test_a_peer_that_does_not_read_is_cut_after_the_stall_timeout() -> None:
    async def main() -> None:
        options = LinkOptions(unsent_high_size=KIB, write_stall_timeout_s=0.01)
        async with linked(options) as (link, _):
            link.write(b"x" * 4 * KIB * KIB)
            await link.wait_closed()
            assert link.notes[0].endswith("was full for 0.01 s (notable)")

    run(main())


def test_the_stall_timeout_may_be_off() -> None:
    async def main() -> None:
        options = LinkOptions(unsent_high_size=KIB, write_stall_timeout_s=None)
        async with linked(options) as (link, _):
            link.write(b"x" * 4 * KIB * KIB)
            assert not link.writable
            assert link._timer is None

    run(main())


def test_too_much_that_is_unsent_cuts_the_peer() -> None:
    async def main() -> None:
        async with linked(LinkOptions(unsent_size_max=KIB * KIB)) as (link, _):
            link.write(b"x" * 4 * KIB * KIB)
            assert link.reason is not None
            assert link.notes[0].endswith("the limit is 1048576 (notable)")

    run(main())


def test_a_slow_close_is_cut() -> None:
    async def main() -> None:
        async with linked(LinkOptions(close_timeout_s=0.01)) as (link, _):
            link.write(b"x" * 4 * KIB * KIB)
            link.close(BYE)
            await link.wait_closed()

    run(main())


def test_a_link_without_a_transport_ends_as_well() -> None:
    async def main() -> None:
        for end in ("close", "abort"):
            link = Noting(LinkOptions())
            link.write(b"x" * 64 * KIB)
            getattr(link, end)(BYE)
            assert link.notes == ["ended: bye"]

    run(main())


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_client_and_a_server_talk_on_asyncios_loop_and_on_uvloop(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> None:
        async with serving() as (server, port), await connect(port) as client:
            assert await client.send(AddCmd(2, 3)) == CalcResult(5)
            text = "x" * 1024 * KIB  # in many segments, and held up on its way
            async with asyncio.TaskGroup() as group:
                sent = [group.create_task(client.send(EchoCmd(text))) for _ in range(8)]
            assert {task.result() for task in sent} == {EchoResult(text)}
            assert server.connections == 1

    run(main(), new_loop)
