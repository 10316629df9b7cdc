"""Format 1 is what it was: written the same, byte for byte, and read."""

import asyncio
import shutil
from itertools import chain
from pathlib import Path

import pytest
from tests.golden.make import FILES, FOLDER, JOURNAL_ID, RECORDS

from coordinator.journals.segments.inspect import dump, info, verify
from coordinator.journals.segments.posix import PosixFolder
from coordinator.journals.urls import open_journal
from coordinator.model import Position
from coordinator.records import Claimed, Record

ALL: list[Record] = [*chain.from_iterable(chain.from_iterable(RECORDS))]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Copy the golden journal, for it is written to when it is opened."""
    return Path(shutil.copytree(FOLDER, tmp_path / "journal"))


def test_this_version_writes_the_same_bytes() -> None:
    kept = {
        str(path.relative_to(FOLDER)): path.read_bytes()
        for path in FOLDER.rglob("*")
        if path.is_file()
    }
    assert kept == FILES


def test_this_version_reads_them_without_touching_them(copy: Path) -> None:
    folder = PosixFolder(str(copy))
    assert info(folder).id == JOURNAL_ID.hex()
    [report] = verify(folder)
    assert report.problems == ()
    assert report.epochs == (1, 2)
    entries = list(dump(folder))
    assert [entry.record for entry in entries] == ALL
    assert [entry.position for entry in entries] == [*range(len(ALL))]


def test_this_version_goes_on_with_them(copy: Path) -> None:
    async def main() -> None:
        journal = await open_journal(f"file:{copy}")
        partition = await journal.open(0, owner="now", at=1)
        assert (partition.epoch, partition.end) == (3, len(ALL) + 1)
        assert await partition.load_checkpoint() == b"the engine's"
        records = [
            record
            async for batch in partition.read(Position(0))
            for _, record in batch.records()
        ]
        assert records == [*ALL, Claimed(3, "now", 1)]
        await journal.aclose()

    asyncio.run(main())
