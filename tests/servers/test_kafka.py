"""The kit's Kafka does what tests of a journal will need of it."""

import hashlib
import http.server
import threading
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from tests.certificates import Authority, needs_openssl
from tests.servers import kafka
from tests.servers.installing import LackError
from tests.servers.kafka import (
    KafkaOptions,
    KafkaTls,
    create_topic,
    kafka_cluster,
    kafka_server,
)


def put(address: str, value: bytes, **settings: str) -> KafkaError | None:
    """Send one message to partition 0 of topic t, acknowledged by all copies."""
    told: list[KafkaError | None] = []
    producer = Producer({"bootstrap.servers": address, "log_level": 0, **settings})
    producer.produce("t", value, partition=0, on_delivery=lambda e, _: told.append(e))
    producer.flush(60)
    [error] = told
    return error


def values(address: str, count: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": address, "group.id": "test"})
    try:
        consumer.assign([TopicPartition("t", 0, 0)])
        found = consumer.consume(count, 60)
    finally:
        consumer.close()
    return [message.value() or b"" for message in found]


def test_what_a_killed_broker_had_taken_is_there_again() -> None:
    with kafka_server() as broker:
        create_topic(broker.admin(), "t")
        assert put(broker.address, b"before") is None
        broker.kill()
        broker.restart()
        assert put(broker.address, b"behind") is None
        assert values(broker.address, 2) == [b"before", b"behind"]


def test_another_broker_leads_when_the_leader_is_killed_or_hangs() -> None:
    with kafka_cluster() as cluster:
        create_topic(cluster.admin(), "t", copies=3)
        hosts = ",".join(broker.address for broker in cluster.brokers)
        first = cluster.leader("t", 0)
        first.kill()
        assert put(hosts, b"1") is None
        cluster.start()
        second = cluster.leader("t", 0)
        second.pause()
        try:
            assert put(hosts, b"2") is None
        finally:
            second.resume()
        assert values(hosts, 2) == [b"1", b"2"]


def test_without_a_right_nothing_is_taken() -> None:
    options = KafkaOptions(users={"alice": "s3cret"}, authorize=True)
    with kafka_server(options) as broker:
        create_topic(broker.admin(), "t")
        for mechanism in ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"):
            alice = {
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": mechanism,
                "sasl.username": "alice",
                "sasl.password": "s3cret",
            }
            error = put(broker.address, b"x", **alice)
            assert error is not None
            assert error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


@needs_openssl
def test_who_shows_no_certificate_is_not_let_in(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = KafkaTls(
        server=authority.issue("server"), authority=authority.certificate, verify=True
    )
    client = authority.issue("client")
    with kafka_server(KafkaOptions(tls=tls)) as broker:
        create_topic(broker.admin(), "t")
        trusting = {
            "security.protocol": "SSL",
            "ssl.ca.location": str(authority.certificate),
        }
        shown = {
            "ssl.certificate.location": str(client.certificate),
            "ssl.key.location": str(client.key),
        }
        assert put(broker.address, b"x", **trusting, **shown) is None
        admin = AdminClient(
            {"bootstrap.servers": broker.address, "log_level": 0, **trusting}
        )
        with pytest.raises(KafkaException):
            admin.list_topics(timeout=5)


@contextmanager
def serving(folder: Path) -> Generator[str]:
    """Serve *folder* by HTTP, as a Maven repository does."""

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    handler = partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def test_a_jar_is_what_the_list_says_or_is_not_taken(tmp_path: Path) -> None:
    served = tmp_path / "maven" / "org" / "some" / "thing" / "1.0"
    served.mkdir(parents=True)
    (served / "thing-1.0.jar").write_bytes(b"jar")
    right = hashlib.sha256(b"jar").hexdigest()
    with serving(tmp_path / "maven") as url:
        kafka._get_jar(url, "org.some:thing:1.0", right, tmp_path)
        assert (tmp_path / "thing-1.0.jar").read_bytes() == b"jar"
        with pytest.raises(LackError, match=r"is not what kafka\.txt says"):
            kafka._get_jar(url, "org.some:thing:1.0", right[::-1], tmp_path)
        with pytest.raises(LackError, match="MAVEN_URL"):
            kafka._get_jar(url, "org.some:thing:2.0", right, tmp_path)


MIRRORS = """<settings xmlns="http://maven.apache.org/SETTINGS/1.0.0"><mirrors>
  <mirror><mirrorOf>other</mirrorOf><url>https://other.example/</url></mirror>
  <mirror><mirrorOf>x,central</mirrorOf><url>https://ours.example/maven/</url></mirror>
</mirrors></settings>"""


def test_the_repository_is_the_one_the_user_is_set_up_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MAVEN_URL", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert kafka._repository() == "https://repo.maven.apache.org/maven2"
    (tmp_path / ".m2").mkdir()
    (tmp_path / ".m2" / "settings.xml").write_text(MIRRORS)
    assert kafka._repository() == "https://ours.example/maven"
    monkeypatch.setenv("MAVEN_URL", "https://mine.example/m2/")
    assert kafka._repository() == "https://mine.example/m2"


def test_without_java_it_says_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = kafka._find_java.__wrapped__
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LackError, match="needs Java 17 or later"):
        find()
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    with pytest.raises(LackError, match=r"is openjdk version \"11\.0\.2\""):
        find()
