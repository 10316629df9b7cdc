"""What has ended is forgotten, and what was closed leaves nothing behind.

What stays in memory is looked for by its types, among all objects there are, once all
has ended and nobody waits any more; what stays on the loop, when all is closed.
"""

import asyncio
import gc
import heapq
from collections import Counter

from tests.simulation.dawdlers import Branches, Leaky
from tests.simulation.shop import Shop

from coordinator import Coordinator
from coordinator.runs import Run
from coordinator.steps import Steps
from coordinator.testing.loop import SimulatedLoop

__all__ = ["LEFTOVERS_S", "left_behind", "unreleased"]

LEFTOVERS_S = 5.0
"""Virtual seconds in which tasks that users left behind go on."""


async def unreleased(coordinator: Coordinator[Shop] | None) -> list[str]:
    """Return what is still there though *coordinator* has nothing to do."""
    if coordinator is None or coordinator.workflows():
        return []  # told elsewhere
    await asyncio.sleep(LEFTOVERS_S)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    # As a real loop does once they are many: a cancelled time-out knows its context.
    loop._timers = [entry for entry in loop._timers if not entry[3].cancelled()]
    heapq.heapify(loop._timers)
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


def left_behind() -> list[str]:
    """Return the tasks and timers of the product that are still on the loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, SimulatedLoop)
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    left = [repr(task.get_coro()) for task in tasks]
    left = [coroutine for coroutine in left if not _is_users(coroutine)]
    left += [repr(timer) for *_, timer in loop._timers if _is_ours(timer)]
    return sorted(left)


def _is_users(coroutine: str) -> bool:
    """Say whether a task is one that a command left behind."""
    return any(f" {shape.__name__}." in coroutine for shape in (Branches, Leaky))


def _is_ours(timer: asyncio.TimerHandle) -> bool:
    """Say whether *timer* calls the product, and keeps alive what it is part of."""
    owner = getattr(getattr(timer, "_callback", None), "__self__", None)
    module = type(owner).__module__
    return (
        not timer.cancelled()
        and module.startswith("coordinator.")
        and not module.startswith("coordinator.testing.")
    )
