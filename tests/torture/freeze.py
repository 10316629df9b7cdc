"""SIGSTOP for longer than any time-out, then SIGCONT: of the server, of the services.

    server:N      the server is stopped under load; its customers wait
    services:N    the services are stopped; each step in flight runs into its time-out
    both:N        the server, and within its pause the services, which go on later

A step's call times out after `STEP_TIMEOUT_S`, a step after twice that; the pauses are
drawn from one and a half to three times the latter.

**What it proves.** A process that stands still, as under a debugger, a paused virtual
machine or a swapping one, is late and nothing else: time-outs that all expire in one
instant lose no outcome and start nothing twice, and what the services did while nobody
listened is asked for under the same keys.

**How it judges.** The customers' connections live through the pause, and answers come.
Then the server is killed, or stopped in order, and the history checker judges behind
the life that heals.
"""

import asyncio
import os
import random
import signal
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.processes import Server, eventually
from tests.torture.app import STEP_TIMEOUT_S
from tests.torture.checker import check
from tests.torture.evidence import read_evidence
from tests.torture.harness import Harness, Result
from tests.torture.world import World

__all__ = ["HARNESS"]

KINDS = ("server", "services", "both")
LONGEST_TIMEOUT_S = 2 * STEP_TIMEOUT_S


def _cases(count: int, _seed: int) -> Iterable[str]:
    return [f"{KINDS[number % len(KINDS)]}:{number}" for number in range(count)]


def _run(case: str, seed: int, folder: Path) -> Result:
    kind, _ = case.split(":")
    chance = random.Random(f"{seed}/{case}")
    asyncio.run(_freeze(kind, folder, chance))
    evidence = read_evidence(folder)
    facts = Counter({kind: 1, "orders": len(evidence.journal.stories)})
    return Result(check(evidence), 1, facts)


async def _freeze(kind: str, folder: Path, chance: random.Random) -> None:
    async with World.started(folder) as world:
        async with world.server() as server, asyncio.TaskGroup() as group:
            shopping = group.create_task(world.customers.shop(server))
            await _answers(world, 3)
            pause_s = chance.uniform(1.5, 3) * LONGEST_TIMEOUT_S
            await _pause(kind, world, server, pause_s, shopping)
            await _answers(world, 3)
            if chance.random() < 0.5:
                server.kill()
                await server.exited()
            else:
                await server.stop()
        await world.heal()


async def _answers(world: World, count: int) -> None:
    enough = world.customers.answered + count
    await eventually(lambda: world.customers.answered >= enough)


async def _pause(
    kind: str,
    world: World,
    server: Server,
    pause_s: float,
    shopping: asyncio.Task[None],
) -> None:
    """Stop and continue; meanwhile there is nothing to wait for but time."""
    pids = {
        "server": [server.pid],
        "services": [world.services.pid],
        "both": [server.pid, world.services.pid],
    }[kind]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
        await asyncio.wait({shopping}, timeout=pause_s / 2)
    for pid in pids:
        await asyncio.wait({shopping}, timeout=pause_s / 2)
        os.kill(pid, signal.SIGCONT)
    assert not shopping.done(), "the connection did not live through the pause"


HARNESS = Harness("freeze", "pauses", _cases, _run, full=100, small=2)
