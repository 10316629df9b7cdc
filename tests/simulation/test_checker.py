"""The checker says of each kind of wrong history that it is wrong, and of a right one
nothing."""

from typing import Any

import msgspec
import pytest
from tests.simulation.admitted import Bounds
from tests.simulation.checker import NAMED_WITHIN, Checker
from tests.simulation.history import Event
from tests.simulation.services import Effect
from tests.simulation.shop import GatewayPlan

from cmdstream.breaker import BreakerOptions
from coordinator.model import Direction, EndStatus, OutcomeStatus, Retry
from coordinator.records import (
    Aborting,
    Accepted,
    Claimed,
    Finished,
    Held,
    Outcome,
    Record,
    Released,
    Resumed,
    Started,
    Stuck,
)

KEY = "j/0-1/inventory.reserve/0"
REPLY = msgspec.msgpack.encode({"key": KEY, "number": 7})


class Script:
    """Writes a history of one order, as it should be; tests leave out or add."""

    def __init__(
        self,
        policy: Retry = Retry(first_s=1e-9, longest_s=1.0),  # noqa: B008 -- frozen
        bounds: Bounds | None = None,
        gateway: GatewayPlan | None = None,
    ) -> None:
        self.checker = Checker("j", [policy], bounds, gateway)
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

    def find_blocked(self) -> None:
        """Have another step of the order say that its service is blocked."""
        key = "j/0-1/payments.charge/0"
        self.add(
            "call.begin",
            key=key,
            workflow="0-1",
            step="payments.charge",
            occurrence=0,
            direction=0,
            operation="charge",
            epoch=1,
            undoes="",
        )
        self.add("call.end", key=key, fate="unknown: CommandBlocked('payments')")

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


def test_an_owner_that_says_that_it_is_there_and_lets_go(script: Script) -> None:
    run_forward(script)
    script.durable(Held(0))
    script.finish()
    script.durable(Released(0), Claimed(2, "us", 0))
    script.durable(Held(0))
    assert script.kinds() == []


def test_an_owner_that_goes_on_behind_its_release(script: Script) -> None:
    script.durable(Released(0), Held(0))
    assert script.kinds() == ["state"]


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
    script = Script(Retry(first_s=0.01))
    script.start()
    script.accept()
    script.call()
    script.answer(fate="unknown: lost")
    script.call()
    script.answer()
    script.outcome()
    script.finish()
    assert script.kinds() == ["hurry"]


def test_an_unknown_call_that_is_repeated_as_soon_as_a_service_answers() -> None:
    script = Script(Retry(first_s=0.01))
    script.start()
    script.accept()
    script.call()
    script.answer(fate="unknown: lost")
    script.find_blocked()
    script.find_blocked()
    assert script.checker.violations == []
    script.call()
    assert [one.kind for one in script.checker.violations] == ["hurry"]


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


@pytest.mark.parametrize(("dies", "kinds"), [(True, []), (False, ["leftover"])])
def test_what_was_cancelled_before_the_process_died_counts_as_cut_off(
    dies: bool, kinds: list[str], script: Script
) -> None:
    script.add("submit.begin", order="o")
    payload = msgspec.msgpack.encode({"order": "o"})
    script.durable(Accepted("Fork", "msgpack", payload, 0))
    script.call()
    script.answer(fate="cancelled")
    if dies:
        script.add("life.begin")
    script.abort()
    script.finish(EndStatus.COMPENSATED)
    assert script.kinds() == kinds


@pytest.mark.parametrize(
    ("durable", "kinds"), [(False, []), (True, ["state", "leftover"])]
)
def test_what_was_answered_counts_as_cut_off_until_its_outcome_is_durable(
    durable: bool, kinds: list[str], script: Script
) -> None:
    script.add("submit.begin", order="o")
    payload = msgspec.msgpack.encode({"order": "o"})
    script.durable(Accepted("Fork", "msgpack", payload, 0))
    script.call()
    script.answer()
    if durable:
        script.outcome()
    script.add("life.begin")
    script.abort()
    script.finish(EndStatus.COMPENSATED)
    assert script.kinds() == kinds


@pytest.mark.parametrize(
    ("batches", "kinds"), [(NAMED_WITHIN - 1, []), (NAMED_WITHIN, ["leftover"])]
)
def test_what_ended_unknown_counts_as_cut_off_until_it_must_be_named(
    batches: int, kinds: list[str], script: Script
) -> None:
    script.add("submit.begin", order="o")
    payload = msgspec.msgpack.encode({"order": "o"})
    script.durable(Accepted("Fork", "msgpack", payload, 0))
    script.call()
    script.answer(fate="unknown: lost")
    for _ in range(batches):
        script.durable()
    script.add("life.begin")
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


def test_a_process_that_knows_nothing_of_what_is_unfinished(script: Script) -> None:
    script.accept()
    script.add("started", workflows=["0-1"])
    assert script.checker.violations == []
    script.add("started", workflows=[])
    assert script.kinds()[0] == "forgotten"


def test_a_client_that_waits_when_all_has_ended(script: Script) -> None:
    script.add("clients.left", waiting=1)
    assert script.kinds() == []
    script.add("healed")
    script.add("clients.left", waiting=1)
    assert script.kinds() == ["unfinished"]


def test_an_operator_who_is_answered_too_early(script: Script) -> None:
    script.accept()
    script.add("operator.done", workflow="0-1", what="cancel")
    assert script.kinds()[0] == "early"


def accepted(order: str, key: str = "", at: int = 0) -> Accepted:
    payload = msgspec.msgpack.encode({"order": order})
    return Accepted("Linear", "msgpack", payload, at, key=key)


def offered(script: Script, *orders: str) -> None:
    for order in orders:
        script.add("submit.begin", order=order)


def ended(workflow: int, value: str = "", at: int = 0) -> Finished:
    data = msgspec.msgpack.encode(value)
    return Finished(workflow, EndStatus.COMPLETED, data, at)


def test_who_was_offered_later_comes_in_first(script: Script) -> None:
    offered(script, "a", "b", "c")
    script.durable(accepted("a"), accepted("c"))
    assert script.checker.violations == []
    script.durable(accepted("b"))
    assert script.kinds()[0] == "order"


def test_more_come_in_than_may_be_in_memory() -> None:
    script = Script(bounds=Bounds(commands_max=1))
    script.start()
    offered(script, "a", "b", "c")
    script.durable(accepted("a"), ended(1), accepted("b"))
    assert script.checker.violations == []
    script.durable(accepted("c"))
    assert script.kinds()[0] == "bound"


def test_what_is_stuck_takes_no_place_until_it_goes_on() -> None:
    script = Script(bounds=Bounds(commands_max=1))
    script.start()
    offered(script, "a", "b", "c")
    script.durable(accepted("a"), Stuck(1, "why", 0), accepted("b"), ended(3))
    assert script.checker.violations == []
    script.durable(Resumed(1, "ops", 0), accepted("c"))
    assert script.kinds()[0] == "bound"


@pytest.mark.parametrize(
    ("bounds", "kinds"),
    [
        (Bounds(), ["twice"]),
        (Bounds(keys_max=1), []),
        (Bounds(keys_max=2), ["twice"]),
        (Bounds(keys_size_max=10), []),
        (Bounds(keys_age_us=5), []),
        (Bounds(keys_age_us=50), ["twice"]),
    ],
)
def test_a_key_may_be_forgotten_only_for_a_reason(
    bounds: Bounds, kinds: list[str]
) -> None:
    script = Script(bounds=bounds)
    script.start()
    offered(script, "a", "b")
    script.durable(accepted("a", "key"), ended(1, "a long one"))
    script.durable(accepted("b", "other"), ended(3, "a long one"))
    script.durable(accepted("a", "key", at=20), ended(5, at=20))
    assert script.kinds() == kinds


def test_a_checkpoint_that_keeps_more_than_it_may() -> None:
    script = Script(bounds=Bounds(keys_max=2, keys_size_max=100))
    script.start()
    script.add("journal.checkpoint", kept=2, kept_size=100)
    script.add("journal.checkpoint", kept=1, kept_size=1000)
    assert script.checker.violations == []
    script.add("journal.checkpoint", kept=3, kept_size=10)
    script.add("journal.checkpoint", kept=2, kept_size=101)
    assert script.kinds() == ["bound", "bound"]


GATEWAY = GatewayPlan(1.0, 2, 0.0, BreakerOptions(calls_min=1, trials_max=1))


@pytest.fixture
def gate() -> Script:
    script = Script(gateway=GATEWAY)
    script.start()
    script.accept()
    script.outcome()
    script.finish()
    return script


def passes(script: Script, call: int, now_s: float) -> None:
    script.add("gate.passes", call=call, now_s=now_s)


def ends(script: Script, call: int, now_s: float, fate: str) -> None:
    script.add("gate.ends", call=call, now_s=now_s, fate=fate)


def test_a_circuit_as_it_should_be(gate: Script) -> None:
    passes(gate, 0, 0.0)
    passes(gate, 1, 0.1)
    ends(gate, 0, 0.2, "failure")  # opens it until 1.2
    gate.add("gate.turns_away", workflow="0-1", now_s=0.3)
    ends(gate, 1, 0.4, "success")  # of the period before
    passes(gate, 2, 1.3)
    gate.add("gate.turns_away", workflow="0-1", now_s=1.3)
    ends(gate, 2, 1.4, "success")
    passes(gate, 3, 1.5)
    ends(gate, 3, 1.6, "success")  # closes it
    passes(gate, 4, 1.7)
    passes(gate, 5, 1.7)
    assert gate.kinds() == []


def test_an_open_circuit_that_lets_a_call_through(gate: Script) -> None:
    passes(gate, 0, 0.0)
    ends(gate, 0, 0.2, "failure")
    passes(gate, 1, 1.1)
    assert gate.kinds() == ["breaker"]


def test_a_second_trial_beside_the_first(gate: Script) -> None:
    passes(gate, 0, 0.0)
    ends(gate, 0, 0.2, "failure")
    passes(gate, 1, 1.3)
    passes(gate, 2, 1.3)
    assert gate.kinds() == ["breaker"]


def test_a_trial_that_failed_opens_it_for_longer(gate: Script) -> None:
    passes(gate, 0, 0.0)
    ends(gate, 0, 0.2, "failure")
    passes(gate, 1, 1.3)
    ends(gate, 1, 1.4, "failure")  # until 3.4
    passes(gate, 2, 3.3)
    assert gate.kinds() == ["breaker"]


@pytest.mark.parametrize("now_s", [0.0, 1.25])
def test_a_call_that_is_turned_away_for_nothing(gate: Script, now_s: float) -> None:
    if now_s:
        passes(gate, 0, 0.0)
        ends(gate, 0, 0.2, "failure")
    gate.add("gate.turns_away", workflow="0-1", now_s=now_s)
    assert gate.kinds() == ["breaker"]


def test_more_calls_than_may_be_under_way(gate: Script) -> None:
    for call in range(3):
        passes(gate, call, 0.0)
    assert gate.kinds() == ["bound"]


def test_nothing_is_called_of_what_came_in_while_the_process_drained(
    script: Script,
) -> None:
    script.add("life.drains")
    script.accept()
    script.call()
    assert "forward" in script.kinds()


def test_whoever_came_in_before_may_call_while_the_process_drains(
    script: Script,
) -> None:
    script.accept()
    script.add("life.drains")
    script.call()
    assert "forward" not in script.kinds()


def test_nobody_may_wait_for_a_coordinator_that_was_closed(script: Script) -> None:
    script.add("clients.left", waiting=1)
    assert script.checker.violations == []
    script.add("life.closed")
    script.add("clients.left", waiting=0)
    assert script.checker.violations == []
    script.add("clients.left", waiting=1)
    assert script.kinds() == ["unfinished"]


@pytest.mark.parametrize(
    ("error", "tries", "kinds"),
    [
        ("ValueError()", 2, []),
        ("ValueError()", 3, ["endless"]),
        ("CommandDelayed('busy')", 3, []),
        ("CommandBlocked('shipping')", 3, []),
    ],
)
@pytest.mark.parametrize("undo", [False, True])
def test_a_call_is_made_no_more_often_than_its_policy_says(
    error: str, tries: int, kinds: list[str], undo: bool
) -> None:
    script = Script(Retry(first_s=1e-9, longest_s=1.0, attempts_max=2))
    script.start()
    if undo:
        run_forward(script)
        script.abort()
    else:
        script.accept()
    for _ in range(tries):
        script.call(undo=undo)
        script.answer(undo=undo, fate=f"unknown: {error}")
    assert [one.kind for one in script.checker.violations] == kinds


def test_a_person_may_have_an_undo_tried_again() -> None:
    script = Script(Retry(first_s=1e-9, longest_s=1.0, attempts_max=1))
    script.start()
    run_forward(script)
    script.abort()
    script.call(undo=True)
    script.answer(undo=True, fate="unknown: ValueError()")
    script.add("operator.retry", workflow="0-1")
    script.call(undo=True)
    assert script.checker.violations == []
