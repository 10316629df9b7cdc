"""DBOS with three durable steps: ``python -m bench.peers.dbos_app run 100 10``.

A library in the process of its callers, with its SQLite system database and all of its
defaults. One caller at a time calls a plain function, and a hundred await coroutines:
of the ways there are, each was the fastest (plain functions in a hundred threads, and
`start_workflow_async` with either, were not). DBOS syncs each transaction (SQLite's
`synchronous=FULL`, rollback journal).

Typed loosely, so that it is checked without DBOS, too: it is in the extra ``bench``.
"""

import asyncio
import importlib
import os
import sqlite3
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from bench.load import Measured, closed_loop, summed_up

_dbos: Any = importlib.import_module("dbos")
DBOS: Any = _dbos.DBOS
FILE = "dbos.sqlite"


def do(number: int) -> int:
    """Do nothing, at once."""
    return number


async def do_async(number: int) -> int:
    """Do nothing, at once."""
    return number


class Gate:
    """What the workflows that hang wait for."""

    is_open = False


async def hang(number: int) -> int:
    """Wait until the process is another one."""
    if not Gate.is_open:
        await asyncio.Event().wait()
    return number


step: Callable[[int], int] = DBOS.step()(do)
step_async: Callable[[int], Awaitable[int]] = DBOS.step()(do_async)
step_hangs: Callable[[int], Awaitable[int]] = DBOS.step()(hang)


def three_steps(number: int) -> int:
    """Three steps in a row."""
    return step(step(step(number)))


async def three_steps_async(number: int) -> int:
    """Three steps in a row."""
    held = await step_async(number)
    paid = await step_async(held)
    return await step_async(paid)


async def hangs(number: int) -> int:
    """Three steps; the second is under way while the gate is shut."""
    held = await step_async(number)
    paid = await step_hangs(held)
    return await step_async(paid)


workflow: Callable[[int], int] = DBOS.workflow()(three_steps)
workflow_async: Callable[[int], Awaitable[int]] = DBOS.workflow()(three_steps_async)
workflow_hangs: Callable[[int], Awaitable[int]] = DBOS.workflow()(hangs)


def launch() -> None:
    """Start DBOS in the working folder, which it recovers."""
    DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{FILE}",
            "log_level": "WARNING",
        }
    )
    DBOS.launch()


def run_one(seconds: float) -> Measured:
    """Measure one caller."""
    latencies: list[float] = []
    begin = time.perf_counter() + seconds / 10
    end = begin + seconds
    total = 0
    while (start := time.perf_counter()) < end:
        assert workflow(total) == total
        total += 1
        now = time.perf_counter()
        if begin <= now <= end:
            latencies.append(now - start)
    return summed_up(latencies, seconds, total)


async def run_many(in_flight: int, seconds: float) -> Measured:
    """Measure *in_flight* callers."""

    async def send(number: int) -> None:
        assert await workflow_async(number) == number

    return await closed_loop(send, in_flight, seconds)


async def start_hanging(count: int) -> None:
    """Start so many that hang, say so, and wait for the end."""
    for number in range(count):
        await DBOS.start_workflow_async(workflow_hangs, number)
    while finished_steps(Path()) < count:  # noqa: ASYNC110 -- a database's
        await asyncio.sleep(0.05)
    print(0, flush=True)
    await asyncio.Event().wait()


def finished(folder: Path) -> int:
    """Count the workflows that the database in *folder* says have succeeded."""
    return _count(
        folder, "SELECT count(*) FROM workflow_status WHERE status = 'SUCCESS'"
    )


def finished_steps(folder: Path) -> int:
    """Count the outcomes that the database in *folder* holds."""
    return _count(folder, "SELECT count(*) FROM operation_outputs")


def _count(folder: Path, query: str) -> int:
    database = sqlite3.connect(f"file:{folder / FILE}?mode=ro", uri=True, timeout=60)
    try:
        (count,) = database.execute(query).fetchone()
    finally:
        database.close()
    return int(count)


async def _serve(role: str, arguments: list[str]) -> Measured | None:
    launch()
    match role:
        case "run":
            return await run_many(int(arguments[0]), float(arguments[1]))
        case "hang":
            await start_hanging(int(arguments[0]))
        case "recover":
            print(0, flush=True)
            await asyncio.Event().wait()
        case _:
            raise ValueError(f"no such role: {role}")
    return None


def main() -> None:
    """Play a role in the folder that is named first."""
    folder, role, *arguments = sys.argv[1:]
    os.chdir(folder)
    Gate.is_open = role == "recover"
    if role == "one":
        launch()
        result: Measured | None = run_one(float(arguments[0]))
    else:
        result = asyncio.run(_serve(role, arguments))
    sys.stdout.buffer.write(msgspec.json.encode(result))
    sys.stdout.flush()
    # Its threads, which poll, are of no interest any more.
    os._exit(0)


if __name__ == "__main__":
    main()
