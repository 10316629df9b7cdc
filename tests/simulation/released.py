"""What has ended is forgotten: nothing of it stays in memory.

Looked for by its types, among all objects there are, once all has ended and nobody
waits any more.
"""

import asyncio
import gc
from collections import Counter

from tests.simulation.shop import Shop

from coordinator import Coordinator
from coordinator.runs import Run
from coordinator.steps import Steps

__all__ = ["LEFTOVERS_S", "unreleased"]

LEFTOVERS_S = 5.0
"""Virtual seconds in which tasks that users left behind go on."""


async def unreleased(coordinator: Coordinator[Shop] | None) -> list[str]:
    """Return what is still there though *coordinator* has nothing to do."""
    if coordinator is None or coordinator.workflows():
        return []  # told elsewhere
    await asyncio.sleep(LEFTOVERS_S)
    engine = coordinator.engine
    gc.collect()
    kept = Counter(
        type(one).__name__
        for one in gc.get_objects()
        if (isinstance(one, Steps) and one._host is engine)
        or (isinstance(one, Run) and one.log in list(engine._logs or ()))
    )
    left = {
        "count for admission": engine.admission.count,
        "are suspended": len(engine.admission.suspensions),
        "are scheduled": len(engine.schedule),
        "are active": len(engine._active),
        "wait at the door": engine.entrance.waiting,
        f"are in memory: {dict(kept)}": kept.total(),
    }
    return [
        f"all has ended, and {count} {what}" for what, count in left.items() if count
    ]
