"""Several steps of one run of which nobody knows: each of them counts, and waits."""

import asyncio
from dataclasses import dataclass

import pytest
from tests.engine.support import Answer, Receipt, Service, Shop, make, run, until

from coordinator import (
    CommandBlocked,
    CommandDelayed,
    Retry,
    Step,
    Workflow,
    WorkflowStuckError,
)

TEN_S = Retry(first_s=10.0, factor=1.0, jitter=0.0, attempts_max=3)


class Noting(Service):
    """Notes the second of each call."""

    def __init__(self, name: str, script: list[Answer], called_s: list[int]) -> None:
        super().__init__(name, script)
        self.called_s = called_s

    async def do(self, amount: int = 0) -> Receipt:
        self.called_s.append(round(asyncio.get_running_loop().time()))
        return await super().do(amount)


class Stock(Shop):
    """Its inventory and payments note when they are called."""

    def __init__(self, *, inventory: list[Answer], payments: list[Answer]) -> None:
        super().__init__()
        self.held_s: list[int] = []
        self.paid_s: list[int] = []
        self.inventory: Service = Noting("inventory", inventory, self.held_s)
        self.payments: Service = Noting("payments", payments, self.paid_s)


@dataclass
class Hold:
    """Asks the inventory alone."""

    async def exec(self, workflow: Workflow, shop: Stock) -> None:
        await workflow.step(shop.inventory.do)


@dataclass
class Both:
    """Asks the inventory and payments, side by side."""

    async def exec(self, workflow: Workflow, shop: Stock) -> None:
        async with asyncio.TaskGroup() as group:
            for service in (shop.inventory, shop.payments):
                group.create_task(_ask(workflow.step(service.do)))


@dataclass
class Beside:
    """Asks the inventory in a task, and payments, with a policy, in `exec`'s own."""

    policy: Retry

    async def exec(self, workflow: Workflow, shop: Stock) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(_ask(workflow.step(shop.inventory.do)))
            await asyncio.sleep(0)
            await workflow.step(shop.payments.do).retry(self.policy)


async def _ask(step: Step[Receipt]) -> None:
    await step


def blocked(at_s: float) -> Answer:
    return (at_s, CommandBlocked("inventory"))


@pytest.mark.parametrize("payments_s", [3.0, 0.5], ids=["last", "first"])
def test_what_failed_beside_a_block_waits_its_time_when_the_service_answers(
    payments_s: float,
) -> None:
    # `Hold` is blocked at 1, and gets through at 11; `Both` is blocked at 2.
    shop = Stock(
        inventory=[blocked(1.0), blocked(2.0)],
        payments=[(payments_s, CommandDelayed("no answer"))],
    )

    async def main() -> float:
        async with make(shop, Hold, Both, retry=TEN_S) as coordinator:
            one = await coordinator.submit(Hold())
            both = await coordinator.submit(Both())
            await one.result()
            await both.result()
            return asyncio.get_running_loop().time()

    run(main())
    ended_s = max(payments_s, 2.0)  # the run's end, from which on it waits
    assert shop.held_s == [0, 0, 11, round(ended_s + 10)]
    assert shop.paid_s == [0, round(ended_s + 10)]


def test_who_was_only_blocked_goes_on_as_soon_as_the_service_answers() -> None:
    shop = Stock(inventory=[blocked(1.0), blocked(2.0)], payments=[3.0])

    async def main() -> None:
        async with make(shop, Hold, Both, retry=TEN_S) as coordinator:
            one = await coordinator.submit(Hold())
            both = await coordinator.submit(Both())
            await one.result()
            await both.result()

    run(main())
    assert shop.held_s == [0, 0, 11, 11]
    assert shop.paid_s == [0]


def test_what_waits_its_time_keeps_no_try_from_others() -> None:
    """`Both` may not start yet when the service answers: another one may at once."""
    shop = Stock(
        inventory=[blocked(1.0), blocked(2.0), blocked(3.0)],
        payments=[(4.0, CommandDelayed("no answer"))],
    )

    async def main() -> None:
        async with make(shop, Hold, Both, retry=TEN_S, probes=1) as coordinator:
            first = await coordinator.submit(Hold())
            both = await coordinator.submit(Both())
            last = await coordinator.submit(Hold())
            await first.result()
            await last.result()
            await both.result()

    run(main())
    assert shop.held_s == [0, 0, 0, 11, 11, 14]


@pytest.mark.parametrize(
    "inventory",
    [CommandDelayed("no answer"), CommandBlocked("inventory")],
    ids=["delayed", "blocked"],
)
def test_a_step_that_always_fails_second_comes_to_its_limit(
    inventory: BaseException,
) -> None:
    bug = RuntimeError("a bug in payments")
    shop = Stock(inventory=[inventory] * 9, payments=[(1.0, bug)] * 9)

    async def main() -> None:
        async with make(shop, Both, retry=TEN_S) as coordinator:
            with pytest.raises(WorkflowStuckError) as stuck:
                await coordinator.execute(Both())
            assert "payments.do failed 3 times, last: RuntimeError" in str(stuck.value)

    run(main())
    assert len(shop.payments.calls) == 3


def test_a_bug_in_what_came_second_is_told_at_once() -> None:
    class Odd(Service):
        async def do(self, amount: int = 0) -> Receipt:
            await super().do(amount)
            return object()  # type: ignore[return-value] # the bug

    shop = Stock(inventory=[CommandDelayed("no answer")], payments=[])
    shop.payments = Odd("payments", [1.0])

    async def main() -> None:
        async with make(shop, Both, retry=TEN_S) as coordinator:
            with pytest.raises(WorkflowStuckError, match=r"payments\.do: "):
                await coordinator.execute(Both())

    run(main())
    assert len(shop.payments.calls) == 1


def test_a_block_that_comes_second_suspends_the_service() -> None:
    shop = Stock(
        inventory=[blocked(2.0)], payments=[(1.0, CommandDelayed("no answer"))]
    )

    async def main() -> None:
        async with make(shop, Both, retry=TEN_S) as coordinator:
            both = await coordinator.submit(Both())
            await until(lambda: coordinator.engine.suspended)
            assert list(coordinator.engine.suspended) == ["inventory"]
            await both.result()
            assert not coordinator.engine.suspended

    run(main())


def test_a_call_that_a_group_cut_off_since_another_failed_is_not_counted() -> None:
    shop = Stock(inventory=[(1.0, CommandDelayed("no answer"))] * 3, payments=[5.0] * 3)
    once = Retry(first_s=10.0, factor=1.0, jitter=0.0, delays_max=1)

    async def main() -> None:
        async with make(shop, Beside, retry=TEN_S) as coordinator:
            await coordinator.execute(Beside(once))

    run(main())
    assert len(shop.payments.calls) > 1
