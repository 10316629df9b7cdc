"""What a service did, in SQLite: each idempotency key once, whatever the network does.

The three writes of a call are one transaction: the world's change, the key with its
answer, and the call. So a service that dies between them has done nothing.

    effects   one row per idempotency key: what was decided and answered
        key, operation, subject, amount, request, response, epoch, at
        status    done | refused | nothing (an undo of what was not done, or is undone)
    world     what really happened, one row per change, *no* unique key: if the key
              failed to keep a charge from happening twice, two rows would show it
        id, operation, subject, delta (+ or - amount), undoes (a world.id, or null), at
    calls     every request that reached the work or was failed before it
        id, key, operation, epoch, at
        answer    done | refused | nothing: decided now; repeated: from `effects`;
                  conflict: the key came with another request; failed: not done (503)
        lost      1 if the reply was thrown away afterwards

`subject` is the order, `at` microseconds UTC. An audit asks, for instance:

    -- effects applied twice: must be empty
    SELECT subject, operation FROM world GROUP BY 1, 2 HAVING count(*) > 1;
    -- undone without having been done: must be empty
    SELECT * FROM effects WHERE status = 'nothing';
    -- what is still done: the orders that completed, and no other
    SELECT subject FROM world GROUP BY 1 HAVING sum(delta) <> 0;
    -- repeats that the keys absorbed
    SELECT count(*) FROM calls WHERE answer = 'repeated';
"""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

SCHEMA = """
CREATE TABLE IF NOT EXISTS effects (
    key TEXT PRIMARY KEY, operation TEXT NOT NULL, subject TEXT NOT NULL,
    amount INTEGER NOT NULL, status TEXT NOT NULL, request BLOB NOT NULL,
    response BLOB NOT NULL, epoch INTEGER NOT NULL, at INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS world (
    id INTEGER PRIMARY KEY, operation TEXT NOT NULL, subject TEXT NOT NULL,
    delta INTEGER NOT NULL, undoes INTEGER, at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS world_undoes ON world (undoes) WHERE undoes IS NOT NULL;
CREATE TABLE IF NOT EXISTS calls (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL, operation TEXT NOT NULL,
    answer TEXT NOT NULL, lost INTEGER NOT NULL, epoch INTEGER NOT NULL,
    at INTEGER NOT NULL
);
"""

Status = Literal["done", "refused", "nothing", "conflict"]


@dataclass(frozen=True)
class Call:
    """Who asks for what, under which key."""

    key: str
    operation: str
    request: bytes
    epoch: int


@dataclass(frozen=True)
class Decision:
    """What a service decided about a call, and answers whenever it is asked again."""

    status: Status
    response: bytes = b""
    subject: str = ""
    amount: int = 0


@dataclass(frozen=True)
class Change:
    """A row of `world`."""

    id: int
    subject: str
    delta: int


class Ledger:
    """One service's book; for one thread."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, isolation_level=None)
        self._database.execute("PRAGMA journal_mode = WAL")  # an audit may read along
        # No flush per commit: what is committed survives a kill -9 of the process, but
        # not a power cut. A demo may do that, a payment service may not.
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.executescript(SCHEMA)

    def apply(
        self, call: Call, decide: Callable[[], Decision], *, reply_lost: bool = False
    ) -> Decision:
        """Decide *call* if its key is new, else return what was decided then.

        *decide* changes the world with `change`, in the same transaction. A key that
        comes back with another request is a ``conflict``, and changes nothing.
        """
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            decision, answer = self._find(call)
            if decision is None:
                decision = decide()
                answer = decision.status
                self._remember(call, decision)
            self._note(call, answer, reply_lost=reply_lost)
        return decision

    def change(
        self, operation: str, subject: str, delta: int, undoes: int | None = None
    ) -> int:
        """Let it happen in the world; return the number of the change."""
        return self._insert("world", None, operation, subject, delta, undoes, now_us())

    def find_change(self, number: int) -> Change | None:
        """Return a change that was done and not undone."""
        row = self._database.execute(
            "SELECT id, subject, delta FROM world AS done"
            " WHERE id = ? AND undoes IS NULL"
            " AND NOT EXISTS (SELECT 1 FROM world WHERE undoes = done.id)",
            (number,),
        ).fetchone()
        return None if row is None else Change(*row)

    def failed(self, call: Call) -> None:
        """Note a call that was turned away before anything was done."""
        self._note(call, "failed", reply_lost=False)

    def close(self) -> None:
        """Close the file. Idempotent."""
        self._database.close()

    def _find(self, call: Call) -> tuple[Decision | None, str]:
        row = self._database.execute(
            "SELECT operation, request, status, response, subject, amount"
            " FROM effects WHERE key = ?",
            (call.key,),
        ).fetchone()
        if row is None:
            return None, ""
        if (row[0], row[1]) != (call.operation, call.request):
            return Decision("conflict"), "conflict"
        return Decision(*row[2:]), "repeated"

    def _remember(self, call: Call, decision: Decision) -> None:
        self._insert(
            "effects",
            call.key,
            call.operation,
            decision.subject,
            decision.amount,
            decision.status,
            call.request,
            decision.response,
            call.epoch,
            now_us(),
        )

    def _note(self, call: Call, answer: str, *, reply_lost: bool) -> None:
        self._insert(
            "calls",
            None,
            call.key,
            call.operation,
            answer,
            int(reply_lost),
            call.epoch,
            now_us(),
        )

    def _insert(self, table: str, *values: str | bytes | int | None) -> int:
        places = ", ".join("?" * len(values))
        cursor = self._database.execute(
            f"INSERT INTO {table} VALUES ({places})", values
        )
        assert cursor.lastrowid is not None
        return cursor.lastrowid


def now_us() -> int:
    """Return the time in microseconds UTC."""
    return time.time_ns() // 1000
