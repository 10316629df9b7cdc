"""Fuzz every decoder and both ends of a connection.

    python -m tests.fuzz --seconds 20            each target for so long
    python -m tests.fuzz mus --count 10000000    one, until it has run so often in all
    python -m tests.fuzz mus --input FILE        one input, again

What was found stays in ``.fuzz/``: inputs that reach new code, and how often each
target has run, so that a counted run can be stopped and goes on when it is started
again. ``--keep`` puts the fewest inputs that reach as much into ``tests/fuzz/corpus``,
a line of hex for each, where every test run tries them. Prints a line per target, and
for a failure the one command that repeats it. Exits with 1 if anything failed; without
atheris only in CI, elsewhere it says why it did not run.
"""

import argparse
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

from tests.fuzz.targets import TARGETS, seeds_of

__all__ = ["CORPUS", "kept_of", "main"]

CORPUS = Path(__file__).parent / "corpus"
CHUNK_S = 120  # a counted run that is stopped forgets at most so much
INPUT_SIZE_MAX = 160  # bytes; room for a length of two, and larger ones are slow

LIMITS = (
    f"-max_len={INPUT_SIZE_MAX}",
    "-timeout=20",  # seconds for one input: it hangs
    "-rss_limit_mb=1024",  # of the whole process
    "-malloc_limit_mb=256",  # at once: somebody believed an announced size
)


def main(arguments: list[str] | None = None) -> int:
    """Parse *arguments* and do what they say; return the exit code."""
    parser = argparse.ArgumentParser("python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="target", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=20, help="for each target")
    parser.add_argument("--count", type=int, help="runs of each target, in all")
    parser.add_argument("--input", type=Path, help="one input, without the engine")
    parser.add_argument("--keep", action="store_true", help="add to the corpus")
    parser.add_argument("--jobs", type=int, default=1, help="targets at a time")
    parser.add_argument("--folder", type=Path, default=Path(".fuzz"))
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.targets) - TARGETS.keys()):
        parser.error(f"there is no {unknown[0]}; there are {', '.join(TARGETS)}")
    if options.input is not None:
        (name,) = options.targets
        TARGETS[name](options.input.read_bytes())
        print(f"{name}: {options.input} is fine")
        return 0
    if importlib.util.find_spec("atheris") is None:
        print("not run: there is no atheris for this Python", file=sys.stderr)
        return 1 if "CI" in os.environ else 0

    def search(name: str) -> bool:
        found = Search(name, options.folder)
        if options.keep:
            return found.keep()
        if options.count is not None:
            return found.run_until(options.count)
        return found.run_for(options.seconds)

    with ThreadPoolExecutor(options.jobs) as threads:
        held = list(threads.map(search, options.targets or TARGETS))
    return 0 if all(held) else 1


def kept_of(name: str) -> list[bytes]:
    """Read the inputs of one target that are in the repository."""
    path = CORPUS / f"{name}.txt"
    return list(
        map(bytes.fromhex, path.read_text().splitlines() if path.exists() else ())
    )


class Search:
    """The search for inputs that break one target, and what it has found so far."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._found = folder / name
        self._runs = folder / f"{name}.runs"
        self._crash = folder / f"{name}-"
        self._found.mkdir(parents=True, exist_ok=True)
        for known in (*seeds_of(name), *kept_of(name)):
            (self._found / sha256(known).hexdigest()[:16]).write_bytes(known)

    def run_for(self, seconds: int) -> bool:
        """Search for so long; return False if an input broke the target."""
        return self._run(f"-max_total_time={seconds}")

    def run_until(self, count: int) -> bool:
        """Search until the target has run *count* times; return False if it broke."""
        while (left := count - self._runs_so_far()) > 0:
            if not self._run(f"-runs={left}", f"-max_total_time={CHUNK_S}"):
                return False
        return True

    def keep(self) -> bool:
        """Put the fewest inputs that reach all the code into the corpus."""
        fewest = self._found.with_name(f"{self._name}.fewest")
        shutil.rmtree(fewest, ignore_errors=True)
        fewest.mkdir()
        done = self._engine("-merge=1", str(fewest), str(self._found))
        kept = sorted(path.read_bytes() for path in fewest.iterdir())
        shutil.rmtree(fewest)
        if done.returncode != 0 or not kept:
            print(f"{self._name}: cannot merge\n{done.stderr[-4000:]}", file=sys.stderr)
            return False
        CORPUS.mkdir(exist_ok=True)
        lines = "".join(f"{data.hex()}\n" for data in kept)
        (CORPUS / f"{self._name}.txt").write_text(lines)
        print(f"{self._name}: kept {len(kept)} inputs, {sum(map(len, kept))} bytes")
        return True

    def _runs_so_far(self) -> int:
        return int(self._runs.read_text()) if self._runs.exists() else 0

    def _run(self, *bounds: str) -> bool:
        began = time.monotonic()
        done = self._engine(*bounds, "-print_final_stats=1", str(self._found))
        took_s = time.monotonic() - began
        ran = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
        runs = int(ran[1]) if ran else 0
        self._runs.write_text(str(self._runs_so_far() + runs))
        if done.returncode == 0:
            per_s = runs / took_s
            print(
                f"{self._name}: {runs} runs in {took_s:.0f} s, {per_s:.0f}/s, "
                f"{self._runs_so_far()} in all",
                flush=True,
            )
            return True
        print(done.stdout[-4000:], done.stderr[-4000:], sep="\n", file=sys.stderr)
        written = re.search(r"Test unit written to (\S+)", done.stderr)
        again = f" INPUT={written[1]}" if written else ""
        print(f"{self._name}: FAILED; again: make fuzz ONLY={self._name}{again}")
        return False

    def _engine(self, *options: str) -> subprocess.CompletedProcess[str]:
        """Run the engine to its end."""
        command = [
            sys.executable, "-m", "tests.fuzz.engine", self._name, str(self._crash),
            f"-artifact_prefix={self._crash}", *LIMITS, *options,
        ]  # fmt: skip
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(("src", "."))},
        )


if __name__ == "__main__":
    sys.exit(main())
