"""Real processes: a server, its services, and customers who write down what they see.

async with World.started(folder) as world:
    async with world.server() as server: ...      a `coordinator serve`
    async with world.fork() as server: ...        the same, at a third of the cost
    await world.shop(server)                      until the server dies
    await world.heal()                            asks again for all, by key
"""

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from sys import executable

import msgspec
from tests.processes import TIMEOUT_S, Server, serving
from tests.torture.forked import forked
from tests.torture.history import History, Value
from tests.torture.sagas import Order, OrderFailed, Receipt, make_order

from cmdstream import Client, CmdStreamError, JsonCodec, Registry

__all__ = ["JOURNAL", "Customers", "World"]

CODEC = JsonCodec(Registry([Order], [Receipt, OrderFailed]))
ROOT = Path(__file__).parents[2]
JOURNAL = "file:./journal?segment_mib=1&partitions=2"
IN_FLIGHT = 16
SCALE = 20
"""Orders of up to 18 KB, so that segments of a MiB are rolled."""


class Customers:
    """Keep orders in flight; what had no answer is asked for again, by its key."""

    def __init__(self, history: History) -> None:
        self.answered = 0
        self._history = history
        self._numbers = itertools.count()
        self._open: dict[int, None] = {}
        self._asked: dict[int, None] = {}

    async def shop(self, server: Server) -> None:
        """Order until the server dies."""
        with suppress(CmdStreamError, OSError):
            client = await Client.connect(*server.address, CODEC)
            async with client, asyncio.TaskGroup() as group:
                for _ in range(IN_FLIGHT):
                    group.create_task(self._order_until_cut(client))

    async def ask_again(self, server: Server) -> None:
        """Ask for all that was ever asked for, answered or not."""
        async with await Client.connect(*server.address, CODEC) as client:
            for number in list(self._asked):
                await self._order(client, number)

    async def order(self, server: Server) -> None:
        """Order once more, and wait for the answer."""
        async with await Client.connect(*server.address, CODEC) as client:
            await self._order(client, next(self._numbers))

    async def _order_until_cut(self, client: Client) -> None:
        with suppress(CmdStreamError):
            while True:
                number = next(iter(self._open), None)
                if number is None:
                    number = next(self._numbers)
                # Taken out while it is asked for; put back if no answer comes.
                self._open.pop(number, None)
                try:
                    await self._order(client, number)
                except BaseException:
                    self._open[number] = None
                    raise

    async def _order(self, client: Client, number: int) -> None:
        order = make_order(number, SCALE)
        self._asked[number] = None
        self._history.note("invoke", "submit", Value(order.id))
        try:
            answer = await client.send(order)
        except CmdStreamError as error:
            self._history.note("info", "submit", Value(order.id, str(error)))
            raise
        match answer:
            case Receipt(parts=parts):
                value = Value(order.id, "completed", ",".join(parts))
                self._history.note("ok", "result", value)
            case OrderFailed(status="refused", reason=reason):
                self._history.note("fail", "submit", Value(order.id, reason))
            case OrderFailed(status=status, reason=reason):
                self._history.note("ok", "result", Value(order.id, status, reason))
            case other:
                raise AssertionError(f"{order.id} was answered with {other!r}")
        self.answered += 1


class World:
    """A folder, the services that run on it, and its customers."""

    def __init__(
        self, folder: Path, services: asyncio.subprocess.Process, port: int
    ) -> None:
        self.folder = folder
        self.services = services
        self.customers = Customers(History(folder / "history.jsonl", "customers"))
        path = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
        self._env = {
            "SERVICES_URL": f"http://127.0.0.1:{port}",
            "PYTHONPATH": path,
            # Compiled once per world: every start of a server is a part of a life.
            "PYTHONDONTWRITEBYTECODE": "",
        }

    @classmethod
    @asynccontextmanager
    async def started(cls, folder: Path) -> AsyncGenerator["World"]:
        """Start the services; end them on the way out."""
        services = await asyncio.create_subprocess_exec(
            *(executable, "-m", "tests.torture.service", str(folder / "ledger.sqlite")),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            assert services.stdout is not None
            async with asyncio.timeout(TIMEOUT_S):
                ready = msgspec.json.decode(await services.stdout.readline())
            yield cls(folder, services, ready["port"])
        finally:
            with suppress(ProcessLookupError):
                services.kill()
            await services.wait()

    def server(self) -> AbstractAsyncContextManager[Server]:
        """Start a server; see `tests.processes.serving`."""
        return serving(
            self.folder,
            "from tests.torture.app import coordinator\n",
            journal=JOURNAL,
            env=self._env,
        )

    def fork(self) -> AbstractAsyncContextManager[Server]:
        """Start a server that is a fork; see `tests.torture.forked`."""
        target = "tests.torture.app:coordinator"
        return forked(self.folder, target, JOURNAL, self._env)

    async def heal(self) -> None:
        """Have one more server finish everything, and stop it in order."""
        async with self.server() as server:
            async with asyncio.timeout(TIMEOUT_S):
                await self.customers.ask_again(server)
                await self.customers.order(server)
            code = await server.stop()
            assert code == 0, f"stopped with {code}:\n{server.log}"
