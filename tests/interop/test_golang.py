"""A machine without Go, or without its modules, says so."""

import sys
from pathlib import Path

import pytest
from tests.interop import golang


@pytest.fixture(autouse=True)
def forget_what_was_built() -> None:
    golang.programs.cache_clear()


def test_without_go_the_tests_are_skipped_and_in_ci_they_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("GO", raising=False)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(pytest.skip.Exception, match="`make go` installs it"):
        golang.program("peer")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="`make go` installs it"):
        golang.program("peer")


@pytest.mark.usefixtures("peer")
def test_without_the_modules_the_tests_are_skipped_and_in_ci_they_fail(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("GOPROXY", "off")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(golang, "_CACHE", tmp_path / "built")
    with pytest.raises(pytest.skip.Exception, match="needs the Go modules"):
        golang.program("peer")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="needs the Go modules"):
        golang.program("peer")
