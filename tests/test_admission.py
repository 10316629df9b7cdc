"""Who may come in: the diagram in the module, edge by edge, and what it promises."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coordinator.admission import Admission

PROBES = 2
INTERVAL_S = 1.0
NOW_S = 100.0
LATER_S = NOW_S + INTERVAL_S


def suspended(*commands: str, service: str = "payments") -> Admission:
    """Return an admission in which *commands* wait for *service*, none trying."""
    admission = Admission(commands_max=100, probes=PROBES, interval_s=INTERVAL_S)
    for command in commands:
        admission.blocked(service, command)
    return admission


def trying(admission: Admission, service: str = "payments") -> set[object]:
    return set(admission.suspensions[service].trying)


# The doors.


def test_the_doors_are_open_at_first_and_for_as_many_as_may_be_in_memory() -> None:
    admission = Admission(commands_max=2, probes=PROBES, interval_s=INTERVAL_S)
    assert admission.count == 0
    assert admission.closed_to(None) == ""
    admission.count = 1
    assert admission.closed_to(None) == ""
    assert admission.closed_to_all == ""


def test_at_the_limit_nobody_comes_in_and_the_reason_says_so() -> None:
    admission = Admission(commands_max=2, probes=PROBES, interval_s=INTERVAL_S)
    for count in (2, 3):
        admission.count = count
        for services in (None, frozenset[str](), frozenset({"payments"})):
            assert admission.closed_to(services).startswith(f"{count} commands are in")
        assert admission.closed_to_all == admission.closed_to(None)


def test_what_a_step_offers_finds_as_many_places_again_but_no_suspended_service() -> (
    None
):
    admission = suspended("a")
    admission.count = 100
    assert admission.closed_to(frozenset(), nested=True) == ""
    assert admission.closed_to(None, nested=True) == "suspended: payments"
    admission.count = 200
    assert "the limit is reached" in admission.closed_to(frozenset(), nested=True)


def test_a_suspended_service_keeps_out_who_needs_it_and_who_does_not_say() -> None:
    admission = suspended("a")
    assert admission.closed_to(None) == "suspended: payments"
    assert admission.closed_to(frozenset({"payments", "x"})) == "suspended: payments"
    assert admission.closed_to(frozenset({"inventory"})) == ""
    assert admission.closed_to_all == ""


def test_the_reason_names_every_suspended_service_that_is_needed() -> None:
    admission = suspended("a", service="payments")
    admission.blocked("inventory", "a")
    admission.blocked("mail", "b")
    assert admission.closed_to(None) == "suspended: inventory, mail, payments"
    both = frozenset({"payments", "inventory"})
    assert admission.closed_to(both) == "suspended: inventory, payments"


# From open to suspended, and back.


def test_the_first_blocked_command_suspends_the_service() -> None:
    admission = suspended("a")
    assert list(admission.suspensions) == ["payments"]
    suspension = admission.suspensions["payments"]
    assert suspension.service == "payments"
    assert list(suspension.waiting) == ["a"]
    assert not suspension.answering
    assert suspension.allowance == PROBES


def test_blocked_again_it_stays_suspended_and_nobody_waits_twice() -> None:
    admission = suspended("a", "b", "a")
    assert list(admission.suspensions["payments"].waiting) == ["a", "b"]


def test_when_nobody_waits_for_it_the_doors_open() -> None:
    admission = suspended("a", "b")
    admission.left("a")
    assert admission.closed_to(None) != ""
    admission.left("b")
    assert admission.closed_to(None) == ""
    assert admission.suspensions == {}


def test_the_last_command_that_gets_through_opens_the_doors() -> None:
    admission = suspended("a", "b")
    assert admission.passed("payments", "a")
    assert admission.closed_to(None) != ""
    assert not admission.passed("payments", "b")
    assert admission.suspensions == {}


def test_what_a_service_says_while_it_is_not_suspended_changes_nothing() -> None:
    admission = suspended("a")
    assert not admission.passed("inventory", "a")
    assert list(admission.suspensions) == ["payments"]


# Trying.


def test_no_more_than_the_allowance_may_try_at_a_time() -> None:
    admission = suspended("a", "b", "c")
    assert [admission.try_or_park(command, NOW_S) for command in "abc"] == [
        True,
        True,
        False,
    ]
    assert trying(admission) == {"a", "b"}


def test_who_has_a_try_keeps_it_without_taking_another() -> None:
    admission = suspended("a", "b", "c")
    assert [admission.try_or_park(command, NOW_S) for command in "aab"] == [
        True,
        True,
        True,
    ]
    assert trying(admission) == {"a", "b"}


def test_a_command_that_waits_for_nothing_suspended_may_always_run() -> None:
    admission = suspended("a", "b", "c")
    assert admission.try_or_park("a", NOW_S)
    assert admission.try_or_park("b", NOW_S)
    assert admission.try_or_park("stranger", NOW_S)
    assert trying(admission) == {"a", "b"}
    assert Admission(commands_max=1, probes=PROBES, interval_s=INTERVAL_S).try_or_park(
        "stranger", NOW_S
    )


def test_a_try_that_is_over_is_free_for_another() -> None:
    admission = suspended("a", "b", "c")
    assert admission.try_or_park("a", NOW_S)
    assert admission.try_or_park("b", NOW_S)
    admission.tried("a")
    assert admission.try_or_park("c", LATER_S)
    assert trying(admission) == {"b", "c"}
    assert list(admission.suspensions["payments"].waiting) == ["a", "b", "c"]


def test_who_leaves_gives_its_try_back() -> None:
    admission = suspended("a", "b", "c")
    assert admission.try_or_park("a", NOW_S)
    assert admission.try_or_park("b", NOW_S)
    admission.left("a")
    assert admission.try_or_park("c", LATER_S)


def test_who_is_blocked_again_gives_its_try_back() -> None:
    admission = suspended("a", "b", "c")
    assert admission.try_or_park("a", NOW_S)
    assert admission.try_or_park("b", NOW_S)
    admission.blocked("payments", "a")
    assert trying(admission) == {"b"}
    assert admission.try_or_park("c", LATER_S)


def test_giving_back_what_nobody_took_is_nothing() -> None:
    admission = suspended("a")
    admission.tried("stranger")
    admission.left("stranger")
    assert list(admission.suspensions["payments"].waiting) == ["a"]


def test_who_waits_for_two_services_needs_a_try_of_each() -> None:
    admission = suspended("a", "b", "both")
    for command in ("both", "c", "d"):
        admission.blocked("inventory", command)
    assert admission.try_or_park("both", NOW_S)
    assert trying(admission) == {"both"}
    assert trying(admission, "inventory") == {"both"}


def test_who_gets_no_try_of_one_service_holds_none_of_another() -> None:
    admission = suspended("both", "a")
    for command in ("c", "d", "both"):
        admission.blocked("inventory", command)
    assert admission.try_or_park("c", NOW_S)
    assert admission.try_or_park("d", NOW_S)
    assert not admission.try_or_park("both", NOW_S)
    assert trying(admission) == set()


# Tries in a row, and those who wait for one.


def test_no_more_tries_begin_in_an_interval_than_are_allowed_at_a_time() -> None:
    admission = suspended("a", "b", "c", "d")
    assert admission.try_or_park("a", NOW_S)
    assert admission.try_or_park("b", NOW_S + 0.5)
    for command in "ab":
        admission.tried(command)
    assert not admission.try_or_park("c", LATER_S - 0.01)
    assert admission.try_or_park("c", LATER_S)
    assert not admission.try_or_park("d", LATER_S)
    assert admission.try_or_park("d", LATER_S + 0.5)


def test_a_service_that_answers_is_asked_as_fast_as_it_answers() -> None:
    admission = suspended(*"abcd")
    for command in "abc":
        admission.passed("payments", command)
        assert admission.try_or_park("d", NOW_S)
        admission.tried("d")


def test_who_finds_no_try_left_is_parked_and_taken_in_order() -> None:
    admission = suspended(*"abcde")
    assert [admission.try_or_park(c, NOW_S) for c in "abcde"] == [True] * 2 + [
        False
    ] * 3
    assert [admission.is_parked(c) for c in "abcde"] == [False] * 2 + [True] * 3
    assert list(admission.unpark(LATER_S)) == []
    admission.tried("a")
    assert list(admission.unpark(LATER_S)) == ["c"]
    assert trying(admission) == {"b", "c"}
    assert [admission.is_parked(c) for c in "cde"] == [False, True, True]


def test_when_the_next_may_try_is_known_if_it_is_a_matter_of_time() -> None:
    admission = suspended(*"abc")
    assert admission.unpark_s() is None
    for command in "abc":
        admission.try_or_park(command, NOW_S)
    assert admission.unpark_s() is None  # somebody has to give a try back
    admission.tried("a")
    assert admission.unpark_s() == LATER_S
    admission.passed("payments", "b")
    assert admission.unpark_s() == 0.0


def test_who_is_parked_for_one_service_may_be_parked_for_another_then() -> None:
    admission = suspended("a", "b", "both")
    for command in ("c", "d", "both"):
        admission.blocked("inventory", command)
    for command in "abcd":
        assert admission.try_or_park(command, NOW_S)
    assert not admission.try_or_park("both", NOW_S)
    admission.tried("a")
    assert list(admission.unpark(LATER_S)) == []
    assert list(admission.suspensions["payments"].parked) == []
    assert list(admission.suspensions["inventory"].parked) == ["both"]
    assert trying(admission) == {"b"}
    admission.tried("c")
    assert list(admission.unpark(LATER_S)) == ["both"]


def test_who_leaves_or_is_taken_out_is_parked_no_longer() -> None:
    admission = suspended(*"abcd")
    for command in "abcd":
        admission.try_or_park(command, NOW_S)
    admission.left("c")
    admission.take_out("d")
    admission.take_out("stranger")
    assert not admission.suspensions["payments"].parked
    assert list(admission.suspensions["payments"].waiting) == ["a", "b", "d"]


# Recovering.


def test_the_first_that_gets_through_is_told_to_be_the_first() -> None:
    admission = suspended("a", "b", "c")
    assert admission.passed("payments", "a")
    assert not admission.passed("payments", "b")
    assert list(admission.suspensions["payments"].waiting) == ["c"]


def test_each_that_gets_through_doubles_the_allowance() -> None:
    admission = suspended(*(f"c{number}" for number in range(100)))
    suspension = admission.suspensions["payments"]
    allowed: list[int] = []
    for number in range(4):
        admission.passed("payments", f"c{number}")
        allowed.append(suspension.allowance)
    assert allowed == [4, 8, 16, 32]


def test_the_allowance_does_not_grow_past_what_waits() -> None:
    admission = suspended("a", "b", "c")
    suspension = admission.suspensions["payments"]
    for _ in range(50):
        admission.passed("payments", "stranger")
    assert suspension.allowance == 2 * 3 + PROBES


def test_blocked_again_the_allowance_is_back_to_the_probes() -> None:
    admission = suspended(*(f"c{number}" for number in range(100)))
    suspension = admission.suspensions["payments"]
    admission.passed("payments", "c0")
    admission.passed("payments", "c1")
    admission.blocked("payments", "c2")
    assert suspension.allowance == PROBES
    assert not suspension.answering
    assert admission.passed("payments", "c3")  # the first once more
    assert suspension.allowance == 2 * PROBES


def test_a_service_suspended_anew_begins_with_the_probes() -> None:
    admission = suspended("a", "b")
    admission.passed("payments", "a")
    admission.passed("payments", "b")
    admission.blocked("payments", "c")
    assert admission.suspensions["payments"].allowance == PROBES
    assert not admission.suspensions["payments"].answering


# Any calls in any order.

SERVICES = ("payments", "inventory")
services = st.sampled_from(SERVICES)
commands = st.integers(0, 5)


class AdmissionMachine(RuleBasedStateMachine):
    """What the engine does, in any order, and what must hold in between."""

    def __init__(self) -> None:
        super().__init__()
        self.admission = Admission(
            commands_max=100, probes=PROBES, interval_s=INTERVAL_S
        )
        self.waiting: dict[str, set[int]] = {service: set() for service in SERVICES}
        self.trying: dict[str, set[int]] = {service: set() for service in SERVICES}
        self.now_s = NOW_S

    @rule(service=services, command=commands)
    def blocked(self, service: str, command: int) -> None:
        self.admission.blocked(service, command)
        self.waiting[service].add(command)
        self.trying[service].discard(command)

    @rule(seconds=st.sampled_from([0.1, INTERVAL_S]))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    @precondition(lambda self: bool(self.admission.suspensions))
    @rule()
    def unpark(self) -> None:
        parked = {c for c in range(6) if self.admission.is_parked(c)}
        for command in self.admission.unpark(self.now_s):
            assert isinstance(command, int)
            assert command in parked
            for service in SERVICES:
                if command in self.waiting[service]:
                    self.trying[service].add(command)
        next_s = self.admission.unpark_s()
        assert next_s is None or next_s > self.now_s

    @rule(command=commands)
    def try_or_park(self, command: int) -> None:
        mine = [service for service in SERVICES if command in self.waiting[service]]
        may = self.admission.try_or_park(command, self.now_s)
        if may:
            for service in mine:
                self.trying[service].add(command)
        else:
            assert self.admission.is_parked(command)
            assert any(command not in self.trying[service] for service in mine)

    @precondition(lambda self: bool(self.admission.suspensions))
    @rule(service=services, command=commands)
    def passed(self, service: str, command: int) -> None:
        self.admission.passed(service, command)
        self.waiting[service].discard(command)
        self.trying[service].discard(command)

    @rule(command=commands)
    def tried(self, command: int) -> None:
        self.admission.tried(command)
        for service in SERVICES:
            self.trying[service].discard(command)

    @rule(command=commands)
    def left(self, command: int) -> None:
        self.admission.left(command)
        for service in SERVICES:
            self.waiting[service].discard(command)
            self.trying[service].discard(command)

    @invariant()
    def suspended_is_what_somebody_waits_for(self) -> None:
        suspensions = self.admission.suspensions
        assert set(suspensions) == {s for s in SERVICES if self.waiting[s]}
        for service, suspension in suspensions.items():
            assert set(suspension.waiting) == self.waiting[service]
            assert suspension.trying == self.trying[service]
            assert suspension.trying <= set(suspension.waiting)
            assert set(suspension.parked) <= set(suspension.waiting)
            assert suspension.allowance >= PROBES
            assert suspension.answering or suspension.allowance == PROBES

    @invariant()
    def the_doors_are_open_when_nothing_is_suspended(self) -> None:
        assert (self.admission.closed_to(None) == "") is not any(self.waiting.values())


TestAnyCalls = AdmissionMachine.TestCase
TestAnyCalls.settings = settings(max_examples=60, stateful_step_count=50)
