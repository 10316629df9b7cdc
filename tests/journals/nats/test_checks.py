"""Which servers and streams are fit for a journal, and what people are told."""

import msgspec
import pytest

from coordinator.journals.nats.checks import (
    Finding,
    ServerInfo,
    StreamConfig,
    check_server,
    check_stream,
    parse_version,
)

GOOD = ServerInfo(version="2.14.9", max_payload=1024 * 1024, jetstream=True)
STREAM = StreamConfig(name="s", subjects=["x.*"], discard="new", num_replicas=3)


def server(**changes: object) -> dict[str, Finding]:
    info = msgspec.structs.replace(GOOD, **changes)
    return {finding.name: finding for finding in check_server(info)}


def stream(
    replicas: int | None = None, *, clustered: bool = True, **changes: object
) -> list[Finding]:
    config = msgspec.structs.replace(STREAM, **changes)
    return list(check_stream(config, "x.*", replicas=replicas, clustered=clustered))


def test_a_server_that_is_fit_has_one_thing_that_nobody_can_see() -> None:
    found = server(cluster="c")
    assert found["server"].found == "nats-server 2.14.9, in cluster c"
    assert server()["server"].found == "nats-server 2.14.9, alone"
    assert [name for name, one in found.items() if one.level != "ok"] == ["flush"]
    assert "sync_interval: always" in found["flush"].advice


@pytest.mark.parametrize(
    ("version", "level"),
    [
        ("2.9.20", "problem"),
        ("", "problem"),
        ("odd", "problem"),
        ("2.9.21", "warning"),
        ("2.10.22", "warning"),
        ("2.10.23", "ok"),
        ("2.12.1-RC.1", "ok"),
        ("3.0.0", "ok"),
    ],
)
def test_old_servers_are_refused_or_warned_of(version: str, level: str) -> None:
    assert server(version=version)["server"].level == level


def test_a_version_is_three_numbers() -> None:
    assert parse_version("2.10.23-beta.1") == (2, 10, 23)
    assert parse_version("devel") == (0, 0, 0)


def test_a_server_without_jetstream_is_refused() -> None:
    assert server(jetstream=False)["server"].level == "problem"
    assert "-js" in server(jetstream=False)["server"].advice


def test_a_message_must_have_room_for_something() -> None:
    assert server(max_payload=4687)["message"].level == "problem"
    assert "4688" in server(max_payload=4687)["message"].advice
    assert server(max_payload=4688)["message"].level == "warning"
    assert server(max_payload=1024 * 1024)["message"].level == "ok"


def test_a_stream_as_we_make_it_is_fit() -> None:
    assert [one.level for one in stream()] == ["ok"]
    assert [one.level for one in stream(3)] == ["ok"]
    assert stream()[0].found == "s on file, 3 replicas"
    [alone] = stream(num_replicas=1, clustered=False)
    assert (alone.level, alone.found) == ("ok", "s on file, 1 replica")


def test_too_few_replicas_are_refused_if_more_were_asked_for() -> None:
    [found] = stream(3, num_replicas=2)
    assert found.level == "problem"
    assert found.found == "stream s has 2 replicas, 3 were asked for"
    assert "nats stream edit s --replicas 3" in found.advice
    [found] = stream(num_replicas=1)
    assert found.level == "warning"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"subjects": []}, "listens to nothing"),
        ({"subjects": ["orders.>"]}, "listens to orders.>"),
        ({"mirror": {"name": "t"}}, "takes its messages from elsewhere"),
        ({"sources": [{"name": "t"}]}, "takes its messages from elsewhere"),
        ({"subject_transform": {"src": ">"}}, "or changes them"),
        ({"retention": "workqueue"}, "retention workqueue"),
        ({"storage": "memory"}, "is kept in memory"),
        ({"discard": "old"}, "lets go of its oldest"),
        ({"max_age": 7_000_000_000}, "forgets messages after 7 s"),
        ({"max_msgs_per_subject": 1}, "keeps 1 messages of a subject"),
        ({"no_ack": True}, "acknowledges nothing"),
        ({"sealed": True}, "is sealed"),
        ({"deny_purge": True}, "can't be trimmed"),
        ({"persist_mode": "async"}, "acknowledges before it writes"),
        ({"max_msg_size": 1000}, "takes messages of 1000 bytes"),
    ],
)
def test_a_stream_that_would_lose_or_refuse_something_is_refused(
    changes: dict[str, object], said: str
) -> None:
    [found] = stream(**changes)  # type: ignore[arg-type]  # a dict of settings
    assert found.level == "problem"
    assert said in found.found
    assert found.advice


def test_limits_that_refuse_instead_of_forgetting_are_allowed() -> None:
    assert stream(max_bytes=1000, max_msgs=5, max_msg_size=4688)[0].level == "ok"
