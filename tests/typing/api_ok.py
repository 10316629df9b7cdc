"""What users write, as the type checkers see it. Checked, not run."""

import functools
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import assert_type

import msgspec
import pydantic

from coordinator import Coordinator, Handle, Retry, Step, Workflow
from coordinator.testing import (
    CrashReport,
    ExploreReport,
    IdempotencyReport,
    Rehearsal,
    Run,
    Submitted,
    check_idempotency,
    crash_everywhere,
    explore,
    once,
)
from coordinator.workflow import RecordedOutcome


@dataclass
class Hold:
    sku: str


@dataclass
class Payment:
    id: str


@dataclass
class Receipt:
    order: str
    payment: str


class Inventory:
    async def reserve(self, sku: str) -> Hold:
        return Hold(sku)

    async def release(self, hold: Hold) -> None: ...


class Payments:
    async def charge(self, order: str, cents: int = 0) -> Payment:
        return Payment(order)

    def charge_in_a_thread(self, order: str) -> Payment:
        return Payment(order)

    def charge_some_time(self, order: str) -> Awaitable[Payment]:
        return self.charge(order)

    def refund(self, payment: Payment) -> bool:
        return bool(payment)


class Shop:
    def __init__(self) -> None:
        self.inventory = Inventory()
        self.payments = Payments()


@dataclass
class PlaceOrder:
    order: str

    async def exec(self, workflow: Workflow, shop: Shop) -> Receipt:
        # The type of a step is that of its outcome, whatever the function's colour.
        held = await workflow.step(shop.inventory.reserve, self.order)
        assert_type(held, Hold)
        paid = await workflow.step(shop.payments.charge, self.order, cents=5)
        assert_type(paid, Payment)
        threaded = workflow.step(shop.payments.charge_in_a_thread, self.order)
        assert_type(await threaded, Payment)
        some_time = workflow.step(shop.payments.charge_some_time, self.order)
        assert_type(some_time, Step[Payment])
        partial = workflow.step(functools.partial(shop.payments.charge, self.order))
        assert_type(await partial, Payment)

        # Refinements keep it; an undo may be async def or not, and return anything.
        step = (
            workflow.step(shop.inventory.reserve, "s-7")
            .undo(shop.inventory.release)
            .named("inventory.reserve", key="s-7")
            .retry(Retry(first_s=1))
            .timeout(2.5)
            .service("inventory")
        )
        assert_type(step, Step[Hold])
        charged = workflow.step(shop.payments.charge, "o").undo(shop.payments.refund)
        assert_type(charged, Step[Payment])

        # Up to four of different types; as many as one likes of one.
        reserve = shop.inventory.reserve
        two = await workflow.gather(step, charged)
        assert_type(two, tuple[Hold, Payment])
        three = await workflow.gather(step, charged, step)
        assert_type(three, tuple[Hold, Payment, Hold])
        four = await workflow.gather(step, charged, step, charged)
        assert_type(four, tuple[Hold, Payment, Hold, Payment])
        many = await workflow.gather(*(workflow.step(reserve, sku) for sku in "abc"))
        assert_type(many, tuple[Hold, ...])

        assert_type(workflow.outcomes, tuple[RecordedOutcome, ...])
        await workflow.append_outcome("notes", {"any": "value"})
        return Receipt(self.order, paid.id)


class Refund(msgspec.Struct):
    """A Struct, with a key, services, and parameters of other names."""

    order: str
    services = frozenset({"payments"})

    def key(self) -> str:
        return self.order

    async def exec(self, saga: Workflow, receiver: Shop) -> None:
        await saga.step(receiver.payments.refund, Payment(self.order))


class Audit(pydantic.BaseModel):
    """A model, which asks little of its receiver."""

    orders: list[str]

    async def exec(self, _workflow: Workflow, _receiver: object) -> int:
        return len(self.orders)


async def main() -> None:
    async with Coordinator(Shop(), commands=[PlaceOrder, Refund, Audit]) as coordinator:
        assert_type(coordinator, Coordinator[Shop])
        assert_type(await coordinator.execute(PlaceOrder("o-1")), Receipt)
        assert_type(await coordinator.execute(Audit(orders=[])), int)
        handle = await coordinator.submit(PlaceOrder("o-2"))
        assert_type(handle, Handle[Receipt])
        assert_type(await handle.result(), Receipt)
        nothing = await coordinator.submit(Refund("o-1"))
        assert_type(nothing, Handle[None])


class FakePayments(Payments):
    @once
    async def charge(self, order: str, cents: int = 0) -> Payment:
        return Payment(order)


def rehearse() -> None:
    with Rehearsal(Shop(), commands=[PlaceOrder, Audit]) as rehearsal:
        assert_type(rehearsal, Rehearsal[Shop])
        order = rehearsal.submit(PlaceOrder("o-1"))
        assert_type(order, Submitted[Receipt])
        assert_type(order.result(), Receipt)
        assert_type(order.timeline, list[str])
        assert_type(rehearsal.receiver.payments, Payments)
    report = crash_everywhere(PlaceOrder("o-1"), Shop, check=balanced)
    assert_type(report, CrashReport)
    explored = explore(PlaceOrder("o-1"), Shop, script=lambda s: s.refuse("a.b"))
    assert_type(explored, ExploreReport)
    assert_type(check_idempotency(PlaceOrder("o-1"), Shop), IdempotencyReport)


def balanced(shop: Shop, run: Run) -> bool:
    return run.status == "completed" and bool(shop.payments)


async def charged(payments: FakePayments) -> None:
    assert_type(await payments.charge("o", cents=1), Payment)
