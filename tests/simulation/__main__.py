"""Run seeds, replay one, or ask whether the simulation is worth anything.

    python -m tests.simulation --seeds 1000 --from 0 --jobs 2
    python -m tests.simulation --seed 4711
    python -m tests.simulation --determinism --seeds 1000
    python -m tests.simulation --mutants

The first prints progress, a verdict, and what went wrong how often, and at the first
failure the seed and the command that repeats it; the second prints all that happened.
The third runs every seed six times and compares; the fourth plants every bug there is,
and measures how many seeds it takes to find it. They exit with 1 if something is wrong.
"""

import argparse
import sys
from pathlib import Path

from tests.simulation import determinism, hunt, report
from tests.simulation.counts import Counts
from tests.simulation.run import simulate

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Parse *arguments* and do what they say; return the exit code."""
    options = _parser().parse_args(arguments)
    if options.seed is not None:
        return _replay(options.seed, disk=options.disk, json=options.json)
    if options.mutants is not None:
        return hunt.run(options.mutants, jobs=options.jobs)
    if options.determinism:
        return _compare(options.first, options.seeds, options.jobs)
    if options.merge:
        return _merge([Path(name) for name in options.merge])
    return report.run(
        report.Range(
            first=options.first,
            count=options.seeds,
            jobs=options.jobs,
            minutes=options.minutes,
            keep_going=options.keep_going,
            counts=Path(options.counts) if options.counts else None,
            table=options.rare,
            reach=options.reach,
        )
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m tests.simulation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    many = parser.add_argument_group("many seeds")
    many.add_argument("--seeds", type=int, default=200, help="how many to run")
    many.add_argument("--from", type=int, default=0, dest="first", help="the first")
    many.add_argument("--jobs", type=int, default=1, help="processes")
    many.add_argument("--minutes", type=float, default=0, help="stop after that")
    many.add_argument("--keep-going", action="store_true", help="past failures")
    many.add_argument("--rare", action="store_true", help="print the rare points")
    many.add_argument(
        "--reach",
        type=int,
        default=0,
        metavar="N",
        help="fail if one is reached by none of N seeds or more",
    )
    many.add_argument(
        "--counts", metavar="FILE", help="go on with what FILE counts, and write there"
    )
    many.add_argument("--merge", nargs="+", metavar="FILE", help="add up such files")
    one = parser.add_argument_group("one seed")
    one.add_argument("--seed", type=int, help="replay this one and print it")
    one.add_argument("--disk", action="store_true", help="print disk operations too")
    one.add_argument("--json", action="store_true", help="print it as JSON lines")
    worth = parser.add_argument_group("what it is worth")
    worth.add_argument("--determinism", action="store_true", help="run seeds six times")
    worth.add_argument(
        "--mutants", nargs="?", const="", metavar="NAME", help="hunt planted bugs"
    )
    return parser


def _replay(seed: int, *, disk: bool, json: bool) -> int:
    result = simulate(seed)
    if json:
        for line in result.history.lines():
            print(line)
    else:
        print(result.plan)
        for event in result.history:
            if disk or event.kind != "disk":
                print(event)
    for violation in result.violations:
        print(f"seed {seed}: {violation}", file=sys.stderr)
    print(f"trace {result.history.digest()}", file=sys.stderr)
    return 1 if result.violations else 0


def _compare(first: int, count: int, jobs: int) -> int:
    different = determinism.differences(first, count, jobs)
    print(
        f"seeds {first} to {first + count - 1}, twice under each of the hash seeds "
        f"{', '.join(determinism.HASH_SEEDS)}: {len(different)} of {count} differ"
    )
    if different:
        print(f"  {', '.join(map(str, different[:10]))}")
    return 1 if different else 0


def _merge(paths: list[Path]) -> int:
    total = Counts.load(paths[0])
    for path in paths[1:]:
        total.merge(Counts.load(path))
    ranges = ", ".join(f"{first} to {end - 1}" for first, end in total.ranges)
    print(f"commit {total.commit}, seeds {ranges}")
    print(total.verdict())
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
