"""All figures: their names, units and targets, and what they are made of.

Peers are compared with us in the arrangement that is theirs: DBOS within the process of
its callers, Restate over the wire.
"""

from bench.core_loads import (
    Above,
    Sized,
    above_floor,
    bare,
    hundred,
    hundred_within,
    import_ms,
    one,
    one_within,
    turned_back,
)
from bench.crashes import (
    Parked,
    dbos_recover_s,
    parked,
    recover_s,
    restate_recover_s,
)
from bench.load import Measured
from bench.overload import Overload, Soak, overload, soak
from bench.peers import dbos, restate
from bench.rounds import Round, Spec


def dbos_one(round_: Round) -> Measured:
    """One caller of DBOS."""
    return dbos.run(round_.place("dbos-one"), 1, round_.seconds)


def dbos_hundred(round_: Round) -> Measured:
    """A hundred callers of DBOS."""
    return dbos.run(round_.place("dbos-hundred"), 100, round_.seconds)


def restate_one(round_: Round) -> Measured:
    """One client of Restate."""
    return restate.run(round_.place("restate-one"), 1, round_.seconds)


def restate_hundred(round_: Round) -> Measured:
    """A hundred clients of Restate."""
    return restate.run(round_.place("restate-hundred"), 100, round_.seconds)


def _rate(measured: Measured) -> float:
    return measured.rate


def _p50(measured: Measured) -> float:
    return measured.p50_ms


def _same(value: float) -> float:
    return value


def _throughput(ours: Measured, theirs: Measured) -> float:
    return ours.rate / theirs.rate


def _percent(ours: Measured, theirs: Measured) -> float:
    return 100 * ours.rate / theirs.rate


def _latency(ours: Measured, theirs: Measured) -> float:
    return ours.p50_ms / theirs.p50_ms


def _above_floor(found: Above) -> float:
    return found.ratio


def _floor(found: Above) -> float:
    return found.floor_ms


def _p50_of_one(ours: Sized) -> float:
    return ours.measured.p50_ms


def _p99_of_one(ours: Sized) -> float:
    return ours.measured.p99_ms


def _bytes(ours: Sized) -> float:
    return ours.bytes_per_saga


def _rss(found: Parked) -> float:
    return max(found.rss_mb, found.restarted_mb)


def _grown(found: Parked) -> float:
    return found.grown_mb


def _restart(found: Parked) -> float:
    return found.restart_s


def _resume(found: Parked) -> float:
    return found.resume_s


def _goodput(found: Overload) -> float:
    return found.goodput


def _overload_p99(found: Overload) -> float:
    return found.p99_ms / found.unloaded_p99_ms


def _overload_p99_ms(found: Overload) -> float:
    return found.p99_ms


def _unloaded_p99_ms(found: Overload) -> float:
    return found.unloaded_p99_ms


def _soak_rss(found: Soak) -> float:
    return found.rss_percent_per_h


def _soak_tasks(found: Soak) -> float:
    return float(found.tasks_grown)


def _soak_descriptors(found: Soak) -> float:
    return float(found.descriptors_grown)


FIGURES = (
    Spec(
        name="latency_vs_floor",
        unit="ratio",
        needs=(above_floor,),
        value=_above_floor,
        at_most=1.3,
    ),
    Spec(
        name="throughput_vs_bare",
        unit="%",
        needs=(hundred, bare),
        value=_percent,
        at_least=55,
    ),
    Spec(
        name="throughput_vs_dbos",
        unit="ratio",
        needs=(hundred_within, dbos_hundred),
        value=_throughput,
        at_least=100,
    ),
    Spec(
        name="latency_vs_dbos",
        unit="ratio",
        needs=(one_within, dbos_one),
        value=_latency,
        at_most=0.25,
    ),
    Spec(
        name="throughput_vs_restate",
        unit="ratio",
        needs=(hundred, restate_hundred),
        value=_throughput,
        at_least=30,
    ),
    Spec(name="sagas_per_s", unit="1/s", needs=(hundred,), value=_rate),
    Spec(name="within_per_s", unit="1/s", needs=(hundred_within,), value=_rate),
    Spec(name="compensated_sagas_per_s", unit="1/s", needs=(turned_back,), value=_rate),
    Spec(name="bare_per_s", unit="1/s", needs=(bare,), value=_rate),
    Spec(name="dbos_per_s", unit="1/s", needs=(dbos_hundred,), value=_rate),
    Spec(name="restate_per_s", unit="1/s", needs=(restate_hundred,), value=_rate),
    Spec(name="p50_ms", unit="ms", needs=(one,), value=_p50_of_one),
    Spec(name="p99_ms", unit="ms", needs=(one,), value=_p99_of_one),
    Spec(name="within_p50_ms", unit="ms", needs=(one_within,), value=_p50),
    Spec(name="floor_ms", unit="ms", needs=(above_floor,), value=_floor),
    Spec(name="dbos_p50_ms", unit="ms", needs=(dbos_one,), value=_p50),
    Spec(name="restate_p50_ms", unit="ms", needs=(restate_one,), value=_p50),
    Spec(
        name="recover_1000_s",
        unit="s",
        needs=(recover_s,),
        value=_same,
        at_most=1,
    ),
    Spec(
        name="dbos_recover_1000_s",
        unit="s",
        needs=(dbos_recover_s,),
        value=_same,
        rounds_max=1,
    ),
    Spec(
        name="restate_recover_1000_s",
        unit="s",
        needs=(restate_recover_s,),
        value=_same,
        rounds_max=1,
    ),
    Spec(
        name="parked_mb",
        unit="MB",
        needs=(parked,),
        value=_rss,
        at_most=200,
        rounds_max=2,
    ),
    Spec(
        name="parked_grown_mb", unit="MB", needs=(parked,), value=_grown, rounds_max=2
    ),
    Spec(
        name="parked_resume_s", unit="s", needs=(parked,), value=_resume, rounds_max=2
    ),
    Spec(
        name="restart_s",
        unit="s",
        needs=(parked,),
        value=_restart,
        at_most=3,
        rounds_max=2,
    ),
    Spec(
        name="overload_goodput",
        unit="%",
        needs=(overload,),
        rounds_max=3,
        value=_goodput,
        at_least=90,
    ),
    Spec(
        name="overload_p99",
        unit="ratio",
        needs=(overload,),
        rounds_max=3,
        value=_overload_p99,
        at_most=2,
    ),
    Spec(
        name="overload_p99_ms",
        unit="ms",
        needs=(overload,),
        value=_overload_p99_ms,
        rounds_max=3,
    ),
    Spec(
        name="unloaded_p99_ms",
        unit="ms",
        needs=(overload,),
        value=_unloaded_p99_ms,
        rounds_max=3,
    ),
    Spec(name="journal_bytes", unit="bytes", needs=(one,), value=_bytes, at_most=700),
    Spec(name="import_ms", unit="ms", needs=(import_ms,), value=_same, at_most=150),
    Spec(
        name="soak_rss_slope",
        unit="%/h",
        needs=(soak,),
        value=_soak_rss,
        at_most=5,
        rounds_max=1,
        asked_for=True,
    ),
    Spec(
        name="soak_tasks_grown",
        unit="tasks",
        needs=(soak,),
        value=_soak_tasks,
        at_most=0,
        rounds_max=1,
        asked_for=True,
    ),
    Spec(
        name="soak_descriptors_grown",
        unit="files",
        needs=(soak,),
        value=_soak_descriptors,
        at_most=0,
        rounds_max=1,
        asked_for=True,
    ),
)
