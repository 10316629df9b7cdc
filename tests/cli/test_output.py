"""What is printed, to a terminal and to a pipe."""

import io
import os
import pty
import subprocess
import sys
from contextlib import suppress
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


def test_what_has_no_room_beside_a_row_of_a_terminal_is_put_below_it() -> None:
    code = "emit_table(('A', 'B', 'C'), [('1' * 20, '2', 'x' * 500), ('3', '4', '')])"
    for no_colour in ("", "1"):
        lines = _in_a_terminal(code, no_colour).splitlines()
        assert len(lines) == 4
        assert max(map(len, lines)) <= 40 + len("\x1b[2m\x1b[0m")
        assert "x…" in lines[2]


def test_a_terminal_gets_lines_broken_between_words() -> None:
    code = "print(wrapped('one two ' * 9, 18), wrapped('', 18))"
    printed = _in_a_terminal(code, "1")
    assert printed.startswith("['one two one two one', 'two one two")
    assert printed.rstrip().endswith("] ['']")


def test_a_pipe_gets_whole_lines() -> None:
    assert output.wrapped("one two " * 99, 18) == ["one two " * 99]


def test_progress_is_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    with output.progress("working") as tell:
        tell("still working")
    assert capsys.readouterr() == ("", "")
    code = "t = progress('working')\nwith t as tell:\n    tell('still working')"
    assert "working" in _in_a_terminal(code, "")


def test_what_takes_long_gets_a_line_now_and_then_where_no_terminal_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    now = iter([0, 4, 5, 5, 9, 10, 10])
    with output.progress("reading", lines=True, clock=lambda: next(now)) as tell:
        for count in range(4):
            tell(f"{count} judged …")
    assert capsys.readouterr() == ("", "1 judged …\n3 judged …\n")


def _in_a_terminal(code: str, no_colour: str) -> str:
    """Run *code*, which prints, in a terminal of 40 columns; return what it shows."""
    program = (
        "from coordinator.cli.output import emit_lines, emit_table, progress, wrapped\n"
        + code
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
        # It fits into the terminal's buffer, so nobody had to read it meanwhile. But
        # it may come in parts, and the end of a terminal is an error: EIO.
        shown = b""
        with suppress(OSError):
            while part := terminal.read(65536):
                shown += part
        return shown.decode()
