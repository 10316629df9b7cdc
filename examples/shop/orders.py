"""The shop's one saga: an order is reserved, paid and shipped, or nothing of it is.

Copy this file and replace the gateways by yours. It runs as it stands:

    python -m examples.shop.services inventory --port 9101 --ledger inventory.sqlite
    python -m examples.shop.services payments  --port 9102 --ledger payments.sqlite
    python -m examples.shop.services shipping  --port 9103 --ledger shipping.sqlite
    coordinator serve examples.shop.orders:coordinator --journal file:./orders

`PlaceOrder.exec` is the whole saga. `key` lets a client that lost its connection ask
again: an equal key is the same order, also after a restart.
"""

import os
from dataclasses import dataclass
from typing import Self

from coordinator import Coordinator, Options, Retry, Workflow
from coordinator.gateways import BreakerOptions, aclose_gateways
from coordinator.gateways.http import HttpGateway


@dataclass(frozen=True)
class PlaceOrder:
    order_id: str
    pieces: int
    cents: int

    def key(self) -> str:
        return self.order_id

    async def exec(self, workflow: Workflow, shop: "Shop") -> "Receipt":
        reserve = workflow.step(shop.inventory.reserve, self.order_id, self.pieces)
        held = await reserve.undo(shop.inventory.release)
        charge = workflow.step(shop.payments.charge, self.order_id, self.cents)
        paid = await charge.undo(shop.payments.refund)
        book = workflow.step(shop.shipping.book, self.order_id)
        parcel = await book.undo(shop.shipping.cancel)
        return Receipt(self.order_id, held.id, paid.id, parcel.id)


@dataclass(frozen=True)
class Receipt:
    order_id: str
    reservation: str
    payment: str
    parcel: str


@dataclass(frozen=True)
class OrderFailed:
    """What a client gets instead of a receipt."""

    workflow: str
    status: str
    """compensated, cancelled or stuck; refused if it was not even accepted."""
    reason: str


@dataclass(frozen=True)
class Reservation:
    id: str


@dataclass(frozen=True)
class Payment:
    id: str


@dataclass(frozen=True)
class Parcel:
    id: str


class Inventory(HttpGateway):
    async def reserve(self, order_id: str, pieces: int) -> Reservation:
        body = {"order_id": order_id, "amount": pieces}
        return await self.post("/reserve", body, into=Reservation)

    async def release(self, reservation: Reservation) -> None:
        await self.post("/release", {"id": reservation.id})


class Payments(HttpGateway):
    async def charge(self, order_id: str, cents: int) -> Payment:
        body = {"order_id": order_id, "amount": cents}
        return await self.post("/charge", body, into=Payment)

    async def refund(self, payment: Payment) -> None:
        await self.post("/refund", {"id": payment.id})


class Shipping(HttpGateway):
    async def book(self, order_id: str) -> Parcel:
        return await self.post("/book", {"order_id": order_id}, into=Parcel)

    async def cancel(self, parcel: Parcel) -> None:
        await self.post("/cancel", {"id": parcel.id})


# A busy shop that wants to know within a second that a service is down, and within
# another that it is up: the defaults look at 10 s and wait up to 30 s.
BREAKER = BreakerOptions(window_s=1, open_first_s=0.5, open_longest_s=1)
RETRY = Retry(first_s=0.1, longest_s=1)


class Shop:
    """The receiver: the services that an order needs."""

    def __init__(self, inventory: str, payments: str, shipping: str) -> None:
        self.inventory = Inventory(inventory, name="inventory", breaker=BREAKER)
        self.payments = Payments(payments, name="payments", breaker=BREAKER)
        self.shipping = Shipping(shipping, name="shipping", breaker=BREAKER)

    @classmethod
    def from_env(cls) -> Self:
        """Take the services' addresses from the environment."""
        return cls(
            os.environ.get("INVENTORY_URL", "http://127.0.0.1:9101"),
            os.environ.get("PAYMENTS_URL", "http://127.0.0.1:9102"),
            os.environ.get("SHIPPING_URL", "http://127.0.0.1:9103"),
        )

    async def aclose(self) -> None:
        await aclose_gateways(self)


coordinator = Coordinator(
    Shop.from_env(),
    commands=[PlaceOrder],
    failure=OrderFailed,
    options=Options(retry=RETRY),
)
