"""What a round trip allocates, and what a connection that says nothing keeps."""

import subprocess
import sys
from pathlib import Path

import msgspec

from bench import processes
from bench.echo import ALLOCATIONS, EchoLoad
from bench.peers import LeftOutError
from bench.rounds import Round

__all__ = ["Allocated", "allocated", "idle_mb"]

ROLES = "bench.echo.driving"
PEER = "json"
CALLS = 2_000, 6_000
"""Of two runs: what they differ by is that of the calls between, and nothing else."""
IN_FLIGHT = 100
IDLE = 10_000


class Allocated(msgspec.Struct, frozen=True):
    """Bytes asked for per round trip, by Python's objects and by C, freed or not."""

    server: float
    client: float


class _Totals(msgspec.Struct):
    total_bytes_allocated: int


def allocated(round_: Round) -> Allocated:
    """Count with memray on both ends.

    Raises:
        LeftOutError: It is not installed.
    """
    few, many = (_allocated(round_.place(f"{calls}"), calls) for calls in CALLS)
    between = CALLS[1] - CALLS[0]
    return Allocated(
        *((more - less) / between for less, more in zip(few, many, strict=True))
    )


def _allocated(place: Path, calls: int) -> tuple[int, int]:
    server_file, client_file = place / "server", place / "client"
    server_env = {ALLOCATIONS: str(server_file)}
    with processes.role("server", PEER, module=ROLES, env=server_env) as server:
        load = EchoLoad(
            peer=PEER,
            port=server.port,
            in_flight=IN_FLIGHT,
            connections=1,
            calls=calls,
        )
        client_env = {ALLOCATIONS: str(client_file)}
        processes.ask("client", load, module=ROLES, env=client_env)
    return _total(server_file), _total(client_file)


def _total(file: Path) -> int:
    told = file.with_suffix(".json")
    command = [sys.executable, "-m", "memray", "stats", "--json", "--output"]
    try:
        subprocess.run(
            [*command, str(told), str(file)], check=True, capture_output=True
        )
    except subprocess.CalledProcessError as error:
        raise LeftOutError(f"memray: {error.stderr.decode()}") from error
    return msgspec.json.decode(told.read_bytes(), type=_Totals).total_bytes_allocated


def idle_mb(_round: Round) -> float:
    """Return what a server of ours takes with 10,000 connections that are idle."""
    with (
        processes.role("server", PEER, module=ROLES) as server,
        processes.role("idle", server.port, IDLE, module=ROLES),
    ):
        return processes.rss_mb(server.pid)
