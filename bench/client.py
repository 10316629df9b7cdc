"""The client process: keeps a number of commands in flight and times each."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any

import msgspec

from bench.sagas import Done, Failed, ThreeSteps, TurnsBack
from cmdstream import Client, JsonCodec, Registry


@dataclass
class Load:
    """What to send."""

    port: int
    command: str
    in_flight: int
    seconds: float


class Measured(msgspec.Struct):
    """What was seen."""

    rate: float
    """Commands per second."""
    p50_ms: float
    p99_ms: float
    count: int


async def drive(load: Load) -> Measured:
    """Send *load* and measure; the first tenth of the time is for warming up."""
    codec = JsonCodec(Registry([ThreeSteps, TurnsBack], [Done, Failed]))
    command: type[Any] = {"ThreeSteps": ThreeSteps, "TurnsBack": TurnsBack}[
        load.command
    ]
    latencies: list[float] = []
    async with await Client.connect("127.0.0.1", load.port, codec) as client:
        begin = time.perf_counter() + load.seconds / 10
        end = begin + load.seconds

        async def work(number: int) -> None:
            while (start := time.perf_counter()) < end:
                await client.send(command(number))
                now = time.perf_counter()
                if start >= begin and now <= end:
                    latencies.append(now - start)

        async with asyncio.TaskGroup() as group:
            for number in range(load.in_flight):
                group.create_task(work(number))
    latencies.sort()
    return Measured(
        rate=len(latencies) / load.seconds,
        p50_ms=1e3 * latencies[len(latencies) // 2],
        p99_ms=1e3 * latencies[len(latencies) * 99 // 100],
        count=len(latencies),
    )


async def run_echo() -> None:
    """Serve `ThreeSteps` without doing anything, on any port, which is printed."""
    from cmdstream import CommandReceived, Reply, Server  # noqa: PLC0415

    def answer(received: CommandReceived, reply: Reply) -> None:
        assert isinstance(received.command, ThreeSteps)
        reply.send_nowait(Done(received.command.number))

    codec = JsonCodec(Registry([ThreeSteps, TurnsBack], [Done, Failed]))
    async with Server(codec, answer) as server:
        _, port = await server.listen("127.0.0.1", 0)
        print(port, flush=True)
        await server.wait_closed()
