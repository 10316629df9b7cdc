"""What one service did, outcome by outcome, as the journal retains it.

    records of a partition, in order --> Story --> ReplayedOutcome, one per outcome

A service that lost its data is told again what it had answered. What is there is what
was recorded: the command, the outcome, the key and the time. Arguments of steps are not
recorded, for `exec` makes them anew from the command and earlier outcomes; so does
whoever rebuilds.
"""

from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from coordinator.model import (
    Direction,
    OutcomeStatus,
    StepId,
    format_workflow_id,
    idempotency_key,
    service_of,
)
from coordinator.records import Accepted, Carried, Finished, Outcome, Record
from coordinator.timeline import command_of, readable, refusal_of

__all__ = ["ReplayedOutcome", "Story"]

_Seen: TypeAlias = tuple[str, int, Direction, OutcomeStatus]


class ReplayedOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """One outcome of a step, or of its undo, that is told again."""

    workflow_id: str
    """``partition-position``, e.g. ``0-1042``."""
    type: str
    """Name of the command class."""
    key: str
    """The command's own key; empty if it has none."""
    command: Any
    """The command's fields, as plain values."""
    step: str
    """``service.operation``, or the name that it was given."""
    occurrence: int
    """From 0: how many steps of this name the workflow had made before."""
    service: str
    direction: str
    """``do`` or ``undo``."""
    status: str
    """``done`` or ``refused``."""
    value: Any
    """What the service returned, as plain values; why it refused, as a text."""
    undoes: Any
    """Of an undo: what the step had returned that it undid. Else None."""
    idempotency_key: str
    """The one that the call had."""
    epoch: int
    """Of the owner that recorded the outcome."""
    at: int
    """Microseconds since 1970, when the outcome was recorded."""
    trace: str
    """The W3C ``traceparent`` of the command; empty if it came without one."""
    partition: int
    position: int
    """Of the record in its partition."""
    index: int
    """Which one of that record: a copy of a workflow's state holds several."""
    replay: bool = True


class Story:
    """What a partition tells of one service.

    In memory: the unfinished workflows, and what the service answered to them.
    """

    def __init__(self, journal_id: str, partition: int, service: str) -> None:
        self._journal_id = journal_id
        self._partition = partition
        self._service = service
        self._open: dict[int, tuple[Accepted, dict[_Seen, bytes]]] = {}
        self.unknown = 0
        """Outcomes of the service whose workflow's beginning is not retained."""

    def tell(
        self, position: int, epoch: int, record: Record
    ) -> Iterator[ReplayedOutcome]:
        """Yield the service's outcomes that *record* brings."""
        match record:
            case Accepted():
                self._open[position] = record, {}
            case Finished():
                self._open.pop(record.workflow, None)
            case Outcome():
                known = self._open.get(record.workflow)
                if known is None:
                    self.unknown += self._is_ours(record)
                else:
                    yield from self._tell(position, epoch, (record,), *known)
            case Carried():
                known = self._open.setdefault(record.workflow, (record.accepted, {}))
                yield from self._tell(position, epoch, record.outcomes, *known)
            case _:
                pass

    def _is_ours(self, outcome: Outcome) -> bool:
        service = outcome.service or service_of(outcome.step)
        noted = outcome.status is OutcomeStatus.NOTED
        return service == self._service and not noted

    def _tell(
        self,
        position: int,
        epoch: int,
        outcomes: tuple[Outcome, ...],
        accepted: Accepted,
        seen: dict[_Seen, bytes],
    ) -> Iterator[ReplayedOutcome]:
        for index, outcome in enumerate(outcomes):
            step = StepId(outcome.step, outcome.occurrence)
            name, number = step
            which = (name, number, outcome.direction, outcome.status)
            if which in seen or not self._is_ours(outcome):
                continue
            seen[which] = outcome.value
            undone = seen.get((name, number, Direction.DO, OutcomeStatus.DONE))
            undo = outcome.direction is Direction.UNDO
            id_ = format_workflow_id(self._partition, outcome.workflow)
            refused = outcome.status is OutcomeStatus.REFUSED
            yield ReplayedOutcome(
                workflow_id=id_,
                type=accepted.type,
                key=accepted.key,
                command=command_of(accepted),
                step=outcome.step,
                occurrence=outcome.occurrence,
                service=self._service,
                direction=outcome.direction.name.lower(),
                status=outcome.status.name.lower(),
                value=refusal_of(outcome.value) if refused else readable(outcome.value),
                undoes=readable(undone) if undo and undone is not None else None,
                idempotency_key=idempotency_key(
                    self._journal_id, id_, step, outcome.direction
                ),
                epoch=epoch,
                at=outcome.at,
                trace=accepted.trace,
                partition=self._partition,
                position=position,
                index=index,
            )
