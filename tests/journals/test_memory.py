"""What the conformance suite does not ask of the memory journal."""

import asyncio

import pytest

from coordinator.batch import encode_batch
from coordinator.errors import JournalLockedError
from coordinator.journals.memory import MemoryJournal
from coordinator.model import Position
from coordinator.records import Resumed, encode_record


def test_it_has_the_id_that_it_was_given() -> None:
    assert MemoryJournal(journal_id="ab" * 16).id == "ab" * 16


def test_the_lock_names_the_place_and_the_holder() -> None:
    async def main() -> None:
        journal = MemoryJournal()
        await journal.open(0, owner="the first", at=1)
        with pytest.raises(JournalLockedError) as caught:
            await journal.open(0, owner="the second", at=1)
        assert caught.value.path == "memory: partition 0"
        assert caught.value.holder == "the first"

    asyncio.run(main())


def test_a_trim_takes_whole_batches_at_once() -> None:
    async def main() -> None:
        journal = MemoryJournal()
        partition = await journal.open(0, owner="x", at=1)
        record = encode_record(Resumed(0, "x", 1))
        for _ in range(5):
            await partition.write(
                encode_batch(
                    [record, record],
                    epoch=partition.epoch,
                    first=partition.end,
                    previous_crc=partition.crc,
                )
            )
        await partition.save_checkpoint(Position(4), b"")
        await partition.trim(Position(4))
        await journal.aclose()
        partition = await journal.open(0, owner="x", at=1)
        firsts = [batch.first async for batch in partition.read(Position(0))]
        assert firsts == [3, 5, 7, 9, 11]

    asyncio.run(main())
