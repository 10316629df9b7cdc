"""Two servers started on one folder: one owns it, the other says who does.

    new:N        both at the same moment, on an empty folder
    race:N       both at the same moment, on a journal with work left to do
    stopped:N    the second while the first is stopped (SIGSTOP), which then goes on
    killed:N     the second when the first was killed a moment ago

**What it proves.** There is one owner at a time, also in the moment in which the
journal is made; whoever is not it has changed nothing, ends, and names the process that
is; a stopped owner is still the owner, and a killed one is not, at once.

**How it judges.** Exactly one of the two becomes ready. The other ends with the exit
code of a journal that can't be had, and one line that names the owner's process id, the
folder, and what to do. Orders are sent meanwhile; the history checker judges at the
end, and each claim must have a larger epoch than the one before.
"""

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

from tests.processes import Server
from tests.torture.checker import check
from tests.torture.evidence import read_evidence
from tests.torture.harness import Harness, Result
from tests.torture.world import World

from coordinator.cli.exits import ExitCode

__all__ = ["HARNESS"]

KINDS = ("new", "race", "stopped", "killed")


def _cases(count: int, _seed: int) -> Iterable[str]:
    return [f"{KINDS[number % len(KINDS)]}:{number}" for number in range(count)]


def _run(case: str, seed: int, folder: Path) -> Result:
    kind, _ = case.split(":")
    chance = random.Random(f"{seed}/{case}")
    violations = asyncio.run(_start_two(kind, folder, chance))
    violations += check(read_evidence(folder))
    return Result(violations, 1, Counter({kind: 1}))


async def _start_two(kind: str, folder: Path, chance: random.Random) -> list[str]:
    async with World.started(folder) as world:
        if kind == "race":
            await _leave_work(world)
        if kind in {"new", "race"}:
            violations = await _race(world)
        else:
            violations = await _second(world, kind, chance)
        await world.heal()
        return violations


async def _leave_work(world: World) -> None:
    async with world.server() as server, asyncio.TaskGroup() as group:
        shopping = group.create_task(world.customers.shop(server))
        await asyncio.wait({shopping}, timeout=0.1)
        server.kill()


async def _race(world: World) -> list[str]:
    async with AsyncExitStack() as stack:
        starts = [_try_to_start(world, stack) for _ in range(2)]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(start) for start in starts]
        found = [task.result() for task in tasks]
        ready = [server for server in found if isinstance(server, Server)]
        refused = [said for said in found if isinstance(said, str)]
        if len(ready) != 1:
            return [f"{len(ready)} of two became ready: {refused}"]
        await world.customers.order(ready[0])
        return list(_refusal_is_no_good(refused[0], ready[0].pid))


async def _second(world: World, kind: str, chance: random.Random) -> list[str]:
    async with AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        first = await stack.enter_async_context(world.server())
        shopping = group.create_task(world.customers.shop(first))
        await asyncio.wait({shopping}, timeout=chance.uniform(0.0, 0.3))
        if kind == "killed":
            first.kill()
        else:
            first.signal(signal.SIGSTOP)
        found = await _try_to_start(world, stack)
        if kind == "killed":
            if isinstance(found, str):
                return [f"the first was killed, and the second refused: {found}"]
            await world.customers.order(found)
            return []
        first.signal(signal.SIGCONT)
        await world.customers.order(first)
        first.kill()
        if isinstance(found, Server):
            return ["the first was stopped, and the second started"]
        return list(_refusal_is_no_good(found, first.pid))


async def _try_to_start(world: World, stack: AsyncExitStack) -> Server | str:
    try:
        return await stack.enter_async_context(world.server())
    except AssertionError as error:
        return str(error)


def _refusal_is_no_good(said: str, owner: int) -> Iterable[str]:
    for needed in (
        f"exit code {ExitCode.UNAVAILABLE:d}",
        f"pid {owner} ",
        "journal",
        "stop it",
    ):
        if needed not in said:
            yield f"{needed!r} is not in what was said: {said}"
    if "Traceback" in said:
        yield said


HARNESS = Harness("double", "second starts", _cases, _run, full=100, small=4)
