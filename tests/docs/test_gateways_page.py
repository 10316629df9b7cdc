"""The gateways that docs/gateways.md shows, at real servers.

`test_pages` runs the page by itself; what it defines is called here.
"""

import asyncio
import re
import sys
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import grpc
import grpc.aio
import pytest
from msgspec import structs
from tests.gateways.messages import make

from cmdstream import Reply, Server, TaskHandler
from coordinator.context import StepContext, in_step
from coordinator.errors import CommandDelayed, Refused
from coordinator.model import Direction, StepId

PAGE = Path(__file__).parents[2] / "docs" / "gateways.md"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
STEP = StepContext("k-1", 7, "0-1", StepId("payments.charge", 0), Direction.DO, 0)

ChargeRequest = make("ChargeRequest", order_id=str, cents=int)
RefundRequest = make("RefundRequest", id=str)
Receipt = make("Receipt", id=str, cents=int)


class PaymentsStub:
    """As generated."""

    def __init__(self, channel: Any) -> None:
        self.Charge = channel.unary_unary(
            "/shop.Payments/Charge",
            request_serializer=ChargeRequest.SerializeToString,
            response_deserializer=Receipt.FromString,
            _registered_method=True,
        )
        self.Refund = channel.unary_unary(
            "/shop.Payments/Refund",
            request_serializer=RefundRequest.SerializeToString,
            response_deserializer=Receipt.FromString,
            _registered_method=True,
        )


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the page defines."""
    bank = {"BankClient": object, "DeclinedError": KeyError}
    bank["BankUnavailableError"] = OSError
    requests = {"ChargeRequest": ChargeRequest, "RefundRequest": RefundRequest}
    for name, members in (
        ("bank_client", bank),
        ("payments_pb2", requests),
        ("payments_pb2_grpc", {"PaymentsStub": PaymentsStub}),
        ("docs_gateways", {}),
    ):
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    # A module of its own, where dataclasses and codecs look for the names of types.
    names = vars(sys.modules["docs_gateways"])
    exec("\n".join(BLOCK.findall(PAGE.read_text())), names)
    return names


@asynccontextmanager
async def grpc_service(calls: list[tuple[str, str]]) -> AsyncGenerator[str]:
    async def charge(request: Any, context: Any) -> Any:
        metadata = dict(context.invocation_metadata())
        calls.append((metadata["idempotency-key"], request.order_id))
        if request.order_id == "refuse":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "no money")
        return Receipt(id="p-1", cents=request.cents)

    async def refund(request: Any, context: Any) -> None:
        calls.append((request.id, "refunded before"))
        await context.abort(grpc.StatusCode.NOT_FOUND, "no such payment")

    def handler(method: Callable[..., Any], kind: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(
            method, kind.FromString, Receipt.SerializeToString
        )

    server = grpc.aio.server()
    methods = {
        "Charge": handler(charge, ChargeRequest),
        "Refund": handler(refund, RefundRequest),
    }
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("shop.Payments", methods),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def test_the_gateway_of_grpc_charges_refunds_and_is_refused(
    page: dict[str, Any],
) -> None:
    calls: list[tuple[str, str]] = []

    async def main() -> None:
        async with (
            grpc_service(calls) as target,
            page["GrpcPayments"](target) as payments,
        ):
            with in_step(STEP):
                paid = await payments.charge("o-1", 5)
                assert paid == page["Payment"]("p-1")
                await payments.refund(paid)
                with pytest.raises(Refused, match="no money"):
                    await payments.charge("refuse", 5)

    asyncio.run(main())
    assert calls == [("k-1", "o-1"), ("p-1", "refunded before"), ("k-1", "refuse")]


def test_the_gateway_of_cmd_stream_charges_refunds_and_is_refused(
    page: dict[str, Any],
) -> None:
    calls: list[Any] = []
    results = {
        "o-1": page["Charged"]("p-1"),
        "refuse": page["Declined"]("no money"),
        "later": page["Busy"]("lunch"),
    }

    async def handle(command: Any, reply: Reply) -> None:
        calls.append(command)
        order_id = getattr(command, "order_id", None)
        await reply.send(page["Refunded"]() if order_id is None else results[order_id])

    async def main() -> None:
        codec = page["StreamPayments"]("127.0.0.1:9")._codec
        async with Server(codec, TaskHandler(handle)) as server:
            host, port = await server.listen("127.0.0.1", 0)
            async with page["StreamPayments"](f"{host}:{port}") as payments:
                with in_step(structs.replace(STEP, trace="t-1")):
                    paid = await payments.charge("o-1", 5)
                    assert paid == page["Payment"]("p-1")
                    await payments.refund(paid)
                    with pytest.raises(Refused, match="no money"):
                        await payments.charge("refuse", 5)
                    with pytest.raises(CommandDelayed, match="lunch"):
                        await payments.charge("later", 5)

    asyncio.run(main())
    assert calls[:2] == [
        page["Charge"]("o-1", 5, "k-1", 7, "t-1"),
        page["RefundPayment"]("p-1", "k-1"),
    ]
