"""HTTP where something is out of order: answers too big, TLS, descriptors, headers.

Against servers of a few lines, which say what no framework lets one say.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
import pytest
from tests.gateways.faults import no_descriptors
from tests.streams import StreamServer

from coordinator.context import StepContext, in_step
from coordinator.errors import CommandDelayed
from coordinator.gateways import MisconfiguredError
from coordinator.gateways.http import HttpGateway, HttpOptions
from coordinator.model import Direction, StepId

STEP = StepContext("k-1", 7, "0-1", StepId("shop.get", 0), Direction.DO, 0)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncGenerator[str]:
    """Answer each connection's first request; give the address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)

    async with StreamServer(serve) as server:
        yield f"http://127.0.0.1:{server.port}"


def http(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_409_too_big_to_be_read_is_no_refusal() -> None:
    async def main() -> None:
        options = HttpOptions(response_size_max=100)
        body = b'{"a": "' + b"x" * 2000 + b'", "code": "idempotency_key_in_use"}'
        async with (
            answering(http("409 Conflict", body)) as base_url,
            HttpGateway(base_url, name="shop", options=options) as gateway,
        ):
            with (
                in_step(STEP),
                pytest.raises(CommandDelayed, match=r"answers=\{409: Answer.REFUSED\}"),
            ):
                await gateway.get("/")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (http("400 Bad Request", b""), "(?i)wrong.version.number|record layer"),
        # An alert, fatal: certificate_required.
        (b"\x15\x03\x03\x00\x02\x02\x74", "(?i)certificate.required|alert"),
    ],
)
def test_tls_that_fails_is_for_a_person_and_says_why(answer: bytes, why: str) -> None:
    async def main() -> None:
        async with (
            answering(answer) as base_url,
            HttpGateway(base_url.replace("http:", "https:"), name="shop") as gateway,
        ):
            with in_step(STEP), pytest.raises(MisconfiguredError, match=why):
                await gateway.get("/")
            assert gateway.health().failures == 1

    asyncio.run(main())


def test_a_connection_lost_in_tls_is_a_lost_connection_and_says_why() -> None:
    async def main() -> None:
        async with (
            answering(b"") as base_url,
            HttpGateway(base_url.replace("http:", "https:"), name="shop") as gateway,
        ):
            with in_step(STEP), pytest.raises(CommandDelayed, match=r"(?i)reset|eof"):
                await gateway.get("/")

    asyncio.run(main())


def test_a_certificate_that_is_asked_for_late_is_for_a_person_too() -> None:
    gateway = HttpGateway("https://shop", name="shop")
    late = aiohttp.ClientOSError(1, "[SSL] record layer failure")
    late.__cause__ = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED]")
    answer = gateway.translate(late)
    assert isinstance(answer, MisconfiguredError)
    assert "CERTIFICATE_REQUIRED" in str(answer)
    gone = aiohttp.ClientOSError("gone")
    gone.__cause__ = ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
    answer = gateway.translate(gone)
    assert isinstance(answer, CommandDelayed)
    assert str(answer) == "shop: gone: EOF occurred in violation of protocol"


def test_our_own_lack_of_descriptors_opens_no_circuit() -> None:
    async def main() -> None:
        async with (
            answering(http("200 OK", b"{}")) as base_url,
            HttpGateway(base_url, name="shop") as gateway,
        ):
            with no_descriptors(), in_step(STEP):
                with pytest.raises(CommandDelayed, match="this process lacks"):
                    await gateway.get("/")
                assert gateway.health().calls == 0
            with in_step(STEP):
                await gateway.get("/")

    asyncio.run(main())


@pytest.mark.parametrize(
    "headers",
    [
        {"X": "a\r\nEvil: 1"},
        {"X": "nul\x00"},
        {"X": "\ud800"},
        {"X Y": "a"},
        {"": "a"},
        {"Coordinator-Epoch": "1"},
        {"Coordinator-Replay": "true"},
    ],
)
def test_a_header_that_cannot_be_sent_is_found_before_connecting(
    headers: dict[str, str],
) -> None:
    # Nobody is there to connect to.
    base_url = "http://127.0.0.1:9"

    async def main() -> None:
        with pytest.raises(ValueError, match=r"header|itself"):
            HttpGateway(base_url, name="shop", headers=headers)
        by_call = HttpGateway(base_url, name="shop", headers=lambda: headers)
        for gateway in (HttpGateway(base_url, name="shop"), by_call):
            async with gateway:
                with in_step(STEP), pytest.raises(ValueError, match=r"header|itself"):
                    await gateway.get("/", headers=headers)
                assert gateway.health().calls == 0

    asyncio.run(main())
