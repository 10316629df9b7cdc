"""What a range of seeds came to, in numbers that can be added up and kept in a file.

A long run writes them down as it goes, so that it may be ended at any time and gone on
with later, at the seed where it stopped: numbers of the same commit add up.
"""

import subprocess
from collections import Counter
from pathlib import Path

import msgspec
from tests.simulation.summary import Summary

__all__ = ["Counts"]

ROOT = Path(__file__).parents[2]


class Counts(msgspec.Struct, kw_only=True):
    """Sums over seeds."""

    commit: str = ""
    """Of the checkout, with a plus sign if it had changes."""
    ranges: list[tuple[int, int]] = []
    """Seeds that were run: each from the first up to, not including, the second."""
    seeds: int = 0
    failed: list[int] = []
    lives: int = 0
    crashes: int = 0
    workflows: int = 0
    steps: int = 0
    """Of the loops."""
    virtual_s: float = 0.0
    faults: dict[str, int] = {}
    """By sort."""
    rare: dict[str, int] = {}
    """How often each rare point was reached."""

    @classmethod
    def load(cls, path: Path) -> "Counts":
        """Return what is in the file at *path*; zeros if there is none."""
        if not path.exists():
            return cls(commit=_commit())
        return msgspec.json.decode(path.read_bytes(), type=cls)

    def save(self, path: Path) -> None:
        """Write it into the file at *path*, over what is there."""
        data = msgspec.json.format(msgspec.json.encode(self), indent=2)
        path.write_bytes(data + b"\n")

    def add(self, summary: Summary) -> None:
        """Add one seed."""
        seed = summary.seed
        if self.ranges and self.ranges[-1][1] == seed:
            self.ranges[-1] = (self.ranges[-1][0], seed + 1)
        else:
            self.ranges.append((seed, seed + 1))
        self.seeds += 1
        if summary.violations:
            self.failed.append(seed)
        self.lives += summary.lives
        self.crashes += summary.crashes
        self.workflows += summary.workflows
        self.steps += summary.steps
        self.virtual_s += summary.virtual_s
        self.faults = dict(Counter(self.faults) + summary.faults)
        self.rare = dict(Counter(self.rare) + summary.rare)

    def merge(self, other: "Counts") -> None:
        """Add all of *other*.

        Raises:
            ValueError: It is of another commit, or has seeds that are here already.
        """
        if other.commit != self.commit:
            raise ValueError(f"of commits {self.commit} and {other.commit}")
        for first, end in other.ranges:
            for begun, ended in self.ranges:
                if first < ended and begun < end:
                    raise ValueError(f"seeds {first} to {end - 1} are there already")
        self.ranges = sorted(self.ranges + other.ranges)
        self.seeds += other.seeds
        self.failed = sorted(self.failed + other.failed)
        self.lives += other.lives
        self.crashes += other.crashes
        self.workflows += other.workflows
        self.steps += other.steps
        self.virtual_s += other.virtual_s
        self.faults = dict(Counter(self.faults) + Counter(other.faults))
        self.rare = dict(Counter(self.rare) + Counter(other.rare))

    def verdict(self) -> str:
        """Return it all in words, faults by sort, most first."""
        faults = sorted(self.faults.items(), key=lambda item: -item[1])
        told = "; ".join(f"{sort} {count:,}" for sort, count in faults)
        verdict = f"nothing was lost, doubled or left over in {self.seeds:,} seeds"
        if self.failed:
            first = ", ".join(map(str, self.failed[:10]))
            verdict = f"{len(self.failed):,} of {self.seeds:,} seeds FAILED: {first}"
        return (
            f"{verdict}\n"
            f"  {self.lives:,} lives of a process, of which {self.crashes:,} crashed\n"
            f"  {self.workflows:,} workflows, {self.steps:,} steps of the loop, "
            f"{self.virtual_s / 3600:.1f} h of virtual time\n"
            f"  faults: {told}"
        )


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=10"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
