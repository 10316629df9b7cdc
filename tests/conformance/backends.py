"""The backends that the conformance suite asks; add one here and it is asked too."""

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.servers import kafka
from tests.servers.nats import delete_streams, shared_cluster, shared_server

from coordinator.journals.memory import MemoryJournal
from coordinator.journals.nats.layout import Names
from coordinator.journals.segments.journal import SegmentJournal
from coordinator.journals.segments.posix import PosixFolder
from coordinator.journals.segments.store import StoreOptions
from coordinator.journals.urls import open_journal
from coordinator.ports import Journal

KEPT_MAX = 10
"""Journals that are left alone: a test may have as many at once."""

__all__ = ["BACKENDS", "MakeBackend", "Reopen"]

Reopen = Callable[[], Awaitable[Journal]]
"""Returns the same journal each time, as a process that starts again would see it. The
one before is closed first."""

MakeBackend = Callable[[Path, int], Reopen]
"""Takes an empty folder and the number of partitions."""


def _memory(_path: Path, partitions: int) -> Reopen:
    journal = MemoryJournal(partitions=partitions)

    async def reopen() -> Journal:
        await journal.aclose()
        return journal

    return reopen


def _file(path: Path, partitions: int) -> Reopen:
    opened: list[Journal] = []
    # Small, so that every other test rolls; no retention, so that a trim is seen.
    options = StoreOptions(segment_size=4096, retention_s=0)

    async def reopen() -> Journal:
        while opened:
            await opened.pop().aclose()
        folder = PosixFolder.make(str(path))
        journal = await SegmentJournal.open_folder(
            folder, partitions=partitions, options=options
        )
        opened.append(journal)
        return journal

    return reopen


def _kafka(url: Callable[[str, str], str]) -> MakeBackend:
    """Make journals on brokers that all tests of a process share.

    A topic each. They are left where they are: a broker does not mind, and goes.
    """

    def make(_path: Path, partitions: int) -> Reopen:
        name = f"t-{secrets.token_hex(8)}"
        opened: list[Journal] = []

        async def reopen() -> Journal:
            while opened:
                await opened.pop().aclose()
            opened.append(await open_journal(url(name, f"partitions={partitions}")))
            return opened[-1]

        return reopen

    return make


_LEFT: list[tuple[str, Names, int]] = []
"""Journals of tests that are over, with their server and number of partitions."""


def _nats(addresses: Callable[[], str]) -> MakeBackend:
    """Make journals on servers that all tests of a process share."""

    def make(_path: Path, partitions: int) -> Reopen:
        name = secrets.token_hex(8)
        opened: list[Journal] = []

        async def reopen() -> Journal:
            if not opened:
                await _forget()
                _LEFT.append((addresses(), Names(name), partitions))
            for journal in opened:
                await journal.aclose()
            url = f"nats://{addresses()}/{name}?partitions={partitions}"
            opened.append(await open_journal(url))
            return opened[-1]

        return reopen

    return make


async def _forget() -> None:
    """Delete the streams of tests before; a hundred of them would slow a server."""
    while len(_LEFT) > KEPT_MAX:
        servers, names, partitions = _LEFT.pop(0)
        streams = [names.stream, *map(names.partition_stream, range(partitions))]
        await delete_streams(servers.split(","), streams)


def _cluster() -> str:
    return ",".join(shared_cluster().addresses)


BACKENDS: dict[str, MakeBackend] = {
    "memory": _memory,
    "file": _file,
    "kafka": _kafka(lambda name, query: kafka.shared_server().url(name, query)),
    "kafka-3": _kafka(lambda name, query: kafka.shared_cluster().url(name, query)),
    "nats": _nats(lambda: shared_server().address),
    "nats-r3": _nats(_cluster),
}
