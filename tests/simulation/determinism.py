"""A seed is one history: the same in every process, under every hash seed.

Each process runs the seeds once; their digests must be equal. Of the two under one
hash seed, the second begins with the last seed: what a seed leaves behind in its
process, and the next one finds, makes a difference then.
"""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["HASH_SEEDS", "differences", "digests"]

ROOT = Path(__file__).parents[2]
HASH_SEEDS = ("0", "1", "4711")

_PROGRAM = """
import sys
from tests.simulation.run import simulate
for seed in range(*map(int, sys.argv[1:])):
    print(simulate(seed).history.digest(), flush=True)
"""


def digests(
    first: int,
    count: int,
    hash_seed: str,
    root: Path = ROOT,
    *,
    backwards: bool = False,
) -> "subprocess.Popen[str]":
    """Start a process that prints the digest of each seed; *root* is its checkout."""
    seeds = range(first, first + count)[:: -1 if backwards else 1]
    path = os.pathsep.join((str(root / "src"), str(root)))
    return subprocess.Popen(
        [
            *(sys.executable, "-W", "error", "-c", _PROGRAM),
            *(str(seeds.start), str(seeds.stop), str(seeds.step)),
        ],
        cwd=root,
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )


def differences(first: int, count: int, jobs: int = 1) -> list[int]:
    """Run each seed twice under each of `HASH_SEEDS`; return those that differ.

    Raises:
        RuntimeError: A process failed.
    """
    waiting = [(seed, backwards) for seed in HASH_SEEDS for backwards in (False, True)]
    found: list[list[str]] = []
    while waiting:
        batch, waiting = waiting[:jobs], waiting[jobs:]
        running = [
            (digests(first, count, hash_seed, backwards=backwards), backwards)
            for hash_seed, backwards in batch
        ]
        for process, backwards in running:
            lines = process.communicate()[0].split()
            if process.returncode != 0 or len(lines) != count:
                raise RuntimeError(f"it ended with {process.returncode}")
            found.append(lines[:: -1 if backwards else 1])
    return [
        first + number
        for number, of_one in enumerate(zip(*found, strict=True))
        if len(set(of_one)) > 1
    ]
