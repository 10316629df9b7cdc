"""``coordinator replay``: a service that lost its data gets it back."""

import asyncio
import errno
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest
from examples.shop.orders import Payments
from tests.cli.runner import invoke
from tests.engine.support import run
from tests.examples.test_shop_services import Running, service
from tests.processes import run_cli

from coordinator import Coordinator, Refused, Workflow
from coordinator.cli import replaying
from coordinator.model import EndStatus
from coordinator.records import (
    Accepted,
    Carried,
    Claimed,
    Finished,
    Held,
    Lost,
    Outcome,
    Released,
)
from coordinator.replay import ReplayedOutcome, Story

REBUILD = """
import os
from pathlib import Path

from coordinator import ReplayedOutcome, current_step
from coordinator.errors import Refused
from examples.shop.orders import Payment, Payments

payments = Payments(os.environ["PAYMENTS"], name="payments")
count = Path("count.txt")


async def tell(told: ReplayedOutcome) -> None:
    assert told.replay
    assert current_step().replay
    done = int(count.read_text()) if count.exists() else 0
    if done == 7 and not Path("killed").exists():
        Path("killed").touch()
        os.kill(os.getpid(), 9)
    if told.direction == "do":
        await payments.charge(told.command["order_id"], told.command["cents"])
    else:
        await payments.refund(Payment(told.undoes["id"]))
    count.write_text(str(done + 1))


def fail(told: ReplayedOutcome) -> None:
    raise Refused("not now")


constant = 1
"""


@dataclass
class Order:
    order_id: str
    cents: int

    async def exec(self, workflow: Workflow, shop: "Shop") -> str:
        charge = workflow.step(shop.payments.charge, self.order_id, self.cents)
        paid = await charge.undo(shop.payments.refund)
        await workflow.step(shop.book, self.order_id)
        return paid.id


class Shop:
    def __init__(self, url: str) -> None:
        self.payments = Payments(url, name="payments")

    async def book(self, order_id: str) -> None:
        if order_id.endswith("3"):
            raise Refused("no courier")


async def trade(folder: Path, url: str) -> None:
    journal = f"file:{folder / 'journal'}"
    shop = Shop(url)
    async with Coordinator(shop, commands=[Order], journal=journal) as coordinator:
        for number in range(15):
            order = Order(f"o-{number}", number)
            handle = await coordinator.submit(order)
            try:
                await handle.result()
            except Refused:
                assert number % 10 == 3
    await shop.payments.aclose()


def ledger(running: Running) -> list[list[tuple[Any, ...]]]:
    effects = "key, operation, subject, amount, status, request, response"
    world = "id, operation, subject, delta, undoes"
    queries = (
        f"SELECT {effects} FROM effects ORDER BY key",
        f"SELECT {world} FROM world ORDER BY id",
    )
    with closing(sqlite3.connect(running.ledger)) as database:
        return [database.execute(query).fetchall() for query in queries]


def test_a_service_that_lost_everything_is_rebuilt_equal_with_a_kill_in_between(
    tmp_path: Path,
) -> None:
    (tmp_path / "rebuild.py").write_text(REBUILD)
    lost, new = tmp_path / "lost", tmp_path / "new"
    lost.mkdir()
    new.mkdir()
    with service(lost) as running:
        asyncio.run(trade(tmp_path, f"http://127.0.0.1:{running.port}"))
        before = ledger(running)
    assert len(before[1]) == 17
    command = (
        *("replay", "--service", "payments", "--to", "rebuild:tell"),
        *("--journal", "journal", "--state", "state.json", "--rate", "1000/s"),
    )
    with service(new) as running:
        env = {"PAYMENTS": f"http://127.0.0.1:{running.port}"}
        env["PYTHONPATH"] = f"{Path.cwd()}:{Path.cwd() / 'src'}"
        killed = asyncio.run(run_cli(tmp_path, *command, env=env))
        assert killed.code == -signal.SIGKILL
        assert len(ledger(running)[1]) == 7
        ended = asyncio.run(run_cli(tmp_path, *command, env=env))
        assert ended.code == 0, ended.stderr
        assert ledger(running) == before
        again = asyncio.run(run_cli(tmp_path, *command, "--json", env=env))
        assert again.json()["told"] == 0
        assert again.json()["passed_over"] == 17
        shown = invoke(
            tmp_path, "replay", "--service", "payments", "--to", "-", "--dry-run"
        )
        assert "17 outcomes of payments would be told" in shown.stdout
        assert ledger(running) == before


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("replay")

    class Bank:
        async def pay(self, order_id: str) -> str:
            return order_id

    @dataclass
    class Pay:
        order_id: str

        async def exec(self, workflow: Workflow, bank: Bank) -> str:
            return await workflow.step(bank.pay, self.order_id)

    async def main() -> None:
        url = f"file:{folder / 'journal'}?partitions=2"
        async with Coordinator(Bank(), commands=[Pay], journal=url) as coordinator:
            for number in range(4):
                await coordinator.execute(Pay(f"o-{number}"))

    asyncio.run(main())
    return folder


TO = ("replay", "--service", "Bank", "--to")


def test_partitions_are_merged_by_time_and_a_dry_run_shows_the_first(
    folder: Path,
) -> None:
    shown = invoke(folder, *TO, "-", "--dry-run", "--json").json()
    assert [one["value"] for one in shown["first"]] == ["o-0", "o-1", "o-2", "o-3"]
    first = shown["first"][0]
    assert first["command"] == {"order_id": "o-0"}
    assert first["idempotency_key"].endswith(f"/{first['workflow_id']}/Bank.pay/0")
    none = invoke(folder, *TO, "-", "--dry-run", "--since", "2099-01-01", "--json")
    assert (none.json()["told"], none.json()["passed_over"]) == (0, 4)


def test_a_function_that_keeps_failing_ends_it_with_the_position(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.cli.replaying.FIRST_PAUSE_S", 0.0)
    monkeypatch.setenv("PAYMENTS", "http://127.0.0.1:1")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "rebuild_failing.py").write_text(REBUILD)
    ended = invoke(folder, *TO, "rebuild_failing:fail")
    assert ended.code == 1
    assert "failed 6 times, last: Refused: not now" in ended.stderr
    assert "Bank.pay of " in ended.stderr
    assert invoke(folder, *TO, "rebuild_failing:constant").code == 2


@pytest.fixture(name="told")
def _told(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[str]]:
    """Return what runs a replay with a state file, and says what it told."""
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    ends = tmp_path / "told.txt"
    module = f"rebuild_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(
        "def tell(told):\n"
        f"    with open({str(ends)!r}, 'a') as file:\n"
        "        print(told.value, file=file)\n"
    )

    def replayed(*more: str, code: int = 0) -> list[str]:
        ends.unlink(missing_ok=True)
        state = str(tmp_path / "state.json")
        ended = invoke(folder, *TO, f"{module}:tell", "--state", state, *more)
        assert ended.code == code, ended.stderr
        return ends.read_text().splitlines() if ends.exists() else []

    return replayed


ALL = ["o-0", "o-1", "o-2", "o-3"]


def test_a_state_that_was_cut_off_while_it_was_written_is_not_gone_by(
    told: Callable[..., list[str]], tmp_path: Path
) -> None:
    """It is written beside the old one, which stays in its place until it is whole."""
    assert told() == ALL
    state = tmp_path / "state.json"
    whole = state.read_bytes()
    (tmp_path / "state.json.tmp").write_bytes(whole[:20])
    assert told() == []
    state.unlink()
    assert told() == ALL
    assert state.read_bytes() == whole


def test_a_state_that_is_cut_short_anywhere_tells_nothing_and_is_left_as_it_is(
    told: Callable[..., list[str]], tmp_path: Path
) -> None:
    told()
    state = tmp_path / "state.json"
    whole = state.read_bytes()
    for size in range(len(whole)):
        state.write_bytes(whole[:size])
        assert told(code=2) == []
        assert state.read_bytes() == whole[:size]


def test_one_that_says_what_it_can_not_is_refused(
    told: Callable[..., list[str]], tmp_path: Path
) -> None:
    told()
    state = tmp_path / "state.json"
    whole = msgspec.json.decode(state.read_bytes())
    for change in ({"told": {"0": "far"}}, {"told": {"0": [1]}}, {"journal": 7}):
        state.write_bytes(msgspec.json.encode(whole | change))
        assert told(code=2) == []


def test_what_was_told_when_it_was_cut_off_is_told_once(
    told: Callable[..., list[str]], tmp_path: Path
) -> None:
    told()
    state = tmp_path / "state.json"
    whole = msgspec.json.decode(state.read_bytes())
    assert set(whole["told"]) == {"0", "1"}
    del whole["told"]["1"]
    state.write_bytes(msgspec.json.encode(whole))
    rest = told()
    assert rest
    assert len(rest) < 4
    assert told() == []


def test_a_state_that_can_not_be_written_is_said_before_anything_is_told(
    told: Callable[..., list[str]], tmp_path: Path
) -> None:
    nowhere = str(tmp_path / "no" / "state.json")
    assert told("--state", nowhere, code=5) == []
    assert told("--state", str(tmp_path), code=2) == []


def test_a_disk_that_is_full_leaves_the_state_before_and_is_said(
    told: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as an error of the journal, which was read well."""
    monkeypatch.setattr(replaying, "SAVE_COUNT", 2)
    synced = os.fsync
    left = [4]  # of the file and of its folder, twice

    def full(descriptor: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        synced(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr("coordinator.cli.replaying.os.fsync", full)
        told(code=5)
    assert told() == ALL[2:]


def test_ctrl_c_says_how_far_it_came_and_the_next_run_goes_on(
    folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "rebuild.py").write_text(
        "import os, signal\n"
        "def tell(told):\n"
        "    if told.value == 'o-2' and not os.path.exists('stopped'):\n"
        "        open('stopped', 'w').close()\n"
        "        os.kill(os.getpid(), signal.SIGINT)\n"
    )
    arguments = (*TO, "rebuild:tell", "--journal", str(folder / "journal"))
    ended = asyncio.run(run_cli(tmp_path, *arguments, "--state", "state.json"))
    assert ended.code == 1
    assert "interrupted: 3 outcomes told; the same command goes on" in ended.stderr
    ended = asyncio.run(run_cli(tmp_path, *arguments, "--state", "state.json"))
    assert "1 outcome of Bank told" in ended.stdout


@pytest.mark.parametrize(("rate", "pause_s"), [("10/s", 0.1), ("30/m", 2.0), ("", 0)])
def test_no_call_begins_earlier_than_the_rate_allows_also_a_repeated_one(
    rate: str, pause_s: float
) -> None:
    """The third takes long, and the fifth fails once: nothing is caught up on."""
    began: list[float] = []

    async def tell(told: ReplayedOutcome) -> None:
        began.append(asyncio.get_running_loop().time())
        if len(began) == 3:
            await asyncio.sleep(7.5)
        if len(began) == 5:
            raise ConnectionError("not now")

    options = replaying.ReplayOptions(
        service="pay",
        to="",
        archive=None,
        since="",
        until="",
        dry_run=False,
        rate=rate,
        state=None,
    )
    state = replaying.State(journal="j", service="pay", to="")
    story = Story("j", 0, "pay")
    steps = tuple(Outcome(5, f"pay.s{n}", 0, b"", 1) for n in range(8))
    wanted = story.tell(8, 1, Carried(5, 2, ACCEPTED, steps))
    summary = replaying.Summary()
    pace = replaying._pause(rate)
    run(replaying._tell(wanted, tell, state, options, pace, summary))
    assert summary.told == 8
    assert len(began) == 9
    pauses = [after - before for before, after in pairwise(began)]
    assert min(pauses) >= pause_s
    expected = [pause_s] * 8
    expected[2] = max(7.5, pause_s)
    expected[4] = max(replaying.FIRST_PAUSE_S, pause_s)
    assert pauses == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--rate", "fast"), "'fast' is no rate; one looks like 100/s"),
        (("--since", "soon"), "'soon' is no time; one looks like"),
        (("--state", "{state}"), "is no state of a replay"),
        (("--state", "{other}"), "is of service other of journal x; name another"),
    ],
)
def test_what_is_asked_wrongly_is_said(
    folder: Path, tmp_path: Path, arguments: tuple[str, str], said: str
) -> None:
    (tmp_path / "state").write_text("{")
    other = {"journal": "x", "service": "other", "to": "m:f"}
    (tmp_path / "other").write_bytes(msgspec.json.encode(other))
    option, value = arguments
    value = value.format(state=tmp_path / "state", other=tmp_path / "other")
    ended = invoke(folder, *TO, "-", "--dry-run", option, value)
    assert ended.code == 2
    assert said in ended.stderr


ACCEPTED = Accepted("T", "json", b"{}", 1)


def test_what_a_copy_says_again_is_told_once_and_what_only_it_says_too() -> None:
    story = Story("j", 0, "pay")
    one, two = (Outcome(5, name, 0, b"", 1) for name in ("pay.a", "pay.b"))
    copy = Carried(5, 2, ACCEPTED, (one, two, Outcome(5, "ship.c", 0, b"", 1)))
    assert [told.step for told in story.tell(8, 1, copy)] == ["pay.a", "pay.b"]
    assert [*story.tell(9, 1, copy)] == []
    assert [*story.tell(10, 1, Finished(5, EndStatus.COMPLETED, b"", 1))] == []
    assert [*story.tell(11, 1, one)] == []
    assert story.unknown == 1


def test_what_is_about_the_partition_tells_nothing_of_a_service() -> None:
    story = Story("j", 0, "pay")
    for record in (ACCEPTED, Claimed(2, "a", 1, 20_000), Held(1), Released(1), Lost()):
        assert [*story.tell(5, 1, record)] == []
    outcome = Outcome(5, "pay.a", 0, b"", 1)
    assert [told.step for told in story.tell(6, 1, outcome)] == ["pay.a"]
