"""Bugs of what is on the disk, and of what is read back from it."""

from collections.abc import Callable
from typing import Any, cast

from tests.simulation.planted import Bug, instead

from coordinator.batch import Batch, encode_batch
from coordinator.commit import GroupCommit
from coordinator.engine import Engine
from coordinator.errors import JournalError, JournalFullError, UncertainError
from coordinator.journals.chain import Chain
from coordinator.journals.segments import partition, store
from coordinator.journals.segments.files import File, Folder
from coordinator.journals.segments.format import segment_name
from coordinator.journals.segments.reading import SegmentReader
from coordinator.journals.segments.recovery import Recovered
from coordinator.journals.segments.renewal import Renewed, renew
from coordinator.journals.segments.store import Store
from coordinator.log import Log
from coordinator.model import Position
from coordinator.orphans import Orphan, Orphans
from coordinator.records import Carried, Claimed, encode_record
from coordinator.runs import Run
from coordinator.state import InvalidRecordError, PartitionState, WorkflowState

__all__ = ["BUGS"]


def append_without_sync(store: Store, batch: Batch) -> None:
    data = batch.data
    if store._offset + len(data) > store._limit:
        store._make_room(64 + len(data))
    assert store._active is not None
    store._write(store._active, data)
    store._offset += len(data)
    store.chain.take(batch)


def append_with_second_sync(store: Store, batch: Batch) -> None:
    data = batch.data
    try:
        if store._offset + len(data) > store._limit:
            store._make_room(64 + len(data))
        assert store._active is not None
        store._write(store._active, data)
        try:
            store._active.sync()
        except OSError:
            store._active.sync()
    except OSError as error:
        raise store.broke("append", error) from error
    store._offset += len(data)
    store.chain.take(batch)


def trust_the_page_cache(folder: Folder, found: Recovered, size: int) -> Renewed:
    name = segment_name(found.segments[-1].base)
    file = folder.open(name, writable=True)
    return Renewed(file, max(size, found.active_size), "")


class _NeverSynced:
    """A folder whose names are not made durable, or a file whose bytes are not."""

    def __init__(self, real: Folder | File) -> None:
        self._real = real

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def sync(self) -> None:
        """Do nothing."""


def without_folder_sync(method: str) -> Callable[[], Any]:
    """Have a method of the store leave the folder's names to chance."""
    right = getattr(Store, method)

    def plant(store: Store, *args: Any) -> Any:
        folder = store.folder
        store.folder = cast("Folder", _NeverSynced(folder))
        try:
            return right(store, *args)
        finally:
            store.folder = folder

    return instead(plant)


RENEW = renew


def renew_without_folder_sync(folder: Folder, found: Recovered, size: int) -> Renewed:
    return RENEW(cast("Folder", _NeverSynced(folder)), found, size)


WRITE_CHECKPOINT = Store._write_checkpoint


def checkpoint_without_sync(store: Store, content: bytes) -> File:
    return cast("File", _NeverSynced(WRITE_CHECKPOINT(store, content)))


def let_go(store: Store, base: int) -> None:
    try:
        store.folder.remove(segment_name(base))
        store.folder.sync()
    except OSError as error:
        raise store.broke("trim", error) from error


def trim_one_too_many(store: Store, before: int, count_max: int = 1 << 30) -> bool:
    store.check()
    before = min(before, store._low)
    while len(store.segments) > 1 and store.segments[0].base < before:
        let_go(store, store.segments[0].base)
        del store.segments[0]
    return False


def trim_newest_first(store: Store, before: int, count_max: int = 1 << 30) -> bool:
    store.check()
    before = min(before, store._low)
    old = [
        header
        for header, after in zip(store.segments, store.segments[1:], strict=False)
        if after.base <= before
    ]
    for header in reversed(old):
        let_go(store, header.base)
        store.segments.remove(header)
    return False


LOW = PartitionState.low


def low_of_all_but_one(state: PartitionState, end: Position) -> Position:
    firsts = sorted(workflow.first for workflow in state.workflows.values())
    return firsts[1] if len(firsts) > 1 else end


def low_is_one_too_high(state: PartitionState, end: Position) -> Position:
    return Position(min(LOW(state, end) + 1, end))


CARRY = WorkflowState.carry


def carry_no_started(state: WorkflowState, at: int) -> Carried:
    carried = CARRY(state, at)
    return Carried(
        workflow=carried.workflow,
        at=at,
        accepted=carried.accepted,
        outcomes=carried.outcomes,
        cancelled=carried.cancelled,
        aborting=carried.aborting,
        stuck=carried.stuck,
    )


def carry_the_latest_outcome(state: WorkflowState, at: int) -> Carried:
    carried = CARRY(state, at)
    return Carried(
        workflow=carried.workflow,
        at=at,
        accepted=carried.accepted,
        outcomes=carried.outcomes[-1:],
        cancelled=carried.cancelled,
        aborting=carried.aborting,
        stuck=carried.stuck,
        started=carried.started,
    )


async def checkpoint_what_is_not_durable(log: Log) -> None:
    log._carry_old_workflows()
    end = Position(log._commit.next)
    low, data = log.state.encode_checkpoint(end)
    await log.partition.save_checkpoint(min(low, log.partition.end), data)
    log._checkpoint_ends.append(end)
    await log.partition.trim(low)


def forget_the_newest(state: PartitionState) -> None:
    _, ended = state._ended.popitem(last=True)
    state._ended_size -= ended.size


ENCODE_CHECKPOINT = PartitionState.encode_checkpoint


def checkpoint_without_keys(
    state: PartitionState, end: Position
) -> tuple[Position, bytes]:
    ended, state._ended = state._ended, type(state._ended)()
    try:
        return ENCODE_CHECKPOINT(state, end)
    finally:
        state._ended = ended


def remember_all(state: PartitionState, now: int) -> None: ...


def finish_again(state: PartitionState, position: int, ended: Any, record: Any) -> None:
    del state.workflows[ended.position]
    if ended.accepted.key:
        state._keys.pop((ended.accepted.type, ended.accepted.key), None)
        state._remember(ended, record)


def nothing_unknown(state: PartitionState, position: int, record: Any) -> Any:
    raise InvalidRecordError(f"{record} at position {position}: no such workflow")


def pass_any(_reader: SegmentReader, *_: Any) -> None: ...


def give_back_to_nobody(orphans: Orphans, log: Log) -> None:
    orphans._lost.pop(log.state.number, None)


def offer_whatever_landed(
    orphans: Orphans, orphan: Orphan, _error: JournalError, *, ours: bool
) -> None:
    for caller in orphan.callers:
        orphans._offer(orphan.submission, caller)


def keep_running(engine: Engine, run: Run) -> None:
    del engine._runs[run.state.id]
    engine._count(run, counted=False)


async def write_or_not(commit: GroupCommit, group: Any) -> None:
    batch = _encode(commit, group)
    try:
        await commit.partition.write(batch)
    except JournalFullError:
        return


async def write_uncertainly(commit: GroupCommit, group: Any) -> None:
    batch = _encode(commit, group)
    try:
        await commit.partition.write(batch)
    except UncertainError:
        return


def _encode(commit: GroupCommit, group: Any) -> Batch:
    opened = commit.partition
    return encode_batch(
        group.records,
        epoch=opened.epoch,
        first=opened.end,
        previous_crc=opened.crc,
    )


def claim_without_epoch(chain: Chain, *, owner: str, at: int) -> Batch:
    epoch = max(1, chain.epoch)
    claim = encode_record(Claimed(epoch=epoch, owner=owner, at=at))
    return encode_batch([claim], epoch=epoch, first=chain.end, previous_crc=chain.crc)


LOST = frozenset({"lost"})

BUGS = [
    Bug(
        "acknowledge before sync",
        Store,
        "append",
        instead(append_without_sync),
        LOST,
        museum="etcd #14370",
    ),
    Bug(
        "swallow a failed sync",
        Store,
        "append",
        instead(append_with_second_sync),
        LOST | {"state"},
        museum="fsync, ATC'20",
    ),
    Bug(
        "trust the page cache after a crash",
        store,
        "renew",
        instead(trust_the_page_cache),
        LOST,
        museum="ours: torn tail cut, not synced",
        first=1400,
    ),
    Bug(
        "no folder sync after a roll",
        Store,
        "_roll",
        without_folder_sync("_roll"),
        LOST,
    ),
    Bug(
        "no folder sync after the renewal",
        store,
        "renew",
        instead(renew_without_folder_sync),
        LOST,
    ),
    Bug(
        "a checkpoint is renamed before it is synced",
        Store,
        "_write_checkpoint",
        instead(checkpoint_without_sync),
        LOST,
    ),
    Bug(
        "retention removes one segment too many",
        Store,
        "trim",
        instead(trim_one_too_many),
        LOST,
        museum="etcd #17780",
    ),
    Bug(
        "retention removes the newest first",
        Store,
        "trim",
        instead(trim_newest_first),
        LOST,
        museum="etcd #18089",
    ),
    Bug(
        "the low position is that of all but one",
        PartitionState,
        "low",
        instead(low_of_all_but_one),
        frozenset({"lost", "forgotten", "unfinished"}),
    ),
    Bug(
        "the low position is one too high",
        PartitionState,
        "low",
        instead(low_is_one_too_high),
        frozenset({"lost", "forgotten", "unfinished"}),
    ),
    Bug(
        "what is carried forgets what was started",
        WorkflowState,
        "carry",
        instead(carry_no_started),
        frozenset({"leftover", "unfinished", "lost", "unrecorded"}),
        first=190,
    ),
    Bug(
        "what is carried forgets outcomes",
        WorkflowState,
        "carry",
        instead(carry_the_latest_outcome),
        frozenset({"state", "lost", "again"}),
    ),
    Bug(
        "a checkpoint knows what is not durable",
        Log,
        "checkpoint",
        instead(checkpoint_what_is_not_durable),
        frozenset({"lost", "changed", "early", "twice", "program"}),
        first=150,
    ),
    Bug(
        "the newest result is forgotten",
        PartitionState,
        "_forget_oldest",
        instead(forget_the_newest),
        frozenset({"twice"}),
        first=120,
    ),
    Bug(
        "a checkpoint forgets results",
        PartitionState,
        "encode_checkpoint",
        instead(checkpoint_without_keys),
        frozenset({"twice", "lost"}),
    ),
    Bug(
        "results are remembered without a bound",
        PartitionState,
        "_forget",
        instead(remember_all),
        frozenset({"bound"}),
    ),
    Bug(
        "what ended is read again behind what is newer",
        PartitionState,
        "_finish",
        instead(finish_again),
        frozenset({"lost", "twice"}),
        first=1440,
    ),
    Bug(
        "recovery panics at a record of what has ended",
        PartitionState,
        "_unknown",
        instead(nothing_unknown),
        LOST,
        museum="restate #4839",
    ),
    Bug(
        "a damaged closed segment is read as far as it goes",
        SegmentReader,
        "check_closed",
        instead(pass_any),
        LOST,
        museum="NATS 2.12.1",
    ),
    Bug(
        "damage in the active segment is taken for a torn tail",
        SegmentReader,
        "_check_not_later",
        instead(pass_any),
        LOST,
        museum="NATS 2.12.1",
    ),
    Bug(
        "a batch is given up on a full disk, and acknowledged",
        GroupCommit,
        "_write_group",
        instead(write_or_not),
        LOST,
    ),
    Bug(
        "an uncertain write is taken for one that landed",
        GroupCommit,
        "_write_group",
        instead(write_uncertainly),
        frozenset({"lost", "early", "unaccepted", "undo", "unrecorded", "forward"}),
        museum="Kafka, KIP-890",
        first=110,
    ),
    Bug(
        "who waits for what is in a lost partition is forgotten",
        Orphans,
        "give_back",
        instead(give_back_to_nobody),
        frozenset({"unfinished"}),
    ),
    Bug(
        "what was uncertain is taken in again, though it landed",
        Orphans,
        "_settle",
        instead(offer_whatever_landed),
        frozenset({"twice", "changed", "unfinished", "order"}),
    ),
    Bug(
        "what is in a lost partition runs on",
        Engine,
        "_forget",
        instead(keep_running),
        frozenset({"forward", "again", "undo", "state", "program"}),
    ),
    Bug(
        "an epoch is claimed twice",
        partition,
        "encode_claim",
        instead(claim_without_epoch),
        frozenset({"state"}),
        museum="dbos #742",
    ),
]
