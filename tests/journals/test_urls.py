"""One line of configuration: what is opened, and what is refused."""

import asyncio
import errno
import os
import sys
from pathlib import Path

import pytest
from tests.journals.kafka.brokers import new_topic_name
from tests.journals.nats.support import new_url
from tests.servers import kafka
from tests.servers.nats import shared_server

from coordinator.errors import (
    JournalBrokenError,
    JournalFormatError,
    JournalUnavailableError,
)
from coordinator.journals.memory import MemoryJournal
from coordinator.journals.segments.journal import SegmentJournal
from coordinator.journals.urls import (
    examine_streams,
    examine_topic,
    open_journal,
    parse_duration,
    segment_size_of,
    without_secrets,
)
from coordinator.ports import Journal


def opened(url: str) -> Journal:
    return asyncio.run(open_journal(url))


def test_memory_is_memory() -> None:
    journal = opened("memory:")
    assert isinstance(journal, MemoryJournal)
    assert journal.partitions == 1
    assert opened("memory:?partitions=3").partitions == 3


def test_a_file_url_names_a_folder_from_where_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    journal = opened("file:./my%20orders?partitions=2")
    assert isinstance(journal, SegmentJournal)
    assert (tmp_path / "my orders" / "journal.json").exists()
    assert opened(f"file://{tmp_path}/my%20orders").id == journal.id
    assert opened(f"file:{tmp_path}/my%20orders?partitions=2").partitions == 2


def test_the_options_reach_the_store(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    url = f"file:{tmp_path}/orders?segment_mib=1&retention=2h&archive={archive}"

    async def main() -> None:
        journal = await open_journal(url)
        partition = await journal.open(0, owner="x", at=1)
        [segment] = (tmp_path / "orders" / "p0").glob("*.seg")
        assert segment.stat().st_size == 1024 * 1024
        await partition.aclose()

    asyncio.run(main())
    [of_the_journal] = archive.iterdir()
    assert (of_the_journal / "p0").is_dir()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("redis:x", "no journal of kind 'redis'"),
        ("orders", "no journal of kind 'orders'"),
        ("", "no journal of kind ''"),
        ("memory:x", "names no place"),
        ("memory:?segment_mib=1", "unknown option 'segment_mib'"),
        ("memory:?partitions=0", "partitions must be a number"),
        ("file:", "names no folder"),
        ("file://host/orders", "not a place on this machine"),
        ("file:orders#x", "not a place on this machine"),
        ("file:orders?partition=1", "unknown option 'partition'.*known: archive"),
        ("file:orders?partitions=two", "partitions must be a number"),
        ("file:orders?partitions=1&partitions=2", "an option twice"),
        ("file:orders?partitions", "bad query field"),
        ("file:orders?retention=soon", "'soon' is not a duration"),
        ("file:orders?segment_mib=-1", "segment_mib must be a number"),
    ],
)
def test_a_url_that_means_nothing_is_refused(url: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        opened(url)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(JournalUnavailableError, match=r"Not a directory|File exists"):
        opened(f"file:{tmp_path}/file/orders")


def test_a_folder_of_other_things_is_no_journal(tmp_path: Path) -> None:
    (tmp_path / "photo.jpeg").write_text("x")
    with pytest.raises(JournalFormatError, match=r"not a journal.*photo.jpeg"):
        opened(f"file:{tmp_path}")


@pytest.mark.parametrize("place", ["", "/", "/p0", "/../orders/p1", "/archived"])
def test_an_archive_in_the_journals_own_folder_is_refused(
    tmp_path: Path, place: str
) -> None:
    with pytest.raises(ValueError, match="in the journal's own folder"):
        opened(f"file:{tmp_path}/orders?archive={tmp_path}/orders{place}")
    assert not (tmp_path / "orders").exists()


@pytest.mark.parametrize("place", ["orders/archive", "orders/archive/old", "", "other"])
def test_an_archive_may_be_anywhere_else(tmp_path: Path, place: str) -> None:
    url = f"file:{tmp_path}/orders?archive={tmp_path}/{place}"
    asyncio.run(_open_all(url))


async def _open_all(url: str) -> None:
    for _ in range(2):
        journal = await open_journal(url)
        await journal.open(0, owner="x", at=1)
        await journal.aclose()


def test_an_archive_on_another_file_system_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not on the file system"):
        opened(f"file:{tmp_path}/orders?archive=/proc/self")


def test_a_folder_that_can_not_be_asked_is_told_as_one_that_can_not_be_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = os.fstat
    folders = (tmp_path / "orders", tmp_path / "archive")

    def fails(descriptor: int) -> os.stat_result:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return asked(descriptor)

    monkeypatch.setattr(os, "fstat", fails)
    for failing in folders:
        with pytest.raises(JournalBrokenError, match=f"^{failing}: could not open"):
            opened(f"file:{tmp_path}/orders?archive={tmp_path}/archive")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0), ("600", 600), ("5s", 5), ("90m", 5400), ("24h", 86400), ("7d", 604800)],
)
def test_durations_are_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "d", "-1", "1.5h", "7 d", "7w", "\u0667d"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(text)


def test_a_url_tells_the_size_of_its_segments() -> None:
    assert segment_size_of("file:./orders") == 64 << 20
    assert segment_size_of("file:./orders?segment_mib=3&retention=7d") == 3 << 20
    with pytest.raises(ValueError, match="unknown option"):
        segment_size_of("file:./orders?size=3")


def test_a_nats_url_names_servers_and_is_looked_at_without_making_anything() -> None:
    url = new_url(shared_server())

    async def main() -> None:
        found = await examine_streams(url)
        assert "does not exist" in found[-1].found
        journal = await open_journal(url)
        assert journal.partitions == 1
        await journal.aclose()
        assert "is a journal of format 1" in "".join(
            one.found for one in await examine_streams(url)
        )

    asyncio.run(main())


def test_without_nats_py_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "coordinator.journals.nats.connection", False)
    monkeypatch.setitem(sys.modules, "nats", None)
    monkeypatch.setitem(sys.modules, "nats.errors", None)
    with pytest.raises(ValueError, match=r"pip install 'coordinator\[nats\]'"):
        opened("nats://host/orders")


def test_a_kafka_url_names_brokers_and_a_topic_that_can_be_looked_at() -> None:
    url = kafka.shared_server().url(new_topic_name())

    async def main() -> None:
        journal = await open_journal(url)
        assert journal.partitions == 1
        await journal.aclose()

    asyncio.run(main())
    assert {one.name for one in examine_topic(url)} == {"copies", "kept", "size"}


def test_without_confluent_kafka_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "coordinator.journals.kafka.client", False)
    monkeypatch.setitem(sys.modules, "confluent_kafka", None)
    for open_or_look in (opened, examine_topic):
        with pytest.raises(ValueError, match=r"pip install 'coordinator\[kafka\]'"):
            open_or_look("kafka://host/orders")


def test_no_message_says_a_secret() -> None:
    for url in ("nat://u:s3cret@h/j", "nat://s3cret@h/j", "nat://u:x?s3cret@h/j"):
        with pytest.raises(ValueError, match="no journal of kind 'nat'") as caught:
            opened(url)
        assert "s3cret" not in str(caught.value)
    assert without_secrets("nats://u:p@a,b/j?x=1") == "nats://…@a,b/j?x=1"
    for plain in ("nats://a,b/j?x=1", "file:///a/b@c", "file:./a", "memory:"):
        assert without_secrets(plain) == plain
