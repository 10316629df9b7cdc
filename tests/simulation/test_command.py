"""`python -m tests.simulation` runs, replays, and says what failed."""

import re

import pytest
from tests.simulation.__main__ import main
from tests.simulation.test_planted_bugs import without_waiting

from coordinator.steps import Steps


def test_it_runs_seeds_in_several_processes(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "6", "--from", "10", "--jobs", "2"]) == 0
    assert re.search(r"^6 of 6 seeds, .*, 0 failures$", capfd.readouterr().out)


def test_it_replays_a_seed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seed", "7"]) == 0
    first = capsys.readouterr()
    assert "life.begin" in first.out
    assert main(["--seed", "7", "--json"]) == 0
    second = capsys.readouterr()
    assert first.err == second.err, "the same trace"
    assert second.out.startswith('[0,0,"life.begin",{}]')


def test_it_says_what_failed_and_how_to_repeat_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Steps, "__init__", without_waiting(Steps, "Outcome"))
    assert main(["--seeds", "3"]) == 1
    captured = capsys.readouterr()
    assert "seed 0 failed" in captured.err
    assert "repeat it: python -m tests.simulation --seed 0" in captured.err
    assert captured.out.startswith("1 of 3 seeds")
    assert main(["--seed", "0"]) == 1
