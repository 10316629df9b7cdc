"""Who orders, who waits, who goes away, and who cancels and retries.

Clients outlive processes: what was ordered in one life is asked for in the next, by its
key where it has one. Nobody here knows more than the coordinator told them.
"""

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import msgspec
from tests.simulation.careless import Clumsy
from tests.simulation.commands import AnyCommand, Keyed, draw_command
from tests.simulation.history import History
from tests.simulation.plan import LifePlan, Plan
from tests.simulation.shop import Shop

from coordinator import Coordinator, CoordinatorError, Handle, Refused
from coordinator.errors import WorkflowCancelledError, WorkflowStuckError
from coordinator.runs import WorkflowInfo

__all__ = ["AGAIN_S", "LAST_SPAN_S", "Clients", "Order"]

LAST_ORDERS = 6
LAST_SPAN_S = 0.5
"""How many orders come when all is healed, and in how many virtual seconds."""
AGAIN_S = 1.0
"""Virtual seconds within which who has a key may order a second time."""


@dataclass
class Order:
    """Something that a client wants, once."""

    command: AnyCommand
    workflow: str = ""
    """As far as it was acknowledged."""
    ended: bool = False

    @property
    def name(self) -> str:
        return self.command.order

    @property
    def keyed(self) -> bool:
        return isinstance(self.command, Keyed)


@dataclass
class Clients:
    """All clients and operators of a seed."""

    plan: Plan
    history: History
    orders: list[Order] = field(default_factory=list[Order])

    def __post_init__(self) -> None:
        self._chance = random.Random(f"{self.plan.seed}/clients")
        self._coordinator: Coordinator[Shop] | None = None
        self._waiting = 0
        self._left_alone = False

    async def live(
        self, coordinator: Coordinator[Shop], life: LifePlan | None, until: Any
    ) -> None:
        """Order, wait and operate, until *until* is done; None is the healed life."""
        self._coordinator = coordinator
        self._waiting = 0  # those of the life before are dead
        self._left_alone = False
        chance = self._chance
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as group:
            purges = life is not None and life.purges
            operating = self._operate(healed=life is None, purges=purges)
            tasks = [group.create_task(operating)]
            for order in self._old_orders(life):
                delay_s = 0.0 if life is None else chance.uniform(0, life.span_s)
                tasks.append(group.create_task(self._order(order, delay_s)))
            number = life.number if life is not None else len(self.plan.lives)
            span_s = life.span_s if life is not None else LAST_SPAN_S
            for count in range(life.orders if life is not None else LAST_ORDERS):
                shape = chance.choice(self.plan.shapes)
                order = Order(draw_command(shape, f"o{number}-{count}", chance))
                self.orders.append(order)
                at_s = chance.choice((0.0, chance.uniform(0, span_s)))
                tasks += self._place(group, order, at_s)
            for task in tasks[1:]:
                if chance.random() < self.plan.vanish:
                    loop.call_later(chance.uniform(0, 2 * span_s), task.cancel)
            await until
            self.history.add("clients.left", waiting=self._waiting)
            for task in tasks:
                task.cancel()

    def leave_alone(self) -> None:
        """Ask for nothing more: the coordinator is about to be closed."""
        self._left_alone = True

    def _place(
        self, group: asyncio.TaskGroup, order: Order, at_s: float
    ) -> list[asyncio.Task[None]]:
        """Order once; a key also, now and then, twice at nearly the same time."""
        chance = self._chance
        tasks = [group.create_task(self._order(order, at_s))]
        while order.keyed and chance.random() < 0.5:
            later_s = (
                at_s + chance.choice((0.0, 0.001, 0.05, AGAIN_S)) * chance.random()
            )
            tasks.append(group.create_task(self._order(order, later_s)))
        if chance.random() < self.plan.cancel:
            after_s = chance.choice((0.001, 0.1, 3.0, 15.0)) * chance.random()
            tasks.append(group.create_task(self._cancel(order, at_s + after_s)))
        return tasks

    def _old_orders(self, life: LifePlan | None) -> list[Order]:
        keyed = [order for order in self.orders if order.keyed]
        if life is None:
            return keyed
        share = self.plan.asks_again
        return [order for order in keyed if self._chance.random() < share]

    async def _order(self, order: Order, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        if self._left_alone:
            return
        self._waiting += 1
        try:
            await self._submit(order)
        finally:
            self._waiting -= 1

    async def _submit(self, order: Order) -> None:
        history = self.history
        history.add("submit.begin", order=order.name, type=type(order.command).__name__)
        assert self._coordinator is not None
        try:
            handle: Handle[Any] = await self._coordinator.submit(order.command)
        except CoordinatorError as error:
            history.add("submit.failed", order=order.name, error=repr(error))
            return
        order.workflow = handle.id
        history.add("submit.acked", order=order.name, workflow=handle.id)
        await self._wait(order, handle)

    async def _wait(self, order: Order, handle: Handle[Any]) -> None:
        while not await self._ask(order, handle):
            pass

    async def _ask(self, order: Order, handle: Handle[Any]) -> bool:
        """Wait for a result; False if it is worth asking again."""
        history = self.history
        status, value = "completed", None
        try:
            # As the journal would say it: dataclasses and tuples become plain.
            value = msgspec.to_builtins(await handle.result())
        except Refused as refusal:
            status, value = "refused", [type(refusal).__name__, refusal.reason]
        except WorkflowCancelledError as error:
            status, value = "cancelled", error.reason
        except WorkflowStuckError as error:
            status, value = "stuck", error.reason
        except CoordinatorError as error:
            history.add("result.lost", order=order.name, error=repr(error))
            return True
        order.ended = status != "stuck"
        history.add("result.seen", workflow=handle.id, status=status, value=value)
        return order.ended

    async def _cancel(self, order: Order, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        assert self._coordinator is not None
        if not order.workflow or order.ended:
            return
        await self._act(order.workflow, cancel=True)

    async def _operate(self, *, healed: bool, purges: bool) -> None:
        """Retry what is stuck: sometimes, and always once all is healed.

        Args:
            healed: All is.
            purges: At the first look, nearly all that there is is cancelled.
        """
        coordinator = self._coordinator
        assert coordinator is not None
        tries: Counter[str] = Counter()
        # The first look may come while what runs again is not yet where it was.
        pause_s = 1.0 if healed else self._chance.choice((0.0, 0.1, 1.0))
        while True:
            await asyncio.sleep(pause_s)
            if self._left_alone:
                return
            pause_s = 1.0
            for info in coordinator.workflows():
                if purges and self._chance.random() < 0.8:
                    await self._act(info.id, cancel=True)
                elif healed and info.status == "stuck":
                    tries[info.id] += 1
                    await self._act(info.id, cancel=_is_hopeless(info, tries))
                elif not healed and self._chance.random() < 0.3:
                    cancel = self._chance.random() < self.plan.cancel
                    if cancel or info.status == "stuck":
                        await self._act(info.id, cancel=cancel)
            purges = False

    async def _act(self, workflow: str, *, cancel: bool) -> None:
        coordinator = self._coordinator
        assert coordinator is not None
        if self._left_alone:
            return
        what = "cancel" if cancel else "retry"
        self.history.add(f"operator.{what}", workflow=workflow)
        try:
            if cancel:
                await coordinator.cancel(workflow, by="ops", reason="drawn")
            else:
                await coordinator.retry(workflow, by="ops")
        except CoordinatorError as error:
            self.history.add("operator.failed", workflow=workflow, error=repr(error))
        else:
            self.history.add("operator.done", workflow=workflow, what=what)


def _is_hopeless(info: WorkflowInfo, tries: Counter[str]) -> bool:
    """Say whether no retry helps: the code is wrong and stays wrong."""
    return info.type == Clumsy.__name__ and tries[info.id] == 3
