"""What a seed means: first how likely everything is, then everything.

"Draw the distribution, then the events": a seed in which refusals are common and the
disk is perfect finds other things than one with a little of everything. So each rate is
zero in many seeds, and of any magnitude in the others.
"""

import random
from dataclasses import dataclass, replace

from tests.simulation.commands import COMMANDS, AnyCommand
from tests.simulation.contents import BLOCK
from tests.simulation.disk import DiskFaults
from tests.simulation.services import ServiceFaults
from tests.simulation.shop import GatewayPlan

from cmdstream.breaker import BreakerOptions
from coordinator.model import Retry

__all__ = ["CrashPlan", "LifePlan", "Plan", "draw_plan"]

_ENDS = (
    *("stop", "drain", "time", "time", "disk", "disk", "call", "call", "step"),
    *("signal", "interrupt"),
)


@dataclass(frozen=True)
class CrashPlan:
    """How a life ends: in order, or by a crash."""

    by: str
    """In order, after a time: ``stop`` at once, ``drain`` first. In order, at a step of
    the loop, be it in mid-start: ``signal``, as SIGTERM; ``interrupt``, as Ctrl-C under
    `asyncio.run`. A crash: ``time``, ``disk``, ``call`` or ``step``."""
    number: int = 0
    """Which disk operation, call or step of the loop it is."""
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
    purges: bool
    """Whether an operator cancels nearly all that is unfinished, soon after the
    start."""


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
    keys_max: int
    keys_size_max: int
    keys_age_s: float
    archives: bool
    """Whether trimmed segments are kept elsewhere."""
    copies: float
    """Chance, per end of a life, that somebody copies a segment into the archive."""
    shapes: tuple[type[AnyCommand], ...]
    retry: Retry
    commands_max: int
    probes: int
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
    uncertain: float
    """Chance, per call of the journal's port, that nobody knows whether it was done."""
    clock_jumps: float
    """Chance, per look at the clock on the wall, that it jumps."""
    decay: float
    """Chance, per end of a life, that one bit of what is stored is flipped."""
    gateway: GatewayPlan | None
    """How shipping is asked, if through a gateway."""
    cancel: float
    """Chance, per order, that an operator cancels it."""
    asks_again: float
    """Chance, per keyed order of an earlier life, that it is submitted again."""


def draw_plan(seed: int) -> Plan:
    """Draw everything from *seed*."""
    chance = random.Random(f"{seed}/plan")
    services, disk = _draw_services(chance), _draw_disk(chance)
    clock_jumps = _rate(chance, 0.05)
    segment_size = chance.choice((4096, 4096, 8192, 32768, 262144))
    shapes = chance.sample(COMMANDS, _magnitude(chance, len(COMMANDS)))
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
        keys_max=chance.choice((1, 3, 100_000, 100_000)),
        keys_size_max=chance.choice((40, 1 << 26, 1 << 26)),
        keys_age_s=30.0 if clock_jumps == 0 and chance.random() < 0.3 else 86400.0,
        archives=chance.random() < 0.5,
        copies=chance.choice((0.0, 0.8)),
        shapes=tuple(shapes),
        retry=retry,
        commands_max=chance.choice((2, 5, 10_000)),
        probes=chance.choice((1, 2, 4)),
        step_timeout_s=chance.choice((1.0, 30.0)),
        shuffled=chance.random() < 0.8,
        latency_s=chance.choice((1e-5, 1e-4, 1e-3, 5e-3, 0.05)),
        stalls=_rate(chance, 0.05),
        collects=chance.choice((0.0, 0.0, 0.0, 0.003)),
        vanish=_rate(chance, 0.5),
        uncertain=_rate(chance, 0.05),
        clock_jumps=clock_jumps,
        decay=chance.choice((0.0, 0.5)),
        gateway=_draw_gateway(chance),
        cancel=0.8 if chance.random() < 0.2 else _rate(chance, 0.8),
        asks_again=chance.random(),
    )


def _draw_services(chance: random.Random) -> ServiceFaults:
    return ServiceFaults(
        refuse=_rate(chance, 0.3),
        refuse_undo=_rate(chance, 0.1),
        fail=_rate(chance, 0.4),
        odd=_rate(chance, 0.3),
        lost=_rate(chance, 0.4),
        hang=_rate(chance, 0.3),
        blocked=_rate(chance, 0.1),
        blocked_s=chance.uniform(0.1, 5),
        down=_rate(chance, 0.1),
        latency_s=chance.choice((0.0005, 0.01, 0.1)),
    )


def _draw_disk(chance: random.Random) -> DiskFaults:
    return DiskFaults(
        write_eio=_rate(chance, 0.01),
        sync_eio=_rate(chance, 0.15),
        names_eio=_rate(chance, 0.05),
        allocate_eio=_rate(chance, 0.05),
        no_space=_rate(chance, 0.1),
        short=_rate(chance, 0.2),
        power=chance.choice((0.0, 0.3, 0.5, 1.0)),
        survival=(chance.random(), chance.random(), chance.random(), chance.random()),
        zero_tail=chance.random(),
    )


def _draw_gateway(chance: random.Random) -> GatewayPlan | None:
    """Draw a gateway that is quick to open its circuit, or none."""
    if chance.random() < 0.4:
        return None
    open_s = chance.choice((0.2, 1.0))
    return GatewayPlan(
        timeout_s=chance.choice((0.5, 2.0, 10.0)),
        calls_max=chance.choice((1, 3, 100)),
        fail=chance.choice((0.0, 0.3, 0.8)),
        breaker=BreakerOptions(
            window_s=chance.choice((1.0, 10.0)),
            buckets=chance.choice((1, 5, 10)),
            failure_rate=chance.choice((0.1, 0.5, 1.0)),
            calls_min=chance.randint(1, 5),
            open_first_s=open_s,
            open_longest_s=open_s * chance.choice((1, 4)),
            trials_max=chance.randint(1, 3),
            trials_to_close=chance.randint(1, 3),
        ),
    )


def _rate(chance: random.Random, highest: float) -> float:
    """Draw a rate: often zero, else of any magnitude up to *highest*."""
    if chance.random() < 0.4:
        return 0.0
    return float(highest * 10 ** (-2 * chance.random()))


def _draw_life(number: int, chance: random.Random) -> LifePlan:
    span_s = chance.choice((0.01, 0.5, 5.0))
    by = chance.choice(_ENDS)
    crash = CrashPlan(
        by=by,
        number=_magnitude(chance, 120 if by in {"disk", "call"} else 4000),
        after=chance.random() < 0.5,
        at_s=span_s * chance.uniform(0, 3),
    )
    full = None
    if chance.random() < 0.15:
        begin_s = chance.choice((0.0, chance.uniform(0, span_s)))
        full = (begin_s, begin_s + chance.choice((5.0, 1000.0)) * chance.random())
        if by in {"stop", "drain"} and chance.random() < 0.7:
            crash = replace(crash, at_s=begin_s + chance.uniform(0, 5))
    purges = chance.random() < 0.2
    if purges and by == "drain":
        crash = replace(crash, at_s=chance.uniform(0, 0.5))
    return LifePlan(
        number=number,
        crash=crash,
        orders=_magnitude(chance, 20),
        span_s=span_s,
        pause_s=chance.choice((0.0, 1.0, 10.0)),
        full=full,
        purges=purges,
    )


def _magnitude(chance: random.Random, highest: int) -> int:
    """Draw a number from 1 to *highest*, small ones as likely as large ones."""
    return max(1, int(highest ** chance.random()))
