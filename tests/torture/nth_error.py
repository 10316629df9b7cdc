"""Every I/O call fails: once, and for ever from there on; until a run is untouched.

    live:N:FAULT:HOW     of the scripted run
    again:N:FAULT:HOW    of the life that recovers what a SIGKILL left

    EIO       fails; where it is a flush, what was not flushed is gone: the kernel
              calls the pages clean that it could not write, and may drop them
    KEPT      EIO, and the pages stay in the cache, for the next process to read
    ENOSPC    the disk is full; of a write, half is written first
    EROFS     the file system was remounted read-only
    SHORT     of a write, half is written, and that is said: no error

HOW is `once` or `ever`. The calls are all of `tap`, those that only read among them.
EINTR is not here: Python makes an interrupted call again (PEP 475).

**What it proves.** Whatever call fails, in whichever of these ways: nothing that was
acknowledged was on a disk that did not have it; the process ends with an error that
says so, or refuses and goes on, as docs/journal-format.md says; and the next start
recovers everything.

**How it judges.** By the history checker, after the life that heals. An acknowledgement
behind a failed flush would be of bytes that are gone, so it shows there as lost. Beside
that: nothing but a dead journal may end the process, it may not hang, and in a folder
where a change failed for good (EIO, EROFS) nothing may be changed any more, but for the
lock, which is for people, and for what closing gives back.
"""

import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.torture.checker import check
from tests.torture.evidence import read_evidence
from tests.torture.harness import Harness, Result, spread
from tests.torture.nth import kill_at
from tests.torture.script import DONE, FAILED, Life, Place, heal, in_child, script
from tests.torture.tap import CHANGES, READS, Call, fails

__all__ = ["HARNESS"]

CODES = {
    "EIO": errno.EIO,
    "KEPT": errno.EIO,
    "ENOSPC": errno.ENOSPC,
    "EROFS": errno.EROFS,
    "SHORT": 0,
}
KINDS = (
    ("EIO", "once"),
    ("EIO", "ever"),
    ("KEPT", "once"),
    ("ENOSPC", "once"),
    ("ENOSPC", "ever"),
    ("EROFS", "ever"),
    ("SHORT", "once"),
)
CALLS = {"live": 1150, "again": 340}
"""More than there are: how many orders share a batch is the scheduler's business."""
PATIENCE_S = 0.5


class Failing:
    """The fault: the call of that number fails, and perhaps all behind it."""

    def __init__(self, number: int, kind: str, how: str, said: Path) -> None:
        self._number = number
        self._kind = kind
        self._for_ever = how == "ever"
        self._said = said
        self._unsynced: list[tuple[str, int, bytes]] = []
        """What was there before each write that is not flushed yet."""
        self._broken: set[str] = set()
        """Folders in which a change failed for good."""

    def __call__(self, call: Call) -> Any:
        """Make the call, or fail it."""
        due = call.number == self._number or (
            self._for_ever and call.number > self._number
        )
        if call.number == self._number:
            self._say(f"struck {call.name}")
        folder = call.path
        if call.name != "names":
            folder = folder.rpartition("/")[0]
        if call.name == "lock":
            # The next owner, who reads the partition and its archive anew.
            name = Path(folder).name
            self._broken = {at for at in self._broken if Path(at).name != name}
        if folder in self._broken and call.name in {"write", "sync", "rename", "names"}:
            self._say(f"{call.name} of {call.path} behind a failure")
        if not due:
            return self._through(call)
        if self._kind == "SHORT":
            return self._short(call)
        if self._kind == "ENOSPC":
            self._short(call)
        elif call.name in CHANGES and not call.path.endswith("/LOCK"):
            self._broken.add(folder)
        if self._kind == "EIO" and call.name == "sync":
            self._drop(call.path)
        raise fails(CODES[self._kind])

    def _through(self, call: Call) -> Any:
        if call.name == "write":
            descriptor, data, offset = call.arguments
            there = bytearray(len(data))
            size = os.preadv(descriptor, [there], offset)  # not tapped
            self._unsynced.append((call.path, offset, bytes(there[:size])))
        elif call.name == "sync":
            self._unsynced = [w for w in self._unsynced if w[0] != call.path]
        return call.done()

    def _short(self, call: Call) -> Any:
        """Write half of it."""
        if call.name != "write":
            return None if self._kind == "ENOSPC" else call.done()
        descriptor, data, offset = call.arguments
        return call.done(descriptor, bytes(data)[: (len(data) + 1) // 2], offset)

    def _drop(self, path: str) -> None:
        """Give the file the bytes that it had at its last flush."""
        descriptor = os.open(path, os.O_RDWR)
        try:
            for written, offset, before in reversed(self._unsynced):
                if written == path:
                    os.pwritev(descriptor, [before], offset)
        finally:
            os.close(descriptor)

    def _say(self, what: str) -> None:
        with self._said.open("a") as said:
            said.write(what + "\n")


def _cases(count: int, _seed: int) -> Iterable[str]:
    every = [
        f"{life}:{number}:{kind}:{how}"
        for life, calls in CALLS.items()
        for kind, how in KINDS
        for number in range(calls)
    ]
    lasts = [f"{life}:{calls}:EIO:once" for life, calls in CALLS.items()]
    return [*spread(every, count), *lasts]


def _run(case: str, seed: int, folder: Path) -> Result:
    life, text, kind, how = case.split(":")
    number = int(text)
    place = Place(folder)
    said = folder / "said.txt"
    said.touch()
    what: Callable[[Place, Life], None] = script
    if life == "again":
        drawn = random.Random(f"{seed}/{case}").randrange(500)
        in_child(place, script, Life(kill_at(drawn, "behind")))
        what = heal
    fault = Failing(number, kind, how, said)
    code = in_child(place, what, Life(fault, CHANGES | READS, patience_s=PATIENCE_S))
    struck, *behind = said.read_text().splitlines() or ["never reached"]
    violations = list(behind)
    facts = Counter({struck if struck == "never reached" else "failed": 1})
    if code == FAILED:
        facts["ended, as it should"] = 1
    elif code != DONE:
        violations.append(f"ended with {code}:\n{place.log.read_text()}")
    elif struck != "never reached":
        facts[f"went on behind {kind}"] = 1
    if number == CALLS[life] and struck != "never reached":
        violations.append(f"there are calls behind call {number}: raise the bound")
    if (code := in_child(place, heal, Life())) != DONE:
        violations.append(f"healing ended with {code}:\n{place.log.read_text()}")
        return Result(violations, 1, facts)
    violations += check(read_evidence(folder))
    return Result(violations, facts["failed"], facts)


HARNESS = Harness("nth-error", "failed calls", _cases, _run, full=0, small=60)
