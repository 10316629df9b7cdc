"""The services, in a process of their own: HTTP, over one ledger.

    python -m tests.torture.service ledger.sqlite
    {"port": 4711}

    POST /SERVICE/OPERATION {"order": "o-7"}   200 "o-7", 409 refused; of every seventh
                                               order the first reply is lost

It ends when its standard input does, so it does not outlive who started it.
"""

import asyncio
import json
import sys

from aiohttp import web
from tests.torture.ledger import Ledger, decide

__all__ = ["main"]


class Handler:
    """Answers requests."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    async def __call__(self, request: web.Request) -> web.Response:
        """Apply the request's key once, and answer."""
        service = request.match_info["service"]
        operation = request.match_info["operation"]
        order = json.loads(await request.read())["order"]
        answer = self._ledger.apply(
            key=request.headers["Idempotency-Key"],
            service=service,
            operation=operation,
            subject=order,
            epoch=int(request.headers["Coordinator-Epoch"]),
        )
        _, loses = decide(service, operation, order)
        if answer.first and loses:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()
        if answer.refused:
            return web.json_response({"reason": "every ninth"}, status=409)
        return web.json_response(order)


async def serve(ledger: Ledger) -> None:
    """Serve until standard input ends."""
    ended = asyncio.Event()
    # Nothing is ever written to it: it is readable when it has ended.
    asyncio.get_running_loop().add_reader(0, ended.set)
    application = web.Application()
    application.router.add_post("/{service}/{operation}", Handler(ledger))
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
        await ended.wait()
    finally:
        await runner.cleanup()


def main() -> None:
    """Serve the ledger that the command line names."""
    ledger = Ledger(sys.argv[1])
    try:
        asyncio.run(serve(ledger))
    finally:
        ledger.close()


if __name__ == "__main__":
    main()
