"""The command line. Needs ``pip install 'coordinator[cli]'``."""

import importlib.util
import sys

__all__ = ["main"]


def main() -> None:
    """Run the ``coordinator`` command, and exit with its code."""
    if any(importlib.util.find_spec(name) is None for name in ("typer", "rich")):
        print(
            "error: the command line is not installed; "
            "run pip install 'coordinator[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    from coordinator.cli.app import run

    run(sys.argv[1:])
