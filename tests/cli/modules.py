"""Modules that the tests let a server import."""

SHOP = '''
from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import msgspec

from coordinator import (
    CommandDelayed,
    Coordinator,
    Options,
    Refused,
    Retry,
    Workflow,
)


class OrderFailed(msgspec.Struct):
    workflow: str
    status: str
    reason: str


@dataclass
class Receipt:
    order_id: str
    parcel: str


class Service:
    """Does what files in the working directory say: ok, refuse, delay, break."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def _do(self, operation: str, what: str) -> str:
        mode = Path(f"{self.name}.mode")
        match mode.read_text() if mode.exists() else "ok":
            case "refuse":
                raise Refused(f"{self.name} says no", {"code": "declined"})
            case "delay":
                raise CommandDelayed(f"{self.name} timed out")
            case "break":
                raise RuntimeError(f"{self.name} is broken")
            case "hang":
                Path(f"{self.name}.hangs").touch()
                await asyncio.Event().wait()
            case _:
                return f"{operation}-{what}"
        raise AssertionError


class Inventory(Service):
    async def reserve(self, sku: str) -> str:
        return await self._do("reserve", sku)

    async def release(self, reservation: str) -> None:
        await self._do("release", reservation)


class Payments(Service):
    async def charge(self, order: str, cents: int) -> str:
        return await self._do("charge", f"{order}-{cents}")

    async def refund(self, payment: str) -> None:
        await self._do("refund", payment)


class Shipping(Service):
    async def book(self, order: str) -> str:
        return await self._do("book", order)


class Shop:
    def __init__(self) -> None:
        self.inventory = Inventory("inventory")
        self.payments = Payments("payments")
        self.shipping = Shipping("shipping")


@dataclass
class PlaceOrder:
    order_id: str
    sku: str
    cents: int

    def key(self) -> str:
        return self.order_id

    async def exec(self, workflow: Workflow, shop: Shop) -> Receipt:
        inventory, payments, shipping = shop.inventory, shop.payments, shop.shipping
        await workflow.step(inventory.reserve, self.sku).undo(inventory.release)
        await workflow.step(payments.charge, self.order_id, self.cents).undo(
            payments.refund
        )
        parcel = await workflow.step(shipping.book, self.order_id)
        return Receipt(self.order_id, parcel)


@dataclass
class Count:
    number: int

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        return self.number + 1


def coordinator() -> Coordinator[Shop]:
    return Coordinator(
        Shop(),
        commands=[PlaceOrder, Count],
        failure=OrderFailed,
        options=Options(retry=Retry(first_s=0.02, longest_s=0.1, attempts_max=2)),
    )
'''

WITHOUT_ORDERS = SHOP.replace("[PlaceOrder, Count]", "[Count]")
