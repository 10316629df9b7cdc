"""The shop's three services: ordinary HTTP services that know nothing of sagas.

    python -m examples.shop.services payments --ledger payments.sqlite

    service    does             undoes           amount
    inventory  POST /reserve    POST /release    pieces
    payments   POST /charge     POST /refund     cents
    shipping   POST /book       POST /cancel     parcels

What does takes ``{"order_id": "o-1", "amount": 1999}`` (amount: 1 if left out) and
answers ``{"id": "payments-17", "order_id": "o-1", "amount": 1999}``. What undoes takes
``{"id": "payments-17"}`` and answers ``{"id": "payments-17", "undone": true}``; false
if that was never done or is undone already. Every request needs an
``Idempotency-Key``; `ledger` says what is done with it, and what an audit can ask.

    400   no key, or not such a body            409   refused: {"reason", "code"}
    422   the key was used for another request  503   a fault; nothing was done

Faults, each with its own dice, thrown for each request afresh (so asking again helps):

    --error-rate 0.05       answers 503 before doing the work
    --lose-reply-rate 0.03  does the work, then breaks the connection without a reply
    --refuse-rate 0.05      share of the orders that are refused; which ones, the id
                            of the order decides: asking again refuses again
    --seed 1                of all dice

    POST /_down {"seconds": 5}   breaks every connection for so long; 0 ends it

One line of JSON on standard output says that it is ready:
``{"service": "payments", "port": 4711, "pid": 1234}``. It ends on SIGTERM and SIGINT.
If standard input is a pipe it also ends when that is closed, so it does not outlive a
parent that was killed: start it with ``stdin=PIPE`` and leave the pipe alone.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import stat
import sys
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec
from aiohttp import web
from examples.shop.ledger import Call, Decision, Ledger

T = TypeVar("T")


@dataclass(frozen=True)
class Kind:
    """What one of the services does."""

    do: str
    undo: str
    refusal: str
    code: str


KINDS = {
    "inventory": Kind("reserve", "release", "out of stock", "out_of_stock"),
    "payments": Kind("charge", "refund", "card declined", "declined"),
    "shipping": Kind("book", "cancel", "no carrier goes there", "no_carrier"),
}


class Do(msgspec.Struct):
    order_id: str
    amount: int = 1


class Undo(msgspec.Struct):
    id: str


class Down(msgspec.Struct):
    seconds: float


@dataclass(frozen=True)
class Faults:
    """Shares of requests (of orders, for refusals), 0 to 1."""

    error_rate: float = 0
    lose_reply_rate: float = 0
    refuse_rate: float = 0
    seed: int = 1


class Service:
    """One service over its ledger."""

    def __init__(self, name: str, ledger: Ledger, faults: Faults) -> None:
        self._name = name
        self._kind = KINDS[name]
        self._ledger = ledger
        self._faults = faults
        self._dice = random.Random(f"{faults.seed}/{name}")
        self._down_until_s = 0.0

    def application(self) -> web.Application:
        """Return the routes."""
        app = web.Application()
        app.router.add_post(f"/{self._kind.do}", self._handle)
        app.router.add_post(f"/{self._kind.undo}", self._handle)
        app.router.add_post("/_down", self._go_down)
        return app

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        if asyncio.get_running_loop().time() < self._down_until_s:
            return break_connection(request)
        key = request.headers.get("Idempotency-Key", "")
        epoch = request.headers.get("Coordinator-Epoch", "0")
        if not key or not epoch.isdecimal():
            raise web.HTTPBadRequest(text="an Idempotency-Key is needed")
        call = Call(key, request.path.removeprefix("/"), body, int(epoch))
        if self._dice.random() < self._faults.error_rate:
            self._ledger.failed(call)
            return answer(503, {"reason": "try again"})
        reply_lost = self._dice.random() < self._faults.lose_reply_rate
        # No await in here: the ledger is this thread's, and takes a tenth of a ms.
        decision = self._ledger.apply(
            call, lambda: self._decide(call), reply_lost=reply_lost
        )
        if reply_lost:
            return break_connection(request)
        if decision.status == "conflict":
            return answer(422, {"type": "idempotency-key-reused"})
        status = 409 if decision.status == "refused" else 200
        return web.Response(
            status=status, body=decision.response, content_type="application/json"
        )

    def _decide(self, call: Call) -> Decision:
        if call.operation == self._kind.undo:
            return self._undo(call)
        wanted = decode(call.request, Do)
        order_id, amount = wanted.order_id, wanted.amount
        if self._refuses(order_id):
            no = {"reason": self._kind.refusal, "code": self._kind.code}
            return Decision("refused", encode(no), order_id, amount)
        number = self._ledger.change(call.operation, order_id, amount)
        yes = {"id": f"{self._name}-{number}", "order_id": order_id, "amount": amount}
        return Decision("done", encode(yes), order_id, amount)

    def _undo(self, call: Call) -> Decision:
        wanted = decode(call.request, Undo)
        number = wanted.id.removeprefix(f"{self._name}-")
        done = self._ledger.find_change(int(number)) if number.isdecimal() else None
        response = encode({"id": wanted.id, "undone": done is not None})
        if done is None:
            return Decision("nothing", response, wanted.id)
        self._ledger.change(call.operation, done.subject, -done.delta, undoes=done.id)
        return Decision("done", response, done.subject, done.delta)

    def _refuses(self, order_id: str) -> bool:
        dice = zlib.crc32(f"{self._faults.seed}/{self._name}/{order_id}".encode())
        return dice < self._faults.refuse_rate * 2**32

    async def _go_down(self, request: web.Request) -> web.Response:
        wanted = decode(await request.read(), Down)
        self._down_until_s = asyncio.get_running_loop().time() + wanted.seconds
        return answer(200, {"down_s": wanted.seconds})


def decode(body: bytes, into: type[T]) -> T:
    """Decode JSON from outside."""
    try:
        return msgspec.json.decode(body, type=into)
    except msgspec.DecodeError as error:
        raise web.HTTPBadRequest(text=str(error)) from error


def encode(value: object) -> bytes:
    """Encode JSON."""
    return msgspec.json.encode(value)


def answer(status: int, body: dict[str, object]) -> web.Response:
    """Answer with JSON."""
    return web.Response(
        status=status, body=encode(body), content_type="application/json"
    )


def break_connection(request: web.Request) -> web.Response:
    """Break the connection; the response that is returned goes nowhere."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def serve(name: str, port: int, ledger: Path, faults: Faults) -> None:
    """Serve until a signal, or the end of standard input."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    stdin = sys.stdin.fileno()
    mode = os.fstat(stdin).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):  # else: a terminal, or /dev/null
        loop.add_reader(stdin, stop_at_end, stdin, stop)
    book = Ledger(ledger)
    runner = web.AppRunner(
        Service(name, book, faults).application(),
        access_log=None,
        shutdown_timeout=1,
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready = {"service": name, "port": runner.addresses[0][1], "pid": os.getpid()}
        print(json.dumps(ready), flush=True)
        await stop.wait()
    finally:
        await runner.cleanup()
        book.close()


def stop_at_end(stdin: int, stop: asyncio.Event) -> None:
    """Read what the parent wrote; stop if it closed the pipe, or died."""
    if not os.read(stdin, 4096):
        stop.set()


def main() -> None:
    """Read the command line and serve."""
    parser = argparse.ArgumentParser(prog="examples.shop.services")
    parser.add_argument("service", choices=KINDS)
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--ledger", type=Path, required=True, help="an SQLite file")
    parser.add_argument("--error-rate", type=float, default=0)
    parser.add_argument("--lose-reply-rate", type=float, default=0)
    parser.add_argument("--refuse-rate", type=float, default=0)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    faults = Faults(
        given.error_rate, given.lose_reply_rate, given.refuse_rate, given.seed
    )
    asyncio.run(serve(given.service, given.port, given.ledger, faults))


if __name__ == "__main__":
    main()
