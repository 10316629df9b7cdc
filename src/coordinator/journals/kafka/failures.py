"""What an error of the client means for a journal, and what a person is told.

The table in docs/kafka-journal.md, as code. Errors come by librdkafka's names: those
with an underscore are its own, the others a broker's.
"""

from coordinator.errors import (
    JournalBrokenError,
    JournalDamagedError,
    JournalError,
    JournalUnavailableError,
    UncertainError,
)

__all__ = ["asked", "damaged", "read", "written"]

_RIGHTS = {
    "TOPIC_AUTHORIZATION_FAILED": "grant Read, Write, Describe, DescribeConfigs, "
    "Delete and, if the coordinator is to make it, Create on the topic",
    "CLUSTER_AUTHORIZATION_FAILED": "grant IdempotentWrite on the cluster",
    "GROUP_AUTHORIZATION_FAILED": "grant Read on the group coordinator-journal",
    "SASL_AUTHENTICATION_FAILED": "see to user, password and sasl in the URL",
    "_AUTHENTICATION": "see to user, password and sasl in the URL",
    "_SSL": "see to tls_ca, tls_cert and tls_key in the URL",
    "_INVALID_ARG": "see to the files of tls_ca, tls_cert and tls_key in the URL",
}
"""The brokers do not let us: what is to be done."""

_MENDED = {
    **_RIGHTS,
    "UNKNOWN_TOPIC_OR_PART": "was the topic deleted?",
    "_UNKNOWN_TOPIC": "was the topic deleted?",
    "_UNKNOWN_PARTITION": "was the topic made anew, with fewer partitions?",
    "UNKNOWN_TOPIC_ID": "was the topic deleted?",
    "INCONSISTENT_TOPIC_ID": "was the topic deleted and made anew?",
    "MSG_SIZE_TOO_LARGE": "see to max.message.bytes of the topic",
    "RECORD_LIST_TOO_LARGE": "see to max.message.bytes of the topic",
    "INVALID_TIMESTAMP": "set message.timestamp.type of the topic to LogAppendTime",
    "POLICY_VIOLATION": "see to the policy of the brokers",
    "INVALID_RECORD": "see to the settings of the topic",
    "UNSUPPORTED_FEATURE": "use brokers of Kafka 2.5 or later",
    "_UNSUPPORTED_FEATURE": "use brokers of Kafka 2.5 or later",
}
"""Nothing of this passes by itself: what is to be done."""

_DAMAGED = frozenset({"_BAD_MSG", "_BAD_COMPRESSION", "CORRUPT_MESSAGE"})


def damaged(place: str, offset: int, problem: str) -> JournalDamagedError:
    """Return the error that says what is wrong at *offset* of *place*."""
    return JournalDamagedError(
        place, offset, problem, unit="offset", advice="restore the topic from a copy"
    )


def written(place: str, name: str, text: str) -> JournalError:
    """Return what a message that failed to be written means.

    Args:
        place: Where to.
        name: Of the error.
        text: What the client says of it.
    """
    if name in _MENDED:
        return JournalBrokenError(f"can't write to {place}: {text}; {_MENDED[name]}")
    # Whatever else is said: it may have landed before, or land yet.
    return UncertainError(
        f"nobody knows whether a message to {place} landed: {text}; open it again"
    )


def read(place: str, offset: int, name: str, text: str) -> JournalError:
    """Return what a failure to read at *offset* means."""
    if name in _DAMAGED:
        return damaged(place, offset, text)
    advice = _MENDED.get(name, "see whether its broker is up")
    return JournalBrokenError(
        f"can't read {place} at offset {offset}: {text}; {advice}"
    )


def asked(place: str, name: str, text: str) -> JournalError:
    """Return what it means that brokers do not answer a question, or say no."""
    advice = _MENDED.get(name, "see whether the brokers are up and the hosts right")
    return JournalUnavailableError(f"can't reach {place}: {text}; {advice}")
