"""Durable sagas: ordinary async code, a log instead of a database.

`Coordinator` runs commands; a command's `exec` sees a `Workflow`; a service says
`Refused`, `CommandDelayed` or `CommandBlocked` when it does not simply return.

The names below are imported when they are first used, so that a process which needs
only a part (the command line's ``--help``, say) does not wait for all of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coordinator.app import Coordinator, Handle
    from coordinator.context import StepContext, current_step
    from coordinator.errors import (
        CommandBlocked,
        CommandDelayed,
        CoordinatorError,
        JournalError,
        NotAcceptedError,
        Refused,
        UnknownWorkflowError,
        WorkflowCancelledError,
        WorkflowStateError,
        WorkflowStuckError,
    )
    from coordinator.log import LogOptions
    from coordinator.model import Retry
    from coordinator.options import EngineOptions as Options
    from coordinator.replay import ReplayedOutcome
    from coordinator.workflow import Command, Step, Workflow

__all__ = [
    "Command",
    "CommandBlocked",
    "CommandDelayed",
    "Coordinator",
    "CoordinatorError",
    "Handle",
    "JournalError",
    "LogOptions",
    "NotAcceptedError",
    "Options",
    "Refused",
    "ReplayedOutcome",
    "Retry",
    "Step",
    "StepContext",
    "UnknownWorkflowError",
    "Workflow",
    "WorkflowCancelledError",
    "WorkflowStateError",
    "WorkflowStuckError",
    "current_step",
]

_HOMES = {
    "Command": "workflow",
    "Coordinator": "app",
    "Handle": "app",
    "LogOptions": "log",
    "Options": "options",
    "ReplayedOutcome": "replay",
    "Retry": "model",
    "Step": "workflow",
    "StepContext": "context",
    "Workflow": "workflow",
    "current_step": "context",
}
"""The module of each name; `errors` for the rest."""


def __getattr__(name: str) -> Any:
    """Import *name* from its module (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module 'coordinator' has no attribute {name!r}")
    module = importlib.import_module(f"coordinator.{_HOMES.get(name, 'errors')}")
    value = getattr(module, "EngineOptions" if name == "Options" else name)
    globals()[name] = value
    return value
