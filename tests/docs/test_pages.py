"""Every page tells the truth: its Python runs, commands exist, and links lead on."""

import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from coordinator.testing import BrokenPromiseError

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], key=lambda path: path.as_posix()
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIMEOUT_S = 300.0
"""Only a hang gets here; the machine may be busy."""
LINK = re.compile(r"\]\(([^)#\s]+)(?:#[^)]*)?\)")
BANK_CLIENT = """
class BankClient: ...
class DeclinedError(Exception): ...
class BankUnavailableError(Exception): ...
"""
"""A client library that docs/gateways.md wraps."""
MESSAGES = """
class ChargeRequest: ...
class RefundRequest: ...
"""
STUBS = """
class PaymentsStub:
    def __init__(self, channel):
        for name in ("Charge", "Refund"):
            setattr(self, name, channel.unary_unary(f"/shop.Payments/{name}"))
"""
"""What protoc makes of a service that docs/gateways.md calls."""
TEST = re.compile(r"`(tests/[\w/]+\.py)(?:::(\w+))?`")
TEST_NAME = re.compile(r"`(?:\w+/)*(test_\w+)(\.py|…)?`")
"""One that is named without its path: a file, a function, or how a function begins."""


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _blocks(page: Path, *kinds: str) -> list[str]:
    found = BLOCK.findall(page.read_text())
    return [body for kind, body in found if kind in kinds]


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_python_of_a_page_runs_in_order(page: Path, tmp_path: Path) -> None:
    """All blocks of a page are one script, run twice in an empty folder."""
    code = "\n".join(_blocks(page, "python"))
    if not code:
        return
    (tmp_path / "bank_client.py").write_text(BANK_CLIENT)
    (tmp_path / "payments_pb2.py").write_text(MESSAGES)
    (tmp_path / "payments_pb2_grpc.py").write_text(STUBS)
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", code],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr


def test_the_readme_shows_what_its_saga_prints(tmp_path: Path) -> None:
    page = ROOT / "README.md"
    code = _blocks(page, "python")[0]
    expected = _blocks(page, "text")[0]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == expected


def test_the_test_of_the_readme_passes(tmp_path: Path) -> None:
    path = tmp_path / "saga.py"
    path.write_text("\n".join(_blocks(ROOT / "README.md", "python")))
    runpy.run_path(str(path))["test_an_order_is_all_or_nothing"]()


def test_the_calculator_of_the_readme_takes_20_lines_and_no_coordinator(
    tmp_path: Path,
) -> None:
    (code,) = (
        block
        for block in _blocks(ROOT / "README.md", "python")
        if "from cmdstream import" in block
    )
    assert len([line for line in code.splitlines() if line]) <= 20
    loaded = "[name for name in sys.modules if name.startswith('coordinator')]"
    done = subprocess.run(
        [
            sys.executable,
            "-W",
            "error",
            "-c",
            f"{code}\nimport sys; assert not {loaded}",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("2 + 3 = 5\n", "")


def test_the_tutorial_shows_what_its_tests_print(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each text of the page is what the last test before it prints, or fails with."""
    monkeypatch.delenv("COORDINATOR_SEED", raising=False)
    monkeypatch.delenv("COORDINATOR_SEEDS", raising=False)
    code, expected, printed = "", list[str](), list[str]()
    for kind, body in BLOCK.findall((ROOT / "docs" / "testing.md").read_text()):
        code += body if kind == "python" else ""
        if kind != "text":
            continue
        test = re.findall(r"^def (test_\w+)", code, re.MULTILINE)[-1]
        monkeypatch.setenv("PYTEST_CURRENT_TEST", f"test_buy.py::{test} (call)")
        path = tmp_path / f"test_buy_{len(expected)}.py"
        path.write_text(code)
        try:
            runpy.run_path(str(path))[test]()
            printed.append(capsys.readouterr().out)
        except BrokenPromiseError as error:
            printed.append(f"{error}\n")
        expected.append(body)
    assert printed == expected
    assert len(expected) == 3


def _console_lines() -> list[Any]:
    return [
        pytest.param(line.removeprefix("$ "), id=f"{_name(page)}: {line}")
        for page in PAGES
        for block in _blocks(page, "console")
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


@pytest.mark.parametrize("line", _console_lines())
def test_a_command_of_a_page_exists_with_its_options(line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] == "make":
        targets = re.findall(
            r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE
        )
        assert {word for word in words[1:] if "=" not in word} <= set(targets)
    if words[:3] == ["python", "-m", "cmdstream"]:
        from cmdstream.command_line import command_parser

        command_parser().parse_args(words[3:])  # exits if it does not understand
        return
    if words[0] != "coordinator":
        return
    from coordinator.cli.app import app

    command: Any = typer.main.get_command(app)
    words = words[1:]
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    options = {option for parameter in command.params for option in parameter.opts}
    used = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert used - {"--help"} <= options


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_links_of_a_page_lead_to_files(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), f"{_name(page)} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_tests_that_a_page_names_exist(page: Path) -> None:
    for path, test in TEST.findall(page.read_text()):
        file = ROOT / path
        assert file.exists(), f"{_name(page)} names {path}"
        if test:
            assert f"def {test}(" in file.read_text(), f"{_name(page)}: {path}::{test}"


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 240


@pytest.fixture(name="tests", scope="module")
def find_tests() -> set[str]:
    """The names of all tests, and of the files they are in."""
    files = list(ROOT.glob("tests/**/test_*.py"))
    code = "\n".join(path.read_text() for path in files)
    return {path.name for path in files} | set(
        re.findall(r"^def (test_\w+)\(", code, re.MULTILINE)
    )


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_the_tests_that_a_page_names_without_a_path_exist(
    page: Path, tests: set[str]
) -> None:
    for name, end in TEST_NAME.findall(page.read_text()):
        if end == "…":
            assert any(test.startswith(name) for test in tests), (
                f"{_name(page)}: {name}"
            )
        else:
            assert name + end in tests, f"{_name(page)} names {name + end}"
