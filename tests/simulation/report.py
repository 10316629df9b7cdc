"""Runs many seeds, says how far it is, and what came of them in the end."""

import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.simulation import rare
from tests.simulation.counts import Counts
from tests.simulation.summary import Summary, summarize

__all__ = ["Range", "run"]

_PROGRESS_S = 1.0
_SAVE_S = 20.0


@dataclass(frozen=True)
class Range:
    """Which seeds to run, and how."""

    first: int
    count: int
    jobs: int = 1
    minutes: float = 0.0
    """After which no further result is waited for; 0 for as long as it takes."""
    keep_going: bool = False
    """Past a failure."""
    counts: Path | None = None
    """A file with the counts of earlier runs, to which those of this one are added. Its
    last seed is where this one goes on, if it is within the range."""
    table: bool = False
    """Print how often each rare point was reached."""
    reach: int = 0
    """Fail if a rare point was not reached by so many seeds, or more; 0 for never.
    Fewer may not come to all, as where time ran out: that is told, and no failure."""


class _Run:
    def __init__(self, range_: Range) -> None:
        self.range = range_
        path = range_.counts
        self.counts = Counts.load(path) if path is not None else Counts()
        self.first, self.end = range_.first, range_.first + range_.count
        for begun, ended in self.counts.ranges:
            if begun <= self.first < ended:
                self.first = min(ended, self.end)
        self.done = self.failures = 0
        self.begun_s = self.told_s = self.saved_s = time.monotonic()
        self.on_terminal = sys.stderr.isatty()

    def follow(self, results: Iterable[Summary | str]) -> None:
        """Add up *results*, until they end, or time does, or one is bad."""
        for result in results:
            self.done += 1
            problems = _problems(result)
            if problems:
                self.failures += 1
                self.tell(problems)
            if isinstance(result, Summary):
                self.counts.add(result)
            now_s = time.monotonic()
            if self.on_terminal and now_s - self.told_s > _PROGRESS_S:
                self.told_s = now_s
                print(f"\r{self.rate()} ", end="", file=sys.stderr, flush=True)
            if now_s - self.saved_s > _SAVE_S:
                self.saved_s = now_s
                self.save()
            if problems and not self.range.keep_going:
                return
            if 0 < self.range.minutes * 60 < now_s - self.begun_s:
                return

    def tell(self, text: str) -> None:
        """Print *text* over the progress, if there is one."""
        print(f"{chr(13) if self.on_terminal else ''}{text}", file=sys.stderr)

    def save(self) -> None:
        """Write the counts down, if that was asked for."""
        if self.range.counts is not None:
            self.counts.save(self.range.counts)

    def rate(self) -> str:
        """Return how far it is."""
        passed_s = max(time.monotonic() - self.begun_s, 1e-9)
        return (
            f"{self.done} of {self.end - self.first} seeds, "
            f"{self.done / passed_s:.1f}/s, {self.failures} failures"
        )


def run(range_: Range) -> int:
    """Run the seeds of *range_*; return the exit code."""
    running = _Run(range_)
    with _results(range(running.first, running.end), range_.jobs) as results:
        running.follow(results)
    running.save()
    counts = running.counts
    print(f"{chr(13) if running.on_terminal else ''}{running.rate()}")
    print(counts.verdict())
    missed = rare.never_reached(counts.rare)
    if range_.table:
        print(rare.table(Counter(counts.rare)))
    elif missed:
        print(f"  rare points that were not reached: {', '.join(missed)}")
    else:
        print("  every rare point was reached that can be")
    if missed and counts.seeds < range_.reach:
        print(
            f"  that says nothing: {counts.seeds:,} seeds were run, and it takes "
            f"{range_.reach:,} to come to all"
        )
    elif missed and range_.reach:
        print(_told_missed(missed, counts.seeds), file=sys.stderr)
        return 1
    return 1 if running.failures else 0


def _told_missed(missed: list[str], seeds: int) -> str:
    places = dict(rare.points())
    lines = [
        f"rare point not reached by {seeds:,} seeds: {name!r}, "
        f"src/coordinator/{places[name]}"
        for name in missed
    ]
    lines.append(
        "have plan.py, commands.py or clients.py come there more often; or, if no "
        "seed can, say why in UNREACHED of tests/simulation/rare.py"
    )
    return "\n".join(lines)


@contextmanager
def _results(seeds: range, jobs: int) -> Generator[Iterable[Summary | str]]:
    if jobs <= 1:
        yield map(summarize, seeds)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs) as pool:
        yield pool.imap(summarize, seeds, chunksize=4)


def _problems(result: Summary | str) -> str:
    if isinstance(result, str):
        return result
    if not result.violations:
        return ""
    lines = [f"seed {result.seed} failed:"]
    lines += [f"  {violation}" for violation in result.violations[:5]]
    lines.append(f"  repeat it: python -m tests.simulation --seed {result.seed}")
    return "\n".join(lines)
