"""Stress clients and servers with real faults, and account for every attempt.

    python -m tests.stress                  one minute
    python -m tests.stress --minutes 30     as docs/performance.md reports it
    python -m tests.stress --seed 7         other faults, at other moments

After the model of Go's stress test, without its reservations:

    clients (2 processes)  4 connections each, which come back and are kept alive; two
                           have a circuit, two are a group; 30 workers, time-outs of
                           500 ms; half echoes, half streams of 1 to 5 results, one
                           command of 1,000 fails, one sender of 200 is cancelled
    proxy (this process)   resets, ends, cuts, freezes and splits connections
    server A               up for 20 s at most, down for 5: SIGTERM, SIGKILL, SIGSTOP
    server B               is stopped at times, and lives from the begin to the end
    hostile peers          ten kinds, at both servers

Prints what happened, and exits with 1 if anything does not add up: `checker` has the
rules for attempts; beside that nothing may grow, complain, or stay open.
"""

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.stress.run import Report, stress

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Parse *arguments* and do what they say; return the exit code."""
    parser = argparse.ArgumentParser(
        "python -m tests.stress",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for notes and logs; is kept")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        report = asyncio.run(stress(folder, 60 * options.minutes, options.seed))
    print(_shown(report))
    return 1 if report.problems else 0


def _shown(report: Report) -> str:
    count = report.count
    lines = [
        f"{count.attempts} attempts in {report.seconds:.0f} s, seed {report.seed}",
        *[
            f"  {name:<10} {number:>9}  {number / max(1, count.attempts):7.2%}"
            for name, number in count.ends.items()
        ],
        f"{count.results} results, and {count.late} late ones",
        f"{count.begun} commands were run, and {count.begun_hostile} of hostile peers",
        f"{count.excused} timed out, and their connection ended before the last result",
        "faults: " + ", ".join(f"{name} {n}" for name, n in report.faults.items()),
        "hostile: " + ", ".join(f"{name} {n}" for name, n in report.hostile.items()),
        *[
            f"{one.name}: {one.memory_early / 2**20:.1f} MiB, later "
            f"{one.memory_late / 2**20:.1f}; at most {one.descriptors_most} descriptors"
            for one in report.watched
        ],
        *[f"PROBLEM: {problem}" for problem in report.problems],
        f"{len(report.problems)} problems" if report.problems else "it adds up",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
