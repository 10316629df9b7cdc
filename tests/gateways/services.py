"""The payment service in a process of its own, and a gateway to it for each protocol.

async with Service("grpc", tmp_path) as service:
    gateway = gateway_to("grpc", service.port)
    ...
    service.freeze()
    await service.kill()
    await service.start()   # on the same port, with the same ledger
"""

import asyncio
import signal
import socket
import sqlite3
import sys
from pathlib import Path
from typing import Any, Protocol, Self

import msgspec
from tests.gateways.service import (
    CODEC,
    Charge,
    Declined,
    Paid,
    Refund,
    Refunded,
    faults_of,
)
from tests.processes import TIMEOUT_S, eventually

from coordinator.gateways import Answer, BreakerSnapshot
from coordinator.gateways.cmdstream import CmdStreamGateway
from coordinator.gateways.grpc import GrpcGateway
from coordinator.gateways.http import HttpGateway

__all__ = ["PROTOCOLS", "Payments", "Service", "gateway_to"]

PROTOCOLS = ["cmdstream", "grpc", "http"]

ROOT = Path(__file__).parents[2]


class Service:
    """One service, which may die and come back."""

    def __init__(self, protocol: str, folder: Path) -> None:
        self._protocol = protocol
        self._folder = folder
        # Bound, and not listened on: between two lives nobody else gets the port.
        self._keeper = socket.socket()
        self._keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._keeper.bind(("127.0.0.1", 0))
        self.port: int = self._keeper.getsockname()[1]
        self._process: asyncio.subprocess.Process | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.kill()
        self._keeper.close()

    async def start(self) -> None:
        """Start it and wait until it takes calls."""
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.gateways.service"),
            *(self._protocol, str(self.port), str(self._folder)),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert self._process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            assert await self._process.stdout.readline() == b"ready\n"

    async def kill(self) -> None:
        """End it without any warning, if it lives."""
        assert self._process is not None
        if self._process.returncode is None:
            self._process.kill()
        await self.died()

    async def died(self) -> None:
        """Wait for its end."""
        assert self._process is not None
        async with asyncio.timeout(TIMEOUT_S):
            await self._process.communicate()

    def freeze(self) -> None:
        """Stop it where it is; its connections stay open."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    async def hung(self, count: int) -> None:
        """Wait until *count* calls have met with a fault."""
        await eventually(lambda: len(faults_of(self._folder)) == count)

    def charges(self) -> dict[str, int]:
        """Return how often each order was charged and not refunded."""
        return self._counts(
            "SELECT subject, sum(CASE WHEN undoes IS NULL THEN 1 ELSE -1 END)"
            " FROM world GROUP BY subject"
        )

    def charges_ever(self) -> dict[str, int]:
        """Return how often each order was charged, refunded since or not."""
        return self._counts(
            "SELECT subject, count(*) FROM world WHERE undoes IS NULL GROUP BY subject"
        )

    def _counts(self, query: str) -> dict[str, int]:
        database = sqlite3.connect(self._folder / "payments.sqlite")
        try:
            return dict(database.execute(query))
        finally:
            database.close()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)


class Payments(Protocol):
    """The same operations over each protocol."""

    async def charge(self, order_id: str, cents: int) -> Paid: ...

    async def refund(self, paid: Paid) -> None: ...

    def health(self) -> BreakerSnapshot: ...

    async def aclose(self) -> None: ...


class CmdStreamPayments(CmdStreamGateway):
    async def charge(self, order_id: str, cents: int) -> Paid:
        return await self.send(Charge(order_id, cents), into=Paid)

    async def refund(self, paid: Paid) -> None:
        await self.send(Refund(paid.id), into=Refunded)


class HttpPayments(HttpGateway):
    async def charge(self, order_id: str, cents: int) -> Paid:
        body = {"order_id": order_id, "cents": cents}
        return await self.post("/charge", body, into=Paid)

    async def refund(self, paid: Paid) -> None:
        await self.post("/refund", {"id": paid.id})


class GrpcPayments(GrpcGateway):
    def __init__(self, target: str, **more: Any) -> None:
        super().__init__(target, **more)
        self._charge: Any = self.channel.unary_unary(
            "/shop.Payments/Charge",
            request_serializer=msgspec.json.encode,
            response_deserializer=msgspec.json.Decoder(Paid).decode,
        )
        self._refund: Any = self.channel.unary_unary(
            "/shop.Payments/Refund", request_serializer=msgspec.json.encode
        )

    async def charge(self, order_id: str, cents: int) -> Paid:
        request = {"order_id": order_id, "cents": cents}
        paid: Paid = await self.unary(self._charge, request)
        return paid

    async def refund(self, paid: Paid) -> None:
        await self.unary(self._refund, {"id": paid.id})


def gateway_to(protocol: str, port: int, **more: Any) -> Payments:
    """Make a gateway to the service on *port* of this machine."""
    address = f"127.0.0.1:{port}"
    given: dict[str, Any] = {"name": "payments", **more}
    if protocol == "cmdstream":
        answers = {Declined: Answer.REFUSED}
        return CmdStreamPayments(address, CODEC, answers=answers, **given)
    if protocol == "grpc":
        return GrpcPayments(address, **given)
    return HttpPayments(f"http://{address}", **given)
