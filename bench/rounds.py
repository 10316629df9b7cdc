"""Rounds: everything is measured once per round, and in turn from either end.

A slow disk or a busy neighbour so hits what is compared alike, and a drift cancels out.
"""

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.peers import LeftOutError
from bench.results import Figure, figure


@dataclass(frozen=True)
class Round:
    """One round."""

    number: int
    """From 0."""
    folder: Path
    """Empty; on the disk that is measured."""
    seconds: float
    """For how long a load is driven."""

    def place(self, name: str) -> Path:
        """Return a new folder."""
        place = self.folder / name
        place.mkdir()
        return place


Measurement = Callable[[Round], Any]


@dataclass(frozen=True, kw_only=True)
class Spec:
    """How a figure comes about."""

    name: str
    unit: str
    needs: tuple[Measurement, ...]
    value: Callable[..., float]
    """From what the measurements of one round gave, in the order of `needs`."""
    at_most: float | None = None
    at_least: float | None = None
    rounds_max: int = 1_000
    """For what takes long."""
    asked_for: bool = False
    """Only measured where it is asked for by name."""


def measure(
    specs: Sequence[Spec],
    rounds: int,
    folder: Path,
    seconds: float,
    say: Callable[[str], None],
) -> tuple[list[Figure], dict[str, str]]:
    """Return the figures of *specs*, and why others could not be had."""
    values: dict[str, list[float]] = {spec.name: [] for spec in specs}
    left_out: dict[str, str] = {}
    for number in range(rounds):
        due = [spec for spec in specs if number < spec.rounds_max]
        if not due:
            break
        say(f"round {number + 1} of {rounds}")
        place = folder / str(number)
        place.mkdir()
        needed = in_turn([spec.needs for spec in due], number)
        found = _take(needed, Round(number, place, seconds), left_out, due, say)
        for spec in due:
            if all(measurement in found for measurement in spec.needs):
                values[spec.name].append(spec.value(*map(found.get, spec.needs)))
    figures = [
        figure(
            spec.name,
            values[spec.name],
            spec.unit,
            at_most=spec.at_most,
            at_least=spec.at_least,
        )
        for spec in specs
        if values[spec.name] and spec.name not in left_out
    ]
    return figures, left_out


def in_turn(needs: Sequence[tuple[Measurement, ...]], number: int) -> list[Measurement]:
    """Return each needed measurement once; every other round the other way round."""
    order = list(dict.fromkeys(one for group in needs for one in group))
    return order[::-1] if number % 2 else order


def _take(
    needed: Sequence[Measurement],
    round_: Round,
    left_out: dict[str, str],
    due: Sequence[Spec],
    say: Callable[[str], None],
) -> dict[Measurement, Any]:
    found: dict[Measurement, Any] = {}
    for measurement in needed:
        say(f"  {getattr(measurement, '__name__', measurement)}")
        gc.collect()
        try:
            found[measurement] = measurement(round_)
        except LeftOutError as error:
            for spec in due:
                if measurement in spec.needs:
                    left_out[spec.name] = str(error)
    return found
