"""cmd-stream where something is out of order: greetings, connections, descriptors."""

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.certificates import Authority, needs_openssl
from tests.gateways.conformance import LONG_S, Paid
from tests.gateways.faults import no_descriptors
from tests.gateways.relay import Relay
from tests.gateways.test_cmdstream import (
    CODEC,
    STEP,
    Payments,
    pending,
    saying,
    serving,
)
from tests.streams import StreamServer

from cmdstream import (
    Reply,
    Server,
    ServerOptions,
    ServerTls,
    TaskHandler,
    client_tls,
)
from coordinator.context import in_step
from coordinator.errors import CommandDelayed
from coordinator.gateways import MisconfiguredError
from coordinator.gateways.cmdstream import CmdStreamOptions

PAID = Paid("p-1", 5)
GREETING = b"\x07default"


class Greeter:
    """Sends each connection some bytes, and leaves it open until the client goes."""

    def __init__(self, greeting: bytes) -> None:
        self.arrived: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        self._greeting = greeting

    async def __call__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(self._greeting)
        self.arrived.put_nowait(writer)
        await reader.read()


@asynccontextmanager
async def greeting(greeter: Greeter) -> AsyncGenerator[str]:
    """Give the address."""
    async with StreamServer(greeter) as server:
        yield f"127.0.0.1:{server.port}"


async def expect_delay(gateway: Payments, match: str) -> None:
    with in_step(STEP), pytest.raises(CommandDelayed, match=match):
        await gateway.charge("o-1", 5)


async def expect_a_person(gateway: Payments, match: str) -> None:
    with in_step(STEP), pytest.raises(MisconfiguredError, match=match):
        await gateway.charge("o-1", 5)


def test_another_server_info_is_for_a_person() -> None:
    async def main() -> None:
        options = ServerOptions(server_info=b"orders-v3")
        async with (
            serving(saying(PAID), options) as port,
            Payments(f"127.0.0.1:{port}") as gateway,
        ):
            with (
                in_step(STEP),
                pytest.raises(
                    MisconfiguredError,
                    match=rf"payments: 127\.0\.0\.1:{port}: server info mismatch: "
                    "expected b'default', the server has b'orders-v3'; is it the right",
                ),
            ):
                await gateway.charge("o-1", 5)
            assert gateway.health().failures == 1

    asyncio.run(main(), debug=True)


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n" * 9, b"\xff" * 10])
def test_a_server_of_another_protocol_is_for_a_person(answer: bytes) -> None:
    async def main() -> None:
        async with greeting(Greeter(answer)) as address, Payments(address) as gateway:
            with (
                in_step(STEP),
                pytest.raises(MisconfiguredError, match="right address"),
            ):
                await gateway.charge("o-1", 5)

    asyncio.run(main(), debug=True)


def test_a_server_that_does_not_greet_is_nobody_knows() -> None:
    """As a Go server does all of whose workers are busy."""

    async def main() -> None:
        options = CmdStreamOptions(connect_timeout_s=0.05)
        async with (
            greeting(Greeter(b"")) as address,
            Payments(address, timeout_s=LONG_S, options=options) as gateway,
        ):
            await expect_delay(gateway, "payments: .* (sent no server info|in time)")

    asyncio.run(main(), debug=True)


def test_a_refused_connection_says_so() -> None:
    async def main() -> None:
        async with Relay(1) as relay:
            await relay.stop()
            async with Payments(f"127.0.0.1:{relay.port}") as gateway:
                await expect_delay(gateway, "payments: cannot connect to .*Errno 111")
                assert gateway.health().failures == 1

    asyncio.run(main(), debug=True)


@needs_openssl
def test_a_certificate_is_trusted_only_if_the_options_say_so(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = ServerTls(*authority.issue("server"))

    async def main() -> None:
        async with Server(CODEC, TaskHandler(saying(PAID))) as serving:
            host, port = await serving.listen("127.0.0.1", 0, tls=server)
            for tls, trusted in (
                (client_tls(), False),
                (client_tls(server_ca=authority.certificate), True),
            ):
                options = CmdStreamOptions(tls=tls)
                async with Payments(f"{host}:{port}", options=options) as gateway:
                    if trusted:
                        with in_step(STEP):
                            assert await gateway.charge("o-1", 5) == PAID
                    else:
                        await expect_a_person(gateway, "TLS: .*certificate is refused")

    asyncio.run(main(), debug=True)


@needs_openssl
def test_a_service_that_wants_a_certificate_is_shown_ours(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    ca = authority.certificate
    server = ServerTls(*authority.issue("server"), client_ca=ca)
    certificate, key = authority.issue("ours")

    async def main() -> None:
        async with Server(CODEC, TaskHandler(saying(PAID))) as serving:
            host, port = await serving.listen("127.0.0.1", 0, tls=server)
            ours = client_tls(server_ca=ca, certificate=certificate, key=key)
            options = CmdStreamOptions(tls=ours)
            async with Payments(f"{host}:{port}", options=options) as gateway:
                with in_step(STEP):
                    assert await gateway.charge("o-1", 5) == PAID

    asyncio.run(main(), debug=True)


@needs_openssl
def test_a_service_that_says_that_it_wants_a_certificate_is_for_a_person(
    tmp_path: Path,
) -> None:
    """As Go's does; asyncio's hangs up and says nothing, so that nobody knows."""
    authority = Authority(tmp_path)
    server_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_tls.load_cert_chain(*authority.issue("server"))
    server_tls.load_verify_locations(authority.certificate)
    server_tls.verify_mode = ssl.CERT_REQUIRED

    def refuse(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, pytest.raises(ssl.SSLError, match="did not return a cert"):
            server_tls.wrap_socket(connection, server_side=True)

    async def main() -> None:
        trusting = client_tls(server_ca=authority.certificate)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            host, port = listener.getsockname()
            async with (
                Payments(
                    f"{host}:{port}", options=CmdStreamOptions(tls=trusting)
                ) as gateway,
                asyncio.TaskGroup() as group,
            ):
                group.create_task(asyncio.to_thread(refuse, listener))
                await expect_a_person(gateway, "TLS: .*CERTIFICATE_REQUIRED")

    asyncio.run(main(), debug=True)


def test_a_service_without_tls_is_for_a_person() -> None:
    async def main() -> None:
        options = CmdStreamOptions(tls=client_tls())
        async with (
            serving(saying(PAID)) as port,
            Payments(f"127.0.0.1:{port}", options=options) as gateway,
        ):
            await expect_a_person(gateway, "TLS: cannot connect")

    asyncio.run(main(), debug=True)


def test_a_unix_socket_has_no_tls() -> None:
    with pytest.raises(ValueError, match=r"leave out CmdStreamOptions\.tls"):
        Payments("unix:/run/p.sock", options=CmdStreamOptions(tls=client_tls()))


def test_a_connection_that_carries_nothing_any_more_is_given_up() -> None:
    """As to a host that is gone; without pings each call would time out on it."""

    async def main() -> None:
        async def handle(command: object, reply: Reply) -> None:
            relay.silent = True
            reply.finish()

        async with serving(handle) as port, Relay(port) as relay:
            options = CmdStreamOptions(keepalive_s=0.1, keepalive_timeout_s=0.1)
            async with Payments(
                f"127.0.0.1:{relay.port}", timeout_s=LONG_S, options=options
            ) as gateway:
                await expect_delay(gateway, "payments: .*may have run")

    asyncio.run(main(), debug=True)


def test_a_name_that_is_not_found_is_nobody_knows() -> None:
    async def main() -> None:
        async with Payments("payments.invalid:9000") as gateway:
            await expect_delay(gateway, "payments: cannot connect to payments.invalid")

    asyncio.run(main(), debug=True)


def test_a_lost_connection_is_nobody_knows_for_all_that_wait_and_no_one_else() -> None:
    async def main() -> None:
        everybody = asyncio.Barrier(3)

        async def handle(command: object, reply: Reply) -> None:
            await everybody.wait()
            relay.cut()
            reply.finish()

        async with serving(handle) as port, Relay(port) as relay:
            address = f"127.0.0.1:{relay.port}"
            async with Payments(address, timeout_s=LONG_S) as gateway:
                async with asyncio.TaskGroup() as group:
                    for _ in range(3):
                        group.create_task(expect_delay(gateway, "payments: "))
                assert (pending(gateway), relay.accepted) == (0, 1)
                async with asyncio.TaskGroup() as group:
                    for _ in range(3):
                        group.create_task(expect_delay(gateway, "payments: "))
                assert (pending(gateway), relay.accepted) == (0, 2)

    asyncio.run(main(), debug=True)


def test_a_call_ends_as_unknown_when_the_gateway_is_closed_under_it() -> None:
    async def main() -> None:
        arrived = asyncio.Event()

        async def handle(command: object, reply: Reply) -> None:
            arrived.set()
            reply.finish()

        async with (
            serving(handle) as port,
            Payments(f"127.0.0.1:{port}", timeout_s=LONG_S) as gateway,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(expect_delay(gateway, "payments: the client was closed"))
            await arrived.wait()
            await gateway.aclose()

    asyncio.run(main(), debug=True)


def test_a_connection_that_comes_when_the_gateway_is_closed_is_not_kept() -> None:
    async def main() -> None:
        greeter = Greeter(b"")
        async with greeting(greeter) as address:
            gateway = Payments(address, timeout_s=LONG_S)
            async with asyncio.TaskGroup() as group:
                group.create_task(
                    expect_delay(gateway, "payments: the gateway was clos")
                )
                writer = await greeter.arrived.get()
                await gateway.aclose()
                writer.write(GREETING)
            assert gateway._client is None

    asyncio.run(main(), debug=True)


def test_a_call_that_is_given_up_while_connecting_lets_the_next_one_try() -> None:
    """A time-out is a cancellation, too."""

    async def main() -> None:
        greeter = Greeter(b"")
        async with (
            greeting(greeter) as address,
            Payments(address, timeout_s=LONG_S) as gateway,
        ):
            with in_step(STEP):
                for _ in range(2):
                    async with asyncio.TaskGroup() as group:
                        call = group.create_task(gateway.charge("o-1", 5))
                        await greeter.arrived.get()
                        call.cancel()
            assert not gateway._connecting.locked()

    asyncio.run(main(), debug=True)


def test_all_that_wait_for_a_connection_share_the_failure_of_the_one_try() -> None:
    """One after the other they would find out in the sum of the connect time-outs."""

    async def main() -> None:
        greeter = Greeter(b"")
        async with (
            greeting(greeter) as address,
            Payments(address, timeout_s=LONG_S) as gateway,
        ):
            for calls in range(1, 3):
                async with asyncio.TaskGroup() as group:
                    for _ in range(10):
                        group.create_task(expect_delay(gateway, "the peer"))
                    (await greeter.arrived.get()).close()
                assert greeter.arrived.empty()
                assert gateway.health().failures == 10 * calls

    asyncio.run(main(), debug=True)


def test_who_waits_for_a_try_that_is_given_up_makes_one() -> None:
    async def main() -> None:
        greeter = Greeter(b"")
        async with (
            greeting(greeter) as address,
            Payments(address, timeout_s=LONG_S) as gateway,
            asyncio.TaskGroup() as group,
        ):
            with in_step(STEP):
                first = group.create_task(gateway.charge("o-1", 5))
                group.create_task(expect_delay(gateway, "the peer closed"))
            await greeter.arrived.get()
            first.cancel()
            (await greeter.arrived.get()).close()

    asyncio.run(main(), debug=True)


def test_our_own_lack_of_descriptors_opens_no_circuit() -> None:
    async def main() -> None:
        async with (
            serving(saying(PAID)) as port,
            Payments(f"127.0.0.1:{port}", timeout_s=LONG_S) as gateway,
        ):
            with no_descriptors():
                await expect_delay(gateway, "payments: this process lacks")
                assert gateway.health().calls == 0
            with in_step(STEP):
                assert await gateway.charge("o-1", 5) == PAID

    asyncio.run(main(), debug=True)
