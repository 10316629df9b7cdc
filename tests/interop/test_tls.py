"""TLS and mTLS across the border: who gets in, and who is told why not."""

import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.certificates import Authority, Pair, needs_openssl
from tests.cmdstream.helpers import AddCmd, CalcResult, EchoCmd, EchoResult, run
from tests.interop.peers import GoError, go_client, go_server
from tests.interop.test_calls import serving
from tests.interop.wires import WIRES

from cmdstream import Client, ConnectionClosedError, ServerTls, client_tls

pytestmark = needs_openssl

JSON = WIRES[0]
SUM = {"A": 2, "B": 3}
LARGE = "0123456789abcdef" * 256 * 1024
"""4 MiB: many records of TLS."""


@pytest.fixture(name="authority", scope="module")
def make_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(name="stranger", scope="module")
def make_stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another one, that nobody here trusts unless told to."""
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(name="server_pair", scope="module")
def make_server_pair(authority: Authority) -> Pair:
    return authority.issue("server", usage="serverAuth")


@pytest.fixture(name="client_pair", scope="module")
def make_client_pair(authority: Authority) -> Pair:
    return authority.issue("client", usage="clientAuth")


def trusting(authority: Authority) -> tuple[str, ...]:
    """Flags of a Go client that trusts *authority*; of a server, that asks for its."""
    return ("-ca", str(authority.certificate))


def showing(pair: Pair) -> tuple[str, ...]:
    """Flags of a Go end that shows the certificate of *pair*."""
    return ("-cert", str(pair.certificate), "-key", str(pair.key))


@asynccontextmanager
async def our_port(tls: ServerTls) -> AsyncGenerator[int]:
    """Serve with *tls*."""
    async with serving(JSON) as server:
        _, port = await server.listen("127.0.0.1", 0, tls=tls)
        yield port


async def connect(port: int, trusted: Authority, shown: Pair | None = None) -> Client:
    certificate, key = shown or (None, None)
    tls = client_tls(server_ca=trusted.certificate, certificate=certificate, key=key)
    return await Client.connect("127.0.0.1", port, JSON.codec, tls=tls)


def test_each_side_serves_the_other_over_tls(
    peer: str, authority: Authority, server_pair: Pair
) -> None:
    async def main() -> None:
        async with (
            go_server(peer, "json", *showing(server_pair)) as go,
            await connect(go.port, authority) as ours,
        ):
            assert await ours.send(AddCmd(2, 3)) == CalcResult(5)
            assert await ours.send(EchoCmd(LARGE)) == EchoResult(LARGE)
        async with (
            our_port(ServerTls(*server_pair)) as port,
            go_client(peer, "json", port, *trusting(authority)) as asking,
        ):
            assert await asking.send("AddCmd", SUM) == [5]
            assert await asking.send("EchoCmd", LARGE) == [LARGE]

    run(main())


def test_each_client_turns_away_from_a_server_that_a_stranger_vouches_for(
    peer: str, authority: Authority, stranger: Authority, server_pair: Pair
) -> None:
    async def main() -> None:
        async with go_server(peer, "json", *showing(server_pair)) as go:
            with pytest.raises(ConnectionClosedError, match="certificate"):
                await connect(go.port, stranger)
            async with await connect(go.port, authority) as ours:
                assert await ours.send(AddCmd(2, 3)) == CalcResult(5)
        async with our_port(ServerTls(*server_pair)) as port:
            with pytest.raises(GoError, match="unknown authority"):
                async with go_client(peer, "json", port, *trusting(stranger)):
                    pass
            async with go_client(peer, "json", port, *trusting(authority)) as asking:
                assert await asking.send("AddCmd", SUM) == [5]

    run(main())


def test_each_server_lets_in_the_clients_of_its_authority_and_no_others(
    peer: str,
    authority: Authority,
    stranger: Authority,
    server_pair: Pair,
    client_pair: Pair,
) -> None:
    """mTLS: without a certificate, and with one of somebody else."""
    strange = stranger.issue("stranger", usage="clientAuth")
    theirs = (*showing(server_pair), *trusting(authority))

    async def main() -> None:
        async with go_server(peer, "json", *theirs) as go:
            for shown in (None, strange):
                with pytest.raises(ConnectionClosedError):
                    await connect(go.port, authority, shown)
            async with await connect(go.port, authority, client_pair) as ours:
                assert await ours.send(AddCmd(2, 3)) == CalcResult(5)
        tls = ServerTls(*server_pair, client_ca=authority.certificate)
        async with our_port(tls) as port:
            known = trusting(authority)
            for flags in ((), showing(strange)):
                # asyncio sends no alert; our log has the reason.
                with pytest.raises(GoError, match=r"EOF|reset"):
                    async with go_client(peer, "json", port, *known, *flags):
                        pass
            known = (*known, *showing(client_pair))
            async with go_client(peer, "json", port, *known) as asking:
                assert await asking.send("AddCmd", SUM) == [5]

    run(main())


def test_a_go_client_sees_the_certificate_that_was_put_in_place(
    peer: str, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    """Without a restart: who is connected goes on, who comes sees the new one."""
    files = Pair(tmp_path / "server.pem", tmp_path / "server.key")

    def put_in_place(by: Authority) -> None:
        for source, target in zip(by.issue("renewed"), files, strict=True):
            shutil.copy(source, target)

    async def main() -> None:
        put_in_place(authority)
        tls = ServerTls(*files)
        async with (
            our_port(tls) as port,
            go_client(peer, "json", port, *trusting(authority)) as before,
        ):
            put_in_place(stranger)
            tls.reload()
            async with go_client(peer, "json", port, *trusting(stranger)) as after:
                assert await after.send("AddCmd", SUM) == [5]
            with pytest.raises(GoError, match="unknown authority"):
                async with go_client(peer, "json", port, *trusting(authority)):
                    pass
            assert await before.send("AddCmd", SUM) == [5]

    run(main())
