"""The server that gets bad input: one service, which notes down every call it gets.

``charges.txt`` has a line per call, with the idempotency key: a service that applies
each key once has charged an order as often as the order has different keys there. As
long as there is no file ``go``, nobody knows what becomes of a stamp.
"""

from dataclasses import dataclass
from pathlib import Path

from coordinator import (
    CommandDelayed,
    Coordinator,
    Options,
    Retry,
    Workflow,
    current_step,
)


@dataclass
class Receipt:
    """What a completed order returns."""

    order: str
    paid: str


@dataclass
class OrderFailed:
    """What any other command returns."""

    workflow: str
    status: str
    reason: str


def _note(line: str) -> None:
    with Path("charges.txt").open("a") as charges:
        charges.write(line)


def _may_stamp() -> bool:
    return Path("go").exists()


class Till:
    """The service, and the receiver."""

    service_name = "till"

    async def charge(self, order: str) -> str:
        """Charge, once per key."""
        _note(f"{current_step().idempotency_key} {order}\n")
        return f"paid-{order}"

    async def refund(self, paid: str) -> None:
        """Give it back."""

    async def stamp(self, order: str) -> str:
        """Stamp, as soon as that works."""
        if not _may_stamp():
            raise CommandDelayed("the stamp is nowhere to be found")
        return f"stamped-{order}"


@dataclass
class Order:
    """Charged, then stamped; asked for again by its id."""

    id: str
    stamped: bool = False
    padding: str = ""

    def key(self) -> str:
        return self.id

    async def exec(self, workflow: Workflow, till: Till) -> Receipt:
        paid = await workflow.step(till.charge, self.id).undo(till.refund)
        if self.stamped:
            await workflow.step(till.stamp, self.id)
        return Receipt(self.id, paid)


@dataclass
class Greet:
    """Needs no service."""

    name: str

    async def exec(self, workflow: Workflow, till: Till) -> str:
        return f"hello {self.name}"


coordinator = Coordinator(
    Till(),
    commands=[Order, Greet],
    failure=OrderFailed,
    options=Options(retry=Retry(first_s=0.02, longest_s=0.1)),
)
