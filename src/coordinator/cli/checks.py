"""What `doctor` looks at on the machine itself: versions, limits, disk, clock."""

import importlib.util
import os
import platform
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata

import msgspec

from coordinator.cli.measuring import file_system, measure_flushes
from coordinator.cli.output import show_duration, show_size, show_time

__all__ = [
    "Check",
    "machine_checks",
    "now_us",
    "ok",
    "place_checks",
    "problem",
    "warning",
]

FLUSH_SLOW_US = 50_000
"""A median beyond it makes each step wait longer than most services take."""
FLUSH_HONEST_US = 30
"""No medium keeps anything in less."""
FREE_SEGMENTS_MIN = 4
"""Segments that should fit: one is allocated ahead, one is copied at a start."""
CLOCK_DRIFT_US_MAX = 100_000
FILES_MIN = 4096
"""Descriptors that `cmdstream.ServerOptions.connections_max` asks for."""
NETWORKED = {"nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "ceph"}
VOLATILE = {"tmpfs", "ramfs"}
EXTRAS = {
    "cli": ("typer", "rich"),
    "http": ("aiohttp",),
    "kafka": ("confluent_kafka",),
    "nats": ("nats", "nkeys"),
}


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    name: str
    level: str
    """``ok``, ``warning`` or ``problem``."""
    found: str
    advice: str = ""
    """What to do; empty if it is ok."""


def ok(name: str, found: str) -> Check:
    """Return a check that found nothing wrong."""
    return Check(name=name, level="ok", found=found)


def warning(name: str, found: str, advice: str) -> Check:
    """Return a check that found something to look at."""
    return Check(name=name, level="warning", found=found, advice=advice)


def problem(name: str, found: str, advice: str) -> Check:
    """Return a check that found something to mend."""
    return Check(name=name, level="problem", found=found, advice=advice)


def machine_checks() -> Iterator[Check]:
    """Check versions and limits."""
    version = metadata.version("coordinator")
    there = [
        extra
        for extra, modules in EXTRAS.items()
        if all(importlib.util.find_spec(module) for module in modules)
    ]
    yield ok(
        "version",
        f"coordinator {version} with {', '.join(there) or 'no extras'}, "
        f"{platform.python_implementation()} {platform.python_version()}, "
        f"{platform.system()} {platform.release()}",
    )
    # A server raises its own limit to the hard one.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= hard < FILES_MIN:
        yield warning(
            "files",
            f"{hard} files may be open at once",
            f"raise it to {FILES_MIN} for that many clients (ulimit -n)",
        )
    else:
        many = "any number of" if hard == resource.RLIM_INFINITY else hard
        yield ok("files", f"{many} files may be open at once")


def place_checks(folder: str | None, segment_size: int) -> Iterator[Check]:
    """Check the disk where the journal is, or would be.

    Args:
        folder: Of the journal; None if none was named.
        segment_size: Bytes of its segments.
    """
    where = folder
    if where is None or not os.path.isdir(where):
        if where is not None:
            yield _no_folder(where)
        where = tempfile.gettempdir()
    kind = file_system(where)
    if kind in VOLATILE:
        yield problem(
            "disk", f"{where} is in memory ({kind})", "put the journal on a disk"
        )
    elif kind in NETWORKED:
        yield warning(
            "disk",
            f"{where} is on a network ({kind})",
            "use a local disk: locks and flushes of network file systems vary",
        )
    else:
        yield ok("disk", f"{where} is on {kind or 'an unknown file system'}")
    yield from _flushes(where)
    yield _space(where, segment_size)


def _no_folder(where: str) -> Check:
    try:
        os.stat(where)
    except FileNotFoundError:
        return warning(
            "journal",
            f"{where} does not exist",
            "`coordinator serve` makes it; what follows is measured elsewhere",
        )
    except OSError as error:
        said = f"can't look into {where}: {error.strerror}"
        return problem("journal", said, "ask as the user whose journal it is")
    return problem("journal", f"{where} is not a folder", "name the journal's folder")


def _flushes(where: str) -> Iterator[Check]:
    try:
        flushes = measure_flushes(where)
    except OSError as error:
        yield problem("flush", f"can't write to {where}: {error}", "mend that")
        return
    found = (
        f"a flush takes {show_duration(flushes.p50_us)}, 1 in 100 takes "
        f"{show_duration(flushes.p99_us)} ({flushes.count} measured)"
    )
    if flushes.p50_us < FLUSH_HONEST_US:
        yield warning(
            "flush", found, "too quick for a disk: is a cache in between that forgets?"
        )
    elif flushes.p50_us > FLUSH_SLOW_US:
        yield warning(
            "flush", found, "each step waits for one; use a faster disk for the journal"
        )
    else:
        yield ok("flush", found)
    drift = flushes.clock_drift_us
    if drift > CLOCK_DRIFT_US_MAX:
        yield warning(
            "clock",
            f"the clock moved by {show_duration(drift)} during the measurement",
            "let a time service slew it, not step it",
        )
    else:
        yield ok("clock", f"steady; it is {show_time(now_us())}")


def _space(where: str, segment_size: int) -> Check:
    free = shutil.disk_usage(where).free
    found = f"{show_size(free)} are free, a segment is {show_size(segment_size)}"
    if free < 2 * segment_size:
        return problem("space", found, "free some: new commands will be refused")
    if free < FREE_SEGMENTS_MIN * segment_size:
        return warning("space", found, "free some, or shorten the journal's retention")
    return ok("space", found)


def now_us() -> int:
    """Return microseconds since 1970."""
    return time.time_ns() // 1000
