"""Whether a server and a stream keep what a journal promises; for `open` and `doctor`.

A problem stops the opening. A warning is logged once, and shown by `doctor`.
"""

import re
from collections.abc import Iterator
from typing import Literal

import msgspec

from coordinator.journals.nats.layout import BODY_SIZE_MIN, MESSAGE_HEADER_SIZE

__all__ = [
    "GROUP_SIZE",
    "PROTOCOL_SIZE",
    "Finding",
    "ServerInfo",
    "StreamConfig",
    "StreamInfo",
    "StreamState",
    "check_server",
    "check_stream",
    "parse_version",
]

VERSION_MIN = (2, 9, 21)
"""Before it, two writers could both win a comparison (server PR 4319)."""
VERSION_GOOD = (2, 10, 23)
"""Before it, a stream could vanish when a server's process crashed."""
PROTOCOL_SIZE = 512
"""Bytes that NATS headers may take of a message; ours take less."""
GROUP_SIZE = 1024 * 1024
"""Bytes of a full batch, about; a message that takes less makes several of it."""

_MESSAGE_SIZE_MIN = BODY_SIZE_MIN + MESSAGE_HEADER_SIZE + PROTOCOL_SIZE

_VERSION = re.compile(r"([0-9]+)\.([0-9]+)\.([0-9]+)")

Level = Literal["ok", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at."""

    name: str
    level: Level
    found: str
    advice: str = ""
    """What to do; empty if it is ok."""


class ServerInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a server says of itself when one connects."""

    version: str = ""
    max_payload: int = 0
    jetstream: bool = False
    cluster: str = ""
    """Its cluster's name; empty if it is alone."""


class StreamConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Those settings of a stream on which a journal depends."""

    name: str = ""
    subjects: list[str] = []
    retention: str = "limits"
    storage: str = "file"
    discard: str = "old"
    num_replicas: int = 1
    max_age: int = 0
    max_msgs: int = -1
    max_bytes: int = -1
    max_msgs_per_subject: int = -1
    max_msg_size: int = -1
    no_ack: bool = False
    sealed: bool = False
    deny_purge: bool = False
    persist_mode: str = "default"
    mirror: dict[str, object] | None = None
    sources: list[object] | None = None
    subject_transform: dict[str, object] | None = None


class StreamState(msgspec.Struct, frozen=True, kw_only=True):
    """What a stream holds."""

    messages: int = 0
    bytes: int = 0
    first_seq: int = 0
    last_seq: int = 0


class StreamInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What JetStream says of a stream."""

    config: StreamConfig
    state: StreamState


def parse_version(text: str) -> tuple[int, int, int]:
    """Return the three numbers of a version; zeros if it has none."""
    match = _VERSION.match(text)
    if match is None:
        return 0, 0, 0
    return int(match[1]), int(match[2]), int(match[3])


def check_server(info: ServerInfo) -> Iterator[Finding]:
    """Say what is to be said of the server that we are connected to."""
    version = parse_version(info.version)
    found = f"nats-server {info.version or 'of an unknown version'}"
    if version < VERSION_MIN:
        advice = f"use {_dotted(VERSION_GOOD)} or later: two owners could both win"
        yield _problem("server", found, advice)
    elif version < VERSION_GOOD:
        advice = f"use {_dotted(VERSION_GOOD)} or later: a crash can lose a stream"
        yield _warning("server", found, advice)
    else:
        where = f", in cluster {info.cluster}" if info.cluster else ", alone"
        yield _ok("server", found + where)
    if not info.jetstream:
        yield _problem(
            "server", f"{found} has no JetStream", "start it with JetStream: -js"
        )
    takes = f"a message may have {info.max_payload} bytes (max_payload)"
    if info.max_payload < _MESSAGE_SIZE_MIN:
        advice = f"raise max_payload to {_MESSAGE_SIZE_MIN} at least"
        yield _problem("message", takes, advice)
    elif info.max_payload < GROUP_SIZE:
        yield _warning(
            "message",
            f"{takes}, a full batch about {GROUP_SIZE}: it is written in parts, one "
            f"round trip each",
            f"raise max_payload to {GROUP_SIZE} or more",
        )
    else:
        yield _ok("message", takes)
    yield _warning(
        "flush",
        "a server does not tell its clients when it flushes; unless it is set "
        "otherwise, every two minutes",
        "set `sync_interval: always` in its jetstream block: without it a power cut "
        "can take acknowledged batches, of one replica or of all at once",
    )


def check_stream(
    config: StreamConfig, subjects: str, *, replicas: int | None, clustered: bool
) -> Iterator[Finding]:
    """Say what is to be said of one stream of a journal.

    Args:
        config: Its settings.
        subjects: What it should listen to.
        replicas: How many were asked for; None if it was left open.
        clustered: Whether the server is in a cluster.
    """
    name = config.name
    problems = list(_wrong_settings(config, subjects))
    for found, advice in problems:
        yield _problem("stream", f"stream {name} {found}", advice)
    copies = _count(config.num_replicas, "replica")
    if replicas is not None and config.num_replicas < replicas:
        yield _problem(
            "replicas",
            f"stream {name} has {copies}, {replicas} were asked for",
            f"`nats stream edit {name} --replicas {replicas}`, or ask for "
            f"{config.num_replicas}",
        )
    elif clustered and config.num_replicas == 1:
        yield _warning(
            "replicas",
            f"stream {name} has 1 replica, in a cluster",
            f"`nats stream edit {name} --replicas 3`: one server that is lost takes "
            f"the journal along",
        )
    elif not problems:
        yield _ok("stream", f"{name} on {config.storage}, {copies}")


def _wrong_settings(config: StreamConfig, subjects: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a stream, and what to do."""
    other = "it serves another purpose: use another journal name"
    edit = f"`nats stream edit {config.name}"
    listens = ", ".join(config.subjects) or "nothing"
    age_s = config.max_age // 1_000_000_000
    most = config.max_msgs_per_subject
    size = config.max_msg_size
    settings = (
        (config.subjects != [subjects], f"listens to {listens}", other),
        (
            bool(config.mirror or config.sources or config.subject_transform),
            "takes its messages from elsewhere, or changes them",
            other,
        ),
        (config.retention != "limits", f"has retention {config.retention}", other),
        (
            config.storage != "file",
            f"is kept in {config.storage}",
            "make it anew, on files",
        ),
        (
            config.discard != "new",
            "lets go of its oldest messages when it is full",
            f"{edit} --discard new`",
        ),
        (age_s > 0, f"forgets messages after {age_s} s", f"{edit} --max-age 0`"),
        (
            most > 0,
            f"keeps {most} messages of a subject",
            f"{edit} --max-msgs-per-subject=-1`",
        ),
        (config.no_ack, "acknowledges nothing", f"{edit} --ack`"),
        (config.sealed, "is sealed", "use another journal, or restore it unsealed"),
        (config.deny_purge, "can't be trimmed (deny_purge)", "make it anew, without"),
        (
            config.persist_mode == "async",
            "acknowledges before it writes (persist_mode async)",
            "make it anew, without",
        ),
        (
            0 <= size < _MESSAGE_SIZE_MIN,
            f"takes messages of {size} bytes",
            f"{edit} --max-msg-size=-1`",
        ),
    )
    yield from ((found, advice) for wrong, found, advice in settings if wrong)


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _ok(name: str, found: str) -> Finding:
    return Finding(name=name, level="ok", found=found)


def _warning(name: str, found: str, advice: str) -> Finding:
    return Finding(name=name, level="warning", found=found, advice=advice)


def _problem(name: str, found: str, advice: str) -> Finding:
    return Finding(name=name, level="problem", found=found, advice=advice)
