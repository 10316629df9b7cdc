"""Looking in from outside: everything is seen, nothing is touched."""

import asyncio
from collections.abc import Callable
from zlib import crc32

import pytest
from tests.journals.disk import Disk, MemoryFolder, fail_at
from tests.journals.parts import (
    IDENTITY,
    SMALL,
    append,
    batch_behind,
    batches_of,
    make_store,
)

from coordinator.batch import encode_batch
from coordinator.errors import JournalDamagedError, JournalFormatError
from coordinator.journals.handle import encode_claim
from coordinator.journals.segments.format import segment_name
from coordinator.journals.segments.inspect import (
    Entry,
    PartitionReport,
    dump,
    info,
    tail,
    verify,
)
from coordinator.journals.segments.journal import SegmentJournal
from coordinator.journals.segments.reading import Identity
from coordinator.journals.segments.store import Store
from coordinator.model import EndStatus, WorkflowId
from coordinator.records import (
    Accepted,
    Claimed,
    Finished,
    Held,
    Outcome,
    Record,
    Released,
    encode_record,
)

P0 = Identity(IDENTITY.journal_id, 0, 2)


@pytest.fixture
def disk() -> Disk:
    return Disk()


@pytest.fixture
def root(disk: Disk) -> MemoryFolder:
    """Hold a journal of two partitions, of which none was opened."""

    async def make() -> None:
        await SegmentJournal.open_folder(
            disk.folder(), partitions=2, new_id=lambda: IDENTITY.journal_id
        )

    asyncio.run(make())
    return disk.folder()


@pytest.fixture
def p0(root: MemoryFolder) -> MemoryFolder:
    return root.folder("p0")


def opened(folder: MemoryFolder) -> Store:
    store = make_store(folder, SMALL, identity=P0)
    store.open("pid 1")
    store.append(encode_claim(store.chain, owner="test", at=1))
    return store


@pytest.fixture
def store(p0: MemoryFolder) -> Store:
    """Hold one claim and nine batches in three segments."""
    store = opened(p0)
    for _ in range(9):
        append(store, 1000)
    return store


def report(root: MemoryFolder) -> PartitionReport:
    [found, _] = verify(root)
    return found


def looked_at(folder: MemoryFolder, look: Callable[[], object]) -> list[str]:
    """Return the names of the calls that *look* makes."""
    before = len(folder.disk.log)
    look()
    return folder.disk.log[before:]


def dumped(root: MemoryFolder) -> object:
    return list(dump(root))


def tailed(root: MemoryFolder) -> object:
    return next(tail(root))


def test_a_partition_that_was_never_opened_has_a_header_and_no_batch(
    root: MemoryFolder,
) -> None:
    found = info(root)
    assert (found.path, found.id) == ("/journal", IDENTITY.journal_id.hex())
    assert [partition.number for partition in found.partitions] == [0, 1]
    assert found.partitions[0].path == "/journal/p0"
    [segment] = found.partitions[0].segments
    assert (segment.base, segment.size) == (0, 64)
    assert found.partitions[0].checkpoint is None
    assert found.partitions[0].holder == ""
    for partition in verify(root):
        assert [read.batches for read in partition.segments] == [0]
        assert (partition.problems, partition.epochs) == ((), None)
    assert list(dump(root)) == []
    assert next(tail(root)) == []


def test_a_partition_that_is_gone_is_damage(root: MemoryFolder) -> None:
    root.remove_folder("p1")
    [_, gone] = verify(root)
    assert [problem.path for problem in gone.problems] == ["/journal/p1"]
    for look in (info, dumped):
        with pytest.raises(JournalDamagedError, match="partition 1 is missing"):
            look(root)


def test_a_partition_without_a_segment_is_damage(
    root: MemoryFolder, p0: MemoryFolder
) -> None:
    p0.put_back({})
    [empty, _] = verify(root)
    assert [problem.path for problem in empty.problems] == ["/journal/p0"]
    for look in (info, dumped, tailed):
        with pytest.raises(JournalDamagedError, match="no segment is there"):
            look(root)


@pytest.mark.parametrize("look", [info, verify, dumped, tailed])
def test_a_folder_that_is_no_journal_is_refused(
    disk: Disk, look: Callable[[MemoryFolder], object]
) -> None:
    with pytest.raises(JournalFormatError, match="is not a journal"):
        look(disk.folder())


def test_info_is_told_by_headers_alone(root: MemoryFolder, store: Store) -> None:
    store.save_checkpoint(3, b"12345")
    found = info(root).partitions[0]
    assert [segment.base for segment in found.segments] == [0, 4, 7]
    assert [segment.epoch for segment in found.segments] == [0, 1, 1]
    assert found.segments[2].size == 4096
    assert found.segments[0].path == f"/journal/p0/{segment_name(0)}"
    assert found.segments[1].created_at == 1_700_000_000_000_000
    assert found.checkpoint is not None
    assert (found.checkpoint.low, found.checkpoint.end) == (3, 10)
    assert found.checkpoint.size == 5


def test_info_names_the_holder(root: MemoryFolder, p0: MemoryFolder) -> None:
    p0.put_back({**p0.copy_of(), "LOCK": b"pid 4711"})
    assert info(root).partitions[0].holder == "pid 4711"


def test_nothing_is_changed_and_nothing_is_locked(
    root: MemoryFolder, store: Store
) -> None:
    def look() -> None:
        info(root)
        verify(root)
        list(dump(root))
        next(tail(root))

    calls = looked_at(root, look)
    assert set(calls) <= {"open", "read", "size", "names", "folder"}
    append(store)


def test_a_sound_partition_is_reported_as_it_is(
    root: MemoryFolder, store: Store
) -> None:
    found = report(root)
    assert found.number == 0
    assert found.problems == ()
    assert found.torn is None
    assert found.epochs == (1, 1)
    assert [(s.base, s.end) for s in found.segments] == [(0, 4), (4, 7), (7, 10)]
    assert [s.batches for s in found.segments] == [4, 3, 3]
    assert [s.records for s in found.segments] == [4, 3, 3]
    assert found.segments[1].size == 64 + 3 * len(batches_of(store)[5].data)


def test_damage_is_reported_by_place_and_the_rest_is_still_read(
    root: MemoryFolder, p0: MemoryFolder, store: Store
) -> None:
    p0.bytes_of(segment_name(4))[64 + 50] ^= 1
    found = report(root)
    assert [(s.base, s.end) for s in found.segments] == [(0, 4), (4, 4), (7, 10)]
    [problem] = found.problems
    assert problem.path == f"/journal/p0/{segment_name(4)}"
    assert problem.offset == 64
    with pytest.raises(JournalDamagedError):
        list(dump(root))


def test_several_kinds_of_damage_are_all_reported(
    root: MemoryFolder, p0: MemoryFolder, store: Store
) -> None:
    store.save_checkpoint(0, b"x")
    store.close()
    store = opened(p0)
    for _ in range(9):
        append(store, 1000)
    bases = [header.base for header in store.segments]
    files = p0.copy_of()
    first, second, third, fourth, *_ = [segment_name(base) for base in bases]
    p0.bytes_of(first)[3] ^= 1
    p0.bytes_of(second)[2000] ^= 1
    p0.bytes_of("checkpoint")[64] ^= 1
    problems = report(root).problems
    assert [problem.path.rpartition("/")[2] for problem in problems] == [
        "checkpoint",
        first,
        second,
    ]
    del files[third]
    del files[first]
    p0.put_back(files)
    missing, needed = report(root).problems
    assert "what is between is missing" in missing.problem
    assert fourth in missing.path
    assert "records from 0 on are needed" in needed.problem
    assert second in needed.path


def test_an_end_below_the_one_of_the_checkpoint_is_reported(
    root: MemoryFolder, p0: MemoryFolder, store: Store
) -> None:
    store.save_checkpoint(0, b"x")
    del p0.bytes_of(segment_name(7))[64:]
    [problem] = report(root).problems
    assert "the records end at position 7" in problem.problem
    assert problem.offset == 64


def test_newer_files_are_reported(
    root: MemoryFolder, p0: MemoryFolder, store: Store
) -> None:
    store.save_checkpoint(0, b"")
    for name in (segment_name(4), "checkpoint"):
        data = p0.bytes_of(name)
        data[4] = 2
        data[60:64] = crc32(data[:60]).to_bytes(4, "little")
    problems = report(root).problems
    assert [("format 2" in problem.problem) for problem in problems] == [True, True]


@pytest.mark.parametrize(
    ("nth", "name"),
    [(5, "checkpoint"), (4, segment_name(7)), (2, segment_name(0))],
)
def test_a_file_that_cannot_be_read_is_reported(
    disk: Disk, root: MemoryFolder, store: Store, nth: int, name: str
) -> None:
    calls = looked_at(root, lambda: verify(root))
    # journal.json, the checkpoint, three segments, the checkpoint; then those of p1.
    opens = [number for number, call in enumerate(calls) if call == "open"]
    disk.fault = fail_at(disk.calls + opens[nth], 5)
    [problem] = report(root).problems
    assert "Input/output" in problem.problem
    assert problem.path == f"/journal/p0/{name}"


def test_a_torn_tail_is_no_damage(
    root: MemoryFolder, p0: MemoryFolder, store: Store
) -> None:
    end = report(root).segments[-1].size
    torn = batch_behind(store, 100).data[:60]
    p0.bytes_of(segment_name(7))[end : end + len(torn)] = torn
    found = report(root)
    assert found.problems == ()
    assert found.torn is not None
    assert found.torn.offset == end
    assert len(list(dump(root))) == 10


def test_a_batch_that_is_completed_while_it_is_read_is_no_damage(
    disk: Disk, root: MemoryFolder, p0: MemoryFolder, store: Store
) -> None:
    """The reader sees half of a batch, then all of it and the next one."""
    end = report(root).segments[-1].size
    data = p0.bytes_of(segment_name(7))
    batch = batch_behind(store, 100)
    whole = append(store, 100).data + append(store, 100).data
    data[end + 60 : end + len(whole)] = bytes(len(whole) - 60)
    reads = 0

    def completed(_: int, name: str) -> None:
        nonlocal reads
        reads += name == "read"
        if reads == 7:
            data[end : end + len(whole)] = whole

    calls = looked_at(root, lambda: verify(root))
    assert calls.count("read") > 7
    for moment in range(1, calls.count("read") + 1):
        data[end + 60 : end + len(whole)] = bytes(len(whole) - 60)
        reads = 7 - moment
        disk.fault = completed
        found = report(root)
        assert found.problems == ()
        assert found.segments[-1].end in (10, 12)
    assert batch.first == 10


def test_a_segment_that_is_trimmed_while_it_is_verified_is_left_out(
    disk: Disk, root: MemoryFolder, p0: MemoryFolder, store: Store
) -> None:
    store.save_checkpoint(9, b"")
    whole = p0.copy_of()
    kept = {name: data for name, data in whole.items() if name > segment_name(6)}
    calls = looked_at(root, lambda: verify(root))
    for moment in range(len(calls)):
        p0.put_back(whole)
        start = disk.calls

        def trimmed(number: int, _: str, at: int = start + moment) -> None:
            if number == at:
                p0.put_back(kept)

        disk.fault = trimmed
        found = report(root)
        assert found.problems == ()
        assert found.segments[-1].base == 7


def test_infos_of_trimmed_segments_are_left_out(
    disk: Disk, root: MemoryFolder, p0: MemoryFolder, store: Store
) -> None:
    assert store.segments
    whole = p0.copy_of()
    kept = {name: data for name, data in whole.items() if name > segment_name(6)}

    calls = looked_at(root, lambda: info(root))
    first_segment = [n for n, name in enumerate(calls) if name == "open"][2]
    start = disk.calls

    def trimmed(number: int, _: str) -> None:
        if number == start + first_segment:
            p0.put_back(kept)

    disk.fault = trimmed
    assert [segment.base for segment in info(root).partitions[0].segments] == [7]


def test_a_dump_is_filtered_by_position_partition_and_workflow(
    root: MemoryFolder, p0: MemoryFolder
) -> None:
    store = opened(p0)
    records: list[Record] = [
        Accepted("A", "json", b"", 1),
        Accepted("B", "json", b"", 1),
        Outcome(1, "a.b", 0, b"", 1),
        Outcome(2, "a.b", 0, b"", 1),
        Finished(1, EndStatus.COMPLETED, b"", 1),
        Held(1),
        Released(1),
    ]
    store.append(
        encode_batch(
            [encode_record(record) for record in records],
            epoch=store.chain.epoch,
            first=store.chain.end,
            previous_crc=store.chain.crc,
        )
    )
    everything = list(dump(root))
    assert [entry.position for entry in everything] == [*range(8)]
    assert everything[0] == Entry(0, everything[0].position, 1, Claimed(1, "test", 1))
    assert [entry.record for entry in everything[1:]] == records
    assert list(dump(root, since=4)) == everything[4:]
    assert list(dump(root, partition=0)) == everything
    assert list(dump(root, partition=1)) == []
    ours = [everything[1], everything[3], everything[5]]
    assert list(dump(root, workflow=WorkflowId("0-1"))) == ours
    assert list(dump(root, workflow=WorkflowId("0-1"), since=4)) == ours[2:]
    assert list(dump(root, workflow=WorkflowId("1-1"))) == []
    store.close()
    opened(p0)
    *told, claim = dump(root, workflow=WorkflowId("0-1"), claims=True)
    assert (told, claim.record) == (ours, Claimed(2, "test", 1))
    with pytest.raises(ValueError, match="not a workflow id"):
        list(dump(root, workflow=WorkflowId("order")))


def test_a_tail_yields_what_is_new(root: MemoryFolder, p0: MemoryFolder) -> None:
    follow = tail(root)
    assert next(follow) == []
    store = opened(p0)
    assert [batch.first for batch in next(follow)] == [0]
    written = [append(store, 1000) for _ in range(9)]
    assert next(follow) == written
    assert next(follow) == []
    store.close()
    store = opened(p0)
    assert [batch.epoch for batch in next(follow)] == [2]


def test_a_tail_begins_behind_what_is_there(root: MemoryFolder, store: Store) -> None:
    follow = tail(root)
    assert next(follow) == []
    batch = append(store)
    assert next(follow) == [batch]


def test_a_tail_may_begin_anywhere(root: MemoryFolder, store: Store) -> None:
    assert [batch.first for batch in next(tail(root, since=5))] == [5, 6, 7, 8, 9]
    assert [batch.first for batch in next(tail(root, since=0))] == [*range(10)]
    assert next(tail(root, since=100)) == []


def test_a_missing_oldest_segment_is_a_problem_unless_a_checkpoint_knows(
    root: MemoryFolder, p0: MemoryFolder, store: Store
) -> None:
    p0.remove(segment_name(0))
    [problem] = report(root).problems
    assert problem.path == f"/journal/p0/{segment_name(4)}"
    assert "without a checkpoint all records are needed" in problem.problem
    store.save_checkpoint(4, b"")
    assert report(root).problems == ()
    store.save_checkpoint(3, b"")
    [problem] = report(root).problems
    assert "records from 3 on are needed" in problem.problem
