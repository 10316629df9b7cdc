"""Steps at the same time: gather, TaskGroup, keys, and what is not allowed."""

import asyncio
from dataclasses import dataclass

import pytest
from tests.engine.support import KeepingJournal, Receipt, Shop, make, run

from coordinator import (
    CommandDelayed,
    Refused,
    Step,
    Workflow,
    WorkflowStuckError,
)
from coordinator.records import Started


@dataclass
class Both:
    """Two services at once."""

    async def exec(self, workflow: Workflow, shop: Shop) -> list[str]:
        held, paid = await workflow.gather(
            workflow.step(shop.inventory.do).undo(shop.inventory.undo),
            workflow.step(shop.payments.do).undo(shop.payments.undo),
        )
        return [held.service, paid.service]


def test_gathered_steps_run_at_the_same_time() -> None:
    shop = Shop()
    shop.inventory.script = [10.0]
    shop.payments.script = [10.0]

    async def main() -> float:
        async with make(shop, Both) as coordinator:
            start_s = asyncio.get_running_loop().time()
            assert await coordinator.execute(Both()) == ["inventory", "payments"]
            return asyncio.get_running_loop().time() - start_s

    assert 10.0 <= run(main()) < 11.0


def test_gather_waits_for_all_and_then_raises_the_refusal() -> None:
    shop = Shop()
    shop.inventory.script = [Refused("none left")]
    shop.payments.script = [10.0]

    async def main() -> None:
        async with make(shop, Both) as coordinator:
            with pytest.raises(Refused, match="none left"):
                await coordinator.execute(Both())

    run(main())
    assert shop.world == ["do payments 0", "undo payments"]


def test_gathered_steps_are_replayed_in_any_mixture_of_known_and_unknown() -> None:
    shop = Shop()
    shop.inventory.script = [CommandDelayed("busy")]

    async def main() -> None:
        async with make(shop, Both) as coordinator:
            assert await coordinator.execute(Both()) == ["inventory", "payments"]

    run(main())
    assert len(shop.payments.calls) == 1
    assert len(shop.inventory.calls) == 2


def test_calls_at_the_same_time_are_named_in_the_journal_before_they_are_made() -> None:
    journal = KeepingJournal()

    async def main() -> None:
        async with make(Shop(), Both, journal=journal) as coordinator:
            await coordinator.execute(Both())

    run(main())
    started = [record for record in journal.records if isinstance(record, Started)]
    assert [record.steps for record in started] == [
        (("inventory.do", 0),),
        (("payments.do", 0),),
    ]


@dataclass
class Twice:
    """Calls one service twice at once, with or without telling the calls apart."""

    keyed: bool

    async def exec(self, workflow: Workflow, shop: Shop) -> list[int]:
        steps = [workflow.step(shop.payments.do, n) for n in range(2)]
        if self.keyed:
            steps = [
                step.named("payments.do", key=str(n)) for n, step in enumerate(steps)
            ]
        receipts = await workflow.gather(*steps)
        return [receipt.number for receipt in receipts]


def test_two_steps_of_one_name_at_once_are_refused_with_the_remedy() -> None:
    shop = Shop()
    shop.payments.script = [1.0]

    async def main() -> None:
        async with make(shop, Twice) as coordinator:
            with pytest.raises(WorkflowStuckError, match=r"\.named\('payments\.do', k"):
                await coordinator.execute(Twice(keyed=False))

    run(main())


def test_two_steps_of_one_name_and_two_keys_may_run_at_once() -> None:
    shop = Shop()

    async def main() -> list[int]:
        async with make(shop, Twice) as coordinator:
            return await coordinator.execute(Twice(keyed=True))

    assert sorted(run(main())) == [0, 1]
    assert [key.split("/", 2)[2] for key in shop.payments.calls] == [
        "payments.do[0]/0",
        "payments.do[1]/0",
    ]


@dataclass
class Grouped:
    """A TaskGroup, two tasks of which are refused."""

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        async with asyncio.TaskGroup() as group:
            for service in (shop.inventory, shop.payments, shop.shipping):
                step = workflow.step(service.do).undo(service.undo)
                group.create_task(_ask(step))


async def _ask(step: Step[Receipt]) -> None:
    await step


def test_refusals_in_a_task_group_are_a_refusal() -> None:
    shop = Shop()
    shop.inventory.script = [(2.0, Refused("second"))]
    shop.payments.script = [(1.0, Refused("first"))]

    async def main() -> None:
        async with make(shop, Grouped) as coordinator:
            with pytest.raises(Refused, match="first"):
                await coordinator.execute(Grouped())

    run(main())
    assert shop.world == ["do shipping 0", "undo shipping"]


@dataclass
class Impatient:
    """Puts a time-out of its own around a step."""

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        async with asyncio.timeout(1.0):
            await workflow.step(shop.payments.do).undo(shop.payments.undo)
        return "done"


def test_a_step_cut_off_by_the_users_own_time_out_is_unknown() -> None:
    shop = Shop()
    shop.payments.script = [5.0]

    async def main() -> str:
        async with make(shop, Impatient) as coordinator:
            return await coordinator.execute(Impatient())

    assert run(main()) == "done"
    assert len(shop.payments.calls) == 2
    assert len(set(shop.payments.calls)) == 1


@dataclass
class Lambda:
    """Gives a lambda as a step."""

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(lambda: None)


def test_a_lambda_is_no_step() -> None:
    async def main() -> None:
        async with make(Shop(), Lambda) as coordinator:
            with pytest.raises(WorkflowStuckError, match="a lambda can't be a step"):
                await coordinator.execute(Lambda())

    run(main())
