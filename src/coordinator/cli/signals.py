"""SIGTERM and Ctrl-C while nobody else answers them: before a server runs, and after.

In between `coordinator.serve` has handlers of its own. Nothing but `signal` and `os` is
imported here, so that these stand before anything that takes time.
"""

import os
import signal
from types import FrameType

__all__ = ["end_on_signals"]


def end_on_signals(code: int) -> None:
    """Let SIGTERM and SIGINT end the process with *code*, at once.

    Not by an exception: the signal may come within an import of the user's, which could
    catch it, or show it as a traceback. To be called where there is nothing to lose:
    nothing was accepted yet, or the journal is closed.
    """

    def end(_number: int, _frame: FrameType | None) -> None:
        os._exit(code)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
