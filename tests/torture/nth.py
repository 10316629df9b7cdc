"""SIGKILL at exactly the n-th system call, for every n.

    live:N:HOW     the scripted run dies at its N-th call; then it is healed
    again:N:HOW    a run dies at a drawn call; the life that heals it dies at *its* N-th
                   call, in the middle of recovery; then it is healed

HOW is `before` the call, `within` it (half of what is written is written), or `behind`
it. The calls are all that change something: write, fdatasync, fsync of a folder,
rename, unlink, ftruncate, fallocate, mkdir, and open, which makes files.

**What it proves.** At no moment between two system calls does the process hold anything
in memory that it has acknowledged and that the files don't have; and there is no state
of the files, of those that a killed process can leave, from which a start does not go
on. A kill at a random time meets few of these moments: most of a run is spent in the
same two calls.

**How it judges.** By the history checker, after a life without faults has asked again
for all. A case whose N-th call never came is counted apart; N goes on until there is
one, so no call is left out.
"""

import random
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.torture.checker import check
from tests.torture.evidence import read_evidence
from tests.torture.harness import Harness, Result, spread
from tests.torture.script import DONE, Life, Place, heal, in_child, script
from tests.torture.tap import Call, Fault, die

__all__ = ["HARNESS", "kill_at"]

HOWS = ("before", "within", "behind")
CALLS = {"live": 610, "again": 190}
"""More than there are: how many orders share a batch is the scheduler's business."""


def kill_at(number: int, how: str) -> Fault:
    """Return a fault: SIGKILL before, within or behind the call of that number."""

    def fault(call: Call) -> Any:
        if call.number != number:
            return call.done()
        if how == "within" and call.name == "write":
            descriptor, data, offset = call.arguments
            call.done(descriptor, bytes(data)[: len(data) // 2], offset)
        elif how == "behind":
            call.done()
        return die()

    return fault


def _cases(count: int, _seed: int) -> Iterable[str]:
    every = [
        f"{kind}:{number}:{how}"
        for kind, calls in CALLS.items()
        for number in range(calls)
        for how in HOWS
    ]
    # The last of each kind in any case: they show that there is no call behind them.
    lasts = [f"{kind}:{calls}:before" for kind, calls in CALLS.items()]
    return [*spread(every, count), *lasts]


def _run(case: str, seed: int, folder: Path) -> Result:
    kind, text, how = case.split(":")
    number = int(text)
    place = Place(folder)
    what: Callable[[Place, Life], None] = script
    if kind == "again":
        drawn = random.Random(f"{seed}/{case}").randrange(500)
        in_child(place, script, Life(kill_at(drawn, "behind")))
        what = heal
    code = in_child(place, what, Life(kill_at(number, how)))
    violations: list[str] = []
    if code == DONE:
        facts = Counter({"never reached": 1})
    else:
        facts = Counter({"killed": 1})
        if code != -9:
            violations.append(f"ended with {code}:\n{place.log.read_text()}")
        if number == CALLS[kind]:
            violations.append(f"there are calls behind call {number}: raise the bound")
    if (code := in_child(place, heal, Life())) != DONE:
        violations.append(f"healing ended with {code}:\n{place.log.read_text()}")
        return Result(violations, 1, facts)
    violations += check(read_evidence(folder))
    return Result(violations, facts["killed"], facts)


HARNESS = Harness("nth", "kills", _cases, _run, full=0, small=60)
