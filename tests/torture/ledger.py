"""What the services did, in SQLite; and a service's promise about its keys.

    keys     one row per idempotency key: what was decided under it
        key, service, operation, subject, refused, epoch, at
    world    what really happened, one row per effect, no unique key: if a key failed to
             keep an effect from happening twice, two rows would show it
        number, key, service, subject, delta (+1 done, -1 undone), at

`at` is in nanoseconds of the machine's monotonic clock, as in the history.

Both writes of a call are one transaction. It is not flushed: a ledger stands for a
service elsewhere, whose machine does not die with ours. `decide` is the business: what
is refused, and whose reply is lost, follows from the order's number, so that every
attempt, in whichever life, is answered alike.
"""

import sqlite3
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

__all__ = ["SERVICES", "Answer", "Effect", "Known", "Ledger", "decide", "read_ledger"]

SERVICES = ("inventory", "payments", "shipping")

SCHEMA = """
create table if not exists keys (key text primary key, service text, operation text,
    subject text, refused integer, epoch integer, at integer);
create table if not exists world (number integer primary key, key text, service text,
    subject text, delta integer, at integer);
"""

REFUSES_EVERY = 9
LOSES_EVERY = 7


@dataclass(frozen=True)
class Known:
    """A row of `keys`."""

    key: str
    service: str
    operation: str
    subject: str
    refused: int
    """1 if it was, else 0."""
    epoch: int
    at: int = 0


@dataclass(frozen=True)
class Effect:
    """A row of `world`."""

    key: str
    service: str
    subject: str
    delta: int
    at: int = 0


@dataclass(frozen=True)
class Answer:
    """What a service says of a call."""

    refused: bool
    first: bool
    """Whether this is the first call under its key."""


def decide(service: str, operation: str, subject: str) -> tuple[bool, bool]:
    """Return whether the call is refused, and whether its first reply is lost."""
    number = int(subject.rpartition("-")[2])
    refused = (service, operation) == ("shipping", "do") and not number % REFUSES_EVERY
    return refused, not number % LOSES_EVERY


class Ledger:
    """The book of all services; for one thread."""

    def __init__(self, path: Path | str) -> None:
        self._database = sqlite3.connect(path, isolation_level=None, timeout=60)
        self._database.executescript("pragma synchronous=off;" + SCHEMA)

    def apply(
        self, *, key: str, service: str, operation: str, subject: str, epoch: int
    ) -> Answer:
        """Do what is asked if the key is new, and answer as at the first time."""
        refused, _ = decide(service, operation, subject)
        now_ns = time.monotonic_ns()
        self._database.execute("begin immediate")
        with self._database:
            known = self._database.execute(
                "insert or ignore into keys values (?, ?, ?, ?, ?, ?, ?)",
                (key, service, operation, subject, refused, epoch, now_ns),
            )
            first = known.rowcount == 1
            if first and not refused:
                delta = 1 if operation == "do" else -1
                self._database.execute(
                    "insert into world values (null, ?, ?, ?, ?, ?)",
                    (key, service, subject, delta, now_ns),
                )
        return Answer(refused, first)

    def put_back(self, keys: Iterable[Known], world: Iterable[Effect]) -> None:
        """Have it say this, as it did at an earlier moment."""
        self._database.executemany(
            "insert into keys values (?, ?, ?, ?, ?, ?, ?)", map(_row, keys)
        )
        self._database.executemany(
            "insert into world values (null, ?, ?, ?, ?, ?)", map(_row, world)
        )

    def read(self) -> tuple[list[Known], list[Effect]]:
        """Return what is in the book, in the order in which it came about."""
        return _read(self._database)

    def effects(self) -> int:
        """Return how many effects there are."""
        (count,) = self._database.execute("select count(*) from world").fetchone()
        return int(count)

    def close(self) -> None:
        """Close the file."""
        self._database.close()


def _row(row: Known | Effect) -> tuple[object, ...]:
    return tuple(vars(row).values())  # dataclasses.astuple copies deeply: 30 us, not 1


def read_ledger(path: Path) -> tuple[list[Known], list[Effect]]:
    """Return what is in the book at *path*, in the order in which it came about."""
    with closing(sqlite3.connect(path)) as database:
        return _read(database)


def _read(database: sqlite3.Connection) -> tuple[list[Known], list[Effect]]:
    keys = database.execute(
        "select key, service, operation, subject, refused, epoch, at"
        " from keys order by rowid"
    )
    world = database.execute(
        "select key, service, subject, delta, at from world order by number"
    )
    return [Known(*row) for row in keys], [Effect(*row) for row in world]
