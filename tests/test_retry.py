"""When to try again: intervals within their bounds, and a queue against a model."""

import random
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from coordinator.model import Retry
from coordinator.retry import DueQueue, fast_interval_s, slow_interval_s


@dataclass
class Drawn:
    """A chance that always draws the same."""

    number: float

    def random(self) -> float:
        return self.number


LOWEST, MIDDLE, HIGHEST = Drawn(0.0), Drawn(0.5), Drawn(1.0)


def policy(first_s: float, longer: float, factor: float, jitter: float) -> Retry:
    return Retry(
        first_s=first_s, longest_s=first_s * longer, factor=factor, jitter=jitter
    )


policies = st.builds(
    policy,
    st.floats(1e-3, 1e3),
    st.floats(1, 1e6),
    st.floats(1, 1e300),
    st.floats(0, 1),
)


def test_each_interval_is_the_one_before_times_the_factor_up_to_the_longest() -> None:
    retry = Retry(first_s=0.5, factor=3, longest_s=20)
    slow = [slow_interval_s(retry, attempt, MIDDLE) for attempt in range(6)]
    assert slow == [0.5, 1.5, 4.5, 13.5, 20, 20]


def test_jitter_spreads_an_interval_evenly_to_both_sides() -> None:
    retry = Retry(first_s=10, longest_s=10, jitter=0.2)
    assert slow_interval_s(retry, 0, LOWEST) == pytest.approx(8)
    assert slow_interval_s(retry, 0, MIDDLE) == 10
    assert slow_interval_s(retry, 0, HIGHEST) == pytest.approx(12)


def test_commands_that_were_delayed_together_do_not_come_back_together() -> None:
    chance = random.Random(1)
    assert len({slow_interval_s(Retry(), 3, chance) for _ in range(100)}) == 100


@given(policies, st.integers(0, 10**9), st.floats(0, 1, exclude_max=True))
def test_no_interval_leaves_its_bounds(
    retry: Retry, attempt: int, drawn: float
) -> None:
    interval_s = slow_interval_s(retry, attempt, Drawn(drawn))
    assert interval_s <= retry.longest_s * (1 + retry.jitter) * (1 + 1e-9)
    assert interval_s >= retry.first_s * (1 - retry.jitter) * (1 - 1e-9)


def test_a_large_factor_does_not_overflow() -> None:
    retry = Retry(factor=1e200, longest_s=30, jitter=0)
    assert slow_interval_s(retry, 2, MIDDLE) == 30
    assert slow_interval_s(Retry(factor=10, jitter=0), 10**9, MIDDLE) == 30


def test_a_factor_near_one_gets_to_the_longest_interval_too() -> None:
    retry = Retry(first_s=0.2, factor=1.01, longest_s=30, jitter=0)
    assert slow_interval_s(retry, 503, MIDDLE) < 30
    assert slow_interval_s(retry, 504, MIDDLE) == 30


def test_the_fast_interval_is_nothing_but_jitter_and_never_negative() -> None:
    retry = Retry(first_s=10, longest_s=10, jitter=0.2)
    assert fast_interval_s(retry, LOWEST) == 0
    assert fast_interval_s(retry, HIGHEST) == pytest.approx(2)
    assert fast_interval_s(Retry(jitter=0), HIGHEST) == 0


def test_what_is_due_comes_out_earliest_first_and_what_is_not_stays() -> None:
    queue = DueQueue[str]()
    for item, due_s in (("c", 3.0), ("a", 1.0), ("b", 2.0), ("later", 9.0)):
        queue.push(item, due_s)
    assert [queue.pop_due(3.0) for _ in range(4)] == ["a", "b", "c", None]
    assert len(queue) == 1
    assert "later" in queue
    assert "a" not in queue


def test_what_is_due_at_once_comes_out_in_the_order_in_which_it_was_put_in() -> None:
    queue = DueQueue[int]()
    items = [5, 3, 8, 1]
    for item in items:
        queue.push(item, 1.0)
    queue.push(5, 1.0)
    assert [queue.pop_due(1.0) for _ in items] == [3, 8, 1, 5]


def test_a_later_time_replaces_an_earlier_one_and_an_earlier_a_later() -> None:
    queue = DueQueue[str]()
    queue.push("a", 1.0)
    queue.push("b", 2.0)
    queue.push("a", 3.0)
    queue.push("b", 1.5)
    assert len(queue) == 2
    assert (queue.due_s("a"), queue.due_s("b")) == (3.0, 1.5)
    assert queue.next_due_s() == 1.5
    assert [queue.pop_due(3.0) for _ in range(3)] == ["b", "a", None]


def test_what_is_taken_out_is_not_due_any_more() -> None:
    queue = DueQueue[str]()
    queue.push("a", 1.0)
    queue.push("b", 2.0)
    assert queue.remove("a")
    assert not queue.remove("a")
    assert queue.next_due_s() == 2.0
    assert [queue.pop_due(9.0), queue.pop_due(9.0)] == ["b", None]


def test_an_empty_queue_has_nothing_due() -> None:
    queue = DueQueue[str]()
    assert queue.next_due_s() is None
    assert queue.pop_due(float("inf")) is None
    assert queue.due_s("a") is None
    assert not queue.remove("a")


def test_things_put_off_again_and_again_take_no_more_room() -> None:
    queue = DueQueue[int]()
    for time in range(5_000):
        queue.push(time % 10, float(time))
    assert len(queue) == 10
    assert len(queue._heap) <= 2 * 10 + 16


def test_the_dead_are_dropped_when_the_living_were_taken_out() -> None:
    queue = DueQueue[int]()
    for item in range(1000):
        queue.push(item, 1.0)
    for item in range(500):
        queue.push(item, 1e9)
        queue.push(item, 2.0)
    queue.push(1000, 5.0)
    while queue.pop_due(2.0) is not None:
        pass
    assert len(queue) == 1
    assert len(queue._heap) <= 2 * 1 + 16


class QueueMachine(RuleBasedStateMachine):
    """Any calls in any order, against a dict that is searched."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = DueQueue[int]()
        self.model: dict[int, tuple[float, int]] = {}
        self.pushes = 0

    @rule(item=st.integers(0, 12), due_s=st.integers(0, 20))
    def push(self, item: int, due_s: int) -> None:
        self.pushes += 1
        self.queue.push(item, float(due_s))
        self.model[item] = (float(due_s), self.pushes)

    @rule(item=st.integers(0, 12))
    def remove(self, item: int) -> None:
        assert self.queue.remove(item) is (self.model.pop(item, None) is not None)

    @rule(now_s=st.integers(0, 20), count=st.integers(1, 10))
    def pop_due(self, now_s: int, count: int) -> None:
        for _ in range(count):
            due = [
                (*entry, item)
                for item, entry in self.model.items()
                if entry[0] <= now_s
            ]
            expected = min(due)[2] if due else None
            assert self.queue.pop_due(float(now_s)) == expected
            if expected is not None:
                del self.model[expected]

    @invariant()
    def knows_the_same(self) -> None:
        assert len(self.queue) == len(self.model)
        for item in range(13):
            entry = self.model.get(item)
            assert (item in self.queue) is (entry is not None)
            assert self.queue.due_s(item) == (None if entry is None else entry[0])

    @invariant()
    def is_due_when_the_first_is(self) -> None:
        first = min(self.model.values(), default=None)
        assert self.queue.next_due_s() == (None if first is None else first[0])

    @invariant()
    def holds_few_dead(self) -> None:
        assert len(self.queue._heap) <= 2 * len(self.queue) + 16


TestAnyCalls = QueueMachine.TestCase
TestAnyCalls.settings = settings(max_examples=40, stateful_step_count=40)
