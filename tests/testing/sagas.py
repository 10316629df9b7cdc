"""Sagas as users write them, some with a bug, and the fakes that tests give them."""

import asyncio
import itertools
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from coordinator import Refused, Workflow
from coordinator.testing import now, once

__all__ = [
    "Bank",
    "Careless",
    "ChangesItsMind",
    "Forgetful",
    "Mailing",
    "MailsOnRefusal",
    "Numbered",
    "Once",
    "PlaceOrder",
    "Receipt",
    "Remembers",
    "Shop",
    "Stock",
    "Stubborn",
    "TwiceRefunding",
    "Uncopyable",
    "shop_with",
]


@dataclass
class Receipt:
    order: str
    parcel: str


class Stock:
    def __init__(self) -> None:
        self.held: list[str] = []

    @once
    async def reserve(self, sku: str) -> str:
        await asyncio.sleep(0.1)
        self.held.append(sku)
        return sku

    @once
    async def release(self, sku: str) -> None:
        self.held.remove(sku)


class Bank:
    """Plain functions, which run in threads."""

    def __init__(self) -> None:
        self.entries: list[int] = []

    @once
    def charge(self, order: str, cents: int) -> int:
        if cents > 100_000:
            raise Refused("no credit")
        self.entries.append(cents)
        return cents

    @once
    def refund(self, cents: int) -> None:
        self.entries.append(-cents)


class Carrier:
    def __init__(self) -> None:
        self.parcels: list[str] = []
        self.late: list[str] = []

    @once
    async def book(self, order: str) -> str:
        self.parcels.append(order)
        return f"parcel of {order}"

    @once
    async def book_late(self, order: str) -> str:
        self.late.append(order)
        return f"late parcel of {order}"


class Shop:
    def __init__(self) -> None:
        self.stock, self.bank, self.carrier = Stock(), Bank(), Carrier()
        self.mails: list[str] = []
        self.chance: Callable[[], int] = itertools.count().__next__

    @once
    def mail(self, order: str) -> None:
        self.mails.append(order)


@dataclass
class PlaceOrder:
    """Without a bug."""

    order: str = "o-1"
    cents: int = 1999

    async def exec(self, workflow: Workflow, shop: Shop) -> Receipt:
        await workflow.step(shop.stock.reserve, "sku").undo(shop.stock.release)
        charge = workflow.step(shop.bank.charge, self.order, self.cents)
        await charge.undo(shop.bank.refund)
        parcel = await workflow.step(shop.carrier.book, self.order)
        return Receipt(self.order, parcel)


@dataclass
class Mailing:
    """Does something outside of a step."""

    order: str = "o-1"

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.stock.reserve, "sku").undo(shop.stock.release)
        shop.mails.append(self.order)
        await workflow.step(shop.carrier.book, self.order)


@dataclass
class MailsOnRefusal:
    """Does something outside of a step, but only behind a refusal."""

    order: str = "o-1"

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        await workflow.step(shop.stock.reserve, "sku").undo(shop.stock.release)
        await workflow.step(shop.carrier.book, self.order)
        try:
            await workflow.step(shop.bank.charge, self.order, 5)
        except Refused:
            shop.mails.append(self.order)
            return "owes"
        return "paid"


@dataclass
class Numbered:
    """Names a step otherwise in each run."""

    order: str = "o-1"

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        charge = workflow.step(shop.bank.charge, self.order, 5).undo(shop.bank.refund)
        await charge.named("bank.charge", key=f"try-{shop.chance()}")
        await workflow.step(shop.carrier.book, self.order)


@dataclass
class Remembers:
    """Undoes with what exec kept in a variable."""

    strict: bool
    order: str = "o-1"

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        kept: dict[str, str] = {}

        async def reserve() -> None:
            kept["sku"] = await shop.stock.reserve("sku")

        async def release(_: None) -> None:
            if self.strict or kept:
                await shop.stock.release(kept["sku"])

        step = workflow.step(reserve).named("stock.reserve")
        await step.undo(release)
        await workflow.step(shop.carrier.book, self.order)


@dataclass
class ChangesItsMind:
    """Takes the way that the clock says."""

    order: str = "o-1"

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.stock.reserve, "sku").undo(shop.stock.release)
        if now().timestamp() % 60 < 20:
            await workflow.step(shop.carrier.book, self.order)
        else:
            await workflow.step(shop.carrier.book_late, self.order)


@dataclass
class Careless:
    """Ships although the bank refused."""

    order: str = "o-1"

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        charge = workflow.step(shop.bank.charge, self.order, 5).undo(shop.bank.refund)
        with suppress(Refused):
            await charge
        await workflow.step(shop.carrier.book, self.order)


@dataclass
class Forgetful:
    """Returns what is another thing in each run."""

    order: str = "o-1"

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        await workflow.step(shop.carrier.book, self.order)
        return shop.chance()


class Once(Bank):
    """Honours no key: it charges again when it is asked again."""

    def charge(self, order: str, cents: int) -> int:
        self.entries.append(cents)
        return cents


class TwiceRefunding(Bank):
    """Honours no key when it undoes."""

    def refund(self, cents: int) -> None:
        self.entries.append(-cents)


class Stubborn(Bank):
    """Can't undo what is undone already."""

    def refund(self, cents: int) -> None:
        self.entries.remove(cents)


@dataclass
class Uncopyable:
    """What can neither be copied nor reset."""

    name: str = "u"
    lock: threading.Lock = field(default_factory=threading.Lock)


def shop_with(bank: type[Bank]) -> Callable[[], Shop]:
    """Return a function that makes a shop with such a bank."""

    def make() -> Shop:
        shop = Shop()
        shop.bank = bank()
        return shop

    return make
