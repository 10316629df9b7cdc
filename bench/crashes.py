"""Killed with many sagas under way: memory, restart and recovery of a real server."""

import asyncio
import time
from pathlib import Path

import msgspec

from bench import admin, processes
from bench.journal import Tally
from bench.peers import dbos, restate
from bench.rounds import Round

HANGING = 1_000
PARKED = 100_000
SPARE = 1_000
"""Commands that may come in beside the parked ones."""


def recover_s(round_: Round) -> float:
    """Seconds from the start of a new process until 1,000 have completed.

    Each was in its second step when the old process was killed; the new one calls the
    step again, under the same key, and goes on.
    """
    place = round_.place("recover")
    with processes.role("shut", f"file:{place}", HANGING + SPARE) as server:
        asyncio.run(_hang(place))
        server.kill()
    start = time.perf_counter()
    with processes.role("open", f"file:{place}", HANGING + SPARE):
        asyncio.run(_until_ended(place))
        taken = time.perf_counter() - start
    Tally(place).require_completed("Hangs", HANGING)
    return taken


def dbos_recover_s(round_: Round) -> float:
    """The same of DBOS."""
    return dbos.recover(round_.place("dbos-recover"), HANGING)


def restate_recover_s(round_: Round) -> float:
    """The same of Restate."""
    return restate.recover(round_.place("restate-recover"), HANGING)


async def _hang(place: Path) -> None:
    async with admin.connected(place) as client:
        await admin.submit_many(client, "Hangs", HANGING)
        await admin.until_asked(client, HANGING)


async def _until_ended(place: Path) -> None:
    async with admin.connected(place) as client:
        await admin.until(client, lambda status: status.unfinished == 0)


class Parked(msgspec.Struct, frozen=True):
    """What 100,000 delayed sagas cost."""

    rss_mb: float
    """Of the whole server, when all have been delayed."""
    grown_mb: float
    """By how much it had grown since it was ready."""
    restart_s: float
    """From the start of a new process until it accepted one more, durably."""
    restarted_mb: float
    """Of the new process, when all have been delayed there, too."""
    resume_s: float
    """From the service's first answer until all have completed."""


def parked(round_: Round) -> Parked:
    """Delay 100,000, kill the server, start it again, and let the service answer."""
    place = round_.place("parked")
    with processes.role("shut", f"file:{place}", PARKED + SPARE) as server:
        empty_mb = processes.rss_mb(server.pid)
        asyncio.run(_park(place))
        rss_mb = processes.rss_mb(server.pid)
        server.kill()
    start = time.perf_counter()
    with processes.role("shut", f"file:{place}", PARKED + SPARE) as server:
        asyncio.run(_one_more(place))
        restart_s = time.perf_counter() - start
        asyncio.run(_all_asked(place))
        restarted_mb = processes.rss_mb(server.pid)
        resume_s = asyncio.run(_resume(place))
    tally = Tally(place)
    tally.require_completed("Parks", PARKED)
    tally.require_completed("ThreeSteps", 1)
    return Parked(rss_mb, rss_mb - empty_mb, restart_s, restarted_mb, resume_s)


async def _park(place: Path) -> None:
    async with admin.connected(place) as client:
        await admin.submit_many(client, "Parks", PARKED)
        await admin.until_asked(client, PARKED)


async def _one_more(place: Path) -> None:
    async with admin.connected(place) as client:
        await admin.submit(client, "ThreeSteps", 0)


async def _all_asked(place: Path) -> None:
    async with admin.connected(place) as client:
        await admin.until_asked(client, PARKED)


async def _resume(place: Path) -> float:
    async with admin.connected(place) as client:
        start = time.perf_counter()
        await admin.submit(client, "Opens", 0)
        await admin.until(client, lambda status: status.unfinished == 0)
        return time.perf_counter() - start
