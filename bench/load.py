"""Closed-loop load: a number of callers, each with one command in flight.

Throughput counts what ended within the window, whenever it began; the time before the
window is for warming up. Every answer is compared with what was asked.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from bench.sagas import CODEC, ThreeSteps, TurnsBack
from cmdstream import Client

COMMANDS: dict[str, type[Any]] = {"ThreeSteps": ThreeSteps, "TurnsBack": TurnsBack}


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What to send."""

    port: int
    in_flight: int
    seconds: float
    command: str = "ThreeSteps"


class Measured(msgspec.Struct, frozen=True):
    """What was seen."""

    rate: float
    """Commands per second."""
    p50_ms: float
    p99_ms: float
    count: int
    """Commands that ended in the window."""
    total: int
    """Commands that ended at all, warming up included."""


async def closed_loop(
    send: Callable[[int], Awaitable[object]], in_flight: int, seconds: float
) -> Measured:
    """Keep *in_flight* calls of *send* going for *seconds*, a tenth more to warm up."""
    latencies: list[float] = []
    total = 0
    begin = time.perf_counter() + seconds / 10
    end = begin + seconds

    async def call() -> None:
        nonlocal total
        while (start := time.perf_counter()) < end:
            await send(total)
            now = time.perf_counter()
            total += 1
            if begin <= now <= end:
                latencies.append(now - start)

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(call())
    return summed_up(latencies, seconds, total)


def summed_up(latencies_s: list[float], seconds: float, total: int) -> Measured:
    """Return rate and percentiles of what ended within *seconds*."""
    assert latencies_s, "nothing ended within the window"
    return Measured(
        rate=len(latencies_s) / seconds,
        p50_ms=1e3 * percentile(latencies_s, 50),
        p99_ms=1e3 * percentile(latencies_s, 99),
        count=len(latencies_s),
        total=total,
    )


def percentile(values: list[float], percent: int) -> float:
    """Return the value below which *percent* of all are."""
    return sorted(values)[len(values) * percent // 100]


async def drive(load: Load) -> Measured:
    """Send *load* over one cmd-stream connection."""
    command = COMMANDS[load.command]
    async with await Client.connect("127.0.0.1", load.port, CODEC) as client:

        async def send(number: int) -> None:
            answer: Any = await client.send(command(number))
            if load.command == "ThreeSteps":
                assert answer.number == number, answer
            else:
                assert answer.status == "compensated", answer

        return await closed_loop(send, load.in_flight, load.seconds)
