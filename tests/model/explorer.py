"""Visit every state that a model can reach, nearest first.

A model says where it begins, what may happen next, and what must hold. States are
values: equal ones are visited once. The first state in which something does not hold is
as near to the beginning as any, so the way to it is a shortest story of what went
wrong.
"""

import gc
import time
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

__all__ = ["Model", "Result", "explore"]

STATES_MAX = 20_000_000
"""Bounds the memory of a model that turns out larger than its author thought."""

StateT = TypeVar("StateT", bound=Hashable)
ActionT = TypeVar("ActionT")


class Model(Protocol[StateT, ActionT]):
    """What the explorer needs of a model."""

    def initial(self) -> StateT:
        """Return the state that it begins in."""
        ...

    def successors(self, state: StateT) -> Iterable[tuple[ActionT, StateT]]:
        """Yield whatever may happen in *state*, and what it is then."""
        ...

    def violation(self, state: StateT) -> str:
        """Say what does not hold in *state*; empty if all does."""
        ...

    def tell(self, action: ActionT, before: StateT, after: StateT) -> str:
        """Say in a sentence what happened."""
        ...


@dataclass(frozen=True, kw_only=True)
class Result(Generic[StateT]):
    """What was seen."""

    states: int
    transitions: int
    depth: int
    """Actions on the shortest way to the state that lies farthest."""
    seconds: float
    """Of one core."""
    violation: str
    """What does not hold; empty if everything does, in every state."""
    story: tuple[str, ...]
    """How it came to that; empty if it did not."""
    visited: frozenset[StateT]
    """All states, if they were asked for."""

    def __str__(self) -> str:
        counts = (
            f"{self.states:,} states, {self.transitions:,} transitions, "
            f"{self.depth} deep, {self.seconds:.1f} s"
        )
        if not self.violation:
            return counts
        steps = [f"{number:3}. {step}" for number, step in enumerate(self.story, 1)]
        return "\n".join([f"{self.violation}:", *steps, f"  ({counts})"])


def explore(model: Model[StateT, ActionT], *, keep: bool = False) -> Result[StateT]:
    """Visit all states of *model*, or those up to the first that is wrong.

    Args:
        model: What to explore; it has to be finite.
        keep: Whether to return the states, too.
    """
    began = time.process_time()
    # No state refers to itself, so there is nothing to collect: without this the
    # collector looks through millions of tuples, again and again.
    collects = gc.isenabled()
    gc.disable()
    try:
        came_from, transitions, depth, wrong = _visit(model)
    finally:
        if collects:
            gc.enable()
    story = () if wrong is None else _story(model, came_from, wrong)
    return Result(
        states=len(came_from),
        transitions=transitions,
        depth=depth,
        seconds=time.process_time() - began,
        violation="" if wrong is None else model.violation(wrong),
        story=story,
        visited=frozenset(came_from) if keep else frozenset(),
    )


_Ways = dict[StateT, tuple[StateT, ActionT] | None]


def _visit(
    model: Model[StateT, ActionT],
) -> tuple[_Ways[StateT, ActionT], int, int, StateT | None]:
    first = model.initial()
    came_from: _Ways[StateT, ActionT] = {first: None}
    if model.violation(first):
        return came_from, 0, 0, first
    transitions = 0
    depth = 0
    border = [first]
    while border:
        beyond: list[StateT] = []
        for state in border:
            for action, after in model.successors(state):
                transitions += 1
                if after in came_from:
                    continue
                came_from[after] = (state, action)
                if model.violation(after):
                    return came_from, transitions, depth + 1, after
                beyond.append(after)
        assert len(came_from) < STATES_MAX, "too many states: lower a bound"
        depth += bool(beyond)
        border = beyond
    return came_from, transitions, depth, None


def _story(
    model: Model[StateT, ActionT], came_from: _Ways[StateT, ActionT], end: StateT
) -> tuple[str, ...]:
    steps: list[str] = []
    after = end
    while (way := came_from[after]) is not None:
        before, action = way
        steps.append(model.tell(action, before, after))
        after = before
    return tuple(reversed(steps))
