"""What is done to servers and connections while the run lasts.

Each of these runs until it is cancelled.
"""

import asyncio
import random
import signal
from collections import Counter
from pathlib import Path

from tests.stress.processes import Process
from tests.stress.proxy import Proxy

__all__ = ["break_connections", "disturb", "restart"]

_UP_S = 20.0  # at most, as in Go's test; and so is the next
_DOWN_S = 5.0
_STOPPED_S = 3.0
_BETWEEN_S = 8.0  # broken connections, at most: each lives for half a minute


async def restart(
    folder: Path,
    port: int,
    notes: Path,
    chance: random.Random,
    faults: Counter[str],
    problems: list[str],
) -> None:
    """Keep a server up for a while, and down for a while."""
    while True:
        server = await Process.start(folder, "tests.stress.server", port, notes)
        try:
            if await server.line() != b"ready\n":
                problems.append("server A did not start")
                return
            await asyncio.sleep(chance.uniform(0.0, _UP_S))
            if chance.random() < 0.2:
                await _stop_for_a_while(server, chance)
                faults["server A: stopped"] += 1
            if chance.random() < 0.5:
                faults["server A: killed"] += 1
            else:
                faults["server A: ended"] += 1
                server.send(signal.SIGTERM)
                if await server.ended() != 0:
                    problems.append("server A did not end in order")
        finally:
            await server.aclose()
        await asyncio.sleep(chance.uniform(0.0, _DOWN_S))


async def disturb(server: Process, chance: random.Random, faults: Counter[str]) -> None:
    """Stop a server at times, and let it go on."""
    while True:
        await asyncio.sleep(chance.uniform(0.0, 2 * _UP_S))
        faults["server B: stopped"] += 1
        await _stop_for_a_while(server, chance)


async def break_connections(proxy: Proxy, chance: random.Random) -> None:
    """Break one after the other."""
    while True:
        await asyncio.sleep(chance.uniform(0.0, _BETWEEN_S))
        proxy.break_one()


async def _stop_for_a_while(server: Process, chance: random.Random) -> None:
    server.send(signal.SIGSTOP)
    try:
        await asyncio.sleep(chance.uniform(0.1, _STOPPED_S))
    finally:
        server.send(signal.SIGCONT)
