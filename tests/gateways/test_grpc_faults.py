"""gRPC where something is out of order: TLS, sizes, descriptors, connections."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import msgspec
import pytest
from tests.certificates import Authority, Pair, needs_openssl
from tests.gateways.conformance import LONG_S, Paid
from tests.gateways.faults import no_descriptors
from tests.gateways.grpc_peer import Context, handlers, serving
from tests.gateways.relay import Relay
from tests.gateways.test_grpc import REQUEST, STEP, Payments
from tests.streams import StreamServer

from coordinator.context import in_step
from coordinator.errors import CommandDelayed
from coordinator.gateways import MisconfiguredError, UnreadableAnswerError
from coordinator.gateways.grpc import GrpcOptions


async def paid(content: bytes, context: Context) -> bytes:
    return msgspec.json.encode(Paid("p-1", 5))


class Holding:
    """A handler that answers when it is told to."""

    def __init__(self) -> None:
        self.arrived = asyncio.Event()
        self.released = asyncio.Event()

    async def charge(self, content: bytes, context: Context) -> bytes:
        self.arrived.set()
        await self.released.wait()
        return await paid(content, context)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncGenerator[str]:
    """Answer each connection's first bytes; give the target."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)

    async with StreamServer(serve) as server:
        yield f"127.0.0.1:{server.port}"


def contents(pair: Pair) -> tuple[bytes, bytes]:
    """Return key and certificate, as gRPC wants them."""
    return pair.key.read_bytes(), pair.certificate.read_bytes()


def tls(**more: Any) -> GrpcOptions:
    return GrpcOptions(credentials=grpc.ssl_channel_credentials(**more))


def test_an_answer_that_is_too_big_says_that_the_work_was_done() -> None:
    async def big(content: bytes, context: Context) -> bytes:
        return msgspec.json.encode(Paid("x" * 3000, 5))

    async def main() -> None:
        options = GrpcOptions(response_size_max=2000)
        async with (
            serving(big) as port,
            Payments(f"127.0.0.1:{port}", options=options) as gateway,
        ):
            with (
                in_step(STEP),
                pytest.raises(
                    UnreadableAnswerError,
                    match=r"did /shop\.Payments/Charge, but answered more than 2000",
                ),
            ):
                await gateway.charge("o-1", 5)

    asyncio.run(main())


def test_a_request_that_is_too_big_for_the_service_is_for_a_person() -> None:
    async def main() -> None:
        async with serving(paid) as port, Payments(f"127.0.0.1:{port}") as gateway:
            with in_step(STEP), pytest.raises(MisconfiguredError, match="larger than"):
                await gateway.charge("o" * 5_000_000, 5)

    asyncio.run(main())


@asynccontextmanager
async def streaming(*answers: bytes) -> AsyncGenerator[str]:
    """Serve the method as one with any number of answers, as another .proto may."""

    async def charge(content: bytes, context: Context) -> AsyncGenerator[bytes]:
        for answer in answers:
            yield answer

    method: grpc.RpcMethodHandler[bytes, bytes]
    method = grpc.unary_stream_rpc_method_handler(charge)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("shop.Payments", {"Charge": method}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def test_a_service_that_says_ok_and_sends_nothing_did_it() -> None:
    async def main() -> None:
        async with streaming() as target, Payments(target) as gateway:
            with (
                in_step(STEP),
                pytest.raises(
                    UnreadableAnswerError,
                    match=r"did /shop\.Payments/Charge, but sent no message",
                ),
            ):
                await gateway.charge("o-1", 5)

    asyncio.run(main())


def test_a_service_that_answers_twice_is_nobody_knows() -> None:
    """gRPC takes one answer, and waits for an end that is behind the second."""

    async def main() -> None:
        answer = msgspec.json.encode(Paid("p-1", 5))
        async with (
            streaming(answer, answer) as target,
            Payments(target, timeout_s=0.2) as gateway,
        ):
            with in_step(STEP):
                await expect_delay(gateway, "in time")

    asyncio.run(main())


def test_metadata_that_is_too_big_for_the_service_is_for_a_person() -> None:
    async def main() -> None:
        async with serving(paid) as port, Payments(f"127.0.0.1:{port}") as gateway:
            with in_step(STEP), pytest.raises(MisconfiguredError, match="metadata"):
                await gateway.unary(
                    gateway.stub.Charge, REQUEST, metadata={"x": "y" * 20_000}
                )

    asyncio.run(main())


def test_a_refusal_that_is_too_big_to_be_read_is_for_a_person() -> None:
    async def refuse(content: bytes, context: Context) -> bytes:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "x" * 20_000)
        raise AssertionError

    async def main() -> None:
        async with serving(refuse) as port, Payments(f"127.0.0.1:{port}") as gateway:
            with in_step(STEP), pytest.raises(MisconfiguredError, match="metadata"):
                await gateway.charge("o-1", 5)

    asyncio.run(main())


@needs_openssl
def test_a_certificate_is_trusted_only_if_the_options_say_so(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server = grpc.ssl_server_credentials([contents(authority.issue("server"))])

    async def main() -> None:
        async with serving(paid, server) as port:
            target = f"127.0.0.1:{port}"
            async with Payments(target, options=tls()) as gateway:
                with (
                    in_step(STEP),
                    pytest.raises(MisconfiguredError, match=r"(?i)cert"),
                ):
                    await gateway.charge("o-1", 5)
                assert gateway.health().failures == 1
            options = tls(root_certificates=authority.certificate.read_bytes())
            async with Payments(target, options=options) as gateway:
                with in_step(STEP):
                    assert await gateway.charge("o-1", 5) == Paid("p-1", 5)

    asyncio.run(main())


@needs_openssl
def test_a_service_that_wants_a_certificate_is_shown_ours(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    trusted = authority.certificate.read_bytes()
    key, chain = contents(authority.issue("ours"))
    server = grpc.ssl_server_credentials(
        [contents(authority.issue("server"))], trusted, require_client_auth=True
    )

    async def main() -> None:
        async with serving(paid, server) as port:
            options = tls(
                root_certificates=trusted, private_key=key, certificate_chain=chain
            )
            async with Payments(f"127.0.0.1:{port}", options=options) as gateway:
                with in_step(STEP):
                    assert await gateway.charge("o-1", 5) == Paid("p-1", 5)

    asyncio.run(main())


def test_a_service_without_tls_is_for_a_person() -> None:
    async def main() -> None:
        async with (
            serving(paid) as port,
            Payments(f"127.0.0.1:{port}", options=tls()) as gateway,
        ):
            with (
                in_step(STEP),
                pytest.raises(
                    MisconfiguredError, match=r"see GrpcOptions\.credentials"
                ),
            ):
                await gateway.charge("o-1", 5)

    asyncio.run(main())


def test_a_connection_lost_in_tls_is_a_lost_connection() -> None:
    async def main() -> None:
        async with (
            answering(b"") as target,
            Payments(target, options=tls()) as gateway,
        ):
            with in_step(STEP), pytest.raises(CommandDelayed):
                await gateway.charge("o-1", 5)

    asyncio.run(main())


def test_a_refused_connection_says_so() -> None:
    async def main() -> None:
        async with Relay(1) as relay:
            await relay.stop()
            async with Payments(f"127.0.0.1:{relay.port}") as gateway:
                with in_step(STEP), pytest.raises(CommandDelayed, match="refused"):
                    await gateway.charge("o-1", 5)

    asyncio.run(main())


def test_a_broken_channel_is_replaced_so_that_the_next_call_truly_tries() -> None:
    """gRPC would answer for the service until its own back-off is over."""

    async def main() -> None:
        async with serving(paid) as port, Relay(port) as relay:
            await relay.stop()
            async with Payments(f"127.0.0.1:{relay.port}", timeout_s=LONG_S) as gateway:
                with in_step(STEP):
                    for _ in range(3):
                        with pytest.raises(CommandDelayed):
                            await gateway.charge("o-1", 5)
                    await relay.start()
                    assert await gateway.charge("o-1", 5) == Paid("p-1", 5)

    asyncio.run(main())


def test_a_connection_that_carries_nothing_any_more_is_given_up() -> None:
    """As to a host that is gone: the time-out is for the service, not for the host."""

    async def main() -> None:
        never = asyncio.Event()

        async def charge(content: bytes, context: Context) -> bytes:
            relay.silent = True
            await never.wait()
            raise AssertionError

        async with serving(charge) as port, Relay(port) as relay:
            options = GrpcOptions(keepalive_s=0.1, keepalive_timeout_s=0.1)
            async with Payments(
                f"127.0.0.1:{relay.port}", timeout_s=LONG_S, options=options
            ) as gateway:
                with in_step(STEP):
                    await expect_delay(gateway, "ping")

    asyncio.run(main())


async def expect_delay(gateway: Payments, match: str = "payments: ") -> None:
    with pytest.raises(CommandDelayed, match=match):
        await gateway.charge("o-1", 5)


def test_a_call_ends_as_unknown_when_the_gateway_is_closed_under_it() -> None:
    """gRPC raises CancelledError, though nobody cancelled the step."""
    holding = Holding()

    async def main() -> None:
        async with (
            serving(holding.charge) as port,
            Payments(f"127.0.0.1:{port}", timeout_s=LONG_S) as gateway,
            asyncio.TaskGroup() as group,
        ):
            with in_step(STEP):
                call = group.create_task(expect_delay(gateway, "gateway was closed"))
            await holding.arrived.wait()
            await gateway.aclose()
            await call
            assert gateway._in_flight == 0

    asyncio.run(main())


def test_a_call_is_let_end_when_the_service_closes_softly() -> None:
    """A broken channel is not replaced under those who still wait for an answer."""
    holding = Holding()

    async def main() -> None:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handlers(holding.charge),))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with Payments(f"127.0.0.1:{port}", timeout_s=LONG_S) as gateway:
            with in_step(STEP):
                async with asyncio.TaskGroup() as group:
                    call = group.create_task(gateway.charge("o-1", 5))
                    await holding.arrived.wait()
                    stopping = group.create_task(server.stop(LONG_S))
                    while not await is_refused(gateway):
                        pass
                    holding.released.set()
                    assert await call == Paid("p-1", 5)
                    await stopping

    asyncio.run(main())


async def is_refused(gateway: Payments) -> bool:
    """Ask once; what a closing service still lets in gets no answer in time."""
    try:
        await gateway.unary(gateway.stub.Charge, REQUEST, timeout_s=0.05)
    except CommandDelayed as delayed:
        return "in time" not in delayed.reason
    return False


def test_our_own_lack_of_descriptors_opens_no_circuit() -> None:
    async def main() -> None:
        async with (
            serving(paid) as port,
            Payments(f"127.0.0.1:{port}", timeout_s=LONG_S) as gateway,
        ):
            with no_descriptors(), in_step(STEP):
                with pytest.raises(CommandDelayed, match="this process lacks"):
                    await gateway.charge("o-1", 5)
                assert gateway.health().calls == 0
            with in_step(STEP):
                assert await gateway.charge("o-1", 5) == Paid("p-1", 5)

    asyncio.run(main())


def test_a_server_that_speaks_another_protocol_is_no_refusal() -> None:
    async def main() -> None:
        answer = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
        async with answering(answer) as target, Payments(target) as gateway:
            with in_step(STEP), pytest.raises((CommandDelayed, MisconfiguredError)):
                await gateway.charge("o-1", 5)

    asyncio.run(main())


@pytest.mark.parametrize("metadata", [{"a b": "x"}, {"coordinator-epoch": "1"}])
def test_metadata_that_can_not_be_sent_is_found_before_connecting(
    metadata: dict[str, str],
) -> None:
    # Nobody is there to connect to.
    target = "127.0.0.1:9"

    async def main() -> None:
        with pytest.raises(ValueError, match=r"metadata|itself"):
            Payments(target, metadata=metadata)
        by_call = Payments(target, metadata=lambda: metadata)
        for gateway in (Payments(target), by_call):
            async with gateway:
                with in_step(STEP), pytest.raises(ValueError, match=r"metadata|itself"):
                    await gateway.unary(gateway.stub.Charge, REQUEST, metadata=metadata)
                assert gateway.health().calls == 0

    asyncio.run(main())
