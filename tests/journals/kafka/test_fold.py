"""Every reader agrees about what counts, and refuses where something is missing."""

import pytest
from tests.journals.kafka.fake import (
    PLACE,
    FakeTopic,
    encoded,
    next_batch,
    opened,
    write,
)
from tests.journals.kafka.test_store import save, texts

from coordinator.batch import encode_batch
from coordinator.errors import JournalDamagedError
from coordinator.journals.chain import Chain
from coordinator.journals.kafka.fold import take
from coordinator.records import Resumed, encode_record


def written(count: int) -> FakeTopic:
    topic = FakeTopic()
    store = opened(topic)
    for number in range(count):
        write(store, str(number))
    return topic


def test_a_batch_that_is_missing_is_damage_and_the_place_is_named() -> None:
    topic = written(5)
    del topic.messages[3]
    with pytest.raises(
        JournalDamagedError,
        match="partition 0 of topic orders is damaged at offset 3: the batch from "
        "position 4 does not follow on the one before, which ends at 3",
    ):
        opened(topic)


def test_a_claim_that_is_missing_is_too() -> None:
    topic = written(2)
    write(opened(topic), "2")
    del topic.messages[3]
    with pytest.raises(JournalDamagedError, match="something between them is gone"):
        opened(topic)


def test_damaged_bytes_are_named_with_their_offset() -> None:
    topic = written(3)
    topic.messages[2] = topic.messages[2][:-1]
    with pytest.raises(JournalDamagedError, match="at offset 2: batch of"):
        opened(topic)


def test_a_batch_beside_the_chain_of_its_own_epoch_is_damage() -> None:
    chain = Chain(epoch=1, end=3, crc=77)
    record = encode_record(Resumed(0, "x", 1))
    other = encode_batch([record], epoch=1, first=3, previous_crc=78)
    with pytest.raises(JournalDamagedError):
        take(chain, other, PLACE, 9)
    late = encode_batch([record], epoch=1, first=2, previous_crc=78)
    assert not take(chain, late, PLACE, 9)
    stale = encode_batch([record], epoch=0, first=9, previous_crc=78)
    assert not take(chain, stale, PLACE, 9)
    assert (chain.epoch, chain.end, chain.crc) == (1, 3, 77)


def test_a_start_that_is_gone_without_a_checkpoint_is_damage() -> None:
    topic = written(3)
    topic.start = 1
    with pytest.raises(JournalDamagedError, match="no checkpoint says that it may"):
        opened(topic)


def test_so_is_what_the_checkpoint_needs() -> None:
    topic = written(0)
    store = opened(topic)
    write(store, "1")
    save(store, 1, b"")
    topic.start = 2
    with pytest.raises(JournalDamagedError, match="needs it from 1 on"):
        opened(topic)


def test_a_checkpoint_that_counts_on_more_than_there_is_shows_the_loss() -> None:
    topic = FakeTopic()
    store = opened(topic)
    for number in range(4):
        write(store, str(number))
    save(store, 2, b"")
    del topic.messages[3:5]
    with pytest.raises(JournalDamagedError, match="what was acknowledged is gone"):
        opened(topic)


def test_the_commit_of_the_highest_epoch_counts_and_of_these_the_last() -> None:
    topic = FakeTopic()
    old = opened(topic)
    save(old, 0, b"1")
    save(old, 0, b"2")
    of_old = topic.messages[-2:]
    new = opened(topic)
    save(new, 0, b"3")
    topic.messages += of_old
    assert opened(topic).load_checkpoint() == b"3"
    save(opened(topic), 0, b"4")
    assert opened(topic).load_checkpoint() == b"4"


def test_two_readers_at_any_two_moments_agree() -> None:
    topic = FakeTopic()
    old = opened(topic)
    stale = encoded(next_batch(old, "stale"))
    write(old, "1")
    new = opened(topic)
    topic.put(stale)
    write(new, "2")
    topic.put(b"stranger")
    first = texts(opened(topic).read(0))
    topic.put(stale)
    assert texts(opened(topic).read(0)) == first == ["1", "2"]
