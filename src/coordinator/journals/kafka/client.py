"""Kafka by confluent-kafka: the one module that knows it. Every call blocks.

Errors of the client end here: `failures` says what each of them means.
"""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import Any, TypeVar

from confluent_kafka import (
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.admin._resource import ResourceType
from confluent_kafka.cimpl import NewTopic

from coordinator.errors import JournalError, UncertainError
from coordinator.journals.kafka import failures
from coordinator.journals.kafka.address import Address
from coordinator.journals.kafka.messages import MESSAGE_SIZE_MAX
from coordinator.journals.kafka.settings import TopicFacts
from coordinator.journals.kafka.topic import GoneError

__all__ = ["KafkaClient", "KafkaTopicPartition"]

T = TypeVar("T")

WRITE_TIMEOUT_S = 30
"""A leader that dies is replaced in some ten seconds; a write waits for that."""
ASK_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 30.0
"""Without a single message. As for a write: the leader may be on the way."""
POLL_S = 0.25
ASK_AGAIN_S = 0.05
CONNECT_TIMEOUT_S = 5.0

_MISSING = frozenset({"UNKNOWN_TOPIC_OR_PART", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"})
_PASSING = _MISSING | {
    "NOT_LEADER_FOR_PARTITION",
    "LEADER_NOT_AVAILABLE",
    "OFFSET_NOT_AVAILABLE",
}
"""A leader was elected or a topic made, and not all brokers know it: ask again."""

_COMMON: dict[str, Any] = {
    "client.id": "coordinator",
    "log_level": 2,  # what goes wrong is told by errors, not printed by a thread
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1000,  # brokers come back within seconds
    "topic.metadata.refresh.fast.interval.ms": 50,
    "socket.keepalive.enable": True,
    "socket.nagle.disable": True,
}
_PRODUCER: dict[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    "enable.sparse.connections": False,  # see `_make_producer`
    "linger.ms": 0,  # one message is in flight: there is nothing to wait for
    "message.timeout.ms": WRITE_TIMEOUT_S * 1000,
    "request.timeout.ms": 10_000,
    "retry.backoff.ms": 50,
    "retry.backoff.max.ms": 500,
    "message.max.bytes": MESSAGE_SIZE_MAX,
}
_CONSUMER: dict[str, Any] = {
    # Named, because the client wants a name: offsets are neither kept nor asked for.
    "group.id": "coordinator-journal",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    # A stranger's transaction that never ends must not hide what lies behind it.
    "isolation.level": "read_uncommitted",
    "check.crcs": True,
    "fetch.wait.max.ms": 10,
    "fetch.error.backoff.ms": 50,
    "fetch.queue.backoff.ms": 10,
    "fetch.message.max.bytes": 4 * 1024 * 1024,
    "queued.max.messages.kbytes": 16 * 1024,
}


class KafkaClient:
    """The brokers that an address names."""

    def __init__(self, address: Address) -> None:
        """Connect to nothing yet.

        Raises:
            JournalUnavailableError: The client can't be set up, e.g. for want of a
                file that the address names.
        """
        self.address = address
        self._reason: KafkaError | None = None
        """Why brokers could not be reached, as the client found out by itself."""
        self._admin: AdminClient = self.make(AdminClient, {})

    def make(self, kind: Callable[[dict[str, Any]], T], settings: dict[str, Any]) -> T:
        """Return a client of *kind*.

        Raises:
            JournalUnavailableError: It can't be set up.
        """
        common: dict[str, Any] = {
            **_COMMON,
            "bootstrap.servers": self.address.hosts,
            **self.address.client,
            "error_cb": self._note,
        }
        try:
            return kind({**common, **settings})
        except KafkaException as error:
            found = _error(error)
            where = str(self.address)
            raise failures.asked(where, found.name(), found.str()) from error

    def _note(self, error: KafkaError) -> None:
        # Who is not let in is told so once, then that connections fail, then that all
        # brokers are down: what says most stays.
        noted = -1 if self._reason is None else _weight(self._reason)
        if _weight(error) >= noted:
            self._reason = error

    def describe(self) -> TopicFacts | None:
        """Return what is to be known of the topic; None if it does not exist.

        Or is not led yet, or not all brokers know it.

        Raises:
            JournalUnavailableError: The brokers can't be asked, or do not tell.
        """
        self._reason = None
        topic = self.address.topic
        try:
            asked = self._untyped.describe_topics(TopicCollection([topic]))[topic]
            partitions = self._wait(asked).partitions
            settings = self._settings(topic)
        except KafkaException as error:
            if _error(error).name() in _PASSING:
                return None
            raise self._unreachable(error) from error
        if any(one.leader is None for one in partitions):
            return None
        replicas = [len(one.replicas) for one in partitions]
        return TopicFacts(name=topic, replicas=replicas, settings=settings)

    def _settings(self, topic: str) -> dict[str, str]:
        resource = ConfigResource(ResourceType.TOPIC, topic)
        try:
            entries = self._wait(self._untyped.describe_configs([resource])[resource])
        except KafkaException as error:
            if _error(error).name() == "TOPIC_AUTHORIZATION_FAILED":
                return {}
            raise
        return {name: entry.value for name, entry in entries.items()}

    def create(
        self,
        partitions: int,
        replication: int,
        config: Callable[[int], dict[str, str]],
    ) -> TopicFacts:
        """Create the topic, if nobody else does, and wait until it can be used.

        Args:
            partitions: How many.
            replication: Copies of each; if the address does not say how many, no more
                than there are brokers.
            config: Returns its settings, for as many copies.

        Raises:
            JournalUnavailableError: It can't be created.
        """
        topic = self.address.topic
        try:
            if self.address.replication is None:
                nodes = self._wait(self._untyped.describe_cluster()).nodes
                replication = min(replication, len(nodes))
            settings = config(replication)
            new = NewTopic(topic, partitions, replication, config=settings)
            self._wait(self._untyped.create_topics([new])[topic])
        except KafkaException as error:
            if _error(error).name() != "TOPIC_ALREADY_EXISTS":
                raise self._unreachable(error) from error
        deadline = time.monotonic() + ASK_TIMEOUT_S
        while (facts := self.describe()) is None:
            if time.monotonic() > deadline:
                text = "the topic was created, and can't be used yet"
                raise failures.asked(str(self.address), "_TIMED_OUT", text)
            time.sleep(ASK_AGAIN_S)
        return facts

    def delete(self, partition: int, before: int) -> None:
        """Have what lies before *before* deleted.

        Raises:
            JournalUnavailableError: It can't be done now.
        """
        where = TopicPartition(self.address.topic, partition, before)
        try:
            self._wait(self._untyped.delete_records([where])[where])
        except KafkaException as error:
            raise self._unreachable(error) from error

    @property
    def _untyped(self) -> Any:
        return self._admin  # its futures do not say what of

    def _wait(self, future: "Future[Any]") -> Any:
        try:
            return future.result(ASK_TIMEOUT_S)
        except FutureTimeoutError:
            raise KafkaException(
                KafkaError(KafkaError._TIMED_OUT, "no answer")  # noqa: SLF001 -- its name
            ) from None

    def _unreachable(self, error: KafkaException) -> JournalError:
        found = self.reason(_error(error))
        return failures.asked(str(self.address), found.name(), found.str())

    def reason(self, error: KafkaError) -> KafkaError:
        """Return *error*, or what was noted of the connections, if that is why."""
        self._admin.poll(0)
        vague = error.name() in {"_TIMED_OUT", "_TRANSPORT", "_ALL_BROKERS_DOWN"}
        return self._reason if vague and self._reason is not None else error


class KafkaTopicPartition:
    """One partition of the topic; see `topic.TopicPartition`."""

    def __init__(self, client: KafkaClient, partition: int) -> None:
        self._client = client
        self._topic = client.address.topic
        self._partition = partition
        self._place = f"partition {partition} of topic {self._topic}"
        self._made_consumer: Consumer | None = None
        self._producer: Producer | None = None
        self._reading = 0
        """Which `fetch` the consumer works for: they are numbered."""
        self._fetches = 0

    def bounds(self) -> tuple[int, int]:
        """See the protocol."""
        where = TopicPartition(self._topic, self._partition)
        deadline = time.monotonic() + ASK_TIMEOUT_S
        while True:
            try:
                start, end = self._consumer.get_watermark_offsets(where, ASK_TIMEOUT_S)
            except KafkaException as error:
                found = self._client.reason(_error(error))
                if found.name() in _PASSING and time.monotonic() < deadline:
                    time.sleep(ASK_AGAIN_S)
                    continue
                raise failures.asked(self._place, found.name(), found.str()) from error
            return start, end

    def fetch(self, since: int, until: int) -> Iterator[tuple[int, bytes]]:
        """See the protocol."""
        self._fetches += 1
        me = self._fetches
        try:
            while since < until:
                if self._reading != me:
                    self._reading = me
                    where = TopicPartition(self._topic, self._partition, since)
                    self._consumer.assign([where])
                message = self._poll(since)
                offset = message.offset()
                assert offset is not None
                error = message.error()
                if error is not None:
                    since = max(since, offset)  # the end, as far as is known
                    continue
                since = offset + 1
                if offset < until:
                    yield offset, message.value() or b""
        finally:
            # Or it would go on to fetch what we write.
            if self._reading == me and self._made_consumer is not None:
                self._reading = 0
                self._made_consumer.unassign()

    def _poll(self, since: int) -> Message:
        """Return the next message, or the event that there is none yet."""
        deadline = time.monotonic() + READ_TIMEOUT_S
        while True:
            message = self._consumer.poll(POLL_S)
            error = None if message is None else message.error()
            if message is not None and error is None:
                return message
            if message is not None and error is not None:
                match error.name():
                    case "_PARTITION_EOF":
                        if (message.offset() or 0) > since:
                            return message
                    case "_AUTO_OFFSET_RESET" | "OFFSET_OUT_OF_RANGE":
                        raise GoneError(f"{self._place} starts behind offset {since}")
                    case "GROUP_AUTHORIZATION_FAILED":
                        pass  # of a group that is never used
                    case name:
                        raise failures.read(self._place, since, name, error.str())
            if time.monotonic() > deadline:
                text = f"nothing came for {READ_TIMEOUT_S:.0f} s"
                raise failures.read(self._place, since, "_TIMED_OUT", text)

    def append(self, data: bytes) -> int:
        """See the protocol."""
        told: list[tuple[KafkaError | None, int | None]] = []

        def tell(error: KafkaError | None, message: Message) -> None:
            told.append((error, message.offset()))

        producer = self._producer = self._producer or self._make_producer()
        try:
            producer.produce(
                self._topic, data, partition=self._partition, on_delivery=tell
            )
            while not told:
                producer.poll(POLL_S)
        except (KafkaException, BufferError) as error:
            self._forget(producer)
            found = _error(error)
            raise failures.written(self._place, found.name(), found.str()) from error
        [(failure, offset)] = told
        if failure is not None:
            self._forget(producer)
            failure = self._client.reason(failure)
            raise failures.written(self._place, failure.name(), failure.str())
        if offset is None or offset < 0:
            self._forget(producer)
            raise UncertainError(
                f"a message to {self._place} landed, and nobody knows where; open it "
                f"again"
            )
        return offset

    def _make_producer(self) -> Producer:
        producer = self._client.make(Producer, _PRODUCER)
        # What makes it idempotent is an id, from any broker that is connected; it looks
        # again in half a second if none is. So wait here until one is: 10 ms.
        with suppress(KafkaException):
            producer.cluster_id(CONNECT_TIMEOUT_S)
        return producer

    def _forget(self, producer: Producer) -> None:
        # What it still holds is not sent any more. What is under way may land.
        producer.purge()
        self._producer = None

    def delete(self, before: int) -> None:
        """See the protocol."""
        self._client.delete(self._partition, before)

    def close(self) -> None:
        """See the protocol."""
        consumer, self._made_consumer = self._made_consumer, None
        if consumer is not None:
            consumer.close()
        self._producer = None

    @property
    def _consumer(self) -> Consumer:
        if self._made_consumer is None:
            self._made_consumer = self._client.make(Consumer, _CONSUMER)
        return self._made_consumer


def _weight(error: KafkaError) -> int:
    """Return how much *error* says of why brokers can't be reached."""
    match error.name():
        case "_SSL" | "_AUTHENTICATION":
            return 2
        case "_ALL_BROKERS_DOWN":
            return 0
        case _:
            return 1


def _error(error: BaseException) -> KafkaError:
    """Return the client's error in the exception that it raised."""
    found = error.args[0] if error.args else None
    if isinstance(found, KafkaError):
        return found
    return KafkaError(KafkaError._FAIL, str(error))  # noqa: SLF001 -- its name
