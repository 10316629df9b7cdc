"""Somebody removes the lock or the folder under a running coordinator.

A lock keeps others out as long as its file has its name, and no longer. Whatever was
acknowledged up to that moment is found by who comes then; nothing is after it.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.journals.disk import Disk, MemoryFolder
from tests.journals.parts import append, batch_behind, batches_of, open_store

from coordinator.errors import FencedError
from coordinator.journals.segments.format import segment_name
from coordinator.journals.segments.posix import PosixFolder
from coordinator.journals.segments.store import Store


def unlock(folder: MemoryFolder) -> None:
    """Remove the lock's file."""
    folder.disk.locks.clear()


@pytest.mark.parametrize("call", range(3))
def test_nothing_is_acknowledged_once_the_lock_is_gone(call: int) -> None:
    folder = Disk().folder("/journal/p0")
    old = open_store(folder)
    append(old)
    lost = batch_behind(old)
    before = folder.disk.calls

    def fault(number: int, _: str) -> None:
        if number == before + call:
            unlock(folder)

    folder.disk.fault = fault
    if call < 2:
        with pytest.raises(FencedError, match="lock file was removed"):
            old.append(lost)
    else:
        old.append(lost)
        folder.names()
    new = open_store(folder)
    # What is found is what was acknowledged, or was being written.
    assert new.chain.end == 4
    for _ in range(2):
        with pytest.raises(FencedError):
            append(old)
    append(new)
    old.close()
    append(new)


ACTS: dict[str, Callable[[Store], object]] = {
    "append": append,
    "roll": lambda store: append(store, 3000),
    "prepare": Store.prepare,
    "checkpoint": lambda store: store.save_checkpoint(1, b"old"),
    "trim": lambda store: store.trim(1),
    "close": Store.close,
}


@pytest.mark.parametrize("name", ACTS)
@pytest.mark.parametrize("half_full", [False, True])
def test_an_old_owner_harms_nothing_of_the_new_one(name: str, half_full: bool) -> None:
    folder = Disk().folder("/journal/p0")
    old = open_store(folder)
    append(old, 2500)
    if half_full:
        old.prepare()
    unlock(folder)
    new = open_store(folder)
    written = append(new, 100)
    new.prepare()
    new.save_checkpoint(2, b"new")
    before = folder.copy_of()
    try:
        ACTS[name](old)
    except FencedError:
        old.close()
    assert folder.copy_of() == before
    written = append(new, 3000)
    assert batches_of(new)[-1] == written
    assert new.load_checkpoint() == b"new"


def test_a_checkpoint_is_not_put_in_the_place_of_a_newer_owners() -> None:
    folder = Disk().folder("/journal/p0")
    old = open_store(folder)

    def fault(_: int, name: str) -> None:
        if name == "sync":
            unlock(folder)

    folder.disk.fault = fault
    with pytest.raises(FencedError):
        old.save_checkpoint(1, b"old")
    assert "checkpoint" not in folder.names()


@pytest.fixture
def folder(tmp_path: Path) -> PosixFolder:
    return PosixFolder.make(str(tmp_path / "p0"))


def _remove(path: Path) -> None:
    (path / "LOCK").unlink()


def _replace(path: Path) -> None:
    (path / "other").touch()
    (path / "other").replace(path / "LOCK")


def _remove_all(path: Path) -> None:
    shutil.rmtree(path)


def _remove_segment(path: Path) -> None:
    (path / segment_name(0)).unlink()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (_remove, "lock file"),
        (_replace, "lock file"),
        (_remove_all, "lock file"),
        (_remove_segment, "active segment"),
    ],
)
def test_a_real_folder_that_is_changed_under_us_fences_us(
    folder: PosixFolder, change: Callable[[Path], None], what: str
) -> None:
    store = open_store(folder)
    append(store)
    change(Path(folder.path))
    with pytest.raises(FencedError, match=f"its {what} was removed or replaced"):
        append(store)
    store.close()


def test_a_folder_that_is_renamed_stays_ours(folder: PosixFolder) -> None:
    store = open_store(folder)
    Path(folder.path).rename(folder.path + " moved")
    append(store)
    store.close()
