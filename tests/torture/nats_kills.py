"""SIGKILL of nats-servers while a journal of three replicas is written to.

    round:N      the leader of the stream, a follower, and all three servers at once,
                 in a drawn order; each is started again when writing goes on, or could

One owner writes numbered batches, and does what an owner does: on doubt it gives the
handle up, opens the partition again under a new epoch, and goes on behind that.

**What it proves.** What was acknowledged outlives any one server's death, and that of
all of them while the machines live; nothing is put down twice on the way.

**How it judges.** In the end a new owner reads the journal: nothing that was
acknowledged is missing, nothing is there twice, and the order is that of the writes.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from tests.journals.nats.support import (
    claim,
    names_of,
    new_url,
    open_url,
    read,
    texts,
    write,
)
from tests.servers.installing import LackError
from tests.servers.nats import Nats, NatsCluster, install, nats_cluster
from tests.torture.harness import Harness, Result, Unavailable

from coordinator.errors import JournalError, JournalUnavailableError
from coordinator.ports import Partition

__all__ = ["HARNESS", "judge"]

FULL = 20
KINDS = ("leader", "follower", "all")
GAPS_S = (1, 5, 10, 20)
"""How the time is told for which nothing was acknowledged."""
WRITES_BEFORE = 50
"""Batches that are acknowledged before each kill, and after each restart."""
WAIT_S = 120.0
"""Seconds within which writing must go on after a kill."""


@dataclass
class _Outcome:
    """What was seen."""

    violations: list[str]
    acknowledged: int
    unacknowledged: int
    """Batches that are there although their writer was not told so."""
    opened: int
    gaps_s: list[float]
    """For each kill, the longest time in seconds between two acknowledgements."""


class _Owner:
    """Writes numbers, one after the other, and remembers which were acknowledged."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.acknowledged: list[int] = []
        self.at_s: list[float] = []
        """When each was acknowledged."""
        self.opened = 0
        self.ended = False
        self._progress = asyncio.Condition()
        self._number = 0

    async def run(self) -> None:
        """Write until `ended`."""
        while not self.ended:
            with suppress(JournalUnavailableError):
                async with open_url(self.url) as journal:
                    while not self.ended:
                        partition = await claim(journal, "the owner")
                        self.opened += 1
                        with suppress(JournalError):
                            await self._write(partition)
                        await partition.aclose()

    async def _write(self, partition: Partition) -> None:
        while not self.ended:
            self._number += 1
            await write(partition, str(self._number))
            self.acknowledged.append(self._number)
            self.at_s.append(time.monotonic())
            async with self._progress:
                self._progress.notify_all()

    async def more(self, count: int) -> None:
        """Return once *count* more batches are acknowledged."""
        due = len(self.acknowledged) + count
        async with asyncio.timeout(WAIT_S), self._progress:
            await self._progress.wait_for(lambda: len(self.acknowledged) >= due)


async def kill_servers(
    cluster: NatsCluster, kinds: Sequence[str], chance: random.Random
) -> _Outcome:
    """Kill servers, one kind after the other, and judge what is there in the end."""
    url = new_url(cluster)
    stream = names_of(url).partition_stream(0)
    owner = _Owner(url)
    gaps_s: list[float] = []
    async with asyncio.TaskGroup() as group:
        group.create_task(owner.run())
        for kind in kinds:
            await owner.more(WRITES_BEFORE)
            leader = await asyncio.to_thread(cluster.leader, stream)
            before = len(owner.at_s) - 1
            for server in _victims(cluster, leader, kind, chance):
                server.kill()
            if kind == "all":
                await asyncio.to_thread(cluster.restart)
            await owner.more(WRITES_BEFORE)
            gaps_s.append(max(b - a for a, b in pairwise(owner.at_s[before:])))
            await asyncio.to_thread(cluster.restart)
        await owner.more(WRITES_BEFORE)
        owner.ended = True
    async with open_url(url) as journal:
        found = [int(text) for text in texts(await read(await claim(journal)))]
    return _Outcome(
        list(judge(owner.acknowledged, found)),
        len(owner.acknowledged),
        len(found) - len(owner.acknowledged),
        owner.opened,
        gaps_s,
    )


def _victims(
    cluster: NatsCluster, leader: Nats, kind: str, chance: random.Random
) -> list[Nats]:
    match kind:
        case "leader":
            return [leader]
        case "follower":
            return [
                chance.choice([one for one in cluster.servers if one is not leader])
            ]
        case _:
            return cluster.servers


def judge(acknowledged: Sequence[int], found: Sequence[int]) -> Iterator[str]:
    """Yield what is wrong with *found*, if *acknowledged* was."""
    there = Counter(found)
    if lost := [number for number in acknowledged if number not in there]:
        yield f"acknowledged and lost: {lost[:10]}"
    if twice := [number for number, count in there.items() if count > 1]:
        yield f"there more than once: {twice[:10]}"
    if list(found) != sorted(found):
        yield "not in the order in which it was written"


def _run(case: str, seed: int, _folder: Path) -> Result:
    try:
        install()
    except LackError as error:
        raise Unavailable(str(error)) from error
    chance = random.Random(f"{seed} {case}")
    kinds = chance.sample(KINDS, len(KINDS))
    with nats_cluster() as cluster:
        outcome = asyncio.run(kill_servers(cluster, kinds, chance))
    result = Result(outcome.violations, outcome.acknowledged)
    result.facts["kills"] = len(kinds)
    result.facts["batches that were there unasked"] = outcome.unacknowledged
    result.facts["openings"] = outcome.opened
    for kind, gap_s in zip(kinds, outcome.gaps_s, strict=True):
        most = next((most for most in GAPS_S if gap_s <= most), None)
        what = f"over {GAPS_S[-1]} s" if most is None else f"up to {most} s"
        result.facts[f"gaps {what} ({kind})"] += 1
    return result


HARNESS = Harness(
    name="nats-kills",
    unit="acknowledged batches",
    cases=lambda count, _: (f"round:{number}" for number in range(count or FULL)),
    run=_run,
    full=FULL,
    small=1,
)
