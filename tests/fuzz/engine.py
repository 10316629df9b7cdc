"""One target under atheris, in a process of its own: the engine ends the process.

    python -m tests.fuzz.engine TARGET PREFIX [libFuzzer's options and folders]

An input that breaks the target is written to a file whose name begins with PREFIX.

The instrumentation comes first, so the product is imported by `main`.
"""

import importlib
import shlex
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Hand the target that *arguments* begin with to the engine; does not return."""
    name, crash, *options = arguments
    atheris: Any = importlib.import_module("atheris")  # it brings no types
    with atheris.instrument_imports(include=["cmdstream"]):
        targets = importlib.import_module("tests.fuzz.targets")
    # To merge, libFuzzer starts itself again: with what it is told that it is.
    itself = shlex.join([sys.executable, "-m", "tests.fuzz.engine", name, crash])
    target = targets.TARGETS[name]

    def kept_if_it_fails(data: bytes) -> None:
        try:
            target(data)
        except BaseException:  # libFuzzer itself keeps what crashes, and no exceptions
            path = Path(f"{crash}{sha256(data).hexdigest()[:16]}")
            path.write_bytes(data)
            print(f"Test unit written to {path}", file=sys.stderr, flush=True)
            raise

    atheris.Setup([itself, *options], kept_if_it_fails)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
