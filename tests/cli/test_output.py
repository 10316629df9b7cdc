"""What is printed, to a terminal and to a pipe."""

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from coordinator.cli import output

LINES: list[output.Line] = [[("✓ ", "green"), ("done", "bold")], []]


def test_a_pipe_gets_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_lines(LINES)
    assert capsys.readouterr().out == "✓ done\n\n"


def test_an_ascii_stdout_gets_signs_it_can_print(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.BytesIO()
    stdout = io.TextIOWrapper(written, encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stdout)
    output.emit_lines([[("✓ │ ▲ é", "")]])
    stdout.flush()
    assert written.getvalue() == b"+ | ^ \\xe9\n"


def test_a_pipe_gets_whole_cells(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_table(("A", "B"), [("1", "x" * 500)])
    assert "x" * 500 in capsys.readouterr().out


@pytest.mark.parametrize("no_colour", ["", "1"])
def test_a_terminal_gets_colour_unless_it_does_not_want_it(no_colour: str) -> None:
    printed = _in_a_terminal("emit_lines([[('done', 'green')]])", no_colour)
    assert ("\x1b[32m" in printed) is not bool(no_colour)
    assert "done" in printed


def test_a_terminal_gets_tables_that_fit() -> None:
    printed = _in_a_terminal("emit_table(('A', 'B'), [('1', 'x' * 500)])", "1")
    lines = printed.splitlines()
    assert max(map(len, lines)) <= 40
    assert lines[1].endswith("…")


def test_progress_is_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("working") as tell:
        tell("still working")
    assert capsys.readouterr() == ("", "")
    code = "t = progress('working')\nwith t as tell:\n    tell('still working')"
    assert "working" in _in_a_terminal(code, "")


def _in_a_terminal(code: str, no_colour: str) -> str:
    """Run *code*, which prints, in a terminal of 40 columns; return what it shows."""
    program = (
        "from coordinator.cli.output import emit_lines, emit_table, progress\n" + code
    )
    ours, theirs = pty.openpty()
    environment = {
        **os.environ,
        "NO_COLOR": no_colour,
        "TERM": "xterm",
        "COLUMNS": "40",
        "PYTHONPATH": str(Path(output.__file__).parents[2]),
    }
    with os.fdopen(ours, "rb", buffering=0) as terminal:
        with os.fdopen(theirs, "wb", buffering=0) as side:
            subprocess.run(
                [sys.executable, "-c", program],
                stdout=side,
                stderr=side,
                env=environment,
                check=True,
            )
        # It fits into the terminal's buffer, so there is nothing to wait for.
        return terminal.read(65536).decode()
