"""One run of a benchmark: measure the figures of a list, print them, keep them.

    --only parked_mb --only restart_s    some figures; the others stay as they were
    --rounds 1 --seconds 1               quickly, to see whether it works

Every figure is the median of its rounds, with their range, and keeps the commit and the
day it was measured on. Servers, clients and peers are processes of their own; the disk
is the one that holds the working folder.
"""

import argparse
import datetime as dt
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bench.peers import LeftOutError
from bench.processes import raise_on_sigterm
from bench.results import Machine, Results, encode, load, merge, table
from bench.rounds import Spec, measure

ROOT = Path(__file__).parents[1]

Versions = dict[str, Callable[[], str]]
"""By a word in the names of the figures that need them: says which version is here, or
raises `LeftOutError`."""


def machine(folder: Path) -> Machine:
    """Return what the figures depend on."""
    model = ""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Machine(
        python=platform.python_version(),
        kernel=platform.release(),
        cpu=model,
        cores=os.cpu_count() or 0,
        memory_gb=round(pages / 1e9),
        disk=_run("stat", "--file-system", "--format=%T", str(folder)),
    )


def commit() -> str:
    """Return the commit that is measured, with a ``+`` if its code was changed."""
    changed = _run("git", "status", "--porcelain", "src", "bench/*.py")
    return _run("git", "rev-parse", "--short", "HEAD") + ("+" if changed else "")


def _run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT
    )
    return done.stdout.strip()


def peers(specs: Sequence[Spec], versions: Versions) -> dict[str, str]:
    """Return the versions of the peers that *specs* need, where they are here."""
    found: dict[str, str] = {}
    for name, version in versions.items():
        if any(name in spec.name for spec in specs):
            try:
                found[name] = version()
            except LeftOutError:
                continue
    return found


def say(text: str) -> None:
    """Tell how far it is, on a terminal."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr, flush=True)


def main(
    description: str | None,
    known: Sequence[Spec],
    kept: Path,
    versions: Versions,
) -> int:
    """Measure, print, and keep.

    Args:
        description: For ``--help``.
        known: All figures there are.
        kept: The JSON that holds them.
        versions: Of the peers.

    Returns:
        The exit status: 1 if a target is missed.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [spec.name for spec in known]
    parser.add_argument("--only", action="append", choices=names, metavar="FIGURE")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    parser.add_argument("--results", type=Path, default=kept)
    chosen = parser.parse_args()
    raise_on_sigterm()
    specs = [
        spec
        for spec in known
        if (spec.name in chosen.only if chosen.only else not spec.asked_for)
    ]
    load_1min = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="bench-", dir=chosen.folder) as folder:
        figures, left_out = measure(
            specs, chosen.rounds, Path(folder), chosen.seconds, say
        )
    what, when = commit(), dt.datetime.now(dt.UTC).date().isoformat()
    new = Results(
        machine=machine(chosen.folder),
        load_1min=load_1min,
        peers=peers(specs, versions),
        figures=[
            msgspec.structs.replace(line, commit=what, date=when) for line in figures
        ],
        left_out=left_out,
    )
    merged = merge(load(chosen.results), new, names)
    print(table(msgspec.structs.replace(merged, figures=figures)))
    chosen.results.parent.mkdir(exist_ok=True)
    chosen.results.write_bytes(encode(merged))
    return 0 if all(line.holds is not False for line in figures) else 1
