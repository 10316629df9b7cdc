"""``coordinator check --against``: told before the deploy, beside a running server."""

import asyncio
import gc
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.cli.modules import SHOP, WITHOUT_ORDERS
from tests.cli.runner import ask, invoke
from tests.processes import Ended, eventually, run_cli, serving
from typer.testing import CliRunner

from coordinator import Coordinator, Workflow
from coordinator.cli import previewing
from coordinator.cli.app import app
from coordinator.cli.offline import opened
from coordinator.journals.memory import MemoryJournal

ORDER = '{"order_id": "o-1", "sku": "sku", "cents": 5}'
RENAMED = SHOP.replace(
    "await workflow.step(payments.charge, self.order_id, self.cents).undo(",
    'await workflow.step(payments.charge, 1, 2).named("payments.charge_card").undo(',
)
assert RENAMED != SHOP


def lines(ended: Ended) -> list[dict[str, Any]]:
    return [msgspec.json.decode(line) for line in ended.stdout.splitlines()]


def test_beside_a_server_it_says_what_each_new_code_would_do(tmp_path: Path) -> None:
    for name, text in [
        ("same", SHOP),
        ("renamed", RENAMED),
        ("without", WITHOUT_ORDERS),
    ]:
        (tmp_path / f"{name}.py").write_text(text)

    async def main() -> None:
        (tmp_path / "shipping.mode").write_text("hang")
        async with serving(tmp_path, SHOP):
            submitted = await ask(tmp_path, "submit", "PlaceOrder", ORDER, "--json")
            id_ = submitted.json()["id"]
            await eventually((tmp_path / "shipping.hangs").exists)
            check = ("check", "--journal", "journal", "--against")
            same = await run_cli(tmp_path, *check, "same:coordinator")
            assert (same.code, same.stderr) == (0, "")
            assert same.stdout == (
                "1 unfinished workflow in journal, under same:coordinator\n"
                "       1  go on\n"
            )
            renamed = await run_cli(tmp_path, *check, "renamed:coordinator", "--json")
            assert renamed.code == 1
            finding, summary = lines(renamed)
            assert finding["event"] == "finding"
            assert finding["id"] == id_
            assert finding["type"] == "PlaceOrder"
            assert finding["key"] == "o-1"
            assert finding["prospect"] == "differs"
            assert finding["asked"] == [
                {"step": "payments.charge_card", "occurrence": 0, "direction": "do"}
            ]
            assert finding["recorded"] == [
                {"step": "payments.charge", "occurrence": 0, "outcome": "done"}
            ]
            assert summary["event"] == "summary"
            assert summary["open"] == 1
            assert summary["prospects"]["differs"] == 1
            without = await run_cli(tmp_path, *check, "without:coordinator")
            assert without.code == 1
            assert "PlaceOrder: 1 would be stuck: the command is gone" in without.stdout
            listed = await ask(tmp_path, "list", "--json")
            assert listed.json()["total"] == 1  # as before

    asyncio.run(main())


# -- without a server ------------------------------------------------------------------


class Bank:
    def __init__(self) -> None:
        self.called = 0
        self.all_kept = asyncio.Event()

    async def open(self, number: int) -> int:
        return number

    async def pay(self, number: int) -> int:
        self.called += 1
        if self.called == COUNT:
            self.all_kept.set()
        await asyncio.get_running_loop().create_future()
        return number


COUNT = 3000


class Pay(msgspec.Struct):
    number: int

    async def exec(self, workflow: Workflow, bank: Bank) -> int:
        await workflow.step(bank.open, self.number)
        return await workflow.step(bank.pay, self.number)


class NewPay(msgspec.Struct):
    number: int

    async def exec(self, workflow: Workflow, bank: Bank) -> int:
        if self.number % 2:
            raise ValueError(f"number {self.number % 20} is odd")
        await workflow.step(bank.open, self.number)
        return await workflow.step(bank.pay, self.number)


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal with many open sagas in two partitions."""
    folder = tmp_path_factory.mktemp("many")

    async def main() -> None:
        bank = Bank()
        url = f"file:{folder / 'journal'}?partitions=2"
        async with Coordinator(bank, commands=[Pay], journal=url) as coordinator:
            for number in range(COUNT):
                await coordinator.submit(Pay(number))
            await bank.all_kept.wait()

    asyncio.run(main())
    return folder


def new_bank() -> Coordinator[Bank]:
    NewPay.__name__ = "Pay"
    return Coordinator(Bank(), commands=[NewPay])


def same_bank() -> Coordinator[Bank]:
    return Coordinator(Bank(), commands=[Pay])


def with_a_journal() -> Coordinator[Bank]:
    return Coordinator(Bank(), commands=[Pay], journal=MemoryJournal())


HERE = __name__


def test_thousands_are_judged_and_equal_findings_told_together(folder: Path) -> None:
    ended = invoke(folder, "check", "--against", f"{HERE}:new_bank")
    assert ended.code == 1
    assert f"{COUNT} unfinished workflows in {folder / 'journal'}" in ended.stdout
    assert "    1500  go on\n" in ended.stdout
    assert "    1500  would be stuck\n" in ended.stdout
    assert ended.stdout.count("Pay: 150 would be stuck") == 10
    assert ended.stdout.count(" and 145 more") == 10
    assert "exec raised ValueError: number 7 is odd" in ended.stdout
    assert "  Pay: Bank.open, in 1500 workflows\n" in ended.stdout


def test_what_is_kept_of_the_findings_is_bounded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(previewing, "GROUPS_MAX", 3)
    ended = invoke(folder, "check", "--against", f"{HERE}:new_bank")
    assert ended.stdout.count("Pay: 150 would be stuck") == 3
    assert "and 1050 more; --json has all" in ended.stdout


def test_a_judged_workflow_leaves_nothing_behind(folder: Path) -> None:
    preview = same_bank().preview()
    with opened(str(folder / "journal")) as journal:
        findings = previewing._findings(journal, preview)
        sizes: list[int] = []
        tracemalloc.start()
        for number, _ in enumerate(findings):
            if number in {100, COUNT // 2 - 1}:
                gc.collect()  # its time depends on what other tests hold
                sizes.append(tracemalloc.get_traced_memory()[0])
        tracemalloc.stop()
    # Of the same partition: its states were there before, and have gone.
    assert sizes[1] < sizes[0] + 200_000


def test_json_has_a_line_for_each_and_the_summary_at_the_end(folder: Path) -> None:
    ended = invoke(folder, "check", "--against", f"{HERE}:same_bank", "--json")
    assert ended.code == 0
    *findings, summary = lines(ended)
    assert len({finding["id"] for finding in findings}) == COUNT
    assert {finding["said"] for finding in findings} == {"goes on at Bank.pay"}
    assert summary["open"] == COUNT
    assert summary["without_undo"] == [["Pay", "Bank.open", COUNT]]


def test_the_journal_is_the_coordinators_own_unless_one_is_named(
    folder: Path, tmp_path: Path
) -> None:
    journal = folder / "journal"
    (tmp_path / "own.py").write_text(
        SHOP.replace("        Shop(),", f'        Shop(), journal="file:{journal}",')
    )
    (tmp_path / "none.py").write_text(SHOP)
    check = ("check", "--json", "--against")

    async def main() -> None:
        own = await run_cli(tmp_path, *check, "own:coordinator")
        assert lines(own)[-1]["prospects"]["command_gone"] == COUNT
        none = await run_cli(tmp_path, *check, "none:coordinator")
        assert none.code == 2
        assert "which journal? say --journal FOLDER" in none.stderr

    asyncio.run(main())
    assert invoke(tmp_path, *check, f"{HERE}:same_bank").code == 5
    assert invoke(folder, *check, f"{HERE}:with_a_journal").code == 0
    given = CliRunner(env={}).invoke(app, (*check, f"{HERE}:with_a_journal"))
    assert given.exit_code == 2
    assert "has a MemoryJournal and no URL; say --journal" in given.stderr


def test_what_is_asked_wrongly_is_said(folder: Path) -> None:
    assert invoke(folder, "check", "--against", "nowhere:app").code == 2
    assert invoke(folder, "check").code == 2
