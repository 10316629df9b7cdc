"""What a test of sagas needs: time that is virtual, and processes that die.

    Rehearsal           one saga, step by step: a script, a clock, crashes, operators
    crash_everywhere    the process is killed at each point there is
    explore             random faults; the fewest that break a promise
    check_idempotency   each service is asked twice
    once, now           for fakes

The names are imported when they are first used: pytest loads the plugin in every run.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordinator.testing.crashes import CrashReport, crash_everywhere
    from coordinator.testing.errors import BrokenPromiseError, RehearsalError
    from coordinator.testing.exploring import ExploreReport, explore
    from coordinator.testing.idempotency import (
        IdempotencyReport,
        check_idempotency,
        once,
    )
    from coordinator.testing.rehearsal import Rehearsal, Submitted
    from coordinator.testing.runs import Run
    from coordinator.testing.services import Services
    from coordinator.testing.stage import now

__all__ = [
    "BrokenPromiseError",
    "CrashReport",
    "ExploreReport",
    "IdempotencyReport",
    "Rehearsal",
    "RehearsalError",
    "Run",
    "Services",
    "Submitted",
    "check_idempotency",
    "crash_everywhere",
    "explore",
    "now",
    "once",
]

_HOMES = {
    "BrokenPromiseError": "errors",
    "CrashReport": "crashes",
    "ExploreReport": "exploring",
    "IdempotencyReport": "idempotency",
    "Rehearsal": "rehearsal",
    "RehearsalError": "errors",
    "Run": "runs",
    "Services": "services",
    "Submitted": "rehearsal",
    "check_idempotency": "idempotency",
    "crash_everywhere": "crashes",
    "explore": "exploring",
    "now": "stage",
    "once": "idempotency",
}
"""The module of each name."""


def __getattr__(name: str) -> Any:
    """Import *name* from its module (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'coordinator.testing' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"coordinator.testing.{home}"), name)
    globals()[name] = value
    return value
