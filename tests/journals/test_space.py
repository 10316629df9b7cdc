"""Allocating ahead, and what is left behind when it fails."""

import errno
import os

import pytest
from tests.journals.disk import Disk, fail_at

from coordinator.errors import (
    JournalBrokenError,
    JournalError,
    JournalFullError,
    JournalUnavailableError,
)
from coordinator.journals.segments.space import SHORT, allocate, not_opened


def test_an_allocated_file_is_zeros_of_the_size_asked_for() -> None:
    folder = Disk().folder()
    assert allocate(folder, "x", 1000).read(0, 2000) == bytes(1000)


def test_too_little_space_is_noticed_before_any_is_taken() -> None:
    disk = Disk()
    disk.space = 999
    with pytest.raises(JournalFullError, match="1000 bytes are needed"):
        allocate(disk.folder(), "x", 1000)
    assert disk.log == ["free"]


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("code", sorted(SHORT))
def test_whatever_is_short_for_a_new_file_is_a_full_disk(call: int, code: int) -> None:
    disk = Disk()
    disk.fault = fail_at(call, code)
    with pytest.raises(JournalFullError, match=os.strerror(code)):
        allocate(disk.folder(), "x", 1000)
    assert disk.folder().names() == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EACCES, JournalUnavailableError),
        (errno.EROFS, JournalUnavailableError),
        (errno.ENOTDIR, JournalUnavailableError),
        (errno.EMFILE, JournalFullError),
        (errno.ENOSPC, JournalFullError),
        (errno.EIO, JournalBrokenError),
    ],
)
def test_what_can_not_be_opened_is_sorted_by_what_helps(
    code: int, kind: type[JournalError]
) -> None:
    error = not_opened("/journal", OSError(code, os.strerror(code)))
    assert type(error) is kind
    assert os.strerror(code) in str(error)


@pytest.mark.parametrize("call", [0, 1, 2])
def test_any_other_failure_goes_through(call: int) -> None:
    disk = Disk()
    disk.fault = fail_at(call, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        allocate(disk.folder(), "x", 1000)
