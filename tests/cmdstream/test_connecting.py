"""Making a connection through TLS; without it: `test_client.py`."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from tests.certificates import Authority, Pair, needs_openssl
from tests.cmdstream.helpers import (
    CODEC,
    AddCmd,
    CalcResult,
    EchoCmd,
    RawPeer,
    RawServer,
    run,
    serving,
    until,
)
from tests.streams import StreamServer

from cmdstream import (
    Client,
    ClientOptions,
    ConnectError,
    Group,
    KeepaliveOptions,
    ReconnectOptions,
    ServerTls,
    client_tls,
)

pytestmark = needs_openssl

HOST = "127.0.0.1"


@pytest.fixture(name="authority", scope="module")
def make_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(name="server_pair", scope="module")
def make_server_pair(authority: Authority) -> Pair:
    return authority.issue("server", usage="serverAuth")


@pytest.fixture(name="trusting", scope="module")
def make_trusting(authority: Authority) -> ssl.SSLContext:
    return client_tls(server_ca=authority.certificate)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_client_speaks_tls(
    server_pair: Pair,
    trusting: ssl.SSLContext,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> None:
        options = ClientOptions(
            keepalive=KeepaliveOptions(), reconnect=ReconnectOptions()
        )
        async with serving(tls=ServerTls(*server_pair)) as (server, port):
            async with await Client.connect(
                HOST, port, CODEC, tls=trusting, options=options
            ) as client:
                large = EchoCmd("x" * 1024 * 1024)
                assert await client.send(AddCmd(1, 2), timeout_s=60.0) == CalcResult(3)
                assert await client.send(large) == large
            await until(lambda: server.connections == 0)
            addresses = [(HOST, port)]
            async with await Group.connect(addresses, CODEC, tls=trusting) as group:
                assert await group.send(AddCmd(1, 2)) == CalcResult(3)

    run(main(), new_loop)


def test_a_client_shows_its_certificate_to_who_asks_for_it(
    authority: Authority, server_pair: Pair, trusting: ssl.SSLContext
) -> None:
    """mTLS. In TLS 1.3 the refusal comes after the client's side of the handshake."""

    async def main() -> None:
        pair = authority.issue("client", usage="clientAuth")
        mine = client_tls(
            server_ca=authority.certificate, certificate=pair.certificate, key=pair.key
        )
        tls = ServerTls(*server_pair, client_ca=authority.certificate)
        async with serving(tls=tls) as (server, port):
            async with await Client.connect(HOST, port, CODEC, tls=mine) as client:
                assert await client.send(AddCmd(1, 2)) == CalcResult(3)
            with pytest.raises(ConnectError, match="sent no server info"):
                await Client.connect(HOST, port, CODEC, tls=trusting)
            await until(lambda: server.connections == 0)

    run(main())


def test_a_server_that_can_not_be_trusted_is_none(
    server_pair: Pair, trusting: ssl.SSLContext
) -> None:
    async def main() -> None:
        async with serving(tls=ServerTls(*server_pair)) as (server, port):
            with pytest.raises(ConnectError, match="certificate is refused: unable"):
                await Client.connect(HOST, port, CODEC, tls=client_tls())
            another = ClientOptions(tls_server_name="example.org")
            with pytest.raises(ConnectError, match="refused: Hostname mismatch"):
                await Client.connect(HOST, port, CODEC, tls=trusting, options=another)
            await until(lambda: server.connections == 0)
        async with serving() as (server, port):
            with pytest.raises(ConnectError, match="the peer does not speak TLS"):
                await Client.connect(HOST, port, CODEC, tls=trusting)
            await until(lambda: server.connections == 0)

    run(main())


def test_each_step_of_connecting_is_bounded_if_nothing_is_said() -> None:
    """W-C11: in Go a client of a full server hangs for ever."""
    options = ClientOptions()
    assert options.connect_timeout_s == 10.0
    assert options.tls_handshake_timeout_s == 10.0
    assert options.server_info_timeout_s == 10.0


def test_a_handshake_that_takes_too_long_is_given_up(trusting: ssl.SSLContext) -> None:
    """W-C11: it has a limit of its own."""

    async def main() -> None:
        left = asyncio.Event()

        async def silent(peer: RawPeer) -> None:
            await peer.rest()
            left.set()

        options = ClientOptions(tls_handshake_timeout_s=0.02)
        async with RawServer(silent) as server:
            with pytest.raises(ConnectError, match="handshake is taking longer"):
                await Client.connect(
                    HOST, server.port, CODEC, tls=trusting, options=options
                )
            await left.wait()

    run(main())


def test_a_unix_socket_may_carry_tls_to_a_server_that_is_named(
    server_pair: Pair, trusting: ssl.SSLContext, tmp_path: Path
) -> None:
    async def main() -> None:
        context = ServerTls(*server_pair).context
        path = str(tmp_path / "socket")

        async def talk(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            writer.write(b"\x07default")
            await reader.read(1)
            writer.write(b"\x01\x00\x013")
            await reader.read(-1)

        listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        options = ClientOptions(tls_server_name="localhost")
        async with (
            StreamServer(talk, listening, context),
            await Client.connect_unix(
                path, CODEC, tls=trusting, options=options
            ) as client,
        ):
            assert await client.send(AddCmd(1, 2)) == CalcResult(3)

    run(main())
