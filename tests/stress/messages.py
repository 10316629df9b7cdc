"""What is sent, and what is noted of it: the same for all processes of the run.

Each attempt has an id of its own. Who made it notes one `Note` when it ends, and one
for each late result; the server notes the id before it does anything else. Both write
to files by ``write``, so what a process noted stays, however it dies.
"""

import enum
import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from cmdstream import JsonCodec, Registry, ResultType

__all__ = [
    "CODEC",
    "DELAY_MAX_S",
    "HOSTILE",
    "TEXT_SIZE_MAX",
    "Echo",
    "EchoResult",
    "Fail",
    "Failed",
    "Note",
    "Notes",
    "Outcome",
    "Stream",
    "StreamResult",
    "read_begun",
    "read_notes",
    "result_of",
    "text_of",
]

DELAY_MAX_S = 0.1
"""What a command takes at most, on a server that gets the CPU."""
TEXT_SIZE_MAX = 2_000
HOSTILE = 1 << 62
"""Ids from here on are of peers that mean no good: nobody waits for these."""


class Echo(msgspec.Struct, frozen=True):
    """Answered with the text that belongs to its id."""

    id: int
    delay_ms: int
    text: str


class Stream(msgspec.Struct, frozen=True):
    """Answered with *count* results, each with as much text."""

    id: int
    delay_ms: int
    count: int
    size: int


class Fail(msgspec.Struct, frozen=True):
    """Fails: a failure result where the server has one, else the connection ends."""

    id: int


class EchoResult(msgspec.Struct, frozen=True):
    id: int
    text: str


class StreamResult(msgspec.Struct, frozen=True):
    id: int
    number: int
    text: str
    last: bool


def result_of(command: Stream, number: int) -> StreamResult:
    """What *command* is answered with as its result *number*, from 0."""
    text = f"{number:x}" * command.size
    return StreamResult(command.id, number, text, number == command.count - 1)


class Failed(msgspec.Struct, frozen=True):
    reason: str
    """Ends with the command's id, in hex."""

    @property
    def id(self) -> int:
        return int(self.reason.rpartition(" ")[2], 16)


CODEC = JsonCodec(
    Registry(
        (Echo, Stream, Fail), (EchoResult, ResultType(StreamResult, "last"), Failed)
    )
)


def text_of(id_: int) -> str:
    """The text of an echo: of all lengths, and different for each attempt."""
    return f"{id_:x}." * (1 + id_ * 7919 % TEXT_SIZE_MAX // 16)


class Outcome(enum.IntEnum):
    """How an attempt ended; each ends once, in one of these ways."""

    ANSWERED = 0
    """All results came, and are right."""
    FAILED = 1
    """The server said that the command failed, as it was told to."""
    BLOCKED = 2
    """The circuit was open: never sent."""
    UNSENT = 3
    """There was no connection in time: never sent."""
    TIMED_OUT = 4
    """Sent, and not all results came in time."""
    LEFT = 5
    """Sent, and its sender was cancelled."""
    LOST = 6
    """Sent, and the connection ended before all results had come."""
    WRONG = 7
    """A result was not what belongs to the command."""
    OVERDUE = 8
    """It ended much later than its time-out."""
    LATE = 9
    """No end, but a result that came after one. `Note.results` is 1 for the last."""
    HUNG_UP = 10
    """No end of an attempt, but of a connection, as its client sees it."""


class Note(NamedTuple):
    """One line of a client's file."""

    id: int
    outcome: Outcome
    results: int
    """How many came."""
    port: int
    """Of the address that it was sent to; 0 if it was not."""
    at_s: float
    """When it ended, by the machine's monotonic clock."""


_NOTE = struct.Struct("<QBHHd")
_BEGUN = struct.Struct("<Q")


class Notes:
    """A file to note things in. Each line is in it, or not, as a whole."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, note: Note) -> None:
        os.write(self._descriptor, _NOTE.pack(*note))

    def begun(self, id_: int) -> None:
        os.write(self._descriptor, _BEGUN.pack(id_))


def read_notes(path: Path) -> Iterator[Note]:
    for id_, outcome, results, port, at_s in _NOTE.iter_unpack(path.read_bytes()):
        yield Note(id_, Outcome(outcome), results, port, at_s)


def read_begun(path: Path) -> Iterator[int]:
    for (id_,) in _BEGUN.iter_unpack(path.read_bytes()):
        yield id_
