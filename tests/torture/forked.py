"""A server that is a fork of a process that has imported all it needs, and no more.

    async with forked(folder, target, journal, env) as server:
        server.kill()

What runs in it is what `coordinator serve` runs once it has read its options. A start
of Python takes longer than a short life, and writes nothing that a kill could find.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from multiprocessing import get_context
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import msgspec
from tests.processes import TIMEOUT_S, Server, eventually

from coordinator.cli.serving import run_server
from coordinator.serve import Address, ServeOptions

__all__ = ["forked"]

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    [
        "coordinator.gateways.http",
        "coordinator.journals.segments.journal",
        "coordinator.journals.segments.posix",
        "coordinator.journals.urls",
        "tests.torture.forked",
        "tests.torture.harness",
        "tests.torture.sagas",
    ]
)


class Fork:
    """A process that is another one's child."""

    def __init__(self, process: ForkServerProcess) -> None:
        assert process.pid is not None
        self.pid: int = process.pid
        self._process = process

    @property
    def returncode(self) -> int | None:
        """Its exit code, negative for signals; None as long as it runs."""
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        """Send it a signal, if it is still there."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for its end, and return its exit code."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        loop.add_reader(self._process.sentinel, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(self._process.sentinel)
        assert self.returncode is not None
        return self.returncode


@asynccontextmanager
async def forked(
    folder: Path, target: str, journal: str, env: Mapping[str, str]
) -> AsyncGenerator[Server]:
    """Run a server in *folder* until it is ready; kill it on the way out.

    Args:
        folder: Working directory.
        target: ``module:object``; the module is imported in the fork.
        journal: Its URL.
        env: Added to ours.

    Raises:
        AssertionError: It ended before it was ready; with what it wrote to stderr.
    """
    said, errors = _new_files(folder)
    process = _CONTEXT.Process(
        target=_serve,
        args=(folder, target, journal, dict(env), said, errors),
        daemon=True,
    )
    process.start()
    fork = Fork(process)
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await eventually(
                lambda: b"\n" in said.read_bytes() or fork.returncode is not None
            )
        if b"\n" not in said.read_bytes():
            log = errors.read_text()
            raise AssertionError(f"not ready, exit code {fork.returncode}:\n{log}")
        yield Server(fork, msgspec.json.decode(said.read_bytes()), errors)
    finally:
        fork.kill()
        await fork.wait()
        process.close()


def _new_files(folder: Path) -> tuple[Path, Path]:
    number = len(list(folder.glob("fork-*.out")))
    said, errors = folder / f"fork-{number}.out", folder / f"fork-{number}.err"
    said.touch()
    errors.touch()
    return said, errors


def _serve(
    folder: Path,
    target: str,
    journal: str,
    env: dict[str, str],
    said: Path,
    errors: Path,
) -> None:
    for stream, path in ((1, said), (2, errors)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), stream)
    os.chdir(folder)
    os.environ.update(env)
    options = ServeOptions(listen=(Address("127.0.0.1", 0),))
    sys.exit(
        run_server(target, options, journal=journal, as_json=True, log_level="info")
    )
