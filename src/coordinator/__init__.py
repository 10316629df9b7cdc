"""Durable sagas: ordinary async code, a log instead of a database.

`Coordinator` runs commands; a command's `exec` sees a `Workflow`; a service says
`Refused`, `CommandDelayed` or `CommandBlocked` when it does not simply return.
"""

from coordinator.app import Coordinator, Handle
from coordinator.context import StepContext, current_step
from coordinator.engine import EngineOptions as Options
from coordinator.errors import (
    CommandBlocked,
    CommandDelayed,
    CoordinatorError,
    NotAcceptedError,
    Refused,
    WorkflowCancelledError,
    WorkflowStuckError,
)
from coordinator.model import Retry
from coordinator.workflow import Command, Step, Workflow

__all__ = [
    "Command",
    "CommandBlocked",
    "CommandDelayed",
    "Coordinator",
    "CoordinatorError",
    "Handle",
    "NotAcceptedError",
    "Options",
    "Refused",
    "Retry",
    "Step",
    "StepContext",
    "Workflow",
    "WorkflowCancelledError",
    "WorkflowStuckError",
    "current_step",
]
