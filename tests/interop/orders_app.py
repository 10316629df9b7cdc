"""Charged and shipped, or neither. `coordinator serve orders_app:coordinator`."""

from dataclasses import dataclass
from pathlib import Path

from coordinator import (
    CommandDelayed,
    Coordinator,
    Options,
    Refused,
    Retry,
    Workflow,
    current_step,
)


@dataclass
class Payment:
    order: str
    cents: int


@dataclass
class Receipt:
    order: str
    cents: int


@dataclass
class OrderFailed:
    workflow: str
    status: str
    reason: str


class Services:
    """They write down what they do; yours are gateways."""

    service_name = "shop"

    async def charge(self, order: str, cents: int) -> Payment:
        write_down(f"charge {order} {current_step().idempotency_key}")
        return Payment(order, cents)

    async def refund(self, payment: Payment) -> None:
        write_down(f"refund {payment.order} {current_step().idempotency_key}")

    async def ship(self, order: str) -> None:
        if order.startswith("far-"):
            raise Refused("no courier goes there")
        if courier_is_away():
            raise CommandDelayed("the courier is away")


def courier_is_away() -> bool:
    return Path("no-courier").exists()


def write_down(line: str) -> None:
    with Path("ledger.txt").open("a") as ledger:
        ledger.write(f"{line}\n")


@dataclass
class PlaceOrder:
    id: str
    cents: int

    def key(self) -> str:
        return self.id

    async def exec(self, workflow: Workflow, services: Services) -> Receipt:
        charge = workflow.step(services.charge, self.id, self.cents)
        payment = await charge.undo(services.refund)
        await workflow.step(services.ship, self.id)
        return Receipt(self.id, payment.cents)


coordinator = Coordinator(
    Services(),
    commands=[PlaceOrder],
    failure=OrderFailed,
    options=Options(retry=Retry(first_s=0.02, longest_s=0.1)),
)
