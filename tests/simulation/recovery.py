"""Recovery is a fixed point, and a checkpoint is no more than a short cut.

    recover(recover(log)) = recover(log)
    checkpoint + tail     = whole log, as far as retention kept it
    one bit flipped       = refused, with the file and the place; or it was not needed.
                            Flipped back, all is as it was
    a foreign batch       = refused, with the file and the place

All of it on copies of the disk: what is asked here changes nothing for the next life.
But for `copy_to_archive`, which is what somebody does who saves a segment by hand.
"""

import asyncio
import random
from collections.abc import Callable
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar, TypeVarTuple

import msgspec
from tests.simulation.contents import Directory, Inode, blocks
from tests.simulation.disk import Disk
from tests.simulation.handles import open_root
from tests.simulation.plan import Plan

from coordinator.batch import (
    Batch,
    BatchError,
    decode_batch,
    encode_batch,
)
from coordinator.errors import JournalDamagedError, JournalError, JournalFormatError
from coordinator.journals.segments.format import (
    SEGMENT_HEADER_SIZE,
    parse_segment_name,
)
from coordinator.journals.segments.journal import SegmentJournal
from coordinator.journals.segments.store import StoreOptions
from coordinator.log import Log, LogOptions
from coordinator.model import Position
from coordinator.records import Claimed, encode_record
from coordinator.state import PartitionState
from coordinator.testing.loop import Life, SimulatedLoop

__all__ = [
    "copy_to_archive",
    "gap_behind",
    "log_options",
    "recovered_twice",
    "refused_if_flipped",
    "refused_if_forked",
]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

_PARTITION = "p0"


class _Found(NamedTuple):
    """What a recovery found."""

    known: Any
    """By the checkpoint, and what lies behind it."""
    whole: Any
    """By the whole log; None where its beginning was removed, or it was not read."""
    batches: list[bytes]
    """What was read, if it was; the last one is the claim of the recovery itself."""


def log_options(plan: Plan) -> LogOptions:
    """Return what the plan says of the log."""
    return LogOptions(
        checkpoint_size=plan.checkpoint_size,
        carry_after=plan.carry_after,
        keys_max=plan.keys_max,
        keys_size_max=plan.keys_size_max,
        keys_age_s_max=plan.keys_age_s,
    )


def recovered_twice(disk: Disk, plan: Plan, journal_id: bytes) -> str:
    """Recover a copy of *disk* twice; return what is wrong, if anything is.

    The second time the journal holds a claim more, and the same workflows.
    """
    copy = disk.copy()
    try:
        first = _recover(copy, plan, journal_id, batches=False)
        second = _recover(copy, plan, journal_id, whole=False, batches=False)
    except JournalError as error:
        return f"it can't be recovered: {error!r}"
    if first.known != second.known:
        return f"recovered once it is {first.known}, and then {second.known}"
    if first.whole is not None and first.known != first.whole:
        return (
            f"from its checkpoint on it is {first.known}, from its beginning "
            f"{first.whole}"
        )
    return ""


def gap_behind(operation: str, disk: Disk) -> str:
    """Say what a crash behind *operation* would lack, if that let a segment go.

    One among segments that go would be drawn once in a thousand seeds.
    """
    verb, _, path = operation.partition(" ")
    gone = path.rpartition("/")[2]
    if verb != "remove" or not gone.endswith(".seg"):
        return ""
    names = disk.root.folders[_PARTITION].names
    older = sorted(one for one in names if one.endswith(".seg") and one < gone)
    return f"{gone} is gone, and {older[-1]} before it is not" if older else ""


def refused_if_flipped(
    disk: Disk, plan: Plan, journal_id: bytes, chance: random.Random
) -> str:
    """Flip one bit of a segment, or of the checkpoint, on a copy of *disk*.

    What it says of the very last batch is not promised: it may look torn, and be cut.

    Returns:
        What is wrong, if anything is.
    """
    copy = disk.copy()
    folder = copy.root.folders.get(_PARTITION)
    files = folder.names if folder is not None else {}
    names = [
        name
        for name in sorted(files)
        if files[name].cache
        and (name == "checkpoint" or parse_segment_name(name) is not None)
    ]
    if not names:
        return ""
    sound = _recover(disk.copy(), plan, journal_id)
    closed = [name for name in names if name != "checkpoint"][:-1]
    name = chance.choice(closed if closed and chance.random() < 0.5 else names)
    inode = files[name]
    offset = chance.randrange(len(inode.cache.rstrip(b"\0")) or 1)
    bit = 1 << chance.randrange(8)
    disk.counts["bit flipped"] += 1
    where = f"bit {bit} of byte {offset} of {name}"
    _flip(inode, offset, bit)
    try:
        found = _recover(copy, plan, journal_id)
    except (JournalDamagedError, JournalFormatError) as error:
        if f"/{name}" not in str(error) or getattr(error, "offset", 0) > offset:
            return f"{where} was flipped, and {error}"
    else:
        active = name == max(one for one in names if one != "checkpoint")
        if found.known != sound.known and not (active and _lacks_last(found, sound)):
            return f"{where} was flipped, and nobody noticed"
        return ""  # it was not needed; what was made of it is on the copy
    _flip(inode, offset, bit)
    if _recover(copy, plan, journal_id) != sound:
        return f"{where} was mended, and all is not as it was"
    return ""


def refused_if_forked(
    disk: Disk, plan: Plan, journal_id: bytes, _chance: random.Random
) -> str:
    """Put a claim behind the last batch, on a copy of *disk*, that does not follow it.

    As two machines do that write to one folder, each after its own view of it.

    Returns:
        What is wrong, if anything is.
    """
    copy = disk.copy()
    folder = copy.root.folders.get(_PARTITION)
    names = [
        n for n in (folder.names if folder else ()) if parse_segment_name(n) is not None
    ]
    if folder is None or not names:
        return ""
    name = max(names)
    inode = folder.names[name]
    begin, last = _last_batch(inode)
    if last is None:
        return ""  # nothing was written to the newest segment yet
    end = begin + len(last.data)
    claim = encode_record(Claimed(epoch=last.epoch + 1, owner="another", at=0))
    foreign = encode_batch(
        [claim], epoch=last.epoch + 1, first=last.end, previous_crc=last.crc ^ 1
    )
    disk.counts["foreign batch"] += 1
    for content in (inode.cache, inode.platter):
        content[end : end + len(foreign.data)] = foreign.data
    try:
        _recover(copy, plan, journal_id)
    except JournalDamagedError as error:
        if f"/{name}" in str(error) and error.offset == end:
            return ""
        return f"a foreign batch is at byte {end} of {name}, and {error}"
    return f"a foreign batch is at byte {end} of {name}, and nobody noticed"


def _last_batch(segment: Inode) -> tuple[int, Batch | None]:
    """Return the last batch of *segment*, and where it is; None if there is none."""
    begin, last = SEGMENT_HEADER_SIZE, None
    with suppress(BatchError):
        while True:
            batch = decode_batch(
                bytes(segment.cache),
                begin + (len(last.data) if last is not None else 0),
            )
            begin += len(last.data) if last is not None else 0
            last = batch
    return begin, last


def copy_to_archive(disk: Disk, chance: random.Random) -> None:
    """Copy all segments into the archive, or those that are closed."""
    folder, archive = disk.root.folders.get(_PARTITION), _archive_of(disk)
    if folder is None or archive is None:
        return
    names = sorted(
        name for name in folder.names if parse_segment_name(name) is not None
    )
    for name in names[: -1 if chance.random() < 0.7 else None]:
        if name not in archive.names:
            disk.counts["segment copied"] += 1
            data = bytearray(folder.names[name].cache)
            copy = Inode(cache=data, platter=data[:], taken=blocks(len(data)))
            archive.names[name] = archive.platter[name] = copy


def _archive_of(disk: Disk) -> Directory | None:
    """Return the folder to which the partition's segments are moved."""
    for directory in disk.root.walk():
        if "/archive" in directory.path and directory.path.endswith(_PARTITION):
            return directory
    return None


def _lacks_last(found: _Found, sound: _Found) -> bool:
    """Say whether *found* is *sound* without its last batch, and without no other.

    Who lacks the end of a workflow reads from further back.
    """
    left, expected = found.batches[:-1], sound.batches[:-2]
    return left[len(left) - len(expected) :] == expected


def _flip(inode: Inode, offset: int, bit: int) -> None:
    inode.cache[offset] ^= bit
    inode.platter[offset] ^= bit


class _PromptLoop(SimulatedLoop):
    """Runs an executor's job at once: nothing else is there that it could overtake."""

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        future: asyncio.Future[T] = self.create_future()
        try:
            future.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 -- it is the caller's
            future.set_exception(error)
        return future


def _recover(
    disk: Disk,
    plan: Plan,
    journal_id: bytes,
    *,
    whole: bool = True,
    batches: bool = True,
) -> _Found:
    life = Life(0)
    loop = _PromptLoop(random.Random(0), life)
    try:
        return loop.run_until_complete(
            _read(disk, life, plan, journal_id, whole=whole, batches=batches)
        )
    finally:
        loop.bury()
        disk.faults.power = 0.0
        disk.crash()


async def _read(
    disk: Disk,
    life: Life,
    plan: Plan,
    journal_id: bytes,
    *,
    whole: bool,
    batches: bool,
) -> _Found:
    journal = await SegmentJournal.open_folder(
        open_root(disk, life),
        options=StoreOptions(segment_size=plan.segment_size, retention_s=1e9),
        clock=lambda: 0,
        new_id=lambda: journal_id,
        process="check",
    )
    log = await Log.open(
        journal,
        0,
        owner="check",
        clock=lambda: 0,
        options=log_options(plan),
        on_failure=lambda _: None,
    )
    known = _plain(log.state)
    read: list[bytes] = []
    if batches:
        low = log.state.low(log.partition.end)
        read = [batch.data async for batch in log.partition.read(low)]
    found = _Found(known, await _from_the_beginning(log, plan) if whole else None, read)
    await log.partition.aclose()
    await asyncio.sleep(0.1)
    return found


async def _from_the_beginning(log: Log, plan: Plan) -> Any:
    state = PartitionState(
        0,
        ended_max=plan.keys_max,
        ended_size_max=plan.keys_size_max,
        ended_age_us_max=int(plan.keys_age_s * 1e6),
    )
    try:
        async for batch in log.partition.read(Position(0)):
            if batch.first == 0 or state.epoch:
                for position, record in batch.records():
                    state.apply(position, record)
    except JournalError:
        return None
    return _plain(state) if state.epoch else None


def _plain(state: PartitionState) -> Any:
    workflows = {
        position: msgspec.structs.asdict(workflow)
        for position, workflow in state.workflows.items()
    }
    return workflows, list(state._ended.values()), state.lease_ms
