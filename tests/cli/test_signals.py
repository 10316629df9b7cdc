"""SIGTERM and Ctrl-C before ``coordinator serve`` is ready, and after its end."""

import asyncio
from pathlib import Path

import pytest
from tests.cli.modules import SHOP
from tests.processes import run_cli, serving

SIGNALS = ["SIGTERM", "SIGINT"]


def _signalling(name: str, behind: str = "") -> str:
    """Return code that sends itself the signal *name*."""
    return f"import os, signal\nos.kill(os.getpid(), signal.{name})\n{behind}"


# The current folder comes first in the search, so this is the Typer that we find.
@pytest.mark.parametrize("module", ["typer.py", "target_app.py"])
@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_while_modules_are_imported_ends_with_0(
    tmp_path: Path, name: str, module: str
) -> None:
    (tmp_path / module).write_text(_signalling(name, "print('went on')"))
    ended = asyncio.run(run_cli(tmp_path, "serve", "target_app:coordinator"))
    assert (ended.code, ended.stdout, ended.stderr) == (0, "", "")


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_after_the_end_changes_nothing(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        async with serving(tmp_path, SHOP + _at_exit(name)) as server:
            assert await server.stop() == 0
            assert server.log.count("Traceback") == 0

    asyncio.run(main())


def test_a_signal_after_the_end_leaves_the_code_of_a_failed_journal(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        module = SHOP + FAILING + _at_exit("SIGTERM")
        async with serving(tmp_path, module) as server:
            assert await server.exited() == 1

    asyncio.run(main())


FAILING = """
async def _fail(self):
    from coordinator.errors import JournalBrokenError
    return JournalBrokenError("the disk is gone")

Coordinator.wait_failed = _fail
"""


def _at_exit(name: str) -> str:
    return (
        "\nimport atexit, os, signal\n"
        f"atexit.register(lambda: os.kill(os.getpid(), signal.{name}))\n"
    )


def test_other_commands_end_by_the_signal_as_any_program_does(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text(_signalling("SIGTERM"))
    assert asyncio.run(run_cli(tmp_path, "list")).code == -15
