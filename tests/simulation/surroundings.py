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
    """
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
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


@contextlib.contextmanager
def quiet_log() -> Generator[None]:
    """What the engine tells people belongs to a real process's log."""
    logger = logging.getLogger("coordinator")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was_disabled
