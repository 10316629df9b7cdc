"""The server behind TLS: who gets in, what goes wrong, and whom it concerns."""

import asyncio
import contextlib
import shutil
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop
from tests.certificates import Authority, Pair, needs_openssl
from tests.cmdstream.helpers import (
    GREETING,
    AddCmd,
    CalcResult,
    EchoCmd,
    EchoResult,
    Held,
    RawPeer,
    connect,
    frame,
    let_time_pass,
    result_frame,
    run,
    serving,
    until,
)

from cmdstream import LinkOptions, ServerOptions, ServerTls, client_tls

pytestmark = needs_openssl

KIB = 1024


@pytest.fixture(name="authority", scope="module")
def make_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(name="server_pair", scope="module")
def make_server_pair(authority: Authority) -> Pair:
    return authority.issue("server", usage="serverAuth")


@pytest.fixture(name="client_pair", scope="module")
def make_client_pair(authority: Authority) -> Pair:
    return authority.issue("client", usage="clientAuth")


@pytest.fixture(name="trusting", scope="module")
def make_trusting(authority: Authority) -> ssl.SSLContext:
    """What a client without a certificate uses."""
    return client_tls(server_ca=authority.certificate)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_client_is_served_over_tls(
    server_pair: Pair,
    trusting: ssl.SSLContext,
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def main() -> None:
        async with (
            serving(tls=ServerTls(*server_pair)) as (server, port),
            await RawPeer.connect(port, tls=trusting) as peer,
        ):
            large = EchoCmd("x" * 1024 * KIB)
            await peer.send(frame(1, AddCmd(1, 2)) + frame(2, large) + b"\x00")
            answers = b"\x01\x00\x013" + result_frame(2, EchoResult(large)) + b"\x00"
            assert await peer.receive(len(answers)) == answers
            assert server.connections == 1

    run(main(), new_loop)


def test_a_context_made_elsewhere_serves_as_well(
    server_pair: Pair, trusting: ssl.SSLContext
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server_pair)

    async def main() -> None:
        async with (
            serving(tls=context) as (_, port),
            await RawPeer.connect(port, tls=trusting) as peer,
        ):
            await peer.send(b"\x00")
            assert await peer.receive(1) == b"\x00"

    run(main())


def test_one_server_speaks_tls_in_one_place_and_not_in_another(
    server_pair: Pair, trusting: ssl.SSLContext
) -> None:
    async def main() -> None:
        async with serving() as (server, plain):
            _, secret = await server.listen("127.0.0.1", 0, tls=ServerTls(*server_pair))
            async with (
                await RawPeer.connect(plain),
                await RawPeer.connect(secret, tls=trusting),
            ):
                assert server.connections == 2

    run(main())


def test_with_mtls_a_client_gets_in_by_its_certificate(
    authority: Authority, server_pair: Pair, client_pair: Pair
) -> None:
    tls = ServerTls(*server_pair, client_ca=authority.certificate)
    known = client_tls(
        server_ca=authority.certificate,
        certificate=client_pair.certificate,
        key=client_pair.key,
    )

    async def main() -> None:
        async with (
            serving(tls=tls) as (_, port),
            await RawPeer.connect(port, tls=known) as peer,
        ):
            await peer.send(frame(1, AddCmd(1, 2)))
            assert await peer.receive(4) == b"\x01\x00\x013"

    run(main())


@pytest.mark.parametrize(
    ("who", "reason"),
    [
        ("nobody", "the peer has no certificate"),
        ("a stranger", "the peer's certificate is refused: unable to get local issuer"),
        ("a server", "the peer's certificate is refused: uns"),
    ],
)
def test_with_mtls_a_client_with_the_wrong_certificate_is_turned_away(
    authority: Authority,
    server_pair: Pair,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    who: str,
    reason: str,
) -> None:
    shown = {
        "nobody": None,
        "a stranger": Authority(tmp_path).issue("stranger"),
        "a server": server_pair,
    }[who]
    context = client_tls(server_ca=authority.certificate)
    if shown is not None:
        context.load_cert_chain(*shown)

    async def main() -> None:
        tls = ServerTls(*server_pair, client_ca=authority.certificate)
        async with serving() as (server, plain):
            _, port = await server.listen("127.0.0.1", 0, tls=tls)
            async with await connect(plain) as bystander:
                # With TLS 1.3 a client learns of it after its own handshake.
                with pytest.raises((ssl.SSLError, ConnectionError, EOFError)):
                    await RawPeer.connect(port, tls=context)
                assert await bystander.send(AddCmd(1, 2)) == CalcResult(3)
                assert server.connections == 1
                await until(lambda: not server._arriving)

    run(main())
    _one_line(caplog, reason)


def test_a_client_that_does_not_trust_us_is_noted_and_harms_nobody(
    server_pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(tls=ServerTls(*server_pair)) as (server, port):
            with pytest.raises(ssl.SSLCertVerificationError):
                await RawPeer.connect(port, tls=client_tls())
            await until(lambda: not server._arrivals)

    run(main())
    _one_line(caplog, "no TLS with 127.0.0.1:")


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (frame(1, AddCmd(1, 2)), ""),
        (b"GET / HTTP/1.1\r\n\r\n", "the peer does not speak TLS"),
        (b"\x00" * 64, ""),
        (b"\x16\x03\x01\x02\x00" + b"\xff" * 512, ""),
    ],
    ids=["plain cmd-stream", "HTTP", "zeros", "garbage in a record"],
)
def test_what_is_not_tls_ends_its_connection_and_no_other(
    server_pair: Pair,
    trusting: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
    sent: bytes,
    reason: str,
) -> None:
    async def main() -> None:
        async with (
            serving(tls=ServerTls(*server_pair)) as (server, port),
            await RawPeer.connect(port, tls=trusting) as bystander,
        ):
            peer = await RawPeer.connect(port, greeting=b"")
            await peer.send(sent)
            answer = await peer.rest()
            assert b"default" not in answer
            await peer.aclose()
            await bystander.send(frame(1, AddCmd(1, 2)))
            assert await bystander.receive(4) == b"\x01\x00\x013"
            assert (server.connections, len(server._arriving)) == (1, 0)

    run(main())
    _one_line(caplog, reason)


def test_a_peer_that_hangs_up_during_its_handshake_is_noted(
    server_pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(tls=ServerTls(*server_pair)) as (server, port):
            async with await RawPeer.connect(port, greeting=b"") as peer:
                await peer.send(b"\x16\x03\x01")
                await until(lambda: bool(server._arriving))
            await until(lambda: not server._arriving)

    run(main())
    _one_line(caplog, "the peer hung up")


def test_tls_to_a_port_without_it_is_told_from_other_nonsense(
    trusting: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving() as (_, port):
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await RawPeer.connect(port, tls=trusting)

    run(main())
    _one_line(caplog, "it looks like TLS, which is not spoken here")


def test_a_handshake_that_is_never_finished_counts_as_a_client_and_ends(
    server_pair: Pair, trusting: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    """W-B4: eight connections in the middle of a handshake keep all others out."""

    async def main() -> None:
        timeout_s = 30.0
        options = ServerOptions(connections_max=3, tls_handshake_timeout_s=timeout_s)
        async with (
            serving(options=options, tls=ServerTls(*server_pair)) as (_, port),
            await RawPeer.connect(port, tls=trusting) as served,
        ):
            slow = [await RawPeer.connect(port, greeting=b"") for _ in range(2)]
            await slow[0].send(b"\x16\x03")
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await RawPeer.connect(port, tls=trusting)
            let_time_pass(timeout_s)
            for peer in slow:
                assert await peer.rest() == b""
                await peer.aclose()
            async with await RawPeer.connect(port, tls=trusting):
                await served.send(b"\x00")
                assert await served.receive(1) == b"\x00"

    run(main())
    lines = [record.getMessage() for record in caplog.records]
    assert sum("3 clients are connected" in line for line in lines) == 1
    assert sum("longer than 30.0 seconds" in line for line in lines) == 2


def test_a_new_certificate_is_for_new_connections_and_old_ones_go_on(
    tmp_path: Path, authority: Authority, server_pair: Pair, trusting: ssl.SSLContext
) -> None:
    files = Pair(tmp_path / "a.pem", tmp_path / "a.key")

    def put(pair: Pair) -> None:
        for old, new in zip(pair, files, strict=True):
            shutil.copy(old, new)

    async def main() -> None:
        put(server_pair)
        tls = ServerTls(*files)
        async with (
            serving(tls=tls) as (_, port),
            await RawPeer.connect(port, tls=trusting) as old,
        ):
            put(authority.issue("renewed"))
            tls.reload()
            async with await RawPeer.connect(port, tls=trusting) as new:
                assert (_name(old), _name(new)) == ("server", "renewed")
                for peer in (old, new):
                    await peer.send(frame(1, AddCmd(1, 2)))
                    assert await peer.receive(4) == b"\x01\x00\x013"

    run(main())


def test_bytes_that_do_not_decrypt_end_their_connection_and_are_noted(
    server_pair: Pair, trusting: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(tls=ServerTls(*server_pair)) as (server, port):
            # A record of our own behind the handshake: in plain, not by the transport.
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setblocking(False)
            reader, writer = await asyncio.open_connection(
                sock=sock, ssl=trusting, server_hostname="127.0.0.1"
            )
            assert await reader.readexactly(len(GREETING)) == GREETING
            with writer.get_extra_info("socket").dup() as raw:
                raw.send(b"\x17\x03\x03\x00\x20" + b"x" * 32)
            await until(lambda: server.connections == 0)
            writer.close()
            with contextlib.suppress(ssl.SSLError, ConnectionError):
                await writer.wait_closed()

    run(main())
    _one_line(caplog, "connection lost: ")


def test_a_client_behind_tls_that_does_not_read_is_dropped(
    server_pair: Pair, trusting: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        timeout_s = 60.0
        link = LinkOptions(unsent_high_size=64 * KIB, write_stall_timeout_s=timeout_s)
        held = Held()
        async with (
            serving(
                held, options=ServerOptions(link=link), tls=ServerTls(*server_pair)
            ) as (server, port),
            await RawPeer.connect(port, tls=trusting) as peer,
        ):
            await peer.send(frame(1, EchoCmd("x")))
            reply = await held.reply()
            while reply._client.writable:
                reply._client.write(b"\x00" * 256 * KIB)
                await asyncio.sleep(0)
            let_time_pass(timeout_s)
            await until(lambda: server.connections == 0)
            reply.finish()

    run(main())
    _one_line(caplog, "reads too slowly: its buffer was full for 60.0 s")


def test_a_server_comes_down_in_the_middle_of_handshakes(
    server_pair: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with serving(tls=ServerTls(*server_pair)) as (server, port):
            slow = [await RawPeer.connect(port, greeting=b"") for _ in range(3)]
            await until(lambda: len(server._arriving) == 3)
            assert await server.shutdown(drain_s=60)
            assert not server._arriving
            assert not server._arrivals
            for peer in slow:
                assert await peer.rest() == b""
                await peer.aclose()

    run(main())
    assert not caplog.records


def _name(peer: RawPeer) -> str:
    subject = peer.writer.get_extra_info("peercert")["subject"]
    return str(subject[0][0][1])


def _one_line(caplog: pytest.LogCaptureFixture, reason: str) -> None:
    (record,) = caplog.records
    assert record.name == "cmdstream.server"
    assert record.levelname == "WARNING"
    assert record.exc_info is None
    assert reason in record.getMessage()
    assert "127.0.0.1:" in record.getMessage()
