"""Open the journal that a URL names: one line of configuration changes the backend.

    memory:                                          for tests; ?partitions=2
    file:./orders                                    a folder, made if it is missing
    file:///var/lib/orders?partitions=4&retention=30d
    kafka://a,b,c/orders?partitions=4&replication=3  a topic of Kafka
    nats://a,b,c/orders?partitions=4&replicas=3      streams of NATS JetStream

Options of ``file:``

    partitions   how many, if the journal is new; checked if it is not. Default: 1
    segment_mib  MiB of a segment. Default: 64
    retention    how long a closed segment is kept when it is no longer needed, e.g.
                 ``7d``, ``24h``, ``90m`` or seconds. Default: 7d
    archive      a folder of the same file system where segments go after that, to
                 <archive>/<journal id>/p0, so that journals may share it; they
                 are deleted if there is none

Those of ``kafka:`` and ``nats:`` are in `address` of their packages, in
`coordinator.journals`.

Each backend is imported when a URL asks for it.
"""

import asyncio
import os
import re
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from coordinator.ports import Journal

if TYPE_CHECKING:
    from coordinator.journals.kafka.settings import Finding as TopicFinding
    from coordinator.journals.nats.checks import Finding

__all__ = [
    "examine_streams",
    "examine_topic",
    "open_journal",
    "parse_duration",
    "segment_size_of",
    "without_secrets",
]

_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 24 * 3600}
_FILE_OPTIONS = {"partitions", "segment_mib", "retention", "archive"}
_SECRETS = re.compile(r"(?<=:)//(?!/).*@")
_DURATION = re.compile(r"([0-9]+)([smhd]?)")


async def open_journal(url: str) -> Journal:
    """Open the journal that *url* names, which is made if it is new.

    Raises:
        ValueError: The URL is of an unknown kind, or has an option that is not known
            or out of its bounds.
        JournalError: As the backend says; see `coordinator.ports.Journal`.
    """
    scheme, _, _ = url.partition(":")
    match scheme:
        case "memory":
            return _open_memory(url)
        case "file":
            return await _open_file(url)
        case "kafka":
            return await _open_kafka(url)
        case "nats":
            return await _open_nats(url)
        case _:
            raise ValueError(
                f"no journal of kind {scheme!r} in {without_secrets(url)!r}; there are "
                f"memory:, file:, kafka: and nats:"
            )


def parse_duration(text: str) -> int:
    """Return the seconds that *text* means, e.g. ``7d``, ``24h`` or ``600``.

    Raises:
        ValueError: It is none of these.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration; one looks like 7d, 24h or 600")
    return int(match[1]) * _UNITS_S[match[2]]


def segment_size_of(url: str) -> int:
    """Return the bytes of a segment of the ``file:`` journal that *url* names.

    Raises:
        ValueError: It has an option that is not known or out of its bounds.
    """
    _, options = _split(url, _FILE_OPTIONS)
    return _segment_size(options)


def _segment_size(options: dict[str, str]) -> int:
    return _count(options, "segment_mib", 64) * 1024 * 1024


def _open_memory(url: str) -> Journal:
    from coordinator.journals.memory import MemoryJournal  # noqa: PLC0415

    path, options = _split(url, {"partitions"})
    if path:
        raise ValueError(f"memory: names no place, got {url!r}")
    return MemoryJournal(partitions=_count(options, "partitions", 1))


async def _open_file(url: str) -> Journal:
    from coordinator.journals.segments.journal import SegmentJournal  # noqa: PLC0415
    from coordinator.journals.segments.posix import PosixFolder  # noqa: PLC0415
    from coordinator.journals.segments.space import not_opened  # noqa: PLC0415
    from coordinator.journals.segments.store import StoreOptions  # noqa: PLC0415

    path, options = _split(url, _FILE_OPTIONS)
    if not path:
        raise ValueError(f"{url!r} names no folder; write file:./orders")
    partitions = _count(options, "partitions", 1) if "partitions" in options else None
    store_options = StoreOptions(
        segment_size=_segment_size(options),
        retention_s=parse_duration(options.get("retention", "7d")),
    )

    place = options.get("archive")

    def make_folders() -> tuple[PosixFolder, PosixFolder | None]:
        if place is not None:
            _check_archive(path, place)
        folder, of_folder = make(path)
        if place is None:
            return folder, None
        archive, of_archive = make(place)
        if of_archive != of_folder:
            raise ValueError(
                f"{place} is not on the file system of {path}: a segment could not be "
                f"moved there in one step"
            )
        return folder, archive

    def make(path: str) -> tuple[PosixFolder, int]:
        try:
            folder = PosixFolder.make(path)
            return folder, folder.device()
        except OSError as error:
            raise not_opened(path, error) from error

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as executor:
        folder, archive = await loop.run_in_executor(executor, make_folders)
    return await SegmentJournal.open_folder(
        folder, partitions=partitions, options=store_options, archive=archive
    )


async def _open_kafka(url: str) -> Journal:
    from coordinator.journals.kafka.address import parse_url  # noqa: PLC0415

    address = parse_url(url, os.environ)
    _need_kafka()
    from coordinator.journals.kafka.journal import KafkaJournal  # noqa: PLC0415

    return await KafkaJournal.connect(address)


def examine_topic(url: str) -> "list[TopicFinding]":
    """Say what is to be said of the ``kafka:`` journal *url*; blocks.

    Nothing is made or changed.

    Raises:
        ValueError: The URL can't be, or confluent-kafka is not there.
        JournalError: It can't be looked at.
    """
    from coordinator.journals.kafka.address import parse_url  # noqa: PLC0415

    address = parse_url(url, os.environ)
    _need_kafka()
    from coordinator.journals.kafka.journal import examine  # noqa: PLC0415

    return examine(address)


def _need_kafka() -> None:
    """Check that what ``kafka:`` needs is installed.

    Raises:
        ValueError: It is not.
    """
    try:
        import_module("coordinator.journals.kafka.client")
    except ModuleNotFoundError as error:
        raise ValueError(
            f"a journal on Kafka needs confluent-kafka ({error}): "
            f"pip install 'coordinator[kafka]'"
        ) from error


async def _open_nats(url: str) -> Journal:
    from coordinator.journals.nats.address import parse_address  # noqa: PLC0415

    address = parse_address(url, os.environ)
    _need_nats()
    from coordinator.journals.nats.journal import NatsJournal  # noqa: PLC0415

    return await NatsJournal.open_address(address)


async def examine_streams(url: str) -> "list[Finding]":
    """Say what is to be said of the ``nats:`` journal *url*, and of its servers.

    Nothing is made or changed.

    Raises:
        ValueError: The URL can't be, or nats-py is not there.
        JournalError: It can't be looked at.
    """
    from coordinator.journals.nats.address import parse_address  # noqa: PLC0415

    address = parse_address(url, os.environ)
    _need_nats()
    from coordinator.journals.nats.opening import examine  # noqa: PLC0415

    return await examine(address)


def _need_nats() -> None:
    """Check that what ``nats:`` needs is installed.

    Raises:
        ValueError: It is not.
    """
    try:
        import_module("coordinator.journals.nats.connection")
    except ModuleNotFoundError as error:
        raise ValueError(str(error)) from error


def without_secrets(url: str) -> str:
    """Return *url* for people: who we are, and how we prove it, is not shown."""
    return _SECRETS.sub("//…@", url)


def _check_archive(path: str, archive: str) -> None:
    """Check that the archive is none of the journal's own folders.

    Raises:
        ValueError: It is.
    """
    journal, place = os.path.realpath(path), os.path.realpath(archive)
    allowed = os.path.join(journal, "archive")  # noqa: PTH118 -- paths are text here
    within = os.path.commonpath((journal, place)) == journal
    if within and os.path.commonpath((allowed, place)) != allowed:
        raise ValueError(
            f"the archive {archive} lies in the journal's own folder {path}; name "
            f"another one, or {path}/archive"
        )


def _split(url: str, known: set[str]) -> tuple[str, dict[str, str]]:
    """Split *url* into its path and its options."""
    parts = urlsplit(url)
    if parts.netloc or parts.fragment:
        raise ValueError(
            f"{url!r} is not a place on this machine; write file:./orders or "
            f"file:///var/lib/orders"
        )
    pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)
    options = dict(pairs)
    if len(options) != len(pairs):
        raise ValueError(f"{url!r} has an option twice")
    if unknown := sorted(options.keys() - known):
        raise ValueError(
            f"unknown option {unknown[0]!r} in {url!r}; known: "
            f"{', '.join(sorted(known))}"
        )
    return unquote(parts.path), options


def _count(options: dict[str, str], name: str, default: int) -> int:
    text = options.get(name, str(default))
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= 2**20):
        raise ValueError(f"{name} must be a number from 1, not {text!r}")
    return int(text)
