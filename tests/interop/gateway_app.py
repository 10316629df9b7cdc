"""A service in Go takes the money: `coordinator serve gateway_app:coordinator`."""

import os
from dataclasses import dataclass

from cmdstream import JsonCodec, Registry
from coordinator import Coordinator, Options, Refused, Retry, Workflow
from coordinator.gateways import Answer, aclose_gateways
from coordinator.gateways.cmdstream import CmdStreamGateway, CmdStreamOptions


@dataclass(frozen=True)
class Charge:
    order: str
    cents: int
    idempotency_key: str = ""  # these are filled in by the gateway
    coordinator_epoch: int = 0
    traceparent: str = ""


@dataclass(frozen=True)
class Refund:
    payment: str
    idempotency_key: str = ""
    coordinator_epoch: int = 0
    traceparent: str = ""


@dataclass(frozen=True)
class Paid:
    payment: str
    cents: int


@dataclass(frozen=True)
class Refunded:
    pass


@dataclass(frozen=True)
class Declined:
    reason: str


class Payments(CmdStreamGateway):
    async def charge(self, order: str, cents: int) -> Paid:
        return await self.send(Charge(order, cents), into=Paid)

    async def refund(self, payment: Paid) -> None:
        await self.send(Refund(payment.payment), into=Refunded)


class Shop:
    service_name = "shop"

    def __init__(self, address: str) -> None:
        self.payments = Payments(
            address,
            # The types in the order of the Go service.
            JsonCodec(Registry([Charge, Refund], [Paid, Refunded, Declined])),
            name="payments",
            answers={Declined: Answer.REFUSED},
            options=CmdStreamOptions(server_info=b"payments-v1"),
        )

    async def ship(self, order: str) -> None:
        if order.startswith("far-"):
            raise Refused("no courier goes there")

    async def aclose(self) -> None:
        await aclose_gateways(self)


@dataclass
class Receipt:
    order: str
    cents: int


@dataclass
class OrderFailed:
    workflow: str
    status: str
    reason: str


@dataclass
class PlaceOrder:
    id: str
    cents: int

    def key(self) -> str:
        return self.id

    async def exec(self, workflow: Workflow, shop: Shop) -> Receipt:
        charge = workflow.step(shop.payments.charge, self.id, self.cents)
        paid = await charge.undo(shop.payments.refund)
        await workflow.step(shop.ship, self.id)
        return Receipt(self.id, paid.cents)


coordinator = Coordinator(
    Shop(os.environ.get("PAYMENTS", "127.0.0.1:9000")),
    commands=[PlaceOrder],
    failure=OrderFailed,
    options=Options(retry=Retry(first_s=0.02, longest_s=0.1)),
)
