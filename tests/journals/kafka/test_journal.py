"""Topics and brokers that are not as they should be, and being let in; really."""

import asyncio
import logging
import socket
from collections.abc import Generator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin._acl import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
)
from confluent_kafka.admin._resource import ResourcePatternType, ResourceType
from confluent_kafka.cimpl import NewPartitions
from tests.certificates import Authority, Pair, needs_openssl
from tests.journals.kafka.brokers import (
    connect,
    kept,
    new_topic_name,
    next_batch,
    run,
    take_over,
    write,
)
from tests.servers.kafka import (
    Kafka,
    KafkaOptions,
    KafkaTls,
    create_topic,
    kafka_server,
    shared_server,
)

from coordinator.errors import (
    JournalBrokenError,
    JournalClosedError,
    JournalDamagedError,
    JournalError,
    JournalFormatError,
    JournalLockedError,
    JournalUnavailableError,
    UncertainError,
)
from coordinator.journals.kafka import client as client_module
from coordinator.journals.kafka.address import PASSWORD, USER, parse_url
from coordinator.journals.kafka.journal import _check, examine
from coordinator.journals.kafka.partition import KafkaPartition
from coordinator.journals.kafka.settings import TopicFacts, new_topic
from coordinator.journals.urls import open_journal
from coordinator.model import Position

PASSWORD_OF_ALICE = "s3cret-of-alice"


def put(broker: Kafka, topic: str, partition: int, value: bytes) -> None:
    """Send a message as a stranger does."""
    errors: list[object] = []
    producer = Producer({"bootstrap.servers": broker.internal})
    producer.produce(
        topic, value, partition=partition, on_delivery=lambda e, _: errors.append(e)
    )
    producer.flush(60)
    assert errors == [None]


async def write_many(partition: KafkaPartition, count: int) -> None:
    for _ in range(count):
        await write(partition, "2")


def delete_topic(broker: Kafka, topic: str) -> None:
    admin: Any = broker.admin()
    admin.delete_topics([topic])[topic].result(60)


def test_a_topic_is_made_as_it_has_to_be(caplog: pytest.LogCaptureFixture) -> None:
    broker = shared_server()
    url = broker.url(topic := new_topic_name(), "partitions=3")

    async def main() -> None:
        journal = await connect(url)
        assert journal.partitions == 3
        again = await connect(broker.url(topic))
        assert (again.id, again.partitions) == (journal.id, 3)
        await again.aclose()
        await journal.aclose()

    run(main())
    levels = {one.name: one.level for one in examine(parse_url(url, {}))}
    assert levels == {"copies": "warning", "kept": "ok", "size": "ok"}
    assert "has one copy" in caplog.text


def test_looking_at_a_topic_does_not_make_it() -> None:
    address = parse_url(shared_server().url(new_topic_name()), {})
    for _ in range(2):
        [finding] = examine(address)
        assert (finding.level, finding.name) == ("warning", "topic")
        assert "does not exist" in finding.found


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"cleanup.policy": "compact"}, "compaction drops what is still needed"),
        ({"retention.ms": "604800000"}, "Kafka would delete what is still needed"),
        ({"unclean.leader.election.enable": "true"}, "would be gone"),
        ({"max.message.bytes": "1048588"}, "a batch may need"),
    ],
)
def test_a_topic_that_is_not_fit_is_refused(config: dict[str, str], said: str) -> None:
    broker = shared_server()
    topic = new_topic_name()
    create_topic(broker.admin(), topic, config={**new_topic(1), **config})

    async def main() -> None:
        with pytest.raises(JournalUnavailableError, match=said):
            await connect(broker.url(topic))

    run(main())


def test_a_topic_of_another_purpose_is_no_journal() -> None:
    broker = shared_server()
    topic = new_topic_name()
    create_topic(broker.admin(), topic, partitions=2, config=new_topic(1))

    async def main() -> None:
        put(broker, topic, 1, b"hello")
        with pytest.raises(JournalFormatError, match="is not a journal: partition 1"):
            await connect(broker.url(topic))
        put(broker, topic, 0, b"hello")
        with pytest.raises(JournalFormatError, match="was not written by a coord"):
            await connect(broker.url(topic))

    run(main())


def test_the_number_of_partitions_is_fixed(caplog: pytest.LogCaptureFixture) -> None:
    broker = shared_server()
    topic = new_topic_name()

    async def main() -> None:
        journal, partition = await take_over(broker.url(topic, "partitions=2"), "x")
        with pytest.raises(JournalFormatError, match="has 2 partitions, not 3"):
            await connect(broker.url(topic, "partitions=3"))
        admin: Any = broker.admin()
        admin.create_partitions([NewPartitions(topic, 3)])[topic].result(60)
        await write(partition, "it runs on")
        await journal.aclose()
        again = await connect(broker.url(topic))
        assert again.partitions == 2
        await again.aclose()
        assert await kept(broker.url(topic)) == ["it runs on"]

    run(main())
    assert "those that were added are not used" in caplog.text


def test_strangers_are_named_and_mean_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    broker = shared_server()
    url = broker.url(topic := new_topic_name())

    async def main() -> None:
        journal, partition = await take_over(url, "x")
        put(broker, topic, 0, b"hello")
        await write(partition, "1")
        await write(partition, "2")
        told = [one for one in caplog.messages if "someone else writes" in one]
        assert len(told) == 1
        assert f"partition 0 of topic {topic}: 1 of its messages" in told[0]
        await journal.aclose()
        assert await kept(url) == ["1", "2"]

    run(main())


def test_a_topic_that_was_deleted_in_mid_run_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(client_module._PRODUCER, "message.timeout.ms", 10_000)
    broker = shared_server()
    topic = new_topic_name()

    async def main() -> None:
        journal, partition = await take_over(broker.url(topic), "x")
        await write(partition, "1")
        delete_topic(broker, topic)
        with pytest.raises((JournalBrokenError, UncertainError)):
            await write_many(partition, 100)
        with pytest.raises((JournalBrokenError, UncertainError)):
            await write(partition, "3")
        await journal.aclose()

    run(main())


def test_one_that_was_made_anew_is_noticed() -> None:
    broker = shared_server()
    topic = new_topic_name()

    async def main() -> None:
        journal, partition = await take_over(broker.url(topic), "x")
        for number in range(5):
            await write(partition, str(number))
        delete_topic(broker, topic)
        create_topic(broker.admin(), topic, config=new_topic(1))
        with pytest.raises(JournalError) as caught:
            await write(partition, "5")
        assert isinstance(caught.value, JournalBrokenError | UncertainError)
        await journal.aclose()

    run(main())


def test_records_that_were_deleted_by_hand_are_missed() -> None:
    broker = shared_server()
    topic = new_topic_name()
    url = broker.url(topic)

    async def main() -> None:
        journal, partition = await take_over(url, "x")
        for number in range(5):
            await write(partition, str(number))
        client = client_module.KafkaClient(parse_url(url, {}))
        await asyncio.to_thread(client.delete, 0, 3)
        with pytest.raises(JournalBrokenError, match="trimmed while it was read"):
            _ = [batch async for batch in partition.read(Position(0))]
        await journal.aclose()
        with pytest.raises(JournalDamagedError, match="no checkpoint says that it may"):
            await take_over(url, "y")

    run(main())


def test_nobody_there_is_said_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_module, "ASK_TIMEOUT_S", 3.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]

        async def main() -> None:
            with pytest.raises(JournalUnavailableError, match="onnect") as caught:
                await connect(f"kafka://u:{PASSWORD_OF_ALICE}@127.0.0.1:{port}/orders")
            assert f"can't reach kafka://127.0.0.1:{port}/orders" in str(caught.value)
            assert PASSWORD_OF_ALICE not in str(caught.value)

        run(main())


def test_a_broker_that_dies_while_it_is_read_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client_module, "READ_TIMEOUT_S", 2.0)
    monkeypatch.setattr(client_module, "ASK_TIMEOUT_S", 3.0)
    monkeypatch.setitem(client_module._PRODUCER, "message.timeout.ms", 3000)
    with kafka_server() as broker:

        async def main() -> None:
            journal, partition = await take_over(broker.url("orders"), "x")
            await write(partition, "1")
            await partition.save_checkpoint(partition.end, b"saved")
            broker.kill()
            with pytest.raises(JournalBrokenError, match="can't read partition 0"):
                _ = [batch async for batch in partition.read(Position(0))]
            for _ in range(2):
                await partition.trim(partition.end)  # a hint: it is logged, once
            told = [one for one in caplog.messages if "is not trimmed: can't" in one]
            assert len(told) == 1
            with pytest.raises(JournalBrokenError, match="is stored: nobody knows"):
                await partition.save_checkpoint(partition.end, b"x")
            with pytest.raises(JournalBrokenError):
                await write(partition, "2")
            with pytest.raises(JournalUnavailableError):
                await connect(broker.url("orders"))
            await journal.aclose()

        run(main())


def test_closing_while_a_checkpoint_is_saved_ends_it() -> None:
    async def main() -> None:
        journal, partition = await take_over(shared_server().url(new_topic_name()), "x")
        async with asyncio.TaskGroup() as group:
            data = bytes(3_000_000)
            save = partition.save_checkpoint(Position(0), data)
            saving = group.create_task(_closed(save))
            await asyncio.sleep(0)
            await journal.aclose()
        assert saving.result()
        assert partition.full == ""

    async def _closed(save: Any) -> bool:
        with pytest.raises(JournalClosedError):
            await save
        return True

    run(main())


def test_large_batches_are_read_few_at_a_time() -> None:
    async def main() -> None:
        url = shared_server().url(new_topic_name())
        journal, partition = await take_over(url, "x")
        texts = [letter * 3_000_000 for letter in "abc"]
        for text in texts:
            await write(partition, text)
        await journal.aclose()
        assert await kept(url) == texts

    run(main())


def test_a_password_in_plain_text_is_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    address = parse_url(f"kafka://u:{PASSWORD_OF_ALICE}@a/orders?sasl=plain", {})
    _check(address, TopicFacts("orders", [3], new_topic(3)))
    [told] = caplog.messages
    assert "is sent in plain text" in told
    assert PASSWORD_OF_ALICE not in told


def test_a_cancelled_opening_can_be_done_again() -> None:
    async def main() -> None:
        journal = await connect(shared_server().url(new_topic_name()))
        async with asyncio.TaskGroup() as group:
            opening = group.create_task(journal.open(0, owner="x", at=1))
            await asyncio.sleep(0)
            opening.cancel()
        partition = await journal.open(0, owner="y", at=1)
        with pytest.raises(JournalLockedError, match="is in use by y"):
            await journal.open(0, owner="z", at=1)
        await write(partition, "1")
        await journal.aclose()

    run(main())


def test_closing_waits_for_the_write_in_flight() -> None:
    async def main() -> None:
        url = shared_server().url(new_topic_name())
        journal, partition = await take_over(url, "x")
        async with asyncio.TaskGroup() as group:
            batch = next_batch(partition, "1")
            writing = group.create_task(partition.write(batch))
            await asyncio.sleep(0)
            await journal.aclose()
            assert writing.done()
        assert await kept(url) == ["1"]

    run(main())


class Guarded(NamedTuple):
    """A broker that lets in who shows a certificate and has a password."""

    broker: Kafka
    authority: Authority
    client: Pair

    def url(self, topic: str, **options: str) -> str:
        files = {
            "tls_ca": str(self.authority.certificate),
            "tls_cert": str(self.client.certificate),
            "tls_key": str(self.client.key),
        }
        options = {**files, **options}
        query = "&".join(f"{name}={value}" for name, value in options.items() if value)
        url = self.broker.url(topic, query)
        return url.replace("//", f"//alice:{PASSWORD_OF_ALICE}@", 1)

    def allow(self, topic: str, *, cluster: bool = True) -> None:
        admin: Any = self.broker.admin()
        bindings = [_binding(ResourceType.TOPIC, topic)]
        if cluster:
            bindings.append(_binding(ResourceType.BROKER, "kafka-cluster"))
        for done in admin.create_acls(bindings).values():
            done.result(60)

    def forbid(self) -> None:
        admin: Any = self.broker.admin()
        untyped: Any = AclBindingFilter  # its None for any is not declared
        every = untyped(
            ResourceType.ANY,
            None,
            ResourcePatternType.ANY,
            None,
            None,
            AclOperation.ANY,
            AclPermissionType.ANY,
        )
        for done in admin.delete_acls([every]).values():
            done.result(60)


def _binding(kind: ResourceType, name: str) -> AclBinding:
    return AclBinding(
        kind,
        name,
        ResourcePatternType.LITERAL,
        "User:alice",
        "*",
        AclOperation.ALL,
        AclPermissionType.ALLOW,
    )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Generator[Guarded]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    tls = KafkaTls(
        server=authority.issue("server"), authority=authority.certificate, verify=True
    )
    options = KafkaOptions(users={"alice": PASSWORD_OF_ALICE}, tls=tls, authorize=True)
    with kafka_server(options) as broker:
        yield Guarded(broker, authority, authority.issue("client"))


@needs_openssl
@pytest.mark.parametrize("sasl", ["", "plain", "scram-sha-256", "scram-sha-512"])
def test_who_has_a_certificate_and_a_password_is_let_in(
    guarded: Guarded, sasl: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    topic = new_topic_name()
    guarded.allow(topic)

    async def main() -> None:
        url = guarded.url(topic, sasl=sasl)
        journal, partition = await take_over(url, "x")
        await write(partition, "1")
        await partition.save_checkpoint(partition.end, b"saved")
        await partition.trim(partition.end)
        assert await partition.load_checkpoint() == b"saved"
        await journal.aclose()
        without = url.replace(f"alice:{PASSWORD_OF_ALICE}@", "")
        named = {USER: "alice", PASSWORD: PASSWORD_OF_ALICE}
        assert await kept(without, **named) == []

    run(main())
    assert PASSWORD_OF_ALICE not in caplog.text


@needs_openssl
def test_who_has_not_is_told_what_to_see_to(
    guarded: Guarded,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(client_module, "ASK_TIMEOUT_S", 5.0)
    caplog.set_level(logging.DEBUG)
    topic = new_topic_name()
    url = guarded.url(topic)
    other = Authority(tmp_path / "other")

    async def refused(url: str) -> str:
        with pytest.raises(JournalUnavailableError) as caught:
            await open_journal(url)
        return str(caught.value)

    async def main() -> None:
        wrong = url.replace(PASSWORD_OF_ALICE, "s3cret-and-wrong")
        assert "see to user, password and sasl in the URL" in await refused(wrong)
        unknown = guarded.url(topic, tls_ca=str(other.certificate))
        assert "see to tls_ca, tls_cert and tls_key" in await refused(unknown)
        missing = guarded.url(topic, tls_ca=str(tmp_path / "missing.pem"))
        assert "see to the files of tls_ca" in await refused(missing)
        assert "grant Read, Write" in await refused(url)

    run(main())
    assert "s3cret" not in caplog.text


@needs_openssl
def test_a_right_that_is_taken_away_in_mid_run_is_named(guarded: Guarded) -> None:
    topic = new_topic_name()
    guarded.allow(topic)

    async def main() -> None:
        journal, partition = await take_over(guarded.url(topic), "x")
        await write(partition, "1")
        guarded.forbid()
        with pytest.raises(JournalBrokenError, match="grant Read, Write"):
            await write_many(partition, 1000)
        with pytest.raises(JournalUnavailableError, match="grant Read, Write"):
            await take_over(guarded.url(topic), "y")
        await journal.aclose()
        guarded.allow(topic)
        assert (await kept(guarded.url(topic)))[0] == "1"

    run(main())
