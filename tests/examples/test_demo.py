"""The demo, small, with real processes; and an audit that is lied to.

One run is made for all tests. Each lie is told in a copy of what it left behind, and
the audit has to find it in the line that is there for it.
"""

import itertools
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest
from examples.demo.audit import Audit
from examples.demo.client import (
    Completed,
    Failed,
    make_orders,
    read_answers,
)
from examples.demo.driver import DemoError, Options, kept_port, prepare
from examples.demo.evidence import Evidence, read_evidence
from examples.demo.plan import Kill, Outage, make_plan
from examples.shop.orders import PlaceOrder

from coordinator.model import Direction, EndStatus
from coordinator.records import Finished

ORDERS = 60
END_S = 300  # Seconds in which a run must have ended; not waited for.

DEMO = [sys.executable, "-m", "examples.demo"]


def demo(folder: Path, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [*DEMO, "--data", str(folder), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def output_and_folder(
    tmp_path_factory: pytest.TempPathFactory,
) -> Generator[tuple[str, Path], None, None]:
    """Run the demo once; what it printed, and where it left what it made."""
    folder = tmp_path_factory.mktemp("demo") / "data"
    options = [f"--orders={ORDERS}", "--kills=1", "--outage=0.5"]
    with demo(folder, *options, "--seed=7") as process:
        output, _ = process.communicate(timeout=END_S)
    assert process.returncode == 0, output
    yield output, folder
    shutil.rmtree(folder)


@pytest.fixture
def folder(output_and_folder: tuple[str, Path], tmp_path: Path) -> Path:
    """A copy to tell lies in; it shares the segments, which are 64 MiB each."""

    def copy(source: str, target: str) -> None:
        if source.endswith(".seg"):
            os.link(source, target)
        else:
            shutil.copy(source, target)

    copied = tmp_path / "data"
    shutil.copytree(output_and_folder[1], copied, copy_function=copy)
    return copied


def test_all_lines_pass_through_a_kill_and_an_outage(
    output_and_folder: tuple[str, Path],
) -> None:
    output, folder = output_and_folder
    assert "kill -9, number 1 of 1" in output
    assert "payments is down" in output
    assert f"PASS: {ORDERS} orders" in output
    assert "FAIL" not in output
    rows = Audit(read_evidence(folder)).rows()
    assert [row.what for row in rows if row.passed is False] == []
    found = {row.what: row.found for row in rows}
    assert found["orders sent"] == str(ORDERS)
    assert int(found["orders compensated"]) > 0
    assert found["kills that struck running orders"] == "1"


def test_an_order_that_was_undone_is_shown(
    output_and_folder: tuple[str, Path],
) -> None:
    output, _ = output_and_folder
    shown = output[output.index("$ coordinator show 0-") :]
    for text in ("inventory.reserve", "undone", "turned back", "compensated"):
        assert text in shown


# -- lies -----------------------------------------------------------------------------


def in_ledger(folder: Path, service: str, statement: str) -> None:
    with closing(sqlite3.connect(folder / f"{service}.sqlite")) as ledger:
        changed = ledger.execute(statement).rowcount
        ledger.commit()
    assert changed > 0, "the run has nothing to tell this lie about"


def charge_twice(folder: Path) -> None:
    in_ledger(
        folder,
        "payments",
        "INSERT INTO world (operation, subject, delta, at) SELECT operation, subject,"
        " delta, at FROM world WHERE operation = 'charge' LIMIT 1",
    )


def undo_twice(folder: Path) -> None:
    in_ledger(
        folder,
        "inventory",
        "INSERT INTO world (operation, subject, delta, undoes, at) SELECT 'other',"
        " subject, delta, undoes, at FROM world WHERE operation = 'release' LIMIT 1",
    )


def forget_a_refund(folder: Path) -> None:
    in_ledger(
        folder,
        "payments",
        "DELETE FROM world WHERE id IN"
        " (SELECT id FROM world WHERE operation = 'refund' LIMIT 1)",
    )


def charge_an_order_that_was_not_sent(folder: Path) -> None:
    in_ledger(
        folder,
        "payments",
        "INSERT INTO world (operation, subject, delta, at) VALUES ('charge','x',5,0)",
    )


def lose_a_parcel(folder: Path) -> None:
    in_ledger(
        folder,
        "shipping",
        "DELETE FROM world WHERE id IN (SELECT min(id) FROM world)",
    )


def undo_nothing(folder: Path) -> None:
    in_ledger(
        folder,
        "shipping",
        "UPDATE effects SET status = 'nothing' WHERE key ="
        " (SELECT min(key) FROM effects WHERE status = 'done')",
    )


def forget_a_key(folder: Path) -> None:
    in_ledger(
        folder,
        "inventory",
        "DELETE FROM effects WHERE key = (SELECT min(key) FROM effects)",
    )


def lose_an_answer(folder: Path) -> None:
    answers = folder / "answers.jsonl"
    answers.write_bytes(b"".join(answers.read_bytes().splitlines(keepends=True)[1:]))


def send_one_more(folder: Path) -> None:
    options = Options(orders=ORDERS + 1, seed=7, kills=1)
    (folder / "demo.json").write_bytes(msgspec.json.encode(options))


def change_the_orders(folder: Path) -> None:
    options = Options(orders=ORDERS, seed=8, kills=1)
    (folder / "demo.json").write_bytes(msgspec.json.encode(options))


def expect_another_kill(folder: Path) -> None:
    options = Options(orders=ORDERS, seed=7, kills=2)
    (folder / "demo.json").write_bytes(msgspec.json.encode(options))


def answer_otherwise(folder: Path) -> None:
    path = folder / "answers.jsonl"
    answers = list(read_answers(path))
    completed = next(a for a in answers if isinstance(a, Completed))
    failed = next(a for a in answers if isinstance(a, Failed))
    answers[answers.index(completed)] = Failed(completed.order_id, 1, failed.failure)
    path.write_bytes(b"\n".join(msgspec.json.encode(a) for a in answers))


def flip_a_bit(folder: Path) -> None:
    segment = min((folder / "journal" / "p0").glob("*.seg"))
    data = bytearray(segment.read_bytes())
    place = data.index(b"PlaceOrder")
    data[place] ^= 1
    segment.unlink()  # the other tests have it, too
    segment.write_bytes(data)


LIES: list[tuple[Callable[[Path], None], str]] = [
    (charge_twice, "effects applied twice"),
    (charge_twice, "effects without a record, or the reverse"),
    (undo_twice, "effects applied twice"),
    (forget_a_refund, "refused orders with something left"),
    (charge_an_order_that_was_not_sent, "refused orders with something left"),
    (lose_a_parcel, "completed orders with an effect missing"),
    (undo_nothing, "undos out of order, or of nothing done"),
    (forget_a_key, "effects without a record, or the reverse"),
    (lose_an_answer, "orders lost"),
    (send_one_more, "orders lost"),
    (send_one_more, "orders that ended"),
    (change_the_orders, "orders taken twice, or changed"),
    (change_the_orders, "completed orders with an effect missing"),
    (expect_another_kill, "kills that struck running orders"),
    (expect_another_kill, "restarts of the coordinator"),
    (answer_otherwise, "answers that contradict the journal"),
]


@pytest.mark.parametrize(("lie", "line"), LIES)
def test_the_audit_finds_a_lie_in_what_is_stored(
    folder: Path, lie: Callable[[Path], None], line: str
) -> None:
    lie(folder)
    assert any(line in found for found in failing(read_evidence(folder)))


def failing(evidence: Evidence) -> list[str]:
    return [row.what for row in Audit(evidence).rows() if row.passed is False]


def drop_a_workflow(evidence: Evidence) -> None:
    evidence.journal.stories.pop()


def drop_an_end(evidence: Evidence) -> None:
    evidence.journal.stories[0].ends.clear()


def end_twice(evidence: Evidence) -> None:
    ends = evidence.journal.stories[0].ends
    ends.append(Finished(0, EndStatus.COMPLETED, b"", 0))


def take_in_twice(evidence: Evidence) -> None:
    evidence.journal.stories.append(evidence.journal.stories[0])


def undo_in_order(evidence: Evidence) -> None:
    undone = [
        story
        for story in evidence.journal.stories
        if len(story.steps(Direction.UNDO)) == 2
    ]
    outcomes = undone[0].outcomes
    first, second = (i for i, o in enumerate(outcomes) if o.direction is Direction.UNDO)
    outcomes[first], outcomes[second] = outcomes[second], outcomes[first]


def answer_twice(evidence: Evidence) -> None:
    evidence.answers.append(evidence.answers[0])


def answer_too_early(evidence: Evidence) -> None:
    evidence.journal.stories[0].ends.clear()


@pytest.mark.parametrize(
    ("lie", "line"),
    [
        (drop_a_workflow, "orders lost"),
        (drop_a_workflow, "effects without a record, or the reverse"),
        (drop_an_end, "orders lost"),
        (drop_an_end, "orders that ended"),
        (end_twice, "orders taken twice, or changed"),
        (take_in_twice, "orders taken twice, or changed"),
        (undo_in_order, "undos out of order, or of nothing done"),
        (answer_twice, "answers that contradict the journal"),
        (answer_too_early, "answers that contradict the journal"),
    ],
)
def test_the_audit_finds_a_lie_in_what_it_read(
    folder: Path, lie: Callable[[Evidence], None], line: str
) -> None:
    evidence = read_evidence(folder)
    lie(evidence)
    assert line in failing(evidence)


def test_a_damaged_journal_is_reported(folder: Path) -> None:
    flip_a_bit(folder)
    audited = subprocess.run(
        [sys.executable, "-m", "examples.demo.audit", str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=END_S,
    )
    assert audited.returncode == 1
    lines = [line for line in audited.stdout.splitlines() if "whole journal" in line]
    assert lines[0].rstrip().endswith("FAIL")
    assert "damage" in audited.stdout
    assert "Traceback" not in audited.stderr


# -- the run --------------------------------------------------------------------------


def test_nothing_outlives_a_driver_that_was_killed(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with demo(folder, "--orders=100000", "--kills=0", "--outage=0") as process:
        wait_until((folder / "answers.jsonl").exists)
        children = processes_of(folder)
        assert len(children - {process.pid}) == 5
        process.send_signal(signal.SIGKILL)
        process.wait(END_S)
        wait_until(lambda: not processes_of(folder))
        process.communicate()


def test_a_run_that_can_not_begin_fails(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years")
    with demo(tmp_path) as process:
        output, _ = process.communicate(timeout=END_S)
    assert process.returncode == 2
    assert "holds something else" in output


def test_a_process_that_ends_by_itself_ends_the_run(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with demo(folder, "--orders=100000", "--kills=0", "--outage=0") as process:
        wait_until((folder / "answers.jsonl").exists)
        [shipping] = processes_of(folder / "shipping.sqlite")
        os.kill(shipping, signal.SIGKILL)
        output, _ = process.communicate(timeout=END_S)
    assert process.returncode == 1
    assert "FAIL: shipping ended by itself" in output
    assert not processes_of(folder)


def test_ctrl_c_ends_all_processes(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with demo(folder, "--orders=100000", "--kills=0", "--outage=0") as process:
        wait_until((folder / "answers.jsonl").exists)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=END_S)
        assert process.returncode == 130
        assert not processes_of(folder)


def processes_of(folder: Path) -> set[int]:
    """Return the processes whose command line or environment names *folder*."""
    found: set[int] = set()
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            try:
                command = Path(entry.path, "cmdline").read_bytes()
            except OSError:
                continue
            if os.fsencode(folder) in command:
                found.add(int(entry.name))
    return found


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + END_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_kept_port_is_nobodys_but_the_servers_which_may_come_again() -> None:
    """Another process that took it between two lives would end the demo."""
    with kept_port() as port, socket.socket() as stranger:
        with pytest.raises(OSError, match="in use"):
            stranger.bind(("127.0.0.1", port))
        for _ in range(2):
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port))
            with socket.create_server(("127.0.0.1", port)):
                socket.create_connection(("127.0.0.1", port)).close()


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(DemoError, match="holds something else"):
        prepare(tmp_path, Options())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_the_folder_of_an_earlier_run_is_made_afresh(tmp_path: Path) -> None:
    prepare(tmp_path / "data", Options())
    (tmp_path / "data" / "answers.jsonl").write_text("old")
    prepare(tmp_path / "data", Options(orders=5))
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["demo.json"]


@pytest.mark.parametrize("seed", range(50))
def test_a_plan_has_all_kills_in_order_and_the_outage_between(seed: int) -> None:
    plan = make_plan(2000, 4, 5, seed)
    assert [type(p) for p in plan] == [Kill, Kill, Outage, Kill, Kill]
    assert [p.number for p in plan if isinstance(p, Kill)] == [1, 2, 3, 4]
    places = [0, *(p.after for p in plan), 2000]
    gaps = [later - place for place, later in itertools.pairwise(places)]
    assert min(gaps) > 60
    assert make_plan(2000, 4, 5, seed) == plan


def test_a_plan_may_do_without_either() -> None:
    assert make_plan(10, 0, 0, 1) == []
    assert [type(p) for p in make_plan(10, 0, 1, 1)] == [Outage]
    assert [type(p) for p in make_plan(10, 1, 0, 1)] == [Kill]


def test_a_seed_makes_the_same_orders_again() -> None:
    orders = list(make_orders(20, 3))
    assert orders == list(make_orders(20, 3)) != list(make_orders(20, 4))
    assert len({order.key() for order in orders}) == 20
    assert all(isinstance(order, PlaceOrder) for order in orders)
