"""The asyncio shell: hops, the timer of a full disk, and how a handle dies."""

import asyncio
import errno
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.journals.disk import Disk, MemoryFolder, fail_at
from tests.journals.parts import make_store

from coordinator.batch import Batch, encode_batch
from coordinator.errors import (
    JournalBrokenError,
    JournalClosedError,
    JournalError,
    JournalFullError,
    JournalLockedError,
    UncertainError,
)
from coordinator.journals.segments.format import segment_name
from coordinator.journals.segments.partition import SegmentPartition
from coordinator.model import Position
from coordinator.records import Resumed, encode_record
from coordinator.testing.loop import Life, SimulatedLoop

MOMENT_S = 5e-5
"""Virtual seconds: a task has started by then, and its hop to the thread has not."""

Main = Callable[[Disk], Awaitable[None]]


def simulated(main: Main) -> Callable[[], None]:
    """Run the test in virtual time, on a disk in memory, under several orders."""

    def test() -> None:
        for seed in range(5):
            loop = SimulatedLoop(random.Random(seed), Life(0))
            try:
                loop.run_until_complete(main(Disk()))
            finally:
                loop.close()
            assert not loop.problems

    test.__name__ = main.__name__
    return test


def p0(disk: Disk) -> MemoryFolder:
    return disk.folder("/journal/p0")


async def opened(disk: Disk) -> SegmentPartition:
    return await SegmentPartition.open(
        make_store(p0(disk)),
        ThreadPoolExecutor(1),
        holder="pid 1",
        owner="test",
        at=1,
    )


def next_batch(partition: SegmentPartition, size: int = 20) -> Batch:
    return encode_batch(
        [encode_record(Resumed(0, "x" * size, 1))],
        epoch=partition.epoch,
        first=partition.end,
        previous_crc=partition.crc,
    )


@simulated
async def test_the_next_segment_is_prepared_behind_a_write_and_not_within(
    disk: Disk,
) -> None:
    partition = await opened(disk)
    await partition.write(next_batch(partition, 2500))
    assert disk.log[-2:] == ["write", "sync"]
    await partition.aclose()
    assert disk.log[-2:] == ["create", "allocate"]


@simulated
async def test_a_full_disk_is_asked_again_once_a_second_until_there_is_space(
    disk: Disk,
) -> None:
    partition = await opened(disk)
    disk.space = 0
    await partition.write(next_batch(partition, 2500))
    await asyncio.sleep(0.5)
    assert "0 are free" in partition.full
    calls = disk.calls
    await asyncio.sleep(10)
    assert disk.calls == calls + 10
    disk.space = 1 << 20
    await asyncio.sleep(1.1)
    # Nothing was written meanwhile: it recovered by itself, and is quiet again.
    assert partition.full == ""
    calls = disk.calls
    await asyncio.sleep(10)
    assert disk.calls == calls
    await partition.write(next_batch(partition, 2500))
    await partition.aclose()


@simulated
async def test_a_full_disk_leaves_the_handle_alive(disk: Disk) -> None:
    partition = await opened(disk)
    disk.space = 0
    await partition.write(next_batch(partition, 2500))
    for _ in range(3):
        with pytest.raises(JournalFullError):
            await partition.write(next_batch(partition, 2500))
    disk.space = 1 << 20
    await partition.write(next_batch(partition, 2500))
    with pytest.raises(JournalFullError):
        await _with_space(disk, 10, partition.save_checkpoint(Position(1), b"x" * 20))
    await partition.save_checkpoint(Position(1), b"x" * 20)
    await partition.aclose()


async def _with_space(disk: Disk, space: int, call: Awaitable[None]) -> None:
    disk.space, before = space, disk.space
    try:
        await call
    finally:
        disk.space = before


@simulated
async def test_a_closed_partition_asks_a_full_disk_no_more(disk: Disk) -> None:
    partition = await opened(disk)
    disk.space = 0
    await partition.write(next_batch(partition, 2500))
    await asyncio.sleep(0.5)
    timer = partition._timer
    assert timer is not None
    await partition.aclose()
    await partition.aclose()
    assert timer.cancelled()
    calls = disk.calls
    await asyncio.sleep(10)
    assert disk.calls == calls


@simulated
async def test_a_failed_write_kills_the_handle_for_ever(disk: Disk) -> None:
    partition = await opened(disk)
    disk.fault = fail_at(disk.calls + 1, errno.EIO)
    for _ in range(3):
        with pytest.raises(JournalBrokenError, match="could not append"):
            await partition.write(next_batch(partition))
    with pytest.raises(JournalBrokenError):
        await partition.save_checkpoint(Position(0), b"")
    with pytest.raises(JournalBrokenError):
        await partition.trim(Position(0))
    await partition.aclose()


@simulated
async def test_a_failed_preparation_kills_the_handle_and_is_told_at_once(
    disk: Disk,
) -> None:
    partition = await opened(disk)
    told: list[JournalError] = []
    partition.watch(told.append)
    disk.fault = fail_at(disk.calls + 2, errno.EIO)
    await partition.write(next_batch(partition, 2500))
    await asyncio.sleep(1)
    # Nothing was written since.
    [death] = told
    assert isinstance(death, JournalBrokenError)
    assert "allocate the next segment" in str(death)
    with pytest.raises(JournalBrokenError, match="allocate the next segment"):
        await partition.write(next_batch(partition))
    await partition.aclose()


@simulated
async def test_who_watches_a_handle_that_died_by_itself_is_told_then(
    disk: Disk,
) -> None:
    partition = await opened(disk)
    disk.fault = fail_at(disk.calls + 2, errno.EIO)
    await partition.write(next_batch(partition, 2500))
    await asyncio.sleep(1)
    told: list[JournalError] = []
    for _ in range(2):
        partition.watch(told.append)
    assert [type(death) for death in told] == [JournalBrokenError]
    await partition.aclose()


@simulated
async def test_what_a_call_raises_is_said_by_the_call_alone(disk: Disk) -> None:
    partition = await opened(disk)
    told: list[JournalError] = []
    partition.watch(told.append)
    disk.fault = fail_at(disk.calls, errno.EIO)
    with pytest.raises(JournalBrokenError):
        await partition.write(next_batch(partition, 2500))
    await asyncio.sleep(1)
    assert told == []
    await partition.aclose()


@simulated
async def test_what_fails_behind_a_close_is_told_to_nobody(disk: Disk) -> None:
    partition = await opened(disk)
    told: list[JournalError] = []
    partition.watch(told.append)
    disk.fault = fail_at(disk.calls + 2, errno.EIO)
    await partition.write(next_batch(partition, 2500))
    await partition.aclose()
    await asyncio.sleep(1)
    assert told == []


@simulated
async def test_a_failed_checkpoint_kills_the_handle(disk: Disk) -> None:
    partition = await opened(disk)
    disk.fault = fail_at(disk.calls + 3, errno.EIO)
    with pytest.raises(JournalBrokenError):
        await partition.save_checkpoint(Position(0), b"")
    with pytest.raises(JournalBrokenError, match="save the checkpoint"):
        await partition.write(next_batch(partition))
    await partition.aclose()


@simulated
async def test_a_failed_read_kills_the_handle(disk: Disk) -> None:
    partition = await opened(disk)
    disk.fault = fail_at(disk.calls + 1, errno.EIO)
    with pytest.raises(JournalBrokenError, match="could not read"):
        await anext(partition.read(Position(0)))
    with pytest.raises(JournalBrokenError):
        await partition.write(next_batch(partition))
    await partition.aclose()


@simulated
async def test_reading_takes_large_batches_a_few_at_a_time(disk: Disk) -> None:
    partition = await opened(disk)
    for _ in range(5):
        await partition.write(next_batch(partition, 3_000_000))
    await partition.aclose()
    partition = await opened(disk)
    batches = [batch async for batch in partition.read(Position(0))]
    assert len(batches) == 7
    await partition.aclose()


@simulated
async def test_a_write_waits_for_a_few_segments_of_a_trim_and_not_for_all(
    disk: Disk,
) -> None:
    partition = await opened(disk)
    for _ in range(40):
        await partition.write(next_batch(partition, 3500))
    await partition.save_checkpoint(partition.end, b"")
    begun = len(disk.log)
    async with asyncio.TaskGroup() as group:
        group.create_task(partition.trim(partition.end))
        await asyncio.sleep(MOMENT_S)
        await partition.write(next_batch(partition))
        removed = disk.log[begun:].count("remove")
    assert removed <= 8
    assert disk.log[begun:].count("remove") > 30
    await partition.aclose()


@simulated
async def test_a_trim_ends_when_the_partition_is_closed(disk: Disk) -> None:
    partition = await opened(disk)
    for _ in range(40):
        await partition.write(next_batch(partition, 3500))
    await partition.save_checkpoint(partition.end, b"")
    async with asyncio.TaskGroup() as group:
        trimming = group.create_task(_until_closed(partition.trim(partition.end)))
        await asyncio.sleep(MOMENT_S)
        await partition.aclose()
    assert trimming.done()


async def _until_closed(work: Awaitable[None]) -> None:
    with pytest.raises(JournalClosedError):
        await work


@simulated
async def test_a_failed_opening_gives_the_lock_back(disk: Disk) -> None:
    partition = await opened(disk)
    with pytest.raises(JournalLockedError, match="pid 1"):
        await opened(disk)
    await partition.aclose()
    disk.fault = fail_at(disk.calls + 5, errno.EIO)
    with pytest.raises(JournalBrokenError):
        await opened(disk)
    partition = await opened(disk)
    await partition.aclose()


@simulated
async def test_a_cancelled_opening_gives_the_lock_back(disk: Disk) -> None:
    async with asyncio.TaskGroup() as group:
        opening = group.create_task(opened(disk))
        await asyncio.sleep(MOMENT_S)
        opening.cancel()
    assert opening.cancelled()
    partition = await opened(disk)
    await partition.aclose()


@simulated
async def test_a_handle_whose_write_was_cancelled_is_uncertain_until_it_is_closed(
    disk: Disk,
) -> None:
    partition = await opened(disk)
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(partition.write(next_batch(partition, 2500)))
        await asyncio.sleep(MOMENT_S)
        writing.cancel()
    with pytest.raises(UncertainError, match="position 1 landed"):
        await partition.write(next_batch(partition))
    await partition.aclose()
    with pytest.raises(UncertainError):
        await partition.load_checkpoint()


@simulated
async def test_a_cancelled_close_goes_on(disk: Disk) -> None:
    partition = await opened(disk)
    async with asyncio.TaskGroup() as group:
        closing = group.create_task(partition.aclose())
        await asyncio.sleep(MOMENT_S)
        closing.cancel()
    with pytest.raises(JournalClosedError):
        await partition.write(next_batch(partition))
    await asyncio.sleep(1)
    partition = await opened(disk)
    await partition.aclose()


def test_a_torn_tail_that_was_cut_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        disk = Disk()
        partition = await opened(disk)
        await partition.aclose()
        p0(disk).bytes_of(segment_name(0))[200:204] = b"torn"
        partition = await opened(disk)
        await partition.aclose()

    asyncio.run(main())
    assert "ended in the middle of a batch" in caplog.text
