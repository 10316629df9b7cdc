"""What is ordered: sagas of the shapes that users write, and of some they shouldn't.

Each command names its order, which is how the checker knows it again. `shop.saw` says
what `exec` goes on with; the checker then asks whether that was durable.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from tests.simulation.services import DeclinedError, Reply, Shop

from coordinator.errors import CommandDelayed, Refused
from coordinator.model import Retry
from coordinator.workflow import Workflow

__all__ = ["COMMANDS", "AnyCommand", "draw_command"]


@dataclass
class Linear:
    """Three steps with undos."""

    order: str

    async def exec(self, workflow: Workflow, shop: Shop) -> list[int]:
        held = await workflow.step(shop.inventory.reserve, self.order).undo(
            shop.inventory.release
        )
        shop.saw(held)
        paid = await workflow.step(shop.payments.charge, self.order, 1999).undo(
            shop.payments.refund
        )
        shop.saw(paid)
        parcel = await workflow.step(shop.shipping.book, self.order).undo(
            shop.shipping.unbook
        )
        shop.saw(parcel)
        return [held.number, paid.number, parcel.number]


@dataclass
class Basket:
    """A loop over steps of one name."""

    order: str
    items: int

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        for item in range(self.items):
            held = await workflow.step(
                shop.inventory.reserve, self.order, f"item-{item}"
            ).undo(shop.inventory.release)
            shop.saw(held)
        paid = await workflow.step(
            shop.payments.charge, self.order, 100 * self.items
        ).undo(shop.payments.refund)
        shop.saw(paid)
        return paid.number


@dataclass
class Together:
    """Differently named steps at once, and same-named ones under keys."""

    order: str

    async def exec(self, workflow: Workflow, shop: Shop) -> list[int]:
        held, paid, posted = await workflow.gather(
            workflow.step(shop.inventory.reserve, self.order).undo(
                shop.inventory.release
            ),
            workflow.step(shop.payments.charge, self.order, 5).undo(
                shop.payments.refund
            ),
            workflow.step(shop.ledger.post, self.order).undo(shop.ledger.unpost),
        )
        for reply in (held, paid, posted):
            shop.saw(reply)
        parcels = await workflow.gather(
            *(
                workflow.step(shop.shipping.book, self.order)
                .undo(shop.shipping.unbook)
                .named("shipping.book", key=str(part))
                for part in range(3)
            )
        )
        for parcel in parcels:
            shop.saw(parcel)
        return [held.number, paid.number, posted.number]


@dataclass
class Group:
    """A TaskGroup: what is refused cancels its siblings, which wait before they call.

    Args:
        pauses: Milliseconds before each of the three calls.
    """

    order: str
    pauses: tuple[int, int, int]

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        replies: list[Reply] = []

        async def call(pause: int, step: Any) -> None:
            await asyncio.sleep(pause / 1000)
            reply = await step()
            shop.saw(reply)
            replies.append(reply)

        steps: list[Callable[[], Any]] = [
            lambda: workflow.step(shop.inventory.reserve, self.order).undo(
                shop.inventory.release
            ),
            lambda: workflow.step(shop.payments.charge, self.order, 5).undo(
                shop.payments.refund
            ),
            lambda: workflow.step(shop.ledger.post, self.order).undo(
                shop.ledger.unpost
            ),
        ]
        async with asyncio.TaskGroup() as group:
            for pause, step in zip(self.pauses, steps, strict=True):
                group.create_task(call(pause, step))
        return sum(reply.number for reply in replies)


@dataclass
class Alternative:
    """Takes another way when a service refuses the first."""

    order: str

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        held = await workflow.step(shop.inventory.reserve, self.order).undo(
            shop.inventory.release
        )
        shop.saw(held)
        try:
            paid = await workflow.step(shop.payments.charge, self.order, 7).undo(
                shop.payments.refund
            )
        except DeclinedError as refusal:
            if refusal.code >= 100:
                raise
            paid = await workflow.step(shop.ledger.post, self.order).undo(
                shop.ledger.unpost
            )
            shop.saw(paid)
            return "on account"
        shop.saw(paid)
        return "paid"


@dataclass
class Labelled:
    """One step can't be undone."""

    order: str

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        shop.saw(
            await workflow.step(shop.inventory.reserve, self.order).undo(
                shop.inventory.release
            )
        )
        shop.saw(await workflow.step(shop.shipping.label, self.order))
        shop.saw(
            await workflow.step(shop.payments.charge, self.order, 9).undo(
                shop.payments.refund
            )
        )


@dataclass
class Picky:
    """Refuses by itself, having looked at what it got."""

    order: str
    even_only: bool

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        held = await workflow.step(shop.inventory.reserve, self.order).undo(
            shop.inventory.release
        )
        shop.saw(held)
        posted = await workflow.step(shop.ledger.post, self.order).undo(
            shop.ledger.unpost
        )
        shop.saw(posted)
        if self.even_only and posted.number % 2:
            raise DeclinedError("an odd number", 13)
        return posted.number


@dataclass
class Keyed:
    """Has a key, sleeps in between, and gives a step a time-out and retries of its own.

    `attempt` tells submissions apart; what they share is the key.
    """

    order: str
    sleep_ms: int

    def key(self) -> str:
        return f"key of {self.order}"

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        held = (
            await workflow.step(shop.inventory.reserve, self.order)
            .undo(shop.inventory.release)
            .retry(Retry(first_s=0.05, longest_s=2.0, attempts_max=None))
            .timeout(0.5)
        )
        shop.saw(held)
        await asyncio.sleep(self.sleep_ms / 1000)
        paid = await workflow.step(shop.payments.charge, self.order, 3).undo(
            shop.payments.refund
        )
        shop.saw(paid)
        return paid.number


@dataclass
class Swallower:
    """Catches whatever a step raises, and goes on as if nothing had been."""

    order: str

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        held = await workflow.step(shop.inventory.reserve, self.order).undo(
            shop.inventory.release
        )
        shop.saw(held)
        with contextlib.suppress(Exception):
            shop.saw(
                await workflow.step(shop.payments.charge, self.order, 1).undo(
                    shop.payments.refund
                )
            )
        try:
            shop.saw(await workflow.step(shop.shipping.label, self.order))
        except CommandDelayed:
            return "swallowed"
        except Refused:
            return "refused"
        return "labelled"


@dataclass
class Buggy:
    """Its own code fails for a while, one way or another.

    Args:
        how: ``error``, ``cancelled``, ``cancel`` (its own task) or ``exit``.
    """

    order: str
    how: str

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        held = await workflow.step(shop.inventory.reserve, self.order).undo(
            shop.inventory.release
        )
        shop.saw(held)
        if shop.has_a_bad_day(self.order):
            await self._fail()
        paid = await workflow.step(shop.payments.charge, self.order, 2).undo(
            shop.payments.refund
        )
        shop.saw(paid)
        return paid.number

    async def _fail(self) -> None:
        match self.how:
            case "error":
                raise LookupError(f"no {self.order} here")
            case "cancelled":
                raise asyncio.CancelledError
            case "cancel":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(1)
            case _:
                raise SystemExit(3)


@dataclass
class Hasty:
    """Gives a step only so long, by asyncio's own means; long enough once it is healed.

    A call that is cut off so is unknown, and made again.
    """

    order: str
    timeout_ms: int

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        held = await workflow.step(shop.inventory.reserve, self.order).undo(
            shop.inventory.release
        )
        shop.saw(held)
        try:
            async with asyncio.timeout(shop.patience_s(self.timeout_ms)):
                paid = await workflow.step(shop.payments.charge, self.order, 4).undo(
                    shop.payments.refund
                )
        except TimeoutError:
            raise DeclinedError("too slow", 408) from None
        shop.saw(paid)
        return paid.number


AnyCommand: TypeAlias = (
    Linear
    | Basket
    | Together
    | Group
    | Alternative
    | Labelled
    | Picky
    | Keyed
    | Swallower
    | Buggy
    | Hasty
)

COMMANDS: list[type[AnyCommand]] = [
    Linear,
    Basket,
    Together,
    Group,
    Alternative,
    Labelled,
    Picky,
    Keyed,
    Swallower,
    Buggy,
    Hasty,
]


def draw_command(
    shape: type[AnyCommand], order: str, chance: random.Random
) -> AnyCommand:
    """Make a command of *shape* for *order*."""
    if shape is Basket:
        return Basket(order, chance.randint(1, 6))
    if shape is Group:
        pauses = [chance.choice((0, 0, 1, 20, 300)) for _ in range(3)]
        return Group(order, (pauses[0], pauses[1], pauses[2]))
    if shape is Picky:
        return Picky(order, even_only=chance.random() < 0.7)
    if shape is Keyed:
        return Keyed(order, chance.choice((0, 10, 2000)))
    if shape is Buggy:
        return Buggy(order, chance.choice(("error", "cancelled", "cancel")))
    if shape is Hasty:
        return Hasty(order, chance.choice((1, 20, 4000)))
    return shape(order)  # type: ignore[call-arg]  # the others take nothing else
