"""What one process tells another of a seed.

A module of its own, because a process that is started anew can't import what was
defined in ``__main__``.
"""

import traceback
from collections import Counter

from tests.simulation.run import Result, simulate

from coordinator.rare import reached_by

__all__ = ["Summary", "summarize"]


class Summary:
    """What came of one seed, small enough to send between processes."""

    def __init__(self, result: Result, rare: Counter[str]) -> None:
        self.seed = result.seed
        self.violations = [str(violation) for violation in result.violations]
        self.lives = result.lives
        self.crashes = result.crashes
        self.virtual_s = result.virtual_s
        self.workflows = result.workflows
        self.steps = result.steps
        self.faults = result.faults
        """How often what went wrong, by sort."""
        self.rare = rare
        """How often which rare point was reached."""


def summarize(seed: int) -> Summary | str:
    """Run *seed*; return what came of it, or the traceback of a bug of ours."""
    rare = Counter[str]()
    try:
        with reached_by(lambda name: rare.update((name,))):
            return Summary(simulate(seed), rare)
    except Exception:  # noqa: BLE001 -- a bug in the simulator is a failure of the seed
        return f"seed {seed}\n{traceback.format_exc()}"
