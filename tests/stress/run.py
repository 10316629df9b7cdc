"""The run: starts everything, breaks it, and adds it up."""

import asyncio
import random
import signal
import socket
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TypeVar

import msgspec
from tests.processes import eventually
from tests.stress.checker import Count, check
from tests.stress.client import Done
from tests.stress.faults import break_connections, disturb, restart
from tests.stress.hostile import Deeds
from tests.stress.messages import read_begun, read_notes
from tests.stress.processes import GROWN_MAX, Process, Watched, Watcher
from tests.stress.proxy import Proxy
from tests.stress.server import Farewell

__all__ = ["Report", "stress"]

T = TypeVar("T")

_CLIENTS = 2
_END_S = 120.0
"""For what is under way at the end, on a busy machine; only a hang gets here."""
_PACKAGE = "tests.stress."


class Report(msgspec.Struct, kw_only=True):
    """What happened."""

    seconds: float
    seed: int
    count: Count
    faults: dict[str, int]
    hostile: dict[str, int]
    watched: list[Watched]
    problems: list[str]


async def stress(folder: Path, seconds: float, seed: int) -> Report:
    """Run for *seconds*; what was noted, and the logs, stay in *folder*."""
    run = _Run(folder, seconds, seed)
    async with AsyncExitStack() as stack, run.proxy:
        await run.start(stack)
        await run.last()
        await run.end()
    return run.report()


class _Run:
    """All that there is in one run."""

    def __init__(self, folder: Path, seconds: float, seed: int) -> None:
        self._folder = folder
        self._seconds = seconds
        self._seed = seed
        self._chance = random.Random(seed)
        self.proxy = Proxy(self._chance)
        self._ports = _free_port(), _free_port()
        self._begun = folder / "begun-a", folder / "begun-b"
        self._notes = [folder / f"notes-{number}" for number in range(_CLIENTS)]
        self._faults: Counter[str] = Counter()
        self._problems: list[str] = []

    async def start(self, stack: AsyncExitStack) -> None:
        """Start all processes but server A; *stack* ends them."""

        async def process(module: str, *arguments: object) -> Process:
            started = await Process.start(self._folder, _PACKAGE + module, *arguments)
            stack.push_async_callback(started.aclose)
            return started

        times = self._seconds, self._seed
        self._b = await process("server", self._ports[1], self._begun[1], "--failure")
        assert await self._b.line() == b"ready\n"
        self._quiet = self._b.descriptors()
        self._clients = [
            await process(
                "client",
                *(number, *times, self._notes[number]),
                *[await self.proxy.to(port) for port in self._ports * 2],
            )
            for number in range(_CLIENTS)
        ]
        self._hostile = await process("hostile", *times, *self._ports)
        self._watchers = [
            Watcher("server B", self._b),
            *[Watcher(f"client {i}", one) for i, one in enumerate(self._clients)],
        ]

    async def last(self) -> None:
        """Break things until the others have done what they do."""
        server_a = restart(
            self._folder,
            self._ports[0],
            self._begun[0],
            self._chance,
            self._faults,
            self._problems,
        )
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(server_a),
                group.create_task(break_connections(self.proxy, self._chance)),
                group.create_task(disturb(self._b, self._chance, self._faults)),
                *[group.create_task(watcher.watch()) for watcher in self._watchers],
            ]
            async with asyncio.timeout(self._seconds + _END_S):
                self._done = [await one.line() for one in self._clients]
                self._deeds = await self._hostile.line()
            for task in tasks:
                task.cancel()

    async def end(self) -> None:
        """See that server B is as quiet as before, and end it."""
        try:
            await eventually(lambda: self._b.descriptors() <= self._quiet)
        except TimeoutError:
            more = self._b.descriptors() - self._quiet
            self._problems.append(f"server B keeps {more} descriptors without clients")
        self._b.send(signal.SIGTERM)
        async with asyncio.timeout(_END_S):
            self._farewell = await self._b.line()
            for process in (*self._clients, self._hostile, self._b):
                if code := await process.ended():
                    self._problems.append(f"{process} ended with {code}")

    def report(self) -> Report:
        """Add it all up."""
        problems = self._problems
        ends = [_read(line, Done, problems) for line in self._done]
        for end in ends:
            if end is not None and (end.tasks or end.pending):
                problems.append(f"a client leaves {end}")
        farewell = _read(self._farewell, Farewell, problems)
        if farewell not in {None, Farewell(True, 0, 0, 0)}:
            problems.append(f"server B leaves {farewell}")
        deeds = _read(self._deeds, Deeds, problems) or Deeds({}, [])
        watched = [watcher.result() for watcher in self._watchers]
        count = check(
            sum(end.attempts for end in ends if end is not None),
            (note for path in self._notes for note in read_notes(path)),
            (id_ for path in self._begun for id_ in read_begun(path)),
        )
        return Report(
            seconds=self._seconds,
            seed=self._seed,
            count=count,
            faults=dict(sorted((self._faults + self.proxy.faults).items())),
            hostile=dict(sorted(deeds.done.items())),
            watched=watched,
            problems=[
                *problems,
                *deeds.problems,
                *count.problems,
                *_grown(watched),
                *_complaints(self._folder),
            ],
        )


def _read(line: bytes, kind: type[T], problems: list[str]) -> T | None:
    """Return what a process said at its end, if it did."""
    if not line:
        problems.append(f"somebody died before it could say {kind.__name__}")
        return None
    return msgspec.json.decode(line, type=kind)


def _free_port() -> int:
    """A port for a server that has the same one again and again."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port: int = sock.getsockname()[1]
        return port


def _grown(watched: list[Watched]) -> list[str]:
    return [
        f"{one.name} has grown by {one.memory_late - one.memory_early} bytes"
        for one in watched
        if one.memory_late - one.memory_early > GROWN_MAX
    ]


def _complaints(folder: Path) -> list[str]:
    """What nobody should have had to say; a command that fails is told to, in words."""
    return [
        f"{path.name}: {line}"
        for path in sorted(folder.glob("*.log"))
        for line in path.read_text().splitlines()
        if "Traceback" in line or " ERROR " in line or " CRITICAL " in line
    ]
