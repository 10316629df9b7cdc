"""What is accepted ends, and nothing is lost, doubled or left over: 200 seeds of it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.simulation.run import simulate

ROOT = Path(__file__).parents[2]
SEEDS = 200
SEEDS_PER_TEST = 10
SEEDS_TWICE = 24
"""Of these, two store tracebacks."""

DIGESTS = f"""
from tests.simulation.run import simulate
for seed in range({SEEDS_TWICE}):
    print(simulate(seed).history.digest())
"""


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_nothing_is_lost_doubled_or_left_over(first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        violations = [str(violation) for violation in simulate(seed).violations]
        again = f"python -m tests.simulation --seed {seed}"
        assert not violations, f"repeat it: {again}"


def digests(root: Path, hash_seed: str) -> list[str]:
    path = os.pathsep.join((str(root / "src"), str(root)))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", DIGESTS],
        cwd=root,
        env=os.environ | {"PYTHONHASHSEED": hash_seed, "PYTHONPATH": path},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()


def test_a_seed_is_the_same_history_in_every_process_and_checkout(
    tmp_path: Path,
) -> None:
    for name in ("src", "tests/simulation"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    first, second = digests(ROOT, "0"), digests(tmp_path, "4711")
    assert len(first) == SEEDS_TWICE
    assert first == second


def test_seeds_differ() -> None:
    assert len({simulate(seed).history.digest() for seed in range(5)}) == 5
