"""The server that is killed: three steps, each of which leaves an effect in a ledger.

The ledger stands for services in other processes: it is a file of its own, applies each
idempotency key once, and counts what happened in the world without looking at keys. A
SIGKILL between an effect and its record is what the key is for.
"""

import asyncio
import os
import sqlite3
from dataclasses import dataclass

from coordinator import (
    CommandDelayed,
    Coordinator,
    Options,
    Refused,
    Retry,
    Workflow,
    current_step,
)

SCHEMA = """
create table if not exists keys (key text primary key, refused integer);
create table if not exists world (what text, subject text, delta integer);
"""


@dataclass
class Receipt:
    """What a completed order returns."""

    order: str


@dataclass
class OrderFailed:
    """What a refused order returns."""

    workflow: str
    status: str
    reason: str


class Service:
    """One service; all share a ledger."""

    def __init__(self, name: str, ledger: sqlite3.Connection) -> None:
        self.service_name = name
        self._ledger = ledger

    async def do(self, order: str) -> str:
        """Do it, once per key; refuse every ninth order, lose every seventh reply."""
        number = int(order.rpartition("-")[2])
        await asyncio.sleep(0.002)
        refuse = self.service_name == "shipping" and number % 9 == 0
        first = self._apply(order, 0 if refuse else 1)
        if refuse:
            raise Refused("every ninth")
        if first and number % 7 == 0:
            raise CommandDelayed("the reply was lost")
        return order

    async def undo(self, order: str) -> None:
        """Undo it, once per key."""
        self._apply(order, -1)

    def _apply(self, order: str, delta: int) -> bool:
        key = current_step().idempotency_key
        with self._ledger:
            known = self._ledger.execute(
                "insert or ignore into keys values (?, ?)", (key, delta == 0)
            )
            if known.rowcount and delta:
                self._ledger.execute(
                    "insert into world values (?, ?, ?)",
                    (self.service_name, order, delta),
                )
            return known.rowcount == 1


class Services:
    """The receiver."""

    def __init__(self) -> None:
        ledger = sqlite3.connect(os.environ.get("LEDGER", ":memory:"))
        ledger.executescript("pragma synchronous=off;" + SCHEMA)
        self.inventory = Service("inventory", ledger)
        self.payments = Service("payments", ledger)
        self.shipping = Service("shipping", ledger)


@dataclass
class Order:
    """Three steps with undos; asked for again by its id."""

    id: str

    def key(self) -> str:
        return self.id

    async def exec(self, workflow: Workflow, services: Services) -> Receipt:
        for service in (services.inventory, services.payments, services.shipping):
            await workflow.step(service.do, self.id).undo(service.undo)
        return Receipt(self.id)


coordinator = Coordinator(
    Services(),
    commands=[Order],
    failure=OrderFailed,
    options=Options(retry=Retry(first_s=0.05, longest_s=0.5)),
)
