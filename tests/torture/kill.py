"""SIGKILL of a real server under load, at drawn times, again and again.

    load:N    a world of its own: services in a process of their own, over HTTP; a
              server on two partitions; 16 orders in flight over cmd-stream; `LIVES`
              kills, then a server that is left alone

The time of each kill is drawn from when the server is ready (some are killed while they
recover), or from when it has answered a few more orders (a busy machine gets nothing
done in a short life).

The servers that are killed are forks of a process that has imported everything; the
one that is left alone is started as people start it.

**What it proves.** All of it together, as it is installed: command line, intake,
engine, journal, gateways, three processes and two protocols. Where `nth` knows the
moment and has the code under a tap, here nothing is in between, and the moment is
anybody's.

**How it judges.** The customers ask again, by key, for whatever had no answer, and in
the end for everything. Then the history checker reads what they wrote down, the
services' ledger, and the journal.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tests.processes import eventually
from tests.torture.checker import check
from tests.torture.evidence import read_evidence
from tests.torture.harness import Harness, Result
from tests.torture.world import World

__all__ = ["HARNESS"]

LIVES = 10


def _cases(count: int, _seed: int) -> Iterable[str]:
    return [f"load:{number}" for number in range(-(-count // LIVES))]


def _run(case: str, seed: int, folder: Path) -> Result:
    asyncio.run(_live_and_die(folder, random.Random(f"{seed}/{case}")))
    evidence = read_evidence(folder)
    facts = Counter({"orders": len(evidence.journal.stories)})
    return Result(check(evidence), LIVES, facts)


async def _live_and_die(folder: Path, chance: random.Random) -> None:
    async with World.started(folder) as world:
        customers = world.customers
        for number in range(LIVES):
            async with world.fork() as server, asyncio.TaskGroup() as group:
                shopping = group.create_task(customers.shop(server))
                if number % 2:
                    enough = customers.answered + 3
                    await eventually(lambda: customers.answered >= enough)  # noqa: B023
                # asyncio.wait is how one waits for a moment that is drawn.
                await asyncio.wait({shopping}, timeout=chance.uniform(0.0, 0.3))
                server.kill()
                await server.exited()
        await world.heal()


HARNESS = Harness("kill", "kills of a server", _cases, _run, full=2000, small=10)
