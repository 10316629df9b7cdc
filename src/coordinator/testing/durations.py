"""Durations as people write them: ``"2h"``, ``"1m 30s"``, ``"200ms"``, or numbers."""

import math
import re
from datetime import timedelta
from typing import TypeAlias

from coordinator.testing.errors import RehearsalError

__all__ = ["Duration", "seconds", "written"]

Duration: TypeAlias = str | float | timedelta
"""``"2h"``, ``"1m 30s"``, ``"200ms"``; a number of seconds; or a `timedelta`."""

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*")


def seconds(duration: Duration) -> float:
    """Return *duration* in seconds.

    Raises:
        RehearsalError: It is none, or less than nothing.
    """
    if isinstance(duration, timedelta):
        value = duration.total_seconds()
    elif isinstance(duration, str):
        value = _parse(duration)
    elif isinstance(duration, bool):
        raise _bad(duration)
    else:
        value = float(duration)
    if not 0 <= value < math.inf:
        raise _bad(duration)
    return value


def _parse(text: str) -> float:
    at, total = 0, 0.0
    while at < len(text):
        part = _PART.match(text, at)
        if part is None or part[2] not in _UNITS_S:
            raise _bad(text)
        total += float(part[1]) * _UNITS_S[part[2]]
        at = part.end()
    if not text.strip():
        raise _bad(text)
    return total


def _bad(duration: object) -> RehearsalError:
    return RehearsalError(
        f"{duration!r} is not a duration; write '2h', '1m 30s' or '200ms' (units: "
        f"{', '.join(_UNITS_S)}), a number of seconds, or a timedelta"
    )


def written(value_s: float) -> str:
    """Return a number of seconds as people write it."""
    if value_s < 60:
        return f"{value_s:.3f} s"
    minutes, rest_s = divmod(round(value_s), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest_s:02} s"
