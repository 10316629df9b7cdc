"""One target under atheris, in a process of its own: the engine ends the process.

    python -m tests.fuzz.engine TARGET [libFuzzer's options and folders]

The instrumentation comes first, so the product is imported by `main`.
"""

import importlib
import shlex
import sys
from typing import Any

__all__ = ["main"]


def main(arguments: list[str]) -> None:
    """Hand the target that *arguments* begin with to the engine; does not return."""
    name, *options = arguments
    atheris: Any = importlib.import_module("atheris")  # it brings no types
    with atheris.instrument_imports(include=["cmdstream"]):
        targets = importlib.import_module("tests.fuzz.targets")
    # To merge, libFuzzer starts itself again: with what it is told that it is.
    itself = f"{shlex.quote(sys.executable)} -m tests.fuzz.engine {name}"
    atheris.Setup([itself, *options], targets.TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
