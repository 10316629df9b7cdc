"""Measure the core, side by side, in one run: ``python -m bench.core``.

Rounds alternate between what is compared, so that a slow disk or a busy neighbour hits
both; every figure is the median of its rounds, with their range. Server and client are
separate processes; the disk is the one that holds the working folder.
"""

import argparse
import asyncio
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench.bare import run_bare
from bench.client import Load, Measured, drive, run_echo
from bench.sagas import run_server
from coordinator.commit import GroupCommit
from coordinator.journals.urls import open_journal
from coordinator.records import Outcome

ROOT = Path(__file__).parent
RESULTS = ROOT / "results" / "core.json"
COMMITS_PER_SAGA = 5


class Figure(msgspec.Struct):
    """One line of the table."""

    name: str
    value: float
    min: float
    max: float
    unit: str
    target: str
    holds: bool | None
    """None: there is no target."""


def figure(
    name: str,
    values: list[float],
    unit: str,
    *,
    at_most: float | None = None,
    at_least: float | None = None,
) -> Figure:
    """Return the median of *values* beside its target."""
    value = statistics.median(values)
    if at_most is not None:
        target, holds = f"<= {at_most:g}", value <= at_most
    elif at_least is not None:
        target, holds = f">= {at_least:g}", value >= at_least
    else:
        target, holds = "", None
    return Figure(name, value, min(values), max(values), unit, target, holds)


@contextmanager
def process(*arguments: str) -> Generator[int]:
    """Run this module in another process, and yield the port that it prints."""
    with subprocess.Popen(
        [sys.executable, "-m", "bench.core", *arguments],
        stdout=subprocess.PIPE,
        text=True,
    ) as started:
        assert started.stdout is not None
        try:
            yield int(started.stdout.readline())
        finally:
            started.terminate()


def measure(port: int, command: str, in_flight: int, seconds: float) -> Measured:
    """Drive the server at *port* from a process of its own."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "bench.core",
            "client",
            *map(str, (port, command, in_flight, seconds)),
        ],
        stdout=subprocess.PIPE,
        check=True,
    )
    return msgspec.json.decode(done.stdout, type=Measured)


async def commit_latency_s(folder: Path, seconds: float) -> float:
    """Return the median seconds of five one-record group commits in a row."""
    journal = await open_journal(f"file:{folder}/floor")
    partition = await journal.open(0, owner="bench", at=0)
    commit = GroupCommit(partition, lambda _: None)
    record = Outcome(1, "inventory.do", 0, b"1", 1_700_000_000_000_000)
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        for _ in range(COMMITS_PER_SAGA):
            await commit.append(record)
        taken.append(time.perf_counter() - start)
    await commit.aclose()
    await partition.aclose()
    await journal.aclose()
    return statistics.median(taken)


def journal_bytes_per_saga(folder: Path, sagas: int) -> float:
    """Return the bytes of all batches in the journal, over the number of sagas."""
    from coordinator.batch import BatchError, decode_batch  # noqa: PLC0415
    from coordinator.journals.segments.format import (  # noqa: PLC0415
        SEGMENT_HEADER_SIZE,
    )

    size = 0
    for path in sorted(folder.glob("p0/*.seg")):
        data = path.read_bytes()
        offset = SEGMENT_HEADER_SIZE
        while offset < len(data):
            try:
                offset += len(decode_batch(data, offset).data)
            except BatchError:
                break
        size += offset
    return size / sagas


def import_ms() -> float:
    """Return the milliseconds that importing and using it adds to starting Python."""

    def run(code: str) -> float:
        # With bytecode cached, as it is for users; some machines switch that off.
        env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, env=env)
        return time.perf_counter() - start

    return 1e3 * (run("from coordinator import Coordinator") - run("pass"))


def measure_all(folder: Path, rounds: int, seconds: float) -> list[Figure]:
    """Measure everything, round by round."""
    floors: list[float] = []
    ones: list[Measured] = []
    hundreds: list[Measured] = []
    turned: list[Measured] = []
    bares: list[Measured] = []
    sizes: list[float] = []
    for number in range(rounds):
        say(f"round {number + 1} of {rounds}")
        place = folder / str(number)
        place.mkdir()
        with process("echo") as port:
            echo_s = measure(port, "ThreeSteps", 1, seconds / 2).p50_ms / 1e3
        floors.append(1e3 * (asyncio.run(commit_latency_s(place, seconds)) + echo_s))
        with process("server", f"file:{place}/one") as port:
            ones.append(measure(port, "ThreeSteps", 1, seconds))
        sizes.append(journal_bytes_per_saga(place / "one", round(ones[-1].count * 1.1)))
        with process("bare", str(place)) as port:
            bares.append(measure(port, "ThreeSteps", 100, seconds))
        with process("server", f"file:{place}/hundred") as port:
            hundreds.append(measure(port, "ThreeSteps", 100, seconds))
            turned.append(measure(port, "TurnsBack", 100, seconds))
    pairs = zip(hundreds, bares, strict=True)
    return [
        figure(
            "latency_vs_floor",
            [one.p50_ms / floor for one, floor in zip(ones, floors, strict=True)],
            "ratio",
            at_most=1.3,
        ),
        figure(
            "throughput_vs_bare",
            [100 * ours.rate / bare.rate for ours, bare in pairs],
            "%",
            at_least=40,
        ),
        figure("sagas_per_s", [m.rate for m in hundreds], "1/s"),
        figure("compensated_sagas_per_s", [m.rate for m in turned], "1/s"),
        figure("p50_ms", [m.p50_ms for m in ones], "ms"),
        figure("p99_ms", [m.p99_ms for m in ones], "ms"),
        figure("journal_bytes", sizes, "bytes", at_most=700),
        figure(
            "import_ms", [import_ms() for _ in range(2 * rounds)], "ms", at_most=150
        ),
        figure("floor_ms", floors, "ms"),
        figure("bare_per_s", [m.rate for m in bares], "1/s"),
    ]


def machine() -> dict[str, Any]:
    """Return what the figures depend on."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "python": platform.python_version(),
        "kernel": platform.release(),
        "cpu": model,
        "cores": os.cpu_count(),
        "load_1min": os.getloadavg()[0],
        "commit": commit.stdout.strip(),
    }


def say(text: str) -> None:
    """Tell how far it is, on a terminal."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def report(facts: dict[str, Any], figures: list[Figure]) -> None:
    """Print the table and write the results."""
    print(", ".join(f"{name} {value}" for name, value in facts.items()))
    print(f"{'':26}{'median':>10}{'min':>10}{'max':>10}  {'unit':8}{'target':10}")
    for line in figures:
        mark = {True: "holds", False: "MISSED", None: ""}[line.holds]
        print(
            f"{line.name:26}{line.value:10.2f}{line.min:10.2f}{line.max:10.2f}  "
            f"{line.unit:8}{line.target:10}{mark}"
        )
    RESULTS.parent.mkdir(exist_ok=True)
    content = msgspec.json.encode({"machine": facts, "figures": figures})
    RESULTS.write_bytes(msgspec.json.format(content, indent=2) + b"\n")


def main() -> int:
    """Run a benchmark, or one of the processes that it needs."""
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        return _serve(sys.argv[1], sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--folder", type=Path, default=None)
    chosen = parser.parse_args()
    facts = machine()
    with tempfile.TemporaryDirectory(dir=chosen.folder or Path.cwd()) as folder:
        figures = measure_all(Path(folder), chosen.rounds, chosen.seconds)
    report(facts, figures)
    return 0 if all(line.holds is not False for line in figures) else 1


def _serve(role: str, arguments: list[str]) -> int:
    roles: dict[str, Callable[[], Awaitable[object]]] = {
        "echo": run_echo,
        "server": lambda: run_server(arguments[0]),
        "bare": lambda: run_bare(Path(arguments[0])),
        "client": lambda: drive(
            Load(
                int(arguments[0]), arguments[1], int(arguments[2]), float(arguments[3])
            )
        ),
    }

    async def run() -> object:
        return await roles[role]()

    result = asyncio.run(run())
    if isinstance(result, Measured):
        sys.stdout.buffer.write(msgspec.json.encode(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
