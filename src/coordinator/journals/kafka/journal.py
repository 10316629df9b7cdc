"""The ``kafka:`` journal: a topic, which is made if it is not there.

docs/kafka-journal.md has the protocol, each crash point argued, and what each error
means.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from coordinator.errors import (
    JournalFormatError,
    JournalLockedError,
    JournalUnavailableError,
)
from coordinator.journals.kafka.address import REPLICATION, Address
from coordinator.journals.kafka.client import KafkaClient, KafkaTopicPartition
from coordinator.journals.kafka.fold import Place
from coordinator.journals.kafka.founding import identify
from coordinator.journals.kafka.messages import JOURNAL_ID_SIZE, Identity
from coordinator.journals.kafka.partition import KafkaPartition
from coordinator.journals.kafka.settings import (
    Finding,
    TopicFacts,
    check_topic,
    new_topic,
)
from coordinator.journals.kafka.store import Store

__all__ = ["KafkaJournal", "examine"]

_LOGGER = logging.getLogger("coordinator")


def _new_id() -> bytes:
    return os.urandom(JOURNAL_ID_SIZE)


class KafkaJournal:
    """A journal in a topic; see `coordinator.ports.Journal`.

    Make one with `connect`.
    """

    def __init__(self, client: KafkaClient, identity: Identity) -> None:
        self._client = client
        self._identity = identity
        self._opened: dict[int, KafkaPartition] = {}
        self._opening: set[int] = set()

    @classmethod
    async def connect(
        cls, address: Address, *, new_id: Callable[[], bytes] = _new_id
    ) -> "KafkaJournal":
        """Open the journal at *address*, which is made if it is new.

        Args:
            address: Where it is.
            new_id: Returns 16 bytes that no other journal has.

        Raises:
            JournalFormatError: The topic is something else, or has another number of
                partitions.
            JournalUnavailableError: No broker can be reached, or the topic is not fit
                to be a journal.
            JournalBrokenError: The topic can't be read, or refuses to be written.
        """
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="journal") as executor:
            client, identity = await loop.run_in_executor(
                executor, _connect, address, new_id
            )
        return cls(client, identity)

    @property
    def id(self) -> str:
        """See the port."""
        return self._identity.journal_id.hex()

    @property
    def partitions(self) -> int:
        """See the port."""
        return self._identity.partitions

    @property
    def full(self) -> str:
        """See the port."""
        return ""

    async def open(self, partition: int, *, owner: str, at: int) -> KafkaPartition:
        """See the port."""
        assert 0 <= partition < self.partitions, partition
        held = self._opened.get(partition)
        if held is not None and not held.closed:
            raise JournalLockedError(self._name(partition), held.owner)
        assert partition not in self._opening, "opened twice at once"
        self._opening.add(partition)
        try:
            identity = self._identity.of(partition)
            store = Store(
                KafkaTopicPartition(self._client, partition),
                Place(self._client.address.topic, identity),
            )
            executor = ThreadPoolExecutor(1, thread_name_prefix="journal")
            opened = await KafkaPartition.open(store, executor, owner=owner, at=at)
        finally:
            self._opening.discard(partition)
        self._opened[partition] = opened
        return opened

    def _name(self, partition: int) -> str:
        return f"partition {partition} of {self._client.address}"

    async def aclose(self) -> None:
        """See the port."""
        while self._opened:
            _, opened = self._opened.popitem()
            await opened.aclose()


def examine(address: Address) -> list[Finding]:
    """Return what is to be said of the topic at *address*; blocks.

    Raises:
        JournalUnavailableError: No broker can be reached.
    """
    facts = KafkaClient(address).describe()
    if facts is None:
        said = f"{address} does not exist"
        return [Finding("warning", "topic", said, "`coordinator serve` makes it")]
    return check_topic(facts)


def _connect(
    address: Address, new_id: Callable[[], bytes]
) -> tuple[KafkaClient, Identity]:
    client = KafkaClient(address)
    facts = client.describe()
    if facts is None:
        replication = address.replication or REPLICATION
        facts = client.create(address.partitions or 1, replication, new_topic)
    _check(address, facts)
    partitions = [
        KafkaTopicPartition(client, number) for number in range(len(facts.replicas))
    ]
    try:
        if address.partitions not in {None, len(partitions)}:
            raise JournalFormatError(
                f"{address} has {len(partitions)} partitions, not "
                f"{address.partitions}; their number is fixed when a journal is made"
            )
        identity = identify(address.topic, partitions, new_id)
    finally:
        for partition in partitions:
            partition.close()
    if identity.partitions < len(partitions):
        _LOGGER.warning(
            "%s has %d partitions, its journal has %d: those that were added are not "
            "used, and their number can't be changed back",
            address,
            len(partitions),
            identity.partitions,
        )
    return client, identity


def _check(address: Address, facts: TopicFacts) -> None:
    """Refuse a topic that is not fit, and warn of one that could be better."""
    for caution in address.cautions:
        _LOGGER.warning("%s", caution)
    findings = check_topic(facts)
    problems = [one for one in findings if one.level == "problem"]
    if problems:
        raise JournalUnavailableError(
            "; ".join(f"{one.found}: {one.advice}" for one in problems)
        )
    for one in findings:
        if one.level == "warning":
            _LOGGER.warning("%s: %s", one.found, one.advice)
