"""What surrounds the product fails as drawn, and as the ports say it may."""

import asyncio
import random
import weakref
from collections import Counter
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest
from tests.simulation.history import History
from tests.simulation.pacing import Pacing, shortest_us
from tests.simulation.run import simulate
from tests.simulation.surroundings import steady_garbage
from tests.simulation.tap import PortFaults, TappedJournal, TappedPartition
from tests.simulation.wall_clock import DRIFT_S_MAX, WallClock

from coordinator.batch import encode_batch
from coordinator.errors import JournalBrokenError, JournalError, UncertainError
from coordinator.journals.memory import MemoryJournal
from coordinator.model import Position, Retry
from coordinator.records import Resumed, encode_record
from coordinator.testing.loop import Life


def test_the_clock_jumps_both_ways_and_is_never_wrong_by_a_day() -> None:
    faults = Counter[str]()
    clock = WallClock(random.Random(1), 0.5, lambda: 0.0, faults)
    read = [clock() for _ in range(2000)]
    assert faults["clock jumped"] > 100 < faults["clock jumped back"]
    assert max(read) - min(read) <= 2 * DRIFT_S_MAX * 1e6 < 86_400 * 1e6


def test_what_a_dead_life_reads_changes_no_clock() -> None:
    read: list[list[int]] = []
    for looks in (0, 100):
        clock = WallClock(random.Random(1), 0.5, lambda: 0.0, Counter())
        dead, living = Life(0), Life(1)
        dead.end("crash")
        assert len({clock.of(dead)() for _ in range(looks)}) <= 1
        read.append([clock.of(living)() for _ in range(10)])
    assert read[0] == read[1]


def test_a_clock_that_does_not_jump_is_virtual_time() -> None:
    clock = WallClock(random.Random(1), 0.0, lambda: 2.5, Counter())
    assert clock() == clock() == 1_700_000_002_500_000


def test_intervals_that_are_asked_for_grow_and_are_those_of_the_shortest_policy() -> (
    None
):
    policies = [Retry(first_s=0.1, longest_s=1.0), Retry(first_s=1.0, jitter=0.0)]
    shortest = shortest_us(policies)
    assert [shortest(count) for count in (1, 2, 3, 9)] == [
        80_000,
        160_000,
        320_000,
        800_000,
    ]


def test_progress_and_people_make_intervals_short_again() -> None:
    pacing = Pacing(lambda count: 100 * count)
    for at in (0, 100, 300):
        assert pacing.begin(1, "k", at) == ""
        pacing.unknown(1, "k", at)
    assert "unknown 3 times" in pacing.begin(1, "k", 599)
    pacing.unknown(1, "k", 600)
    pacing.progress(1)
    assert pacing.begin(1, "k", 700) == ""
    pacing.unknown(1, "k", 700)
    pacing.excuse(1)
    assert pacing.begin(1, "k", 700) == ""


class Knot:
    """Refers to itself: only the collector ends it."""

    def __init__(self) -> None:
        self.itself = self


def test_what_a_seed_leaves_is_gone_when_the_next_has_run() -> None:
    def run_a_seed() -> "weakref.ref[Knot]":
        with steady_garbage():
            knot = Knot()
        return weakref.ref(knot)  # alive until here, as all that a seed made

    left = run_a_seed()
    with steady_garbage():
        assert left() is None


async def opened(faults: PortFaults) -> tuple[TappedJournal, TappedPartition]:
    journal = TappedJournal(MemoryJournal(), History(lambda: 0.0), faults)
    return journal, await journal.open(0, owner="us", at=0)


async def write(partition: TappedPartition) -> None:
    data = encode_record(Resumed(1, "us", 0))
    await partition.write(
        encode_batch(
            [data],
            epoch=partition.epoch,
            first=partition.end,
            previous_crc=partition.crc,
        )
    )


def uncertain_call(partition: TappedPartition, what: str) -> Coroutine[Any, Any, None]:
    match what:
        case "write":
            return write(partition)
        case "checkpoint":
            data = msgspec.msgpack.encode([0, 0, []])
            return partition.save_checkpoint(Position(0), data)
        case _:
            return partition.trim(Position(0))


@pytest.mark.parametrize("what", ["write", "checkpoint", "trim"])
def test_an_uncertain_call_is_done_or_not_and_the_partition_is_dead(what: str) -> None:
    async def main() -> set[bool]:
        found: set[bool] = set()
        for seed in range(8):
            faults = PortFaults(random.Random(seed), 0.0)
            _, partition = await opened(faults)
            end = partition.end
            faults.uncertain = 1.0
            with pytest.raises(UncertainError if what == "write" else JournalError):
                await uncertain_call(partition, what)
            faults.uncertain = 0.0
            found.add(partition.inner.end > end)
            with pytest.raises(JournalBrokenError):
                await write(partition)
        return found

    assert asyncio.run(main()) == ({True, False} if what == "write" else {False})


def test_an_uncertain_claim_gives_the_partition_up() -> None:
    async def main() -> None:
        for seed in range(8):
            faults = PortFaults(random.Random(seed), 1.0)
            journal = TappedJournal(MemoryJournal(), History(lambda: 0.0), faults)
            with pytest.raises(JournalError):
                await journal.open(0, owner="us", at=0)
            faults.uncertain = 0.0
            await (await journal.open(0, owner="us", at=0)).aclose()

    asyncio.run(main())


def test_seeds_draw_faults_of_every_sort() -> None:
    faults = Counter[str]()
    for seed in range(40):
        faults += simulate(seed).faults
    assert {
        "kill",
        "power cut",
        "short write",
        "torn write",
        "bit flipped",
        "clock jumped",
        "signal",
        "interrupt",
        "done, reply lost",
    } <= set(faults)
