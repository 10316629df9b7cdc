"""HTTP where something is out of order: answers too big, TLS, descriptors, headers.

Against servers of a few lines, which say what no framework lets one say.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from coordinator.context import StepContext, in_step
from coordinator.errors import CommandDelayed
from coordinator.gateways.http import HttpGateway, HttpOptions
from coordinator.model import Direction, StepId

STEP = StepContext("k-1", 7, "0-1", StepId("shop.get", 0), Direction.DO, 0)


@asynccontextmanager
async def answering(answer: bytes) -> AsyncGenerator[str]:
    """Answer each connection's first request; give the address."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


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
