"""What goes into the archive, and that nothing there is written over."""

import asyncio
import errno
from pathlib import Path

import pytest
from tests.journals.disk import (
    Data,
    Disk,
    MemoryFolder,
    Names,
    PowerCut,
    cut_at,
    fail_at,
)

from coordinator.batch import encode_batch
from coordinator.journals.segments.archive import archive_segment
from coordinator.journals.segments.format import segment_name
from coordinator.journals.segments.journal import SegmentJournal
from coordinator.journals.segments.posix import PosixFolder
from coordinator.journals.segments.store import StoreOptions
from coordinator.records import Resumed, encode_record

NAME = segment_name(0)
LARGE = b"x" * 1_500_000


@pytest.fixture
def disk() -> Disk:
    disk = Disk()
    disk.folder("/p0").put_back({NAME: LARGE})
    return disk


@pytest.fixture
def folder(disk: Disk) -> MemoryFolder:
    return disk.folder("/p0")


@pytest.fixture
def archive(disk: Disk) -> MemoryFolder:
    return disk.folder("/archive")


def test_a_segment_moves(folder: MemoryFolder, archive: MemoryFolder) -> None:
    assert archive_segment(folder, NAME, archive) == ""
    assert (folder.copy_of(), archive.copy_of()) == ({}, {NAME: LARGE})


def test_one_that_is_there_already_is_not_there_twice(
    folder: MemoryFolder, archive: MemoryFolder
) -> None:
    archive.put_back({NAME: LARGE})
    assert archive_segment(folder, NAME, archive) == ""
    assert (folder.copy_of(), archive.copy_of()) == ({}, {NAME: LARGE})


@pytest.mark.parametrize("other", [LARGE[:-1], LARGE[:-1] + b"y", b""])
def test_another_of_that_name_is_not_written_over(
    folder: MemoryFolder, archive: MemoryFolder, other: bytes
) -> None:
    archive.put_back({NAME: other})
    why = archive_segment(folder, NAME, archive)
    assert why.startswith(f"/archive/{NAME} is there already, and differs from /p0/")
    assert (folder.copy_of(), archive.copy_of()) == ({NAME: LARGE}, {NAME: other})


@pytest.mark.parametrize("call", [0, 1])
def test_without_a_descriptor_it_stays_and_goes_the_next_time(
    disk: Disk, folder: MemoryFolder, archive: MemoryFolder, call: int
) -> None:
    archive.put_back({NAME: LARGE})
    disk.fault = fail_at(disk.calls + call, errno.EMFILE)
    assert "Too many open files" in archive_segment(folder, NAME, archive)
    assert folder.copy_of() == {NAME: LARGE}
    assert archive_segment(folder, NAME, archive) == ""
    assert folder.copy_of() == {}


@pytest.mark.parametrize("there", [False, True])
def test_a_disk_that_fails_is_told_and_the_segment_is_in_one_of_them(
    disk: Disk, folder: MemoryFolder, archive: MemoryFolder, there: bool
) -> None:
    number = 0
    while True:
        folder.put_back({NAME: LARGE})
        archive.put_back({NAME: LARGE} if there else {})
        disk.fault = fail_at(disk.calls + number, errno.EIO)
        try:
            archive_segment(folder, NAME, archive)
            break
        except OSError:
            number += 1
        disk.kill()
        assert archive_segment(folder, NAME, archive) == "" if folder.names() else True
        assert (folder.copy_of(), archive.copy_of()) == ({}, {NAME: LARGE})
    assert number > 2


@pytest.mark.parametrize("names", Names)
def test_a_power_cut_while_one_of_two_names_is_removed_leaves_the_archives(
    disk: Disk, folder: MemoryFolder, archive: MemoryFolder, names: Names
) -> None:
    number = 0
    cut = True
    while cut:
        folder.put_back({NAME: LARGE})
        archive.put_back({NAME: LARGE})
        disk.fault = cut_at(disk.calls + number)
        try:
            archive_segment(folder, NAME, archive)
            cut = False
        except PowerCut:
            number += 1
        disk.cut_power(Data.NONE, names)
        assert archive.copy_of() == {NAME: LARGE}
    assert number > 5


def test_two_names_of_one_file_are_made_one(tmp_path: Path) -> None:
    folder = PosixFolder.make(str(tmp_path / "p0"))
    archive = PosixFolder.make(str(tmp_path / "archive"))
    (tmp_path / "p0" / NAME).write_bytes(LARGE)
    (tmp_path / "archive" / NAME).hardlink_to(tmp_path / "p0" / NAME)
    assert archive_segment(folder, NAME, archive) == ""
    assert (folder.names(), archive.names()) == ([], [NAME])


async def _fill(place: Path, archive: Path) -> SegmentJournal:
    journal = await SegmentJournal.open_folder(
        PosixFolder.make(str(place)),
        options=StoreOptions(segment_size=4096, retention_s=0),
        archive=PosixFolder.make(str(archive)),
    )
    partition = await journal.open(0, owner="x", at=1)
    for _ in range(20):
        await partition.write(
            encode_batch(
                [encode_record(Resumed(0, place.name * 500, 1))],
                epoch=partition.epoch,
                first=partition.end,
                previous_crc=partition.crc,
            )
        )
    await partition.save_checkpoint(partition.end, b"")
    await partition.trim(partition.end)
    await journal.aclose()
    return journal


def test_two_journals_share_an_archive(tmp_path: Path) -> None:
    for name in ("a", "b"):
        journal = asyncio.run(_fill(tmp_path / name, tmp_path / "archive"))
        kept = tmp_path / "archive" / journal.id / "p0"
        segments = sorted(kept.iterdir())
        assert len(segments) > 1
        for segment in segments:
            assert segment.read_bytes()[16:32].hex() == journal.id
    assert len([*(tmp_path / "archive").iterdir()]) == 2


def test_what_cannot_be_archived_is_told_once_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = asyncio.run(_fill(tmp_path / "a", tmp_path / "archive"))
    oldest = min((tmp_path / "a" / "p0").glob("*.seg")).name
    (tmp_path / "archive" / journal.id / "p0" / oldest).write_bytes(b"another's")

    async def main() -> None:
        again = await _fill(tmp_path / "a", tmp_path / "archive")
        assert again.id == journal.id

    asyncio.run(main())
    [said] = [r.getMessage() for r in caplog.records if "archive" in r.getMessage()]
    assert said.startswith("partition 0 can't archive: ")
    assert (tmp_path / "a" / "p0" / oldest).exists()
