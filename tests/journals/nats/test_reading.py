"""Which messages count: parts, epochs, foreign ones, missing ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.batch import Batch, encode_batch
from coordinator.errors import JournalDamagedError
from coordinator.journals.nats.layout import Kind, Message, Tail, encode_message, split
from coordinator.journals.nats.reading import Reader
from coordinator.records import Resumed, encode_record

JOURNAL = bytes(range(16))


def batch(text: str, *, epoch: int = 1, first: int = 0, crc: int = 0) -> Batch:
    record = encode_record(Resumed(0, text, 1))
    return encode_batch([record], epoch=epoch, first=first, previous_crc=crc)


def after(before: Batch, text: str, *, epoch: int = 1) -> Batch:
    return batch(text, epoch=epoch, first=before.end, crc=before.crc)


def encode(
    sequence: int, body: bytes, index: int = 0, count: int = 1, kind: Kind = Kind.BATCH
) -> bytes:
    message = Message(kind, sequence, index, count, Tail(), body)
    return encode_message(message, journal_id=JOURNAL, partition=0)


def reader() -> Reader:
    return Reader(journal_id=JOURNAL, partition=0, stream="s")


def test_batches_that_follow_one_another_count() -> None:
    one = batch("one", first=40, crc=7)  # the oldest one that was kept
    two = after(one, "two")
    read = reader()
    assert read.take(5, encode(5, one.data)) == one
    assert read.began == 5
    assert read.take(6, encode(6, two.data)) == two
    assert read.foreign == ""


@given(st.integers(1, 200))
def test_a_batch_in_parts_is_there_with_its_last(size: int) -> None:
    whole = batch("x" * 100)
    parts = list(split(whole.data, size))
    read = reader()
    found = [
        read.take(sequence, encode(sequence, part, sequence - 1, len(parts)))
        for sequence, part in enumerate(parts, 1)
    ]
    assert found == [*[None] * (len(parts) - 1), whole]
    assert read.began == 1


def test_parts_of_a_batch_that_never_got_whole_are_passed_over() -> None:
    lost, claim = batch("x" * 100), batch("claim", epoch=2)
    parts = list(split(lost.data, 40))
    read = reader()
    assert read.take(1, encode(1, parts[0], 0, len(parts))) is None
    assert read.take(2, encode(2, claim.data)) == claim
    # What is left of it has no beginning any more.
    assert read.take(3, encode(3, parts[1], 1, len(parts))) is None
    assert read.take(4, encode(4, b"", 0, 2, Kind.CHUNK)) is None
    next_one = after(claim, "next", epoch=2)
    assert read.take(5, encode(5, next_one.data)) == next_one


def test_a_batch_of_an_older_epoch_behind_a_claim_is_dropped() -> None:
    one = batch("one")
    claim = after(one, "claim", epoch=2)
    straggler = after(one, "straggler")
    last = after(claim, "last", epoch=2)
    read = reader()
    found = [
        read.take(n, encode(n, each.data))
        for n, each in enumerate((one, claim, straggler, last), 1)
    ]
    assert found == [one, claim, None, last]


def test_foreign_messages_are_named_and_passed_over() -> None:
    one = batch("one")
    two = after(one, "two")
    read = reader()
    assert read.take(1, encode(1, one.data)) == one
    assert read.take(2, b"hello") is None
    assert read.take(3, encode(1, one.data)) is None
    assert read.take(4, encode(4, two.data)) == two
    assert read.foreign == "sequence 2: no coordinator wrote it"
    assert read.foreign_count == 2


def test_a_missing_message_is_damage() -> None:
    one = batch("one")
    three = after(after(one, "two"), "three")
    read = reader()
    read.take(1, encode(1, one.data))
    with pytest.raises(JournalDamagedError, match=r"s is damaged at sequence 3.*miss"):
        read.take(3, encode(3, three.data))


def test_a_damaged_message_is_named_as_what_is_missing() -> None:
    one = batch("one")
    two = after(one, "two")
    three = after(two, "three")
    read = reader()
    read.take(1, encode(1, one.data))
    read.take(2, encode(2, two.data)[:-1] + b"\xff")
    with pytest.raises(JournalDamagedError, match=r"sequence 2: it is damaged"):
        read.take(3, encode(3, three.data))


def test_a_message_that_holds_no_batch_is_damage() -> None:
    with pytest.raises(JournalDamagedError, match="magic"):
        reader().take(1, encode(1, b"x" * 100))
