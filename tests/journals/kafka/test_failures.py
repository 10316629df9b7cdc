"""Each error of the client has its meaning, and says what to do."""

import pytest

from coordinator.errors import (
    JournalBrokenError,
    JournalDamagedError,
    JournalError,
    JournalUnavailableError,
    UncertainError,
)
from coordinator.journals.kafka import failures


@pytest.mark.parametrize(
    ("name", "kind", "said"),
    [
        (
            "_MSG_TIMED_OUT",
            UncertainError,
            "nobody knows whether a message to p landed",
        ),
        ("_TRANSPORT", UncertainError, "open it again"),
        ("OUT_OF_ORDER_SEQUENCE_NUMBER", UncertainError, "nobody knows"),
        ("TOPIC_AUTHORIZATION_FAILED", JournalBrokenError, "grant Read, Write"),
        ("CLUSTER_AUTHORIZATION_FAILED", JournalBrokenError, "grant IdempotentWrite"),
        ("_AUTHENTICATION", JournalBrokenError, "see to user, password and sasl"),
        ("UNKNOWN_TOPIC_OR_PART", JournalBrokenError, "was the topic deleted?"),
        ("_UNKNOWN_TOPIC", JournalBrokenError, "was the topic deleted?"),
        ("MSG_SIZE_TOO_LARGE", JournalBrokenError, "see to max.message.bytes"),
    ],
)
def test_a_write_is_in_doubt_unless_a_person_can_mend_it(
    name: str, kind: type[JournalError], said: str
) -> None:
    error = failures.written("p", name, "it said so")
    assert type(error) is kind
    assert "it said so" in str(error)
    assert said in str(error)


def test_what_can_not_be_read_is_broken_or_damaged() -> None:
    broken = failures.read("p", 7, "_TIMED_OUT", "silence")
    assert isinstance(broken, JournalBrokenError)
    assert "can't read p at offset 7: silence; see whether its broker is up" in str(
        broken
    )
    damaged = failures.read("p", 7, "_BAD_MSG", "wrong crc")
    assert isinstance(damaged, JournalDamagedError)
    assert str(damaged) == (
        "p is damaged at offset 7: wrong crc; the partition is not opened: restore the "
        "topic from a copy"
    )


def test_who_can_not_be_asked_is_unavailable() -> None:
    away = failures.asked("kafka://a/o", "_TRANSPORT", "refused")
    assert isinstance(away, JournalUnavailableError)
    assert "can't reach kafka://a/o: refused; see whether the brokers are up" in str(
        away
    )
    refused = failures.asked("kafka://a/o", "_SSL", "unknown authority")
    assert "see to tls_ca, tls_cert and tls_key" in str(refused)
