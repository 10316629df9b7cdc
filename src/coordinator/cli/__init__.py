"""The command line. Needs ``pip install 'coordinator[cli]'``."""

import importlib.util
import sys

from coordinator.cli.printing import replace_closed_streams
from coordinator.cli.signals import end_on_signals

__all__ = ["main"]


def main() -> None:
    """Run the ``coordinator`` command, and exit with its code."""
    if sys.argv[1:2] == ["serve"]:
        # Whoever starts a server may stop it before it is one: imports take a while.
        end_on_signals(0)
    replace_closed_streams()
    if any(importlib.util.find_spec(name) is None for name in ("typer", "rich")):
        print(
            "error: the command line is not installed; "
            "run pip install 'coordinator[cli]'",
            file=sys.stderr,
        )
        sys.exit(2)
    from coordinator.cli.app import run

    run(sys.argv[1:])
