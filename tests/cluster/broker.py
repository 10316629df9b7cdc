"""The journal of the simulated cluster: what it keeps of a partition, and what it says.

It keeps the one promise of the port: an append of an old epoch fails once a newer claim
is in the log.
"""

from dataclasses import dataclass, field
from typing import NamedTuple


class Call(NamedTuple):
    """One line of the ledger: a call that reached a service."""

    at: float
    kind: str
    partition: int
    saga: int
    step: int
    epoch: int


class Claim(NamedTuple):
    """A claim, and what was to be done next when it was made."""

    at: float
    partition: int
    epoch: int
    name: str
    frontier: tuple[int, int] | None


@dataclass
class Saga:
    """What the log says of a partition's sagas."""

    number: int = 0
    done: int = 0
    undone: int = 0
    aborting: bool = False

    def apply(self, entry: str) -> None:
        match entry:
            case "done":
                self.done += 1
            case "abort":
                self.aborting = True
            case "undone":
                self.undone += 1
            case "end":
                self.number += 1
                self.done = self.undone = 0
                self.aborting = False
            case _:
                pass


class Answer(NamedTuple):
    """What the broker said to a request; or that it said nothing in time."""

    verdict: str
    epoch: int = 0
    owner: str = ""
    earlier_lease_s: float = 0.0
    saga: Saga = Saga()


UNCERTAIN = Answer("uncertain")


@dataclass
class Log:
    """A partition, as the broker keeps it."""

    epoch: int = 0
    owner: str = ""
    earlier_lease_s: float = 0.0
    saga: Saga = field(default_factory=Saga)

    def append(self, epoch: int, entry: str) -> bool:
        if epoch != self.epoch:
            return False
        self.saga.apply(entry)
        if entry == "released":
            self.earlier_lease_s = 0.0
        return True
