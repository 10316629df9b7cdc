"""The checker says of each kind of wrong history that it is wrong, and of a right one
nothing."""

from typing import Any

import msgspec
import pytest
from tests.simulation.checker import Checker
from tests.simulation.history import Event
from tests.simulation.services import Effect

from coordinator.model import Direction, EndStatus, OutcomeStatus
from coordinator.records import (
    Aborting,
    Accepted,
    Claimed,
    Finished,
    Outcome,
    Record,
    Started,
    Stuck,
)

KEY = "j/0-1/inventory.reserve/0"
REPLY = msgspec.msgpack.encode({"key": KEY, "number": 7})


class Script:
    """Writes a history of one order, as it should be; tests leave out or add."""

    def __init__(self, retry_us_min: int = 0) -> None:
        self.checker = Checker("j", retry_us_min)
        self.position = 0
        self.effects: list[Effect] = []

    def kinds(self) -> list[str]:
        self.checker.finish(self.effects, [])
        return [violation.kind for violation in self.checker.violations]

    def add(self, kind: str, **fields: Any) -> None:
        self.checker.follow([Event(0, 0, kind, fields)])

    def durable(self, *records: Record) -> None:
        entries = list(enumerate(records, self.position))
        self.position += len(records)
        self.add("journal.writing", records=entries)
        self.add("journal.durable", records=entries)

    def start(self) -> None:
        self.add("life.begin")
        self.add("journal.claimed", epoch=1)
        claim = Claimed(1, "us", 0)
        self.add("journal.read", since=0, epoch=1, records=[(0, claim)])
        self.position = 1

    def accept(self) -> None:
        self.add("submit.begin", order="o")
        payload = msgspec.msgpack.encode({"order": "o"})
        self.durable(Accepted("Linear", "msgpack", payload, 0, key="k"))
        self.add("submit.acked", order="o", workflow="0-1")

    def call(self, *, undo: bool = False) -> None:
        self.add(
            "call.begin",
            key=f"{KEY}/undo" if undo else KEY,
            workflow="0-1",
            step="inventory.reserve",
            occurrence=0,
            direction=int(undo),
            operation="release" if undo else "reserve",
            epoch=1,
            undoes=KEY if undo else "",
        )
        if undo and self.effects:
            self.effects[0].undone = True
        if not undo and not self.effects:
            self.effects.append(Effect(KEY, "0-1", "reserve", 7))

    def answer(self, *, undo: bool = False, fate: str = "done") -> None:
        self.add("call.end", key=f"{KEY}/undo" if undo else KEY, fate=fate)

    def outcome(self, *, undo: bool = False) -> None:
        direction = Direction.UNDO if undo else Direction.DO
        self.durable(Outcome(1, "inventory.reserve", 0, REPLY, 0, direction))

    def saw(self) -> None:
        self.add("exec.saw", key=KEY, number=7)

    def abort(self) -> None:
        self.durable(Aborting(1, "no", 0))

    def finish(self, status: EndStatus = EndStatus.COMPLETED) -> None:
        self.durable(Finished(1, status, msgspec.msgpack.encode(7), 0))

    def told(self, status: str = "completed", value: object = 7) -> None:
        self.add("result.seen", workflow="0-1", status=status, value=value)


@pytest.fixture
def script() -> Script:
    script = Script()
    script.start()
    return script


def run_forward(script: Script) -> None:
    script.accept()
    script.call()
    script.answer()
    script.outcome()
    script.saw()


def test_a_history_as_it_should_be(script: Script) -> None:
    run_forward(script)
    script.finish()
    script.told()
    script.told()
    assert script.kinds() == []


def test_a_compensation_as_it_should_be(script: Script) -> None:
    run_forward(script)
    script.abort()
    script.call(undo=True)
    script.answer(undo=True)
    script.outcome(undo=True)
    script.finish(EndStatus.COMPENSATED)
    script.told("refused", "no")
    assert script.kinds() == []


def test_an_unknown_call_may_be_repeated(script: Script) -> None:
    script.accept()
    script.call()
    script.answer(fate="unknown: lost")
    script.call()
    script.answer()
    script.outcome()
    script.finish()
    assert script.kinds() == []


def test_an_unknown_call_that_is_repeated_at_once() -> None:
    script = Script(retry_us_min=1000)
    script.start()
    script.accept()
    script.call()
    script.answer(fate="unknown: lost")
    script.call()
    script.answer()
    script.outcome()
    script.finish()
    assert script.kinds() == ["hurry"]


def test_an_acknowledged_record_that_is_gone(script: Script) -> None:
    script.accept()
    script.add("life.begin")
    script.add("journal.claimed", epoch=2)
    records = [(0, Claimed(1, "us", 0)), (1, Claimed(2, "us", 0))]
    script.add("journal.read", since=0, epoch=2, records=records)
    assert "lost" in script.kinds()


def test_an_acknowledgement_of_what_is_not_durable(script: Script) -> None:
    script.add("submit.begin", order="o")
    script.add("submit.acked", order="o", workflow="0-1")
    assert script.kinds() == ["unaccepted"]


def test_an_order_that_nobody_placed(script: Script) -> None:
    payload = msgspec.msgpack.encode({"order": "other"})
    script.durable(Accepted("Linear", "msgpack", payload, 0))
    assert script.kinds() == ["ghost", "unfinished"]


def test_a_record_that_nobody_wrote(script: Script) -> None:
    run_forward(script)
    script.add("life.begin")
    script.add("journal.claimed", epoch=2)
    records: list[tuple[int, Record]] = [
        (
            1,
            Accepted(
                "Linear", "msgpack", msgspec.msgpack.encode({"order": "o"}), 0, "k"
            ),
        ),
        (2, Outcome(1, "inventory.reserve", 0, REPLY, 0)),
        (3, Outcome(1, "payments.charge", 0, REPLY, 0)),
        (4, Claimed(2, "us", 0)),
    ]
    script.add("journal.read", since=1, epoch=2, records=records)
    assert script.kinds() == ["ghost", "unfinished"]


def test_a_step_that_is_called_again(script: Script) -> None:
    run_forward(script)
    script.call()
    script.answer()
    script.finish()
    assert script.kinds() == ["again"]


def test_a_step_that_is_called_twice_at_once(script: Script) -> None:
    script.accept()
    script.call()
    script.call()
    script.answer()
    script.outcome()
    script.finish()
    assert script.kinds() == ["again"]


def test_exec_that_goes_on_too_early(script: Script) -> None:
    script.accept()
    script.call()
    script.answer()
    script.saw()
    script.outcome()
    script.finish()
    assert script.kinds() == ["early"]


def test_a_result_that_is_told_too_early(script: Script) -> None:
    run_forward(script)
    script.told()
    script.finish()
    assert script.kinds() == ["early"]


def test_a_result_that_changes(script: Script) -> None:
    run_forward(script)
    script.finish()
    script.told(value=7)
    script.told(value=8)
    assert set(script.kinds()) == {"changed"}


def test_an_undo_before_the_decision(script: Script) -> None:
    run_forward(script)
    script.call(undo=True)
    script.answer(undo=True)
    script.abort()
    script.outcome(undo=True)
    script.finish(EndStatus.COMPENSATED)
    assert script.kinds() == ["undo"]


def test_a_decision_while_a_call_is_under_way(script: Script) -> None:
    script.accept()
    script.call()
    script.abort()
    assert "undo" in script.kinds()


def test_a_step_after_the_decision(script: Script) -> None:
    script.accept()
    script.abort()
    script.call()
    assert "forward" in script.kinds()


def test_a_step_of_a_stuck_workflow(script: Script) -> None:
    script.accept()
    script.durable(Stuck(1, "a bug", 0))
    script.call()
    assert "forward" in script.kinds()


def test_what_a_refused_order_leaves_behind(script: Script) -> None:
    script.accept()
    script.call()
    script.answer(fate="unknown: lost")
    script.abort()
    script.finish(EndStatus.COMPENSATED)
    assert script.kinds() == ["leftover"]


def test_what_a_completed_order_does_not_know(script: Script) -> None:
    script.accept()
    script.call()
    script.answer(fate="unknown: lost")
    script.finish()
    assert script.kinds() == ["unrecorded"]


def test_an_outcome_that_is_recorded_twice(script: Script) -> None:
    run_forward(script)
    script.outcome()
    script.finish()
    assert script.kinds() == ["state"]


def test_one_key_and_two_workflows(script: Script) -> None:
    script.accept()
    script.accept()
    assert script.kinds().count("twice") == 1


def test_an_order_that_never_ends(script: Script) -> None:
    run_forward(script)
    assert script.kinds() == ["unfinished"]


def test_a_refused_step_stands_for_nothing(script: Script) -> None:
    script.accept()
    script.call()
    script.effects.clear()
    script.answer(fate="refused")
    refused = OutcomeStatus.REFUSED
    script.durable(
        Outcome(1, "inventory.reserve", 0, REPLY, 0, Direction.DO, refused),
        Aborting(1, "no", 0),
    )
    script.finish(EndStatus.COMPENSATED)
    assert script.kinds() == []


def test_a_step_that_is_called_when_all_is_closed(script: Script) -> None:
    script.accept()
    script.add("life.closed")
    script.call()
    assert "forward" in script.kinds()


def test_a_step_that_is_called_when_its_workflow_has_ended(script: Script) -> None:
    script.accept()
    script.finish()
    script.call()
    assert script.kinds() == ["forward", "unrecorded"]


def cut_off(script: Script, type_: str) -> None:
    """Let a call be under way when the process dies, and never be made again."""
    script.add("submit.begin", order="o")
    payload = msgspec.msgpack.encode({"order": "o"})
    script.durable(Accepted(type_, "msgpack", payload, 0))
    script.call()
    script.add("life.begin")


@pytest.mark.parametrize(("type_", "kinds"), [("Fork", []), ("Branches", ["leftover"])])
def test_what_was_cut_off_may_stay_where_that_is_not_promised_and_nowhere_else(
    type_: str, kinds: list[str], script: Script
) -> None:
    cut_off(script, type_)
    script.abort()
    script.finish(EndStatus.COMPENSATED)
    assert script.kinds() == kinds


def test_what_was_cut_off_and_is_named_may_not_stay(script: Script) -> None:
    cut_off(script, "Fork")
    script.durable(Started(1, (("inventory.reserve", 0),), 0))
    script.abort()
    script.finish(EndStatus.COMPENSATED)
    assert script.kinds() == ["leftover"]


def test_what_was_cut_off_and_called_again_may_not_stay(script: Script) -> None:
    cut_off(script, "Fork")
    script.call()
    script.answer(fate="unknown: lost")
    script.abort()
    script.finish(EndStatus.COMPENSATED)
    assert script.kinds() == ["leftover"]


@pytest.mark.parametrize(
    ("type_", "ignored", "kinds"),
    [
        ("Leaky", ("inventory.reserve",), []),
        ("Leaky", (), ["unrecorded"]),
        ("Linear", ("inventory.reserve",), ["unrecorded"]),
    ],
)
def test_a_heedless_completion_has_to_own_up(
    type_: str, ignored: tuple[str, ...], kinds: list[str], script: Script
) -> None:
    cut_off(script, type_)
    completed = EndStatus.COMPLETED
    script.durable(Finished(1, completed, msgspec.msgpack.encode(7), 0, ignored))
    assert script.kinds() == kinds
