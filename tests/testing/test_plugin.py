"""The pytest plugin, in a pytest of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.testing import plugin

ROOT = Path(__file__).parents[2]

TESTS = """
import os
from tests.testing.sagas import PlaceOrder, Shop, Once, shop_with


def test_rehearse(rehearse):
    rehearsal = rehearse(Shop(), commands=[PlaceOrder])
    rehearsal.services.lose_reply("bank.charge")
    assert rehearsal.submit(PlaceOrder()).result().order == "o-1"


def test_crash_everywhere(crash_everywhere):
    assert crash_everywhere(PlaceOrder(), Shop).points == 16


def test_explore(explore):
    print("seeds:", explore(PlaceOrder(), Shop, seeds=5).seeds)


def test_check_idempotency(check_idempotency):
    assert len(check_idempotency(PlaceOrder(), Shop).steps) == 5


def test_a_bug(explore):
    explore(PlaceOrder(), shop_with(Once))
"""


def run_pytest(folder: Path, *options: str) -> str:
    (folder / "test_shop.py").write_text(TESTS)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-rP", "-p", "no:cacheprovider"),
            *("-c", "/dev/null", "--rootdir", str(folder)),
            *options,
        ],
        cwd=folder,
        env={"PYTHONPATH": f"{ROOT}:{ROOT / 'src'}", "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def test_its_fixtures_are_what_the_package_has(tmp_path: Path) -> None:
    told = run_pytest(tmp_path)
    assert "1 failed, 4 passed" in told
    assert "seeds: 5\n" in told


def test_a_seed_that_failed_is_repeated_by_the_command_that_it_printed(
    tmp_path: Path,
) -> None:
    first = run_pytest(tmp_path)
    again = "pytest test_shop.py::test_a_bug --coordinator-seed="
    (seed,) = {line.partition(again)[2] for line in first.splitlines() if again in line}
    second = run_pytest(
        tmp_path, "test_shop.py::test_a_bug", "--coordinator-seed", seed
    )
    assert f"breaks a promise: seed {seed}" in second
    other = run_pytest(tmp_path, "test_shop.py::test_explore", "--coordinator-seed=3")
    assert "seeds: 1\n" in other


def test_more_seeds_are_run_where_they_are_asked_for(tmp_path: Path) -> None:
    told = run_pytest(tmp_path, "test_shop.py::test_explore", "--coordinator-seeds=7")
    assert "seeds: 7\n" in told


def test_a_run_that_does_not_use_it_imports_it_and_nothing_else_of_us(
    tmp_path: Path,
) -> None:
    code = (
        "import sys, pytest\n"
        "pytest.main(['--co', '-p', 'no:cacheprovider'])\n"
        "ours = ('coordinator', 'cmdstream', 'msgspec')\n"
        "print([m for m in sys.modules if m.startswith(ours)], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "collected 0 items" in done.stdout
    assert done.stderr.strip() == str(
        ["coordinator", "coordinator.testing", "coordinator.testing.plugin"]
    )


def test_pytest_finds_it_by_its_entry_point(pytestconfig: pytest.Config) -> None:
    assert pytestconfig.pluginmanager.get_plugin("coordinator") is plugin
