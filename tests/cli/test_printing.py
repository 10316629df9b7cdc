"""What happens to what is printed: signs, control characters, pipes, full disks."""

import asyncio
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.cli.modules import SHOP
from tests.processes import serving

from coordinator import Coordinator, Workflow
from coordinator.cli import output, printing

COMMAND = (sys.executable, "-m", "coordinator")
COUNT = 2000
"""Commands of the journal: more text than a pipe holds."""


class Desk:
    async def stamp(self, name: str) -> str:
        return f"stamped {name}"


@dataclass
class Stamp:
    name: str

    def key(self) -> str:
        return self.name

    async def exec(self, workflow: Workflow, desk: Desk) -> str:
        return await workflow.step(desk.stamp, self.name)


@pytest.fixture(name="folder", scope="module")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a journal. Not to be changed."""
    folder = tmp_path_factory.mktemp("printing")

    async def main() -> None:
        url = f"file:{folder / 'journal'}"
        async with Coordinator(Desk(), commands=[Stamp], journal=url) as coordinator:
            for number in range(COUNT):
                await coordinator.submit(
                    Stamp(f"{number} \u00e9 \U0001f600 \u202e\x1b[31m")
                )

    asyncio.run(main())
    return folder


def shell(folder: Path, line: str, **env: str) -> tuple[int, bytes, str]:
    """Run *line* in bash, in *folder*; ``$C`` is the command."""
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", line],
        cwd=folder,
        env={**os.environ, "C": " ".join(COMMAND), "NO_COLOR": "1", **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr.decode()


@pytest.mark.parametrize(
    "command",
    [
        "journal dump journal",
        "journal dump journal --json",
        f"journal tail journal -n {COUNT}",
        "journal info journal",
        "list --journal journal",
        "list --journal journal --json",
        "show 0-1 --journal journal",
    ],
)
def test_a_command_that_nobody_reads_ends_silently(folder: Path, command: str) -> None:
    code, _, stderr = shell(folder, f"$C {command} | true; exit ${{PIPESTATUS[0]}}")
    if "list" in command:
        # With nothing to print nobody misses a reader.
        assert code in (0, 141)
        return
    assert (code, stderr) == (141, "")


@pytest.mark.parametrize(
    "command", ["journal dump journal", "journal info journal --json"]
)
def test_what_cannot_be_written_is_not_the_journals_fault(
    folder: Path, command: str
) -> None:
    code, _, stderr = shell(folder, f"$C {command} > /dev/full")
    assert code == 1
    assert stderr == "error: can't write to stdout: No space left on device\n"


@pytest.mark.parametrize("redirection", [">&-", "<&- >&- 2>&-"])
def test_streams_may_be_closed(folder: Path, redirection: str) -> None:
    for command in ("journal dump journal --json", "journal info journal"):
        assert shell(folder, f"$C {command} {redirection}") == (0, b"", "")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_utf_8_whatever_the_locale_says(folder: Path, encoding: str) -> None:
    for command in ("journal dump journal --json", "show 0-1 --json --journal journal"):
        code, stdout, stderr = shell(folder, f"$C {command}", PYTHONIOENCODING=encoding)
        assert (code, "Traceback" in stderr) == (0, False)
        assert "\u00e9 \U0001f600" in stdout.decode()


def test_a_ready_server_says_so_in_any_locale(tmp_path: Path) -> None:
    async def main() -> None:
        journal = "file:./journ\u00e1l"
        env = {"PYTHONIOENCODING": "ascii"}
        async with serving(tmp_path, SHOP, journal=journal, env=env) as server:
            assert server.ready["journal"] == journal

    asyncio.run(main())


def test_what_steers_a_terminal_is_shown_to_people(folder: Path) -> None:
    for command in ("journal dump journal", "show 0-1 --journal journal"):
        code, stdout, _ = shell(folder, f"$C {command}")
        text = stdout.decode()
        assert code == 0
        assert "key" in text
        assert "\\u202e\\x1b[31m" in text
        assert not {"\u202e", "\x1b"} & set(text)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain \u00e9 \u2713", "plain \u00e9 \u2713"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("\x7f\x9b31m", "\\x7f\\x9b31m"),
        ("\u202e\u2066\u200f\u061c\u2028", "\\u202e\\u2066\\u200f\\u061c\\u2028"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_steers_is_escaped(text: str, shown: str) -> None:
    assert printing.visible(text) == shown


def test_a_table_measures_what_it_shows(capsys: pytest.CaptureFixture[str]) -> None:
    output.emit_table(("KEY", "B"), [("a\nb", "1"), ("abcd", "2")])
    assert capsys.readouterr().out == "KEY   B\na\\nb  1\nabcd  2\n"


def test_a_message_keeps_its_lines(capsys: pytest.CaptureFixture[str]) -> None:
    printing.complain("first\n\tsecond \x1b[31m")
    assert capsys.readouterr().err == "first\n\tsecond \\x1b[31m\n"
    output.emit_text("one\ntwo\x1b")
    assert capsys.readouterr().out == "one\ntwo\\x1b\n"
