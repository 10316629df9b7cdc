"""The figures of an echo: their names, units and targets."""

import functools

import msgspec

from bench import processes
from bench.echo import EchoLoad
from bench.load import Measured
from bench.rounds import Measurement, Round, Spec

__all__ = ["FIGURES"]

ROLES = "bench.echo.driving"


@functools.cache
def echo(peer: str, in_flight: int, connections: int) -> Measurement:
    """Return what measures *peer*: the same one each time, so that it is done once."""

    def measurement(round_: Round) -> Measured:
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


PEERS = ("bare", "json", "grpc", "aiohttp")


def _figures() -> list[Spec]:
    hundred = {peer: echo(peer, 100, 1) for peer in PEERS}
    one = {peer: echo(peer, 1, 1) for peer in PEERS}
    figures = [
        Spec(
            name="json_vs_bare",
            unit="%",
            needs=(hundred["json"], hundred["bare"]),
            value=_percent,
            at_least=50,
        ),
        Spec(
            name="json_vs_grpc",
            unit="ratio",
            needs=(hundred["json"], hundred["grpc"]),
            value=_times,
            at_least=5,
        ),
        Spec(
            name="json_vs_aiohttp",
            unit="ratio",
            needs=(hundred["json"], hundred["aiohttp"]),
            value=_times,
            at_least=8,
        ),
        Spec(
            name="json_latency_vs_bare",
            unit="ratio",
            needs=(one["json"], one["bare"]),
            value=_slower,
            at_most=1.3,
        ),
    ]
    for peer in PEERS:
        figures += [
            Spec(name=f"{peer}_per_s", unit="1/s", needs=(hundred[peer],), value=_rate),
            Spec(
                name=f"{peer}_4_per_s",
                unit="1/s",
                needs=(echo(peer, 100, 4),),
                value=_rate,
            ),
            Spec(name=f"{peer}_p50_ms", unit="ms", needs=(one[peer],), value=_p50),
        ]
    return figures


FIGURES = tuple(_figures())
