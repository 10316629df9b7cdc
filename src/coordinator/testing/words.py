"""The kit's words: what is in the journal, and what happened, for people to read."""

import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple, assert_never

from coordinator import values
from coordinator.errors import DecodeError, Refused
from coordinator.model import Direction, OutcomeStatus, StepId
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
from coordinator.testing.durations import written

__all__ = [
    "Event",
    "answered",
    "batch_words",
    "entry_of",
    "indented",
    "record_event",
    "storyline",
    "timeline_of",
    "wrapped",
]

COLUMNS = 88
"""Of a message, as far as it is ours."""
LINES_MAX = 60
"""Of a story; what is in the middle of a longer one says the same again and again."""


class Event(NamedTuple):
    """Something that happened in a rehearsal."""

    at_s: float
    kind: str
    text: str


def entry_of(record: Record) -> str:
    """Return *record* as an entry of a timeline; empty if it is none."""
    match record:
        case Outcome():
            return _outcome(record)
        case Accepted():
            return "accepted"
        case Aborting():
            return f"turned back: {record.reason}"
        case Cancelled():
            why = f": {record.reason}" if record.reason else ""
            return f"cancelled by {record.by}{why}"
        case Stuck():
            return f"stuck: {record.reason.partition(chr(10))[0]}"
        case Resumed():
            return f"resumed by {record.by}"
        case Finished():
            return record.status.name.lower()
        case Claimed() | Held() | Released() | Started() | Carried() | Lost():
            return ""
        case _:
            assert_never(record)


def _outcome(outcome: Outcome) -> str:
    step = str(StepId(outcome.step, outcome.occurrence))
    if outcome.direction is Direction.UNDO:
        return f"{step} undone"
    match outcome.status:
        case OutcomeStatus.DONE:
            return f"{step} done"
        case OutcomeStatus.REFUSED:
            return f"{step} refused: {_refusal(outcome.value)}"
        case OutcomeStatus.NOTED:
            return f"{step} noted"


def _refusal(data: bytes) -> str:
    try:
        refusal: values.Refusal = values.decode(data, values.Refusal)
    except DecodeError:
        return "?"
    return refusal.reason or refusal.type.rpartition(".")[2]


def timeline_of(workflow: int, records: Iterable[tuple[int, Record]]) -> list[str]:
    """Return what the journal holds of a workflow, an entry each, in its order."""
    entries = [
        entry_of(record)
        for position, record in records
        if getattr(record, "workflow", None) == workflow
        or (isinstance(record, Accepted) and position == workflow)
    ]
    return [entry for entry in entries if entry]


_WRITES = {
    Accepted: "the command was",
    Aborting: "the decision to turn back was",
    Finished: "the end was",
    Stuck: "that it is stuck was",
    Resumed: "the operator's retry was",
    Cancelled: "the operator's cancel was",
    Started: "which steps were started was",
    Carried: "a copy of the workflow was",
    Claimed: "the claim was",
    Lost: "what is lost was",
    Held: "that the owner is there was",
    Released: "that the owner gave up was",
}


def batch_words(records: Sequence[Record]) -> str:
    """Return what a write is about, and its verb."""
    parts = list(dict.fromkeys(map(_write_words, records)))
    if len(parts) == 1:
        return parts[0]
    bare = [part.removesuffix(" was") for part in parts]
    return f"{', '.join(bare[:-1])} and {bare[-1]} were"


def _write_words(record: Record) -> str:
    if isinstance(record, Outcome):
        step = str(StepId(record.step, record.occurrence))
        undo = "/undo" if record.direction is Direction.UNDO else ""
        return f"the outcome of {step}{undo} was"
    return _WRITES[type(record)]


def record_event(at_s: float, record: Record) -> Event | None:
    """Return what a story says of a record; None if another event has said it."""
    entry = entry_of(record)
    if not entry:
        return None
    if isinstance(record, Outcome):
        return Event(at_s, "written", f"{_write_words(record)} written")
    return Event(at_s, "record", entry)


def answered(error: BaseException) -> str:
    """Say how a call ended that raised *error*."""
    words = str(error)
    if isinstance(error, Refused):
        return f"refused: {words or type(error).__name__}"
    name = type(error).__name__
    return f"failed: {f'{name}: {words}' if words else name}"


def storyline(events: Sequence[Event]) -> str:
    """Tell *events*, a line each, with their time from the beginning."""
    lines = [f"{written(event.at_s):>11}  {event.text}" for event in events]
    if len(lines) > LINES_MAX:
        half = LINES_MAX // 2
        left_out = f"{'':>11}  ... {len(lines) - LINES_MAX} more like these ..."
        lines = [*lines[:half], left_out, *lines[-half:]]
    return "\n".join(lines)


def wrapped(text: str) -> str:
    """Return *text* with its long lines broken, each under where it begins.

    What is indented by more is a value, and is left as it is.
    """
    lines: list[str] = []
    for line in text.splitlines():
        begin = line[: len(line) - len(line.lstrip())]
        if len(begin) > 4:
            lines.append(line)
        else:
            lines += textwrap.wrap(
                line, COLUMNS, subsequent_indent=begin, break_long_words=False
            ) or [""]
    return "\n".join(lines)


def indented(text: str, by: str = "  ") -> str:
    """Return *text* with *by* before each line."""
    return "\n".join(f"{by}{line}" for line in text.splitlines())
