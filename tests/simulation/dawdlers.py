"""What is ordered by code whose own awaits take another time in every run.

Which step comes first, and which is reached at all, then differs from run to run: what
was called in one may not be asked for in the next before `exec` is told of a refusal.
See `commands` for what they have in common with the others.

`Fork` is code of which one thing is not promised: if the process dies while `exec`
waits for a call alone, and the next run does not ask for it, its effect stays. See
`effects.FORGETFUL`.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from tests.simulation.services import Reply
from tests.simulation.shop import Shop

from coordinator.workflow import Workflow

__all__ = ["Branches", "Fork", "Leaky", "Listening", "Pausing", "Sprint"]

Ask: TypeAlias = Callable[[], Any]


def _steps(order: str, workflow: Workflow, shop: Shop) -> list[Ask]:
    return [
        lambda: workflow.step(shop.inventory.reserve, order).undo(
            shop.inventory.release
        ),
        lambda: workflow.step(shop.payments.charge, order, 11).undo(
            shop.payments.refund
        ),
        lambda: workflow.step(shop.ledger.post, order).undo(shop.ledger.unpost),
        lambda: workflow.step(shop.shipping.book, order).undo(shop.shipping.unbook),
    ]


async def _take(shop: Shop, step: Ask) -> Reply:
    reply: Reply = await step()
    shop.saw(reply)
    return reply


@dataclass
class Pausing:
    """One step after another, and something else that takes time before each."""

    order: str

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        for step in _steps(self.order, workflow, shop):
            await shop.dawdle(times=20)
            await _take(shop, step)


@dataclass
class Branches:
    """Two branches of two steps each.

    Args:
        how: ``group``, which cancels what is left when one is refused, or ``gather``,
            which lets it run on.
    """

    order: str
    how: str

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        first, second, third, fourth = _steps(self.order, workflow, shop)
        branches = [
            self._branch(shop, first, third),
            self._branch(shop, second, fourth),
        ]
        if self.how == "gather":
            await asyncio.gather(*branches)  # noqa: TID251 -- as users do
            return
        async with asyncio.TaskGroup() as group:
            for branch in branches:
                group.create_task(branch)

    async def _branch(self, shop: Shop, *steps: Ask) -> None:
        for step in steps:
            await shop.dawdle()
            await _take(shop, step)


@dataclass
class Fork:
    """One branch in a task of its own, the other one in that of `exec`."""

    order: str

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        first, second, _, _ = _steps(self.order, workflow, shop)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._branch(shop, first))
            await self._branch(shop, second)

    async def _branch(self, shop: Shop, step: Ask) -> None:
        await shop.dawdle()
        await _take(shop, step)


@dataclass
class Sprint:
    """A race that another one may win in the next run.

    Args:
        refuses: Whether it refuses by itself, having looked at who won.
    """

    order: str
    refuses: bool

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        first, second, third, _ = _steps(self.order, workflow, shop)
        await _take(shop, third)
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(self._run(shop, step)) for step in (first, second)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
        winners = [task.result() for task in tasks if task in done]
        if self.refuses:
            raise shop.declined(f"{len(winners)} won")
        return "won"

    async def _run(self, shop: Shop, step: Ask) -> Reply:
        await shop.dawdle()
        return await _take(shop, step)


@dataclass
class Leaky:
    """Leaves a task behind, which asks for a step when `exec` is over, or never."""

    order: str

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        first, second, third, fourth = _steps(self.order, workflow, shop)
        reply = await _take(shop, first)
        shop.leak(self._forgotten(shop, fourth))
        await _take(shop, second)
        await _take(shop, third)
        return reply.number

    async def _forgotten(self, shop: Shop, step: Ask) -> None:
        await shop.dawdle(times=10)
        await _take(shop, step)


@dataclass
class Listening:
    """Waits for somebody who keeps no more than a weak reference to who waits.

    Who runs it has to keep it: it and what it waits for are held by nobody else.
    """

    order: str
    news_ms: int

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        first, second, _, _ = _steps(self.order, workflow, shop)
        await _take(shop, first)
        listener = shop.listen(self.news_ms / 1000)
        await listener.news
        await _take(shop, second)
