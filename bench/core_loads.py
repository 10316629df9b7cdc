"""The core under closed-loop load, and what it is compared with."""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from bench import processes
from bench.journal import Tally, size_bytes
from bench.load import Load, Measured
from bench.rounds import Round
from coordinator.commit import GroupCommit
from coordinator.journals.urls import open_journal
from coordinator.model import EndStatus
from coordinator.records import Outcome

COMMITS_PER_SAGA = 5
SLICES = 7


class Above(msgspec.Struct, frozen=True):
    """One in flight, and what it can't go below."""

    ratio: float
    floor_ms: float


def above_floor(round_: Round) -> Above:
    """One in flight, over five one-record group commits and a round trip of the wire.

    In short slices, in turn: the disk's speed changes from second to second by more
    than what is compared. The median of the slices' ratios.
    """
    seconds = round_.seconds / SLICES
    floors_ms: list[float] = []
    ratios: list[float] = []
    with (
        processes.role("echo") as echo,
        processes.role("server", f"file:{round_.place('above')}") as server,
    ):
        for number in range(SLICES):
            place = round_.place(f"floor-{number}")
            load = Load(port=echo.port, in_flight=1, seconds=seconds)
            floor_ms = processes.measure(load).p50_ms
            floor_ms += 1e3 * asyncio.run(_commits_s(place, seconds))
            load = Load(port=server.port, in_flight=1, seconds=seconds)
            floors_ms.append(floor_ms)
            ratios.append(processes.measure(load).p50_ms / floor_ms)
    return Above(statistics.median(ratios), statistics.median(floors_ms))


async def _commits_s(place: Path, seconds: float) -> float:
    journal = await open_journal(f"file:{place}")
    partition = await journal.open(0, owner="bench", at=0)
    commit = GroupCommit(partition, lambda _: None)
    record = Outcome(1, "inventory.do", 0, b"1", 1_700_000_000_000_000)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        for _ in range(COMMITS_PER_SAGA):
            await commit.append(record)
        taken.append(time.perf_counter() - start)
    await commit.aclose()
    await partition.aclose()
    await journal.aclose()
    return statistics.median(taken)


class Sized(msgspec.Struct, frozen=True):
    """One in flight, and what it wrote."""

    measured: Measured
    bytes_per_saga: float


def one(round_: Round) -> Sized:
    """One in flight, over the wire."""
    place = round_.place("one")
    with processes.role("server", f"file:{place}") as server:
        load = Load(port=server.port, in_flight=1, seconds=round_.seconds)
        measured = processes.measure(load)
    Tally(place).require_completed("ThreeSteps", measured.total)
    return Sized(measured, size_bytes(place) / measured.total)


def hundred(round_: Round) -> Measured:
    """A hundred in flight, over the wire."""
    place = round_.place("hundred")
    with processes.role("server", f"file:{place}") as server:
        load = Load(port=server.port, in_flight=100, seconds=round_.seconds)
        measured = processes.measure(load)
    Tally(place).require_completed("ThreeSteps", measured.total)
    return measured


def turned_back(round_: Round) -> Measured:
    """A hundred in flight that are compensated."""
    place = round_.place("turned")
    with processes.role("server", f"file:{place}") as server:
        load = Load(
            port=server.port,
            in_flight=100,
            seconds=round_.seconds,
            command="TurnsBack",
        )
        measured = processes.measure(load)
    stored = Tally(place).ended["TurnsBack", EndStatus.COMPENSATED]
    if stored != measured.total:
        raise RuntimeError(f"{measured.total} compensated, {stored} in the journal")
    return measured


def bare(round_: Round) -> Measured:
    """A hundred in flight, through the bare program."""
    with processes.role("bare", round_.place("bare")) as server:
        load = Load(port=server.port, in_flight=100, seconds=round_.seconds)
        return processes.measure(load)


def one_within(round_: Round) -> Measured:
    """One in flight, in the process of its caller."""
    return _within(round_, 1)


def hundred_within(round_: Round) -> Measured:
    """A hundred in flight, in the process of their callers."""
    return _within(round_, 100)


def _within(round_: Round, in_flight: int) -> Measured:
    place = round_.place(f"within-{in_flight}")
    command = [sys.executable, "-m", "bench.roles", "within", f"file:{place}"]
    with processes.running([*command, str(in_flight), str(round_.seconds)]) as process:
        printed, _ = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"within ended with {process.returncode}, see above")
    measured = msgspec.json.decode(printed, type=Measured)
    Tally(place).require_completed("ThreeSteps", measured.total)
    return measured


def import_ms(_: Round) -> float:
    """Milliseconds that importing it adds to starting Python."""

    def run(code: str) -> float:
        # With bytecode cached, as it is for users; some machines switch that off.
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, env=env)
        return time.perf_counter() - start

    both = [run("from coordinator import Coordinator") - run("pass") for _ in range(3)]
    return 1e3 * statistics.median(both)
