"""The scripted run: a coordinator on a real folder, in a process of its own.

    first life    16 orders, four at a time; closed in order
    second life   16 more, and two of the first again; closed in order

Segments of 4 KiB, a checkpoint every 2 KiB, no retention: so within the run there are
rolls, checkpoints, trims into the archive, `Started` and `Carried` records. `heal` is
the life that comes after whatever went wrong: it asks again, by key, for everything
that was ever asked for, and waits until nothing is left.

A run is a fork: what it costs is the run, not Python's start.
"""

import asyncio
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tests.torture.history import Event, History, Notes, Value, read_history
from tests.torture.ledger import Ledger
from tests.torture.sagas import LocalService, Order, Services, make_order
from tests.torture.tap import CHANGES, Fault, tapped, through

from coordinator import (
    Coordinator,
    JournalError,
    LogOptions,
    NotAcceptedError,
    Options,
    Refused,
    Retry,
)
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.journal import SegmentJournal
from coordinator.journals.segments.posix import PosixFolder
from coordinator.journals.segments.space import not_opened
from coordinator.journals.segments.store import StoreOptions
from coordinator.ports import Journal

__all__ = [
    "DONE",
    "FAILED",
    "HEALED",
    "ORDERS",
    "STORE",
    "Life",
    "Place",
    "ask",
    "asked_for",
    "coordinator_of",
    "go_on",
    "heal",
    "in_child",
    "live",
    "open_journal",
    "order_all",
    "script",
]

ORDERS = 32
PARTITIONS = 2
STORE = StoreOptions(segment_size=4 * 1024, retention_s=0)
OPTIONS = Options(
    retry=Retry(first_s=0.002, longest_s=0.02, attempts_max=None),
    log=LogOptions(checkpoint_size=2 * 1024, carry_after=2),
)
AT_ONCE = 4
LATE_AFTER = 90
"""Effects before which the late order is not answered, of the 107 of a whole run."""
HEALED = 1000
"""Number of the order that only the healing life asks for."""

DONE, FAILED = 0, 3
HANG_S = 120
"""A run takes less than a second; what is ended by SIGALRM after this hung."""


@dataclass(frozen=True)
class Life:
    """What a run is exposed to."""

    fault: Fault = through
    taps: frozenset[str] = CHANGES
    """The calls that the fault is asked about."""
    store: StoreOptions = STORE
    patience_s: float | None = None
    """After which a run that can't go on, on a full disk, is closed. Nothing is judged
    by it: what was not answered by then is asked for again in the life that heals."""


@dataclass(frozen=True)
class Place:
    """The folder of a run."""

    path: Path
    disk: str = "."
    """Where the journal's folder is, in *path*: another file system, perhaps."""

    @property
    def journal(self) -> Path:
        return self.path / self.disk / "journal"

    @property
    def history(self) -> Path:
        return self.path / "history.jsonl"

    @property
    def ledger(self) -> Path:
        return self.path / "ledger.sqlite"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"


def coordinator_of(journal: Journal, services: Services) -> Coordinator[Services]:
    """Return the coordinator of every scripted run."""
    return Coordinator(services, commands=[Order], journal=journal, options=OPTIONS)


async def open_journal(
    folder: Folder, store: StoreOptions = STORE, partitions: int | None = PARTITIONS
) -> SegmentJournal:
    """Open the journal of a run, with its archive."""
    try:
        archive = folder.make_folder("archive")
    except OSError as error:
        raise not_opened(folder.path, error) from error
    return await SegmentJournal.open_folder(
        folder, partitions=partitions, options=store, archive=archive
    )


async def ask(
    coordinator: Coordinator[Services],
    order: Order,
    history: Notes,
    *,
    waits: bool = True,
) -> bool:
    """Ask for *order*, and note what is answered; *waits* for its end.

    Returns:
        Whether it was taken in.

    Raises:
        JournalError: The journal is dead.
    """
    asked = Value(order.id)
    history.note("invoke", "submit", asked)
    try:
        handle = await coordinator.submit(order)
    except NotAcceptedError as error:
        history.note("fail", "submit", Value(order.id, str(error)))
        return False
    except JournalError as error:
        history.note("info", "submit", Value(order.id, str(error)))
        raise
    history.note("ok", "submit", asked)
    if not waits:
        return True
    try:
        receipt = await handle.result()
        answer = Value(order.id, "completed", ",".join(receipt.parts))
    except Refused as refused:
        answer = Value(order.id, "compensated", refused.reason)
    history.note("ok", "result", answer)
    return True


async def order_all(
    coordinator: Coordinator[Services],
    orders: Iterable[Order],
    history: Notes,
    leave: Sequence[Order] = (),
) -> None:
    """Have *orders* done, `AT_ONCE` at a time; ends early when the journal is dead.

    Those of *leave* are only submitted.
    """
    todo = iter(orders)

    async def customer() -> None:
        with suppress(JournalError):
            for order in todo:
                await ask(coordinator, order, history, waits=order not in leave)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(customer())


async def live(
    place: Place,
    orders: Iterable[Order],
    life: Life,
    *,
    leave: Sequence[Order] = (),
    late_after: int = 0,
) -> None:
    """Live once: open, have *orders* done but for *leave*, close.

    Raises:
        JournalError: The journal could not be opened, or died.
    """
    ledger = Ledger(place.ledger)
    try:
        with History(place.history, f"pid {os.getpid()}") as history:
            journal = await open_journal(_folder_of(place), life.store)
            services = Services(lambda name: LocalService(name, ledger, late_after))
            try:
                async with coordinator_of(journal, services) as coordinator:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(life.patience_s):
                            await order_all(coordinator, orders, history, leave)
                    failed = coordinator.engine.failed
                    if failed is not None and failed.done():
                        raise failed.result()
            finally:
                await journal.aclose()
    finally:
        ledger.close()


def _folder_of(place: Place) -> PosixFolder:
    try:
        return PosixFolder.make(str(place.journal))
    except OSError as error:
        raise not_opened(str(place.journal), error) from error


def script(place: Place, life: Life) -> None:
    """Do the whole run.

    Raises:
        JournalError: The journal could not be opened, or died.
    """
    orders = [make_order(number) for number in range(ORDERS)]
    first, second = orders[: ORDERS // 2], orders[ORDERS // 2 :]
    late = orders[1]
    asyncio.run(live(place, first, life, leave=[late], late_after=LATE_AFTER))
    second += [orders[3], late]  # asked for again: one has its answer, one has not
    asyncio.run(live(place, second, life, late_after=LATE_AFTER))


def heal(place: Place, life: Life) -> None:
    """Ask again, by key, for all that was ever asked for, and for one order more.

    Raises:
        JournalError: The journal could not be opened, or died.
    """
    # The order of asking must not matter; that of a dictionary is at least the same.
    orders = asked_for(read_history(place.history))
    asyncio.run(live(place, [*orders, make_order(HEALED)], life))


def go_on(place: Place, life: Life, count: int) -> None:
    """Ask again for all that was asked for, and for *count* orders more.

    Raises:
        JournalError: The journal could not be opened, or died.
    """
    orders = asked_for(read_history(place.history))
    more = range(len(orders) + ORDERS, len(orders) + ORDERS + count)
    asyncio.run(live(place, [*map(make_order, more), *orders], life))


def asked_for(events: Iterable[Event]) -> list[Order]:
    """Return the orders that clients ever asked for, each once."""
    ids = dict.fromkeys(event.value.id for event in events)
    return [make_order(int(id_.rpartition("-")[2])) for id_ in ids]


def in_child(place: Place, what: Callable[[Place, Life], None], life: Life) -> int:
    """Do *what* in a fork of this process; return its exit code, negative for signals.

    A dead journal is `FAILED`; what is not expected is 1, with a traceback in the log.
    """
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    code = 1
    try:
        signal.alarm(HANG_S)
        log = os.open(place.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        with tapped(str(place.journal), life.taps, life.fault):
            what(place, life)
        code = DONE
    except JournalError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        code = FAILED
    except BaseException:  # noqa: BLE001 -- told by the code, and ended below
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)
