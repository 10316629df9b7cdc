"""Runs the demo: starts five processes, breaks what the plan says, stops them in order.

    inventory  payments  shipping      HTTP services, each with its SQLite ledger
        ^         ^         ^
        `---- coordinator ---- journal (a folder)
                  ^
               client                  cmd-stream; 2,000 orders

Everything of a run is in one folder: ledgers, journal, answers, and the processes'
logs. The audit needs nothing else.
"""

import asyncio
import http.client
import json
import shutil
import socket
from asyncio.subprocess import Process
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from examples.demo import operator
from examples.demo.client import Progress
from examples.demo.display import Display
from examples.demo.plan import Kill, Outage, make_plan
from examples.demo.processes import Children
from rich.console import Console

SERVICES = ("inventory", "payments", "shipping")
START_S = 60  # Seconds that a process has to start; the machine may be busy.
STALL_S = 30  # Seconds without an answer after which the demo gives up.


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is made of. Stored in its folder, for the audit."""

    orders: int = 2000
    seed: int = 1
    kills: int = 4
    outage_s: float = 5.0
    in_flight: int = 150
    """Orders that the client has under way at a time, if nothing is wrong. A small
    share of all, or nothing would be left for the last kills."""
    error_rate: float = 0.05
    lose_reply_rate: float = 0.03
    refuse_rate: float = 0.05


class DemoError(Exception):
    """The demo itself can't go on; says why."""


@dataclass
class Ran:
    """What a run was like."""

    seconds: float = 0.0
    recoveries_s: list[float] = field(default_factory=list[float])
    """From each SIGKILL until clients were accepted again."""
    problem: str = ""
    """Why it ended early; empty if it did not."""


def prepare(folder: Path, options: Options) -> None:
    """Make *folder* afresh; only what an earlier run made is removed.

    Raises:
        DemoError: There is something else in it.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / "demo.json").exists():
            raise DemoError(f"{folder} holds something else, give --data another one")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "demo.json").write_bytes(msgspec.json.encode(options))


async def run(folder: Path, options: Options, console: Console) -> Ran:
    """Run the demo in *folder*, which was prepared."""
    ran = Ran()
    with Display(options.orders, console) as display:
        try:
            with kept_port() as port:
                async with Children(folder) as children:
                    await _Driver(folder, options, display, children, ran, port).run()
        except DemoError as error:
            ran.problem = str(error)
            display.event(ran.problem, "bold red")
        ran.seconds = display.elapsed_s
    return ran


class _Driver:
    def __init__(
        self,
        folder: Path,
        options: Options,
        display: Display,
        children: Children,
        ran: Ran,
        port: int,
    ) -> None:
        self._folder = folder
        self._options = options
        self._display = display
        self._children = children
        self._ran = ran
        self._ports = {"coordinator": port}
        self._progress = Progress()
        self._delayed = 0
        self._suspended = set[str]()
        self._moved = asyncio.Event()
        self._gave_up: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done, with the reason, when the demo can't go on."""

    async def run(self) -> None:
        """Do all of it.

        Raises:
            DemoError: A process ended by itself, or nothing moves any more.
        """
        services = {name: await self._start_service(name) for name in SERVICES}
        for name, process in services.items():
            ready = await self._first_line(name, process)
            self._ports[name] = json.loads(ready)["port"]
        client = await self._start_client()  # It waits for the coordinator.
        await self._start_coordinator()
        self._display.event(
            f"five processes are up; {self._options.orders} orders, "
            f"seed {self._options.seed}"
        )
        problem = await self._until_over(client)
        if problem:
            raise DemoError(problem)
        self._display.event("every order has its answer")
        for name in ("coordinator", *SERVICES):
            code = await self._children.end(name)
            if code != 0:
                raise DemoError(f"{name} ended with {code}, see {self._log(name)}")

    async def _until_over(self, client: Process) -> str:
        """Return when the client is through, or why it never will be."""
        async with asyncio.TaskGroup() as group:
            striking = group.create_task(self._strike())
            following = group.create_task(self._follow(client, striking))
            around = [
                striking,
                group.create_task(self._look()),
                group.create_task(self._watch()),
            ]
            over: set[asyncio.Future[Any]] = {following, self._gave_up}
            await asyncio.wait(over, return_when=asyncio.FIRST_COMPLETED)
            for task in (following, *around):
                task.cancel()
        return self._gave_up.result() if self._gave_up.done() else ""

    # -- processes -------------------------------------------------------------------

    async def _start_service(self, name: str) -> Process:
        options = self._options
        return await self._children.start(
            name,
            *("-m", "examples.shop.services", name),
            *("--ledger", str(self._folder / f"{name}.sqlite")),
            *("--error-rate", str(options.error_rate)),
            *("--lose-reply-rate", str(options.lose_reply_rate)),
            *("--refuse-rate", str(options.refuse_rate)),
            *("--seed", str(options.seed)),
        )

    async def _start_coordinator(self) -> None:
        """Start the coordinator, and return when it accepts clients."""
        process = await self._children.start(
            "coordinator",
            *("-m", "coordinator", "serve", "examples.shop.orders:coordinator"),
            *("--listen", f"tcp://127.0.0.1:{self._ports['coordinator']}"),
            *("--journal", f"file:{self._folder / 'journal'}", "--json"),
            more_environment={
                f"{name.upper()}_URL": f"http://127.0.0.1:{self._ports[name]}"
                for name in SERVICES
            },
        )
        await self._first_line("coordinator", process)

    async def _first_line(self, name: str, process: Process) -> bytes:
        """Return what a server prints when it is ready."""
        assert process.stdout is not None
        line = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S):
                line = await process.stdout.readline()
        if not line:
            raise DemoError(f"{name} did not start, see {self._log(name)}")
        return line

    async def _start_client(self) -> Process:
        options = self._options
        return await self._children.start(
            "client",
            *("-m", "examples.demo.client"),
            *("--port", str(self._ports["coordinator"])),
            *("--orders", str(options.orders)),
            *("--seed", str(options.seed)),
            *("--in-flight", str(options.in_flight)),
            *("--answers", str(self._folder / "answers.jsonl")),
        )

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    # -- what goes on meanwhile ------------------------------------------------------

    async def _follow(self, client: Process, striking: "asyncio.Task[None]") -> None:
        """Read the client's reports until it ends, and all disasters are over."""
        assert client.stdout is not None
        async for line in client.stdout:
            self._progress = msgspec.json.decode(line, type=Progress)
            self._moved.set()
            self._display.update(self._progress, self._delayed)
        if await client.wait() != 0 or self._progress.answered < self._options.orders:
            self._give_up(f"the client gave up, see {self._log('client')}")
        await asyncio.wait({striking})

    async def _watch(self) -> None:
        """Notice if a process ends by itself, or nothing moves."""
        loop = asyncio.get_running_loop()
        answered, since_s = 0, loop.time()
        while True:
            await asyncio.sleep(0.1)
            if name := self._children.ended(but="client"):
                self._give_up(f"{name} ended by itself, see {self._log(name)}")
            if self._progress.answered != answered:
                answered, since_s = self._progress.answered, loop.time()
            if loop.time() - since_s > STALL_S + self._options.outage_s:
                self._give_up(f"no order was answered for {STALL_S} s")

    def _give_up(self, problem: str) -> None:
        if not self._gave_up.done():
            self._gave_up.set_result(problem)

    async def _look(self) -> None:
        """Show what the coordinator says of itself."""
        pid = 0
        async for sight in operator.watch(self._folder / "journal"):
            before = self._suspended if sight.pid == pid else set[str]()
            pid = sight.pid
            self._delayed = sight.delayed
            self._suspended = set(sight.suspended)
            self._moved.set()
            for service in self._suspended - before:
                self._display.event(
                    f"the breaker of {service} is open: intake is suspended, "
                    f"orders waiting: {sight.suspended[service]}",
                    "yellow",
                )
            for service in before - self._suspended:
                self._display.event(f"{service} answers: intake is resumed", "green")

    # -- disasters -------------------------------------------------------------------

    async def _strike(self) -> None:
        options = self._options
        for disaster in make_plan(
            options.orders, options.kills, options.outage_s, options.seed
        ):
            # A kill would hide how the shop recovers from the outage.
            while self._progress.answered < disaster.after or self._suspended:
                self._moved.clear()
                await self._moved.wait()
            match disaster:
                case Kill(number, _, pause_s):
                    await asyncio.sleep(pause_s)
                    try:
                        await self._kill(number)
                    except DemoError as error:
                        self._give_up(str(error))
                case Outage(_, seconds):
                    await self._take_down("payments", seconds)

    async def _kill(self, number: int) -> None:
        loop = asyncio.get_running_loop()
        killed_s = loop.time()
        await self._children.kill("coordinator")
        self._display.event(
            f"kill -9, number {number} of {self._options.kills}: the coordinator died "
            f"with {self._progress.in_flight} orders in flight",
            "red",
        )
        await self._start_coordinator()
        recovery_s = loop.time() - killed_s
        self._ran.recoveries_s.append(recovery_s)
        self._display.event(
            f"restarted on the same folder, accepting {recovery_s:.2f} s after it",
            "green",
        )

    async def _take_down(self, service: str, seconds: float) -> None:
        await asyncio.to_thread(post_down, self._ports[service], seconds)
        self._display.event(f"{service} is down for {seconds:g} s", "red")
        await asyncio.sleep(seconds)
        self._display.event(f"{service} is up", "green")


@contextmanager
def kept_port() -> Generator[int]:
    """Keep a port for a server that restarts, so that nobody else is given it.

    Bound, and not listened on: Linux then hands it out to no one, but lets a server
    that names it (with SO_REUSEADDR, as asyncio's do) listen on it.
    """
    with socket.socket() as keeper:
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeper.bind(("127.0.0.1", 0))
        yield keeper.getsockname()[1]


def post_down(port: int, seconds: float) -> None:
    """Tell a service to break every connection for so long."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=START_S)
    connection.request("POST", "/_down", json.dumps({"seconds": seconds}))
    connection.getresponse().read()
    connection.close()
