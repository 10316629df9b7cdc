"""What is ordered by code as nobody should write it, and some will.

It swallows errors, is deaf to cancellations, has bugs, and calls two steps of one name
at once. See `commands` for what they have in common with the others.
"""

import asyncio
import contextlib
from dataclasses import dataclass

from tests.simulation.shop import Shop

from coordinator.errors import CommandDelayed, Refused
from coordinator.workflow import Workflow

__all__ = ["Buggy", "Clumsy", "Deaf", "Stubborn", "Swallower"]


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
class Deaf:
    """Catches what nobody should: cancellations, and what unwinds it."""

    order: str

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        held = await workflow.step(shop.inventory.reserve, self.order).undo(
            shop.inventory.release
        )
        shop.saw(held)
        try:
            shop.saw(
                await workflow.step(shop.payments.charge, self.order, 1).undo(
                    shop.payments.refund
                )
            )
            await asyncio.sleep(0.05)
        except BaseException:  # noqa: BLE001 -- what it is here for
            return "deaf"
        parcel = await workflow.step(shop.shipping.book, self.order).undo(
            shop.shipping.unbook
        )
        shop.saw(parcel)
        return "heard"


@dataclass
class Clumsy:
    """Makes two calls of one name at once: only an operator's cancel ends it."""

    order: str

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        shop.saw(
            await workflow.step(shop.payments.charge, self.order, 1).undo(
                shop.payments.refund
            )
        )
        await workflow.gather(
            workflow.step(shop.inventory.reserve, self.order).undo(
                shop.inventory.release
            ),
            workflow.step(shop.inventory.reserve, self.order).undo(
                shop.inventory.release
            ),
        )


@dataclass
class Stubborn:
    """Asks again and again, whatever comes, where a policy would do.

    Args:
        bare: Whether it catches everything, also what is to end it.
        pause_ms: Between two tries; none if negative.
    """

    order: str
    bare: bool
    pause_ms: int

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        while True:
            try:
                held = await workflow.step(shop.inventory.reserve, self.order).undo(
                    shop.inventory.release
                )
                shop.saw(held)
                paid = await workflow.step(shop.payments.charge, self.order, 12).undo(
                    shop.payments.refund
                )
                shop.saw(paid)
            except BaseException as error:
                if isinstance(error, Refused | GeneratorExit):
                    raise
                if not self.bare and not isinstance(error, Exception):
                    raise
                if self.pause_ms >= 0:
                    with contextlib.suppress(asyncio.CancelledError):
                        await asyncio.sleep(self.pause_ms / 1000)
            else:
                return paid.number
