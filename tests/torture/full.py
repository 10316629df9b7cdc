"""A disk that fills up, at every level of free space, in steps of 512 bytes.

    run:LEVEL      so many bytes are free behind the first segment; the coordinator
                   goes on until it refuses, and then has to finish what runs
    kill:LEVEL     it is killed in the moment of the refusal; what runs is finished by
                   a start on the disk that is still full
    open:LEVEL     so many bytes are free in all, and there is no journal yet

Levels go from nothing to two segments and a bit. The disk is the real one, with a limit
that the tap keeps: what is allocated, written behind an end or given back is counted
to the byte, where the blocks of a real disk would hide seven levels of eight.

**What it proves.** Wherever space ends (within a checkpoint, a roll, an allocation, the
copy that a start makes) new commands are refused in words, running ones go on from the
reserve, nothing that was acknowledged depends on what did not fit, and as soon as there
is space again, commands are taken without a restart.

**How it judges.** Some orders wait for a service while others are taken until one is
refused; the refusal names the folder. Then the service answers, on the full disk: the
orders that wait must all end. Then there is space, and an order must be taken. A start
that finds no space may refuse instead, in words; it must not claim that anything is
broken. The history checker judges at the end.
"""

import asyncio
import errno
import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.torture.checker import check
from tests.torture.evidence import read_evidence
from tests.torture.harness import Harness, Result, spread
from tests.torture.history import History
from tests.torture.ledger import SERVICES, Ledger
from tests.torture.sagas import LocalService, Order, Services
from tests.torture.script import (
    DONE,
    FAILED,
    Life,
    Place,
    ask,
    coordinator_of,
    heal,
    in_child,
    live,
    open_journal,
)
from tests.torture.tap import CHANGES, READS, Call, die, fails

from coordinator.journals.segments.posix import PosixFolder
from coordinator.journals.segments.store import StoreOptions

__all__ = ["HARNESS"]

STEP = 512
STORE = StoreOptions(segment_size=16 * 1024, retention_s=0)
LEVELS = 2 * STORE.segment_size // STEP + 8
WAITING = tuple(Order(f"o-{number}", "late") for number in range(1, 5))
"""Orders that wait for a service when the disk fills: what they still have to write
fits in half a segment, which is what is promised."""
NEVER = PLENTY = 1 << 30
SIGKILL = -9
KINDS = ("run", "kill", "open")


class Disk:
    """A fault: a disk of so many bytes."""

    def __init__(self, folder: Path, free: int) -> None:
        self._folder = folder
        self.size = _used(folder) + free

    def __call__(self, call: Call) -> Any:
        """Make the call if there is space for what it takes."""
        free = self.size - _used(self._folder)
        if call.name == "free":
            return SimpleNamespace(f_bavail=max(0, free), f_frsize=1)
        if call.name == "allocate":
            _, start, length = call.arguments
            if start + length - _size(call.path) > free:
                raise fails(errno.ENOSPC)
        elif call.name == "write":
            descriptor, data, offset = call.arguments
            lacks = offset + len(data) - max(_size(call.path), offset) - free
            if offset + len(data) > _size(call.path) and lacks > 0:
                if (fits := len(data) - lacks) > 0:
                    call.done(descriptor, bytes(data)[:fits], offset)
                raise fails(errno.ENOSPC)
        return call.done()


def _used(folder: Path) -> int:
    return sum(
        _size(os.path.join(path, name))  # noqa: PTH118 -- a thousand times a second
        for path, _, names in os.walk(folder)
        for name in names
    )


def _size(path: str) -> int:
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return 0


def _cases(count: int, _seed: int) -> Iterable[str]:
    every = [f"{kind}:{level * STEP}" for level in range(LEVELS) for kind in KINDS]
    return spread(every, count)


def _run(case: str, _seed: int, folder: Path) -> Result:
    kind, level = case.split(":")
    place = Place(folder)
    place.journal.mkdir()
    facts = Counter({kind: 1})
    violations: list[str] = []
    if kind != "open":
        code = in_child(place, _fill, _life(place, int(level), dies=kind == "kill"))
        if code != (DONE if kind == "run" else SIGKILL):
            violations.append(f"ended with {code}:\n{place.log.read_text()}")
    if kind != "run":
        limit = int(level)
        if kind == "kill" and not violations:
            limit = int((folder / "limit").read_text()) - _used(place.journal)
        code = in_child(place, _finish, _life(place, limit))
        said = place.log.read_text()
        no_space = code == FAILED and "JournalFullError" in said
        facts["starts refused"] += no_space
        if code != DONE and not (kind == "open" and no_space):
            violations.append(f"the start ended with {code}:\n{said}")
    if (code := in_child(place, heal, Life(store=STORE))) != DONE:
        violations.append(f"healing ended with {code}:\n{place.log.read_text()}")
        return Result(violations)
    return Result(violations + check(read_evidence(folder)), 1, facts)


@dataclass(frozen=True)
class OnDisk(Life):
    """A life on a disk of limited size."""

    disk: Disk | None = None
    level: int = 0
    dies: bool = False
    """In the moment in which the disk is full."""


def _life(place: Place, level: int, *, dies: bool = False) -> OnDisk:
    disk = Disk(place.journal, level)
    return OnDisk(disk, CHANGES | READS, STORE, disk=disk, level=level, dies=dies)


def _fill(place: Place, life: Life) -> None:
    assert isinstance(life, OnDisk)
    asyncio.run(_fill_the_disk(place, life))


async def _fill_the_disk(place: Place, life: OnDisk) -> None:
    """Take orders until one is refused; finish what runs; have space; take orders."""
    disk = life.disk
    assert disk is not None
    disk.size = PLENTY
    ledger = Ledger(place.ledger)
    services = [LocalService(name, ledger, NEVER) for name in SERVICES]
    by_name = {service.service_name: service for service in services}
    with History(place.history, "client") as history:
        journal = await open_journal(PosixFolder.make(str(place.journal)), life.store)
        receiver = Services(lambda name: by_name[name])
        async with (
            coordinator_of(journal, receiver) as shop,
            asyncio.TaskGroup() as run,
        ):
            waiting = [run.create_task(ask(shop, o, history)) for o in WAITING]
            await _until(lambda: len(shop.workflows()) == len(waiting))
            disk.size = _used(place.journal) + life.level
            (place.path / "limit").write_text(str(disk.size))
            numbers = itertools.count(10)
            while await ask(shop, _order(next(numbers)), history):
                pass
            if life.dies:
                die()
            for service in services:
                service.release()
            await asyncio.wait(waiting)
            disk.size = PLENTY
            await _until(lambda: not journal.full)  # it looks once a second
            assert await ask(shop, _order(next(numbers)), history)
        await journal.aclose()
    ledger.close()


async def _until(holds: Callable[[], bool]) -> None:
    """Return when *holds* does; a run that never gets there is ended as hung."""
    loop = asyncio.get_running_loop()
    while not holds():
        moment: asyncio.Future[None] = loop.create_future()
        loop.call_later(0.005, moment.set_result, None)
        await moment


def _finish(place: Place, life: Life) -> None:
    """Start on the disk as it is, finish what runs, and ask for one order more."""
    asyncio.run(live(place, [*WAITING, _order(1001)], life))


def _order(number: int) -> Order:
    return Order(f"o-{number}", padding="x" * 400)


HARNESS = Harness("full", "levels of free space", _cases, _run, full=0, small=6)
