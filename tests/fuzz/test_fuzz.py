"""The targets without the engine: on all that it has found, and on planted bugs."""

from pathlib import Path
from typing import Any

import pytest
from tests.fuzz import targets
from tests.fuzz.__main__ import CORPUS, INPUT_SIZE_MAX, kept_of, main
from tests.fuzz.targets import TARGETS, seeds_of

from cmdstream import RemoteProtocolError
from cmdstream.codec import Decoded


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_keeps_its_promises_on_what_was_found(name: str) -> None:
    kept = kept_of(name)
    assert kept
    for data in (b"", *seeds_of(name), *kept):
        TARGETS[name](data)


def test_the_corpus_is_small_and_belongs_to_the_targets() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {f"{n}.txt" for n in TARGETS}
    assert sum(path.stat().st_size for path in CORPUS.iterdir()) < 500_000
    assert all(
        len(data) <= INPUT_SIZE_MAX for name in TARGETS for data in kept_of(name)
    )


class Greedy:
    """Stands for the MUS codec, and asks for what it has."""

    def decode_command(self, data: bytes, offset: int) -> Decoded | int:
        del offset
        return len(data)


class Hasty:
    """Judges what has not arrived."""

    def decode_command(self, data: bytes, offset: int) -> Decoded | int:
        del offset
        if len(data) == 3:
            raise RemoteProtocolError("three bytes")
        return len(data) + 1


class Forgetful:
    """Does not read what it wrote."""

    def encode_command(self, command: object, before: bytes = b"", /) -> bytes:
        del command, before
        return b""

    def decode_command(self, data: bytes, offset: int) -> Decoded | int:
        del offset
        return Decoded(1, 0, b"", 1) if data else 1


class Careless:
    """Raises what it comes across."""

    def decode_command(self, data: bytes, offset: int) -> Decoded | int:
        return data[offset + 1000]


@pytest.mark.parametrize(
    ("codec", "error"),
    [
        (Greedy, AssertionError),
        (Hasty, AssertionError),
        (Forgetful, AssertionError),
        (Careless, IndexError),
    ],
)
def test_a_codec_that_breaks_a_promise_is_found(
    codec: type, error: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(targets, "MUS", codec())
    with pytest.raises(error):
        TARGETS["mus"](b"\x021234")  # cut behind the third


def test_one_input_is_repeated_by_one_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"\x00\x01")
    assert main(["mus", "--input", str(path)]) == 0
    assert "is fine" in capsys.readouterr().out


def test_a_target_that_there_is_not_is_an_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        main(["xml"])
    assert "there is no xml; there are json, mus" in capsys.readouterr().err


@pytest.mark.parametrize(("environment", "code"), [({"CI": "1"}, 1), ({}, 0)])
def test_without_the_engine_it_says_so_and_fails_in_ci(
    environment: dict[str, str],
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def found(_name: str) -> Any:
        return None

    monkeypatch.setattr("importlib.util.find_spec", found)
    monkeypatch.setattr("os.environ", environment)
    assert main(["mus"]) == code
    assert "there is no atheris for this Python" in capsys.readouterr().err
