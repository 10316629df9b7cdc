"""Fail and stop at every call of a run, and look at what the next process finds.

The run opens a partition twice, rolls several times, saves two checkpoints and trims.
For each call n of it, and each kind of fault at n: what was acknowledged is there, in
order; behind it is at most the one batch that was in flight; the checkpoint is one that
was saved or was being saved; and opening again changes nothing more.
"""

import contextlib
import errno
from dataclasses import dataclass, field

import pytest
from tests.journals.disk import Data, Disk, Names, PowerCut, cut_at, fail_at

from coordinator.batch import Batch, encode_batch
from coordinator.errors import JournalBrokenError, JournalFullError
from coordinator.journals.handle import encode_claim
from coordinator.journals.segments.reading import Identity
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
                store.close()

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
            if number in (4, 12):
                low = store.chain.end - 2
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
            found = list(scan(store, run.low, store.chain.end))
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


@pytest.mark.parametrize("archive", [False, True])
@pytest.mark.parametrize("names", Names)
@pytest.mark.parametrize("data", Data)
def test_a_power_cut_at_any_call_loses_nothing_that_was_acknowledged(
    data: Data, names: Names, archive: bool
) -> None:
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
    for number in range(calls_of_a_run()):
        run = Run(Disk())
        run.disk.fault = fail_at(number, errno.EIO, for_ever=for_ever)
        with pytest.raises(JournalBrokenError):
            run.whole()
        if survives == "cache":
            run.disk.kill()
        else:
            run.disk.cut_power(Data.NONE, Names.NONE)
        check(run)


@pytest.mark.parametrize("for_ever", [False, True])
def test_a_full_disk_at_any_call_loses_nothing(for_ever: bool) -> None:
    for number in range(calls_of_a_run()):
        run = Run(Disk())
        run.disk.fault = fail_at(number, errno.ENOSPC, for_ever=for_ever)
        with contextlib.suppress(JournalBrokenError, JournalFullError):
            run.whole()
        run.disk.kill()
        check(run)
