"""Child processes that never outlive their parent, and are ended by it alone.

Each child leads a process group of its own, so Ctrl-C reaches the parent only, which
ends its children in order. If the parent is killed with SIGKILL it can't; so each
child asks the kernel to be killed then, too. That has to be asked for between fork and
exec, hence `_LEASH`, a program of four lines that becomes the child's own.
"""

import asyncio
import contextlib
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

END_S = 10  # Seconds that a child has to end after SIGTERM.

_LEASH = """
import ctypes, os, signal, sys
PR_SET_PDEATHSIG = 1
ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
if os.getppid() == int(sys.argv[1]):  # else it died before we asked
    os.execv(sys.argv[2], sys.argv[2:])
"""


class Children:
    """The processes that we started."""

    def __init__(self, logs: Path) -> None:
        """Start nothing; what children write to standard error goes to *logs*."""
        self._logs = logs
        self._running: dict[str, Process] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for name in list(self._running):
            await self.end(name)

    async def start(
        self,
        name: str,
        *arguments: str,
        more_environment: Mapping[str, str] | None = None,
    ) -> Process:
        """Run Python with *arguments*; its standard output is a pipe to us."""
        leash = [sys.executable, "-I", "-S", "-c", _LEASH, str(os.getpid())]
        with (self._logs / f"{name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *leash,
                sys.executable,
                *arguments,
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=log,
                env={**os.environ, **(more_environment or {})},
                process_group=0,
            )
        self._running[name] = process
        return process

    def ended(self, *, but: str = "") -> str:
        """Name a child, other than *but*, that ended by itself; empty if none did."""
        for name, process in self._running.items():
            if name != but and process.returncode is not None:
                return name
        return ""

    async def kill(self, name: str) -> None:
        """End a child with SIGKILL."""
        process = self._running.pop(name)
        process.kill()
        await process.wait()

    async def end(self, name: str) -> int:
        """End a child with SIGTERM, or by force, and return its exit code."""
        process = self._running.pop(name)
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(END_S):
                return await process.wait()
        except TimeoutError:
            process.kill()
            return await process.wait()
