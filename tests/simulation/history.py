"""What happened, in the order in which it happened: the checker's only evidence.

An event is a moment, a life, a kind and a few plain values, so that a history is a file
of JSON lines. Kinds, and who writes them:

    life.begin life.closed life.end           the runner
    submit.begin submit.acked submit.failed   clients; `order` names what was asked for
    result.seen                               clients: what they were told
    operator.cancel operator.retry            operators: asked for, and acknowledged
    call.begin call.end                       services, around each call they get
    effect duplicate refusal                  the world: what a request came to
    exec.saw                                  commands: a reply that `exec` goes on with
    journal.read journal.writing              the tap around the journal: what recovery
    journal.durable journal.checkpoint        reads, what is handed over, what is safe
    disk                                      the disk; for readers, not for the checker
"""

import hashlib
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

__all__ = ["Event", "History"]


class Event(NamedTuple):
    """One thing that happened."""

    at: int
    """Microseconds of virtual time."""
    life: int
    kind: str
    fields: dict[str, Any]

    def __str__(self) -> str:
        fields = " ".join(f"{name}={_short(v)}" for name, v in self.fields.items())
        return f"{self.at / 1e6:12.6f}  life {self.life}  {self.kind:18} {fields}"


class History:
    """The events of one seed.

    Args:
        now_s: Returns virtual seconds.
    """

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.now_s = now_s
        self.life = 0
        self.events: list[Event] = []

    def add(self, kind: str, /, **fields: Any) -> None:
        """Note that something of *kind* happened now."""
        self.events.append(Event(int(self.now_s() * 1e6), self.life, kind, fields))

    def __iter__(self) -> Iterator[Event]:
        return iter(self.events)

    def lines(self) -> Iterator[str]:
        """Yield the events as JSON, one line each."""
        for event in self.events:
            yield json.dumps(event, default=_plain, separators=(",", ":"))

    def digest(self) -> str:
        """Return a hash of all events: equal for equal runs, and for no others."""
        digest = hashlib.blake2b(digest_size=16)
        for event in self.events:
            digest.update(repr(event).encode())
        return digest.hexdigest()


def _plain(value: object) -> str:
    return repr(value)


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 160 else f"{text[:157]}..."
