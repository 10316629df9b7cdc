"""Plants every bug there is, and counts the seeds that it takes to find it.

Five ranges of seeds that have nothing in common, each gone through until a seed fails:
the median of how many that took says what the simulation is worth against this bug.
"""

import multiprocessing
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from tests.simulation.museum import NOT_PLANTED
from tests.simulation.planted import Bug, try_seed
from tests.simulation.planted_engine import BUGS as ENGINE
from tests.simulation.planted_journal import BUGS as JOURNAL
from tests.simulation.planted_saga import BUGS as SAGA

__all__ = ["BUGS", "Found", "hunt", "run"]

BUGS: list[Bug] = [*JOURNAL, *SAGA, *ENGINE]

RANGES = 5
SEEDS_MAX = 20_000
"""Of a range; a bug that survives them survives."""


@dataclass(frozen=True)
class Found:
    """What came of one bug."""

    name: str
    museum: str
    shows: str
    """How it showed first: the kind, and the sentence."""
    seeds: tuple[int, ...]
    """The first that found it, in each range; -1 where none did."""
    counts: tuple[int, ...]
    """How many seeds that took."""

    def row(self) -> str:
        """Return it as a row of Markdown."""
        found = min((seed for seed in self.seeds if seed >= 0), default=-1)
        command = f'`--mutants "{self.name}"`'
        if found < 0:
            return f"| {self.name} | {self.museum} | survived | | | {command} |"
        counts = sorted(self.counts)
        return (
            f"| {self.name} | {self.museum} | {self.shows} | {found:,} | "
            f"{statistics.median(counts):,.0f} ({counts[0]:,} to {counts[-1]:,}) | "
            f"{command} |"
        )


def hunt(name: str, ranges: int = RANGES, seeds_max: int = SEEDS_MAX) -> Found:
    """Look for the bug of that name in each range."""
    bug = next(bug for bug in BUGS if bug.name == name)
    seeds: list[int] = []
    counts: list[int] = []
    shows = ""
    for first in range(0, ranges * SEEDS_MAX, SEEDS_MAX):
        for count in range(seeds_max):
            kind = _kind(bug, first + count)
            if kind:
                shows = shows or kind
                seeds.append(first + count)
                counts.append(count + 1)
                break
        else:
            seeds.append(-1)
            counts.append(seeds_max)
    return Found(bug.name, bug.museum, shows, tuple(seeds), tuple(counts))


def _kind(bug: Bug, seed: int) -> str:
    result = try_seed(bug, seed)
    if isinstance(result, str):
        return "assertion"
    return result.violations[0].kind if result.violations else ""


def run(part: str, jobs: int = 1) -> int:
    """Hunt the bugs with *part* in their names, print a table; return the exit code."""
    names = [bug.name for bug in BUGS if part in bug.name]
    print(
        "| bug | whose it was | shows as | first seed | seeds to find it: median of "
        f"{RANGES} ranges | repeat it: `python -m tests.simulation` |"
    )
    print("|---|---|---|---|---|---|")
    if jobs <= 1:
        return _print(map(hunt, names), len(names))
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs) as pool:
        # The ones that take longest may be the last: a process takes one at a time.
        return _print(pool.imap(hunt, names, chunksize=1), len(names))


def _print(found: Iterable[Found], count: int) -> int:
    survived = 0
    medians: list[float] = []
    for one in found:
        print(one.row(), flush=True)
        if -1 in one.seeds:
            survived += 1
        medians.append(statistics.median(one.counts))
    print(
        f"\n{count - survived} of {count} found in each of {RANGES} ranges; the median "
        f"of the medians is {statistics.median(medians):.0f} seeds",
        flush=True,
    )
    print("\n| not planted: whose it was | why | kept watch over by |\n|---|---|---|")
    for name, guard in NOT_PLANTED.items():
        print(f"| {name} | {guard.reason} | `{guard.file}::{guard.test}` |")
    return 1 if survived else 0
