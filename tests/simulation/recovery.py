"""Recovery is a fixed point: what is read is what is read again."""

import asyncio
import random
from typing import Any

import msgspec
from tests.simulation.disk import Disk
from tests.simulation.handles import open_root
from tests.simulation.plan import Plan

from coordinator.errors import JournalError
from coordinator.journals.segments.journal import SegmentJournal
from coordinator.journals.segments.store import StoreOptions
from coordinator.log import Log, LogOptions
from coordinator.state import WorkflowState
from coordinator.testing.loop import Life, SimulatedLoop

__all__ = ["recovered_twice"]


def recovered_twice(disk: Disk, plan: Plan, journal_id: bytes) -> str:
    """Recover a copy of *disk* twice; return what is wrong, if anything is.

    The second time the journal holds a claim more, and the same workflows.
    """
    copy = disk.copy()
    try:
        first = _recover(copy, plan, journal_id)
        second = _recover(copy, plan, journal_id)
    except JournalError as error:
        return f"it can't be recovered: {error!r}"
    if first != second:
        return f"recovered once it is {first}, and then {second}"
    return ""


def _recover(disk: Disk, plan: Plan, journal_id: bytes) -> list[Any]:
    life = Life(0)
    loop = SimulatedLoop(random.Random(0), life)
    try:
        return loop.run_until_complete(_read(disk, life, plan, journal_id))
    finally:
        loop.bury()
        disk.faults.power = 0.0
        disk.crash()


async def _read(disk: Disk, life: Life, plan: Plan, journal_id: bytes) -> list[Any]:
    journal = await SegmentJournal.open_folder(
        open_root(disk, life),
        options=StoreOptions(segment_size=plan.segment_size, retention_s=1e9),
        clock=lambda: 0,
        new_id=lambda: journal_id,
        process="check",
    )
    log = await Log.open(
        journal,
        0,
        owner="check",
        clock=lambda: 0,
        options=LogOptions(),
        on_failure=lambda _: None,
    )
    found = [_plain(state) for state in log.state.workflows.values()]
    await log.partition.aclose()
    await asyncio.sleep(0.1)
    return found


def _plain(state: WorkflowState) -> Any:
    return msgspec.structs.asdict(state)
