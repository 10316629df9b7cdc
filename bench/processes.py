"""The processes of a benchmark: each is a role of `bench.roles`, or a peer's program.

They end with the block that started them, however it ends: asked first, killed if they
don't. So do the folders, which the caller makes within a temporary one.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from bench.load import Load, Measured

END_S = 5.0
"""Seconds that a process has to end by itself."""


class Child:
    """A running process that has said that it is ready."""

    def __init__(self, process: "subprocess.Popen[str]", port: int) -> None:
        self.process = process
        self.port = port
        """The first line it printed."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def kill(self) -> None:
        """End it as a crash does, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """Ask it to end, wait, and insist."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def role(
    name: str,
    *arguments: object,
    module: str = "bench.roles",
    env: Mapping[str, str] | None = None,
    under: Sequence[str] = (),
    log: Path | None = None,
) -> Generator[Child]:
    """Run the role *name* of *module* in another process, once it printed its port.

    Args:
        name: Of the role.
        arguments: Its own.
        module: Where it is.
        env: Variables beyond ours.
        under: The command that runs it, such as a profiler's.
        log: A file for what it says on stderr.

    Raises:
        RuntimeError: It ended before.
    """
    command = [*under, sys.executable, "-m", module, name, *map(str, arguments)]
    with running(command, errors=log, env=env) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError(f"{name} ended with {process.wait()}, see above")
        yield Child(process, int(line))


@contextmanager
def running(
    command: list[str],
    *,
    log: Path | None = None,
    errors: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> Generator["subprocess.Popen[str]"]:
    """Run *command* for as long as the block does.

    What it says goes to *log*, or only what it says on stderr to *errors*.
    """
    file = log or errors
    stderr = None if file is None else file.open("ab")
    try:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE if log is None else stderr,
            stderr=stderr,
            text=True,
            env={**os.environ, **(env or {})},
        )
    finally:
        if stderr is not None:
            stderr.close()
    with process:
        try:
            yield process
        finally:
            Child(process, 0).stop()


def measure(load: Load) -> Measured:
    """Drive a server from a process of its own."""
    return msgspec.json.decode(ask("client", load), type=Measured)


def ask(
    name: str,
    argument: object,
    *,
    module: str = "bench.roles",
    env: Mapping[str, str] | None = None,
    under: Sequence[str] = (),
    log: Path | None = None,
) -> bytes:
    """Run the role *name* of *module* to its end, and return what it printed.

    The rest is as in `role`.
    """
    text = msgspec.json.encode(argument).decode()
    command = [*under, sys.executable, "-m", module, name, text]
    with running(command, errors=log, env=env) as process:
        printed, _ = process.communicate()
        if process.returncode != 0:
            raise RuntimeError(f"{name} ended with {process.returncode}, see above")
        return printed.encode()


def raise_on_sigterm() -> None:
    """Let SIGTERM unwind as Ctrl-C does, so that nothing is left running."""

    def stop(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)


def rss_mb(pid: int) -> float:
    """Return the resident memory of a process in MB (10**6 bytes)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise RuntimeError(f"process {pid} has ended")


def descriptors(pid: int) -> int:
    """Return how many files a process keeps open: the fewest within a second.

    Connections of clients that have just left are still being closed.
    """
    fewest = sys.maxsize
    for _ in range(20):
        fewest = min(fewest, len(os.listdir(f"/proc/{pid}/fd")))  # noqa: PTH208
        time.sleep(0.05)
    return fewest
