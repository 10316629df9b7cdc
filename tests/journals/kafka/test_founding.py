"""A topic becomes one journal, whoever comes first, and stays it."""

from itertools import count

import pytest
from tests.journals.kafka.fake import IDENTITY, FakeTopic, opened
from tests.journals.kafka.test_store import save

from coordinator.errors import (
    JournalFormatError,
    JournalUnavailableError,
    UncertainError,
)
from coordinator.journals.kafka.founding import identify
from coordinator.journals.kafka.messages import Identity, encode_founding

IDS = count()


def new_id() -> bytes:
    return next(IDS).to_bytes(16, "big")


def found(*topics: FakeTopic) -> Identity:
    return identify("orders", topics, new_id)


def test_an_empty_topic_becomes_a_journal_once() -> None:
    topics = FakeTopic(), FakeTopic()
    identity = found(*topics)
    assert identity.partitions == 2
    assert found(*topics) == identity
    assert [len(topic.messages) for topic in topics] == [1, 0]


def test_of_two_that_come_at_once_the_first_one_makes_it() -> None:
    topic = FakeTopic()
    first: list[Identity] = []
    topic.before = [lambda: first.append(found(topic))]
    assert [found(topic)] == first
    assert len(topic.messages) == 2


def test_once_it_was_trimmed_an_owners_message_says_whose_it_is() -> None:
    topic = FakeTopic()
    topic.put(encode_founding(IDENTITY))
    store = opened(topic)
    topic.put(b"stranger")
    topic.put(encode_founding(Identity(b"o" * 16, 0, 1)))
    save(store, 1, b"")
    topic.start = 2
    assert found(topic) == IDENTITY


def test_partitions_that_were_added_are_no_part_of_it() -> None:
    topic = FakeTopic()
    found(topic)
    assert found(topic, FakeTopic()).partitions == 1


@pytest.mark.parametrize(("message", "start"), [(b"hello", 0), (b"hello", 1), (b"", 0)])
def test_a_topic_of_others_is_no_journal(message: bytes, start: int) -> None:
    topic = FakeTopic()
    topic.messages = [message] * 5
    topic.start = start
    with pytest.raises(JournalFormatError, match="topic orders is not a journal: what"):
        found(topic)


def test_nor_is_one_with_messages_elsewhere() -> None:
    other = FakeTopic()
    other.put(b"hello")
    with pytest.raises(JournalFormatError, match="partition 1 has messages, and 0"):
        found(FakeTopic(), other)


def test_nor_one_whose_partitions_were_mixed_up() -> None:
    topic = FakeTopic()
    topic.put(encode_founding(Identity(b"o" * 16, 1, 2)))
    with pytest.raises(JournalFormatError, match="is not a journal"):
        found(topic, FakeTopic())


def test_one_that_has_lost_partitions_is_refused() -> None:
    topics = FakeTopic(), FakeTopic()
    found(*topics)
    with pytest.raises(JournalFormatError, match="has 1 partitions, its journal has 2"):
        found(topics[0])


def test_a_newer_format_is_refused() -> None:
    topic = FakeTopic()
    data = bytearray(encode_founding(IDENTITY))
    data[4] = 2
    topic.put(bytes(data))
    with pytest.raises(
        JournalFormatError, match="topic orders has a message of format"
    ):
        found(topic)


def test_a_founding_that_nobody_knows_of_is_tried_again_by_the_next() -> None:
    topic = FakeTopic()
    topic.failures = [(UncertainError("nobody knows"), True)]
    with pytest.raises(JournalUnavailableError, match="can't make topic orders"):
        found(topic)
    identity = found(topic)
    assert found(topic) == identity


def test_one_that_is_trimmed_meanwhile_is_opened_again() -> None:
    topic = FakeTopic()
    found(topic)

    def trim() -> None:
        topic.start = 1

    topic.reading = [trim]
    with pytest.raises(JournalUnavailableError, match="is being trimmed"):
        found(topic)
