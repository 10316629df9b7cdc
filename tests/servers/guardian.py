"""Ends what a test started, should the test itself be killed: SIGKILL, power, a crash.

Runs as a process of its own and is told on its standard input, line by line,

    made /tmp/folder        the folder was made for servers
    started 4711            process 4711 was started
    ended 4711              and waited for
    removed /tmp/folder

When the input ends, so has the test: what was started and has not ended is killed, a
stopped process too, and the folders go. A process is held by a descriptor, so that its
number may be taken by another in the meantime.
"""

import atexit
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress

__all__ = ["Guardian"]


class Guardian:
    """The end that tests hold; one for all servers of a test process."""

    _ours: "Guardian | None" = None

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,  # Ctrl-C is for the test, which then ends
        )
        self.owner = os.getpid()
        atexit.register(self._leave)

    @classmethod
    def ours(cls) -> "Guardian":
        """Return the one of this process, started if need be."""
        if cls._ours is None or cls._ours.owner != os.getpid():
            cls._ours = cls()
        return cls._ours

    def _leave(self) -> None:
        if self.owner == os.getpid():
            self._process.communicate()

    def tell(self, what: str, which: object) -> None:
        """Tell it one line, of those above."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what} {which}\n")
        self._process.stdin.flush()


def _main() -> None:
    folders: set[str] = set()
    processes: dict[str, int] = {}
    for line in sys.stdin:
        what, which = line.rstrip("\n").split(" ", 1)
        match what:
            case "made":
                folders.add(which)
            case "removed":
                folders.discard(which)
            case "started":
                # Not there any more: it has died, and its owner finds out.
                with suppress(ProcessLookupError):
                    processes[which] = os.pidfd_open(int(which))
            case _ if which in processes:
                os.close(processes.pop(which))
            case _:
                pass
    for descriptor in processes.values():
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    _main()
