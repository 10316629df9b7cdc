"""What is ordered: sagas of the shapes that users write; see `careless` and `dawdlers`,
too.

Each command names its order, which is how the checker knows it again. `shop.saw` says
what `exec` goes on with; the checker then asks whether that was durable.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

from tests.simulation.careless import Buggy, Clumsy, Deaf, Stubborn, Swallower
from tests.simulation.dawdlers import (
    Branches,
    Fork,
    Leaky,
    Listening,
    Pausing,
    Sprint,
)
from tests.simulation.services import DeclinedError, Reply
from tests.simulation.shop import Shop

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

    POLICY: ClassVar[Retry] = Retry(first_s=0.05, longest_s=2.0, attempts_max=None)

    order: str
    sleep_ms: int

    def key(self) -> str:
        return f"key of {self.order}"

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        held = (
            await workflow.step(shop.inventory.reserve, self.order)
            .undo(shop.inventory.release)
            .retry(self.POLICY)
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


@dataclass
class Fallback:
    """A group whose refusal is caught, and another way taken; some of it nested."""

    order: str
    pauses: tuple[int, int, int]

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        first_ms, second_ms, third_ms = self.pauses

        async def hold() -> None:
            await asyncio.sleep(first_ms / 1000)
            async with asyncio.TaskGroup() as inner:
                inner.create_task(book(second_ms))
                held = await workflow.step(shop.inventory.reserve, self.order).undo(
                    shop.inventory.release
                )
                shop.saw(held)

        async def book(pause_ms: int) -> None:
            await asyncio.sleep(pause_ms / 1000)
            shop.saw(
                await workflow.step(shop.shipping.book, self.order).undo(
                    shop.shipping.unbook
                )
            )

        async def pay() -> None:
            await asyncio.sleep(third_ms / 1000)
            shop.saw(
                await workflow.step(shop.payments.charge, self.order, 6).undo(
                    shop.payments.refund
                )
            )

        refused = False
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(hold())
                group.create_task(pay())
        except* DeclinedError:
            refused = True
        if not refused:
            return "paid"
        posted = await workflow.step(shop.ledger.post, self.order).undo(
            shop.ledger.unpost
        )
        shop.saw(posted)
        return "on account"


@dataclass
class Race:
    """Takes the first of two, and cancels the other one, which is done all the same."""

    order: str

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        async def pay() -> Reply:
            return await workflow.step(shop.payments.charge, self.order, 8).undo(
                shop.payments.refund
            )

        async def book() -> Reply:
            return await workflow.step(shop.shipping.book, self.order).undo(
                shop.shipping.unbook
            )

        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(pay()), loop.create_task(book())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        for task in tasks:
            if task in done:
                shop.saw(task.result())
        shop.saw(
            await workflow.step(shop.inventory.reserve, self.order).undo(
                shop.inventory.release
            )
        )


@dataclass
class Noted:
    """Is large, and notes something large, by the primitive below `step`."""

    order: str
    size: int
    padding: str

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        held = await workflow.step(shop.inventory.reserve, self.order).undo(
            shop.inventory.release
        )
        shop.saw(held)
        notes = [one for one in workflow.outcomes if one.step == "note"]
        if not notes:
            await workflow.append_outcome("note", "x" * self.size)
        elif notes[0].value != "x" * self.size:
            raise AssertionError(f"the note of {self.order} is another one")
        paid = await workflow.step(shop.payments.charge, self.order, 2).undo(
            shop.payments.refund
        )
        shop.saw(paid)
        return len(notes)


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
    | Fallback
    | Race
    | Noted
    | Deaf
    | Clumsy
    | Stubborn
    | Pausing
    | Branches
    | Fork
    | Sprint
    | Leaky
    | Listening
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
    Fallback,
    Race,
    Noted,
    Deaf,
    Clumsy,
    Stubborn,
    Pausing,
    Branches,
    Fork,
    Sprint,
    Leaky,
    Listening,
]


def _draw_pauses(chance: random.Random) -> tuple[int, int, int]:
    first, second, third = (chance.choice((0, 0, 1, 20, 300)) for _ in range(3))
    return first, second, third


def _draw_noted(order: str, chance: random.Random) -> Noted:
    size = chance.choice((10, 1000, 5000, 20_000))
    return Noted(order, size, "y" * chance.choice((0, 0, 3000, 10_000)))


def _draw_stubborn(order: str, chance: random.Random) -> Stubborn:
    return Stubborn(order, chance.random() < 0.5, chance.choice((-1, 0, 10)))


_DRAWN: dict[type[Any], Callable[[str, random.Random], AnyCommand]] = {
    Basket: lambda order, chance: Basket(order, chance.randint(1, 6)),
    Group: lambda order, chance: Group(order, _draw_pauses(chance)),
    Fallback: lambda order, chance: Fallback(order, _draw_pauses(chance)),
    Noted: _draw_noted,
    Picky: lambda order, chance: Picky(order, even_only=chance.random() < 0.7),
    Keyed: lambda order, chance: Keyed(order, chance.choice((0, 10, 2000))),
    Buggy: lambda order, chance: Buggy(
        order, chance.choice(("error", "cancelled", "cancel"))
    ),
    Hasty: lambda order, chance: Hasty(order, chance.choice((1, 20, 4000))),
    Stubborn: _draw_stubborn,
    Branches: lambda order, chance: Branches(order, chance.choice(("group", "gather"))),
    Listening: lambda order, chance: Listening(
        order, chance.choice((1, 100, 2000, 30_000))
    ),
    Sprint: lambda order, chance: Sprint(order, refuses=chance.random() < 0.5),
}
"""Those that take more than an order."""


def draw_command(
    shape: type[AnyCommand], order: str, chance: random.Random
) -> AnyCommand:
    """Make a command of *shape* for *order*."""
    draw = _DRAWN.get(shape)
    if draw is not None:
        return draw(order, chance)
    return shape(order)  # type: ignore[call-arg]  # the others take nothing else
