"""Every sentence of `coordinator.ports`, asked of every backend."""

import asyncio
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conformance.backends import BACKENDS, Reopen

from coordinator.batch import Batch, encode_batch
from coordinator.errors import (
    JournalClosedError,
    JournalLockedError,
    UncertainError,
)
from coordinator.model import Position
from coordinator.ports import Journal, Partition
from coordinator.records import Claimed, Resumed, encode_record

T = TypeVar("T")

START = Position(0)


@pytest.fixture(params=sorted(BACKENDS))
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Reopen:
    return BACKENDS[request.param](tmp_path / "journal", 2)


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(main)


async def open_partition(journal: Journal, number: int = 0) -> Partition:
    return await journal.open(number, owner="test", at=1_700_000_000_000_000)


def next_batch(partition: Partition, *texts: str) -> Batch:
    return encode_batch(
        [encode_record(Resumed(0, text, 1)) for text in texts],
        epoch=partition.epoch,
        first=partition.end,
        previous_crc=partition.crc,
    )


async def write(partition: Partition, *texts: str) -> Batch:
    batch = next_batch(partition, *texts)
    await partition.write(batch)
    return batch


async def read(partition: Partition, since: int = 0) -> list[Batch]:
    return [batch async for batch in partition.read(Position(since))]


def texts(batches: list[Batch]) -> list[str]:
    return [
        record.by
        for batch in batches
        for _, record in batch.records()
        if isinstance(record, Resumed)
    ]


def test_a_new_partition_holds_its_claim_and_nothing_else(reopen: Reopen) -> None:
    async def main() -> None:
        journal = await reopen()
        partition = await open_partition(journal)
        [claim] = await read(partition)
        [(position, record)] = claim.records()
        assert position == 0
        assert record == Claimed(1, "test", 1_700_000_000_000_000)
        assert (partition.number, partition.epoch, partition.end) == (0, 1, 1)
        assert partition.crc == claim.crc
        assert partition.full == journal.full == ""
        await (await reopen()).aclose()

    run(main())


def test_what_was_written_is_there_after_opening_again(reopen: Reopen) -> None:
    async def main() -> None:
        partition = await open_partition(await reopen())
        written = [await write(partition, str(n)) for n in range(300)]
        partition = await open_partition(await reopen())
        batches = await read(partition)
        assert batches[1:-1] == written
        assert texts(batches) == [str(n) for n in range(300)]
        await partition.aclose()

    run(main())


def test_a_written_batch_lies_exactly_behind_the_last_one(reopen: Reopen) -> None:
    async def main() -> None:
        partition = await open_partition(await reopen())
        for count in range(1, 20):
            batch = await write(partition, *map(str, range(count)))
            assert partition.end == batch.end
            assert partition.crc == batch.crc
        partition = await open_partition(await reopen())
        end, crc = 0, 0
        for batch in await read(partition):
            assert batch.first == end
            assert batch.previous_crc == crc
            end, crc = batch.end, batch.crc
        assert (partition.end, partition.crc) == (end, crc)
        await partition.aclose()

    run(main())


def test_each_opening_has_a_larger_epoch_and_says_so_in_its_claim(
    reopen: Reopen,
) -> None:
    async def main() -> None:
        for epoch in range(1, 5):
            partition = await open_partition(await reopen())
            assert partition.epoch == epoch
            *_, claim = await read(partition)
            [(_, record)] = claim.records()
            assert isinstance(record, Claimed)
            assert record.epoch == claim.epoch == epoch
            await write(partition, "x")
        await (await reopen()).aclose()

    run(main())


def test_reading_starts_with_the_batch_that_holds_the_position(
    reopen: Reopen,
) -> None:
    async def main() -> None:
        partition = await open_partition(await reopen())
        for n in range(60):
            await write(partition, *[f"{n} {'x' * 50}"] * 3)
        partition = await open_partition(await reopen())
        everything = await read(partition)
        for since in range(partition.end):
            expected = [batch for batch in everything if batch.end > since]
            assert await read(partition, since) == expected
        assert await read(partition, partition.end) == []
        await partition.aclose()

    run(main())


def test_reading_ends_at_our_own_claim(reopen: Reopen) -> None:
    async def main() -> None:
        partition = await open_partition(await reopen())
        await write(partition, "before")
        partition = await open_partition(await reopen())
        claimed = partition.end
        await write(partition, "behind")
        batches = await read(partition)
        assert texts(batches) == ["before"]
        assert batches[-1].end == claimed
        assert await read(partition, claimed) == []
        await partition.aclose()

    run(main())


def test_reading_may_stop_anywhere_and_start_again(reopen: Reopen) -> None:
    async def main() -> None:
        partition = await open_partition(await reopen())
        for n in range(50):
            await write(partition, str(n))
        partition = await open_partition(await reopen())
        async for batch in partition.read(START):
            if batch.first > 10:
                break
        one, other = partition.read(START), partition.read(START)
        pairs = [(batch, await anext(other)) async for batch in one]
        assert all(a == b for a, b in pairs)
        assert len(pairs) == 52
        await partition.aclose()

    run(main())


def test_a_batch_may_be_of_any_size(reopen: Reopen) -> None:
    async def main() -> None:
        partition = await open_partition(await reopen())
        sizes = (10, 3000, 5000, 70, 100_000, 1, 4096, 2_500_000, 5)
        for size in sizes:
            await write(partition, "x" * size)
        partition = await open_partition(await reopen())
        assert [len(text) for text in texts(await read(partition))] == list(sizes)
        await partition.aclose()

    run(main())


def test_a_closed_handle_says_so(reopen: Reopen) -> None:
    async def main() -> None:
        journal = await reopen()
        partition = await open_partition(journal)
        batch = next_batch(partition, "x")
        await partition.aclose()
        await partition.aclose()
        with pytest.raises(JournalClosedError):
            await partition.write(batch)
        with pytest.raises(JournalClosedError):
            await read(partition)
        with pytest.raises(JournalClosedError):
            await partition.save_checkpoint(START, b"")
        with pytest.raises(JournalClosedError):
            await partition.load_checkpoint()
        with pytest.raises(JournalClosedError):
            await partition.trim(START)

    run(main())


def test_closing_waits_for_a_write_in_flight(reopen: Reopen) -> None:
    async def main() -> None:
        partition = await open_partition(await reopen())
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write(partition, "x"))
            await asyncio.sleep(0)
            await partition.aclose()
        written = writing.result()
        partition = await open_partition(await reopen())
        assert written in await read(partition)
        await partition.aclose()

    run(main())


def test_closing_a_handle_again_does_not_take_the_partition_from_another(
    reopen: Reopen,
) -> None:
    async def main() -> None:
        journal = await reopen()
        old = await open_partition(journal)
        await old.aclose()
        new = await open_partition(journal)
        await old.aclose()
        with pytest.raises(JournalLockedError):
            await open_partition(journal)
        await new.aclose()

    run(main())


def test_a_cancelled_write_kills_the_handle_and_leaves_the_batch_or_nothing(
    reopen: Reopen,
) -> None:
    async def main() -> None:
        partition = await open_partition(await reopen())
        await write(partition, "kept")
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(write(partition, "perhaps"))
            await asyncio.sleep(0)
            writing.cancel()
        assert writing.cancelled()
        for _ in range(2):
            with pytest.raises(UncertainError):
                await partition.write(next_batch(partition, "never"))
        partition = await open_partition(await reopen())
        assert texts(await read(partition)) in (["kept"], ["kept", "perhaps"])
        await write(partition, "later")
        await partition.aclose()

    run(main())


@pytest.mark.parametrize("wrong", ["position", "crc", "epoch"])
def test_a_batch_that_does_not_belong_there_is_a_bug(
    reopen: Reopen, wrong: str
) -> None:
    async def main() -> None:
        partition = await open_partition(await reopen())
        batch = encode_batch(
            [encode_record(Resumed(0, "x", 1))],
            epoch=partition.epoch + (wrong == "epoch"),
            first=partition.end + (wrong == "position"),
            previous_crc=partition.crc ^ (wrong == "crc"),
        )
        with pytest.raises(AssertionError):
            await partition.write(batch)
        await write(partition, "right")
        await partition.aclose()

    run(main())


def test_two_writes_at_once_are_a_bug(reopen: Reopen) -> None:
    async def main() -> None:
        partition = await open_partition(await reopen())
        batch = next_batch(partition, "x")
        async with asyncio.TaskGroup() as group:
            group.create_task(partition.write(batch))
            await asyncio.sleep(0)
            with pytest.raises(AssertionError, match="one write at a time"):
                await partition.write(batch)
        await partition.aclose()

    run(main())


def test_there_is_no_checkpoint_until_one_is_saved(reopen: Reopen) -> None:
    async def main() -> None:
        partition = await open_partition(await reopen())
        assert await partition.load_checkpoint() is None
        await partition.aclose()

    run(main())


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_the_last_saved_checkpoint_is_loaded(reopen: Reopen, size: int) -> None:
    async def main() -> None:
        partition = await open_partition(await reopen())
        await partition.save_checkpoint(START, b"before")
        await partition.save_checkpoint(partition.end, bytes(size))
        assert await partition.load_checkpoint() == bytes(size)
        partition = await open_partition(await reopen())
        assert await partition.load_checkpoint() == bytes(size)
        await partition.aclose()

    run(main())


def test_a_cancelled_checkpoint_is_the_old_one_or_the_new_one(reopen: Reopen) -> None:
    async def main() -> None:
        partition = await open_partition(await reopen())
        await partition.save_checkpoint(START, b"old")
        async with asyncio.TaskGroup() as group:
            saving = group.create_task(partition.save_checkpoint(START, b"new"))
            await asyncio.sleep(0)
            saving.cancel()
        assert await partition.load_checkpoint() in (b"old", b"new")
        await write(partition, "alive")
        partition = await open_partition(await reopen())
        assert await partition.load_checkpoint() in (b"old", b"new")
        await partition.aclose()

    run(main())


def test_a_trim_takes_nothing_from_the_checkpoint_on(reopen: Reopen) -> None:
    async def main() -> None:
        partition = await open_partition(await reopen())
        for n in range(200):
            await write(partition, f"{n} {'x' * 100}")
        low = Position(150)
        await partition.save_checkpoint(low, b"")
        for _ in range(3):
            await partition.trim(low)
        await write(partition, "on it goes")
        partition = await open_partition(await reopen())
        kept = await read(partition)
        assert 0 < kept[0].first <= low
        assert texts(kept)[-1] == "on it goes"
        assert await read(partition, low) == [b for b in kept if b.end > low]
        assert partition.epoch == 2
        await partition.aclose()

    run(main())


def test_nothing_is_trimmed_without_a_checkpoint(reopen: Reopen) -> None:
    async def main() -> None:
        partition = await open_partition(await reopen())
        for n in range(200):
            await write(partition, f"{n} {'x' * 100}")
        await partition.trim(partition.end)
        partition = await open_partition(await reopen())
        assert len(texts(await read(partition))) == 200
        await partition.aclose()

    run(main())


def test_everything_may_be_trimmed_and_the_positions_go_on(reopen: Reopen) -> None:
    async def main() -> None:
        for epoch in range(1, 6):
            partition = await open_partition(await reopen())
            assert partition.epoch == epoch
            assert partition.end == (epoch - 1) * 31 + 1
            for n in range(30):
                await write(partition, f"{n} {'x' * 100}")
            await partition.save_checkpoint(partition.end, b"")
            await partition.trim(partition.end)
        await (await reopen()).aclose()

    run(main())


def test_a_partition_is_opened_once_and_the_holder_is_named(reopen: Reopen) -> None:
    async def main() -> None:
        journal = await reopen()
        first = await journal.open(0, owner="the first", at=1)
        with pytest.raises(JournalLockedError, match="the first"):
            await journal.open(0, owner="the second", at=2)
        await write(first, "x")
        await first.aclose()
        second = await journal.open(0, owner="the second", at=2)
        assert second.epoch == 2
        await second.aclose()

    run(main())


def test_partitions_know_nothing_of_one_another(reopen: Reopen) -> None:
    async def main() -> None:
        journal = await reopen()
        zero, one = await open_partition(journal, 0), await open_partition(journal, 1)
        assert (zero.number, one.number) == (0, 1)
        async with asyncio.TaskGroup() as group:
            group.create_task(write(zero, "zero"))
            group.create_task(write(one, "one"))
        await zero.save_checkpoint(START, b"zero")
        await zero.aclose()
        await write(one, "still open")
        journal = await reopen()
        zero, one = await open_partition(journal, 0), await open_partition(journal, 1)
        assert texts(await read(zero)) == ["zero"]
        assert texts(await read(one)) == ["one", "still open"]
        assert await one.load_checkpoint() is None
        await journal.aclose()

    run(main())


def test_a_journal_keeps_its_id_and_its_number_of_partitions(reopen: Reopen) -> None:
    async def main() -> None:
        journal = await reopen()
        journal_id = journal.id
        assert len(journal_id) == 32
        assert journal.partitions == 2
        journal = await reopen()
        assert journal.id == journal_id
        assert journal.partitions == 2
        await journal.aclose()

    run(main())


@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_no_two_journals_have_one_id(backend: str, tmp_path: Path) -> None:
    async def main() -> None:
        journals = [await BACKENDS[backend](tmp_path / str(n), 1)() for n in range(10)]
        assert len({journal.id for journal in journals}) == 10

    run(main())


def test_closing_a_journal_closes_its_partitions(reopen: Reopen) -> None:
    async def main() -> None:
        journal = await reopen()
        partition = await open_partition(journal)
        batch = next_batch(partition, "x")
        await journal.aclose()
        await journal.aclose()
        with pytest.raises(JournalClosedError):
            await partition.write(batch)

    run(main())


class Model:
    """What a journal of one partition should hold, and a run of calls to both."""

    def __init__(self, reopen: Reopen) -> None:
        self._reopen = reopen
        self.written: list[tuple[int, str]] = []
        self.low = 0
        self.checkpoint: bytes | None = None
        self.claims = 0

    async def run(self, calls: list[tuple[str, int]]) -> None:
        partition = await self._open()
        for call, number in calls:
            match call:
                case "write":
                    text = f"{len(self.written)} {'x' * (number % 900)}"
                    self.written.append((partition.end, text))
                    await write(partition, text)
                case "checkpoint":
                    self.low = max(self.low, number % (partition.end + 1))
                    self.checkpoint = b"%d" % number
                    await partition.save_checkpoint(Position(self.low), self.checkpoint)
                case "trim":
                    await partition.trim(Position(self.low))
                case _:
                    await partition.aclose()
                    partition = await self._open()
        await partition.aclose()

    async def _open(self) -> Partition:
        partition = await open_partition(await self._reopen())
        self.claims += 1
        assert partition.epoch == self.claims
        assert partition.end == self.claims + len(self.written)
        assert await partition.load_checkpoint() == self.checkpoint
        found = [
            (position, record.by)
            for batch in await read(partition, self.low)
            for position, record in batch.records()
            if isinstance(record, Resumed) and position >= self.low
        ]
        assert found == [entry for entry in self.written if entry[0] >= self.low]
        return partition


@pytest.mark.parametrize("backend", sorted(BACKENDS))
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(["write", "write", "checkpoint", "trim", "reopen"]),
            st.integers(0, 100_000),
        ),
        max_size=30,
    )
)
@settings(max_examples=25)
def test_any_run_of_calls_ends_as_the_model_says(
    backend: str, calls: list[tuple[str, int]]
) -> None:
    with tempfile.TemporaryDirectory() as path:
        run(Model(BACKENDS[backend](Path(path) / "journal", 1)).run(calls))
