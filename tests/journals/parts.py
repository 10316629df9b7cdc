"""What several tests of the journals need: partitions with something in them."""

from coordinator.batch import Batch, encode_batch
from coordinator.journals.handle import encode_claim
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.reading import Identity
from coordinator.journals.segments.renewal import make_partition
from coordinator.journals.segments.scan import scan
from coordinator.journals.segments.store import Store, StoreOptions
from coordinator.records import Resumed, encode_record

__all__ = [
    "IDENTITY",
    "SMALL",
    "Clock",
    "append",
    "batch_behind",
    "batches_of",
    "make_store",
    "open_store",
]

IDENTITY = Identity(bytes(range(16)), 0, 1)
SMALL = StoreOptions(segment_size=4096, retention_s=0)


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000_000

    def __call__(self) -> int:
        return self.now

    def move(self, seconds: float) -> None:
        self.now += round(seconds * 1e6)


def make_store(
    folder: Folder,
    options: StoreOptions = SMALL,
    *,
    identity: Identity = IDENTITY,
    clock: Clock | None = None,
    archive: Folder | None = None,
) -> Store:
    """Return a store that is not open yet, of a partition that is made if new."""
    if not folder.names():
        make_partition(folder, identity, created_at=(clock or Clock())())
    return Store(folder, identity, options, clock=clock or Clock(), archive=archive)


def open_store(
    folder: Folder,
    options: StoreOptions = SMALL,
    *,
    clock: Clock | None = None,
    archive: Folder | None = None,
) -> Store:
    """Open a partition and claim it."""
    store = make_store(folder, options, clock=clock, archive=archive)
    store.open("test")
    store.append(encode_claim(store.chain, owner="test", at=1))
    return store


def batch_behind(store: Store, size: int = 20, count: int = 1) -> Batch:
    """Make the next batch, of *count* records that hold *size* bytes of text each."""
    record = encode_record(Resumed(0, "x" * size, 1))
    return encode_batch(
        [record] * count,
        epoch=store.chain.epoch,
        first=store.chain.end,
        previous_crc=store.chain.crc,
    )


def append(store: Store, size: int = 20, count: int = 1) -> Batch:
    batch = batch_behind(store, size, count)
    store.append(batch)
    return batch


def batches_of(store: Store, since: int = 0) -> list[Batch]:
    return list(scan(store, since, store.chain.end))
