"""Measure the core, side by side, in one run: ``python -m bench.core``; see `run`."""

import sys

from bench import run
from bench.figures import FIGURES
from bench.peers import dbos, restate
from bench.results import CORE

VERSIONS: run.Versions = {"dbos": dbos.version, "restate": restate.version}

if __name__ == "__main__":
    sys.exit(run.main(run.__doc__, FIGURES, CORE, VERSIONS))
