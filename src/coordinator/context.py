"""What a step's function may know about the step it runs in.

The engine prepares one `StepContext` per attempt of a step and sets it; a gateway, or
a plain function, reads it with `current_step`. A context variable carries it, so it is
also right in the tasks and threads (`asyncio.to_thread`) that the function starts, and
the functions of concurrent steps see one each.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar

import msgspec

from coordinator.model import Direction, StepId

__all__ = ["StepContext", "current_step", "in_a_step", "in_step"]


class StepContext(msgspec.Struct, frozen=True):
    """One attempt of one step."""

    idempotency_key: str
    """The key under which the service applies this step once, however often asked."""
    epoch: int
    """The epoch of the partition's owner: a fencing token. A service that has seen a
    higher one for the same journal may turn the call away as a stale owner's."""
    workflow_id: str
    """``partition-position``, e.g. ``0-1042``."""
    step: StepId
    direction: Direction
    attempt: int
    """How many attempts of this step came before in this process, from 0."""
    trace: str = ""
    """The W3C ``traceparent`` to hand on; empty if the command came without one."""
    replay: bool = False
    """Whether this is ``coordinator replay``, telling a service again what it did."""


# The engine sets it directly: one `set` per attempt, of something that makes the
# context when it is asked for. Most functions do not ask.
_CURRENT: ContextVar[Callable[[], StepContext]] = ContextVar("coordinator_current_step")


def current_step() -> StepContext:
    """Return the context of the step that the caller runs in.

    Raises:
        RuntimeError: The caller does not run in a step.
    """
    # Not try/except: a LookupError from here would be chained into every message.
    make = _CURRENT.get(None)
    if make is None:
        raise RuntimeError(
            "no step is running here: a service is called through "
            "`await workflow.step(function, ...)`, which records what it answered; "
            "a test can use `with coordinator.context.in_step(...)`"
        )
    return make()


def in_a_step() -> bool:
    """Say whether a step runs here: whether `current_step` has one."""
    return _CURRENT.get(None) is not None


@contextmanager
def in_step(context: StepContext) -> Generator[None, None, None]:
    """Run the block as if it were in the step of *context*: for tests of gateways."""
    token = _CURRENT.set(lambda: context)
    try:
        yield
    finally:
        _CURRENT.reset(token)
