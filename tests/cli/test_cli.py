"""The command line as a whole: what it imports, its help, its exit codes."""

import asyncio
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest
from tests.cli.runner import invoke
from tests.processes import run_cli

from coordinator import errors
from coordinator.cli.exits import CliError, ExitCode, exit_code_of
from coordinator.cli.output import show_clock, show_duration, show_size, show_time
from coordinator.cli.remote import folder_of

DOCS = Path(__file__).parents[2] / "docs" / "cli.md"
HEAVY = ("aiohttp", "pydantic", "rich", "typer", "hypothesis")

COMMANDS = [
    "cancel",
    "check",
    "doctor",
    "journal",
    "journal dump",
    "journal info",
    "journal repair",
    "journal tail",
    "journal verify",
    "list",
    "replay",
    "retry",
    "serve",
    "show",
    "submit",
]


def test_importing_the_library_imports_nothing_that_is_slow() -> None:
    assert _imported_by("import coordinator", HEAVY) == []


@pytest.mark.parametrize("arguments", ["--help", "serve --help", "journal dump --help"])
def test_help_imports_nothing_that_is_slow(arguments: str) -> None:
    code = f"""
import sys
from coordinator.cli import main
sys.argv = ["coordinator", *{arguments.split()!r}]
try:
    main()
except SystemExit as end:
    assert not end.code
"""
    slow = (
        "aiohttp",
        "asyncio",
        "coordinator.serve",
        "coordinator.timeline",
        "msgspec",
        "pydantic",
        "rich",
    )
    assert _imported_by(code, slow) == []


def _imported_by(code: str, modules: tuple[str, ...]) -> list[str]:
    """Run *code* in a new interpreter; return those of *modules* that it imported."""
    program = f"{code}\nimport sys\nprint([m for m in {modules!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    found: list[str] = eval(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_has_help_and_is_documented(tmp_path: Path, command: str) -> None:
    ended = invoke(tmp_path, *command.split(), "--help")
    assert ended.code == 0
    assert "Usage: coordinator" in ended.stdout
    assert f"coordinator {command}".strip() in DOCS.read_text()
    for option in re.findall(r"--[a-z-]+", ended.stdout):
        assert option in DOCS.read_text(), option


def test_it_says_its_version(tmp_path: Path) -> None:
    ended = asyncio.run(run_cli(tmp_path, "--version"))
    assert ended == (0, f"coordinator {metadata.version('coordinator')}\n", "")


def test_no_command_is_missing_here(tmp_path: Path) -> None:
    for prefix in ("", "journal"):
        text = invoke(tmp_path, *prefix.split(), "--help").stdout
        _, _, commands = text.partition("Commands:")
        listed = re.findall(r"^  ([a-z]+)  ", commands, re.MULTILINE)
        assert listed
        assert {f"{prefix} {name}".strip() for name in listed} <= set(COMMANDS)


def test_wrong_usage_exits_with_2_as_a_process(tmp_path: Path) -> None:
    async def main() -> None:
        for arguments, says in (
            (("nonsense",), "rror"),
            (("show",), "rror"),
            (("serve", "a:b", "--listen", "x"), "rror"),
            (("serve", "a:b", "--log-level", "loud"), "'--log-level'"),
        ):
            ended = await run_cli(tmp_path, *arguments)
            assert ended.code == 2
            assert says in ended.stderr

    asyncio.run(main())


def test_errors_of_a_process_are_one_line_on_stderr(tmp_path: Path) -> None:
    ended = asyncio.run(run_cli(tmp_path, "show", "0-1", "--journal", "nowhere"))
    assert ended == (5, "", "error: nowhere is not a folder\n")


@pytest.mark.parametrize("missing", ["typer", "rich"])
def test_without_the_extra_it_says_what_to_install(missing: str) -> None:
    code = f"""
import sys
sys.modules[{missing!r}] = None
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name == {missing!r} else real(name)
from coordinator.cli import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "pip install 'coordinator[cli]'" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.JournalDamagedError("p", 1, "x"), ExitCode.DAMAGED),
        (errors.JournalBrokenError("x"), ExitCode.FAILED),
        (errors.UnknownWorkflowError("x"), ExitCode.NOT_FOUND),
        (errors.WorkflowStateError("x"), ExitCode.CONFLICT),
        (errors.JournalLockedError("p", "pid 1"), ExitCode.UNAVAILABLE),
        (errors.JournalFormatError("x"), ExitCode.UNAVAILABLE),
        (errors.NotAcceptedError("x"), ExitCode.UNAVAILABLE),
        (errors.CommandTypeError("x"), ExitCode.USAGE),
        (ValueError("x"), ExitCode.USAGE),
        (errors.CoordinatorError("x"), ExitCode.FAILED),
    ],
)
def test_each_error_has_its_exit_code(error: Exception, code: ExitCode) -> None:
    assert exit_code_of(error) is code


def test_every_exit_code_is_documented() -> None:
    text = DOCS.read_text()
    for code in ExitCode:
        assert f"| {code.value} | " in text


def test_a_journal_is_named_by_folder_or_url() -> None:
    assert folder_of("./orders") == "./orders"
    assert folder_of("file:./orders?partitions=2") == "./orders"
    for none in (None, "", "memory:", "nats://host/journal", "file:", "file://host/x"):
        with pytest.raises(CliError) as raised:
            folder_of(none)
        assert raised.value.code is ExitCode.USAGE
    with pytest.raises(CliError, match="`serve` and `doctor` can") as raised:
        folder_of("nats://ann:s3cret@host/journal")
    assert "s3cret" not in str(raised.value)


def test_numbers_are_shown_for_people() -> None:
    assert show_duration(0) == "0 us"
    assert show_duration(999) == "999 us"
    assert show_duration(1500) == "1.5 ms"
    assert show_duration(999_700) == "1 s"
    assert show_duration(59_940_000) == "59.9 s"
    assert show_duration(61_000_000) == "1 min 1 s"
    assert show_duration(3_720_000_000) == "1 h 2 min"
    assert show_duration(90_000_000_000) == "1 d 1 h"
    assert show_duration(-1500) == "-1.5 ms"
    assert show_size(1) == "1 B"
    assert show_size(64 * 1024 * 1024) == "64 MiB"
    assert show_size(2**41) == "2 TiB"
    assert show_time(1_500_000) == "1970-01-01 00:00:01.500Z"
    assert show_clock(1_500_000) == "00:00:01.500"
