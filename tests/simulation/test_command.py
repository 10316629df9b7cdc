"""`python -m tests.simulation` runs, replays, and says what failed."""

import re
from pathlib import Path

import pytest
from tests.simulation.__main__ import main
from tests.simulation.counts import Counts
from tests.simulation.planted import without_waiting

from coordinator.steps import Steps


def test_it_runs_seeds_in_several_processes(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "6", "--from", "10", "--jobs", "2"]) == 0
    told = capfd.readouterr().out.splitlines()
    assert re.search(r"^6 of 6 seeds, .*, 0 failures$", told[0])
    assert told[1] == "nothing was lost, doubled or left over in 6 seeds"
    assert "rare points that were not reached" in told[-1]


def test_it_fails_where_no_seed_comes_to_a_rare_point_and_says_which(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--seeds", "2", "--reach", "3"]) == 0
    told = capsys.readouterr().out
    assert "says nothing: 2 seeds were run, and it takes 3" in told
    assert main(["--seeds", "2", "--reach", "2"]) == 1
    told = capsys.readouterr().err
    assert re.search(
        r"rare point not reached by 2 seeds: 'reins cut', "
        r"src/coordinator/calls\.py:\d+\n",
        told,
    )
    assert "UNREACHED" in told


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
    monkeypatch.setattr(Steps, "__init__", without_waiting(Steps, "Outcome")())
    assert main(["--seeds", "3"]) == 1
    captured = capsys.readouterr()
    assert "seed 0 failed" in captured.err
    assert "repeat it: python -m tests.simulation --seed 0" in captured.err
    assert captured.out.startswith("1 of 3 seeds")
    assert "1 of 1 seeds FAILED: 0" in captured.out
    assert main(["--seed", "0"]) == 1


def test_it_goes_on_where_it_stopped_and_adds_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / name) for name in ("all.json", "parts.json")]
    assert main(["--seeds", "5", "--counts", files[0]]) == 0
    assert main(["--seeds", "2", "--counts", files[1]]) == 0
    assert main(["--seeds", "5", "--counts", files[1]]) == 0
    assert "3 of 3 seeds" in capsys.readouterr().out
    counts = [Counts.load(Path(file)) for file in files]
    assert counts[0].ranges == counts[1].ranges == [(0, 5)]
    assert counts[0] == counts[1]
    assert counts[0].workflows > 0


def test_it_adds_up_files_that_have_no_seed_in_common(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = [str(tmp_path / name) for name in ("one.json", "other.json")]
    main(["--seeds", "2", "--counts", files[0]])
    main(["--seeds", "2", "--from", "7", "--counts", files[1]])
    assert main(["--merge", *files]) == 0
    assert "seeds 0 to 1, 7 to 8\n" in capsys.readouterr().out
    with pytest.raises(ValueError, match="seeds 0 to 1 are there already"):
        main(["--merge", files[0], files[0]])


def test_it_stops_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--seeds", "1000", "--minutes", "0.000001"]) == 0
    assert capsys.readouterr().out.startswith("1 of 1000 seeds")


def test_it_prints_how_often_each_rare_point_was_reached(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--seeds", "1", "--rare"]) == 0
    assert "| group full by its size | 0 | `commit.py:" in capsys.readouterr().out


def test_it_compares_what_seeds_come_to_under_several_hash_seeds(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--determinism", "--seeds", "2"]) == 0
    assert capsys.readouterr().out.endswith("0, 1, 4711: 0 of 2 differ\n")


def test_it_hunts_bugs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--mutants", "turn back without"]) == 0
    assert "| turn back without an undo | dtm #272 |" in capsys.readouterr().out
