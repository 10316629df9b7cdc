"""Each commit that is cited is in the history that the reader has.

A rebase gives commits other names, and what was written about the old ones is not
rewritten with them.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/results/*.json")]
)
CITED = re.compile(
    r"\b(?:(?=\d*[a-f])(?=[a-f]*\d)(?:[0-9a-f]{7,12}|[0-9a-f]{40})"
    r"|(?<=commit )[0-9a-f]{7,40})\b"
)
"""Digits alone are a number, letters alone a word, and 16 or 32 a trace."""


def cited(text: str) -> list[str]:
    return CITED.findall(text)


def git(*arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout


@pytest.fixture(name="history", scope="module")
def make_history() -> list[str]:
    """Return the hashes of all commits, sorted."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not in a clone: this folder has no history")
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        pytest.skip("a shallow clone has no history; git fetch --unshallow brings it")
    return sorted(git("rev-list", "HEAD").split())


def unknown(text: str, history: list[str]) -> Iterator[str]:
    for name in cited(text):
        if not any(commit.startswith(name) for commit in history):
            yield name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_commit_that_a_page_cites_is_in_the_history(
    page: Path, history: list[str]
) -> None:
    assert list(unknown(page.read_text(), history)) == []


def test_a_commit_that_is_not_in_the_history_is_found(history: list[str]) -> None:
    known = history[0][:7]
    text = f"measured at `{known}`, then at 0ddba11 and at commit 1234567"
    assert list(unknown(text, history)) == ["0ddba11", "1234567"]


@pytest.mark.parametrize(
    "text",
    [
        "1048576 bytes, 00000000000000048211.log, defaced",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    ],
)
def test_numbers_words_and_traces_are_no_commits(text: str) -> None:
    assert cited(text) == []
