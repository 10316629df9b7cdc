"""The simulator finds bugs: each of these is planted, and found.

A bug is one piece of the product, replaced. It has to be found within `SEEDS_MAX` seeds
from the one that is known to find it, and the seed that does has to pass without it.
`python -m tests.simulation --mutants` counts how many seeds it takes from anywhere.
"""

from pathlib import Path

import pytest
from tests.simulation.hunt import BUGS, Found, hunt
from tests.simulation.museum import MUSEUM, NOT_PLANTED
from tests.simulation.planted import Bug, try_seed
from tests.simulation.run import simulate

ROOT = Path(__file__).parents[2]
SEEDS_MAX = 300


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_planted_bug_is_found(bug: Bug) -> None:
    for seed in range(bug.first, bug.first + SEEDS_MAX):
        result = try_seed(bug, seed)
        if isinstance(result, str):
            shows = result
            break
        if result.violations:
            shows = str(result.violations[0])
            kinds = {violation.kind for violation in result.violations}
            assert kinds & bug.shows_as
            break
    else:
        pytest.fail(f"{SEEDS_MAX} seeds did not find: {bug.name}")
    print(f"{bug.name}: seed {seed}: {shows}")
    assert not simulate(seed).violations, "the same seed passes without the bug"


def test_no_two_bugs_have_one_name() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 60


def test_a_hunt_says_how_many_seeds_it_took() -> None:
    found = hunt("turn back without an undo", ranges=2)
    assert len(found.seeds) == 2
    assert found.counts == (found.seeds[0] + 1, found.seeds[1] - 20_000 + 1)
    survived = Found("a bug", "", "", (-1, -1), (9, 9))
    assert survived.row() == '| a bug |  | survived | | | `--mutants "a bug"` |'


def test_each_row_of_the_museum_is_planted_or_guarded_elsewhere() -> None:
    planted = {bug.museum for bug in BUGS}
    assert not planted & set(NOT_PLANTED)
    assert set(MUSEUM) <= planted | set(NOT_PLANTED)
    for guard in NOT_PLANTED.values():
        assert f"def {guard.test}(" in (ROOT / guard.file).read_text()
