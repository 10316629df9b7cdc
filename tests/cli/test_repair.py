"""``coordinator journal repair``, on a journal of a coordinator that was damaged."""

import asyncio
import errno
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cli.runner import invoke
from tests.integration.support import flip
from tests.processes import TIMEOUT_S

from coordinator import Coordinator, Options, Workflow, current_step
from coordinator.journals.segments.posix import PosixFolder
from coordinator.model import Retry


class Bank:
    """Charges each key once, as it is told; closed, it answers nobody."""

    def __init__(self) -> None:
        self.open = True
        self.charged: dict[str, str] = {}
        self.refused = asyncio.Event()

    async def charge(self, order: str) -> str:
        return self.charged.setdefault(current_step().idempotency_key, f"for {order}")

    async def transfer(self, order: str) -> str:
        if not self.open:
            self.refused.set()
            raise ConnectionError("closed")
        return f"sent {order}"


@dataclass
class Pay:
    order: str

    def key(self) -> str:
        return self.order

    async def exec(self, workflow: Workflow, bank: Bank) -> str:
        charged = await workflow.step(bank.charge, self.order)
        sent = await workflow.step(bank.transfer, self.order)
        return f"{charged}, {sent}"


def coordinator_of(folder: Path, bank: Bank) -> Coordinator[Bank]:
    return Coordinator(
        bank,
        commands=[Pay],
        journal=f"file:{folder / 'journal'}",
        options=Options(retry=Retry(first_s=3600.0, longest_s=3600.0)),
    )


async def leave_unfinished(folder: Path, bank: Bank, *orders: str) -> None:
    bank.open = False
    async with coordinator_of(folder, bank) as coordinator:
        for order in orders:
            await coordinator.submit(Pay(order))
            async with asyncio.timeout(TIMEOUT_S):
                await bank.refused.wait()
            bank.refused.clear()
    bank.open = True


@pytest.fixture(name="bank")
def _bank() -> Bank:
    return Bank()


@pytest.fixture(name="folder")
def _folder(tmp_path: Path, bank: Bank) -> Path:
    """Return a folder with two unfinished workflows."""
    asyncio.run(leave_unfinished(tmp_path, bank, "o-1", "o-2"))
    return tmp_path


def damage(folder: Path, text: bytes) -> Path:
    """Flip a bit of the first place where *text* is stored; return the segment."""
    (segment,) = (folder / "journal/p0").glob("*.seg")
    flip(segment, segment.read_bytes().index(text))
    return segment


def contents(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p): p.read_bytes() for p in files if p.name != "LOCK"}


def test_it_says_what_is_lost_and_changes_nothing_until_it_is_told(
    folder: Path,
) -> None:
    damage(folder, b"for o-1")
    before = contents(folder)
    said = invoke(folder, "journal", "repair")
    assert said.code == 1
    assert "nothing was changed; --yes repairs" in said.stderr
    assert contents(folder) == before
    assert "is damaged at byte" in said.stdout
    assert "the outcome of Bank.charge at position 2 is lost" in said.stdout
    assert "0-1  Pay  o-1" in said.stdout
    assert "1 unfinished workflow whole" in said.stdout
    planned = invoke(folder, "journal", "repair", "--json")
    assert planned.code == 1
    assert planned.json()["done"] is False
    assert contents(folder) == before


def test_what_is_whole_goes_on_and_the_other_one_waits_for_a_person(
    folder: Path, bank: Bank
) -> None:
    segment = damage(folder, b"for o-1")
    damaged = segment.read_bytes()
    repaired = invoke(folder, "journal", "repair", "--yes", "--json")
    assert repaired.code == 0, repaired.stderr
    (partition,) = repaired.json()["partitions"]
    assert [one["key"] for one in partition["stuck"]] == ["o-1"]
    assert (Path(partition["kept"]) / segment.name).read_bytes() == damaged
    assert invoke(folder, "journal", "verify").code == 0
    shown = invoke(folder, "show", "0-1", "--json").json()
    assert shown["timeline"]["status"] == "stuck"
    assert "the journal was repaired" in shown["timeline"]["reason"]
    keys = set(bank.charged)

    async def go_on() -> list[str]:
        async with coordinator_of(folder, bank) as coordinator:
            await coordinator.retry("0-1", by="ann")
            return [await coordinator.execute(Pay(order)) for order in ("o-1", "o-2")]

    assert asyncio.run(go_on()) == ["for o-1, sent o-1", "for o-2, sent o-2"]
    assert set(bank.charged) == keys  # asked again, under the same key
    assert invoke(folder, "journal", "repair").stdout == (
        "nothing is damaged: nothing to repair\n"
    )


def test_a_command_whose_beginning_is_lost_is_named(folder: Path) -> None:
    damage(folder, b'"o-2"' if _is_json(folder) else b"o-2")
    repaired = invoke(folder, "journal", "repair", "--yes")
    assert repaired.code == 0
    assert "can't go on, for the beginning is lost" in repaired.stdout
    assert "Bank.charge: done" in repaired.stdout
    listed = invoke(folder, "list", "--json").json()["workflows"]
    assert [one["key"] for one in listed] == ["o-1"]


def _is_json(folder: Path) -> bool:
    (segment,) = (folder / "journal/p0").glob("*.seg")
    return b'"o-2"' in segment.read_bytes()


def test_a_sound_journal_is_left_alone(folder: Path) -> None:
    before = contents(folder)
    assert invoke(folder, "journal", "repair", "--yes").code == 0
    assert contents(folder) == before


def test_a_journal_in_use_is_not_repaired(folder: Path) -> None:
    damage(folder, b"for o-1")
    before = contents(folder)
    lock = PosixFolder(str(folder / "journal/p0")).lock("LOCK", "pid 1 somewhere")
    ended = invoke(folder, "journal", "repair", "--yes")
    lock.release()
    assert ended.code == 5
    assert "in use by pid 1 somewhere" in ended.stderr
    assert contents(folder) == before


@pytest.mark.parametrize("left", [b"", b"{}", b'{"format":1,"id":"'])
def test_a_lost_description_is_made_anew_from_the_segments(
    folder: Path, left: bytes
) -> None:
    path = folder / "journal/journal.json"
    whole = path.read_bytes()
    path.write_bytes(left)
    assert invoke(folder, "list").code == 6
    repaired = invoke(folder, "journal", "repair", "--yes")
    assert repaired.code == 0, repaired.stderr
    assert path.read_bytes() == whole
    (kept,) = path.parent.glob("journal.json.damaged-*")
    assert kept.read_bytes() == left
    path.unlink()
    assert invoke(folder, "journal", "repair", "--yes").code == 0
    assert path.read_bytes() == whole


@pytest.mark.parametrize("answer", ["\x04", "n\n", "perhaps\n\x04"])
@pytest.mark.parametrize("command", ["repair", "forget-checkpoint"])
def test_whatever_is_answered_but_yes_changes_nothing(
    folder: Path, command: str, answer: str
) -> None:
    flip(folder / "journal/p0/checkpoint", 40)
    before = contents(folder)
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "r+b", buffering=0) as person, os.fdopen(theirs) as terminal:
        person.write(answer.encode())
        ended = subprocess.run(
            [sys.executable, "-m", "coordinator", "journal", command, "journal"],
            cwd=folder,
            stdin=terminal,
            capture_output=True,
            text=True,
            check=False,
        )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1].endswith("error: nothing was changed")
    assert contents(folder) == before


def test_a_folder_that_can_not_be_written_to_is_said_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(folder, b"for o-1")
    before = contents(folder)

    def refused(self: PosixFolder, name: str, owner: str) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), name)

    monkeypatch.setattr(PosixFolder, "lock", refused)
    ended = invoke(folder, "journal", "repair", "--yes")
    assert ended.code == 5
    assert "can't repair" in ended.stderr
    assert "Read-only file system: 'LOCK'; nothing is lost by that" in ended.stderr
    assert contents(folder) == before


def test_ctrl_c_in_the_middle_loses_nothing_and_the_next_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(folder, b"for o-1")

    def interrupted(self: PosixFolder, name: str, target: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(PosixFolder, "move", interrupted)
        ended = invoke(folder, "journal", "repair", "--yes")
    assert ended.code == 1
    assert "interrupted; nothing is lost by that, and the same command" in ended.stderr
    assert "a repair was cut off" in invoke(folder, "journal", "repair").stdout
    assert len(invoke(folder, "list", "--json").json()["workflows"]) == 2


def test_what_is_damaged_is_not_replayed_as_if_it_were_whole(folder: Path) -> None:
    """In the segment that is being written, too: a sound batch lies behind it."""
    damage(folder, b"for o-1")
    ended = invoke(folder, "replay", "--service", "Bank", "--to", "-", "--dry-run")
    assert ended.code == 6
    assert "a valid batch lies behind it" in ended.stderr


def test_what_is_no_journal_is_not_made_one(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    ended = invoke(tmp_path, "journal", "repair", "--yes")
    assert ended.code == 5
    assert "is not a journal" in ended.stderr
    assert list((tmp_path / "journal").iterdir()) == []


def test_a_partition_that_is_gone_begins_anew_where_no_number_was_given_out(
    folder: Path, bank: Bank
) -> None:
    for path in (folder / "journal/p0").iterdir():
        path.unlink()
    repaired = invoke(folder, "journal", "repair", "--yes")
    assert repaired.code == 0, repaired.stderr
    assert "positions 0 to" in repaired.stdout

    async def submit() -> str:
        async with coordinator_of(folder, bank) as coordinator:
            return (await coordinator.submit(Pay("o-3"))).id

    id_ = asyncio.run(submit())
    assert int(id_.removeprefix("0-")) > 1 << 40


def test_a_damaged_checkpoint_costs_keys_only(folder: Path) -> None:
    flip(folder / "journal/p0/checkpoint", 40)
    repaired = invoke(folder, "journal", "repair", "--yes")
    assert repaired.code == 0, repaired.stderr
    assert "keys and results of commands that ended" in repaired.stdout
    assert "no record is lost" in repaired.stdout
    assert len(invoke(folder, "list", "--json").json()["workflows"]) == 2


def test_a_repair_that_was_cut_off_is_refused_by_others_and_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(folder, b"for o-1")
    move = PosixFolder.move

    def killed(self: PosixFolder, name: str, target: object) -> None:
        raise OSError(5, f"killed at {name}")

    with monkeypatch.context() as patch:
        patch.setattr(PosixFolder, "move", killed)
        assert invoke(folder, "journal", "repair", "--yes").code == 5
    assert PosixFolder.move is move
    for arguments in (("list",), ("journal", "forget-checkpoint", "--yes")):
        ended = invoke(folder, *arguments)
        assert ended.code == 6
        assert "coordinator journal repair" in ended.stderr
    assert "a repair was cut off" in invoke(folder, "journal", "repair").stdout
    assert invoke(folder, "journal", "verify").code == 0
    assert len(invoke(folder, "list", "--json").json()["workflows"]) == 2


def test_without_space_nothing_is_changed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage(folder, b"for o-1")
    before = contents(folder)

    def free(_: PosixFolder) -> int:
        return 1000

    monkeypatch.setattr(PosixFolder, "free", free)
    ended = invoke(folder, "journal", "repair", "--yes")
    assert ended.code == 5
    assert "1000 B are free; nothing was changed" in ended.stderr
    assert contents(folder) == before


def test_what_refuses_points_to_it(folder: Path) -> None:
    damage(folder, b"for o-1")
    assert "coordinator journal repair" in invoke(folder, "list").stderr
    assert "coordinator journal repair" in invoke(folder, "journal", "verify").stdout
    assert "coordinator journal repair" in invoke(folder, "doctor").stdout
