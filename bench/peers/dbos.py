"""Runs `dbos_app`, and checks in its database that all was done and is there."""

import importlib.metadata
import sys
import time
from pathlib import Path

import msgspec

from bench.load import Measured
from bench.peers import LeftOutError
from bench.processes import running

WINDOW_S = 10.0
"""With a hundred in flight one takes seconds; a shorter window would see too few."""
RECOVERY_S = 300.0


def version() -> str:
    """Return which DBOS is measured.

    Raises:
        LeftOutError: There is none.
    """
    try:
        return importlib.metadata.version("dbos")
    except importlib.metadata.PackageNotFoundError:
        raise LeftOutError("dbos is not installed; `make bench` does it") from None


def run(folder: Path, in_flight: int, seconds: float) -> Measured:
    """Measure *in_flight* callers for *seconds*; all that ended is in the database.

    Raises:
        LeftOutError: There is no DBOS.
        RuntimeError: It failed, or the database lacks something.
    """
    version()
    if in_flight == 1:
        command = _command(folder, "one", seconds)
    else:
        command = _command(folder, "run", in_flight, max(seconds, WINDOW_S))
    with running(command) as process:
        printed, _ = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"dbos ended with {process.returncode}, see above")
    measured = msgspec.json.decode(printed, type=Measured)
    _check(folder, measured.total)
    return measured


def recover(folder: Path, count: int) -> float:
    """Return the seconds from a start until *count* that hung in a step have ended.

    Raises:
        LeftOutError: There is no DBOS.
        RuntimeError: It failed, or did not come to an end.
    """
    from bench.peers import dbos_app  # noqa: PLC0415 -- it needs DBOS

    version()
    with running(_command(folder, "hang", count)) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("dbos ended, see above")
        process.kill()
    start = time.perf_counter()
    with running(_command(folder, "recover")):
        while dbos_app.finished(folder) < count:
            if time.perf_counter() - start > RECOVERY_S:
                raise RuntimeError(f"dbos did not recover {count} in {RECOVERY_S} s")
            time.sleep(0.05)
        taken = time.perf_counter() - start
    _check(folder, count)
    return taken


def _command(folder: Path, *arguments: object) -> list[str]:
    module = ["-m", "bench.peers.dbos_app"]
    return [sys.executable, *module, str(folder), *map(str, arguments)]


def _check(folder: Path, total: int) -> None:
    from bench.peers import dbos_app  # noqa: PLC0415 -- it needs DBOS

    found = dbos_app.finished(folder), dbos_app.finished_steps(folder)
    if found != (total, 3 * total):
        raise RuntimeError(f"dbos: {total} ended; workflows and steps stored: {found}")
