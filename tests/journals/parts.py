"""What several tests of the journals need: partitions with something in them."""

from coordinator.batch import Batch, encode_batch
from coordinator.journals.handle import encode_claim
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.format import SegmentHeader, encode_segment_header
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
    "chained",
    "make_store",
    "open_store",
    "segment_header",
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


def chained(
    count: int,
    *,
    first: int = 0,
    epoch: int = 1,
    previous_crc: int = 0,
    size: int = 40,
) -> list[Batch]:
    """Return *count* batches that follow one another, of a record each."""
    found: list[Batch] = []
    for number in range(first, first + count):
        record = encode_record(Resumed(0, f"{number}".ljust(size, "x"), 1))
        crc = found[-1].crc if found else previous_crc
        found.append(
            encode_batch([record], epoch=epoch, first=number, previous_crc=crc)
        )
    return found


def segment_header(
    base: int,
    *,
    epoch: int = 0,
    previous_crc: int = 0,
    identity: Identity = IDENTITY,
) -> bytes:
    """Return the first bytes of a segment that begins at *base*."""
    return encode_segment_header(
        SegmentHeader(
            journal_id=identity.journal_id,
            partition=identity.partition,
            partitions=identity.partitions,
            base=base,
            created_at=1,
            epoch=epoch,
            previous_crc=previous_crc,
        )
    )


def batches_of(store: Store, since: int = 0) -> list[Batch]:
    return list(scan(store, since, store.chain.end))
