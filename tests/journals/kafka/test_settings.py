"""What would lose an acknowledged batch is refused; what is weak is warned of."""

from collections.abc import Mapping

import pytest

from coordinator.journals.kafka.messages import MESSAGE_SIZE_MAX
from coordinator.journals.kafka.settings import TopicFacts, check_topic, new_topic


def check(
    settings: Mapping[str, str | int], *replicas: int
) -> list[tuple[str, str, str, str]]:
    named = {name.replace("_", "."): str(value) for name, value in settings.items()}
    facts = TopicFacts("orders", replicas, named)
    return [(one.level, one.name, one.found, one.advice) for one in check_topic(facts)]


def test_a_topic_that_we_make_is_fit() -> None:
    found = check(new_topic(3), 3, 3)
    assert [(level, name) for level, name, _, _ in found] == [
        ("ok", "copies"),
        ("ok", "kept"),
        ("ok", "size"),
    ]


@pytest.mark.parametrize(
    ("setting", "value", "name", "said"),
    [
        ("cleanup.policy", "compact", "cleanup", "compaction drops what is still"),
        (
            "cleanup.policy",
            "compact,delete",
            "cleanup",
            "cleanup.policy=compact,delete",
        ),
        ("retention.ms", 604_800_000, "retention", "retention.ms=604800000"),
        ("retention.bytes", 1 << 30, "retention", "retention.bytes=1073741824"),
        ("unclean.leader.election.enable", "true", "election", "would be gone"),
        ("max.message.bytes", 1_048_588, "size", "messages of 1048588 bytes at most"),
        ("min.insync.replicas", 4, "copies", "3 copies and wants 4 of them in sync"),
    ],
)
def test_what_loses_batches_or_stops_them_is_a_problem(
    setting: str, value: str | int, name: str, said: str
) -> None:
    [first, *others] = check({**new_topic(3), setting: value}, 3)
    level, found_name, found, advice = first
    assert (level, found_name) == ("problem", name)
    assert said in found
    assert f"--entity-name orders --add-config {setting}=" in advice
    assert all(level == "ok" for level, *_ in others)


@pytest.mark.parametrize(
    ("least", "copies", "said"),
    [
        (1, 1, "has one copy"),
        (2, 2, "wants all in sync: nothing goes on while one broker is down"),
        (1, 3, "may be on one disk only"),
    ],
)
def test_what_is_weaker_than_it_could_be_is_a_warning(
    least: int, copies: int, said: str
) -> None:
    [first, *_] = check({**new_topic(3), "min.insync.replicas": least}, copies, 3)
    assert first[:2] == ("warning", "copies")
    assert said in first[2]
    assert first[3]


def test_settings_that_can_not_be_seen_are_a_warning() -> None:
    [(level, name, _, advice)] = check({}, 3)
    assert (level, name) == ("warning", "settings")
    assert "DescribeConfigs" in advice


def test_sizes_have_room_for_every_batch() -> None:
    assert int(new_topic(1)["max.message.bytes"]) == MESSAGE_SIZE_MAX
    assert new_topic(1)["min.insync.replicas"] == "1"
