"""The words that every other module uses: ids, states, steps, retry policies.

A workflow's states, as people see them (`state.apply` is the only thing that changes
what is recorded; running and delayed are the engine's view of an accepted workflow):

    accepted --> running <--> delayed --> completed
                    |  `--> stuck <--> (operator)
                    `--> aborting <--> delayed --> compensated | cancelled
"""

import enum
import re
from typing import NamedTuple, NewType, Protocol

import msgspec

__all__ = [
    "Direction",
    "EndStatus",
    "OutcomeStatus",
    "Position",
    "Random",
    "Retry",
    "StepId",
    "WorkflowId",
    "format_workflow_id",
    "idempotency_key",
    "parse_workflow_id",
    "service_of",
]

Position = NewType("Position", int)
"""The number of a record within its partition, from 0, without gaps."""

WorkflowId = NewType("WorkflowId", str)
"""``partition-position`` of the workflow's `Accepted` record, e.g. ``0-1042``."""

# No zeros in front, no digits of other scripts, and no more of them than 64 bits have.
_WORKFLOW_ID = re.compile(r"(0|[1-9][0-9]{0,18})-(0|[1-9][0-9]{0,18})")


class Direction(enum.IntEnum):
    """Which way a step goes. The numbers are stored: never change them."""

    DO = 0
    UNDO = 1


class OutcomeStatus(enum.IntEnum):
    """What a service said. The numbers are stored: never change them."""

    DONE = 0
    REFUSED = 1
    NOTED = 2
    """Not a service's word: `exec` wrote it down with `append_outcome`."""


class EndStatus(enum.IntEnum):
    """How a workflow ended. The numbers are stored: never change them."""

    COMPLETED = 0
    COMPENSATED = 1
    CANCELLED = 2


class StepId(NamedTuple):
    """What identifies a step of a workflow for ever, whatever the code around it."""

    name: str
    """``service.operation``, with ``[key]`` behind it where the user gave a key."""
    occurrence: int
    """How many steps of that name `exec` had asked for before, from 0."""

    def __str__(self) -> str:
        return self.name if self.occurrence == 0 else f"{self.name}#{self.occurrence}"


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """When to try again what nobody knows the outcome of.

    The n-th retry waits ``first_s * factor ** n`` seconds, at most `longest_s`, more or
    less by a random share of up to `jitter`.
    """

    first_s: float = 0.2
    """Seconds before the first retry; more than 0."""
    factor: float = 2.0
    """By how much each interval is longer than the one before; 1 or more."""
    longest_s: float = 30.0
    """Seconds that no interval exceeds, before jitter."""
    jitter: float = 0.2
    """Share of the interval, 0 to 1: 0.2 spreads 10 s over 8 s to 12 s."""
    attempts_max: int | None = 10
    """Attempts of one step that may end in an unexpected exception before the workflow
    is stuck; None for no limit. Starts afresh with the process."""
    delays_max: int | None = None
    """As `attempts_max`, for attempts that end in `CommandDelayed`: a service that is
    slow to answer is, by default, asked for ever. `CommandBlocked` never counts."""

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ValueError: A field is out of its bounds.
        """
        if not (0 < self.first_s <= self.longest_s and self.factor >= 1):
            raise ValueError(
                f"retry needs 0 < first_s <= longest_s and factor >= 1, got {self}"
            )
        if not 0 <= self.jitter <= 1:
            raise ValueError(f"retry needs 0 <= jitter <= 1, got {self.jitter}")
        for limit in (self.attempts_max, self.delays_max):
            if limit is not None and limit < 1:
                raise ValueError(f"a retry limit must be 1 or more, got {limit}")


class Random(Protocol):
    """The chance that is handed in, so that a seed decides it."""

    def random(self) -> float:
        """Return a number in ``[0, 1)``."""
        ...


def format_workflow_id(partition: int, position: int) -> WorkflowId:
    """Name the workflow whose `Accepted` record is at *position* of *partition*."""
    return WorkflowId(f"{partition}-{position}")


def parse_workflow_id(workflow_id: str) -> tuple[int, Position]:
    """Split a workflow's id into its partition and position.

    Raises:
        ValueError: It is not of the form ``partition-position``, as we write it: one
            workflow has one id, or it would be looked for under another and not found.
    """
    found = _WORKFLOW_ID.fullmatch(workflow_id)
    if found is None:
        shown = workflow_id if len(workflow_id) <= 50 else f"{workflow_id[:50]}…"
        raise ValueError(f"{shown!r} is not a workflow id; one looks like 0-1042")
    return int(found[1]), Position(int(found[2]))


def service_of(step_name: str) -> str:
    """Return the service part of ``service.operation[key]``."""
    head, _, _ = step_name.partition("[")
    service, dot, _ = head.rpartition(".")
    return service if dot else head


def idempotency_key(
    journal_id: str, workflow_id: str, step: StepId, direction: Direction
) -> str:
    """Return the key under which a service applies this step once, however often asked.

    ``journal/workflow/step/occurrence``, with ``/undo`` behind it for an undo.
    """
    key = f"{journal_id}/{workflow_id}/{step.name}/{step.occurrence}"
    return f"{key}/undo" if direction is Direction.UNDO else key
