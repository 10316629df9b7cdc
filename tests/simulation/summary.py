"""What one process tells another of a seed.

A module of its own, because a process that is started anew can't import what was
defined in ``__main__``.
"""

import traceback

from tests.simulation.run import Result, simulate

__all__ = ["Summary", "summarize"]


class Summary:
    """What came of one seed, small enough to send between processes."""

    def __init__(self, result: Result) -> None:
        self.seed = result.seed
        self.violations = [str(violation) for violation in result.violations]
        self.lives = result.lives
        self.crashes = result.crashes
        self.virtual_s = result.virtual_s
        self.workflows = result.workflows
        self.steps = result.steps


def summarize(seed: int) -> Summary | str:
    """Run *seed*; return what came of it, or the traceback of a bug of ours."""
    try:
        return Summary(simulate(seed))
    except Exception:  # noqa: BLE001 -- a bug in the simulator is a failure of the seed
        return f"seed {seed}\n{traceback.format_exc()}"
