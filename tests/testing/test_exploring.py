"""`explore`: faults drawn from a seed, the bugs they find, and the fewest of them."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from tests.testing.sagas import (
    Careless,
    ChangesItsMind,
    Mailing,
    MailsOnRefusal,
    Numbered,
    Once,
    PlaceOrder,
    Remembers,
    Shop,
    Stubborn,
    TwiceRefunding,
    shop_with,
)

from coordinator.testing import BrokenPromiseError, RehearsalError, Run, explore
from coordinator.testing.faults import KINDS, Fault, Ground, draw
from coordinator.testing.scene import Moment

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_seed_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COORDINATOR_SEED", raising=False)
    monkeypatch.delenv("COORDINATOR_SEEDS", raising=False)


def broken(saga: object, receiver: object = Shop, **more: object) -> BrokenPromiseError:
    with pytest.raises(BrokenPromiseError) as caught:
        explore(saga, receiver, **more)  # type: ignore[arg-type]  # any saga
    return caught.value


def takes(error: BaseException) -> list[str]:
    """Return the faults that a message names."""
    lines = str(error).partition("What it takes")[2].partition("\n\n")[0].splitlines()
    return [line.strip() for line in lines[1:]]


def test_a_saga_without_a_bug_stands_whatever_is_drawn() -> None:
    def balanced(shop: Shop, run: Run) -> None:
        paid = run.status == "completed"
        assert shop.bank.entries == ([1999] if paid else shop.bank.entries)
        assert sum(shop.bank.entries) == (1999 if paid else 0)
        assert shop.stock.held == (["sku"] if paid else [])

    report = explore(PlaceOrder(), Shop, seeds=200, check=balanced)
    assert report.ends.total() == report.seeds == 200
    assert set(report.ends) == {"completed", "compensated", "cancelled"}
    assert set(report.faults) == set(KINDS)
    assert "200 seeds: " in str(report)
    assert report.moments > 10


def test_a_double_charge_takes_one_lost_reply_or_one_crash() -> None:
    error = broken(PlaceOrder(), shop_with(Once))
    assert error.kind == "world"
    assert len(takes(error)) == 1
    assert "bank.charge changed that, each of the 2 times" in str(error)


def test_an_undo_that_is_done_twice_takes_what_leads_to_it_and_one_more() -> None:
    error = broken(PlaceOrder(), shop_with(TwiceRefunding))
    assert error.kind == "world"
    first, second = takes(error)
    assert first.startswith("1. carrier.book was refused")
    assert "bank.charge/undo" in second


def test_an_undo_that_needs_what_is_not_recorded_is_told_with_both_runs() -> None:
    error = broken(Remembers(strict=False))
    assert error.kind == "world"
    told = " ".join(str(error).split())
    assert "stock.reserve/undo changed that in the run in which nothing went" in told
    assert "Have a step return all that its undo" in told


def test_an_undo_that_can_not_be_repeated_ends_stuck() -> None:
    error = broken(PlaceOrder(), shop_with(Stubborn))
    assert error.kind == "stuck"
    assert "undo of bank.charge failed 10 times" in str(error)


def test_a_side_effect_outside_of_a_step_is_found() -> None:
    error = broken(Mailing())
    assert error.kind == "world"
    assert "exec itself changed that" in str(error)
    assert len(takes(error)) == 1


def test_a_name_that_is_another_one_in_each_run_is_found() -> None:
    error = broken(Numbered())
    assert error.kind in {"named", "unknown", "stuck"}
    assert "bank.charge[try-0]" in str(error)


def test_a_way_that_the_clock_decides_is_found() -> None:
    error = broken(ChangesItsMind())
    assert error.kind in {"unknown", "stuck"}
    assert "carrier.book" in str(error)


def test_a_refusal_that_is_swallowed_is_for_the_check_and_shown_in_the_report() -> None:
    def paid_if_shipped(shop: Shop, run: Run) -> bool:
        return bool(sum(shop.bank.entries)) or not shop.carrier.parcels

    report = explore(Careless(), Shop, seeds=60)
    assert report.refused["bank.charge"] > 0
    assert "completed although refused: " in str(report)
    error = broken(Careless(), check=paid_if_shipped)
    assert error.kind == "check"
    assert takes(error) == ["1. bank.charge was refused"]


def test_what_is_done_behind_a_refusal_is_hit_too() -> None:
    error = broken(MailsOnRefusal())
    assert error.kind == "world"
    assert "exec itself changed that" in str(error)
    assert takes(error)[0] == "1. bank.charge was refused"


def test_a_failure_says_how_to_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    error = broken(PlaceOrder(), shop_with(Once))
    assert error.seed is not None
    assert str(error).endswith(
        "Again:\n    pytest tests/testing/test_exploring.py::"
        "test_a_failure_says_how_to_repeat_it "
        f"--coordinator-seed={error.seed}"
    )
    monkeypatch.delenv("PYTEST_CURRENT_TEST")
    again = broken(PlaceOrder(), shop_with(Once), seed=error.seed)
    assert again.seed == error.seed
    assert takes(again) == takes(error)
    assert str(again).endswith(f"Again:\n    explore(..., seed={error.seed})")


def test_the_environment_goes_before_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COORDINATOR_SEEDS", "3")
    assert explore(PlaceOrder(), Shop).seeds == 3
    monkeypatch.setenv("COORDINATOR_SEED", "7")
    assert explore(PlaceOrder(), Shop).seeds == 1
    monkeypatch.setenv("COORDINATOR_SEED", "seven")
    with pytest.raises(RehearsalError, match="must be a number, got 'seven'"):
        explore(PlaceOrder(), Shop)


def test_the_same_seed_draws_the_same_in_every_process() -> None:
    code = (
        "from tests.testing.sagas import *\n"
        "from coordinator.testing import BrokenPromiseError, explore\n"
        "from tests.testing.sagas import shop_with\n"
        "print(explore(PlaceOrder(), Shop, seeds=30))\n"
        "try:\n"
        "    explore(PlaceOrder(), shop_with(TwiceRefunding))\n"
        "except BrokenPromiseError as error:\n"
        "    print(error)\n"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=ROOT,
            env={"PYTHONHASHSEED": hash_seed, "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hash_seed in ("0", "1", "4711")
    }
    assert len(told) == 1
    assert "breaks a promise: seed" in told.pop()


def test_a_seed_draws_its_kinds_first_and_then_few_faults() -> None:
    ground = Ground(
        [],
        ["bank.charge", "carrier.book"],
        ["bank.charge/undo"],
        ["before bank.charge was called"],
    )
    cancelled = Ground(
        [Fault("cancel", Moment("before carrier.book was called", 0))],
        ground.steps,
        ground.undos,
        ground.moments,
    )
    drawn = [draw(seed, [ground, cancelled]) for seed in range(500)]
    assert all(drawn)
    assert max(map(len, drawn)) <= 7
    assert sum(len(faults) == 1 for faults in drawn) > 50
    counts = Counter(fault.kind for faults in drawn for fault in faults)
    assert set(counts) == set(KINDS)
    assert all(
        not fault.at.what.endswith("/undo")
        for faults in drawn
        for fault in faults
        if fault.kind == "refuse"
    )
    assert all(sum(fault.kind == "cancel" for fault in faults) <= 1 for faults in drawn)


def test_faults_are_told_in_words() -> None:
    told = [
        Fault("refuse", Moment("bank.charge", 0)),
        Fault("fail", Moment("bank.charge", 1)),
        Fault("lose_reply", Moment("bank.charge/undo", 2)),
        Fault("delay", Moment("bank.charge", 3)),
        Fault("crash", Moment("before the end was written", 0)),
        Fault("cancel", Moment("after the command was written", 1)),
    ]
    assert [str(fault) for fault in told] == [
        "bank.charge was refused",
        "bank.charge could not be reached, when it was called for the second time",
        (
            "bank.charge/undo did its work, and its reply was lost, when it was called "
            "for the third time"
        ),
        (
            "bank.charge did its work, and answered when nobody waited any more, when "
            "it was called for the 4th time"
        ),
        "the process was killed before the end was written",
        "an operator cancelled it, after the command was written (time 2)",
    ]
