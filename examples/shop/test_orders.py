"""How a user tests his saga: the shop's one, without a socket. Copy this, too.

pytest examples/shop/test_orders.py
pytest examples/shop/test_orders.py --coordinator-seeds=20000
"""

from collections.abc import Callable

import pytest
from examples.shop.orders import (
    Parcel,
    Payment,
    PlaceOrder,
    Receipt,
    Reservation,
    Shop,
)

from coordinator import Refused
from coordinator.testing import (
    Rehearsal,
    Run,
    Services,
    check_idempotency,
    crash_everywhere,
    explore,
    once,
)

ORDER = PlaceOrder("o-1", pieces=2, cents=1999)
RECEIPT = Receipt("o-1", "inventory-1", "payments-1", "shipping-1")


# With the real gateways: each step is given an answer, and no socket is opened.


def answer_all(services: Services) -> None:
    """Answer as the services do."""
    services.returns("inventory.reserve", Reservation("inventory-1"))
    services.returns("payments.charge", Payment("payments-1"))
    services.returns("shipping.book", Parcel("shipping-1"))
    for undone in ("inventory.reserve", "payments.charge", "shipping.book"):
        services.returns(f"{undone}/undo", None)


def test_an_order_gets_its_receipt_whatever_replies_are_lost() -> None:
    with Rehearsal(Shop.from_env(), commands=[PlaceOrder]) as rehearsal:
        answer_all(rehearsal.services)
        rehearsal.services.fail("inventory.reserve", times=2)
        rehearsal.services.lose_reply("payments.charge")
        rehearsal.services.delay("shipping.book", "2m")  # longer than anybody waits
        order = rehearsal.submit(ORDER)
        rehearsal.crash()
        assert order.result() == RECEIPT


def test_where_no_carrier_goes_the_money_comes_back() -> None:
    with Rehearsal(Shop.from_env(), commands=[PlaceOrder]) as rehearsal:
        answer_all(rehearsal.services)
        rehearsal.services.refuse("shipping.book", "no carrier goes there")
        order = rehearsal.submit(ORDER)
        with pytest.raises(Refused, match="no carrier goes there"):
            order.result()
        assert order.timeline == [
            "accepted",
            "inventory.reserve done",
            "payments.charge done",
            "shipping.book refused: no carrier goes there",
            "turned back: no carrier goes there",
            "payments.charge undone",
            "inventory.reserve undone",
            "compensated",
        ]


# With fakes that keep books: what is left in the world can be judged.


class FakeService:
    """Does what the shop's services do: a thing once per key."""

    def __init__(self, name: str) -> None:
        self.service_name = name
        self.books: list[int] = []

    def enter(self, amount: int) -> str:
        self.books.append(amount)
        return f"{self.service_name}-{len(self.books)}"

    def strike(self, id_: str) -> None:
        self.books.append(-self.books[int(id_.rpartition("-")[2]) - 1])


class FakeInventory(FakeService):
    @once
    async def reserve(self, order_id: str, pieces: int) -> Reservation:
        return Reservation(self.enter(pieces))

    @once
    async def release(self, reservation: Reservation) -> None:
        self.strike(reservation.id)


class FakePayments(FakeService):
    @once
    async def charge(self, order_id: str, cents: int) -> Payment:
        return Payment(self.enter(cents))

    @once
    async def refund(self, payment: Payment) -> None:
        self.strike(payment.id)


class FakeShipping(FakeService):
    @once
    async def book(self, order_id: str) -> Parcel:
        return Parcel(self.enter(1))

    @once
    async def cancel(self, parcel: Parcel) -> None:
        self.strike(parcel.id)


class FakeShop:
    def __init__(self) -> None:
        self.inventory = FakeInventory("inventory")
        self.payments = FakePayments("payments")
        self.shipping = FakeShipping("shipping")


def all_or_nothing(shop: FakeShop, run: Run) -> None:
    """Check what has to hold however an order ends."""
    left = [
        sum(service.books) for service in (shop.inventory, shop.payments, shop.shipping)
    ]
    assert left == ([2, 1999, 1] if run.status == "completed" else [0, 0, 0])


@pytest.mark.parametrize("refused", ["", "payments.charge", "shipping.book"])
def test_an_order_survives_a_crash_at_any_point(refused: str) -> None:
    script: Callable[[Services], None] | None = None
    if refused:
        script = lambda services: services.refuse(refused)  # noqa: E731 -- one line
    crash_everywhere(ORDER, FakeShop, script=script, check=all_or_nothing)


def test_an_order_is_all_or_nothing_whatever_goes_wrong() -> None:
    explore(ORDER, FakeShop, check=all_or_nothing)


def test_each_service_does_what_it_is_asked_twice_once() -> None:
    check_idempotency(ORDER, FakeShop)
