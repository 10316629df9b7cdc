"""Go for the tests: where it is, and what is built with it.

    python -m tests.interop.golang      builds all programs, and fails if it can't

Go is what the variable ``GO`` names, else the one that ``make go`` puts into our
virtual environment, else the first on ``PATH``. Without one, or without the modules
that it fetches, the tests are skipped; where ``CI`` is set they fail instead.

What is built is kept in ``.cache``, in a folder that is named after the sources: it is
built once for all tests, and again when a source changes.
"""

import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.lacking import lack

__all__ = ["MODULE", "LackError", "find_go", "program", "programs", "run_go"]

HERE = Path(__file__).parent
MODULE = HERE / "go"
_CACHE = HERE / ".cache"

_SETTINGS = {
    # Not another version than the one that was found, fetched behind our back.
    "GOTOOLCHAIN": "local",
    # What a machine happens to have makes no difference: C, a workspace, flags.
    "CGO_ENABLED": "0",
    "GOWORK": "off",
    "GOFLAGS": "",
}


class LackError(Exception):
    """This machine has no Go, or can't get the modules of tests/interop/go."""


def program(name: str) -> str:
    """Return the path of the program *name* of our Go module, built if need be."""
    try:
        return str(programs() / name)
    except LackError as error:
        lack(str(error))


@functools.cache
def programs() -> Path:
    """Build the programs, if need be, and return their folder.

    Raises:
        LackError: There is nothing to build them with.
    """
    go = find_go()
    made_of = hashlib.sha256(run_go(go, "version").encode())
    for path in sorted(path for path in MODULE.rglob("*") if path.is_file()):
        made_of.update(f"{path.relative_to(MODULE)}\0".encode())
        made_of.update(path.read_bytes())
    built = _CACHE / made_of.hexdigest()[:16]
    _CACHE.mkdir(exist_ok=True)
    with (_CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other workers of pytest-xdist wait here
        if not built.exists():
            _build(go, built)
    return built


def find_go() -> str:
    """Return the path of Go.

    Raises:
        LackError: There is none.
    """
    ours = shutil.which("go", path=str(Path(sys.executable).parent))
    go = os.environ.get("GO") or ours or shutil.which("go")
    if go is None:
        raise LackError("needs Go: `make go` installs it, or GO=… names one")
    return go


def _build(go: str, built: Path) -> None:
    try:
        run_go(go, "mod", "download")
    except subprocess.CalledProcessError as error:
        reason = f"needs the Go modules of tests/interop/go: {error.stderr.strip()}"
        raise LackError(reason) from error
    with tempfile.TemporaryDirectory(dir=_CACHE) as folder:
        out = Path(folder) / "programs"
        run_go(go, "build", "-trimpath", "-buildvcs=false", "-o", f"{out}/", "./...")
        out.rename(built)


def run_go(go: str, *arguments: str, folder: Path = MODULE) -> str:
    """Run one command of Go in *folder*, and return what it printed.

    Raises:
        subprocess.CalledProcessError: It failed; `stderr` says why, and is printed.
    """
    done = subprocess.run(
        (go, *arguments),
        cwd=folder,
        env={**os.environ, **_SETTINGS},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        print(done.stderr, file=sys.stderr)  # CalledProcessError does not show it
    done.check_returncode()
    return done.stdout


if __name__ == "__main__":
    print(programs())
