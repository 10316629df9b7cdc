"""The figures of an echo: their names, units and targets."""

import functools

import msgspec

from bench import processes
from bench.echo import EchoLoad, golang
from bench.echo.weighing import Allocated, allocated, idle_mb
from bench.load import Measured
from bench.rounds import Measurement, Round, Spec

__all__ = ["FIGURES"]

ROLES = "bench.echo.driving"


@functools.cache
def echo(peer: str, in_flight: int, connections: int) -> Measurement:
    """Return what measures *peer*: the same one each time, so that it is done once."""

    def measurement(round_: Round) -> Measured:
        if peer == "go":
            return golang.measure(in_flight, connections, round_.seconds)
        with processes.role("server", peer, module=ROLES) as server:
            load = EchoLoad(
                peer=peer,
                port=server.port,
                in_flight=in_flight,
                connections=connections,
                seconds=round_.seconds,
            )
            answer = processes.ask("client", load, module=ROLES)
        return msgspec.json.decode(answer, type=Measured)

    measurement.__name__ = f"{peer}, {in_flight} in flight over {connections}"
    return measurement


def _rate(measured: Measured) -> float:
    return measured.rate


def _p50(measured: Measured) -> float:
    return measured.p50_ms


def _percent(ours: Measured, theirs: Measured) -> float:
    return 100 * ours.rate / theirs.rate


def _times(ours: Measured, theirs: Measured) -> float:
    return ours.rate / theirs.rate


def _slower(ours: Measured, theirs: Measured) -> float:
    return ours.p50_ms / theirs.p50_ms


OURS = ("json", "mus", "protobuf")
PEERS = ("bare", *OURS, "grpc", "aiohttp", "go")


def _same(value: float) -> float:
    return value


def _server(allocated: Allocated) -> float:
    return allocated.server


def _client(allocated: Allocated) -> float:
    return allocated.client


def _both(allocated: Allocated) -> float:
    return allocated.server + allocated.client


def _targets(ours: str) -> list[Spec]:
    """What is asked of the JSON codec, and looked at with the others, too."""
    aims: dict[str, float | None] = {"bare": 50, "grpc": 5, "aiohttp": 8}
    asked = ours == "json"
    figures = [
        Spec(
            name=f"{ours}_vs_{peer}",
            unit="%" if peer == "bare" else "ratio",
            needs=(echo(ours, 100, 1), echo(peer, 100, 1)),
            value=_percent if peer == "bare" else _times,
            at_least=aim if asked else None,
        )
        for peer, aim in aims.items()
    ]
    slower = Spec(
        name=f"{ours}_latency_vs_bare",
        unit="ratio",
        needs=(echo(ours, 1, 1), echo("bare", 1, 1)),
        value=_slower,
        at_most=1.3 if asked else None,
    )
    return [*figures, slower]


def _seen(peer: str) -> list[Spec]:
    return [
        Spec(
            name=f"{peer}_per_s", unit="1/s", needs=(echo(peer, 100, 1),), value=_rate
        ),
        Spec(
            name=f"{peer}_4_per_s", unit="1/s", needs=(echo(peer, 100, 4),), value=_rate
        ),
        Spec(name=f"{peer}_p50_ms", unit="ms", needs=(echo(peer, 1, 1),), value=_p50),
        Spec(name=f"{peer}_4_p50_ms", unit="ms", needs=(echo(peer, 1, 4),), value=_p50),
    ]


FIGURES = (
    *(spec for ours in OURS for spec in _targets(ours)),
    Spec(
        name="allocated_bytes",
        unit="bytes",
        needs=(allocated,),
        value=_both,
        at_most=4_000,
        rounds_max=1,
    ),
    Spec(
        name="allocated_server_bytes",
        unit="bytes",
        needs=(allocated,),
        value=_server,
        rounds_max=1,
    ),
    Spec(
        name="allocated_client_bytes",
        unit="bytes",
        needs=(allocated,),
        value=_client,
        rounds_max=1,
    ),
    Spec(
        name="idle_10000_mb",
        unit="MB",
        needs=(idle_mb,),
        value=_same,
        at_most=200,
        rounds_max=3,
    ),
    *(spec for peer in PEERS for spec in _seen(peer)),
)
