"""What clients saw, a line of JSON per event, as Jepsen writes it.

    {"process":"client","type":"invoke","f":"submit","value":{"id":"o-7"},"time":81}
    {"process":"client","type":"ok","f":"submit","value":{"id":"o-7"},"time":82}
    {"process":"client","type":"ok","f":"result","value":{"id":"o-7",...},"time":95}

    type    invoke    it was asked for
            ok        it was answered: `submit` is durable, `result` is final
            fail      it was certainly not done: refused at the door
            info      nobody knows: the other side died

A line is one `write` to a file opened for appending, made before the client does
anything with what it was told. So whatever kills the process, a client that knew of an
answer has written it down.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

import msgspec

__all__ = ["Event", "History", "Notes", "Value", "read_history"]

Kind = Literal["invoke", "ok", "fail", "info"]


class Value(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an event is about."""

    id: str
    """The command's key."""
    status: str = ""
    """Of a result: completed or compensated. Of anything else: why."""
    answer: str = ""
    """Of a result: what the command returned, or why it was refused."""


class Event(msgspec.Struct, frozen=True):
    """One line."""

    process: str
    type: Kind
    f: Literal["submit", "result"]
    value: Value
    time: int
    """Nanoseconds of the machine's monotonic clock."""


class Notes:
    """Events of one process, in memory."""

    def __init__(self, process: str) -> None:
        self.events: list[Event] = []
        self._process = process

    def note(self, type_: Kind, f: Literal["submit", "result"], value: Value) -> None:
        """Add an event."""
        self.keep(Event(self._process, type_, f, value, time.monotonic_ns()))

    def keep(self, event: Event) -> None:
        """Keep it."""
        self.events.append(event)


class History(Notes):
    """Events of one process, appended to a file: they outlive a SIGKILL."""

    def __init__(self, path: Path, process: str) -> None:
        super().__init__(process)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._descriptor = os.open(path, flags, 0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def keep(self, event: Event) -> None:
        """Write it down."""
        os.write(self._descriptor, msgspec.json.encode(event) + b"\n")


def read_history(path: Path) -> Iterator[Event]:
    """Yield the events of a file, in the order in which they were written."""
    for line in path.read_bytes().splitlines() if path.exists() else []:
        yield msgspec.json.decode(line, type=Event)
