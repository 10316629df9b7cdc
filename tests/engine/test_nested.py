"""Commands whose steps execute commands of the same coordinator."""

import asyncio
from dataclasses import dataclass
from typing import Any, ClassVar

from tests.engine.support import KeepingJournal, Shop, make, run, until

from coordinator import CommandBlocked, Coordinator, Workflow

PLACES = 3


class Family(Shop):
    """A shop whose steps may have commands run."""

    coordinator: Coordinator[Any]

    async def have_paid(self, number: int) -> int:
        return await self.coordinator.execute(Child(number))

    async def have_asked(self, depth: int, number: int) -> int:
        return await self.coordinator.execute(Generation(depth, number))


@dataclass
class Parent:
    """Waits in a step for a command of its own."""

    number: int
    services: ClassVar = frozenset[str]()

    async def exec(self, workflow: Workflow, family: Family) -> int:
        return await workflow.step(family.have_paid, self.number)


@dataclass
class Child:
    """Pays."""

    number: int
    services: ClassVar = frozenset({"payments"})

    def key(self) -> str:
        return f"child-{self.number}"

    async def exec(self, workflow: Workflow, family: Family) -> int:
        await workflow.step(family.payments.do, self.number)
        return self.number


@dataclass
class Generation:
    """Waits for the next generation, if there is one."""

    depth: int
    number: int
    services: ClassVar = frozenset[str]()

    def key(self) -> str:
        return f"{self.depth}-{self.number}"

    async def exec(self, workflow: Workflow, family: Family) -> int:
        if not self.depth:
            return self.number
        return await workflow.step(family.have_asked, self.depth - 1, self.number)


async def execute_all(
    coordinator: Coordinator[Family], *commands: Parent | Generation
) -> list[int]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(coordinator.execute(one)) for one in commands]
    return [task.result() for task in tasks]


async def submit_all(
    coordinator: Coordinator[Family], *commands: Parent | Generation
) -> None:
    """Submit them in one turn of the loop: before any of them has a step."""
    async with asyncio.TaskGroup() as group:
        for command in commands:
            group.create_task(coordinator.submit(command))


def made(family: Family, journal: KeepingJournal | None = None) -> Coordinator[Family]:
    family.coordinator = make(
        family,
        Parent,
        Child,
        Generation,
        journal=journal,
        commands_max=PLACES,
    )
    return family.coordinator


def test_commands_that_wait_for_commands_of_their_own_hold_no_place_of_these() -> None:
    family = Family()

    async def main() -> None:
        async with made(family) as coordinator:
            numbers = await execute_all(coordinator, *map(Parent, range(10)))
            assert numbers == list(range(10))

    run(main())


def test_beyond_the_limit_only_steps_get_in() -> None:
    family = Family()
    family.payments.script = [10.0] * PLACES

    async def main() -> None:
        async with made(family) as coordinator, asyncio.TaskGroup() as group:
            for number in range(10):
                group.create_task(coordinator.execute(Parent(number)))
            await until(lambda: len(family.payments.calls) == PLACES)
            types = sorted(info.type for info in coordinator.workflows())
            assert types == ["Child"] * PLACES + ["Parent"] * PLACES

    run(main())


def test_they_go_on_after_a_restart_in_which_they_are_all_there() -> None:
    family, journal = Family(), KeepingJournal()
    family.payments.script = [1_000.0] * PLACES

    async def main() -> None:
        async with made(family, journal) as coordinator:
            await submit_all(coordinator, *map(Parent, range(PLACES)))
            await until(lambda: len(family.payments.calls) == PLACES)
        family.payments.script.clear()
        async with made(family, journal) as coordinator:
            assert len(coordinator.workflows()) == 2 * PLACES
            await until(lambda: not coordinator.workflows())
        assert len(family.payments.done) == PLACES

    run(main())


def test_one_that_waits_for_a_suspended_service_comes_in_when_it_answers() -> None:
    family = Family()
    blocked = CommandBlocked("payments")
    family.payments.script = [blocked] * 5

    async def main() -> None:
        async with made(family) as coordinator:
            numbers = await execute_all(coordinator, *map(Parent, range(PLACES)))
            assert numbers == list(range(PLACES))

    run(main())


def test_at_twice_the_limit_a_step_is_told_what_holds_the_places_and_what_to_do() -> (
    None
):
    family = Family()

    async def main() -> None:
        async with made(family) as coordinator:
            await submit_all(coordinator, *(Generation(2, n) for n in range(PLACES)))
            await until(lambda: any(info.reason for info in coordinator.workflows()))
            assert len(coordinator.workflows()) == 2 * PLACES
            reason = next(i.reason for i in coordinator.workflows() if i.reason)
            assert "6 commands are in memory, twice as many as may come in" in reason
            assert "raise Options.commands_max" in reason

    run(main())
