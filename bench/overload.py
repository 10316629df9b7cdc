"""More offered than can be done, in open loop; and for long at half of the peak."""

import asyncio
import sys
from pathlib import Path

import msgspec

from bench import admin, processes
from bench.journal import accepted_at_us
from bench.load import Load, percentile
from bench.open_loop import Answers, OpenLoad
from bench.rounds import Round

OVERLOAD = 10.0
"""Times the peak."""
UNLOADED = 0.05
"""Share of the peak."""
WINDOWS = 4
"""Times the length of other loads: what is let in at first must have ended, too."""
CONNECTIONS = 16
HALF = 0.5
SLICE_S = 60.0
SLICES = 15
WARM_SLICES = 5
"""Slices until the memory that a server needs at all has been touched."""


class Overload(msgspec.Struct, frozen=True):
    """What happened at ten times the peak."""

    goodput: float
    """Percent of the peak."""
    p99_ms: float
    """From acceptance to answer, of what was accepted."""
    unloaded_p99_ms: float
    offered: int
    turned_away: int
    """By back-pressure: no socket took them."""


def overload(round_: Round) -> Overload:
    """Find the peak, then offer little, then ten times as much as can be done."""
    place = round_.place("overload")
    file = round_.folder / "answers"
    with processes.role("server", f"file:{place}") as server:
        load = Load(port=server.port, in_flight=100, seconds=round_.seconds)
        peak = processes.measure(load).rate

        def offer(share: float, first: int, *, wait: bool) -> Answers:
            load = OpenLoad(
                port=server.port,
                rate=share * peak,
                seconds=WINDOWS * round_.seconds,
                connections=CONNECTIONS,
                first=first,
                answers=str(file),
                wait=wait,
            )
            processes.ask("open-client", load)
            return msgspec.msgpack.decode(file.read_bytes(), type=Answers)

        # Numbers of their own, by which the journal tells them apart.
        little = offer(UNLOADED, 10_000_000, wait=True)
        much = offer(OVERLOAD, 20_000_000, wait=False)
    accepted = accepted_at_us(place)
    return Overload(
        goodput=100 * len(much.numbers) / (WINDOWS * round_.seconds) / peak,
        p99_ms=_p99_ms(much, accepted),
        unloaded_p99_ms=_p99_ms(little, accepted),
        offered=much.offered,
        turned_away=much.turned_away,
    )


def _p99_ms(answers: Answers, accepted: dict[bytes, int]) -> float:
    latencies = [
        (at - accepted[b'{"number":%d}' % number]) / 1e3
        for number, at in zip(answers.numbers, answers.at_us, strict=True)
    ]
    return percentile(latencies, 99)


class Soak(msgspec.Struct, frozen=True):
    """How a server changed in the time after it was warm."""

    rss_percent_per_h: float
    tasks_grown: int
    descriptors_grown: int


class _Idle(msgspec.Struct, frozen=True):
    """A server with nothing to do."""

    rss_mb: float
    tasks: int
    descriptors: int


def soak(round_: Round) -> Soak:
    """Offer half of the peak for a quarter of an hour; look each minute, when idle.

    Each saga that was offered must be answered within the minute. Looked at idle, tasks
    and descriptors need not be averaged: there must be as many as before. The next
    segment of the journal is open or not as it happens, so of descriptors the least
    counts. Before, far more is offered than can be done: a server needs the most memory
    when its disk stops for a moment, and when it did so first is chance.
    """
    place = round_.place("soak")
    file = round_.folder / "answers"
    seen: list[_Idle] = []
    with processes.role("server", f"file:{place}") as server:
        load = Load(port=server.port, in_flight=100, seconds=round_.seconds)
        peak = processes.measure(load).rate

        def offer(share: float, seconds: float, *, wait: bool) -> Answers:
            load = OpenLoad(
                port=server.port,
                rate=share * peak,
                seconds=seconds,
                connections=CONNECTIONS,
                first=0,
                answers=str(file),
                wait=wait,
            )
            processes.ask("open-client", load)
            return msgspec.msgpack.decode(file.read_bytes(), type=Answers)

        offer(OVERLOAD, WINDOWS * round_.seconds, wait=False)
        for minute in range(1, SLICES + 1):
            answers = offer(HALF, SLICE_S, wait=True)
            if len(answers.numbers) != answers.offered:
                raise RuntimeError(
                    f"{answers.offered} offered, {len(answers.numbers)} answered"
                )
            tasks = asyncio.run(_tasks(place))
            files = processes.descriptors(server.pid)
            idle = _Idle(processes.rss_mb(server.pid), tasks, files)
            print(f"minute {minute}, {answers.offered} sagas: {idle}", file=sys.stderr)
            seen.append(idle)
    warm = seen[WARM_SLICES:]
    first, last = warm[: len(warm) // 2], warm[len(warm) // 2 :]
    return Soak(
        rss_percent_per_h=100
        * slope([one.rss_mb for one in warm])
        / warm[0].rss_mb
        * (3600 / SLICE_S),
        tasks_grown=min(one.tasks for one in last) - min(one.tasks for one in first),
        descriptors_grown=min(one.descriptors for one in last)
        - min(one.descriptors for one in first),
    )


def slope(values: list[float]) -> float:
    """Return by how much *values* grow from one to the next: least squares."""
    middle = (len(values) - 1) / 2
    mean = sum(values) / len(values)
    over = sum((i - middle) * (value - mean) for i, value in enumerate(values))
    return over / sum((i - middle) ** 2 for i in range(len(values)))


async def _tasks(place: Path) -> int:
    async with admin.connected(place) as client:
        await admin.until(client, lambda status: status.unfinished == 0)
        return (await admin.look(client))[1]
