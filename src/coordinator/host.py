"""What a run of `exec` needs of whoever has it run: the engine, or a preview of it."""

import asyncio
from collections.abc import Collection
from typing import Any, Protocol

from coordinator.calls import Call
from coordinator.model import Retry
from coordinator.threads import Threads
from coordinator.workflow import Names

__all__ = ["Host"]


class Host(Protocol):
    """What an execution needs of the engine."""

    receiver: Any
    loop: asyncio.AbstractEventLoop
    names: Names
    retry: Retry
    step_timeout_s: float
    call: Call
    """Calls a user's function: `calls.call`, or what a test has in its place."""

    @property
    def threads(self) -> Threads:
        """Where plain ``def`` steps run."""
        ...

    @property
    def suspended(self) -> Collection[str]:
        """The services that are suspended."""
        ...

    def now(self) -> int:
        """Return microseconds since 1970."""
        ...

    def warn(self, message: str) -> None:
        """Tell people."""
        ...
