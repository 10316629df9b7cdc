"""The fold: each cell of the module's table, and that recovery gives what was."""

import copy
from collections.abc import Iterable
from typing import TypeAlias, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.checkpoint import Ended, decode_checkpoint
from coordinator.model import Direction, EndStatus, OutcomeStatus, Position, StepId
from coordinator.records import (
    Aborting,
    Accepted,
    Cancelled,
    Carried,
    Claimed,
    Finished,
    Held,
    Lost,
    Outcome,
    PartitionRecord,
    Record,
    Released,
    Resumed,
    Started,
    Stuck,
)
from coordinator.state import InvalidRecordError, PartitionState, WorkflowState

Folded: TypeAlias = list[tuple[int, Record]]

STEP = StepId("inventory.hold", 0)
OTHER = StepId("payments.charge", 1)


def accepted(key: str = "", type_: str = "Order") -> Accepted:
    return Accepted(type_, "json", b"{}", 1, key)


def outcome(
    step: StepId = STEP,
    direction: Direction = Direction.DO,
    status: OutcomeStatus = OutcomeStatus.DONE,
    *,
    workflow: int = 0,
) -> Outcome:
    return Outcome(workflow, step.name, step.occurrence, b"\x01", 2, direction, status)


def finished(
    status: EndStatus = EndStatus.COMPLETED, *, workflow: int = 0, at: int = 9
) -> Finished:
    return Finished(workflow, status, b"\xc0", at)


def folded(records: Iterable[Record]) -> WorkflowState:
    """Return the workflow of position 0 after *records*."""
    state = WorkflowState(
        id=PartitionState(0)._accept(0, accepted()).id,
        position=Position(0),
        accepted=accepted(),
        first=Position(0),
    )
    for record in records:
        state.apply(record)
    return state


# The table: what may follow what.

CANCELLED = Cancelled(0, "ann", "why", 3)
ABORTING = Aborting(0, "no stock", 4)
STUCK = Stuck(0, "a bug", 5)
RESUMED = Resumed(0, "ann", 6)
STARTED = Started(0, ((STEP.name, 0), (OTHER.name, 1)), 7)

NEXT: dict[str, Record] = {
    "Accepted": accepted(),
    "Claimed": Claimed(2, "host a", 1),
    "Held": Held(1),
    "Released": Released(1),
    "Outcome DO": outcome(),
    "Outcome DO, other": outcome(OTHER, status=OutcomeStatus.REFUSED),
    "Outcome UNDO": outcome(direction=Direction.UNDO),
    "Started": STARTED,
    "Cancelled": CANCELLED,
    "Aborting": ABORTING,
    "Stuck": STUCK,
    "Resumed": RESUMED,
    "Finished COMPLETED": finished(),
    "Finished COMPENSATED": finished(EndStatus.COMPENSATED),
    "Finished CANCELLED": finished(EndStatus.CANCELLED),
    "Carried": Carried(0, 8, accepted()),
}

RUNNING = {
    "Outcome DO",
    "Outcome DO, other",
    "Started",
    "Cancelled",
    "Aborting",
    "Stuck",
    "Finished COMPLETED",
    "Carried",
}
CANCELLING = RUNNING - {"Cancelled", "Finished COMPLETED"}
UNDOING = {
    "Outcome UNDO",
    "Stuck",
    "Finished COMPENSATED",
    "Finished CANCELLED",
    "Carried",
}
WAITING = {"Resumed", "Carried"}

TABLE: list[tuple[list[Record], str, set[str]]] = [
    ([], "running", RUNNING),
    ([outcome()], "running", RUNNING - {"Outcome DO"}),
    ([STARTED], "running", RUNNING),
    ([CANCELLED], "cancelling", CANCELLING),
    ([outcome(), CANCELLED], "cancelling", CANCELLING - {"Outcome DO"}),
    ([ABORTING], "aborting", UNDOING),
    ([CANCELLED, ABORTING], "aborting", UNDOING),
    ([outcome(), ABORTING], "aborting", UNDOING),
    (
        [outcome(), ABORTING, outcome(direction=Direction.UNDO)],
        "aborting",
        UNDOING - {"Outcome UNDO"},
    ),
    ([STUCK], "stuck", WAITING | {"Cancelled"}),
    ([CANCELLED, STUCK], "stuck", WAITING),
    ([ABORTING, STUCK], "stuck", WAITING),
    ([STUCK, RESUMED], "running", RUNNING),
    ([STUCK, CANCELLED], "cancelling", CANCELLING),
    ([CANCELLED, STUCK, RESUMED], "cancelling", CANCELLING),
    ([ABORTING, STUCK, RESUMED], "aborting", UNDOING),
    ([finished()], "completed", set()),
    ([ABORTING, finished(EndStatus.COMPENSATED)], "compensated", set()),
    ([ABORTING, finished(EndStatus.CANCELLED)], "cancelled", set()),
]


def _id(value: object) -> str:
    """Return an id that is the same in every process: a set's order is not."""
    if isinstance(value, set):
        return ", ".join(sorted(map(str, cast("set[object]", value))))[:40]
    return str(value)[:40]


@pytest.mark.parametrize("name", NEXT)
@pytest.mark.parametrize(("before", "word", "may_follow"), TABLE, ids=_id)
def test_what_may_follow_what_is_as_the_table_says(
    before: list[Record], word: str, may_follow: set[str], name: str
) -> None:
    state = folded(before)
    assert state.describe() == word
    if name in may_follow:
        state.apply(NEXT[name])
        return
    unchanged = copy.deepcopy(state)
    with pytest.raises(InvalidRecordError, match=f"0-0: .* can't follow {word}"):
        state.apply(NEXT[name])
    assert state == unchanged


# What then holds.


def test_an_outcome_makes_its_step_known_in_its_direction_only() -> None:
    state = folded([outcome()])
    assert state.outcome(STEP) == outcome()
    assert state.outcome(STEP, Direction.UNDO) is None
    assert state.outcome(StepId(STEP.name, 1)) is None
    assert state.outcome(OTHER) is None


def test_what_stands_is_what_was_done_and_not_undone_in_the_order_of_the_journal() -> (
    None
):
    first, second, third = (StepId(name, 0) for name in ("z", "y", "x"))
    records: list[Record] = [
        outcome(first),
        outcome(OTHER, status=OutcomeStatus.REFUSED),
        outcome(second),
        outcome(StepId("note", 0), status=OutcomeStatus.NOTED),
        outcome(third),
    ]
    assert folded(records).standing() == [first, second, third]
    records += [ABORTING, outcome(second, Direction.UNDO)]
    assert folded(records).standing() == [first, third]


def test_resumed_it_is_as_it_was_before_it_was_stuck() -> None:
    histories: list[list[Record]] = [
        [],
        [CANCELLED],
        [ABORTING],
        [outcome(), ABORTING],
    ]
    for before in histories:
        assert folded([*before, STUCK, RESUMED]) == folded(before)


def test_cancelled_it_is_no_longer_stuck() -> None:
    state = folded([STUCK, CANCELLED])
    assert (state.stuck, state.cancelled) == (None, CANCELLED)


def test_a_started_step_is_remembered_by_what_was_known_before_it() -> None:
    third = StepId("third", 2)
    again = Started(0, ((OTHER.name, 1), third), 8)
    state = folded([STARTED, outcome(), again])
    assert list(state.started.items()) == [(STEP, 0), (OTHER, 0), (third, 1)]
    assert state.unknown() == [OTHER, third]


def test_what_exec_noted_is_no_outcome_of_a_step_of_that_name() -> None:
    noted = outcome(status=OutcomeStatus.NOTED)
    state = folded([noted, outcome()])
    assert state.outcome(STEP) == outcome()
    assert list(state.outcomes.values()) == [noted, outcome()]
    assert list(state.steps()) == [(STEP, outcome())]
    with pytest.raises(InvalidRecordError):
        state.apply(noted)


def test_no_two_states_share_their_outcomes() -> None:
    folded([outcome()])
    assert folded([]).outcomes == {}


@pytest.mark.parametrize(
    "records",
    [
        [],
        [outcome(), outcome(OTHER, status=OutcomeStatus.REFUSED), STARTED],
        [outcome(OTHER), outcome(), CANCELLED],
        [outcome(OTHER), STARTED, outcome(status=OutcomeStatus.NOTED)],
        [outcome(), ABORTING, outcome(direction=Direction.UNDO)],
        [outcome(), CANCELLED, ABORTING, STUCK],
    ],
    ids=len,
)
def test_what_is_carried_over_replaces_all_that_was_there(
    records: list[Record],
) -> None:
    state = folded(records)
    carried = state.carry(77)
    assert (carried.workflow, carried.at) == (0, 77)
    histories: list[list[Record]] = [
        [],
        [outcome(StepId("gone", 0)), STARTED],
        [CANCELLED, STUCK],
    ]
    for before in histories:
        again = folded([*before, carried])
        assert again == state
        assert list(again.outcomes) == list(state.outcomes)


def test_started_steps_are_carried_by_how_many_outcomes_came_before() -> None:
    third = StepId("third", 2)
    state = folded(
        [
            Started(0, (OTHER,), 1),
            outcome(),
            outcome(OTHER),
            Started(0, (third, STEP), 1),
        ]
    )
    assert state.carry(1).started == ((OTHER,), (), (third, STEP))
    assert folded([state.carry(1)]).started == state.started


# The partition.


def test_a_workflow_is_named_after_its_place() -> None:
    partition = PartitionState(3)
    state = partition.apply(41, accepted())
    assert state is not None
    assert (state.id, state.position, state.first) == ("3-41", 41, 41)
    assert partition.workflows == {41: state}


def test_a_claim_is_about_no_workflow_and_says_the_epoch() -> None:
    partition = PartitionState(0)
    assert partition.apply(0, Claimed(7, "host a", 1)) is None
    assert partition.epoch == 7


def test_the_longest_lease_since_a_release_is_what_the_next_owner_waits_for() -> None:
    partition = PartitionState(0)
    told: list[tuple[int, int]] = []
    records: list[Record] = [
        Claimed(1, "a lock", 1),
        Claimed(2, "a", 2, 20_000),
        Claimed(3, "b", 3, 5_000),
        Held(4),
        Claimed(4, "c", 5, 5_000),
        Released(6),
        Claimed(5, "d", 7, 5_000),
        Claimed(6, "e", 8, 5_000),
    ]
    for position, record in enumerate(records):
        assert partition.apply(position, record) is None
        told.append((partition.earlier_lease_ms, partition.lease_ms))
    assert told == [
        (0, 0),
        (0, 20_000),
        (20_000, 20_000),
        (20_000, 20_000),
        (20_000, 20_000),
        (20_000, 0),
        (0, 5_000),
        (5_000, 5_000),
    ]


def test_a_checkpoint_knows_the_lease_of_a_claim_that_lies_before_it() -> None:
    before = PartitionState(0)
    before.apply(0, Claimed(1, "a", 1, 20_000))
    _, data = before.encode_checkpoint(Position(1))
    checkpoint = decode_checkpoint(data)
    after = PartitionState(0, low=1, lease_ms=checkpoint.lease_ms)
    after.apply(1, Claimed(2, "b", 2, 3_000))
    assert after.earlier_lease_ms == 20_000


def test_a_lost_record_is_about_no_workflow() -> None:
    state = PartitionState(3)
    assert state.apply(Position(0), Lost(at=1, why="p3, byte 80")) is None
    assert not state.workflows


def test_a_finished_workflow_is_handed_out_for_the_last_time() -> None:
    partition = PartitionState(0)
    state = partition.apply(1, accepted())
    assert partition.apply(2, finished(workflow=1)) is state
    assert state is not None
    assert state.finished == finished(workflow=1)
    assert partition.workflows == {}


@pytest.mark.parametrize("record", [outcome(workflow=5), finished(workflow=5)])
def test_a_record_about_a_workflow_that_never_was_is_not_ours(record: Record) -> None:
    with pytest.raises(InvalidRecordError, match="at position 6: no such workflow"):
        PartitionState(0, low=5).apply(6, record)


def test_a_record_about_a_workflow_before_the_checkpoint_is_of_a_finished_one() -> None:
    partition = PartitionState(0, low=5)
    assert partition.apply(6, outcome(workflow=4)) is None
    assert partition.apply(7, finished(workflow=4)) is None
    assert partition.workflows == {}


def test_a_workflow_before_the_checkpoint_is_back_once_it_was_carried_over() -> None:
    partition = PartitionState(0, low=5)
    carried = Carried(4, 8, accepted("k"), (outcome(workflow=4),))
    state = partition.apply(6, carried)
    assert state is not None
    assert (state.position, state.first, state.id) == (4, 6, "0-4")
    assert state.outcome(STEP) is not None
    assert partition.find("Order", "k") is state
    assert partition.apply(7, finished(workflow=4)) is state


def test_a_workflow_is_accepted_once() -> None:
    partition = PartitionState(0)
    partition.apply(1, accepted())
    with pytest.raises(InvalidRecordError, match="0-1 is accepted twice"):
        partition.apply(1, accepted())


def test_the_low_position_is_where_the_oldest_unfinished_workflow_begins() -> None:
    partition = PartitionState(0)
    end = Position(100)
    assert partition.low(end) == 100
    for position in (3, 1, 2):
        partition.apply(position, accepted())
    assert partition.low(end) == 1
    partition.apply(4, finished(workflow=1))
    assert partition.low(end) == 2
    partition.apply(5, Carried(2, 8, accepted()))
    assert partition.low(end) == 3


def test_older_than_a_position_is_who_needs_a_record_before_it() -> None:
    partition = PartitionState(0)
    for position in (1, 2, 3):
        partition.apply(position, accepted())
    partition.apply(4, Carried(1, 8, accepted()))
    assert [state.position for state in partition.older_than(3)] == [2]
    assert [state.position for state in partition.older_than(5)] == [1, 2, 3]
    assert list(partition.older_than(2)) == []


# Keys.


def test_a_key_finds_its_workflow_while_it_runs_and_its_result_afterwards() -> None:
    partition = PartitionState(0)
    state = partition.apply(1, accepted("k"))
    assert partition.find("Order", "k") is state
    partition.apply(2, Finished(1, EndStatus.COMPLETED, b"\x07", 9))
    ended = Ended("Order", "k", Position(1), EndStatus.COMPLETED, b"\x07", 9)
    assert partition.find("Order", "k") == ended


def test_a_key_is_that_of_a_type() -> None:
    partition = PartitionState(0)
    partition.apply(1, accepted("k", "Order"))
    assert partition.find("Refund", "k") is None
    assert partition.find("Order", "") is None


def test_a_workflow_without_a_key_leaves_nothing_behind() -> None:
    partition = PartitionState(0)
    partition.apply(1, accepted())
    partition.apply(2, finished(workflow=1))
    assert partition.find("Order", "") is None
    assert partition._ended == {}


def test_a_key_that_was_used_again_finds_the_newer_workflow() -> None:
    partition = PartitionState(0)
    partition.apply(1, accepted("k"))
    partition.apply(2, finished(workflow=1))
    newer = partition.apply(3, accepted("k"))
    assert partition.find("Order", "k") is newer
    partition.apply(4, finished(workflow=3))
    found = partition.find("Order", "k")
    assert found is not None
    assert found.position == 3


def ended_keys(partition: PartitionState) -> list[str]:
    return [key for _, key in partition._ended]


def keyed(partition: PartitionState, start: int, *keys: tuple[str, int]) -> None:
    """Run a workflow for each key, finished at the moment beside it."""
    for position, (key, at) in enumerate(keys):
        partition.apply(start + 2 * position, accepted(key))
        partition.apply(
            start + 2 * position + 1, finished(workflow=start + 2 * position, at=at)
        )


def test_beyond_their_number_the_oldest_results_are_forgotten() -> None:
    partition = PartitionState(0, ended_max=2)
    keyed(partition, 0, ("a", 1), ("b", 2))
    assert ended_keys(partition) == ["a", "b"]
    keyed(partition, 10, ("c", 3), ("d", 4))
    assert ended_keys(partition) == ["c", "d"]


def test_results_are_forgotten_when_they_are_too_old() -> None:
    partition = PartitionState(0, ended_age_us_max=10)
    keyed(partition, 0, ("a", 1), ("b", 2), ("c", 11))
    assert ended_keys(partition) == ["a", "b", "c"]
    keyed(partition, 10, ("d", 12))
    assert ended_keys(partition) == ["b", "c", "d"]
    keyed(partition, 20, ("e", 1000))
    assert ended_keys(partition) == ["d", "e"]
    keyed(partition, 30, ("f", 1000))
    assert ended_keys(partition) == ["e", "f"]


def test_a_result_that_is_too_old_is_not_found_though_nothing_has_ended_since() -> None:
    partition = PartitionState(0, ended_age_us_max=10)
    keyed(partition, 0, ("a", 5))
    assert partition.find("Order", "a", 15) is not None
    assert partition.find("Order", "a", 16) is None
    assert partition.find("Order", "a", 15) is not None  # the clock was put right


def test_one_look_at_a_clock_far_ahead_does_not_cost_all_keys() -> None:
    partition = PartitionState(0, ended_age_us_max=10)
    keyed(partition, 0, *((f"k{n}", n) for n in range(8)))
    keyed(partition, 20, ("glitch", 1_000))
    keyed(partition, 30, ("after", 8))
    assert ended_keys(partition) == [*(f"k{n}" for n in range(2, 8)), "glitch", "after"]


def test_beyond_their_size_the_oldest_results_are_forgotten_but_never_the_newest() -> (
    None
):
    partition = PartitionState(0, ended_size_max=100)

    def end(position: int, key: str, size: int) -> None:
        partition.apply(position, accepted(key))
        value = bytes(size)
        partition.apply(
            position + 1, Finished(Position(position), EndStatus.COMPLETED, value, 1)
        )

    end(0, "a", 49)
    end(2, "b", 49)
    assert ended_keys(partition) == ["a", "b"]
    end(4, "a", 48)  # in its own place, not on top
    assert ended_keys(partition) == ["b", "a"]
    end(6, "c", 1)
    assert ended_keys(partition) == ["a", "c"]
    end(8, "large", 1_000)
    assert ended_keys(partition) == ["large"]
    end(10, "d", 10)
    assert ended_keys(partition) == ["d"]
    _, data = partition.encode_checkpoint(Position(12))
    again = PartitionState(0, ended=decode_checkpoint(data).ended, ended_size_max=20)
    again.apply(12, accepted("e"))
    again.apply(13, Finished(Position(12), EndStatus.COMPLETED, bytes(10), 1))
    assert ended_keys(again) == ["e"]


def test_nothing_is_remembered_if_nothing_may_be() -> None:
    partition = PartitionState(0, ended_max=0)
    keyed(partition, 0, ("a", 1))
    assert ended_keys(partition) == []


def test_a_key_that_is_used_again_is_the_newest() -> None:
    partition = PartitionState(0, ended_max=2)
    keyed(partition, 0, ("a", 1), ("b", 2), ("a", 3), ("c", 4))
    assert ended_keys(partition) == ["a", "c"]


# Checkpoints.


def test_a_checkpoint_says_where_to_read_from_and_what_ended() -> None:
    partition = PartitionState(0)
    keyed(partition, 0, ("a", 1), ("b", 2))
    partition.apply(4, accepted("c"))
    low, data = partition.encode_checkpoint(Position(5))
    checkpoint = decode_checkpoint(data)
    assert (low, checkpoint.low, checkpoint.end) == (4, 4, 5)
    assert checkpoint.ended == [
        Ended("Order", "a", Position(0), EndStatus.COMPLETED, b"\xc0", 1),
        Ended("Order", "b", Position(2), EndStatus.COMPLETED, b"\xc0", 2),
    ]


def test_a_checkpoint_is_stored_as_it_was_released() -> None:
    partition = PartitionState(0)
    assert partition.epoch == 0
    keyed(partition, 0, ("a", 1))
    _, data = partition.encode_checkpoint(Position(5))
    ended = ["Order", "a", 0, 0, b"\xc0", 1]
    assert msgspec.msgpack.decode(data) == [5, 5, [ended]]


def test_a_checkpoint_of_which_somebody_may_still_act_says_the_lease() -> None:
    partition = PartitionState(0)
    partition.apply(0, Claimed(1, "host a", 1, 20_000))
    _, data = partition.encode_checkpoint(Position(1))
    assert msgspec.msgpack.decode(data) == [1, 1, [], 20_000]
    partition.apply(1, Released(2))
    _, data = partition.encode_checkpoint(Position(2))
    assert msgspec.msgpack.decode(data) == [2, 2, []]


def recovered(
    data: bytes, records: Folded, *, ended_max: int = 100_000
) -> PartitionState:
    checkpoint = decode_checkpoint(data)
    partition = PartitionState(
        0,
        low=checkpoint.low,
        ended=checkpoint.ended,
        ended_before=checkpoint.end,
        ended_max=ended_max,
        lease_ms=checkpoint.lease_ms,
    )
    for position, record in records:
        if position >= checkpoint.low:
            partition.apply(position, record)
    return partition


def test_what_ended_after_the_checkpoint_is_behind_what_ended_before() -> None:
    partition = PartitionState(0)
    keyed(partition, 0, ("a", 1))
    _, data = partition.encode_checkpoint(Position(2))
    records: Folded = [(2, accepted("b")), (3, finished(workflow=2))]
    assert ended_keys(recovered(data, records)) == ["a", "b"]


def test_what_the_checkpoint_knows_is_not_pushed_out_by_what_is_read_again() -> None:
    """An old workflow pins the tail; so old results are read once more after newer."""
    records: Folded = [
        (0, accepted("newest")),
        (1, accepted()),
        (2, accepted("a")),
        (3, finished(workflow=2)),
        (4, accepted("b")),
        (5, finished(workflow=4)),
        (6, finished(workflow=0)),
    ]
    partition = PartitionState(0, ended_max=2)
    for position, record in records:
        partition.apply(position, record)
    assert ended_keys(partition) == ["b", "newest"]
    _, data = partition.encode_checkpoint(Position(7))
    again = recovered(data, records, ended_max=2)
    assert ended_keys(again) == ["b", "newest"]
    assert again.find("Order", "a") is None


# Any history.


def snapshot(partition: PartitionState) -> object:
    """Return everything that is known, in an order that a mistake would change."""
    return (
        {
            position: (copy.deepcopy(state), list(state.outcomes))
            for position, state in partition.workflows.items()
        },
        {key: state.position for key, state in partition._keys.items()},
        list(partition._ended.items()),
        partition.lease_ms,
    )


OFTEN = ["Accepted", "Finished COMPLETED", "Carried over"]
"""Beside one of each other record, eight of these, or little would ever end."""
choices = st.lists(
    st.tuples(st.sampled_from([*NEXT, *8 * OFTEN]), st.integers(0, 5)),
    min_size=20,
    max_size=60,
)


def history(drawn: list[tuple[str, int]], partition: PartitionState) -> Folded:
    """Make records of *drawn* and fold them in; skip what can't follow."""
    records: Folded = []
    for position, (name, which) in enumerate(drawn):
        open_ = list(partition.workflows.values())
        record = NEXT.get(name, RESUMED)
        if isinstance(record, Accepted):
            key = f"k{which}" if which else ""
            running = partition._keys.get(("Order", key))
            record = accepted(key if running is None else "")
        elif isinstance(record, Claimed):
            record = Claimed(position, "host a", 1, lease_ms=1000 * which)
        elif not isinstance(record, PartitionRecord):
            if not open_:
                continue
            state = open_[which % len(open_)]
            if name in {"Carried", "Carried over"}:
                record = state.carry(position)
            else:
                record = msgspec.structs.replace(record, workflow=state.position)
        try:
            partition.apply(position, record)
        except InvalidRecordError:
            continue
        records.append((position, record))
    return records


@given(choices)
def test_the_same_records_give_the_same_state(drawn: list[tuple[str, int]]) -> None:
    partition = PartitionState(0)
    records = history(drawn, partition)
    again = PartitionState(0)
    for position, record in records:
        again.apply(position, record)
    assert snapshot(again) == snapshot(partition)
    assert again.epoch == partition.epoch


@given(choices, st.integers(0, 10), st.integers(0, 3))
def test_recovered_from_any_checkpoint_is_what_was(
    drawn: list[tuple[str, int]], behind: int, ended_max: int
) -> None:
    cut = len(drawn) - behind
    before = PartitionState(0, ended_max=ended_max)
    history(drawn[:cut], before)
    _, data = before.encode_checkpoint(Position(cut))

    partition = PartitionState(0, ended_max=ended_max)
    records = history(drawn, partition)
    assert snapshot(recovered(data, records, ended_max=ended_max)) == (
        snapshot(partition)
    )


@given(choices)
def test_a_workflow_carried_over_needs_none_of_its_earlier_records(
    drawn: list[tuple[str, int]],
) -> None:
    partition = PartitionState(0)
    end = len(drawn)
    records = history(drawn, partition)
    carried: Folded = [
        (end + index, state.carry(1))
        for index, state in enumerate(partition.workflows.values())
    ]
    for position, record in carried:
        partition.apply(position, record)
    assert partition.low(Position(end)) == end
    _, data = partition.encode_checkpoint(Position(end + len(carried)))
    assert snapshot(recovered(data, records + carried)) == snapshot(partition)
