"""Measure the wire, side by side, in one run: ``python -m bench.echo``; see `run`."""

import sys

from bench import run
from bench.echo import golang, grpc_aio, http
from bench.echo.figures import FIGURES
from bench.results import CMDSTREAM

VERSIONS: run.Versions = {
    "grpc": grpc_aio.version,
    "aiohttp": http.version,
    "go_": golang.version,
}

if __name__ == "__main__":
    sys.exit(run.main(run.__doc__, FIGURES, CMDSTREAM, VERSIONS))
