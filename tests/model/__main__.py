"""Explore the models of docs/shared-log.md, and count.

    python -m tests.model               the large bounds, then the planted bugs
    python -m tests.model --small       the bounds of the tests
    python -m tests.model --stories     what is found without each rule, in full

Exits with 1 if something does not hold, or a planted bug is not found.
"""

import argparse
import sys

from tests.model.locked import LockedLog
from tests.model.models import LARGE, SMALL, explored
from tests.model.planted import BUGS
from tests.model.shared import SharedLog

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Parse *arguments* and do what they say; return the exit code."""
    parser = argparse.ArgumentParser(
        "python -m tests.model",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--small", action="store_true", help="the bounds of the tests")
    parser.add_argument("--stories", action="store_true", help="of the planted bugs")
    options = parser.parse_args(arguments)
    if options.stories:
        return _tell_stories()
    return _explore(SMALL if options.small else {**SMALL, **LARGE}) or _hunt()


def _explore(models: dict[str, SharedLog | LockedLog]) -> int:
    """Explore *models* up to the first in which something does not hold."""
    print("| model | states | transitions | deep | seconds |\n|---|---|---|---|---|")
    states = transitions = 0
    seconds = 0.0
    for name, model in models.items():
        result = explored(model)
        if result.violation:
            print(f"{name}: {result}")
            return 1
        states += result.states
        transitions += result.transitions
        seconds += result.seconds
        print(
            f"| {name} | {result.states:,} | {result.transitions:,} | {result.depth} "
            f"| {result.seconds:.1f} |",
            flush=True,
        )
    print(f"| all {len(models)} | {states:,} | {transitions:,} | | {seconds:.1f} |")
    return 0


def _hunt() -> int:
    """Say how many steps it takes to find each planted bug."""
    missed = 0
    for bug in BUGS:
        result = explored(bug.model)
        found = result.violation.startswith(bug.shows)
        missed += not found
        end = f"{len(result.story)} steps" if found else "NOT FOUND"
        print(f"{bug}: {end}")
    print(f"{len(BUGS) - missed} of {len(BUGS)} planted bugs found")
    return 1 if missed else 0


def _tell_stories() -> int:
    for bug in BUGS:
        print(f"{bug}\n{explored(bug.model)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
