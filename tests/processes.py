"""Real processes for tests: a server in a folder of its own, and single commands.

    async with serving(tmp_path, MODULE) as server:
        host, port = server.address
        ...
        server.kill()           # SIGKILL, as a crash
        await server.exited()

Waiting has a generous deadline and no sleeps: for the ready line, for the exit code. A
file that another process writes is waited for with `eventually`.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec

TIMEOUT_S = 120.0
"""Only a hang gets here; the machine may be busy."""
POLL_S = 0.01

_LINE_SIZE_MAX = 16 * 1024 * 1024


class Ended(NamedTuple):
    """A command that came to its end."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Return what it printed."""
        return msgspec.json.decode(self.stdout)


class Process(Protocol):
    """What a `Server` needs of one, whoever started it."""

    @property
    def pid(self) -> int: ...

    def send_signal(self, number: signal.Signals, /) -> None: ...

    def kill(self) -> None: ...

    async def wait(self) -> int: ...


class Server:
    """A running ``coordinator serve``; `serving` makes one."""

    def __init__(self, process: Process, ready: dict[str, Any], errors: Path) -> None:
        self.process = process
        self.ready = ready
        """What it printed with ``--json``."""
        self._errors = errors

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of its first cmd-stream address."""
        parts = urlsplit(str(self.ready["listen"][0]))
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    @property
    def log(self) -> str:
        """What it has written to stderr so far."""
        return self._errors.read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it without any warning, as ``kill -9`` does."""
        self.process.kill()

    async def exited(self) -> int:
        """Wait for its end; negative codes are signals."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self.process.wait()

    async def stop(self) -> int:
        """Ask it to stop, as an init system does, and wait for its exit code."""
        self.signal(signal.SIGTERM)
        return await self.exited()


@asynccontextmanager
async def serving(
    folder: Path,
    module: str,
    *arguments: str,
    target: str = "target_app:coordinator",
    journal: str | None = "file:./journal",
    env: Mapping[str, str] | None = None,
) -> AsyncGenerator[Server]:
    """Run ``coordinator serve`` in *folder* until it is ready; kill it on the way out.

    Args:
        folder: Working directory; the module and the journal are in it.
        module: Source of the module that *target* names.
        arguments: Further ones for ``serve``. It listens on a free port.
        target: ``module:object``.
        journal: For ``--journal``; None to leave the target's own.
        env: Added to ours.

    Raises:
        AssertionError: It ended before it was ready; with what it wrote to stderr.
    """
    name = target.partition(":")[0]
    (folder / f"{name}.py").write_text(module)
    given = () if journal is None else ("--journal", journal)
    errors = _new_log(folder)
    with errors.open("wb") as stderr:
        process = await asyncio.create_subprocess_exec(
            *_COMMAND,
            *("serve", target, "--json", "--listen", "tcp://127.0.0.1:0"),
            *(*given, *arguments),
            cwd=folder,
            env=_environment(env),
            stdout=asyncio.subprocess.PIPE,
            stderr=stderr,
            limit=_LINE_SIZE_MAX,
        )
    try:
        yield Server(process, await _read_ready(process, errors), errors)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def run_cli(
    folder: Path, *arguments: str, env: Mapping[str, str] | None = None
) -> Ended:
    """Run one ``coordinator`` command in *folder* to its end."""
    process = await asyncio.create_subprocess_exec(
        *_COMMAND,
        *arguments,
        cwd=folder,
        env=_environment(env),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            stdout, stderr = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert process.returncode is not None
    return Ended(process.returncode, stdout.decode(), stderr.decode())


@asynccontextmanager
async def running_cli(
    folder: Path, *arguments: str
) -> AsyncGenerator[Callable[[], Awaitable[str]]]:
    """Run a ``coordinator`` command that goes on; give what waits for its next line."""
    process = await asyncio.create_subprocess_exec(
        *_COMMAND,
        *arguments,
        cwd=folder,
        env=_environment(None),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        limit=_LINE_SIZE_MAX,
    )

    async def next_line() -> str:
        assert process.stdout is not None
        async with asyncio.timeout(TIMEOUT_S):
            return (await process.stdout.readline()).decode()

    try:
        yield next_line
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def eventually(holds: Callable[[], Awaitable[bool]] | Callable[[], bool]) -> None:
    """Return once *holds* does: for what another process does in its own time."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            answer = holds()
            if await answer if isinstance(answer, Awaitable) else answer:
                return
            await asyncio.sleep(POLL_S)


_COMMAND = (sys.executable, "-m", "coordinator")


def _environment(added: Mapping[str, str] | None) -> dict[str, str]:
    # Wide and without colours: what is printed should not depend on the machine.
    plain = {"NO_COLOR": "1", "COLUMNS": "100", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **plain, **(added or {})}


def _new_log(folder: Path) -> Path:
    return folder / f"stderr-{len(list(folder.glob('stderr-*')))}.txt"


def _read(path: Path) -> str:
    return path.read_text()


async def _read_ready(
    process: asyncio.subprocess.Process, errors: Path
) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(TIMEOUT_S):
        line = await process.stdout.readline()
        if not line:
            code = await process.wait()
            raise AssertionError(f"not ready, exit code {code}:\n{_read(errors)}")
    ready: dict[str, Any] = msgspec.json.decode(line)
    return ready
