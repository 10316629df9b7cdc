"""What is installed appears whole, once; and who lacks it is told what to do."""

from pathlib import Path

import pytest
from tests.interop import golang
from tests.servers import installing, nats
from tests.servers.__main__ import main
from tests.servers.installing import LackError, install_once


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(installing, "CACHE", tmp_path / "cache")
    nats.install.cache_clear()
    return tmp_path / "cache"


def test_what_is_there_is_not_made_again(cache: Path) -> None:
    calls: list[Path] = []

    def make(folder: Path) -> None:
        calls.append(folder)
        (folder / "server").write_text("x")

    for _ in range(2):
        assert install_once("one-1", make) == cache / "one-1"
    assert (cache / "one-1" / "server").read_text() == "x"
    assert len(calls) == 1


def test_what_was_half_made_is_not_there(cache: Path) -> None:
    def fail(folder: Path) -> None:
        (folder / "half").write_text("x")
        raise LackError("the registry is away")

    with pytest.raises(LackError):
        install_once("one-1", fail)
    assert [path.name for path in cache.iterdir()] == ["lock"]


@pytest.mark.usefixtures("cache")
def test_without_go_or_its_modules_one_is_told_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    with monkeypatch.context() as context:
        context.setattr(golang, "find_go", _no_go)
        assert main() == 1
    assert "nats: needs a Go" in capsys.readouterr().err
    monkeypatch.setenv("GOPROXY", "off")
    monkeypatch.setenv("GOMODCACHE", str(tmp_path / "modules"))
    monkeypatch.delenv("CI", raising=False)
    with (
        pytest.raises(pytest.skip.Exception, match="`make servers` gets them"),
        nats.nats_server(),
    ):
        pass
    monkeypatch.setenv("CI", "true")
    with (
        pytest.raises(pytest.fail.Exception, match="`make servers` gets them"),
        nats.nats_server(),
    ):
        pass
    nats.install.cache_clear()


def _no_go() -> str:
    raise golang.LackError("needs a Go")
