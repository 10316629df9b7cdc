"""What is accepted ends, and nothing is lost, doubled or left over: 200 seeds of it."""

import shutil
from pathlib import Path

import pytest
from tests.simulation.determinism import digests
from tests.simulation.run import simulate

ROOT = Path(__file__).parents[2]
SEEDS = 200
SEEDS_PER_TEST = 10
SEEDS_TWICE = 24
"""Of these, two store tracebacks."""


@pytest.mark.parametrize("first", range(0, SEEDS, SEEDS_PER_TEST))
def test_nothing_is_lost_doubled_or_left_over(first: int) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        violations = [str(violation) for violation in simulate(seed).violations]
        again = f"python -m tests.simulation --seed {seed}"
        assert not violations, f"repeat it: {again}"


def test_a_seed_is_the_same_history_in_every_process_and_checkout(
    tmp_path: Path,
) -> None:
    for name in ("src", "tests/simulation"):
        shutil.copytree(
            ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    here = digests(0, SEEDS_TWICE, "0").communicate()[0]
    there = digests(0, SEEDS_TWICE, "4711", tmp_path).communicate()[0]
    assert len(here.split()) == SEEDS_TWICE
    assert here == there


def test_seeds_differ() -> None:
    assert len({simulate(seed).history.digest() for seed in range(5)}) == 5
