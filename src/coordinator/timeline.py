"""One workflow's records as a story: what was done, undone, decided, and still stands.

    records of the workflow, in journal order --> build --> Timeline
                                                            |-- steps      forward lane
                                                            |-- undos      undo lane
                                                            |-- decisions
                                                            `-- standing   still done

Reads no clock and does no I/O: the records may come from a running engine, a journal's
folder, or a test. Only outcomes are recorded, so a step's time is when its outcome was
written, and what is between two records of a workflow is at most what the step took.
"""

from collections.abc import Iterable
from typing import Any, assert_never

import msgspec

from coordinator import values
from coordinator.errors import DecodeError
from coordinator.model import (
    Direction,
    EndStatus,
    OutcomeStatus,
    StepId,
    WorkflowId,
    parse_workflow_id,
    service_of,
)
from coordinator.records import (
    Aborting,
    Accepted,
    Cancelled,
    Carried,
    Claimed,
    Finished,
    Held,
    Lost,
    Outcome,
    Record,
    Released,
    Resumed,
    Started,
    Stuck,
)
from coordinator.state import InvalidRecordError, WorkflowState

__all__ = [
    "Decision",
    "Restart",
    "Step",
    "Timeline",
    "build_timeline",
    "command_of",
    "readable",
    "refusal_of",
]

_STATUS = {
    OutcomeStatus.DONE: "done",
    OutcomeStatus.REFUSED: "refused",
    OutcomeStatus.NOTED: "noted",
}


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a step, or of the undo of one."""

    step: str
    """As people write it: ``payments.charge``, ``payments.charge#1``."""
    service: str
    status: str
    """``done``; ``refused``; ``noted``, by `exec` itself; ``unknown``: it was started
    together with others, and nothing is recorded of it (yet)."""
    at: int | None
    """Microseconds since 1970, when the outcome was recorded; None if unknown."""
    after_us: int | None
    """Microseconds since the workflow's record before it; None if that is not known."""
    value: Any
    """What the service returned, or why it refused, as plain values."""
    restarts: int = 0
    """How often another process went on within `after_us`, which says little then."""


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was decided, by a person or by the coordinator."""

    what: str
    """``accepted``, ``stuck``, ``resumed``, ``cancelled``, ``aborting``, ``carried``,
    ``completed`` or ``compensated``."""
    at: int
    by: str
    """Who; empty if it was the coordinator."""
    reason: str


class Restart(msgspec.Struct, frozen=True, kw_only=True):
    """Another process, or the same one started again, went on with the workflow."""

    at: int
    """Microseconds since 1970."""
    epoch: int
    """Counts the starts on this partition, of the journal's beginning on."""
    owner: str
    behind: int
    """How many `decisions` lie before it: by time, a clock that was set back lies."""


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """A workflow's story so far."""

    id: WorkflowId
    type: str
    key: str
    trace: str
    status: str
    """``running``, ``stuck``, ``cancelling``, ``aborting``, or how it ended."""
    accepted_at: int
    ended_at: int | None
    command: Any
    """The command's fields, as plain values."""
    result: Any
    """What `exec` returned; None unless it completed."""
    reason: str
    """Why it was undone, or is stuck; else empty."""
    steps: tuple[Step, ...]
    """The forward lane, in the order of the journal."""
    undos: tuple[Step, ...]
    """The undo lane, in the order of the journal: last done, first undone."""
    decisions: tuple[Decision, ...]
    standing: tuple[str, ...]
    """Steps whose effect is still in the world."""
    ignored: tuple[str, ...]
    """Steps that the code which ended the workflow no longer asked for."""
    complete: bool
    """False if only a copy of earlier state is retained: steps have their times, but
    when it was stuck and resumed before is not known. And if records are lost that may
    have been about it."""
    restarts: tuple[Restart, ...] = ()
    """Since it was accepted (or since that copy), until it ended."""


def readable(data: bytes) -> Any:
    """Decode MessagePack to what JSON can say; what can't be said becomes text."""
    try:
        return msgspec.to_builtins(
            msgspec.msgpack.decode(data), str_keys=True, enc_hook=_extension
        )
    except (msgspec.DecodeError, TypeError, ValueError, RecursionError):
        return repr(data)


def _extension(value: object) -> str:
    """Name what MessagePack can hold and JSON can't."""
    if isinstance(value, msgspec.msgpack.Ext):
        return f"extension {value.code}: {bytes(value.data)!r}"
    return repr(value)


def build_timeline(
    workflow_id: WorkflowId, records: Iterable[Record]
) -> Timeline | None:
    """Tell the story of *workflow_id*.

    Args:
        workflow_id: ``partition-position``.
        records: Its own in journal order, and the partition's claims and `Lost` ones
            among them. Those
            before the first that describes it (an `Accepted`, or a `Carried` if that is
            gone) are passed over.

    Returns:
        None if nothing among *records* describes it.

    Raises:
        InvalidRecordError: They can't follow one another.
        ValueError: *workflow_id* is not one.
    """
    builder = _Builder(workflow_id)
    for record in records:
        builder.add(record)
    return builder.timeline()


class _Builder:
    def __init__(self, workflow_id: WorkflowId) -> None:
        _, self._position = parse_workflow_id(workflow_id)
        self._id = workflow_id
        self._state: WorkflowState | None = None
        self._complete = True
        self._lost = False
        """Whether records are lost that may have been about it."""
        self._steps: list[Step] = []
        self._undos: list[Step] = []
        self._decisions: list[Decision] = []
        self._restarts: list[Restart] = []
        self._restarted = 0
        """How often, since the workflow's last record."""
        self._last_at: int | None = None
        self._reason = ""

    def add(self, record: Record) -> None:
        """Take in the next record."""
        if isinstance(record, Claimed):
            self._restart(record)
            return
        if isinstance(record, Lost):
            self._complete = self._complete and self._state is None
            self._lost = self._lost or self._state is not None
            return
        if isinstance(record, Held | Released):
            return
        if self._state is None:
            if not isinstance(record, Accepted | Carried):
                return
            self._begin(record)
        elif not self._apply(record):
            return
        elif not isinstance(record, Accepted):
            self._tell(record)
        self._last_at = record.at
        self._restarted = 0

    def _apply(self, record: Record) -> bool:
        """Apply *record*; return whether it could follow.

        Raises:
            InvalidRecordError: It can't, and nothing before it is lost.
        """
        assert self._state is not None
        try:
            self._state.apply(record)
        except InvalidRecordError:
            # A repaired journal: what it followed is lost. `Carried` says it all again.
            if not self._lost:
                raise
            return False
        return True

    def _restart(self, claim: Claimed) -> None:
        if self._state is not None and self._state.finished is None:
            self._restarted += 1
            self._restarts.append(
                Restart(
                    at=claim.at,
                    epoch=claim.epoch,
                    owner=claim.owner,
                    behind=len(self._decisions),
                )
            )

    def _begin(self, record: Accepted | Carried) -> None:
        accepted = record if isinstance(record, Accepted) else record.accepted
        self._state = WorkflowState(
            id=self._id,
            position=self._position,
            accepted=accepted,
            first=self._position,
        )
        self._decide("accepted", accepted.at)
        self._last_at = accepted.at
        if isinstance(record, Carried):
            self._complete = False
            self._state.apply(record)
            self._unfold(record)

    def _unfold(self, carried: Carried) -> None:
        """Tell what a copied state says, as if its records were there.

        In the order of the journal, as far as that is known: not by time, for a clock
        may have been set back.
        """
        undos = [o for o in carried.outcomes if o.direction is Direction.UNDO]
        dos = [o for o in carried.outcomes if o.direction is Direction.DO]
        for part in (*dos, carried.cancelled, carried.aborting, *undos, carried.stuck):
            if part is not None:
                self._tell(part)
                self._last_at = part.at
        self._tell(carried)

    def _tell(
        self,
        record: Outcome
        | Aborting
        | Finished
        | Stuck
        | Resumed
        | Cancelled
        | Carried
        | Started,
    ) -> None:
        match record:
            case Outcome():
                lane = (
                    self._undos if record.direction is Direction.UNDO else self._steps
                )
                lane.append(self._step(record))
            case Aborting():
                self._decide("aborting", record.at, reason=record.reason)
                self._reason = record.reason
            case Stuck():
                self._decide("stuck", record.at, reason=record.reason)
            case Resumed():
                self._decide("resumed", record.at, by=record.by)
            case Cancelled():
                self._decide("cancelled", record.at, record.by, record.reason)
            case Carried():
                self._decide("carried", record.at)
            case Started():
                pass  # in the state; see `_unknown`
            case Finished():
                # "cancelled" is already the name of the decision that led there.
                completed = record.status is EndStatus.COMPLETED
                what = "completed" if completed else "compensated"
                self._decide(what, record.at)
            case _:
                assert_never(record)

    def _decide(self, what: str, at: int, by: str = "", reason: str = "") -> None:
        self._decisions.append(Decision(what=what, at=at, by=by, reason=reason))

    def _step(self, outcome: Outcome) -> Step:
        after = None if self._last_at is None else outcome.at - self._last_at
        refused = outcome.status is OutcomeStatus.REFUSED
        return Step(
            step=str(StepId(outcome.step, outcome.occurrence)),
            service=outcome.service or service_of(outcome.step),
            status=_STATUS[outcome.status],
            at=outcome.at,
            after_us=after,
            value=refusal_of(outcome.value) if refused else readable(outcome.value),
            restarts=self._restarted,
        )

    def _unknown(self, state: WorkflowState) -> list[Step]:
        """Return the steps that were started with others, and nothing else is known."""
        if state.finished is not None:
            return []
        return [
            Step(
                step=str(step),
                service=service_of(step.name),
                status="unknown",
                at=None,
                after_us=None,
                value=None,
            )
            for step in sorted(state.unknown())
        ]

    def timeline(self) -> Timeline | None:
        """Return the story as told so far."""
        state = self._state
        if state is None:
            return None
        finished, stuck = state.finished, state.stuck
        completed = finished is not None and finished.status is EndStatus.COMPLETED
        return Timeline(
            id=self._id,
            type=state.accepted.type,
            key=state.accepted.key,
            trace=state.accepted.trace,
            status=state.describe(),
            accepted_at=state.accepted.at,
            ended_at=None if finished is None else finished.at,
            command=command_of(state.accepted),
            result=readable(finished.value) if finished and completed else None,
            reason=self._reason if stuck is None else stuck.reason,
            steps=(*self._steps, *self._unknown(state)),
            undos=tuple(self._undos),
            decisions=tuple(self._decisions),
            standing=tuple(map(str, state.standing())),
            ignored=() if finished is None else finished.ignored,
            complete=self._complete,
            restarts=tuple(self._restarts),
        )


def refusal_of(data: bytes) -> Any:
    """Return why a service refused, as it is recorded in *data*."""
    try:
        refusal: values.Refusal = values.decode(data, values.Refusal)
    except DecodeError:
        return readable(data)
    return refusal.reason or refusal.type.rpartition(".")[2]


def command_of(accepted: Accepted) -> Any:
    """Return the command's fields, as plain values."""
    if accepted.codec != "json":
        return readable(accepted.payload)
    try:
        return msgspec.json.decode(accepted.payload)
    except msgspec.DecodeError:
        return repr(accepted.payload)
