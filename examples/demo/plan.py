"""When things go wrong: a plan made from a seed. Pure.

    answered orders  0 ..[ kill ]....[ kill ]..[ outage ]..[ kill ]....[ kill ].... all

The run is cut into as many parts as there are disasters; each strikes at a random place
in its part. Progress decides, not the clock: on a slow machine as on a fast one, each
kill strikes while orders are in flight, and none hides behind the outage, as the
outage's part is over only when payments works again.
"""

import random
from dataclasses import dataclass

FIRST, LAST = 0.04, 0.92  # Share of the orders before and after which nothing happens.
SETTLE = 0.7  # Share of its part in which a disaster may strike; the rest is recovery.


@dataclass(frozen=True)
class Kill:
    """Kill the coordinator with SIGKILL."""

    number: int
    after: int
    """Answered orders."""
    pause_s: float
    """Seconds to wait on top, so that no kill is in step with a report. Short: few
    orders are answered meanwhile, so that some are left to strike."""


@dataclass(frozen=True)
class Outage:
    """Take payments down."""

    after: int
    seconds: float


def make_plan(
    orders: int, kills: int, outage_s: float, seed: int
) -> list[Kill | Outage]:
    """Return what happens, in order; an outage of 0 s is none."""
    dice = random.Random(f"{seed}/plan")
    parts = kills + (outage_s > 0)
    outage_part = kills // 2 if outage_s > 0 else None
    plan: list[Kill | Outage] = []
    for part in range(parts):
        share = FIRST + (LAST - FIRST) * (part + SETTLE * dice.random()) / parts
        after = round(orders * share)
        if part == outage_part:
            plan.append(Outage(after, outage_s))
        else:
            number = 1 + sum(isinstance(past, Kill) for past in plan)
            plan.append(Kill(number, after, dice.uniform(0, 0.02)))
    return plan
