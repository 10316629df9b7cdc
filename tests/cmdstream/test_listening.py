"""Accepting, and what comes instead: no descriptors, broken sockets, vanished peers."""

import asyncio
import contextlib
import errno
import os
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.cmdstream.helpers import (
    CODEC,
    GREETING,
    AddCmd,
    CalcResult,
    RawPeer,
    answer,
    connect,
    run,
    serving,
    until,
)
from tests.lacking import lack
from tests.processes import TIMEOUT_S

from cmdstream import ConnectionClosedError, Server
from cmdstream.listening import Listener, bind_tcp, bind_unix

CLIENTS = 60

STARVED = f"""
import asyncio, logging, resource, sys
from cmdstream import Server, listening
from tests.cmdstream.helpers import CODEC, answer

async def main():
    logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(message)s")
    listening.RETRY_S = 0.001  # many attempts, in no time
    async with Server(CODEC, answer) as server:
        _, port = await server.listen("127.0.0.1", 0)
        resource.setrlimit(resource.RLIMIT_NOFILE, ({CLIENTS // 2}, {CLIENTS // 2}))
        print(port, flush=True)
        attempts, listener = 0, server._listeners[0]
        listen_again = listener._listen
        def count():
            nonlocal attempts
            attempts += 1
            if attempts == 200:
                print("200 attempts", flush=True)
            listen_again()
        listener._listen = count
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(0, ended.set)
        await ended.wait()

asyncio.run(main())
"""


def test_too_few_file_descriptors_are_noted_once_and_outlived() -> None:
    """W-B5: in Go a temporary accept error ends the server."""

    async def main() -> str:
        server = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            STARVED,
            env={**os.environ, "PYTHONPATH": "src:."},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            assert server.stdin is not None
            assert server.stdout is not None
            port = int(await server.stdout.readline())
            peers = [
                RawPeer(*await asyncio.open_connection("127.0.0.1", port))
                for _ in range(CLIENTS)
            ]
            assert await server.stdout.readline() == b"200 attempts\n"
            # The kernel has accepted all of them. Each that goes makes room for one.
            for peer in peers:
                assert await peer.receive(len(GREETING)) == GREETING
                await peer.aclose()
            assert server.stderr is not None
            async with asyncio.timeout(TIMEOUT_S):
                # Both, before it ends: the second comes when a timer has run out.
                said = await server.stderr.readline() + await server.stderr.readline()
                server.stdin.close()
                _, log = await server.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                server.kill()
            await server.wait()
        return (said + log).decode()

    lines = run(main()).splitlines()
    assert [line.partition(": ")[0].rpartition(" on ")[0] for line in lines] == [
        "WARNING cannot accept clients",
        "WARNING accepting clients",
    ]
    assert "Too many open files" in lines[0]


def test_a_socket_that_breaks_is_given_up_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with serving() as (server, first):
            host, second = await server.listen("127.0.0.1", 0)
            # Whoever shares the socket, such as a child, can do that.
            server._listeners[0]._socket.shutdown(socket.SHUT_RDWR)
            await until(lambda: len(server._listeners) == 1)
            assert server.addresses == [(host, second)]
            async with await connect(second) as client:
                assert await client.send(AddCmd(1, 2)) == CalcResult(3)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(host, first)

    run(main())
    (record,) = caplog.records
    assert record.levelname == "ERROR"
    assert "no longer listening on ('127.0.0.1', " in record.getMessage()


class Troubled(socket.socket):
    """A listening socket whose next attempts to accept fail."""

    def __init__(self, *troubles: int) -> None:
        super().__init__()
        self.bind(("127.0.0.1", 0))
        self.listen()
        self._troubles = list(troubles)

    def accept(self) -> tuple[socket.socket, Any]:
        if self._troubles:
            number = self._troubles.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()


@pytest.mark.parametrize(
    ("trouble", "lines"),
    [
        (errno.ECONNABORTED, 0),  # the client has left again
        (errno.EPROTO, 2),  # accept(2): network errors of the new connection
        (errno.ENOBUFS, 2),
        (errno.EPERM, 2),  # a firewall
    ],
)
def test_trouble_that_passes_is_waited_for(
    trouble: int, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        accepted: list[socket.socket] = []
        broken: list[Listener] = []
        listener = Listener(
            Troubled(trouble), lambda sock, _: accepted.append(sock), broken.append
        )
        assert isinstance(listener.address, tuple)
        with socket.create_connection(listener.address):
            await until(lambda: bool(accepted))
            await until(lambda: not listener._is_failing)
        accepted[0].close()
        listener.close()
        assert not broken

    run(main())
    assert len(caplog.records) == lines


def test_a_listener_that_is_closed_while_it_waits_stays_closed() -> None:
    async def main() -> None:
        listener = Listener(
            Troubled(errno.EMFILE), lambda sock, _: sock.close(), lambda _: None
        )
        assert isinstance(listener.address, tuple)
        with socket.create_connection(listener.address):
            await until(lambda: listener._retry is not None)
            listener.close()
            listener.close()
            assert listener._retry is not None
            assert listener._retry.cancelled()

    run(main())


def test_without_a_host_all_of_the_machine_is_listened_on() -> None:
    async def main() -> None:
        async with Server(CODEC, answer) as server:
            await server.listen("", 0)
            # And, where there is IPv6, on "::".
            (port,) = (at[1] for at in server.addresses if at[0] == "0.0.0.0")
            async with await connect(int(port)) as client:
                assert await client.send(AddCmd(1, 2)) == CalcResult(3)

    run(main())


def test_an_address_that_cannot_be_had_leaves_nothing_open() -> None:
    async def main() -> None:
        (taken,) = await bind_tcp("127.0.0.1", 0)
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            await bind_tcp("127.0.0.1", port)
        with pytest.raises(OSError, match=r"(?i)name or service|not known|temporary"):
            await bind_tcp("no.such.name.invalid", 0)
        # An address of no machine here, so that there is none to listen on at all.
        with pytest.raises(OSError, match=r"(?i)assign"):
            await bind_tcp("192.0.2.1", 0)
        taken.close()

    run(main())


def test_a_unix_socket_replaces_a_stale_one_and_nothing_else(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    bind_unix(path).close()
    bind_unix(path).close()
    bind_unix("\0cmdstream test of an abstract name").close()
    other = tmp_path / "file"
    other.write_text("precious")
    with pytest.raises(OSError, match=r"in use \(at '.*file'\)"):
        bind_unix(str(other))
    assert other.read_text() == "precious"
    with pytest.raises(OSError, match="long"):
        bind_unix("x" * 200)


def test_the_kernel_is_asked_to_look_after_silent_peers() -> None:
    async def main() -> None:
        async with serving() as (server, port), await RawPeer.connect(port):
            (client,) = server._clients
            assert client._transport is not None
            sock = client._transport.get_extra_info("socket")
            asked = [
                sock.getsockopt(socket.IPPROTO_TCP, option)
                for option in (
                    socket.TCP_KEEPIDLE,
                    socket.TCP_KEEPINTVL,
                    socket.TCP_KEEPCNT,
                )
            ]
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            assert asked == [15, 15, 4]

    run(main())


TCP_REPAIR = 19


def test_a_peer_whose_machine_vanished_is_found_out() -> None:
    async def main() -> None:
        async with serving() as (server, port):
            # As short as the kernel has it: one second.
            sock = server._listeners[0]._socket
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 1)
            peer = socket.create_connection(("127.0.0.1", port))
            await until(lambda: server.connections == 1)
            try:
                # A connection under repair is closed without a word to the other side.
                peer.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
            except PermissionError:
                peer.close()
                lack("needs CAP_NET_ADMIN to make a connection vanish")
            peer.close()
            (client,) = server._clients
            await client.wait_closed()
            assert "connection lost" in str(client.reason)

    run(main())


def test_a_listening_server_that_was_closed_refuses_to_listen_again() -> None:
    async def main() -> None:
        async with serving() as (server, _):
            await server.aclose()
            with pytest.raises(ConnectionClosedError, match="accepts nobody any more"):
                await server.listen("127.0.0.1", 0)

    run(main())


def test_a_client_that_resets_at_once_is_no_trouble(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        async with serving() as (server, port):
            for _ in range(20):
                sock = socket.create_connection(("127.0.0.1", port))
                sock.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                sock.close()
            async with await connect(port) as client:
                assert await client.send(AddCmd(1, 2)) == CalcResult(3)
            await until(lambda: server.connections == 0)

    run(main())
    assert not caplog.records
