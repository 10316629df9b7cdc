"""Figures: how they are summed up, kept, and printed. Pure, but for reading a file.

A figure is the median of its rounds, with their range, beside its target. It keeps the
commit and the day on which it was measured: measuring one again leaves the others as
they were, and nobody takes an old one for a new one. Figures of another machine are
dropped, as they can't stand beside the new.
"""

import statistics
from collections.abc import Sequence
from pathlib import Path

import msgspec

CORE = Path(__file__).parent / "results" / "core.json"
CMDSTREAM = CORE.with_name("cmdstream.json")


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table."""

    name: str
    value: float
    """The median of the rounds."""
    min: float
    max: float
    unit: str
    target: str
    holds: bool | None
    """None: there is no target."""
    rounds: int = 0
    commit: str = ""
    """Of the code that was measured; ``+`` behind it if that was changed."""
    date: str = ""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures depend on."""

    python: str
    kernel: str
    cpu: str
    cores: int
    memory_gb: int = 0
    disk: str = ""
    """File system of the folder that was written to."""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    """What is stored."""

    machine: Machine
    load_1min: float = 0.0
    """When the last run began: what else the machine was doing."""
    peers: dict[str, str] = {}
    """Versions of what we are compared with."""
    figures: list[Figure] = []
    left_out: dict[str, str] = {}
    """Figures that could not be had, and why."""


def figure(
    name: str,
    values: Sequence[float],
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Figure:
    """Return the median of *values*, one per round, beside its target."""
    value = statistics.median(values)
    if at_most is not None:
        target, holds = f"<= {at_most:g}", value <= at_most
    elif at_least is not None:
        target, holds = f">= {at_least:g}", value >= at_least
    else:
        target, holds = "", None
    return Figure(
        name=name,
        value=value,
        min=min(values),
        max=max(values),
        unit=unit,
        target=target,
        holds=holds,
        rounds=len(values),
    )


def merge(old: Results | None, new: Results, order: Sequence[str]) -> Results:
    """Return *old* with what *new* measured in its place, in *order*.

    Figures that *order* does not name are not measured any more, and go.
    """
    if old is None or old.machine != new.machine:
        old = Results(machine=new.machine)
    found = {line.name: line for line in old.figures}
    left_out = {**old.left_out, **new.left_out}
    for line in new.figures:
        found[line.name] = line
        left_out.pop(line.name, None)
    return Results(
        machine=new.machine,
        load_1min=new.load_1min,
        peers={**old.peers, **new.peers},
        # One that can't be had any more is not shown as if it could.
        figures=[found[n] for n in order if n in found and n not in new.left_out],
        left_out={name: left_out[name] for name in order if name in left_out},
    )


def load(path: Path) -> Results | None:
    """Return what *path* holds; None if it is not there."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    return msgspec.json.decode(data, type=Results)


def encode(results: Results) -> bytes:
    """Return the bytes of the file."""
    rounded = msgspec.structs.replace(
        results,
        figures=[
            msgspec.structs.replace(
                line,
                value=significant(line.value),
                min=significant(line.min),
                max=significant(line.max),
            )
            for line in results.figures
        ],
    )
    return msgspec.json.format(msgspec.json.encode(rounded), indent=2) + b"\n"


def significant(value: float) -> float:
    """Return *value* with four digits: no round repeats itself better than that."""
    return float(f"{value:.4g}")


def described(machine: Machine) -> str:
    """Return a line about *machine*."""
    return (
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gb} GB, "
        f"{machine.disk}, Linux {machine.kernel}, Python {machine.python}"
    )


def table(results: Results) -> str:
    """Return the figures for a terminal."""
    lines = [
        described(results.machine),
        f"{'':26}{'median':>10}{'min':>10}{'max':>10}  {'unit':8}{'target':10}",
    ]
    for line in results.figures:
        mark = {True: "holds", False: "MISSED", None: ""}[line.holds]
        lines.append(
            f"{line.name:26}{line.value:10.2f}{line.min:10.2f}{line.max:10.2f}  "
            f"{line.unit:8}{line.target:10}{mark:8}{line.commit} {line.date}"
        )
    lines += [f"{name:26}left out: {why}" for name, why in results.left_out.items()]
    return "\n".join(lines)
