"""What of a process is not its own: the collector, the log, the paths in tracebacks."""

import contextlib
import gc
import logging
import traceback
from collections.abc import Generator
from pathlib import Path
from typing import Any
from unittest.mock import patch

__all__ = ["quiet_log", "short_paths", "steady_garbage"]

ROOT = Path(__file__).parents[2]
"""Of the checkout."""


@contextlib.contextmanager
def steady_garbage() -> Generator[None]:
    """Collect garbage at drawn steps and at the ends of lives, and never else.

    Or the death of an object, and what its task then logs, would be a matter of chance.
    What lives before is not looked at again: a collection is the seed's own, and short.
    Nor is it afterwards, so what an earlier seed left goes first.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def short_paths() -> Generator[None]:
    """Show files in tracebacks as seen from the root of the checkout.

    A traceback is stored with the reason why a workflow is stuck. The length of a path
    would decide when a segment is full, and so what a seed means.
    """
    show = traceback.StackSummary.format_frame_summary

    def show_short(
        stack: traceback.StackSummary, frame: traceback.FrameSummary, **options: Any
    ) -> str:
        path = Path(frame.filename)
        within = path.is_relative_to(ROOT)
        frame.filename = path.relative_to(ROOT).as_posix() if within else path.name
        return show(stack, frame, **options)

    with patch.object(traceback.StackSummary, "format_frame_summary", show_short):
        yield


class _Bugs(logging.Handler):
    """Keeps what the engine says of bugs of its own, which it survives."""

    def __init__(self) -> None:
        super().__init__(logging.CRITICAL)
        self.told: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        message = record.getMessage()
        if message.startswith("bug: "):
            self.told.append(message)


@contextlib.contextmanager
def quiet_log() -> Generator[list[str]]:
    """What the engine tells people belongs to a real process's log.

    Gives a list, to which is added what it says of bugs of its own.
    """
    logger = logging.getLogger("coordinator")
    bugs = _Bugs()
    level, propagates = logger.level, logger.propagate
    logger.setLevel(logging.CRITICAL)
    logger.propagate = False
    logger.addHandler(bugs)
    try:
        yield bugs.told
    finally:
        logger.removeHandler(bugs)
        logger.setLevel(level)
        logger.propagate = propagates
