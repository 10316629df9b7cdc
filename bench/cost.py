"""What a saga costs the server, counted: ``python -m bench.cost``.

Wall-clock on a busy machine says little. Two figures that say more, each for the whole
server process and for the bare program, with 100 commands in flight:

    instructions   by ``valgrind --tool=callgrind``; the difference of two runs of
                   different length, so that starting and stopping cancel out
    cpu            user + system time of the process, runs of both kinds in turn
"""

import argparse
import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.sagas import Done, Failed, ThreeSteps, TurnsBack
from cmdstream import Client, JsonCodec, Registry

KINDS = ("server", "bare")
IN_FLIGHT = 100
FEW, MANY = 200, 700  # sagas of the two runs whose difference is taken


async def send(port: int, count: int) -> None:
    """Have *count* sagas run, `IN_FLIGHT` at a time."""
    codec = JsonCodec(Registry([ThreeSteps, TurnsBack], [Done, Failed]))
    left = count
    async with await Client.connect("127.0.0.1", port, codec) as client:

        async def work() -> None:
            nonlocal left
            while left > 0:
                left -= 1
                await client.send(ThreeSteps(5))

        async with asyncio.TaskGroup() as group:
            for _ in range(IN_FLIGHT):
                group.create_task(work())


def run(kind: str, counts: Sequence[int], under: Sequence[str] = ()) -> tuple[int, str]:
    """Have the process serve each of *counts* sagas, and stop it.

    Returns:
        The clock ticks of CPU that the last of *counts* took, and its stderr.
    """
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        place = folder if kind == "bare" else f"file:{folder}/journal"
        with subprocess.Popen(
            [*under, sys.executable, "-m", "bench.roles", kind, place],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONHASHSEED": "0"},
        ) as started:
            assert started.stdout is not None
            port = int(started.stdout.readline())
            taken = 0
            for count in counts:
                before = _cpu_ticks(started.pid)
                asyncio.run(send(port, count))
                taken = _cpu_ticks(started.pid) - before
            started.send_signal(signal.SIGTERM)
            _, errors = started.communicate()
    return taken, errors


def _cpu_ticks(process: int) -> int:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def instructions(kind: str) -> float:
    """Return the thousands of instructions that one saga takes."""
    counted: list[int] = []
    for count in (FEW, MANY):
        valgrind = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
        _, errors = run(kind, [count], valgrind)
        found = re.search(r"Collected : (\d+)", errors)
        assert found is not None, errors
        counted.append(int(found[1]))
    return (counted[1] - counted[0]) / (MANY - FEW) / 1000


def cpu_us(kind: str, count: int) -> float:
    """Return the microseconds of CPU that one saga takes, warmed up."""
    ticks, _ = run(kind, [1000, count])
    return 1e6 * ticks / os.sysconf("SC_CLK_TCK") / count


def main() -> None:
    """Count, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=["instructions", "cpu"])
    parser.add_argument("--kinds", nargs="*", default=KINDS, choices=KINDS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sagas", type=int, default=10_000)
    chosen = parser.parse_args()
    if chosen.what == "instructions":
        for kind in chosen.kinds:
            print(f"{kind:8}{instructions(kind):8.1f} k instructions per saga")
        return
    for _ in range(chosen.rounds):
        for kind in chosen.kinds:
            print(f"{kind:8}{cpu_us(kind, chosen.sagas):8.1f} us CPU per saga")


if __name__ == "__main__":
    main()
