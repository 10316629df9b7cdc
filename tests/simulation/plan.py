"""What a seed means: first how likely everything is, then everything.

"Draw the distribution, then the events": a seed in which refusals are common and the
disk is perfect finds other things than one with a little of everything. So each rate is
zero in many seeds, and of any magnitude in the others.
"""

import random
from dataclasses import dataclass

from tests.simulation.commands import COMMANDS, AnyCommand
from tests.simulation.contents import BLOCK
from tests.simulation.disk import DiskFaults
from tests.simulation.services import ServiceFaults

from coordinator.model import Retry

__all__ = ["CrashPlan", "LifePlan", "Plan", "draw_plan"]

_ENDS = ("stop", "drain", "time", "time", "disk", "disk", "call", "step")


@dataclass(frozen=True)
class CrashPlan:
    """How a life ends: ``stop``, or a crash by what it names."""

    by: str
    """``stop``, ``drain``, ``time``, ``disk``, ``call`` or ``step``."""
    number: int = 0
    """Which disk operation, call or step it is."""
    after: bool = False
    """Whether it comes after that, and not before."""
    at_s: float = 0.0
    """Seconds after the start, for ``stop``, ``drain`` and ``time``."""


@dataclass(frozen=True)
class LifePlan:
    """One life of the process."""

    number: int
    crash: CrashPlan
    orders: int
    span_s: float
    """Seconds in which the orders come."""
    pause_s: float
    """Seconds until the next life."""
    full: tuple[float, float] | None
    """Seconds after the start between which others fill the disk; if the life ends in
    between, it stays full until everything is healed, or until another such end."""


@dataclass(frozen=True)
class Plan:
    """All that is drawn before anything happens."""

    seed: int
    lives: tuple[LifePlan, ...]
    services: ServiceFaults
    disk: DiskFaults
    capacity: int
    segment_size: int
    retention_s: float
    checkpoint_size: int
    carry_after: int
    shapes: tuple[type[AnyCommand], ...]
    retry: Retry
    commands_max: int
    step_timeout_s: float
    shuffled: bool
    latency_s: float
    """Of the executors, on average."""
    stalls: float
    """Share of executor latencies that are a hundred times as long."""
    collects: float
    """Chance, per step of the loop, that garbage is collected."""
    vanish: float
    """Chance, per client, that it goes away."""
    cancel: float
    """Chance, per order, that an operator cancels it."""
    asks_again: float
    """Chance, per keyed order of an earlier life, that it is submitted again."""


def draw_plan(seed: int) -> Plan:
    """Draw everything from *seed*."""
    chance = random.Random(f"{seed}/plan")
    services = ServiceFaults(
        refuse=_rate(chance, 0.3),
        refuse_undo=_rate(chance, 0.1),
        fail=_rate(chance, 0.4),
        odd=_rate(chance, 0.3),
        lost=_rate(chance, 0.4),
        hang=_rate(chance, 0.3),
        blocked=_rate(chance, 0.1),
        blocked_s=chance.uniform(0.1, 5),
        latency_s=chance.choice((0.0005, 0.01, 0.1)),
    )
    disk = DiskFaults(
        write_eio=_rate(chance, 0.01),
        sync_eio=_rate(chance, 0.15),
        names_eio=_rate(chance, 0.03),
        no_space=_rate(chance, 0.1),
        power=chance.choice((0.0, 0.3, 0.5, 1.0)),
        survival=(chance.random(), chance.random(), chance.random(), chance.random()),
        zero_tail=chance.random(),
    )
    segment_size = chance.choice((4096, 8192, 32768, 262144))
    shapes = chance.sample(COMMANDS, chance.randint(1, len(COMMANDS)))
    retry = Retry(
        first_s=chance.choice((0.01, 0.2)),
        longest_s=chance.choice((0.5, 5.0)),
        attempts_max=chance.choice((None, 3, 10)),
        delays_max=chance.choice((None, None, 8)),
    )
    lives = tuple(_draw_life(number, chance) for number in range(chance.randint(1, 5)))
    return Plan(
        seed=seed,
        lives=lives,
        services=services,
        disk=disk,
        capacity=chance.choice((1 << 30, 1 << 30, 6 * segment_size + 16 * BLOCK)),
        segment_size=segment_size,
        retention_s=chance.choice((0.0, 5.0, 1e6)),
        checkpoint_size=chance.choice((1000, 10_000, 1 << 26)),
        carry_after=chance.randint(1, 4),
        shapes=tuple(shapes),
        retry=retry,
        commands_max=chance.choice((2, 5, 10_000)),
        step_timeout_s=chance.choice((1.0, 30.0)),
        shuffled=chance.random() < 0.8,
        latency_s=chance.choice((1e-5, 1e-4, 1e-3, 5e-3)),
        stalls=_rate(chance, 0.05),
        collects=chance.choice((0.0, 0.0, 0.0, 0.003)),
        vanish=_rate(chance, 0.5),
        cancel=0.8 if chance.random() < 0.2 else _rate(chance, 0.8),
        asks_again=chance.random(),
    )


def _rate(chance: random.Random, highest: float) -> float:
    """Draw a rate: often zero, else of any magnitude up to *highest*."""
    if chance.random() < 0.4:
        return 0.0
    return float(highest * 10 ** (-2 * chance.random()))


def _draw_life(number: int, chance: random.Random) -> LifePlan:
    span_s = chance.choice((0.01, 0.5, 5.0))
    by = chance.choice(
        ("stop", "drain", "time", "time", "disk", "disk", "call", "step")
    )
    crash = CrashPlan(
        by=by,
        number=_magnitude(chance, 4000 if by == "step" else 120),
        after=chance.random() < 0.5,
        at_s=span_s * chance.uniform(0, 3),
    )
    full = None
    if chance.random() < 0.1:
        begin_s = chance.choice((0.0, chance.uniform(0, span_s)))
        full = (begin_s, begin_s + chance.uniform(0, 5))
    return LifePlan(
        number=number,
        crash=crash,
        orders=_magnitude(chance, 20),
        span_s=span_s,
        pause_s=chance.choice((0.0, 1.0, 10.0)),
        full=full,
    )


def _magnitude(chance: random.Random, highest: int) -> int:
    """Draw a number from 1 to *highest*, small ones as likely as large ones."""
    return max(1, int(highest ** chance.random()))
