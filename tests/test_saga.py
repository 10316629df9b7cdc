"""What a run of `exec` may do: each row of the module's table, in each mode."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.errors import CommandDelayed, ConcurrentStepsError, Refused
from coordinator.model import Direction, OutcomeStatus, Position, StepId
from coordinator.records import (
    Aborting,
    Accepted,
    Cancelled,
    Outcome,
    Record,
    Started,
)
from coordinator.saga import Answer, Attempt, Mode, Unwind, undo_plan
from coordinator.state import WorkflowState

HOLD = StepId("inventory.hold", 0)
CHARGE = StepId("payments.charge", 0)
BOOK = StepId("shipping.book", 0)

CANCELLED = Cancelled(0, "ann", "why", 1)
ABORTING = Aborting(0, "no stock", 1)


def outcome(
    step: StepId,
    status: OutcomeStatus = OutcomeStatus.DONE,
    direction: Direction = Direction.DO,
) -> Outcome:
    return Outcome(0, step.name, step.occurrence, b"\x01", 1, direction, status)


def started(*steps: StepId) -> Started:
    return Started(0, tuple((step.name, step.occurrence) for step in steps), 1)


def state_of(*records: Record) -> WorkflowState:
    accepted = Accepted("Order", "json", b"{}", 1)
    state = WorkflowState("0-0", Position(0), accepted, Position(0))  # type: ignore[arg-type]  # the id says nothing here
    for record in records:
        state.apply(record)
    return state


def attempt(*records: Record) -> Attempt:
    return Attempt(state_of(*records))


# The mode.


@pytest.mark.parametrize(
    ("records", "mode"),
    [
        ([], Mode.FORWARD),
        ([outcome(HOLD)], Mode.FORWARD),
        ([CANCELLED], Mode.CANCELLING),
        ([ABORTING], Mode.ABORTING),
        ([CANCELLED, ABORTING], Mode.ABORTING),
    ],
)
def test_what_a_run_is_for_follows_from_what_is_recorded(
    records: list[Record], mode: Mode
) -> None:
    run = attempt(*records)
    assert run.mode is mode
    assert run.turning is (mode is not Mode.FORWARD)
    assert run.asked == set()
    assert (run.closed, run.parked, run.unwound) == (False, False, False)


# The answers, row by row.

MODES: dict[Mode, list[Record]] = {
    Mode.FORWARD: [],
    Mode.CANCELLING: [CANCELLED],
    Mode.ABORTING: [ABORTING],
}
EVERY_MODE = pytest.mark.parametrize("mode", Mode)
EITHER = pytest.mark.parametrize("alone", [False, True])


@EITHER
@EVERY_MODE
@pytest.mark.parametrize("status", [OutcomeStatus.DONE, OutcomeStatus.REFUSED])
@pytest.mark.parametrize("parked", [False, True])
def test_what_is_recorded_is_replayed(
    mode: Mode, status: OutcomeStatus, parked: bool, alone: bool
) -> None:
    run = attempt(outcome(HOLD, status), *MODES[mode])
    if parked:
        run.park()
    assert run.answer(HOLD, alone=alone) is Answer.REPLAY
    assert not run.unwound


@EITHER
def test_what_exec_noted_itself_is_not_replayed_as_a_step(alone: bool) -> None:
    run = attempt(outcome(HOLD, OutcomeStatus.NOTED))
    assert run.answer(HOLD, alone=alone) is Answer.CALL


@EITHER
def test_forward_each_step_that_is_not_recorded_is_called(alone: bool) -> None:
    run = attempt(outcome(HOLD))
    assert run.answer(CHARGE, alone=alone) is Answer.CALL
    run.begin(CHARGE, alone=alone)
    assert run.answer(BOOK, alone=alone) is Answer.CALL
    assert not run.unwound


def test_cancelling_the_first_unknown_step_is_called_and_the_next_unwinds() -> None:
    run = attempt(outcome(HOLD), CANCELLED)
    assert run.answer(HOLD, alone=True) is Answer.REPLAY
    assert run.answer(CHARGE, alone=True) is Answer.CALL
    assert not run.unwound
    run.begin(CHARGE, alone=True)
    assert run.answer(BOOK, alone=True) is Answer.UNWIND
    assert run.unwound


def test_cancelling_in_the_first_run_of_all_nothing_is_called() -> None:
    run = Attempt(state_of(CANCELLED), first=True)
    assert run.answer(HOLD, alone=True) is Answer.UNWIND


def test_cancelling_a_step_of_another_task_is_called_only_if_a_started_names_it() -> (
    None
):
    run = attempt(started(CHARGE), CANCELLED)
    assert run.answer(HOLD, alone=False) is Answer.UNWIND
    assert run.answer(CHARGE, alone=False) is Answer.CALL


def test_cancelling_every_step_that_a_started_names_is_called() -> None:
    run = Attempt(state_of(started(CHARGE, BOOK), CANCELLED), first=True)
    assert run.answer(CHARGE, alone=True) is Answer.CALL
    run.begin(CHARGE, alone=True)
    assert run.answer(BOOK, alone=True) is Answer.CALL
    assert run.answer(HOLD, alone=True) is Answer.UNWIND


def test_aborting_nothing_is_called_whatever_a_started_names() -> None:
    run = attempt(started(CHARGE, BOOK), ABORTING)
    assert run.answer(CHARGE, alone=True) is Answer.UNWIND
    assert run.unwound


@EVERY_MODE
def test_parked_nothing_starts(mode: Mode) -> None:
    run = attempt(started(CHARGE, BOOK), *MODES[mode])
    run.park()
    assert run.parked
    assert run.turning
    assert run.answer(CHARGE, alone=True) is Answer.UNWIND
    assert run.unwound


@EVERY_MODE
def test_closed_nothing_goes_on_what_is_recorded_neither(mode: Mode) -> None:
    run = attempt(outcome(HOLD), *MODES[mode])
    run.close()
    assert run.answer(HOLD, alone=True) is Answer.UNWIND
    assert run.answer(CHARGE, alone=False) is Answer.UNWIND
    run.park()
    assert run.answer(BOOK, alone=True) is Answer.UNWIND
    assert not run.unwound
    assert run.asked == {HOLD, CHARGE, BOOK}


@pytest.mark.parametrize("first", [False, True])
def test_cancelled_in_mid_run_nothing_further_starts(first: bool) -> None:
    run = Attempt(state_of(), first=first)
    assert run.answer(HOLD, alone=True) is Answer.CALL
    run.cancel()
    assert run.mode is Mode.CANCELLING
    assert run.turning
    assert run.answer(CHARGE, alone=True) is Answer.UNWIND


def test_the_first_run_of_all_has_left_nothing_open() -> None:
    run = Attempt(state_of(), first=True)
    run.cancel()
    assert not run.doubtful


def test_a_re_run_is_doubtful_if_it_was_cancelled_before_exec_called_anything() -> None:
    run = attempt(outcome(HOLD))
    assert run.answer(HOLD, alone=True) is Answer.REPLAY
    run.begin(BOOK, alone=False)
    run.cancel()
    assert run.doubtful


def test_a_re_run_whose_exec_called_something_is_beyond_doubt() -> None:
    run = attempt(outcome(HOLD))
    run.begin(CHARGE, alone=True)
    run.cancel()
    assert not run.doubtful


def test_a_cancelled_run_is_doubtful_while_a_started_step_is_unknown() -> None:
    run = Attempt(state_of(started(HOLD, CHARGE)), first=True)
    run.answer(HOLD, alone=False)
    run.cancel()
    before = run.doubtful
    run.answer(CHARGE, alone=False)
    assert (before, run.doubtful) == (True, False)


def test_a_run_that_nobody_cancels_is_not_doubtful() -> None:
    assert not attempt(started(HOLD, CHARGE)).doubtful


def test_a_run_that_is_cancelling_from_its_start_is_never_doubtful() -> None:
    assert not attempt(started(HOLD, CHARGE), CANCELLED).doubtful


def test_a_run_that_already_turns_back_is_not_cancelled_again() -> None:
    with pytest.raises(AssertionError):
        attempt(CANCELLED).cancel()


def test_an_unwinding_step_passes_by_except_exception() -> None:
    assert not issubclass(Unwind, Exception)


# Numbers.


def number(run: Attempt, name: str) -> StepId:
    return run.number(StepId(name, 0))


def test_steps_of_one_name_are_numbered_from_nought() -> None:
    run = attempt()
    names = ["a", "b", "a", "a", "b"]
    assert [number(run, name) for name in names] == [
        StepId("a", 0),
        StepId("b", 0),
        StepId("a", 1),
        StepId("a", 2),
        StepId("b", 1),
    ]


def test_a_step_that_is_named_gives_its_number_back() -> None:
    run = attempt()
    step = number(run, "a")
    assert run.renumber(step, "b") == StepId("b", 0)
    assert number(run, "a") == StepId("a", 0)
    assert number(run, "b") == StepId("b", 1)


def test_a_step_that_is_named_as_it_was_keeps_its_number() -> None:
    run = attempt()
    number(run, "a")
    step = number(run, "a")
    assert run.renumber(step, "a") == step == StepId("a", 1)


def test_a_step_that_is_named_late_does_not_give_away_a_number_in_use() -> None:
    run = attempt()
    step = number(run, "a")
    later = number(run, "a")
    assert run.renumber(step, "b") == StepId("b", 0)
    assert number(run, "a") not in {step, later}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab?"))))
def test_no_two_steps_get_the_same_number(named: list[tuple[str, str]]) -> None:
    run = attempt()
    steps: list[StepId] = []
    for name, other in named:
        step = number(run, name)
        steps.append(step if other == "?" else run.renumber(step, other))
    assert len(set(steps)) == len(steps)
    for name in "ab":
        occurrences = sorted(s.occurrence for s in steps if s.name == name)
        assert occurrences == list(range(len(occurrences)))


# Calls, and which of them a `Started` names.


def test_a_call_for_which_exec_waits_alone_needs_no_started() -> None:
    run = attempt()
    assert run.begin(HOLD, alone=True) == ()
    run.end(HOLD)
    assert run.begin(CHARGE, alone=True) == ()


def test_every_call_of_another_task_is_named() -> None:
    run = attempt()
    assert run.begin(HOLD, alone=False) == (HOLD,)
    assert run.begin(CHARGE, alone=False) == (CHARGE,)


def test_the_call_of_exec_is_named_once_another_is_made_beside_it() -> None:
    run = attempt()
    assert run.begin(HOLD, alone=True) == ()
    assert run.begin(CHARGE, alone=False) == (HOLD, CHARGE)
    assert run.begin(BOOK, alone=False) == (BOOK,)


def test_the_call_of_exec_is_named_if_another_is_in_flight() -> None:
    run = attempt()
    run.begin(HOLD, alone=False)
    assert run.begin(CHARGE, alone=True) == (CHARGE,)
    assert run.begin(BOOK, alone=False) == (BOOK,)


def test_a_call_of_exec_that_is_over_is_not_named_any_more() -> None:
    run = attempt()
    run.begin(HOLD, alone=True)
    run.end(HOLD)
    assert run.begin(CHARGE, alone=False) == (CHARGE,)


def test_what_a_started_names_already_is_not_named_again() -> None:
    run = attempt(started(HOLD, CHARGE))
    assert run.begin(HOLD, alone=True) == ()
    assert run.begin(CHARGE, alone=False) == ()
    assert run.begin(BOOK, alone=False) == (BOOK,)


def test_two_steps_of_one_name_can_not_run_at_once() -> None:
    run = attempt()
    second = StepId(HOLD.name, 1)
    run.begin(HOLD, alone=True)
    with pytest.raises(ConcurrentStepsError) as caught:
        run.begin(second, alone=False)
    assert caught.value.step == HOLD.name
    run.end(second)  # which never began
    with pytest.raises(ConcurrentStepsError):
        run.begin(second, alone=False)
    run.end(HOLD)
    assert run.begin(second, alone=False) == (second,)


def test_a_call_that_is_over_may_be_over_twice() -> None:
    run = attempt()
    run.begin(HOLD, alone=True)
    run.end(HOLD)
    run.end(HOLD)
    assert run.begin(CHARGE, alone=True) == ()


# Outcomes that are held.


def test_an_outcome_is_held_until_what_was_started_before_it_was_asked_for() -> None:
    run = attempt(started(HOLD, CHARGE), outcome(HOLD), started(BOOK))
    run.answer(HOLD, alone=False)
    held = run.holds(HOLD)
    assert held is not None
    assert not run.released(held)
    run.answer(CHARGE, alone=False)
    assert run.released(held)
    assert run.holds(HOLD) is None


def test_what_was_started_behind_an_outcome_does_not_hold_it() -> None:
    run = attempt(outcome(HOLD), started(CHARGE))
    run.answer(HOLD, alone=False)
    assert run.holds(HOLD) is None


def test_an_outcome_that_comes_in_this_run_is_held_as_well() -> None:
    state = state_of(started(CHARGE))
    run = Attempt(state)
    run.answer(HOLD, alone=True)
    state.apply(outcome(HOLD))
    assert run.holds(HOLD) is not None


def test_what_is_waited_for_in_vain_holds_nothing_any_more() -> None:
    run = attempt(started(CHARGE), outcome(HOLD))
    run.answer(HOLD, alone=True)
    run.release()
    assert run.holds(HOLD) is None
    assert run.unknown() == [CHARGE]


def test_where_nothing_was_started_nothing_is_held() -> None:
    assert attempt(outcome(HOLD)).holds(HOLD) is None


def test_behind_the_end_of_exec_only_what_was_started_is_called_again() -> None:
    run = attempt(started(HOLD))
    run.ending = True
    assert run.answer(HOLD, alone=False) is Answer.CALL
    assert run.answer(CHARGE, alone=False) is Answer.UNWIND
    assert not run.unwound
    run.close()
    assert run.answer(HOLD, alone=False) is Answer.UNWIND


# What is not known, and what is not asked for.


def test_unknown_is_what_was_started_and_neither_recorded_nor_asked_for() -> None:
    run = attempt(started(HOLD, CHARGE), started(CHARGE, BOOK), outcome(HOLD))
    assert run.unknown() == [CHARGE, BOOK]
    run.answer(BOOK, alone=False)
    assert run.unknown() == [CHARGE]
    assert attempt(outcome(HOLD)).unknown() == []


def test_ignored_is_what_was_done_and_not_asked_for_in_the_order_of_the_journal() -> (
    None
):
    run = attempt(
        outcome(CHARGE),
        outcome(HOLD),
        outcome(BOOK, OutcomeStatus.REFUSED),
        outcome(StepId("note", 0), OutcomeStatus.NOTED),
        ABORTING,
        outcome(CHARGE, direction=Direction.UNDO),
    )
    assert run.ignored() == [CHARGE, HOLD]
    run.answer(CHARGE, alone=True)
    assert run.ignored() == [HOLD]
    run.answer(HOLD, alone=True)
    assert run.ignored() == []


# Refusals.


def test_a_refusal_is_one_and_an_accident_is_none() -> None:
    refusal = Refused("no")
    run = attempt()
    assert run.refusal_in(refusal) is refusal
    assert run.refusal_in(ValueError("bug")) is None
    assert run.refusal_in(CommandDelayed("nobody knows")) is None


def test_a_group_of_nothing_but_refusals_is_a_refusal() -> None:
    refusal = Refused("no")
    group = ExceptionGroup("outer", [ExceptionGroup("inner", [refusal])])
    assert attempt().refusal_in(group) is refusal


@pytest.mark.parametrize(
    "beside", [ValueError("bug"), CommandDelayed("nobody knows"), KeyboardInterrupt()]
)
def test_a_group_with_anything_else_in_it_is_no_refusal(beside: BaseException) -> None:
    deep = BaseExceptionGroup("inner", [beside])
    assert attempt().refusal_in(BaseExceptionGroup("", [Refused("no"), deep])) is None


def test_of_several_refusals_it_is_the_one_recorded_first() -> None:
    statuses = [outcome(step, OutcomeStatus.REFUSED) for step in (CHARGE, HOLD, BOOK)]
    run = attempt(*statuses)
    refusals = {step: Refused(step.name) for step in (HOLD, CHARGE, BOOK)}
    for step, refusal in refusals.items():
        run.refused(step, refusal)
    for order in itertools.permutations(refusals.values()):
        assert run.refusal_in(ExceptionGroup("", list(order))) is refusals[CHARGE]


def test_a_refusal_that_exec_raised_itself_comes_before_those_of_services() -> None:
    run = attempt(outcome(HOLD, OutcomeStatus.REFUSED))
    told, own = Refused("told"), Refused("own")
    run.refused(HOLD, told)
    assert run.refusal_in(ExceptionGroup("", [told, own])) is own


# Undoing.


def test_undone_is_what_stands_last_finished_first() -> None:
    state = state_of(
        outcome(CHARGE),
        outcome(HOLD),
        outcome(StepId("mail.send", 0)),
        outcome(StepId("map.find", 0), OutcomeStatus.REFUSED),
        outcome(BOOK),
        ABORTING,
        outcome(BOOK, direction=Direction.UNDO),
    )
    undoable = {HOLD, CHARGE, BOOK, StepId("map.find", 0), StepId("never.asked", 0)}
    assert undo_plan(state, undoable) == [HOLD, CHARGE]
    assert undo_plan(state, ()) == []


@given(st.permutations([HOLD, CHARGE, BOOK]), st.sets(st.sampled_from([HOLD, BOOK])))
def test_the_plan_is_the_journal_backwards_without_what_has_no_undo(
    order: list[StepId], undoable: set[StepId]
) -> None:
    state = state_of(*(outcome(step) for step in order))
    plan = [step for step in reversed(order) if step in undoable]
    assert undo_plan(state, undoable) == plan
