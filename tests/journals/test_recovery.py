"""What is damage, what is a torn tail, and that no flipped bit passes for either."""

import contextlib
import zlib
from collections.abc import Callable

import pytest
from tests.journals.disk import Disk, MemoryFolder, fail_at
from tests.journals.parts import (
    IDENTITY,
    append,
    batches_of,
    make_store,
    open_store,
)

from coordinator.batch import Batch, encode_batch
from coordinator.errors import (
    DecodeError,
    JournalBrokenError,
    JournalDamagedError,
    JournalError,
    JournalFormatError,
)
from coordinator.journals.segments.format import (
    SEGMENT_HEADER_SIZE,
    segment_name,
)
from coordinator.journals.segments.reading import Identity
from coordinator.journals.segments.recovery import recover
from coordinator.journals.segments.store import StoreOptions
from coordinator.records import Resumed, encode_record

Files = dict[str, bytes]

CLOSED, LARGE, ACTIVE = (segment_name(base) for base in (0, 3, 4))


@pytest.fixture
def folder() -> MemoryFolder:
    """Hold a small closed segment, one with a large batch, and a small active one."""
    folder = Disk().folder("/journal/p0")
    store = open_store(folder)
    append(store)
    append(store)
    append(store, 5000)
    for _ in range(3):
        append(store)
    store.close()
    assert [*folder.names()] == [CLOSED, LARGE, ACTIVE]
    return folder


def stored(folder: MemoryFolder) -> list[Batch]:
    """Return the batches that a coordinator would find."""
    store = make_store(folder)
    try:
        store.open("test")
        return batches_of(store)
    finally:
        store.close()


def end_of(folder: MemoryFolder, name: str) -> int:
    return len(bytes(folder.bytes_of(name)).rstrip(b"\0") or b"") + 7 & ~7


def reseal(data: bytearray, offset: int, change: bytes) -> None:
    """Change a header and give it the crc that fits."""
    data[offset : offset + len(change)] = change
    covered = data[:60] + (data[64:] if data.startswith(b"CCKP") else b"")
    data[60:64] = zlib.crc32(covered).to_bytes(4, "little")


def test_no_flipped_bit_of_a_closed_segment_passes(folder: MemoryFolder) -> None:
    before = folder.copy_of()
    data = before[CLOSED]
    for bit in range(8 * len(data)):
        folder.put_back(before)
        folder.bytes_of(CLOSED)[bit // 8] ^= 1 << bit % 8
        with pytest.raises((JournalDamagedError, JournalFormatError), match=CLOSED):
            stored(folder)


def test_no_flipped_bit_of_an_active_segment_passes(folder: MemoryFolder) -> None:
    before = folder.copy_of()
    whole = stored(folder)
    folder.put_back(before)
    end = end_of(folder, ACTIVE)
    last = end - len(whole[-1].data)
    for bit in range(8 * end):
        folder.put_back(before)
        folder.bytes_of(ACTIVE)[bit // 8] ^= 1 << bit % 8
        if bit // 8 < last:
            with pytest.raises((JournalDamagedError, JournalFormatError), match=ACTIVE):
                stored(folder)
            continue
        # The last batch alone can't be told from one whose write was cut short.
        with contextlib.suppress(JournalFormatError):
            assert stored(folder) == whole[:-1]


def test_no_flipped_bit_of_a_checkpoint_passes(folder: MemoryFolder) -> None:
    store = open_store(folder)
    store.save_checkpoint(2, b"the engine's")
    store.close()
    before = folder.copy_of()
    for bit in range(8 * len(before["checkpoint"])):
        folder.put_back(before)
        folder.bytes_of("checkpoint")[bit // 8] ^= 1 << bit % 8
        with pytest.raises((JournalDamagedError, JournalFormatError)):
            stored(folder)


@pytest.mark.parametrize("name", [CLOSED, LARGE])
def test_no_truncation_of_a_closed_segment_passes(
    folder: MemoryFolder, name: str
) -> None:
    before = folder.copy_of()
    for size in range(len(before[name])):
        folder.put_back({**before, name: before[name][:size]})
        with pytest.raises(JournalDamagedError):
            stored(folder)


def test_a_truncated_active_segment_loses_whole_batches_from_its_end_or_is_refused(
    folder: MemoryFolder,
) -> None:
    before = folder.copy_of()
    whole = stored(folder)
    folder.put_back(before)
    for size in range(end_of(folder, ACTIVE)):
        folder.put_back({**before, ACTIVE: before[ACTIVE][:size]})
        if size < SEGMENT_HEADER_SIZE:
            with pytest.raises(JournalDamagedError):
                stored(folder)
        else:
            found = stored(folder)
            assert found == whole[: len(found)]


@pytest.mark.parametrize("rest", [b"\0", b"\xff", b"CBAT"])
def test_a_tail_torn_at_any_byte_is_cut_and_stays_cut(
    folder: MemoryFolder, rest: bytes
) -> None:
    before = folder.copy_of()
    whole = stored(folder)
    folder.put_back(before)
    end = end_of(folder, ACTIVE)
    start = end - len(whole[-1].data)
    written = len(before[ACTIVE][:end].rstrip(b"\0"))
    for torn in range(start, written):
        folder.put_back(before)
        data = folder.bytes_of(ACTIVE)
        data[torn:end] = (rest * (end - torn))[: end - torn]
        if bytes(data[torn:end]) == before[ACTIVE][torn:end]:
            continue
        try:
            assert recover(folder, IDENTITY).torn or torn == start
        except JournalFormatError:
            # Among the eight bytes that say what it is, and no zeros behind. No disk
            # leaves that; a newer version might have written it.
            assert rest != b"\0"
            assert torn < start + 8
            continue
        assert stored(folder) == whole[:-1]
        assert not recover(folder, IDENTITY).torn
        assert stored(folder) == whole[:-1]


def test_a_bad_batch_with_a_valid_one_behind_it_is_damage(
    folder: MemoryFolder,
) -> None:
    first = SEGMENT_HEADER_SIZE
    folder.bytes_of(ACTIVE)[first : first + 40] = bytes(40)
    with pytest.raises(
        JournalDamagedError, match="a valid batch lies behind"
    ) as caught:
        stored(folder)
    assert caught.value.path.endswith(ACTIVE)
    assert caught.value.offset == first


def test_a_later_batch_is_found_however_far_behind_it_lies() -> None:
    folder = Disk().folder("/journal/p0")
    store = open_store(folder, StoreOptions(segment_size=8_000_000))
    append(store, 3_000_000)
    append(store)
    store.close()
    first = SEGMENT_HEADER_SIZE
    folder.bytes_of(segment_name(0))[1_000_000] ^= 1
    with pytest.raises(
        JournalDamagedError, match="a valid batch lies behind"
    ) as caught:
        stored(folder)
    assert caught.value.offset > first


def test_nothing_is_changed_where_damage_is_found(folder: MemoryFolder) -> None:
    folder.bytes_of(ACTIVE)[100] ^= 1
    before = folder.copy_of()
    with pytest.raises(JournalDamagedError):
        stored(folder)
    assert folder.copy_of() == before


def test_what_looks_like_an_older_batch_in_a_torn_tail_is_no_damage(
    folder: MemoryFolder,
) -> None:
    whole = stored(folder)
    end = end_of(folder, ACTIVE)
    # A payload may hold anything: magics, headers, whole batches that lie before.
    fake = b"CBAT" * 10 + whole[1].data + whole[-1].data[:40] + whole[-1].data[:20]
    data = folder.bytes_of(ACTIVE)
    data[end : end + 4] = b"torn"
    data[end + 8 : end + 8 + len(fake)] = fake
    assert stored(folder) == whole


def with_images(folder: MemoryFolder, count: int, **fields: int) -> int:
    """Tear the last batch: its payload holds *count* images of a batch's header.

    Returns:
        The number of calls with which the disk is asked for what is there then.
    """
    chain = recover(folder, IDENTITY).chain
    says = {"epoch": chain.epoch, "first": chain.end + 1, "length": 4000, **fields}
    image = b"CBAT\1\0\1\0" + b"".join(
        says[name].to_bytes(size, "little")
        for name, size in (("epoch", 8), ("first", 8))
    )
    image += (1).to_bytes(4, "little") + says["length"].to_bytes(4, "little") + bytes(8)
    end = end_of(folder, ACTIVE)
    # The header of the torn batch is lost, the rest of it is not.
    torn = bytes(40) + (image * count).ljust(4096 - end - 40, b"x")
    folder.bytes_of(ACTIVE)[end:] = torn
    calls = folder.disk.calls
    recover(folder, IDENTITY)
    return folder.disk.calls - calls


def test_images_of_headers_in_a_torn_tail_cost_no_reading(
    folder: MemoryFolder,
) -> None:
    before = folder.copy_of()
    whole = stored(folder)
    folder.put_back(before)
    usual = with_images(folder, 0)
    chain = recover(folder, IDENTITY).chain
    for fields in (
        {"epoch": chain.epoch - 1},
        {"first": chain.end - 1},
        {"first": chain.end + 700},
        {"length": 4096},
        {"length": 32 << 20},
    ):
        folder.put_back(before)
        assert with_images(folder, 80, **fields) == usual
        assert stored(folder) == whole


def test_images_that_could_be_batches_are_read_as_far_as_they_claim_and_cut(
    folder: MemoryFolder,
) -> None:
    whole = stored(folder)
    end = recover(folder, IDENTITY).chain.end
    assert with_images(folder, 80, first=end + 8, length=40) > 80
    assert stored(folder) == whole


def test_a_tail_that_could_be_anything_is_refused_in_bounded_time(
    folder: MemoryFolder,
) -> None:
    chain = recover(folder, IDENTITY).chain
    with pytest.raises(JournalDamagedError, match="can't be told from damage"):
        with_images(folder, 80, first=chain.end + 8, length=2000)
    assert folder.disk.log[-1] == "read"


@pytest.mark.parametrize(
    ("first", "epoch", "crc", "problem"),
    [(1, 0, 0, "expected was position"), (0, 0, 1, "names"), (-3, 0, 0, "expected")],
)
def test_an_intact_batch_that_does_not_follow_is_damage(
    folder: MemoryFolder, first: int, epoch: int, crc: int, problem: str
) -> None:
    last = stored(folder)[-1]
    end = end_of(folder, ACTIVE)
    stray = encode_batch(
        [encode_record(Resumed(0, "x", 1))],
        epoch=last.epoch + epoch,
        first=last.end + first,
        previous_crc=last.crc ^ crc,
    )
    folder.bytes_of(ACTIVE)[end : end + len(stray.data)] = stray.data
    with pytest.raises(JournalDamagedError, match=problem):
        stored(folder)


def test_a_batch_of_an_older_epoch_is_dropped(folder: MemoryFolder) -> None:
    store = open_store(folder)
    assert store.chain.epoch == 2
    whole = batches_of(store)
    store.close()
    end = end_of(folder, ACTIVE)
    late = encode_batch(
        [encode_record(Resumed(0, "x", 1))],
        epoch=1,
        first=whole[-2].end,
        previous_crc=whole[-2].crc,
    )
    folder.bytes_of(ACTIVE)[end : end + len(late.data)] = late.data
    store = open_store(folder)
    assert batches_of(store)[:-1] == whole
    assert store.chain.epoch == 3


def _remove(name: str) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        del files[name]

    return change


def _rename(old: str, new: str) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        files[new] = files.pop(old)

    return change


def _cut(name: str, size: int) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        files[name] = files[name][:size]

    return change


def _extend(name: str) -> Callable[[Files], None]:
    def change(files: Files) -> None:
        files[name] += bytes(8)

    return change


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (_remove(LARGE), "what is between is missing"),
        (_rename(LARGE, segment_name(2)), "base position is 3, it should be 2"),
        (_cut(ACTIVE, 0), "0 bytes are less than a header"),
        (_extend(LARGE), "8 bytes are less than a batch header"),
    ],
    ids=["gap", "renamed", "empty", "zeros behind a closed one"],
)
def test_segments_that_do_not_fit_together_are_damage(
    folder: MemoryFolder, change: Callable[[Files], None], problem: str
) -> None:
    files = folder.copy_of()
    change(files)
    folder.put_back(files)
    with pytest.raises(JournalDamagedError, match=problem):
        stored(folder)


@pytest.mark.parametrize(
    ("offset", "change", "problem"),
    [
        (8, b"\7", "partition is 7, it should be 0"),
        (12, b"\7", "number of partitions is 7"),
        (16, b"\7", "journal id is 07"),
        (32, b"\7", "base position is 7"),
        (48, b"\7", "follows a batch of epoch 7"),
        (56, b"\7\7\7\7", "with crc 07070707"),
    ],
)
def test_a_segment_from_elsewhere_is_damage(
    folder: MemoryFolder, offset: int, change: bytes, problem: str
) -> None:
    reseal(folder.bytes_of(LARGE), offset, change)
    with pytest.raises(JournalDamagedError, match=problem) as caught:
        stored(folder)
    assert caught.value.offset in (offset, 48)


def test_a_segment_that_is_there_twice_is_damage(folder: MemoryFolder) -> None:
    header = bytearray(folder.bytes_of(LARGE)[:64])
    reseal(header, 32, b"\1")
    folder.put_back({**folder.copy_of(), segment_name(1): bytes(header)})
    with pytest.raises(JournalDamagedError, match="is there twice"):
        stored(folder)


def test_a_newer_segment_is_not_called_damaged(folder: MemoryFolder) -> None:
    reseal(folder.bytes_of(ACTIVE), 4, b"\2")
    with pytest.raises(JournalFormatError, match=r"seg: format 2 .* reads format 1"):
        stored(folder)


def test_a_newer_batch_is_not_cut_off(folder: MemoryFolder) -> None:
    last = stored(folder)[-1]
    end = end_of(folder, ACTIVE)
    newer = bytearray(last.data)
    newer[4] = 2
    folder.bytes_of(ACTIVE)[end : end + len(newer)] = newer
    with pytest.raises(JournalFormatError, match=f"byte {end}: batch of format 2"):
        stored(folder)


def test_an_end_below_the_one_in_the_checkpoint_is_damage(
    folder: MemoryFolder,
) -> None:
    store = open_store(folder)
    store.save_checkpoint(0, b"")
    store.close()
    end = end_of(folder, ACTIVE)
    folder.bytes_of(ACTIVE)[end - 10] ^= 1
    with pytest.raises(JournalDamagedError, match="durable when the checkpoint"):
        stored(folder)


def test_a_checkpoint_without_any_segment_is_damage(folder: MemoryFolder) -> None:
    store = open_store(folder)
    store.save_checkpoint(0, b"")
    store.close()
    folder.put_back({"checkpoint": folder.copy_of()["checkpoint"]})
    with pytest.raises(JournalDamagedError, match="no segment is there"):
        stored(folder)


def test_a_partition_without_anything_is_damage_and_not_a_new_one(
    folder: MemoryFolder,
) -> None:
    folder.put_back({"LOCK": b""})
    with pytest.raises(JournalDamagedError, match="no segment is there"):
        stored(folder)


def test_a_start_above_the_low_position_is_damage(folder: MemoryFolder) -> None:
    store = open_store(folder)
    store.save_checkpoint(2, b"")
    store.close()
    files = folder.copy_of()
    del files[CLOSED]
    folder.put_back(files)
    with pytest.raises(JournalDamagedError, match="records from 2 on are needed"):
        stored(folder)


def test_damage_before_the_low_position_does_not_matter(folder: MemoryFolder) -> None:
    store = open_store(folder)
    store.save_checkpoint(4, b"")
    store.close()
    before = folder.copy_of()
    for name in (CLOSED, LARGE):
        folder.put_back(before)
        folder.bytes_of(name)[100] ^= 1
        store = open_store(folder)
        assert batches_of(store, 4)
        with pytest.raises(JournalDamagedError):
            batches_of(store, 0)
        store.close()
    # Not even a hole does: trims of other programs, or a file system's repair.
    folder.put_back(before)
    files = folder.copy_of()
    del files[LARGE]
    folder.put_back(files)
    store = open_store(folder)
    with pytest.raises(JournalDamagedError, match="is missing"):
        batches_of(store, 0)


def test_a_damaged_checkpoint_names_the_way_out(folder: MemoryFolder) -> None:
    store = open_store(folder)
    store.save_checkpoint(2, b"")
    store.close()
    folder.bytes_of("checkpoint")[70:] = b"?"
    with pytest.raises(JournalDamagedError, match="forget-checkpoint --partition 0"):
        stored(folder)


def test_without_a_checkpoint_the_oldest_segment_may_not_be_missing(
    folder: MemoryFolder,
) -> None:
    files = folder.copy_of()
    del files[CLOSED]
    folder.put_back(files)
    with pytest.raises(
        JournalDamagedError, match=r"without a checkpoint all .* forget-checkpoint"
    ) as caught:
        stored(folder)
    assert caught.value.path.endswith(LARGE)


@pytest.mark.parametrize(
    ("identity", "problem"),
    [
        (Identity(bytes(16), 0, 1), "belongs to journal 00010203"),
        (Identity(IDENTITY.journal_id, 1, 1), "belongs to partition 0"),
    ],
)
def test_a_checkpoint_from_elsewhere_is_damage(
    folder: MemoryFolder, identity: Identity, problem: str
) -> None:
    store = open_store(folder)
    store.save_checkpoint(2, b"")
    store.close()
    store = make_store(folder, identity=identity)
    with pytest.raises(JournalDamagedError, match=problem):
        store.open("test")


def test_a_newer_checkpoint_is_not_called_damaged(folder: MemoryFolder) -> None:
    store = open_store(folder)
    store.save_checkpoint(2, b"")
    store.close()
    reseal(folder.bytes_of("checkpoint"), 4, b"\2")
    with pytest.raises(JournalFormatError, match=r"checkpoint: format 2"):
        stored(folder)


def test_other_files_are_left_alone(folder: MemoryFolder) -> None:
    whole = stored(folder)
    files = folder.copy_of()
    files["notes.txt"] = files["1.seg"] = files["x" + CLOSED] = b"a person's"
    folder.put_back(files)
    assert stored(folder) == whole
    assert {"notes.txt", "1.seg", "x" + CLOSED} <= set(folder.names())


def test_an_unreadable_disk_is_no_damage(folder: MemoryFolder) -> None:
    disk = folder.disk
    disk.fault = fail_at(disk.calls + 3, 5)
    with pytest.raises(JournalBrokenError):
        stored(folder)


def test_damage_is_a_journal_error_and_not_a_decode_error() -> None:
    assert issubclass(JournalDamagedError, JournalError)
    assert not issubclass(JournalDamagedError, DecodeError)
