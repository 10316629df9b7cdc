"""The processes of the run: started, asked, stopped, and watched for growth."""

import asyncio
import os
import signal
import statistics
import sys
from asyncio.subprocess import PIPE
from contextlib import suppress
from pathlib import Path
from typing import Self

import msgspec

__all__ = ["Process", "Watched", "Watcher"]

_SAMPLE_S = 1.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
GROWN_MAX = 16 * 1024 * 1024
"""Bytes that the memory of a process may grow from the second fifth of the run to the
last: what is left of bursts differs by some megabytes from one minute to the next."""


class Process:
    """A module of this package, run by itself; its log goes into a file."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._name = name
        self._process = process

    @classmethod
    async def start(cls, folder: Path, module: str, *arguments: object) -> Self:
        name = module.rpartition(".")[2]
        with (folder / f"{name}.log").open("ab") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                module,
                *map(str, arguments),
                stdout=PIPE,
                stderr=file,
            )
        return cls(name, process)

    def __repr__(self) -> str:
        return self._name

    async def line(self) -> bytes:
        """The next line that it prints; nothing once it has ended."""
        assert self._process.stdout is not None
        return await self._process.stdout.readline()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def ended(self) -> int:
        return await self._process.wait()

    async def aclose(self) -> None:
        """Kill it, if it is still there."""
        if self._process.returncode is None:
            self._process.kill()
        await self._process.wait()

    def descriptors(self) -> int:
        return len(list(Path(f"/proc/{self._process.pid}/fd").iterdir()))

    def memory(self) -> int:
        statm = Path(f"/proc/{self._process.pid}/statm").read_text()
        return int(statm.split()[1]) * _PAGE


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What a process took while the run lasted."""

    name: str
    memory_early: int
    """Bytes, the median of the second fifth of the run."""
    memory_late: int
    """Bytes, the median of the last fifth."""
    descriptors_most: int


class Watcher:
    """Looks at a process every second."""

    def __init__(self, name: str, process: Process) -> None:
        self._name = name
        self._process = process
        self._memory: list[int] = []
        self._descriptors: list[int] = []

    async def watch(self) -> None:
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended
            while True:
                self._memory.append(self._process.memory())
                self._descriptors.append(self._process.descriptors())
                await asyncio.sleep(_SAMPLE_S)

    def result(self) -> Watched:
        fifth = max(1, len(self._memory) // 5)
        return Watched(
            name=self._name,
            memory_early=int(statistics.median(self._memory[fifth : 2 * fifth] or [0])),
            memory_late=int(statistics.median(self._memory[-fifth:])),
            descriptors_most=max(self._descriptors),
        )
