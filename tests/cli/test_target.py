"""``module:object``: what is found, and what is said of what is not."""

import importlib
import sys
from pathlib import Path

import pytest
from tests.cli.modules import SHOP

from coordinator import Coordinator
from coordinator.cli.exits import CliError, ExitCode
from coordinator.cli.target import load_target

BAD_TARGETS = {
    "target_app": "not of the form module:object",
    "nowhere:coordinator": "No module named 'nowhere'",
    "target_app.sub:coordinator": "'target_app' is not a package",
    "target_app:missing": "has no 'missing'",
    "target_app:Path": "neither a Coordinator nor a function that returns one",
    "target_app:async_factory": "is an async function",
    "target_app:NUMBER": "is a int, neither",
    "target_app:raises": "ZeroDivisionError",
    "target_app:bad_command": "has no `async def exec",
    "raises_app:coordinator": "line 2, in <module>\n    raise RuntimeError('no sett",
    "imports_app:coordinator": "No module named 'missing_dependency'",
    "syntax_app:coordinator": "SyntaxError",
    "exits_app:coordinator": "SystemExit",
}

MODULES = {
    "target_app": SHOP
    + """
NUMBER = 5
MADE = coordinator()

class Holder:
    made = MADE

async def async_factory():
    return coordinator()

def raises():
    return 1 / 0

def bad_command():
    return Coordinator(Shop(), commands=[Shop])
""",
    "raises_app": "\nraise RuntimeError('no setting')\n",
    "imports_app": "import missing_dependency\n",
    "syntax_app": "def (:\n",
    "exits_app": "import sys\nsys.exit(0)\n",
    "unsent_app": SHOP.replace(
        "-> int:", "-> __import__('datetime').timedelta:"
    ).replace("from __future__ import annotations", ""),
}


@pytest.mark.parametrize("target", BAD_TARGETS)
def test_a_target_that_cannot_be_served_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    _enter(tmp_path, monkeypatch)
    with pytest.raises(CliError) as raised:
        load_target(target)
    message = str(raised.value)
    assert raised.value.code == ExitCode.USAGE
    assert BAD_TARGETS[target] in message
    # The user's own frames, and none of ours.
    assert "cli/target.py" not in message
    assert "importlib" not in message


@pytest.mark.parametrize(
    "target", ["target_app:coordinator", "target_app:MADE", "target_app:Holder.made"]
)
def test_a_coordinator_or_what_returns_one_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    _enter(tmp_path, monkeypatch)
    assert isinstance(load_target(target), Coordinator)


def test_the_current_folder_is_searched_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _enter(tmp_path, monkeypatch)
    load_target("target_app:coordinator")
    assert sys.path[0] == str(tmp_path)


def test_a_missing_name_points_to_the_coordinators_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _enter(tmp_path, monkeypatch)
    with pytest.raises(CliError, match="it has MADE"):
        load_target("target_app:missing")


def _enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Go into a folder with the modules above, none of which was imported before."""
    for name, source in MODULES.items():
        (folder / f"{name}.py").write_text(source)
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", list(sys.path))
    importlib.invalidate_caches()
