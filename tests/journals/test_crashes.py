"""Fail and stop at every call of a run, and look at what the next process finds.

The run opens a partition twice, rolls several times, saves two checkpoints and trims.
For each call n of it, and each kind of fault at n: what was acknowledged is there, in
order; behind it is at most the one batch that was in flight; the checkpoint is one that
was saved or was being saved; and opening again changes nothing more.
"""

import errno
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field

import pytest
from tests.journals.disk import Data, Disk, Names, PowerCut, cut_at, fail_at

from coordinator.batch import Batch, encode_batch
from coordinator.errors import JournalBrokenError, JournalFullError
from coordinator.journals.handle import encode_claim
from coordinator.journals.segments.reading import Identity
from coordinator.journals.segments.renewal import make_partition
from coordinator.journals.segments.scan import scan
from coordinator.journals.segments.store import Store, StoreOptions
from coordinator.records import Resumed, encode_record

IDENTITY = Identity(bytes(range(16)), 0, 1)
OPTIONS = StoreOptions(segment_size=4096, retention_s=0)


@dataclass
class Run:
    """A run of a partition, and what it was told."""

    disk: Disk
    archive: bool = False
    acknowledged: list[Batch] = field(default_factory=list[Batch])
    in_flight: list[Batch] = field(default_factory=list[Batch])
    checkpoints: list[bytes | None] = field(default_factory=lambda: [None])
    """The last one saved, and those that may have been saved since."""
    low: int = 0
    refused: int = 0
    closings: list[range] = field(default_factory=list[range])
    """The numbers of the calls that each closing made."""

    def __post_init__(self) -> None:
        """Make the partition; what follows is counted from here."""
        make_partition(self.disk.folder("/journal/p0"), IDENTITY, created_at=0)
        self.disk.calls = 0

    def store(self) -> Store:
        return Store(
            self.disk.folder("/journal/p0"),
            IDENTITY,
            OPTIONS,
            clock=lambda: 0,
            archive=self.disk.folder("/archive") if self.archive else None,
        )

    def whole(self) -> None:
        """Do everything a partition does, twice."""
        for life in range(2):
            store = self.store()
            try:
                self._live(store, life)
            finally:
                calls = self.disk.calls
                store.close()
                self.closings.append(range(calls, self.disk.calls))

    def append(self, store: Store, batch: Batch) -> None:
        self.in_flight = [batch]
        store.append(batch)
        self.acknowledged.append(batch)
        self.in_flight = []

    def checkpoint(self, store: Store, low: int, data: bytes) -> None:
        self.checkpoints.append(data)
        store.save_checkpoint(low, data)
        self.checkpoints = [data]
        self.low = low

    def _live(self, store: Store, life: int) -> None:
        store.open("test")
        self.append(store, encode_claim(store.chain, owner="test", at=0))
        for number in range(14):
            batch = batch_behind(store, number, 5000 if number == 6 else 700)
            try:
                self.append(store, batch)
            except JournalFullError:
                self.refused += 1
            if store.wants_space:
                store.prepare()
            if number in (4, 13):
                # The last one as with nothing to do: closing gives space back then.
                low = max(0, store.chain.end - (2 if number == 4 else 0))
                try:
                    self.checkpoint(store, low, b"%d %d" % (life, number) * 20)
                except JournalFullError:
                    self.checkpoints.pop()
                store.trim(store.chain.end)


def batch_behind(store: Store, number: int, size: int) -> Batch:
    return encode_batch(
        [encode_record(Resumed(number, "x" * size, 1))],
        epoch=store.chain.epoch,
        first=store.chain.end,
        previous_crc=store.chain.crc,
    )


def check(run: Run) -> None:
    """Open what *run* left, and check it; then lose all that is not durable, again."""
    for _ in range(2):
        store = run.store()
        try:
            store.open("check")
            # From the oldest one kept: what a trim left has no gap.
            found = list(scan(store, 0, store.chain.end))
            checkpoint = store.load_checkpoint()
        finally:
            store.close()
        wanted = [batch for batch in run.acknowledged if batch.end > run.low]
        behind = [batch for batch in found if batch.end > run.low]
        assert behind[: len(wanted)] == wanted
        assert behind[len(wanted) :] in ([], run.in_flight)
        assert checkpoint in run.checkpoints
        # What was found once must stay.
        run.acknowledged = [*run.acknowledged[: -len(wanted) or None], *behind]
        run.in_flight = []
        run.checkpoints = [checkpoint]
        run.disk.cut_power(Data.NONE, Names.NONE)


def calls_of_a_run(*, archive: bool = False) -> int:
    disk = Disk()
    Run(disk, archive).whole()
    return disk.calls


@pytest.mark.parametrize("names", Names)
@pytest.mark.parametrize("data", Data)
def test_a_power_cut_at_any_call_loses_nothing_that_was_acknowledged(
    data: Data, names: Names
) -> None:
    # The archive's folder behaves no differently by what becomes of the bytes.
    archive = data is Data.NONE
    for number in range(calls_of_a_run(archive=archive)):
        run = Run(Disk(), archive)
        run.disk.fault = cut_at(number)
        with pytest.raises(PowerCut):
            run.whole()
        run.disk.cut_power(data, names)
        check(run)


@pytest.mark.parametrize("for_ever", [False, True])
@pytest.mark.parametrize("survives", ["cache", "platter"])
def test_an_io_error_at_any_call_breaks_the_store_and_loses_nothing(
    survives: str, for_ever: bool
) -> None:
    healthy = Run(Disk())
    healthy.whole()
    between, last = healthy.closings
    assert len(between) == len(last) == 2  # what was allocated is cut, and removed
    for number in range(healthy.disk.calls):
        run = Run(Disk())
        run.disk.fault = fail_at(number, errno.EIO, for_ever=for_ever)
        # Closing breaks nothing: what it gives back is no part of the journal.
        harmless = number in last or (number in between and not for_ever)
        with nullcontext() if harmless else pytest.raises(JournalBrokenError):
            run.whole()
        if survives == "cache":
            run.disk.kill()
        else:
            run.disk.cut_power(Data.NONE, Names.NONE)
        check(run)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EMFILE])
@pytest.mark.parametrize("for_ever", [False, True])
def test_a_lack_of_anything_at_any_call_loses_nothing(
    for_ever: bool, code: int
) -> None:
    for number in range(calls_of_a_run()):
        run = Run(Disk())
        run.disk.fault = fail_at(number, code, for_ever=for_ever)
        with suppress(JournalBrokenError, JournalFullError):
            run.whole()
        run.disk.kill()
        check(run)


def torn_run(data: Data) -> Run:
    """Return a run that a power cut ended within a write, on a disk that is full."""
    run = Run(Disk())
    store = run.store()
    store.open("test")
    run.append(store, encode_claim(store.chain, owner="test", at=0))
    for number in range(2):
        run.append(store, batch_behind(store, number, 700))
    run.disk.fault = cut_at(run.disk.calls)
    with pytest.raises(PowerCut):
        run.append(store, batch_behind(store, 2, 1400))
    run.disk.cut_power(data, Names.NONE)
    run.disk.space = 0
    return run


@pytest.mark.parametrize("after", Data)
@pytest.mark.parametrize("before", Data)
def test_a_power_cut_while_opening_on_a_full_disk_loses_nothing(
    before: Data, after: Data
) -> None:
    number = 0
    opened = False
    while not opened:
        run = torn_run(before)
        run.disk.fault = cut_at(run.disk.calls + number)
        store = run.store()
        try:
            store.open("again")
            opened = True
            assert store.full
        except PowerCut:
            number += 1
        run.disk.cut_power(after, Names.ALL)
        check(run)
    assert number > 10


@pytest.mark.parametrize("survives", ["cache", "platter"])
def test_an_io_error_while_opening_on_a_full_disk_loses_nothing(survives: str) -> None:
    number = 0
    opened = False
    while not opened:
        run = torn_run(Data.FIRST_HALF)
        run.disk.fault = fail_at(run.disk.calls + number, errno.EIO)
        try:
            run.store().open("again")
            opened = True
        except JournalBrokenError:
            number += 1
        if survives == "cache":
            run.disk.kill()
        else:
            run.disk.cut_power(Data.NONE, Names.NONE)
        check(run)
    assert number > 10


@pytest.mark.parametrize("space", [0, 1 << 20])
def test_what_a_failed_flush_left_in_the_cache_is_durable_once_it_was_read(
    space: int,
) -> None:
    run = Run(Disk())
    store = run.store()
    store.open("test")
    run.append(store, encode_claim(store.chain, owner="test", at=0))
    run.disk.fault = fail_at(run.disk.calls + 1, errno.EIO)
    with pytest.raises(JournalBrokenError):
        run.append(store, batch_behind(store, 0, 3000))
    run.disk.kill()
    run.disk.space = space
    store = run.store()
    store.open("again")
    # It was never acknowledged, but whoever reads it may act on it.
    assert store.chain.end == 2
    run.acknowledged += run.in_flight
    run.disk.cut_power(Data.NONE, Names.NONE)
    check(run)
