"""Torture the real thing: real files, real processes, real kills.

    python -m tests.torture                          all, each to its full count
    python -m tests.torture kill --count 100         one, and how often
    python -m tests.torture nth --case kill:117:within --seed 1    one case, again

Prints progress, a verdict per harness, and for each case that fails the one command
that repeats it. Exits with 1 if anything failed; what the machine can't do is said, and
fails where CI is set.
"""

import argparse
import os
import sys

from tests.torture.harness import Unavailable, load, run_case, torture

__all__ = ["NAMES", "main"]

NAMES = (
    "kill",
    "nth",
    "nth-error",
    "states",
    "power",
    "full",
    "bits",
    "freeze",
    "double",
    "nats-kills",
)


def main(arguments: list[str] | None = None) -> int:
    """Parse *arguments* and do what they say; return the exit code."""
    parser = argparse.ArgumentParser("python -m tests.torture", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(NAMES))
    parser.add_argument("--count", type=int, help="how many cases; 0: all there are")
    parser.add_argument("--small", action="store_true", help="as every change has to")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", help="this one alone")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--folder", help="where; that of temporary files by default")
    parser.add_argument("--keep-going", action="store_true", help="past failures")
    parser.add_argument("--minutes", type=float, help="begin no case after these")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(NAMES)):
        parser.error(f"there is no {unknown[0]}; there are {', '.join(NAMES)}")
    if options.case is not None:
        (name,) = options.names
        result = run_case(name, options.case, options.seed, options.folder)
        print(f"{name} {options.case}: {result}")
        return 1 if result.violations else 0
    failed = False
    for name in options.names or NAMES:
        harness = load(name)
        count = harness.small if options.small else harness.full
        try:
            verdict = torture(
                harness,
                count=count if options.count is None else options.count,
                seed=options.seed,
                jobs=options.jobs,
                where=options.folder,
                keep_going=options.keep_going,
                minutes=options.minutes,
            )
        except Unavailable as lack:
            print(f"{name}: not run: {lack}", file=sys.stderr)
            failed = failed or "CI" in os.environ
            continue
        print(f"\r{verdict}" if sys.stderr.isatty() else verdict, flush=True)
        failed = failed or bool(verdict.failures)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
