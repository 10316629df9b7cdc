"""Is this topic fit to be a journal? What is asked of it, and what a new one gets.

What would lose or drop acknowledged batches by itself is a *problem*: the journal is
not opened. What makes it weaker than it could be is a *warning*: it is logged at each
start, and `coordinator doctor` shows it.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from coordinator.journals.kafka.messages import MESSAGE_SIZE_MAX

__all__ = ["Finding", "TopicFacts", "check_topic", "new_topic"]

SEGMENT_SIZE = 64 * 1024 * 1024
"""Bytes of a segment in a new topic: Kafka frees space by whole segments."""

assert MESSAGE_SIZE_MAX <= SEGMENT_SIZE


class Finding(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    level: str
    """``ok``, ``warning`` or ``problem``."""
    name: str
    found: str
    advice: str = ""
    """What to do; empty if it is ok."""


class TopicFacts(msgspec.Struct, frozen=True):
    """What brokers say of a topic."""

    name: str
    replicas: Sequence[int]
    """Copies of each partition."""
    settings: Mapping[str, str]
    """Those in force, by the names of Kafka; empty if we may not see them."""


def new_topic(replication: int) -> dict[str, str]:
    """Return the settings of a topic that is made to be a journal."""
    return {
        "cleanup.policy": "delete",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "max.message.bytes": str(MESSAGE_SIZE_MAX),
        "segment.bytes": str(SEGMENT_SIZE),
        "min.insync.replicas": str(2 if replication > 2 else 1),
        "unclean.leader.election.enable": "false",
        # The broker's: it refuses a message whose time is an hour ahead of its own.
        "message.timestamp.type": "LogAppendTime",
    }


def check_topic(facts: TopicFacts) -> list[Finding]:
    """Return what is to be said of a topic, problems first."""
    order = ("problem", "warning", "ok")
    return sorted(_check(facts), key=lambda finding: order.index(finding.level))


def _check(facts: TopicFacts) -> Iterator[Finding]:
    settings = facts.settings
    yield from _copies(facts)
    if not settings:
        yield Finding(
            "warning",
            "settings",
            f"the settings of topic {facts.name} can't be seen, and are not checked",
            "grant DescribeConfigs on the topic",
        )
        return
    yield from _kept(facts.name, settings)
    size = int(settings.get("max.message.bytes", "0"))
    if size < MESSAGE_SIZE_MAX:
        yield Finding(
            "problem",
            "size",
            f"topic {facts.name} takes messages of {size} bytes at most; a batch may "
            f"need {MESSAGE_SIZE_MAX}",
            _set(facts.name, "max.message.bytes", MESSAGE_SIZE_MAX),
        )
    else:
        yield Finding("ok", "size", f"messages of {size} bytes are taken")


def _copies(facts: TopicFacts) -> Iterator[Finding]:
    copies = min(facts.replicas)
    least = int(facts.settings.get("min.insync.replicas", "0"))
    if copies == 1:
        yield Finding(
            "warning",
            "copies",
            f"topic {facts.name} has one copy: while its broker is down nothing goes "
            f"on, and its disk is all there is",
            "keep three copies, on three brokers (?replication=3 where it is made)",
        )
    elif least > copies:
        yield Finding(
            "problem",
            "copies",
            f"topic {facts.name} has {copies} copies and wants {least} of them in "
            f"sync: it takes nothing",
            _set(facts.name, "min.insync.replicas", copies - 1),
        )
    elif least == copies:
        yield Finding(
            "warning",
            "copies",
            f"topic {facts.name} has {copies} copies and wants all in sync: nothing "
            f"goes on while one broker is down",
            "keep three copies, of which two must be in sync",
        )
    elif least == 1:
        yield Finding(
            "warning",
            "copies",
            f"topic {facts.name} has {copies} copies and wants one in sync: what is "
            f"acknowledged may be on one disk only",
            _set(facts.name, "min.insync.replicas", 2),
        )
    elif least:
        yield Finding("ok", "copies", f"{copies} copies, {least} of them in sync")


def _kept(topic: str, settings: Mapping[str, str]) -> Iterator[Finding]:
    sound = True
    if settings.get("cleanup.policy") != "delete":
        sound = False
        yield Finding(
            "problem",
            "cleanup",
            f"topic {topic} has cleanup.policy={settings.get('cleanup.policy')}: "
            f"compaction drops what is still needed",
            _set(topic, "cleanup.policy", "delete"),
        )
    for name in ("retention.ms", "retention.bytes"):
        value = settings.get(name)
        if value != "-1":
            sound = False
            yield Finding(
                "problem",
                "retention",
                f"topic {topic} has {name}={value}: Kafka would delete what is still "
                f"needed; the coordinator itself says what may go",
                _set(topic, name, -1),
            )
    if settings.get("unclean.leader.election.enable") != "false":
        sound = False
        yield Finding(
            "problem",
            "election",
            f"topic {topic} may elect a leader that has not all messages: what is "
            f"acknowledged would be gone",
            _set(topic, "unclean.leader.election.enable", "false"),
        )
    if sound:
        yield Finding("ok", "kept", "nothing goes that the coordinator does not delete")


def _set(topic: str, name: str, value: object) -> str:
    return (
        f"kafka-configs.sh --bootstrap-server … --alter --entity-type topics "
        f"--entity-name {topic} --add-config {name}={value}"
    )
