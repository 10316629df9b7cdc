"""Who may come in: the diagram in the module, edge by edge, and what it promises."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from coordinator.admission import Admission

PROBES = 2


def suspended(*commands: str, service: str = "payments") -> Admission:
    """Return an admission in which *commands* wait for *service*, none trying."""
    admission = Admission(commands_max=100, probes=PROBES)
    for command in commands:
        admission.blocked(service, command)
    return admission


def trying(admission: Admission, service: str = "payments") -> set[object]:
    return set(admission.suspensions[service].trying)


# The doors.


def test_the_doors_are_open_at_first_and_for_as_many_as_may_be_in_memory() -> None:
    admission = Admission(commands_max=2, probes=PROBES)
    assert admission.count == 0
    assert admission.closed_to(None) == ""
    admission.count = 1
    assert admission.closed_to(None) == ""
    assert admission.closed_to_all == ""


def test_at_the_limit_nobody_comes_in_and_the_reason_says_so() -> None:
    admission = Admission(commands_max=2, probes=PROBES)
    for count in (2, 3):
        admission.count = count
        for services in (None, frozenset[str](), frozenset({"payments"})):
            assert admission.closed_to(services).startswith(f"{count} commands are in")
        assert admission.closed_to_all == admission.closed_to(None)


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
    assert not admission.is_answering("a")


# Trying.


def test_no_more_than_the_allowance_may_try_at_a_time() -> None:
    admission = suspended("a", "b", "c")
    assert [admission.may_try(command) for command in "abc"] == [True, True, False]
    assert trying(admission) == {"a", "b"}


def test_who_has_a_try_keeps_it_without_taking_another() -> None:
    admission = suspended("a", "b", "c")
    assert [admission.may_try(command) for command in "aab"] == [True, True, True]
    assert trying(admission) == {"a", "b"}


def test_a_command_that_waits_for_nothing_suspended_may_always_run() -> None:
    admission = suspended("a", "b", "c")
    assert admission.may_try("a")
    assert admission.may_try("b")
    assert admission.may_try("stranger")
    assert trying(admission) == {"a", "b"}
    assert Admission(commands_max=1, probes=PROBES).may_try("stranger")


def test_a_try_that_is_over_is_free_for_another() -> None:
    admission = suspended("a", "b", "c")
    assert admission.may_try("a")
    assert admission.may_try("b")
    admission.tried("a")
    assert admission.may_try("c")
    assert trying(admission) == {"b", "c"}
    assert list(admission.suspensions["payments"].waiting) == ["a", "b", "c"]


def test_who_leaves_gives_its_try_back() -> None:
    admission = suspended("a", "b", "c")
    assert admission.may_try("a")
    assert admission.may_try("b")
    admission.left("a")
    assert admission.may_try("c")


def test_who_is_blocked_again_gives_its_try_back() -> None:
    admission = suspended("a", "b", "c")
    assert admission.may_try("a")
    assert admission.may_try("b")
    admission.blocked("payments", "a")
    assert trying(admission) == {"b"}
    assert admission.may_try("c")


def test_giving_back_what_nobody_took_is_nothing() -> None:
    admission = suspended("a")
    admission.tried("stranger")
    admission.left("stranger")
    assert list(admission.suspensions["payments"].waiting) == ["a"]


def test_who_waits_for_two_services_needs_a_try_of_each() -> None:
    admission = suspended("a", "b", "both")
    for command in ("both", "c", "d"):
        admission.blocked("inventory", command)
    assert admission.may_try("both")
    assert trying(admission) == {"both"}
    assert trying(admission, "inventory") == {"both"}


def test_who_gets_no_try_of_one_service_holds_none_of_another() -> None:
    admission = suspended("both", "a")
    for command in ("c", "d", "both"):
        admission.blocked("inventory", command)
    assert admission.may_try("c")
    assert admission.may_try("d")
    assert not admission.may_try("both")
    assert trying(admission) == set()


# Recovering.


def test_the_first_that_gets_through_is_told_to_be_the_first() -> None:
    admission = suspended("a", "b", "c")
    assert admission.passed("payments", "a")
    assert not admission.passed("payments", "b")
    assert list(admission.suspensions["payments"].waiting) == ["c"]


def test_a_service_answers_those_who_wait_for_nothing_else() -> None:
    admission = suspended("a", "b", "both")
    admission.blocked("inventory", "both")
    assert not admission.is_answering("b")
    admission.passed("payments", "a")
    assert admission.is_answering("b")
    assert not admission.is_answering("both")
    assert not admission.is_answering("a")  # it waits no longer


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
        self.admission = Admission(commands_max=100, probes=PROBES)
        self.waiting: dict[str, set[int]] = {service: set() for service in SERVICES}
        self.trying: dict[str, set[int]] = {service: set() for service in SERVICES}

    @rule(service=services, command=commands)
    def blocked(self, service: str, command: int) -> None:
        self.admission.blocked(service, command)
        self.waiting[service].add(command)
        self.trying[service].discard(command)

    @rule(command=commands)
    def may_try(self, command: int) -> None:
        mine = [service for service in SERVICES if command in self.waiting[service]]
        room = all(
            command in self.trying[service]
            or len(self.trying[service]) < self.admission.suspensions[service].allowance
            for service in mine
        )
        assert self.admission.may_try(command) is room
        if room:
            for service in mine:
                self.trying[service].add(command)

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
            assert suspension.allowance >= PROBES
            assert suspension.answering or suspension.allowance == PROBES

    @invariant()
    def the_doors_are_open_when_nothing_is_suspended(self) -> None:
        assert (self.admission.closed_to(None) == "") is not any(self.waiting.values())


TestAnyCalls = AdmissionMachine.TestCase
TestAnyCalls.settings = settings(max_examples=60, stateful_step_count=50)
