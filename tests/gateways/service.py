"""A payment service as a program of its own, over each of the protocols.

    python -m tests.gateways.service cmdstream 50051 FOLDER

It knows nothing of sagas. Its ledger is that of `examples.shop`: it does the work of a
key once, however often it is killed and started again. The order's id says what else
happens to a charge, once for each key:

    die-before...   kills itself before it does it
    die-after...    kills itself when it has done it, before it answers
    hang...         does nothing until it is killed
    refuse...       does not do it, and says so, each time
    anything else   does it and answers

One line on standard output says that it takes calls. It ends when its standard input
does, so it does not outlive a test that was killed.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import msgspec
from aiohttp import web
from examples.shop.ledger import Call, Decision, Ledger

from cmdstream import JsonCodec, Registry, Reply, Server, TaskHandler

__all__ = ["CODEC", "Charge", "Declined", "Paid", "Refund", "Refunded", "faults_of"]


@dataclass(frozen=True)
class Charge:
    order_id: str
    cents: int
    idempotency_key: str = ""
    coordinator_epoch: int = 0


@dataclass(frozen=True)
class Refund:
    id: str
    idempotency_key: str = ""
    coordinator_epoch: int = 0


@dataclass(frozen=True)
class Paid:
    id: str
    cents: int


@dataclass(frozen=True)
class Refunded:
    id: str


@dataclass(frozen=True)
class Declined:
    reason: str


CODEC = JsonCodec(Registry([Charge, Refund], [Paid, Refunded, Declined]))

Result = Paid | Refunded | Declined


def faults_of(folder: Path) -> list[str]:
    """Return the keys of the calls that met with a fault, those that hang included."""
    path = folder / "faults"
    return path.read_text().splitlines() if path.exists() else []


class Business:
    """What the service does, whatever its protocol."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ledger = Ledger(folder / "payments.sqlite")

    async def charge(self, command: Charge) -> Result:
        """Do it once."""
        order_id, key = command.order_id, command.idempotency_key
        if order_id.startswith("refuse"):
            return Declined("no money")
        faulty = key not in faults_of(self._folder)
        if faulty and order_id.startswith("die-before"):
            self._die(key)
        if faulty and order_id.startswith("hang"):
            self._note(key)
            await asyncio.Event().wait()
        request = msgspec.json.encode((order_id, command.cents))
        call = Call(key, "charge", request, command.coordinator_epoch)

        def decide() -> Decision:
            number = self._ledger.change("charge", order_id, command.cents)
            return Decision("done", str(number).encode(), order_id, command.cents)

        decision = self._ledger.apply(call, decide)
        if faulty and order_id.startswith("die-after"):
            self._die(key)
        return Paid(f"p-{decision.response.decode()}", command.cents)

    async def refund(self, command: Refund) -> Result:
        """Undo it once."""
        number = int(command.id.removeprefix("p-"))
        key, epoch = command.idempotency_key, command.coordinator_epoch

        def decide() -> Decision:
            done = self._ledger.find_change(number)
            if done is None:
                return Decision("nothing")
            self._ledger.change("refund", done.subject, -done.delta, done.id)
            return Decision("done", b"", done.subject, -done.delta)

        call = Call(key, "refund", command.id.encode(), epoch)
        self._ledger.apply(call, decide)
        return Refunded(command.id)

    def _die(self, key: str) -> None:
        self._note(key)
        os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, key: str) -> None:
        with (self._folder / "faults").open("a") as faults:
            faults.write(f"{key}\n")


@asynccontextmanager
async def over_cmdstream(business: Business, port: int) -> AsyncGenerator[None]:
    """Serve commands, whose keys are in them."""

    async def handle(command: object, reply: Reply) -> None:
        if isinstance(command, Charge):
            await reply.send(await business.charge(command))
        elif isinstance(command, Refund):
            await reply.send(await business.refund(command))

    async with Server(CODEC, TaskHandler(handle)) as server:
        await server.listen("127.0.0.1", port)
        yield


@asynccontextmanager
async def over_grpc(business: Business, port: int) -> AsyncGenerator[None]:
    """Serve methods, whose messages are JSON and whose keys are in the metadata."""

    async def charge(content: bytes, context: Any) -> bytes:
        result = await business.charge(_command(content, Charge, _metadata(context)))
        if isinstance(result, Declined):
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, result.reason)
        return msgspec.json.encode(result)

    async def refund(content: bytes, context: Any) -> bytes:
        command = _command(content, Refund, _metadata(context))
        return msgspec.json.encode(await business.refund(command))

    methods = {"Charge": charge, "Refund": refund}
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    served: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
        name: grpc.unary_unary_rpc_method_handler(method)
        for name, method in methods.items()
    }
    handlers = grpc.method_handlers_generic_handler("shop.Payments", served)
    server.add_generic_rpc_handlers((handlers,))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    yield
    await server.stop(None)


@asynccontextmanager
async def over_http(business: Business, port: int) -> AsyncGenerator[None]:
    """Serve POSTs, whose keys are in the headers."""

    async def charge(request: web.Request) -> web.Response:
        command = _command(await request.read(), Charge, dict(request.headers))
        result = await business.charge(command)
        status = 409 if isinstance(result, Declined) else 200
        return web.Response(body=msgspec.json.encode(result), status=status)

    async def refund(request: web.Request) -> web.Response:
        command = _command(await request.read(), Refund, dict(request.headers))
        return web.Response(body=msgspec.json.encode(await business.refund(command)))

    app = web.Application()
    app.add_routes([web.post("/charge", charge), web.post("/refund", refund)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    yield
    await runner.cleanup()


Protocol = Callable[[Business, int], AbstractAsyncContextManager[None]]

PROTOCOLS: dict[str, Protocol] = {
    "cmdstream": over_cmdstream,
    "grpc": over_grpc,
    "http": over_http,
}


def _metadata(context: Any) -> dict[str, str]:
    return dict(context.invocation_metadata())


def _command(content: bytes, kind: type[Any], headers: dict[str, str]) -> Any:
    """Put what came beside a command into it."""
    fields = msgspec.json.decode(content, type=dict[str, Any])
    known = {name.lower(): value for name, value in headers.items()}
    fields["idempotency_key"] = known["idempotency-key"]
    fields["coordinator_epoch"] = int(known["coordinator-epoch"])
    return msgspec.convert(fields, kind)


async def main(protocol: str, port: int, folder: Path) -> None:
    """Serve until standard input ends."""
    async with PROTOCOLS[protocol](Business(folder), port):
        print("ready", flush=True)
        reader = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
        )
        await reader.read()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
