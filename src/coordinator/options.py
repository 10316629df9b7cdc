"""The bounds of a coordinator, each with its unit and its reason."""

import msgspec

from coordinator.log import LogOptions
from coordinator.model import Retry

__all__ = ["EngineOptions"]


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The engine's bounds."""

    commands_max: int = 10_000
    """Commands in memory, running or delayed; beyond it, new ones wait at the door. As
    many again may come in of those that a step offers."""
    probes: int = 4
    """Commands that may try a suspended service at a time; as many begin to in each of
    the first intervals of `retry`."""
    threads_max: int = 16
    """Threads for plain ``def`` steps. A call that hangs keeps its thread, also when
    the step is given up; so as many workflows as there are threads, all waiting for a
    service that hangs, keep every other plain step waiting. Give the calls in them
    time-outs of their own, or write them as ``async def``."""
    step_timeout_s: float = 30.0
    """Seconds after which a step without an answer is given up, and asked again."""
    retry: Retry = Retry()
    """For steps that name no policy of their own."""
    log: LogOptions = LogOptions()
