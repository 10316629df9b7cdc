"""What a round trip allocates, and what a connection that says nothing keeps."""

import re
import shutil
import signal
from pathlib import Path

import msgspec

from bench import processes
from bench.echo import EchoLoad
from bench.peers import LeftOutError
from bench.rounds import Round

__all__ = ["Allocated", "allocated", "idle_mb"]

ROLES = "bench.echo.driving"
PEER = "json"
CALLS = 1_000, 3_000
"""Of two runs: what they differ by is that of the calls between, and nothing else."""
IN_FLIGHT = 100
IDLE = 10_000
COUNTED = ("valgrind", "--tool=dhat", "--dhat-out-file=/dev/null")
EVERY_OBJECT = {"PYTHONMALLOC": "malloc", "PYTHONHASHSEED": "0"}
"""Python asks C for each object, and not for an arena of them."""
END_S = 120.0


class Allocated(msgspec.Struct, frozen=True):
    """Bytes asked for per round trip, by Python's objects and by C, freed or not."""

    server: float
    client: float


def allocated(round_: Round) -> Allocated:
    """Count by valgrind's DHAT, one end at a time; the other one runs as it is.

    Raises:
        LeftOutError: There is no valgrind.
    """
    if shutil.which("valgrind") is None:
        raise LeftOutError("valgrind is not installed")
    between = CALLS[1] - CALLS[0]
    few, many = (
        (_of_server(calls, round_), _of_client(calls, round_)) for calls in CALLS
    )
    return Allocated(
        *((more - less) / between for less, more in zip(few, many, strict=True))
    )


def _of_server(calls: int, round_: Round) -> int:
    log = round_.place(f"server-{calls}") / "log"
    with processes.role(
        "server", PEER, module=ROLES, env=EVERY_OBJECT, under=COUNTED, log=log
    ) as server:
        processes.ask("client", _load(server.port, calls), module=ROLES)
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(END_S)
    return _total(log)


def _of_client(calls: int, round_: Round) -> int:
    log = round_.place(f"client-{calls}") / "log"
    with processes.role("server", PEER, module=ROLES) as server:
        processes.ask(
            "client",
            _load(server.port, calls),
            module=ROLES,
            env=EVERY_OBJECT,
            under=COUNTED,
            log=log,
        )
    return _total(log)


def _load(port: int, calls: int) -> EchoLoad:
    return EchoLoad(
        peer=PEER, port=port, in_flight=IN_FLIGHT, connections=1, calls=calls
    )


def _total(log: Path) -> int:
    found = re.search(r"Total:\s+([\d,]+) bytes", log.read_text())
    assert found is not None, log.read_text()
    return int(found[1].replace(",", ""))


def idle_mb(_round: Round) -> float:
    """Return what a server of ours takes with 10,000 connections that are idle."""
    with (
        processes.role("server", PEER, module=ROLES) as server,
        processes.role("idle", server.port, IDLE, module=ROLES),
    ):
        return processes.rss_mb(server.pid)
