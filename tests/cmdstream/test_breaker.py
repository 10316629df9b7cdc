from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from cmdstream.breaker import (
    Breaker,
    BreakerOptions,
    BreakerState,
    Ticket,
)

OPTIONS = BreakerOptions(
    window_s=4,
    buckets=4,
    failure_rate=0.5,
    calls_min=4,
    open_first_s=2,
    open_factor=2,
    open_longest_s=8,
    trials_max=2,
    trials_to_close=3,
)


def admitted(breaker: Breaker, now_s: float) -> Ticket:
    ticket = breaker.admit(now_s)
    assert ticket is not None
    return ticket


def state_of(breaker: Breaker) -> BreakerState:
    """Return its state; a call, so that mypy does not take it for unchanged."""
    return breaker.state


def opened(now_s: float = 0.0) -> Breaker:
    """Return a breaker that four failures have opened at *now_s*."""
    breaker = Breaker(OPTIONS)
    for _ in range(OPTIONS.calls_min):
        breaker.failed(admitted(breaker, now_s), now_s, "HTTP 503")
    assert state_of(breaker) is BreakerState.OPEN
    return breaker


def test_fewer_calls_than_the_minimum_never_open_it() -> None:
    breaker = Breaker(OPTIONS)
    for _ in range(OPTIONS.calls_min - 1):
        breaker.failed(admitted(breaker, 0), 0)
    assert state_of(breaker) is BreakerState.CLOSED


def test_a_rate_below_the_limit_does_not_open_it_and_the_limit_does() -> None:
    breaker = Breaker(OPTIONS)
    for _ in range(100):
        breaker.succeeded(admitted(breaker, 0), 0)
    for _ in range(99):
        breaker.failed(admitted(breaker, 0), 0)
    assert state_of(breaker) is BreakerState.CLOSED
    breaker.failed(admitted(breaker, 0), 0)
    assert state_of(breaker) is BreakerState.OPEN


def test_failures_that_left_the_window_do_not_count() -> None:
    breaker = Breaker(OPTIONS)
    for _ in range(3):
        breaker.failed(admitted(breaker, 0.5), 0.5)
    breaker.failed(admitted(breaker, 4.1), 4.1)
    assert state_of(breaker) is BreakerState.CLOSED
    assert breaker.snapshot(4.1).failures == 1
    assert breaker.snapshot(1e9).calls == 0


def test_the_window_forgets_one_bucket_at_a_time() -> None:
    breaker = Breaker(OPTIONS)
    for second in range(4):
        breaker.succeeded(admitted(breaker, second), second)
    counts = [breaker.snapshot(now_s).calls for now_s in (3.9, 4.0, 5.0, 6.9, 7.0)]
    assert counts == [4, 3, 2, 1, 0]


def test_a_clock_that_goes_back_counts_into_the_bucket_it_was_in() -> None:
    breaker = Breaker(OPTIONS)
    breaker.succeeded(admitted(breaker, 9), 9)
    breaker.succeeded(admitted(breaker, 2), 2)
    assert breaker.snapshot(9).calls == 2


def test_while_open_no_call_passes() -> None:
    breaker = opened(10)
    assert breaker.admit(10) is None
    assert breaker.turn_away(11.99)
    assert breaker.open_left_s(11) == 1
    assert breaker.snapshot(11).turned_away == 2


def test_only_an_open_circuit_turns_away_who_would_queue_for_a_trial() -> None:
    breaker = opened()
    assert not breaker.turn_away(2)
    assert breaker.admit(2) is not None
    assert not breaker.turn_away(2)
    assert not Breaker(OPTIONS).turn_away(0)
    assert breaker.snapshot(2).turned_away == 0


def test_half_open_lets_its_quota_pass_and_no_more() -> None:
    breaker = opened()
    assert [breaker.admit(2) is not None for _ in range(4)] == [
        True,
        True,
        False,
        False,
    ]
    assert state_of(breaker) is BreakerState.HALF_OPEN


def test_enough_successes_close_it_and_its_past_is_forgotten() -> None:
    breaker = opened()
    for _ in range(OPTIONS.trials_to_close):
        assert state_of(breaker) is not BreakerState.CLOSED
        breaker.succeeded(admitted(breaker, 2), 2)
    assert state_of(breaker) is BreakerState.CLOSED
    breaker.failed(admitted(breaker, 2), 2)
    assert state_of(breaker) is BreakerState.CLOSED


def test_one_failed_trial_opens_it_again_for_longer_up_to_the_cap() -> None:
    breaker, now_s, open_times_s = opened(), 0.0, list[float]()
    for _ in range(4):
        now_s += breaker.open_left_s(now_s)
        breaker.failed(admitted(breaker, now_s), now_s)
        open_times_s.append(breaker.open_left_s(now_s))
    assert open_times_s == [4, 8, 8, 8]


def test_a_closing_makes_the_next_opening_short_again() -> None:
    breaker = opened()
    breaker.failed(admitted(breaker, 2), 2)
    for _ in range(OPTIONS.trials_to_close):
        breaker.succeeded(admitted(breaker, 6), 6)
    for _ in range(OPTIONS.calls_min):
        breaker.failed(admitted(breaker, 6), 6)
    assert breaker.open_left_s(6) == OPTIONS.open_first_s


def test_late_results_of_calls_that_began_before_the_opening_count_for_nothing() -> (
    None
):
    breaker = Breaker(OPTIONS)
    early = [admitted(breaker, 0) for _ in range(8)]
    for _ in range(OPTIONS.calls_min):
        breaker.failed(admitted(breaker, 0), 0)
    breaker.succeeded(early[0], 1)
    breaker.failed(early[1], 1)
    breaker.abandoned(early[2])
    assert state_of(breaker) is BreakerState.OPEN
    trial = admitted(breaker, 2)
    for ticket in early[3:6]:
        breaker.succeeded(ticket, 2)
    breaker.failed(early[6], 2)
    breaker.abandoned(early[7])
    assert breaker.snapshot(2).trials_in_flight == 1
    assert breaker.snapshot(2).trials_succeeded == 0
    breaker.succeeded(trial, 2)
    assert breaker.snapshot(2).trials_succeeded == 1


def test_a_trial_that_never_reports_gives_its_place_back() -> None:
    breaker = opened()
    trials = [admitted(breaker, 2), admitted(breaker, 2)]
    assert breaker.admit(2) is None
    breaker.abandoned(trials[0])
    assert breaker.admit(2) is not None
    assert breaker.admit(2) is None


def test_an_abandoned_call_of_a_closed_circuit_counts_for_nothing() -> None:
    breaker = Breaker(OPTIONS)
    breaker.abandoned(admitted(breaker, 0))
    assert breaker.snapshot(0).calls == 0


def test_handing_a_ticket_back_twice_is_a_bug_that_shows() -> None:
    breaker = opened()
    trial = admitted(breaker, 2)
    breaker.abandoned(trial)
    with pytest.raises(AssertionError, match="twice"):
        breaker.abandoned(trial)


def test_a_reset_closes_it_and_nothing_opens_it_again_later() -> None:
    breaker = opened()
    trial_of_before = admitted(breaker, 2)
    breaker.reset()
    breaker.failed(trial_of_before, 2)
    assert breaker.admit(1000) is not None
    assert breaker.snapshot(1000).failures == 0


def test_the_snapshot_tells_people_what_they_ask() -> None:
    breaker = Breaker(OPTIONS)
    assert breaker.snapshot(0).failure_rate == 0
    breaker.succeeded(admitted(breaker, 0), 0)
    breaker.failed(admitted(breaker, 0), 0, "HTTP 503")
    snapshot = breaker.snapshot(0)
    assert (snapshot.calls, snapshot.failures, snapshot.failure_rate) == (2, 1, 0.5)
    assert snapshot.last_failure == "HTTP 503"
    assert opened().snapshot(1).open_left_s == 1


@pytest.mark.parametrize(
    "options",
    [
        {"window_s": 0},
        {"buckets": 0},
        {"buckets": 1001},
        {"failure_rate": 0},
        {"failure_rate": 1.1},
        {"calls_min": 0},
        {"open_first_s": 0},
        {"open_first_s": 40},
        {"open_factor": 0.5},
        {"trials_max": 0},
        {"trials_to_close": 0},
        {"window_s": float("nan")},
    ],
)
def test_options_out_of_their_bounds_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a breaker needs"):
        BreakerOptions(**options)  # type: ignore[arg-type]  # the point of the test


@dataclass
class NaiveBreaker:
    """The oracle: the same rules over a plain list of everything that happened."""

    period: int = 0
    state: str = "closed"
    ended: list[tuple[int, bool]] = field(default_factory=list[tuple[int, bool]])
    open_until_s: int = 0
    failed_trials: int = 0
    trials: set[int] = field(default_factory=set[int])
    succeeded: int = 0

    def go_to(self, state: str) -> None:
        self.state, self.period, self.succeeded = state, self.period + 1, 0
        self.trials = set()

    def in_window(self, now_s: int) -> list[bool]:
        return [ok for at_s, ok in self.ended if at_s > now_s - 4]

    def open(self, now_s: int) -> None:
        self.open_until_s = now_s + min(2 * 2**self.failed_trials, 8)
        self.go_to("open")


class BreakerMachine(RuleBasedStateMachine):
    """Any calls, ending in any order at any time, against the oracle."""

    tickets: Bundle[tuple[int, int, Ticket]] = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0
        self.calls = 0
        self.breaker = Breaker(OPTIONS)
        self.naive = NaiveBreaker()

    @rule(seconds=st.integers(0, 9))
    def time_passes(self, seconds: int) -> None:
        self.now_s += seconds

    @rule(target=tickets, count=st.integers(1, 6))
    def calls_begin(self, count: int) -> MultipleResults[tuple[int, int, Ticket]]:
        return multiple(*(call for _ in range(count) for call in self.call_begins()))

    def call_begins(self) -> list[tuple[int, int, Ticket]]:
        naive = self.naive
        if naive.state == "open" and self.now_s >= naive.open_until_s:
            naive.go_to("half-open")
        passes = naive.state == "closed" or (
            naive.state == "half-open" and len(naive.trials) < OPTIONS.trials_max
        )
        ticket = self.breaker.admit(self.now_s)
        assert (ticket is not None) == passes
        if ticket is None:
            return []
        self.calls += 1
        if naive.state == "half-open":
            naive.trials.add(self.calls)
        return [(self.calls, naive.period, ticket)]

    @rule(call=consumes(tickets))
    def call_succeeds(self, call: tuple[int, int, Ticket]) -> None:
        number, period, ticket = call
        self.breaker.succeeded(ticket, self.now_s)
        naive = self.naive
        if period != naive.period:
            return
        if naive.state == "closed":
            naive.ended.append((self.now_s, True))
            return
        naive.trials.remove(number)
        naive.succeeded += 1
        if naive.succeeded == OPTIONS.trials_to_close:
            naive.ended, naive.failed_trials = [], 0
            naive.go_to("closed")

    @rule(call=consumes(tickets))
    def call_fails(self, call: tuple[int, int, Ticket]) -> None:
        _, period, ticket = call
        self.breaker.failed(ticket, self.now_s)
        naive = self.naive
        if period != naive.period:
            return
        if naive.state == "half-open":
            naive.failed_trials += 1
            naive.open(self.now_s)
            return
        naive.ended.append((self.now_s, False))
        window = naive.in_window(self.now_s)
        if len(window) >= OPTIONS.calls_min and window.count(False) * 2 >= len(window):
            naive.open(self.now_s)

    @rule(call=consumes(tickets))
    def call_is_cancelled(self, call: tuple[int, int, Ticket]) -> None:
        number, period, ticket = call
        self.breaker.abandoned(ticket)
        if period == self.naive.period:
            self.naive.trials.discard(number)

    @invariant()
    def it_agrees_with_the_oracle(self) -> None:
        snapshot = self.breaker.snapshot(self.now_s)
        naive = self.naive
        assert snapshot.state == naive.state
        assert snapshot.trials_in_flight == len(naive.trials) <= OPTIONS.trials_max
        assert snapshot.trials_succeeded == naive.succeeded
        if naive.state == "closed":
            assert snapshot.calls == len(naive.in_window(self.now_s))
        if naive.state == "open":
            left_s = max(0, naive.open_until_s - self.now_s)
            assert snapshot.open_left_s == left_s <= OPTIONS.open_longest_s


BreakerMachine.TestCase.settings = settings(
    max_examples=100, stateful_step_count=50, deadline=None
)
TestBreakerAgainstTheOracle = BreakerMachine.TestCase


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), max_size=200))
def test_counts_are_never_negative_and_never_exceed_the_calls(
    ends: list[tuple[float, bool]],
) -> None:
    breaker, now_s = Breaker(OPTIONS), 0.0
    for wait_s, ok in ends:
        now_s += wait_s
        ticket = breaker.admit(now_s)
        if ticket is None:
            continue
        if ok:
            breaker.succeeded(ticket, now_s)
        else:
            breaker.failed(ticket, now_s)
        snapshot = breaker.snapshot(now_s)
        assert 0 <= snapshot.failures <= snapshot.calls <= len(ends)
