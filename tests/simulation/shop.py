"""The shop: what commands call, as one life of the process sees it.

Shipping is asked through a gateway, with a circuit breaker and a limit of calls, where
the seed says so; what it lets through and turns away is written down beside what the
service gets.
"""

import asyncio
import itertools
import weakref
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from tests.simulation.services import (
    PAUSES_S,
    Calls,
    DeclinedError,
    Reply,
    Service,
    World,
    hash_of,
)

from cmdstream.breaker import BreakerOptions
from coordinator.context import current_step
from coordinator.errors import CommandBlocked, CommandDelayed, Refused
from coordinator.gateways.base import Gateway, GatewayError
from coordinator.testing.loop import Life

__all__ = ["GatewayPlan", "Shop"]


@dataclass(frozen=True)
class GatewayPlan:
    """How shipping is asked."""

    timeout_s: float
    calls_max: int
    fail: float
    """Chance, per call, that it fails, until all is healed."""
    breaker: BreakerOptions


class Inventory(Service):
    """Reserves things."""

    async def reserve(self, _order: str, _item: str = "") -> Reply:
        return await self._call("reserve")

    async def release(self, reply: Reply) -> None:
        await self._call("release", reply)


class Payments(Service):
    """Charges money."""

    async def charge(self, _order: str, _cents: int) -> Reply:
        return await self._call("charge")

    async def refund(self, reply: Reply) -> None:
        await self._call("refund", reply)


class Shipping(Service):
    """Books parcels, and prints labels, which can't be undone."""

    def __init__(
        self, world: World, life: Life, calls: Calls, plan: GatewayPlan | None
    ) -> None:
        super().__init__("shipping", world, life, calls)
        self._numbers = itertools.count()
        self._gateway: Gateway | None = None
        if plan is not None:
            self.fail = plan.fail
            self._gateway = Gateway(
                self.name,
                timeout_s=plan.timeout_s,
                calls_max=plan.calls_max,
                breaker=plan.breaker,
                clock=world.history.now_s,
            )

    async def book(self, _order: str) -> Reply:
        return await self._pass("book")

    async def unbook(self, reply: Reply) -> None:
        await self._pass("unbook", reply)

    async def label(self, _order: str) -> Reply:
        return await self._pass("label")

    async def _pass(self, operation: str, undoes: Reply | None = None) -> Reply:
        """Call through the gateway, if there is one; write down what it makes of it."""
        gateway = self._gateway
        if gateway is None:
            return await self._call(operation, undoes)
        history, workflow = self._world.history, current_step().workflow_id
        number = next(self._numbers)
        passed = False
        fate = "nothing"

        async def call(_step: object) -> Reply:
            nonlocal passed
            passed = True
            self._life.check()
            history.add("gate.passes", call=number, now_s=history.now_s())
            return await self._call(operation, undoes)

        try:
            reply = await gateway.call(call)
            fate = "success"
        except Refused:
            fate = "success"
            raise
        except CommandBlocked:
            if not passed:
                history.add("gate.turns_away", workflow=workflow, now_s=history.now_s())
            raise
        except (CommandDelayed, GatewayError):
            fate = "failure"
            raise
        else:
            return reply
        finally:
            if self._life.alive and passed:
                history.add("gate.ends", call=number, now_s=history.now_s(), fate=fate)


class Listener:
    """Waits for news. Whoever brings them knows it by a weak reference only."""

    def __init__(self) -> None:
        self.news: asyncio.Future[None] = asyncio.get_running_loop().create_future()


class Ledger(Service):
    """Posts entries; plain functions, which run in threads."""

    def post(self, _order: str) -> Reply:
        return self._call_now("post")

    def unpost(self, reply: Reply) -> None:
        self._call_now("unpost", reply)


class Shop:
    """The receiver: the services as one life sees them."""

    def __init__(
        self, world: World, life: Life, calls: Calls, gateway: GatewayPlan | None
    ) -> None:
        self.world = world
        self.inventory = Inventory("inventory", world, life, calls)
        self.payments = Payments("payments", world, life, calls)
        self.shipping = Shipping(world, life, calls, gateway)
        self.ledger = Ledger("ledger", world, life, calls)
        self._life = life
        self._leaked: dict[asyncio.Task[None], None] = {}
        self._listeners: weakref.WeakValueDictionary[int, Listener] = (
            weakref.WeakValueDictionary()
        )
        self._numbers = itertools.count()

    def saw(self, reply: Reply) -> None:
        """Note that `exec` goes on with *reply*."""
        if self._life.alive:
            self.world.history.add("exec.saw", key=reply.key, number=reply.number)

    async def dawdle(self, times: int = 1) -> None:
        """Take a time of its own, another one in every run."""
        pause_s = self.world.pauses.choice(PAUSES_S)
        if pause_s is not None:
            await asyncio.sleep(pause_s * times)

    def listen(self, seconds: float) -> Listener:
        """Return a listener that has news in so many seconds, if it is still there."""
        listener, number = Listener(), next(self._numbers)
        self._listeners[number] = listener
        asyncio.get_running_loop().call_later(seconds, self._tell, number)
        return listener

    def _tell(self, number: int) -> None:
        listener = self._listeners.get(number)
        if listener is not None and not listener.news.done():
            listener.news.set_result(None)

    def leak(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task that nobody waits for, and whose end nobody looks at."""
        task = asyncio.get_running_loop().create_task(work)
        self._leaked[task] = None

        def forget(done: asyncio.Task[None]) -> None:
            del self._leaked[done]
            if not done.cancelled():
                done.exception()

        task.add_done_callback(forget)

    def declined(self, reason: str) -> DeclinedError:
        """Return a refusal of the command's own."""
        return DeclinedError(reason, 13)

    def patience_s(self, timeout_ms: int) -> float:
        """Return a time-out that a healed service meets."""
        return 60.0 if self.world.healed else timeout_ms / 1000

    def has_a_bad_day(self, order: str) -> bool:
        """Say whether `exec`'s own code fails now: until all is healed, by order."""
        return not self.world.healed and hash_of(self.world.seed, order) % 2 == 0
