"""More is offered than can be done: who is let in, and who is not kept out by it."""

import asyncio
from dataclasses import dataclass

import pytest
from tests.engine.support import KeepingJournal, Shop, make, run, until

from coordinator import NotAcceptedError, Workflow
from coordinator.batch import Batch
from coordinator.journals.memory import MemoryPartition
from coordinator.pace import FIRST
from coordinator.records import Accepted, Finished
from coordinator.testing.loop import SimulatedLoop

COMPUTE_S = 2e-4  # of the loop, per record


class Busy(Shop):
    """A shop whose steps take time from the loop, as all computing does."""

    def compute(self) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        loop._now_s += COMPUTE_S

    async def step(self, number: int) -> int:
        self.compute()
        return number


@dataclass
class Work:
    """Three steps that compute."""

    number: int

    async def exec(self, workflow: Workflow, shop: Busy) -> float:
        for _ in range(3):
            await workflow.step(shop.step, self.number)
        return asyncio.get_running_loop().time()


@dataclass
class Ship:
    """A step that takes as long as the service does."""

    number: int

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        return (await workflow.step(shop.shipping.do)).number


class SlowJournal(KeepingJournal):
    """A journal whose writes take a time."""

    def __init__(self, write_s: float) -> None:
        super().__init__()
        self.write_s = write_s

    async def open(self, partition: int, *, owner: str, at: int) -> MemoryPartition:
        """Open, and have each write take its time."""
        opened = await super().open(partition, owner=owner, at=at)
        write = opened.write

        async def write_slowly(batch: Batch) -> None:
            await asyncio.sleep(self.write_s)
            await write(batch)

        setattr(opened, "write", write_slowly)  # noqa: B010 -- one instance's method
        return opened


def test_what_is_let_in_is_done_soon_however_many_wait() -> None:
    journal = SlowJournal(7e-4)
    taken: list[float] = []
    unended_max = 0

    async def one(number: int) -> None:
        nonlocal unended_max
        handle = await coordinator.submit(Work(number))
        came_in_s = asyncio.get_running_loop().time()
        unended_max = max(unended_max, coordinator.engine.operators.count()[0])
        taken.append(await handle.result() - came_in_s)

    async def main() -> None:
        async with coordinator:
            for number in range(20):
                await one(number)
            alone_s = max(taken)
            taken.clear()
            begin_s = asyncio.get_running_loop().time()
            async with asyncio.TaskGroup() as group:
                for number in range(6_000):
                    group.create_task(one(number))
            settled = sorted(taken[3_000:])
            assert settled[len(settled) * 99 // 100] < 10 * alone_s
            # That is what the loop takes for them, and a fifth for waiting on the disk.
            passed_s = asyncio.get_running_loop().time() - begin_s
            assert passed_s < 6_000 * 3 * COMPUTE_S * 1.2

    coordinator = make(Busy(), Work, journal=journal)
    run(main())
    assert unended_max < 10 * FIRST
    accepted = [r for r in journal.records if isinstance(r, Accepted)]
    assert len(accepted) == 6_020


def test_they_come_in_in_the_order_in_which_they_were_offered() -> None:
    shop, came_in = Busy(), list[int]()

    async def one(number: int) -> None:
        handle = await coordinator.submit(Work(number))
        came_in.append(number)
        await handle.result()

    async def main() -> None:
        async with coordinator, asyncio.TaskGroup() as group:
            for number in range(200):
                group.create_task(one(number))

    coordinator = make(shop, Work, journal=SlowJournal(0.01))
    run(main())
    assert came_in == list(range(200))


def test_thousands_that_wait_for_a_slow_service_keep_nobody_out() -> None:
    shop = Busy()
    shop.shipping.script = [30.0] * 2_000

    async def main() -> None:
        async with make(shop, Ship, Work) as coordinator:
            loop = asyncio.get_running_loop()
            begin_s = loop.time()
            async with asyncio.TaskGroup() as group:
                for number in range(2_000):
                    group.create_task(coordinator.submit(Ship(number)))
            assert len(coordinator.workflows()) == 2_000
            await coordinator.execute(Work(0))
            assert loop.time() - begin_s < 1.0
            await asyncio.sleep(31)
            assert coordinator.workflows() == []

    run(main())


def test_a_slow_disk_is_given_more_to_write_at_a_time() -> None:
    journal = SlowJournal(0.05)

    async def main() -> float:
        async with make(Busy(), Work, journal=journal) as coordinator:
            for number in range(100):
                await coordinator.execute(Work(number))
            begin_s = asyncio.get_running_loop().time()
            async with asyncio.TaskGroup() as group:
                for number in range(2_000):
                    group.create_task(coordinator.execute(Work(number)))
            return asyncio.get_running_loop().time() - begin_s

    passed_s = run(main())
    # Let in sixteen at a time, they would take twelve seconds for that alone.
    assert passed_s < 5


def test_beside_a_write_that_hangs_all_ends_once_it_returns() -> None:
    journal = SlowJournal(3.0)

    async def main() -> None:
        async with (
            make(Busy(), Work, journal=journal) as coordinator,
            asyncio.TaskGroup() as group,
        ):
            for number in range(50):
                group.create_task(coordinator.execute(Work(number)))

    run(main())
    assert sum(isinstance(record, Finished) for record in journal.records) == 50


def test_who_comes_to_a_full_disk_is_refused_at_once_however_many_are_coming_in(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def main() -> None:
        async with (
            make(Busy(), Work, journal=SlowJournal(10.0)) as coordinator,
            asyncio.TaskGroup() as group,
        ):
            for number in range(int(FIRST)):
                group.create_task(coordinator.submit(Work(number)))
            await asyncio.sleep(1)
            with monkeypatch.context() as patched:
                patched.setattr(MemoryPartition, "full", "disk full")
                with pytest.raises(NotAcceptedError, match="disk full"):
                    await coordinator.submit(Work(-1))
            assert asyncio.get_running_loop().time() < 2

    run(main())


def test_people_are_told_why_new_commands_wait() -> None:
    async def main() -> None:
        async with make(Busy(), Work, journal=SlowJournal(7e-4)) as coordinator:
            entrance = coordinator.engine.entrance
            assert entrance.busy == ""
            async with asyncio.TaskGroup() as group:
                for number in range(1_000):
                    group.create_task(coordinator.submit(Work(number)))
                await until(lambda: entrance.busy)
                assert "until one is durable" in entrance.busy
                assert entrance.closed == ""
            await until(lambda: not coordinator.workflows())
            assert entrance.busy == ""

    run(main())
