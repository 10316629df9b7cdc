"""Damage, and what is left: whoever lost nothing goes on, all others are named."""

import errno
import random
from contextlib import suppress

import pytest
from tests.journals.disk import (
    Data,
    Disk,
    MemoryFolder,
    Names,
    PowerCut,
    cut_at,
    fail_at,
)
from tests.journals.parts import (
    IDENTITY,
    SMALL,
    append,
    batches_of,
    make_store,
    open_store,
)
from tests.journals.wreck import DAMAGES, Partition, facts, fold

from coordinator.batch import encode_batch
from coordinator.checkpoint import decode_checkpoint
from coordinator.errors import JournalDamagedError
from coordinator.journals.segments.format import encode_checkpoint, segment_name
from coordinator.journals.segments.gaps import Gap
from coordinator.journals.segments.inspect import Problem, _Verification
from coordinator.journals.segments.rebuild import finish
from coordinator.journals.segments.recovery import is_marked, recover
from coordinator.journals.segments.salvage import salvage
from coordinator.losses import Dropped, Losses, describe_lost
from coordinator.mending import PartitionRepair, RepairReport
from coordinator.model import (
    Direction,
    EndStatus,
    OutcomeStatus,
    Position,
    WorkflowId,
)
from coordinator.records import (
    Aborting,
    Accepted,
    Cancelled,
    Carried,
    Claimed,
    Finished,
    Held,
    Outcome,
    Record,
    Released,
    Resumed,
    Started,
    Stuck,
    encode_record,
)
from coordinator.state import PartitionState

NOW = 1_800_000_000_000_000
WORKFLOW_RECORDS = (Outcome, Aborting, Stuck, Resumed, Cancelled, Started, Carried)


def opened(folder: MemoryFolder) -> PartitionState:
    """Open the partition as a coordinator does, and close it again."""
    folder.disk.kill()
    store = make_store(folder, SMALL)
    store.open("test")
    data = store.load_checkpoint()
    low = 0
    state = PartitionState(0)
    if data is not None:
        checkpoint = decode_checkpoint(data)
        low = checkpoint.low
        state = PartitionState(
            0,
            low=low,
            ended=checkpoint.ended,
            ended_before=checkpoint.end,
            lease_ms=checkpoint.lease_ms,
        )
    for batch in batches_of(store, low):
        for position, record in batch.records():
            if position >= low:
                state.apply(position, record)
    store.close()
    folder.disk.kill()
    return state


def repaired(folder: MemoryFolder) -> RepairReport:
    repair = PartitionRepair(folder, IDENTITY, NOW)
    report = repair.report()
    assert repair.needed
    needed = repair.prepare()
    before = sum(map(len, folder.copy_of().values()))
    repair.stage("damaged-now", by="test")
    staged = folder.make_folder("repair").copy_of()
    assert sum(map(len, staged.values())) <= needed
    assert sum(map(len, folder.copy_of().values())) == before
    finish(folder)
    return report


def problems_in(folder: MemoryFolder) -> tuple[Problem, ...]:
    """Read every byte, as ``journal verify`` does."""
    return _Verification(folder, IDENTITY).run().problems


def wrecked(seed: int) -> tuple[Partition, str]:
    rng = random.Random(seed)
    partition = Partition(rng)
    names: list[str] = []
    for _ in range(rng.choice([1, 1, 1, 2])):
        damage = rng.choice(DAMAGES)
        try:
            damage(partition.folder, rng)
        except (ValueError, IndexError):
            continue  # Nothing is left to be damaged so.
        names.append(damage.__name__)
    return partition, f"seed {seed}: {names}"


def check(seed: int) -> str:
    partition, said = wrecked(seed)
    folder = partition.folder
    repair = PartitionRepair(folder, IDENTITY, NOW)
    if not repair.needed:
        opened(folder)  # an unwritten end, or a tail that looks torn
        return "sound"
    salvaged = repair.salvaged
    known = partition.end if salvaged.tail is not None else salvaged.chain.end
    truth = fold(partition.records, known)
    report = repaired(folder)
    state = opened(folder)
    stuck = {marked.id for marked in report.stuck}
    for workflow in state.workflows.values():
        if workflow.id in stuck:
            assert workflow.stuck is not None, said
            assert "the journal was repaired" in workflow.stuck.reason
        else:
            assert workflow.position in truth.workflows, said
            assert facts(workflow) == facts(truth.workflows[workflow.position]), said
    lost = [range(gap.first, gap.end) for gap in report.lost]
    dropped = {one.id for one in report.dropped}
    for position, workflow in truth.workflows.items():
        if position not in state.workflows:
            # Its beginning; or the place where it was written again as a whole.
            gone = any(workflow.first in positions for positions in lost)
            assert gone or workflow.id in dropped, said
    assert report.whole == len(state.workflows) - len(stuck), said
    assert_new_numbers(folder, partition, known)
    assert problems_in(folder) == (), said
    return "repaired" if report.lost else "nothing lost"


def assert_new_numbers(folder: MemoryFolder, partition: Partition, known: int) -> None:
    """Nobody gets a position, or an epoch, that was given out before."""
    recovered = recover(folder, IDENTITY)
    assert recovered.checkpoint is not None
    assert recovered.checkpoint.low >= recovered.segments[-1].base
    store = make_store(folder, SMALL)
    store.open("test")
    batch = next(iter(batches_of(store, recovered.checkpoint.low - 1)))
    ((position, claim),) = batch.records()
    store.close()
    folder.disk.kill()
    assert isinstance(claim, Claimed)
    assert claim.epoch > partition.epoch
    assert position >= known


def test_the_records_of_a_gap_are_named_where_its_bytes_can_be_read() -> None:
    partition = _with_a_flipped_value()
    repair = PartitionRepair(partition.folder, IDENTITY, NOW)
    (gap,) = repair.salvaged.gaps
    assert gap.complete
    written = dict(partition.records)
    assert len([p for p, record in gap.held if record != written[p]]) == 1
    own = [written[position] for position, _ in gap.held]
    named = {f"0-{r.workflow}" for r in own if isinstance(r, WORKFLOW_RECORDS)}
    assert {marked.id for marked in repair.stuck} <= named


def _with_a_flipped_value() -> Partition:
    """Flip a bit in the value of an outcome whose workflow did not end."""
    for seed in range(100):
        partition = Partition(random.Random(seed))
        for name in reversed(partition.folder.names()):
            data = partition.folder.bytes_of(name)
            for _, record in reversed(partition.records[:-20]):
                if not isinstance(record, Outcome) or len(record.value) < 30:
                    continue
                place = bytes(data).find(encode_record(record))
                if place > 0 and record.workflow in partition.state.workflows:
                    data[place + len(encode_record(record)) // 2] ^= 1
                    return partition
    raise AssertionError("no such outcome in 100 partitions")


def test_a_batch_in_the_payload_of_a_bad_one_is_not_taken_for_one() -> None:
    folder = Disk().folder("/journal/p0")
    store = open_store(folder)
    append(store)
    forged = encode_batch(
        [encode_record(Finished(0, EndStatus.COMPLETED, b"", 1))],
        epoch=store.chain.epoch,
        first=store.chain.end + 1,
        previous_crc=0,
    )
    for padding in range(8):  # one of them puts it on an aligned place
        payload = bytes(padding) + forged.data + bytes(40)
        record = encode_record(Accepted("T", "json", payload, 1))
        chain = store.chain
        store.append(
            encode_batch(
                [record], epoch=chain.epoch, first=chain.end, previous_crc=chain.crc
            )
        )
    append(store)
    store.close()
    folder.disk.kill()
    data = folder.bytes_of(segment_name(0))
    at = bytes(data).find(b"json") // 8 * 8
    while bytes(data[at : at + 4]) != b"CBAT":
        at -= 8
    data[at + 4 : at + 36] = bytes(32)  # its header can't be read
    (gap,) = salvage(folder, IDENTITY).gaps
    assert gap.end - gap.first == 1


def test_a_journal_that_is_sound_needs_none() -> None:
    partition = Partition(random.Random(1))
    assert not PartitionRepair(partition.folder, IDENTITY, NOW).needed


def test_what_was_carried_behind_the_gap_is_whole() -> None:
    results = Losses(PartitionState(0), ended_before=0)
    accepted = Accepted("T", "json", b"{}", 1)
    results.take(0, accepted)
    results.lose(_gap(1, 5))
    assert [marked.id for marked in results.marked()] == ["0-0"]
    results.take(5, Carried(workflow=0, at=2, accepted=accepted))
    results.take(6, Carried(workflow=3, at=2, accepted=accepted))
    assert [*results.marked()] == []
    assert [*results.dropped()] == []
    assert set(results.state.workflows) == {0, 3}


def _gap(first: int, end: int, *held: tuple[int, Record]) -> Gap:
    return Gap(
        path="p0/x.seg",
        offset=64,
        size=80,
        first=first,
        end=end,
        problem="crc",
        held=held,
    )


def test_a_lost_record_about_the_partition_is_nobodys_loss() -> None:
    losses = Losses(PartitionState(0), ended_before=0)
    losses.take(0, Accepted("T", "json", b"{}", 1))
    losses.lose(_gap(1, 4, (1, Held(1)), (2, Released(1)), (3, Claimed(2, "a", 1))))
    losses.take(4, Held(2))
    losses.take(5, Released(3))
    assert [*losses.marked()] == []
    assert [*losses.dropped()] == []
    (carried,) = losses.carry(9)
    assert carried.stuck is None


def test_a_repair_keeps_the_lease_that_only_the_checkpoint_knows() -> None:
    folder = Disk().folder("/journal/p0")
    store = open_store(folder)
    checkpoint = PartitionState(0, lease_ms=20_000)
    store.save_checkpoint(*checkpoint.encode_checkpoint(Position(store.chain.end)))
    append(store)
    append(store)
    store.close()
    folder.disk.kill()
    data = folder.bytes_of(segment_name(0))
    data[bytes(data).rfind(b"CBAT") - 9] ^= 1  # in the batch before the last
    repaired(folder)
    assert opened(folder).lease_ms == 20_000


def test_an_undo_whose_decision_is_lost_lets_nothing_complete() -> None:
    losses = Losses(PartitionState(0), ended_before=0)
    losses.take(0, Accepted("T", "json", b"{}", 1))
    refused = Outcome(0, "pay.b", 0, b"why", 1, status=OutcomeStatus.REFUSED)
    losses.take(1, Outcome(0, "pay.a", 0, b"", 1))
    losses.take(2, refused)
    losses.lose(_gap(3, 4))
    losses.take(4, Outcome(0, "pay.a", 0, b"", 2, direction=Direction.UNDO))
    (carried,) = losses.carry(9)
    assert carried.aborting is not None
    assert carried.aborting.refusal == b"why"
    assert carried.stuck is not None
    assert "records 3 (p0/x.seg at bytes 64 to 143)" in carried.stuck.reason
    assert len(carried.outcomes) == 3


def test_what_was_stuck_and_went_on_had_been_resumed() -> None:
    losses = Losses(PartitionState(0), ended_before=0)
    losses.take(0, Accepted("T", "json", b"{}", 1))
    losses.take(1, Stuck(0, "bug", 1))
    losses.lose(_gap(2, 3))
    losses.take(3, Outcome(0, "pay.a", 0, b"", 1))
    (carried,) = losses.carry(9)
    assert len(carried.outcomes) == 1
    assert carried.stuck is not None
    assert carried.stuck.reason.startswith("the journal was repaired")


def test_of_many_losses_the_first_are_said_and_how_many_more() -> None:
    losses = Losses(PartitionState(0), ended_before=0)
    losses.take(0, Accepted("T", "json", b"{}", 1))
    lost = [(1 + n, Outcome(0, f"pay.s{n}", 0, b"", 1)) for n in range(30)]
    losses.lose(_gap(1, 31, *lost))
    (carried,) = losses.carry(9)
    assert carried.stuck is not None
    assert "the outcome of pay.s0 at position 1" in carried.stuck.reason
    said = carried.stuck.reason.count(" is lost: it will")
    assert f"; and {30 - said} more. See" in carried.stuck.reason


def test_an_end_that_can_not_be_waits_for_a_person() -> None:
    losses = Losses(PartitionState(0), ended_before=0)
    losses.take(0, Accepted("T", "json", b"{}", 1))
    losses.take(1, Aborting(0, "no", 1))
    losses.take(2, Finished(0, EndStatus.COMPLETED, b"", 1))
    (marked,) = losses.marked()
    assert marked.losses == ("its Finished can't follow what is recorded before it",)


def test_what_ended_has_lost_nothing_that_matters() -> None:
    losses = Losses(PartitionState(0), ended_before=0)
    losses.take(0, Accepted("T", "json", b"{}", 1))
    losses.lose(_gap(1, 2))
    losses.take(2, Finished(0, EndStatus.COMPLETED, b"", 1))
    assert [*losses.marked()] == []
    assert [*losses.carry(9)] == []


def test_an_outcome_that_is_lost_still_counts_as_one_before_what_was_started() -> None:
    losses = Losses(PartitionState(0), ended_before=0)
    losses.take(0, Accepted("T", "json", b"{}", 1))
    losses.lose(_gap(1, 2, (1, Outcome(0, "pay.a", 0, b"", 1))))
    losses.take(2, Started(0, (("pay.b", 0),), 1))
    (carried,) = losses.carry(9)
    assert carried.started == ((), (("pay.b", 0),))


def test_a_workflow_whose_beginning_is_lost_is_dropped_and_named() -> None:
    losses = Losses(PartitionState(0), ended_before=0)
    losses.lose(_gap(0, 1, (0, Accepted("PlaceOrder", "json", b"{}", 1, key="o-17"))))
    losses.take(1, Outcome(0, "pay.a", 0, b"", 1))
    losses.take(2, Stuck(0, "bug", 1))
    (dropped,) = losses.dropped()
    assert dropped == Dropped(
        id=WorkflowId("0-0"),
        type="PlaceOrder",
        key="o-17",
        recorded=("pay.a: done", "Stuck"),
    )


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            Outcome(0, "a.b", 1, b"", 1),
            "the outcome of a.b#1 at position 7 is lost: it",
        ),
        (
            Outcome(0, "a.b", 0, b"", 1, direction=Direction.UNDO),
            "the outcome of the undo of a.b at position 7",
        ),
        (
            Outcome(0, "n", 0, b"", 1, status=OutcomeStatus.NOTED),
            "the note n at position 7 is lost",
        ),
        (Finished(0, EndStatus.COMPLETED, b"", 1), "its end at position 7 is lost"),
        (Aborting(0, "no", 1), "the decision to undo it at position 7 is lost (no)"),
        (Cancelled(0, "ann", "x", 1), "that ann cancelled it, at position 7, is lost"),
        (Started(0, (("a.b", 0),), 1), "that it called a.b, at position 7, is lost"),
        (Resumed(0, "ann", 1), "its Resumed at position 7 is lost"),
    ],
)
def test_each_lost_record_is_said_in_its_users_words(record: Record, said: str) -> None:
    assert describe_lost(record, 7).startswith(said)


def damaged_in_the_middle() -> MemoryFolder:
    folder = Disk().folder("/journal/p0")
    store = open_store(folder)
    chain = store.chain
    for number in range(5):
        record = encode_record(Accepted("T", "json", b"x" * 900, number))
        store.append(
            encode_batch(
                [record], epoch=chain.epoch, first=chain.end, previous_crc=chain.crc
            )
        )
    store.close()
    folder.disk.kill()
    assert len([name for name in folder.names() if name.endswith("seg")]) == 2
    folder.bytes_of(segment_name(0))[1500] ^= 1
    folder.put_back(folder.copy_of())  # on the platter, too
    return folder


@pytest.mark.parametrize("names", Names)
@pytest.mark.parametrize("data", [Data.NONE, Data.ALL, Data.ODD_SECTORS])
def test_a_power_cut_leaves_the_damaged_one_or_one_that_goes_on(
    data: Data, names: Names
) -> None:
    folder = damaged_in_the_middle()
    before = folder.copy_of()
    disk = folder.disk
    calls = disk.calls
    repaired(folder)
    calls = disk.calls - calls
    wanted = opened_facts(folder)
    for number in range(calls):
        folder = damaged_in_the_middle()
        disk = folder.disk
        disk.fault = cut_at(disk.calls + number)
        with suppress(PowerCut):
            repaired(folder)
        disk.cut_power(data, names)
        if is_marked(folder):
            with pytest.raises(JournalDamagedError, match="repair was cut off"):
                opened(folder)
            finish(folder)
        elif PartitionRepair(folder, IDENTITY, NOW).needed:
            assert folder.copy_of().items() >= before.items()
            repaired(folder)
        assert not PartitionRepair(folder, IDENTITY, NOW).needed
        assert opened_facts(folder) == wanted
        kept = folder.make_folder("damaged-now").copy_of()
        assert kept[segment_name(0)] == before[segment_name(0)]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_anywhere_leaves_one_that_the_next_repair_goes_on_with(
    code: int,
) -> None:
    folder = damaged_in_the_middle()
    before = folder.copy_of()
    calls = folder.disk.calls
    repaired(folder)
    calls = folder.disk.calls - calls
    wanted = opened_facts(folder)
    for number in range(calls):
        folder = damaged_in_the_middle()
        disk = folder.disk
        disk.fault = fail_at(disk.calls + number, code)
        with suppress(OSError):
            repaired(folder)
        disk.kill()
        if is_marked(folder):
            finish(folder)
        elif PartitionRepair(folder, IDENTITY, NOW).needed:
            assert folder.copy_of().items() >= before.items()
            repaired(folder)
        assert opened_facts(folder) == wanted
        kept = folder.make_folder("damaged-now").copy_of()
        assert kept[segment_name(0)] == before[segment_name(0)]


def opened_facts(folder: MemoryFolder) -> list[tuple[object, ...]]:
    return [facts(state) for state in opened(folder).workflows.values()]


def test_a_checkpoint_that_is_intact_and_makes_no_sense_is_let_go() -> None:
    folder = damaged_in_the_middle()
    data = folder.bytes_of(segment_name(0))
    data[1500] ^= 1  # as it was
    low, end = 0, 3
    put_checkpoint(folder, b"nonsense", low, end)
    repair = PartitionRepair(folder, IDENTITY, NOW)
    assert repair.problem == ""  # only whoever reads it finds out
    report = repaired(folder)
    assert "not a checkpoint" in report.checkpoint
    assert report.lost == ()
    assert report.whole == 5
    assert len(opened(folder).workflows) == 5


def test_how_far_it_says_that_the_partition_goes_still_counts() -> None:
    folder = damaged_in_the_middle()
    folder.bytes_of(segment_name(0))[1500] ^= 1
    put_checkpoint(folder, b"", 0, 50)
    repair = PartitionRepair(folder, IDENTITY, NOW)
    assert repair.salvaged.checkpoint is None
    assert repair.salvaged.tail is not None
    assert repair.salvaged.tail.end > 50


def put_checkpoint(folder: MemoryFolder, data: bytes, low: int, end: int) -> None:
    content = encode_checkpoint(
        data, journal_id=IDENTITY.journal_id, partition=0, low=low, end=end
    )
    folder.put_back({**folder.copy_of(), "checkpoint": content})


def test_a_long_end_goes_into_several_batches_and_segments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coordinator.journals.segments.rebuild._BATCH_SIZE", 1500)
    monkeypatch.setattr("coordinator.journals.segments.rebuild._SEGMENT_SIZE", 2000)
    folder = damaged_in_the_middle()
    wanted = PartitionRepair(damaged_in_the_middle(), IDENTITY, NOW)._losses.state
    repaired(folder)
    assert set(opened(folder).workflows) == set(wanted.workflows)
    assert problems_in(folder) == ()
    # The damaged one, the one behind it, two for what goes on, and the active one.
    assert len([name for name in folder.names() if name.endswith("seg")]) == 4
    assert len(wanted.workflows) == 4


def test_a_first_segment_of_which_nothing_says_where_it_begins_is_filled() -> None:
    """Its beginning was trimmed away, its header is gone, and so is its first batch."""
    folder = damaged_in_the_middle()
    name = [name for name in folder.names() if name.endswith("seg")][-1]
    data = folder.bytes_of(name)
    data[20] ^= 1
    data[100] ^= 1
    folder.remove(segment_name(0))
    report = repaired(folder)
    assert report.whole == 0
    assert opened(folder).workflows == {}
    assert problems_in(folder) == ()
    assert segment_name(int(name[:20])) in folder.make_folder("damaged-now").names()


@pytest.mark.parametrize("block", range(4))
def test_whoever_lost_nothing_goes_on_and_all_others_are_named(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.journals.segments.salvage.SKIPPED", 1000)
    results = [check(seed) for seed in range(block * 40, block * 40 + 40)]
    assert {"repaired", "nothing lost"} <= set(results)
