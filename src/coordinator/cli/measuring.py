"""What `doctor` measures of this machine: flushes, clocks, file systems."""

import os
import tempfile
import time
from pathlib import Path

import msgspec

__all__ = ["Flushes", "file_system", "measure_flushes"]

FLUSHES = 50
FLUSH_SIZE = 4096
"""Bytes written before each flush: about what a small batch is."""


class Flushes(msgspec.Struct, frozen=True, kw_only=True):
    """How long it takes to make a small write durable."""

    folder: str
    count: int
    p50_us: int
    p99_us: int
    clock_drift_us: int
    """How far the wall clock moved against the monotonic one meanwhile."""


def measure_flushes(folder: str, count: int = FLUSHES) -> Flushes:
    """Write and flush a nameless file in *folder*, which is gone afterwards.

    Raises:
        OSError: Nothing can be written there.
    """
    took_ns: list[int] = []
    wall, monotonic = time.time_ns(), time.monotonic_ns()
    with tempfile.TemporaryFile(dir=folder) as file:
        descriptor = file.fileno()
        # Allocated ahead, as a segment is: else the file's growth is measured, too.
        os.posix_fallocate(descriptor, 0, count * FLUSH_SIZE)
        os.fsync(descriptor)
        block = b"\xa5" * FLUSH_SIZE
        for number in range(count):
            start = time.perf_counter_ns()
            os.pwrite(descriptor, block, number * FLUSH_SIZE)
            os.fdatasync(descriptor)
            took_ns.append(time.perf_counter_ns() - start)
    drift_ns = (time.time_ns() - wall) - (time.monotonic_ns() - monotonic)
    took_ns.sort()
    return Flushes(
        folder=folder,
        count=count,
        p50_us=took_ns[count // 2] // 1000,
        p99_us=took_ns[count * 99 // 100] // 1000,
        clock_drift_us=abs(drift_ns) // 1000,
    )


def file_system(path: str, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """Return the type of the file system that *path* is on; empty if it is not known.

    Args:
        path: What is looked at.
        mounts: What the kernel says; for tests.
    """
    try:
        lines = mounts.read_text().splitlines()
    except OSError:
        return ""
    real = os.path.realpath(path)
    found, longest = "", -1
    for line in lines:
        # 36 35 98:0 /root /mount/point rw,noatime shared:1 - ext4 /dev/sda rw
        left, _, right = line.partition(" - ")
        words = left.split()
        if len(words) < 5 or not right:
            continue
        point = words[4].replace("\\040", " ")
        inside = real == point or real.startswith(point.rstrip("/") + "/")
        # Of mounts on one point the last one is on top.
        if inside and len(point) >= longest:
            found, longest = right.split()[0], len(point)
    return found
