"""Who holds a file's lock, seen without touching the lock.

Trying the lock would tell, too, and would make a server that starts in that instant
believe that another one runs. ``/proc/locks`` disturbs nobody. It shows the processes
of this machine, or of this container, only: what it does not show may still be held.
"""

import os
from pathlib import Path

__all__ = ["lock_holder"]

_PROC_LOCKS = Path("/proc/locks")


def lock_holder(path: str, locks: Path = _PROC_LOCKS) -> int | None:
    """Return the process that holds an exclusive ``flock`` on the file at *path*.

    Args:
        path: Of the file.
        locks: What the kernel says; for tests.

    Returns:
        None if nobody is seen to hold it, or nothing can be seen.
    """
    try:
        status = os.stat(path)
        lines = locks.read_text().splitlines()
    except OSError:
        return None
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}"
    found: int | None = None
    for line in lines:
        # 3: FLOCK  ADVISORY  WRITE 4711 fd:00:131 0 EOF
        words = line.split()
        if len(words) < 6 or words[1] != "FLOCK" or words[3] != "WRITE":
            continue
        where, _, inode = words[5].rpartition(":")
        if inode != str(status.st_ino) or not words[4].isdecimal():
            continue
        if where == device:
            return int(words[4])
        # Overlay and btrfs show another device here than to stat(): better than none.
        found = int(words[4])
    return found
