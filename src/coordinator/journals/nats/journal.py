"""The ``nats:`` journal: a stream per partition, claimed by comparing and appending.

`open` asks where the stream ends and puts a claim there, at that sequence or not at
all. If somebody was quicker it asks again: an owner that goes on writing, or another
claimant, over whom the next claim wins. Who tries is not decided here.
"""

import os
from collections.abc import Callable

from coordinator.errors import (
    JournalFullError,
    JournalLockedError,
    JournalUnavailableError,
)
from coordinator.journals.chain import Chain
from coordinator.journals.handle import encode_claim
from coordinator.journals.nats.address import Address
from coordinator.journals.nats.answers import Doubtful, NoSpace, Overtaken, Stored
from coordinator.journals.nats.connection import Connection, NoAnswerError
from coordinator.journals.nats.layout import Kind, Message
from coordinator.journals.nats.opening import open_streams, patiently
from coordinator.journals.nats.partition import NatsPartition, tail_behind
from coordinator.journals.nats.stream import End, Stream

__all__ = ["NatsJournal"]

JOURNAL_ID_SIZE = 16
CLAIM_TRIES_MAX = 1000
"""How often an owner who goes on writing may be quicker than our claim."""


def _new_id() -> bytes:
    return os.urandom(JOURNAL_ID_SIZE)


class NatsJournal:
    """A journal in JetStream; see `coordinator.ports.Journal`.

    Make one with `open_address`.
    """

    def __init__(self, address: Address, journal_id: bytes, partitions: int) -> None:
        self._address = address
        self._id = journal_id
        self._partitions = partitions
        self._opened: dict[int, tuple[NatsPartition, str]] = {}

    @classmethod
    async def open_address(
        cls, address: Address, *, new_id: Callable[[], bytes] = _new_id
    ) -> "NatsJournal":
        """Open the journal at *address*, which is made if it is new.

        Args:
            address: Where it is, and how to get there.
            new_id: Returns 16 bytes that no other journal has.

        Raises:
            JournalFormatError: It has another number of partitions, or is newer.
            JournalDamagedError: A stream of it is gone.
            JournalUnavailableError: No server lets us in, one is not fit for it, or a
                stream is not what it should be; says what to do.
        """

        async def find(connection: Connection) -> tuple[bytes, int]:
            return await open_streams(connection, address, new_id)

        journal_id, partitions = await patiently(address, find)
        return cls(address, journal_id, partitions)

    @property
    def id(self) -> str:
        """See the port."""
        return self._id.hex()

    @property
    def partitions(self) -> int:
        """See the port."""
        return self._partitions

    @property
    def full(self) -> str:
        """See the port."""
        return "; ".join(one.full for one, _ in self._opened.values() if one.full)

    async def open(self, partition: int, *, owner: str, at: int) -> NatsPartition:
        """See the port. Whoever holds it elsewhere is fenced, not asked."""
        assert 0 <= partition < self._partitions, partition
        if (held := self._opened.get(partition)) is not None:
            raise JournalLockedError(f"{self._address}, partition {partition}", held[1])

        async def claim(connection: Connection) -> NatsPartition:
            return await self._claim(connection, partition, owner, at)

        opened = await patiently(self._address, claim, keep=True)
        self._opened[partition] = opened, owner
        return opened

    async def _claim(
        self, connection: Connection, partition: int, owner: str, at: int
    ) -> NatsPartition:
        names = self._address.names
        stream = Stream(connection, names, journal_id=self._id, partition=partition)
        info = await stream.info()
        for _ in range(CLAIM_TRIES_MAX):
            end = await stream.find_end()
            before = end.tail
            chain = Chain(epoch=before.epoch, end=before.end, crc=before.crc)
            batch = encode_claim(chain, owner=owner, at=at)
            sequence = end.sequence + 1
            tail = tail_behind(batch, before)
            verdict = await stream.put(
                Message(Kind.BATCH, sequence, 0, 1, tail, batch.data)
            )
            match verdict:
                case Stored():
                    opened = NatsPartition(
                        connection,
                        stream,
                        batch,
                        End(sequence, tail),
                        size_max=info.config.max_msg_size,
                        on_close=self._closed,
                    )
                    await opened.prepare()
                    return opened
                case Overtaken():
                    continue  # the owner, or another claimant, was quicker
                case NoSpace(reason):
                    raise JournalFullError(reason)
                case Doubtful(reason):
                    raise NoAnswerError(reason)
        raise JournalUnavailableError(
            f"{self._address}: partition {partition} was written to between each of "
            f"{CLAIM_TRIES_MAX} looks at its end and the claim; stop its owner first"
        )

    def _closed(self, partition: NatsPartition) -> None:
        held = self._opened.get(partition.number)
        if held is not None and held[0] is partition:
            del self._opened[partition.number]

    async def aclose(self) -> None:
        """See the port."""
        for opened, _ in list(self._opened.values()):
            await opened.aclose()
