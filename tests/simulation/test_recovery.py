"""What is done to copies of a disk is noticed, and leaves the disk as it is."""

import random

import pytest
from tests.simulation import recovery
from tests.simulation.contents import Directory, Inode
from tests.simulation.disk import Disk
from tests.simulation.plan import Plan, draw_plan
from tests.simulation.recovery import copy_to_archive, refused_if_forked

from coordinator.journals.chain import Chain, Verdict

JOURNAL_ID = bytes(16)


@pytest.fixture
def plan() -> Plan:
    return draw_plan(0)


@pytest.fixture
def disk(plan: Plan) -> Disk:
    """One journal, opened once: it holds a claim."""
    disk = Disk(random.Random(0))
    recovery._recover(disk, plan, JOURNAL_ID)
    return disk


def test_a_foreign_batch_is_refused_and_the_disk_stays_as_it_was(
    disk: Disk, plan: Plan
) -> None:
    files = disk.root.folders["p0"].names
    before = {name: bytes(inode.cache) for name, inode in files.items()}
    assert refused_if_forked(disk, plan, JOURNAL_ID, random.Random(0)) == ""
    assert disk.counts["foreign batch"] == 1
    assert {name: bytes(inode.cache) for name, inode in files.items()} == before


def test_a_foreign_batch_that_is_taken_for_ours_is_told(
    disk: Disk, plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = Chain.take

    def take_any(chain: Chain, batch: object) -> Verdict:
        verdict = take(chain, batch)  # type: ignore[arg-type]  # it is one
        return Verdict.STALE if verdict is Verdict.UNCHAINED else verdict

    monkeypatch.setattr(Chain, "take", take_any)
    problem = refused_if_forked(disk, plan, JOURNAL_ID, random.Random(0))
    assert "nobody noticed" in problem


def test_a_disk_without_a_segment_can_not_be_forked(plan: Plan) -> None:
    disk = Disk(random.Random(0))
    assert refused_if_forked(disk, plan, JOURNAL_ID, random.Random(0)) == ""
    assert disk.counts["foreign batch"] == 0


def test_segments_are_copied_into_the_archive_and_not_over_what_is_there() -> None:
    disk = Disk(random.Random(0))
    archive = Directory("/simulated/archive/id/p0")
    folder = Directory("/simulated/p0")
    disk.root.folders |= {"archive": archive, "p0": folder}
    for base in range(3):
        folder.names[f"{base:020}.seg"] = Inode(cache=bytearray(b"new"))
    archive.names[f"{0:020}.seg"] = Inode(cache=bytearray(b"old"))
    copy_to_archive(disk, random.Random(0))
    contents = {name: bytes(inode.cache) for name, inode in archive.names.items()}
    assert contents[f"{0:020}.seg"] == b"old"
    assert contents[f"{1:020}.seg"] == b"new"
