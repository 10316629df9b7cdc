"""cmd-stream's own client and server, in Go: tests/interop/go/echo, over JSON."""

import re

import msgspec
from tests.interop.golang import MODULE, LackError, programs

from bench import processes
from bench.load import Measured
from bench.peers import LeftOutError


def version() -> str:
    """Return which cmd-stream-go is measured.

    Raises:
        LeftOutError: There is nothing to build it with.
    """
    _program()
    required = (MODULE / "go.mod").read_text()
    found = re.search(r"cmd-stream/cmd-stream-go (v\S+)", required)
    assert found is not None
    return found[1]


def measure(in_flight: int, connections: int, seconds: float) -> Measured:
    """Drive it.

    Raises:
        LeftOutError: There is nothing to build it with.
    """
    program = _program()
    with processes.running([program, "serve"]) as server:
        assert server.stdout is not None
        command = [
            program,
            "call",
            "-connect",
            f"127.0.0.1:{int(server.stdout.readline())}",
        ]
        options = {
            "connections": connections,
            "in-flight": in_flight,
            "seconds": seconds,
        }
        for name, value in options.items():
            command += [f"-{name}", str(value)]
        with processes.running(command) as client:
            printed, _ = client.communicate()
            if client.returncode != 0:
                raise RuntimeError(f"{program} ended with {client.returncode}")
    return msgspec.json.decode(printed, type=Measured)


def _program() -> str:
    try:
        return str(programs() / "echo")
    except LackError as error:
        raise LeftOutError(str(error)) from error
