"""The harnesses find what is planted: each bug here is one that others have shipped."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from tests.lacking import lack
from tests.torture.elsewhere import elsewhere
from tests.torture.harness import Unavailable, run_case

from coordinator import batch
from coordinator.batch import Batch
from coordinator.journals.segments.partition import SegmentPartition
from coordinator.journals.segments.posix import PosixFile, PosixFolder


def _nothing(_self: object) -> None: ...


def never_flush() -> None:
    """Acknowledge what is in the cache (etcd #14370; NATS, for two minutes)."""
    setattr(PosixFile, "sync", _nothing)  # noqa: B010 -- the types are right to mind


def never_flush_names() -> None:
    """Forget that a new segment's name has to be durable, too."""
    setattr(PosixFolder, "sync", _nothing)  # noqa: B010 -- as above


def flush_again() -> None:
    """Try a failed flush again: the second one lies (PostgreSQL, until 2018)."""
    sync = PosixFile.sync

    def twice(self: PosixFile) -> None:
        try:
            sync(self)
        except OSError:
            sync(self)

    setattr(PosixFile, "sync", twice)  # noqa: B010 -- as above


def acknowledge_at_once() -> None:
    """Acknowledge what the journal's thread has still to write."""

    async def write(self: SegmentPartition, batch: Batch) -> None:
        self._handle.begin(batch)
        self._loop.run_in_executor(self._executor, self._store.append, batch)
        self._handle.landed(batch)

    SegmentPartition.write = write  # type: ignore[method-assign]


def believe_everything() -> None:
    """Compute no checksum, and find each as it should be."""
    setattr(batch, "zlib", SimpleNamespace(crc32=_always_zero))  # noqa: B010 -- no name


def _always_zero(*_: object) -> int:
    return 0


def planted(
    plant: Callable[[], None], name: str, cases: list[str], where: str | None
) -> list[str]:
    """Return what the harness finds once *plant* is done; in a process of its own."""
    plant()
    for case in cases:
        if violations := run_case(name, case, 1, where).violations:
            return violations
    return []


@pytest.mark.parametrize(
    ("plant", "name", "cases"),
    [
        (never_flush, "states", ["whole:0:3"]),
        (never_flush_names, "states", ["whole:0:3"]),
        (flush_again, "nth-error", [f"live:{n}:EIO:once" for n in range(300, 320)]),
        (believe_everything, "bits", ["closed:flip:3"]),
        (acknowledge_at_once, "nth", [f"live:{n}:before" for n in range(200, 220)]),
    ],
)
def test_what_is_planted_is_found(
    plant: Callable[[], None], name: str, cases: list[str]
) -> None:
    violations = elsewhere(planted, plant, name, cases, None)
    assert violations
    assert "the harness itself failed" not in violations[0], violations[0]


def test_a_power_cut_finds_what_was_never_flushed() -> None:
    try:
        violations = elsewhere(
            planted, never_flush, "power", ["ext4:0", "ext4:1"], None
        )
    except Unavailable as error:
        lack(str(error))
    assert violations
