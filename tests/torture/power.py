"""Power cuts on real file systems: ext4 and XFS, shut down under load.

    ext4:N    a file system in a file, mounted through a loop device; a run on it is cut
    xfs:N     off `CUTS` times, and goes on behind each; then it is healed. A life that
              ended before its cut counts for nothing, and another one follows

The cut is the ioctl by which file system developers test their own (EXT4_IOC_SHUTDOWN,
XFS_IOC_GOINGDOWN, with NOLOGFLUSH): from that moment nothing reaches the device, not
the log of the file system either. Then the process is killed, the file system unmounted
and mounted again, which replays its log. What was neither flushed nor, by the file
system's own choice, written, is gone: bytes, sizes and names.

It comes at a drawn system call of the run (before it, or behind it, from within the
thread that makes it), or at a drawn time, from another thread: in the midst of whatever
the kernel does just then.

**What it proves.** What the code takes for durable is so on the file systems that
people run it on, in the order in which they really write, and not just on our models.

**How it judges.** By the history checker, after the life that heals: it has what
clients were told before each of the cuts.
"""

import fcntl
import os
import random
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.torture.checker import check
from tests.torture.evidence import read_evidence
from tests.torture.harness import Harness, Result, Unavailable
from tests.torture.script import (
    DONE,
    FAILED,
    Life,
    Place,
    go_on,
    heal,
    in_child,
    script,
)
from tests.torture.tap import Call, Fault, die, through

__all__ = ["HARNESS"]

SHUTDOWN = 0x8004587D
"""_IOR('X', 125, __u32), of both."""
NO_LOG_FLUSH = 2
CUTS = 10
LIVES = 3 * CUTS
"""At most, for so many cuts: about one in fifty ends first."""
MAKE = {
    "ext4": ("mkfs.ext4", "-q", "-F", "-E", "lazy_itable_init=1,lazy_journal_init=1"),
    "xfs": ("mkfs.xfs", "-q", "-f"),
}
SIZES = {"ext4": 32 << 20, "xfs": 320 << 20}
"""Bytes; sparse. XFS is not made smaller."""
SIGKILL = -9


def _cases(count: int, _seed: int) -> Iterable[str]:
    for number in range(-(-count // (2 * CUTS))):
        yield f"ext4:{number}"
        yield f"xfs:{number}"


def cut(mounted: Path) -> None:
    """Cut the power of the file system that is mounted there, and die."""
    descriptor = os.open(mounted, os.O_RDONLY)
    fcntl.ioctl(descriptor, SHUTDOWN, NO_LOG_FLUSH.to_bytes(4, "little"))
    die()


def cut_at(mounted: Path, number: int, *, behind: bool) -> Fault:
    """Return a fault: the power goes before or behind the call of that number."""

    def fault(call: Call) -> Any:
        if call.number != number:
            return call.done()
        if behind:
            call.done()
        return cut(mounted)

    return fault


def _run(case: str, seed: int, folder: Path) -> Result:
    kind, _ = case.split(":")
    chance = random.Random(f"{seed}/{case}")
    place = Place(folder, "disk")
    image = _make(folder, kind)
    with _mounted(image, folder / "disk"):
        pass  # From here on the machine is able to, and a failure is one.
    try:
        return _cut_off_and_heal(place, kind, image, chance)
    except Unavailable as error:
        return Result([f"the file system does not come back: {error}"])


def _cut_off_and_heal(
    place: Place, kind: str, image: Path, chance: random.Random
) -> Result:
    folder = place.path
    result = Result(count=0)
    for number in range(LIVES):
        if result.count == CUTS:
            break
        with _mounted(image, folder / "disk"):
            code = _live_and_die(place, chance, first=number == 0)
        if code in {SIGKILL, FAILED}:  # the latter of who saw the disk die, and ended
            result.count += 1
        elif code == DONE:
            result.facts["ended before the cut"] += 1
        else:
            said = f"ended with {code}:\n{place.log.read_text()}"
            return Result([said], result.count, result.facts)
    with _mounted(image, folder / "disk"):
        if (code := in_child(place, heal, Life())) != DONE:
            said = f"healing ended with {code}:\n{place.log.read_text()}"
            return Result([said], result.count, result.facts)
        shutil.copytree(place.journal, folder / "journal")
    evidence = read_evidence(folder)
    result.facts["orders"] += len(evidence.journal.stories)
    return Result(check(evidence), result.count, result.facts + Counter({kind: 1}))


def _live_and_die(place: Place, chance: random.Random, *, first: bool) -> int:
    mounted = place.journal.parent
    what = script if first else partial(go_on, count=6)
    if chance.random() < 0.5:
        calls = 500 if first else 100
        fault = cut_at(mounted, chance.randrange(calls), behind=chance.random() < 0.5)
        return in_child(place, what, Life(fault))
    after_s = chance.uniform(0.0, 0.5 if first else 0.15)

    def timed(place: Place, life: Life) -> None:
        timer = threading.Timer(after_s, cut, (mounted,))
        timer.daemon = True
        timer.start()
        what(place, life)

    return in_child(place, timed, Life(through))


def _make(folder: Path, kind: str) -> Path:
    image = folder / f"{kind}.img"
    with image.open("wb") as file:
        file.truncate(SIZES[kind])
    (folder / "disk").mkdir()
    _do(*MAKE[kind], str(image))
    return image


@contextmanager
def _mounted(image: Path, folder: Path) -> Generator[None]:
    _do("mount", "-o", "loop", str(image), str(folder))
    try:
        yield
    finally:
        _do("umount", str(folder))


def _do(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise Unavailable(f"{command[0]} is not installed") from error
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"{' '.join(command)}: {error.stderr.strip()}") from error


HARNESS = Harness("power", "power cuts", _cases, _run, full=1000, small=20)
