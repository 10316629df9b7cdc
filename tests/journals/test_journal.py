"""The folder: made once, described for ever, refused when it is something else."""

import asyncio
import errno
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

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
from tests.journals.parts import SMALL, Clock

from coordinator.errors import (
    JournalBrokenError,
    JournalDamagedError,
    JournalFormatError,
    JournalFullError,
    JournalLockedError,
)
from coordinator.journals.segments.format import segment_name
from coordinator.journals.segments.journal import (
    SegmentJournal,
    read_journal_file,
    told_by_segments,
)

T = TypeVar("T")

ID = bytes(range(16))


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(main)


async def opened(folder: MemoryFolder, partitions: int | None = None) -> SegmentJournal:
    return await SegmentJournal.open_folder(
        folder,
        partitions=partitions,
        options=SMALL,
        clock=Clock(),
        new_id=lambda: ID,
        process="pid 1",
    )


def test_a_new_journal_describes_itself() -> None:
    folder = Disk().folder()
    journal = run(opened(folder, 3))
    assert (journal.id, journal.partitions) == (ID.hex(), 3)
    assert bytes(folder.bytes_of("journal.json")) == (
        b'{"format":1,"id":"000102030405060708090a0b0c0d0e0f","partitions":3}\n'
    )
    for partition in map(folder.folder, ("p0", "p1", "p2")):
        assert [*partition.names()] == [segment_name(0)]
        assert len(partition.bytes_of(segment_name(0))) == 64


def test_the_number_of_partitions_is_one_if_nobody_says_and_fixed_then() -> None:
    folder = Disk().folder()
    assert run(opened(folder)).partitions == 1
    with pytest.raises(JournalFormatError, match="has 1 partitions, not 2"):
        run(opened(folder, 2))


@pytest.mark.parametrize("names", Names)
@pytest.mark.parametrize("data", Data)
def test_a_power_cut_while_it_is_made_leaves_a_journal_or_nothing(
    data: Data, names: Names
) -> None:
    number = 0
    made = False
    while not made:
        disk = Disk()
        disk.fault = cut_at(number)
        try:
            run(opened(disk.folder(), 2))
            made = True
        except PowerCut:
            number += 1
        disk.cut_power(data, names)
        journal = run(opened(disk.folder(), 2))
        assert journal.partitions == 2
        run(claimed(journal, 2))
        disk.cut_power(Data.NONE, Names.NONE)
        run(claimed(run(opened(disk.folder(), 2)), 2))
    assert number > 15


@pytest.mark.parametrize("failure", ["killed", "EIO"])
def test_a_name_that_was_not_synced_is_not_trusted_by_the_next_process(
    failure: str,
) -> None:
    number = 0
    made = False
    while not made:
        disk = Disk()
        disk.fault = cut_at(number) if failure == "killed" else fail_at(number, 5)
        try:
            run(opened(disk.folder(), 2))
            made = True
        except (PowerCut, JournalBrokenError):
            number += 1
        disk.kill()
        run(claimed(run(opened(disk.folder(), 2)), 2))
        disk.cut_power(Data.NONE, Names.NONE)
        assert run(epoch_of(disk)) == 2
    assert number > 13


async def epoch_of(disk: Disk) -> int:
    journal = await opened(disk.folder(), 2)
    partition = await journal.open(1, owner="x", at=1)
    await journal.aclose()
    return partition.epoch


async def claimed(journal: SegmentJournal, partitions: int) -> None:
    """Open every partition, and close it again."""
    for number in range(partitions):
        partition = await journal.open(number, owner="x", at=1)
        await partition.aclose()


def without_its_description(disk: Disk) -> MemoryFolder:
    run(opened(disk.folder(), 2))
    disk.folder().remove("journal.json")
    return disk.folder()


def test_what_a_making_that_was_cut_off_left_is_made_anew() -> None:
    folder = without_its_description(Disk())
    folder.folder("p1").put_back({})
    other = SegmentJournal.open_folder(folder, new_id=lambda: bytes(16), partitions=2)
    run(claimed(run(other), 2))


@pytest.mark.parametrize("was", ["opened", "held", "larger", "a file"])
def test_a_partition_of_a_journal_that_lost_its_description_is_no_leftover(
    was: str,
) -> None:
    folder = without_its_description(Disk())
    p1 = folder.folder("p1")
    match was:
        case "opened":
            folder = Disk().folder()
            run(claimed(run(opened(folder, 2)), 2))
            folder.remove("journal.json")
        case "held":
            p1.put_back({**p1.copy_of(), "LOCK": b""})
        case "larger":
            p1.bytes_of(segment_name(0)).extend(b"\0")
        case _:
            folder.remove_folder("p1")
            folder.create("p1")
    before = folder.copy_of()
    with pytest.raises(JournalFormatError, match=r"no journal.json, but p[01]"):
        run(opened(folder, 2))
    assert folder.copy_of() == before


def test_a_journal_that_somebody_made_and_opened_meanwhile_is_no_stranger() -> None:
    disk = Disk()
    made: list[SegmentJournal] = []

    def meanwhile(_: int, name: str) -> None:
        if name == "names" and not made:
            disk.fault = lambda _call, _name: None
            made.append(run_in_thread(opened(disk.folder(), 2)))
            run_in_thread(claimed(made[0], 2))

    disk.fault = meanwhile
    assert run(opened(disk.folder(), 2)).id == made[0].id


def run_in_thread(main: Coroutine[Any, Any, T]) -> T:
    with ThreadPoolExecutor(1) as executor:
        return executor.submit(asyncio.run, main).result()


@pytest.mark.parametrize("gone", ["folder", "segment"])
def test_a_partition_that_is_gone_or_empty_is_damage_and_not_new(gone: str) -> None:
    async def main() -> None:
        disk = Disk()
        journal = await opened(disk.folder(), 2)
        if gone == "folder":
            disk.folder().remove_folder("p1")
        else:
            disk.folder().folder("p1").put_back({})
        await claimed(journal, 1)
        with pytest.raises(JournalDamagedError, match="/journal/p1 is damaged"):
            await journal.open(1, owner="x", at=1)

    run(main())


def test_the_id_is_durable_once_it_was_told() -> None:
    disk = Disk()
    run(opened(disk.folder()))
    disk.cut_power(Data.NONE, Names.NONE)
    again = SegmentJournal.open_folder(disk.folder(), new_id=lambda: bytes(16))
    assert run(again).id == ID.hex()


def test_an_id_is_given_once_although_two_make_it_at_the_same_time() -> None:
    disk = Disk()
    folder = disk.folder()
    run(opened(folder, 2))
    made = bytes(folder.bytes_of("journal.json")).replace(b"00", b"ff", 1)
    other = Disk()

    def somebody_else_was_quicker(_: int, name: str) -> None:
        if name == "lock":
            other.folder().put_back({"journal.json": made})

    other.fault = somebody_else_was_quicker
    assert run(opened(other.folder(), 2)).id == "ff" + ID.hex()[2:]


def test_somebody_who_is_making_it_is_not_disturbed() -> None:
    disk = Disk()
    lock = disk.folder().lock("LOCK", "the other")
    impatient = SegmentJournal.open_folder(disk.folder(), patience_s=0)
    with pytest.raises(JournalLockedError, match="the other"):
        run(impatient)
    lock.release()
    run(opened(disk.folder()))


def test_somebody_who_is_making_it_is_waited_for() -> None:
    disk = Disk()
    lock = disk.folder().lock("LOCK", "the other")

    def done(_: int, name: str) -> None:
        if name == "lock" and disk.log.count("lock") == 4:
            lock.release()

    disk.fault = done
    run(opened(disk.folder()))
    assert disk.log.count("lock") == 4


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (b"", "truncated"),
        (b"{", "truncated"),
        (b'{"format":1}', "missing required field"),
        (b'{"format":1,"id":"xyz","partitions":1}', "hexadecimal"),
        (b'{"format":1,"id":"00","partitions":1}', "it says"),
        (b'{"format":1,"id":"%s","partitions":0}' % (b"00" * 16), "it says"),
    ],
)
def test_a_description_that_cannot_be_read_is_damage(text: bytes, problem: str) -> None:
    folder = Disk().folder()
    folder.put_back({"journal.json": text})
    with pytest.raises(JournalDamagedError, match=problem):
        run(opened(folder))


def test_a_newer_description_is_not_called_damaged() -> None:
    folder = Disk().folder()
    text = b'{"format":2,"id":"%s","partitions":1,"more":[]}' % (b"00" * 16)
    folder.put_back({"journal.json": text})
    with pytest.raises(JournalFormatError, match="format 2; this version reads"):
        run(opened(folder))


def test_a_folder_of_other_things_is_refused_and_left_alone() -> None:
    folder = Disk().folder()
    folder.put_back({"notes.txt": b"mine"})
    with pytest.raises(JournalFormatError, match=r"not a journal.*notes.txt"):
        run(opened(folder))
    assert folder.copy_of() == {"notes.txt": b"mine"}
    assert read_journal_file(folder) is None


@pytest.mark.parametrize("number", range(14))
def test_a_disk_that_fails_while_it_is_made_is_told(number: int) -> None:
    disk = Disk()
    disk.fault = fail_at(number, errno.EIO)
    with pytest.raises(JournalBrokenError, match="Input/output"):
        run(opened(disk.folder()))
    disk.kill()
    run(opened(disk.folder()))


@pytest.mark.parametrize("number", range(21))
def test_a_disk_too_full_for_a_new_journal_is_no_failure_of_it(number: int) -> None:
    async def main() -> None:
        disk = Disk()
        disk.fault = fail_at(number, errno.ENOSPC)
        with pytest.raises(JournalFullError, match="No space left"):
            await make(disk)
        disk.kill()
        await make(disk)

    async def make(disk: Disk) -> None:
        journal = await opened(disk.folder())
        assert (await journal.open(0, owner="x", at=1)).epoch == 1
        await journal.aclose()

    run(main())


def test_a_disk_that_fails_while_a_partition_is_opened_is_told() -> None:
    async def main() -> None:
        disk = Disk()
        journal = await opened(disk.folder())
        disk.fault = fail_at(disk.calls, errno.EIO)
        with pytest.raises(JournalBrokenError, match="Input/output"):
            await journal.open(0, owner="x", at=1)
        disk.space = 0
        with pytest.raises(JournalFullError):
            await journal.open(0, owner="x", at=1)
        await journal.aclose()

    run(main())


def test_a_partition_that_is_held_names_who_and_since_when() -> None:
    async def main() -> None:
        folder = Disk().folder()
        journal = await opened(folder)
        await journal.open(0, owner="version 1", at=1_700_000_000_000_000)
        with pytest.raises(
            JournalLockedError, match=r"pid 1 \(version 1\) since 2023-11-14T22:13:20"
        ):
            await (await opened(folder)).open(0, owner="version 2", at=2)
        await journal.aclose()

    run(main())


def test_a_holder_that_is_its_own_owner_is_named_once() -> None:
    async def main() -> None:
        folder = Disk().folder()
        journal = await opened(folder)
        await journal.open(0, owner="pid 1", at=0)
        with pytest.raises(JournalLockedError, match="by pid 1 since 1970"):
            await (await opened(folder)).open(0, owner="pid 2", at=2)
        await journal.aclose()

    run(main())


def test_a_partition_that_does_not_exist_is_a_bug() -> None:
    async def main() -> None:
        journal = await opened(Disk().folder(), 2)
        for number in (-1, 2):
            with pytest.raises(AssertionError):
                await journal.open(number, owner="x", at=1)

    run(main())


def test_by_default_every_journal_has_an_id_and_a_clock_of_its_own() -> None:
    async def main() -> None:
        folders = [Disk().folder() for _ in range(2)]
        journals = [await SegmentJournal.open_folder(folder) for folder in folders]
        assert journals[0].id != journals[1].id
        partition = await journals[0].open(0, owner="x", at=1)
        assert partition.epoch == 1
        await journals[0].aclose()

    run(main())


def test_a_segment_whose_header_is_damaged_tells_nothing() -> None:
    folder = Disk().folder()
    file = folder.make_folder("p0").create("00000000000000000000.seg")
    file.write(0, bytes(64))
    file.close()
    assert list(told_by_segments(folder)) == []
