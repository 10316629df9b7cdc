"""A partition of a topic in memory, into which others may write at any moment.

It keeps what `coordinator.journals.kafka.topic` says, and no more: what is sent may
land behind anything, or land and fail, or fail and land later.
"""

from collections.abc import Callable, Iterator

from coordinator.batch import Batch, encode_batch
from coordinator.errors import JournalError
from coordinator.journals.kafka.fold import Place
from coordinator.journals.kafka.messages import Identity, encode_batch_message
from coordinator.journals.kafka.store import Store
from coordinator.journals.kafka.topic import GoneError
from coordinator.records import Resumed, encode_record

__all__ = ["IDENTITY", "FakeTopic", "encoded", "next_batch", "opened", "write"]

IDENTITY = Identity(bytes(range(16)), 0, 1)
PLACE = Place("orders", IDENTITY)


class FakeTopic:
    """See `coordinator.journals.kafka.topic.TopicPartition`."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.start = 0
        self.closed = False
        self.before: list[Callable[[], object]] = []
        """Called one by one, each before one message is put down."""
        self.reading: list[Callable[[], object]] = []
        """Called one by one, each before one fetch."""
        self.failures: list[tuple[JournalError, bool]] = []
        """How the next messages fail, and whether they land all the same."""
        self.unheard: list[bytes] = []
        """Messages that failed, and may land yet."""
        self.deletion: JournalError | None = None

    def bounds(self) -> tuple[int, int]:
        return self.start, len(self.messages)

    def fetch(self, since: int, until: int) -> Iterator[tuple[int, bytes]]:
        if self.reading:
            self.reading.pop(0)()
        for offset in range(since, until):
            if offset < self.start:
                raise GoneError(f"starts at {self.start}")
            assert offset < len(self.messages), "would wait for ever"
            if self.messages[offset]:  # an empty one is a marker, which is not seen
                yield offset, self.messages[offset]

    def append(self, data: bytes) -> int:
        if self.before:
            self.before.pop(0)()
        if self.failures:
            error, lands = self.failures.pop(0)
            if lands:
                self.put(data)
            else:
                self.unheard.append(data)
            raise error
        return self.put(data)

    def put(self, data: bytes) -> int:
        self.messages.append(data)
        return len(self.messages) - 1

    def delete(self, before: int) -> None:
        if self.deletion is not None:
            raise self.deletion
        self.start = max(self.start, before)

    def close(self) -> None:
        self.closed = True


def opened(topic: FakeTopic, owner: str = "test") -> Store:
    store = Store(topic, PLACE)
    store.open(owner, 1)
    return store


def next_batch(store: Store, *texts: str) -> Batch:
    chain = store._mine().chain
    return encode_batch(
        [encode_record(Resumed(0, text, 1)) for text in texts],
        epoch=chain.epoch,
        first=chain.end,
        previous_crc=chain.crc,
    )


def write(store: Store, *texts: str) -> Batch:
    batch = next_batch(store, *texts)
    store.append(batch)
    return batch


def encoded(batch: Batch, identity: Identity = IDENTITY) -> bytes:
    return encode_batch_message(identity, batch)
