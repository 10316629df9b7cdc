"""aiohttp at both ends: a POST of 64 bytes, answered with the same.

HTTP/1.1 answers one call per connection at a time, so a hundred in flight take a
hundred connections, which is what its client makes by default.
"""

import asyncio
import importlib.metadata
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

from bench.echo import Echo

ADDED = 0


def version() -> str:
    """Return which aiohttp is measured."""
    return importlib.metadata.version("aiohttp")


async def serve() -> None:
    """Send back what comes in."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=await request.read())

    app = web.Application()
    app.router.add_post("/echo", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


@asynccontextmanager
async def calling(port: int, _connections: int) -> AsyncGenerator[Echo]:
    """Call it, over as many connections as it takes."""
    url = f"http://127.0.0.1:{port}/echo"
    async with aiohttp.ClientSession() as session:

        async def echo(text: str) -> str:
            async with session.post(url, data=text.encode()) as response:
                return (await response.read()).decode()

        yield echo
