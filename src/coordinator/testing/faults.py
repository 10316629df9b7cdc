"""What `explore` does to a run: faults, drawn from a seed, and told in words.

A schedule is a list of faults; each names the call or the moment that it waits for, so
a schedule from which some are dropped still means what it meant.

    refuse      a service refuses a step
    fail        a call does not reach its service
    lose_reply  a service does it, and its reply is lost
    delay       a service does it, and answers when nobody waits any more
    crash       the process is killed at a moment
    cancel      an operator cancels at a moment

The first decides what the saga is to come to; the others are noise, which must not.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.errors import CommandDelayed, Refused
from coordinator.testing.runs import Attached
from coordinator.testing.scene import Moment
from coordinator.testing.services import Answer

__all__ = ["KINDS", "Fault", "Ground", "Schedule", "draw"]

KINDS = ("refuse", "fail", "lose_reply", "delay", "crash", "cancel")
COUNTS = (1, 2, 2, 3, 4, 6)
"""How many faults a seed has: mostly few, or no saga would get anywhere."""
NTHS = (0, 0, 0, 0, 1, 1, 2)
"""Which call of a step, or which time that it comes to a moment, is hit."""

_WORDS = {
    "refuse": "was refused",
    "fail": "could not be reached",
    "lose_reply": "did its work, and its reply was lost",
    "delay": "did its work, and answered when nobody waited any more",
}


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    kind: str
    at: Moment
    """A moment; for a service's fault, its step and which call of it, from 0."""

    def __str__(self) -> str:
        if self.kind == "crash":
            return f"the process was killed {self.at}"
        if self.kind == "cancel":
            return f"an operator cancelled it, {self.at}"
        nth = f", when it was called for the {_ordinal(self.at.nth)} time"
        return f"{self.at.what} {_WORDS[self.kind]}{nth if self.at.nth else ''}"


def _ordinal(index: int) -> str:
    return {1: "second", 2: "third"}.get(index, f"{index + 1}th")


@dataclass
class Ground:
    """What is known of one way that a saga can go: where faults can be put."""

    way: list[Fault]
    """What makes it go there: a refusal, a cancel, or nothing."""
    steps: list[str]
    """That are called, in their order."""
    undos: list[str]
    moments: list[str]


def draw(seed: int, grounds: Sequence[Ground]) -> list[Fault]:
    """Draw a schedule: first the way and the kinds, then how many, then each of them.

    The way goes first, for what a saga does behind a refusal, say, is a small part of
    all that it may do, and would else hardly ever be hit.
    """
    chance = random.Random(f"explore/{seed}")  # noqa: S311 -- a seed is to repeat
    kinds = [kind for kind in KINDS if chance.random() < 0.5]
    kinds = kinds or [chance.choice(KINDS)]
    ground = chance.choice(grounds)
    faults = {fault.at: fault for fault in ground.way}
    if any(fault.kind == "cancel" for fault in ground.way) and "cancel" in kinds:
        kinds.remove("cancel")
        kinds = kinds or ["crash"]
    for _ in range(chance.choice(COUNTS)):
        kind = chance.choice(kinds)
        if kind == "cancel":
            kinds.remove(kind)  # once: what is undone can't be cancelled again
            kinds = kinds or ["crash"]
        if kind in {"crash", "cancel"}:
            nth = chance.choice(NTHS)
            at = Moment(chance.choice(ground.moments), nth)
        else:
            undos = [] if kind == "refuse" else ground.undos
            places = [*ground.steps, *undos]
            if not places:
                continue
            at = Moment(
                chance.choice(places), 0 if kind == "refuse" else chance.choice(NTHS)
            )
        faults.setdefault(at, Fault(kind, at))
    return list(faults.values())


class Schedule(Attached):
    """Services and a process under a list of faults."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__()
        self._faults = {fault.at: fault for fault in faults}
        self._calls: dict[str, int] = {}
        self.happened: list[Fault] = []
        """In their order."""

    def direct(self, moment: Moment) -> str:
        """Say what happens at *moment*; for `Stage`."""
        fault = self._faults.get(moment)
        if fault is None:
            return ""
        self.happened.append(fault)
        return "kill" if fault.kind == "crash" else "cancel"

    def answer(self, step: str) -> Answer:
        """See `Services.answer`; adds the fault of this call."""
        answer = super().answer(step)
        nth = self._calls.get(step, 0)
        self._calls[step] = nth + 1
        fault = self._faults.get(Moment(step, nth))
        if fault is None or answer.before is not None or answer.lost:
            return answer
        if fault.kind == "refuse":
            # A service that did it under this key will not refuse it under the same.
            if any(call.done and call.step == step for call in self.stage.calls):
                return answer
            answer.before = Refused(f"{step} was refused")
        elif fault.kind == "fail":
            answer.before = CommandDelayed("could not be reached")
        elif fault.kind == "delay":
            answer.delay_s = math.inf
        else:
            answer.lost = True
        self.happened.append(fault)
        return answer
