"""Where installed servers are kept, and how one is put there once for all tests."""

import fcntl
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["CACHE", "LackError", "install_once"]

CACHE = Path(__file__).parent / ".cache"


class LackError(Exception):
    """A server is not there and can't be got; says what to do."""


def install_once(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder *name* of the cache, filled by *make* if it is not there yet.

    It appears whole or not at all. Others who want it meanwhile wait.

    Args:
        name: Says which version it is, so that another version is another folder.
        make: Fills the empty folder that it is given.
    """
    folder = CACHE / name
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other workers of pytest-xdist wait here
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=CACHE) as place:
                made = Path(place) / name
                made.mkdir()
                make(made)
                made.rename(folder)
    return folder
