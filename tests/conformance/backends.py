"""The backends that the conformance suite asks; add one here and it is asked too."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from coordinator.journals.memory import MemoryJournal
from coordinator.journals.segments.journal import SegmentJournal
from coordinator.journals.segments.posix import PosixFolder
from coordinator.journals.segments.store import StoreOptions
from coordinator.ports import Journal

__all__ = ["BACKENDS", "MakeBackend", "Reopen"]

Reopen = Callable[[], Awaitable[Journal]]
"""Returns the same journal each time, as a process that starts again would see it. The
one before is closed first."""

MakeBackend = Callable[[Path, int], Reopen]
"""Takes an empty folder and the number of partitions."""


def _memory(_path: Path, partitions: int) -> Reopen:
    journal = MemoryJournal(partitions=partitions)

    async def reopen() -> Journal:
        await journal.aclose()
        return journal

    return reopen


def _file(path: Path, partitions: int) -> Reopen:
    opened: list[Journal] = []
    # Small, so that every other test rolls; no retention, so that a trim is seen.
    options = StoreOptions(segment_size=4096, retention_s=0)

    async def reopen() -> Journal:
        while opened:
            await opened.pop().aclose()
        folder = PosixFolder.make(str(path))
        journal = await SegmentJournal.open_folder(
            folder, partitions=partitions, options=options
        )
        opened.append(journal)
        return journal

    return reopen


BACKENDS: dict[str, MakeBackend] = {"memory": _memory, "file": _file}
