"""Commands run in this process: a tenth of the time of a process of their own."""

import asyncio
from pathlib import Path

from tests.processes import Ended
from typer.testing import CliRunner

from coordinator.cli.app import app


def invoke(folder: Path, *arguments: str, answer: str | bytes | None = None) -> Ended:
    """Run a ``coordinator`` command on the journal in *folder*, and answer it."""
    env = {"COORDINATOR_JOURNAL": f"file:{folder / 'journal'}", "COLUMNS": "100"}
    result = CliRunner(env=env).invoke(
        app, arguments, input=answer, prog_name="coordinator"
    )
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


async def ask(folder: Path, *arguments: str) -> Ended:
    """As `invoke`, in a thread: the command has a loop of its own."""
    return await asyncio.to_thread(invoke, folder, *arguments)
