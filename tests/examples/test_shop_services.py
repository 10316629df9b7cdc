"""The demo's services as their users meet them: real processes, real sockets."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Coroutine, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from examples.shop import ledger
from examples.shop.ledger import Call, Decision, Ledger

from coordinator.context import StepContext, in_step
from coordinator.errors import CommandBlocked, CommandDelayed, Refused
from coordinator.gateways import BreakerOptions, MisconfiguredError
from coordinator.gateways.http import HttpGateway, HttpOptions
from coordinator.model import Direction, StepId

END_S = 120  # Seconds in which a process must have ended; not waited for.


class Made(msgspec.Struct):
    id: str
    order_id: str
    amount: int


class Undone(msgspec.Struct):
    id: str
    undone: bool


class Shop(HttpGateway):
    """Any of the three services."""

    async def do(self, path: str, key: str, order_id: str, amount: int = 5) -> Made:
        with in_step(context(key)):
            body = {"order_id": order_id, "amount": amount}
            return await self.post(path, body, into=Made)

    async def undo(self, path: str, key: str, made: str) -> Undone:
        with in_step(context(key + "/undo")):
            return await self.post(path, {"id": made}, into=Undone)

    async def down(self, seconds: float) -> None:
        with in_step(context("admin")):
            await self.post("/_down", {"seconds": seconds})


def context(key: str) -> StepContext:
    return StepContext(key, 3, "0-1", StepId("shop.do", 0), Direction.DO, 0)


@dataclass
class Running:
    process: subprocess.Popen[str]
    port: int
    ledger: Path

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.ledger)) as database:
            return database.execute(query).fetchall()

    def use(self, scenario: Callable[[Shop], Coroutine[Any, Any, None]]) -> None:
        async def main() -> None:
            never = BreakerOptions(calls_min=10**9)
            url = f"http://127.0.0.1:{self.port}"
            patient = HttpOptions(connect_timeout_s=END_S)
            async with Shop(
                url, name="shop", breaker=never, timeout_s=END_S, options=patient
            ) as shop:
                await scenario(shop)

        asyncio.run(main())

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(END_S)


@contextmanager
def service(
    folder: Path, name: str = "payments", *options: str
) -> Generator[Running, None, None]:
    path = folder / f"{name}.sqlite"
    command = [sys.executable, "-m", "examples.shop.services", name]
    process = subprocess.Popen(
        [*command, "--ledger", str(path), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": "src"},
    )
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert (ready["service"], ready["pid"]) == (name, process.pid)
        yield Running(process, ready["port"], path)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("name", "do", "undo"),
    [
        ("inventory", "/reserve", "/release"),
        ("payments", "/charge", "/refund"),
        ("shipping", "/book", "/cancel"),
    ],
)
def test_a_key_is_applied_once_and_undone_once(
    tmp_path: Path, name: str, do: str, undo: str
) -> None:
    async def scenario(shop: Shop) -> None:
        made = await shop.do(do, "k-1", "o-1", 1999)
        assert (made.order_id, made.amount) == ("o-1", 1999)
        assert await shop.do(do, "k-1", "o-1", 1999) == made
        assert (await shop.undo(undo, "k-1", made.id)).undone
        assert (await shop.undo(undo, "k-1", made.id)).undone

    with service(tmp_path, name) as running:
        running.use(scenario)
        world = running.rows("SELECT operation, subject, delta, undoes FROM world")
        assert world == [(do[1:], "o-1", 1999, None), (undo[1:], "o-1", -1999, 1)]
        keys = running.rows("SELECT key, status, epoch FROM effects ORDER BY rowid")
        assert keys == [("k-1", "done", 3), ("k-1/undo", "done", 3)]
        answers = running.rows("SELECT answer FROM calls ORDER BY id")
        assert [row[0] for row in answers] == ["done", "repeated"] * 2
        assert running.end() == 0


def test_a_refusal_is_remembered_and_changes_nothing(tmp_path: Path) -> None:
    async def scenario(shop: Shop) -> None:
        for _ in range(2):
            with pytest.raises(Refused, match="card declined") as refused:
                await shop.do("/charge", "k-1", "o-1")
            assert refused.value.details["code"] == "declined"

    with service(tmp_path, "payments", "--refuse-rate", "1") as running:
        running.use(scenario)
        assert running.rows("SELECT status FROM effects") == [("refused",)]
        assert running.rows("SELECT * FROM world") == []


def test_which_orders_are_refused_does_not_depend_on_when_they_ask(
    tmp_path: Path,
) -> None:
    orders = [f"o-{number}" for number in range(200)]
    refused: list[list[str]] = [[], []]

    def asking(run: int, order_ids: list[str]) -> Callable[[Shop], Any]:
        async def scenario(shop: Shop) -> None:
            for order_id in order_ids:
                try:
                    await shop.do("/charge", f"{run}/{order_id}", order_id)
                except Refused:
                    refused[run].append(order_id)

        return scenario

    with service(tmp_path, "payments", "--refuse-rate", "0.2") as running:
        running.use(asking(0, orders))
        running.use(asking(1, orders[::-1]))
    assert sorted(refused[0]) == sorted(refused[1])
    assert 20 <= len(refused[0]) <= 60


def test_an_undo_of_what_was_never_done_is_recorded_as_such(tmp_path: Path) -> None:
    async def scenario(shop: Shop) -> None:
        made = await shop.do("/charge", "k-1", "o-1")
        assert (await shop.undo("/refund", "k-1", made.id)).undone
        # Under another key: a second refund of one charge.
        assert not (await shop.undo("/refund", "k-2", made.id)).undone
        for number, never_made in enumerate(["payments-99", "x", "payments-2"]):
            undone = await shop.undo("/refund", f"k-3/{number}", never_made)
            assert not undone.undone

    with service(tmp_path) as running:
        running.use(scenario)
        flagged = running.rows("SELECT count(*) FROM effects WHERE status = 'nothing'")
        assert flagged == [(4,)]
        assert running.rows("SELECT sum(delta), count(*) FROM world") == [(0, 2)]


def test_a_key_with_another_request_needs_a_person(tmp_path: Path) -> None:
    async def scenario(shop: Shop) -> None:
        await shop.do("/charge", "k-1", "o-1", 5)
        with pytest.raises(MisconfiguredError, match="422"):
            await shop.do("/charge", "k-1", "o-1", 6)

    with service(tmp_path) as running:
        running.use(scenario)
        assert running.rows("SELECT delta FROM world") == [(5,)]
        answers = running.rows("SELECT answer FROM calls")
        assert answers == [("done",), ("conflict",)]


def test_requests_that_are_none_change_nothing(tmp_path: Path) -> None:
    async def scenario(shop: Shop) -> None:
        with in_step(context("k-1")):
            for path in ("/charge", "/refund", "/_down"):
                with pytest.raises(Refused, match="Object missing required field"):
                    await shop.post(path, {})
            with pytest.raises(MisconfiguredError, match="404"):
                await shop.post("/reserve", {})
        with (
            in_step(context("")),
            pytest.raises(MisconfiguredError, match="an Idempotency-Key is needed"),
        ):
            await shop.post("/charge", {"order_id": "o-1"})

    with service(tmp_path) as running:
        running.use(scenario)
        assert running.rows("SELECT * FROM effects") == []
        assert running.rows("SELECT * FROM calls") == []


def test_asking_until_known_applies_each_order_once_through_all_faults(
    tmp_path: Path,
) -> None:
    orders = [f"o-{number}" for number in range(60)]
    delays = 0

    async def ask(shop: Shop, order_id: str) -> None:
        nonlocal delays
        while True:
            try:
                await shop.do("/charge", f"k/{order_id}", order_id)
            except CommandDelayed:
                delays += 1
            else:
                return

    async def scenario(shop: Shop) -> None:
        async with asyncio.TaskGroup() as group:
            for order_id in orders:
                group.create_task(ask(shop, order_id))

    faults = ["--error-rate", "0.3", "--lose-reply-rate", "0.3"]
    with service(tmp_path, "payments", *faults) as running:
        running.use(scenario)
        twice = "SELECT subject FROM world GROUP BY 1 HAVING count(*) > 1"
        assert running.rows(twice) == []
        assert running.rows("SELECT count(*) FROM world") == [(len(orders),)]
        failed = running.rows("SELECT count(*) FROM calls WHERE answer = 'failed'")
        lost = running.rows("SELECT count(*) FROM calls WHERE lost")
        assert failed[0][0] > 0
        assert lost[0][0] > 0
        assert failed[0][0] + lost[0][0] == delays


def test_a_service_that_is_down_breaks_connections_until_it_is_up(
    tmp_path: Path,
) -> None:
    async def scenario(shop: Shop) -> None:
        await shop.down(3600)
        with pytest.raises(CommandDelayed) as delayed:
            await shop.do("/charge", "k-1", "o-1")
        assert not isinstance(delayed.value, CommandBlocked)
        await shop.down(0)
        await shop.do("/charge", "k-1", "o-1")

    with service(tmp_path) as running:
        running.use(scenario)
        assert running.rows("SELECT answer FROM calls") == [("done",)]


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    made: list[Made] = []

    async def scenario(shop: Shop) -> None:
        made.append(await shop.do("/charge", "k-1", "o-1"))

    with service(tmp_path) as running:
        running.use(scenario)
        running.process.kill()
        running.process.wait(END_S)
    with service(tmp_path) as running:
        running.use(scenario)
        assert running.rows("SELECT count(*) FROM world") == [(1,)]
    assert made[0] == made[1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(tmp_path: Path, number: signal.Signals) -> None:
    with service(tmp_path) as running:
        running.process.send_signal(number)
        assert running.process.wait(END_S) == 0


def test_it_does_not_outlive_its_parent(tmp_path: Path) -> None:
    with service(tmp_path) as running:
        assert running.process.stdin is not None
        running.process.stdin.write("what a parent writes is not read\n")
        running.process.stdin.close()
        assert running.process.wait(END_S) == 0
        running.process.stdin = None  # or communicate() would flush it


def test_without_a_pipe_it_goes_on(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "examples.shop.services", "shipping"]
    with subprocess.Popen(
        [*command, "--ledger", str(tmp_path / "shipping.sqlite")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env={"PYTHONPATH": "src"},
    ) as process:
        assert process.stdout is not None
        running = Running(
            process, json.loads(process.stdout.readline())["port"], tmp_path
        )

        async def scenario(shop: Shop) -> None:
            await shop.do("/book", "k-1", "o-1")

        running.use(scenario)
        assert running.end() == 0


def test_a_failed_decision_leaves_no_trace(tmp_path: Path) -> None:
    book = Ledger(tmp_path / "x.sqlite")
    call = Call("k-1", "charge", b"{}", 1)

    def dies() -> Decision:
        book.change("charge", "o-1", 5)
        raise OSError("in the middle of it")

    with pytest.raises(OSError, match="middle"):
        book.apply(call, dies)
    assert book.find_change(1) is None
    assert book.apply(call, lambda: Decision("done", b"1")).response == b"1"
    assert book.apply(call, dies).response == b"1"
    book.close()


def test_the_audit_sees_an_order_that_was_charged_twice(tmp_path: Path) -> None:
    async def scenario(shop: Shop) -> None:
        await shop.do("/charge", "k-1", "o-1")
        await shop.do("/charge", "k-2", "o-1")
        await shop.do("/charge", "k-3", "o-2")

    twice = "SELECT subject, operation FROM world GROUP BY 1, 2 HAVING count(*) > 1"
    assert twice in (ledger.__doc__ or "")
    with service(tmp_path) as running:
        running.use(scenario)
        assert running.rows(twice) == [("o-1", "charge")]
