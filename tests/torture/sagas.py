"""The sagas that are tortured, the same in every harness.

    chain      three steps, one after the other
    together   two at once, then the third: the journal names what is in flight
    late       as chain, but its last step is answered when much else was done: the
               workflow that pins old segments until it is carried over

Every ninth order is refused by its last step and undone; of every seventh the first
reply of each step is lost, so that nobody knows. `Services` is the receiver; how a call
reaches the ledger differs: in the same process, or over HTTP from a process of its own.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tests.torture.ledger import Ledger, decide

from coordinator import CommandDelayed, Refused, Workflow, current_step

__all__ = [
    "LocalService",
    "Order",
    "OrderFailed",
    "Receipt",
    "Service",
    "Services",
    "make_order",
]


class Service(Protocol):
    """One service, whose name is its `service_name`."""

    async def do(self, order: str) -> str: ...

    async def undo(self, order: str) -> None: ...

    async def wait(self, order: str) -> str: ...


class Services:
    """The receiver."""

    def __init__(self, make: Callable[[str], Service]) -> None:
        self.inventory = make("inventory")
        self.payments = make("payments")
        self.shipping = make("shipping")


class LocalService:
    """A service in this process, but for its ledger, which is a file."""

    def __init__(self, name: str, ledger: Ledger, late_after: int = 0) -> None:
        """Take calls from now on.

        Args:
            name: Of the service.
            ledger: Shared by all.
            late_after: Effects in it before which `wait` is not answered.
        """
        self.service_name = name
        self._ledger = ledger
        self._late_after = late_after

    def release(self) -> None:
        """Keep nobody waiting any more."""
        self._late_after = 0

    async def do(self, order: str) -> str:
        """Do it, once per key."""
        return await self._call("do", order)

    async def undo(self, order: str) -> None:
        """Undo it, once per key."""
        await self._call("undo", order)

    async def wait(self, order: str) -> str:
        """Do it when enough else was done."""
        if self._ledger.effects() < self._late_after:
            raise CommandDelayed("not yet")
        return await self._call("do", order)

    async def _call(self, operation: str, order: str) -> str:
        await asyncio.sleep(0)
        step = current_step()
        answer = self._ledger.apply(
            key=step.idempotency_key,
            service=self.service_name,
            operation=operation,
            subject=order,
            epoch=step.epoch,
        )
        _, loses = decide(self.service_name, operation, order)
        if answer.first and loses:
            raise CommandDelayed("the reply was lost")
        if answer.refused:
            raise Refused("every ninth")
        return order


@dataclass
class Receipt:
    """What a completed order returns."""

    order: str
    parts: list[str]


@dataclass
class OrderFailed:
    """What a client over cmd-stream gets otherwise."""

    workflow: str
    status: str
    reason: str


@dataclass
class Order:
    """Three steps with undos; asked for again by its id."""

    id: str
    shape: str = "chain"
    padding: str = ""
    """Makes its record larger."""

    def key(self) -> str:
        return self.id

    async def exec(self, workflow: Workflow, services: Services) -> Receipt:
        first, second, third = services.inventory, services.payments, services.shipping
        if self.shape == "together":
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(_step(workflow, service, self.id))
                    for service in (first, second)
                ]
            parts = [task.result() for task in tasks]
        else:
            parts = [await _step(workflow, s, self.id) for s in (first, second)]
        last = third.wait if self.shape == "late" else third.do
        parts.append(await workflow.step(last, self.id).undo(third.undo))
        return Receipt(self.id, parts)


async def _step(workflow: Workflow, service: Service, order: str) -> str:
    return await workflow.step(service.do, order).undo(service.undo)


def make_order(number: int, scale: int = 1) -> Order:
    """Return order *number* of any harness: shapes and sizes are mixed alike in all.

    Args:
        number: From 0.
        scale: By which its record is larger; 1: up to 900 bytes.
    """
    shape = "late" if number == 1 else ("chain", "together")[number % 2]
    return Order(f"o-{number}", shape, "x" * (number * 389 % 900 * scale))
