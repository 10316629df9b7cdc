"""SIGKILL under load, again and again, of a real server on a real disk.

A client keeps orders in flight, and asks again by key for all that it had no answer to.
Then: nothing acknowledged is lost or changed, nothing is done twice, nothing is stuck.
"""

import asyncio
import itertools
import os
import random
import sqlite3
from contextlib import suppress
from pathlib import Path

from tests.integration.ledger_app import Order, OrderFailed, Receipt
from tests.processes import Server, eventually, run_cli, serving

from cmdstream import Client, CmdStreamError, JsonCodec, Registry

KILLS = int(os.environ.get("KILLS", "100"))
IN_FLIGHT = 32
SEED = 20_261_122
CODEC = JsonCodec(Registry([Order], [Receipt, OrderFailed]))
SOURCE = Path(__file__).with_name("ledger_app.py").read_text()


class Customer:
    """Sends orders and remembers every answer."""

    def __init__(self) -> None:
        self.answers: dict[str, object] = {}
        self.changed: list[str] = []
        self._numbers = itertools.count()
        self._open: dict[str, None] = {}

    async def shop(self, server: Server) -> None:
        """Keep orders in flight until the server dies."""
        with suppress(CmdStreamError):
            client = await Client.connect(*server.address, CODEC)
            async with client, asyncio.TaskGroup() as group:
                for _ in range(IN_FLIGHT):
                    group.create_task(self._order(client))

    async def finish(self, server: Server) -> None:
        """Ask again for whatever had no answer, and for all that had one."""
        async with await Client.connect(*server.address, CODEC) as client:
            for order in [*self._open, *self.answers]:
                self._note(order, await client.send(Order(order)))

    async def _order(self, client: Client) -> None:
        with suppress(CmdStreamError):
            while True:
                order = next(iter(self._open), None)
                if order is None:
                    order = f"o-{next(self._numbers)}"
                # Taken out while it is asked for; put back if no answer comes.
                self._open.pop(order, None)
                try:
                    self._note(order, await client.send(Order(order)))
                finally:
                    if order not in self.answers:
                        self._open[order] = None

    def _note(self, order: str, answer: object) -> None:
        if isinstance(answer, OrderFailed):
            assert answer.status == "compensated", answer
        if self.answers.setdefault(order, answer) != answer:
            self.changed.append(order)


def test_kills_under_load_lose_double_and_strand_nothing(tmp_path: Path) -> None:
    chance = random.Random(SEED)
    customer = Customer()
    env = {
        "LEDGER": str(tmp_path / "ledger.sqlite"),
        "PYTHONDONTWRITEBYTECODE": "",
        "PYTHONPYCACHEPREFIX": str(tmp_path / "pycache"),
    }

    async def live_and_die(number: int) -> None:
        async with serving(tmp_path, SOURCE, env=env) as server:
            async with asyncio.TaskGroup() as group:
                shopping = group.create_task(customer.shop(server))
                if number % 2:
                    # A busy machine gets nothing done in so short a life. The others
                    # may die young: while they recover.
                    enough = len(customer.answers) + 3
                    await eventually(lambda: len(customer.answers) >= enough)
                # The moment of death is drawn; asyncio.wait is how one waits for it.
                await asyncio.wait({shopping}, timeout=chance.uniform(0.02, 0.4))
                server.kill()
            await server.exited()

    async def heal() -> None:
        async with serving(tmp_path, SOURCE, env=env) as server:
            await customer.finish(server)
            listed = await run_cli(
                tmp_path, "list", "--journal", "file:./journal", "--json"
            )
            assert listed.code == 0, listed.stderr
            assert listed.json()["workflows"] == []
            assert await server.stop() == 0
        verified = await run_cli(tmp_path, "journal", "verify", "journal")
        assert verified.code == 0, verified.stdout

    for number in range(KILLS):
        asyncio.run(live_and_die(number))
    asyncio.run(heal())
    assert customer.changed == []
    assert len(customer.answers) > KILLS
    _audit(tmp_path / "ledger.sqlite", customer.answers)


def _audit(path: Path, answers: dict[str, object]) -> None:
    """Compare what happened in the world with what the customer was told."""
    with sqlite3.connect(path) as ledger:
        rows = ledger.execute("select what, subject, delta from world").fetchall()
    ledger.close()
    done: dict[tuple[str, str], list[int]] = {}
    for what, order, delta in rows:
        done.setdefault((order, what), []).append(delta)
    for order, answer in answers.items():
        for what in ("inventory", "payments", "shipping"):
            deltas = done.pop((order, what), [])
            if isinstance(answer, Receipt):
                assert deltas == [1], f"{order} is completed, but {what} has {deltas}"
            else:
                assert deltas in ([], [1, -1]), f"{order} was undone: {what} {deltas}"
    assert done == {}, "effects of orders that nobody was told of"
