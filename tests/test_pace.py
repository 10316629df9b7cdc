"""How many come in at a time, by values, and what becomes of an engine under load."""

from dataclasses import dataclass, field

import pytest

from coordinator.pace import FIRST, LAG_S_MIN, LAG_TIMES, SAMPLES, Pace

ROUNDS = 2_000


def time_one(pace: Pace, taken_s: float, *, records: int = 1) -> None:
    """Let one in, at zero, and have it durable after *taken_s*."""
    pace.let_in("one", 0.0)
    pace.durable("one", taken_s, records)


def hold_back(pace: Pace) -> None:
    """Have somebody wait, by as many coming in as may."""
    coming, pace.coming = pace.coming, int(pace.allowed)
    assert not pace.may_enter()
    pace.coming = coming


def interval(pace: Pace, *taken_s: float, wanted: bool = True) -> None:
    """Time as many as it takes for the pace to change."""
    assert len(taken_s) == SAMPLES
    for one_s in taken_s:
        if wanted:
            hold_back(pace)
        time_one(pace, one_s, records=100)


def test_so_many_may_come_in_before_one_of_them_is_durable() -> None:
    pace = Pace()
    for number in range(int(FIRST)):
        assert pace.may_enter()
        pace.let_in(number, 0.0)
    assert not pace.may_enter()
    assert pace.durable(0, 0.001, 1)
    assert pace.may_enter()


def test_who_waits_is_told_of_room_once_and_nobody_where_nobody_waits() -> None:
    pace = Pace()
    for number in range(int(FIRST)):
        pace.let_in(number, 0.0)
    assert not pace.durable(0, 0.001, 1)
    pace.let_in(0, 0.0)
    assert not pace.may_enter()
    assert pace.durable(1, 0.001, 1)
    assert not pace.durable(2, 0.001, 1)


def test_who_waits_while_fewer_may_come_in_is_told_when_one_may() -> None:
    pace = Pace()
    for number in range(int(FIRST)):
        pace.let_in(number, 0.0)
    assert not pace.may_enter()
    pace.allowed = 1.0
    told = [pace.durable(number, 0.001, 1) for number in range(int(FIRST))]
    assert told == [False] * (int(FIRST) - 1) + [True]


def test_while_it_takes_long_fewer_come_in_down_to_one() -> None:
    pace = Pace()
    seen = [pace.allowed]
    for _ in range(10):
        interval(pace, *[1.0] * SAMPLES)
        seen.append(pace.allowed)
    assert seen[1] == FIRST / 4
    assert seen[-1] == 1.0
    assert pace.lag_s == 1.0
    assert pace.may_enter()


def test_while_it_takes_little_and_somebody_waits_more_come_in() -> None:
    pace = Pace()
    interval(pace, *[LAG_S_MIN / 10] * SAMPLES)
    assert pace.allowed == pytest.approx(1.4 * FIRST)
    interval(pace, *[LAG_S_MIN / 1.21] * SAMPLES)
    assert pace.allowed == pytest.approx(1.1 * 1.4 * FIRST)


def test_a_journal_that_takes_no_time_lets_more_in_as_well() -> None:
    pace = Pace()
    interval(pace, *[0.0] * SAMPLES)
    assert pace.allowed == pytest.approx(1.4 * FIRST)


def test_what_delays_some_and_not_all_changes_nothing() -> None:
    pace = Pace()
    interval(pace, *[5.0] * (SAMPLES - 1), LAG_S_MIN)
    assert pace.allowed == FIRST


def test_once_nobody_waits_what_was_learned_is_forgotten() -> None:
    pace = Pace()
    for _ in range(5):
        interval(pace, *[0.0] * SAMPLES)
    assert pace.allowed > 2 * FIRST
    interval(pace, *[0.0] * SAMPLES, wanted=False)
    assert pace.allowed == FIRST


def test_a_slow_disk_may_take_its_time_once_it_was_seen_in_a_quiet_engine() -> None:
    pace = Pace()
    for _ in range(500):
        time_one(pace, 0.010)
    assert pace.usual_s == pytest.approx(0.010, rel=0.1)
    interval(pace, *[LAG_TIMES * 0.008] * SAMPLES)
    assert pace.allowed > FIRST


def test_in_a_busy_engine_nobody_learns_what_is_usual() -> None:
    pace = Pace()
    usual_s = pace.usual_s
    interval(pace, *[1.0] * SAMPLES)
    assert pace.usual_s == usual_s


def test_a_disk_that_became_slow_under_load_is_learned_when_one_comes_in() -> None:
    pace = Pace()
    for _ in range(100):
        interval(pace, *[0.030] * SAMPLES)
    assert pace.usual_s > LAG_S_MIN / LAG_TIMES * 5
    assert pace.allowed > 1.0


@dataclass
class Engine:
    """What the engine does, with a clock of its own: records in groups, one writer.

    All that wait for a write wake when it is done, each computes and appends its next
    record; then all these are written. Who is let in goes into the write after that.
    """

    pace: Pace
    records: int
    """Per saga."""
    write_s: float
    compute_s: float = 45e-6  # per record
    in_flight_max: int | None = None
    """A closed loop of so many clients; None if there are always more."""
    now_s: float = 0.0
    ended: list[float] = field(default_factory=list[float])
    """How long each saga took."""
    inside: list[int] = field(default_factory=list[int])

    def warm_up(self) -> None:
        for _ in range(300):
            self.pace.let_in("one", self.now_s)
            self.now_s += self.write_s + self.compute_s
            self.pace.durable("one", self.now_s, 1)

    def run(self, rounds: int) -> float:
        """Return the sagas per second."""
        running: list[tuple[int, float, int]] = []  # records left, since, number
        entering: list[tuple[int, float, int]] = []
        positions: dict[int, int] = {}
        begin_s = self.now_s
        position = number = 0
        for _ in range(rounds):
            self.now_s += self.write_s
            going: list[tuple[int, float, int]] = []
            for left, since_s, who in running:
                self.now_s += self.compute_s
                if left == self.records:
                    self.pace.durable(who, self.now_s, position - positions.pop(who))
                if left == 1:
                    self.ended.append(self.now_s - since_s)
                else:
                    going.append((left - 1, since_s, who))
                    position += 1
            running, entering = going + entering, []
            room = self.in_flight_max and self.in_flight_max - len(running)
            while (room is None or len(entering) < room) and self.pace.may_enter():
                number += 1
                self.pace.let_in(number, self.now_s)
                positions[number] = position
                position += 1
                entering.append((self.records, self.now_s, number))
                self.now_s += self.compute_s
            self.inside.append(len(running) + len(entering))
        return len(self.ended) / (self.now_s - begin_s)


@pytest.mark.parametrize("records", [2, 3, 5, 20])
@pytest.mark.parametrize("write_s", [0.0001, 0.0007, 0.003, 0.010])
def test_under_any_load_as_much_gets_done_and_nobody_inside_waits_long(
    records: int, write_s: float
) -> None:
    few = Engine(Pace(), records, write_s, in_flight_max=1)
    few.warm_up()
    few.run(ROUNDS)
    peak = Engine(Pace(), records, write_s, in_flight_max=100)
    peak.warm_up()
    at_peak = peak.run(ROUNDS)
    all_that_come = Engine(Pace(), records, write_s)
    all_that_come.warm_up()
    under_load = all_that_come.run(ROUNDS)
    assert under_load > 0.9 * at_peak
    alone_s = max(*few.ended, (records + 1) * LAG_S_MIN / LAG_TIMES)
    # Once it has learned: some hundred sagas of twenty records come in before that.
    settled = sorted(all_that_come.ended[len(all_that_come.ended) // 2 :])
    slowest_s = settled[len(settled) * 99 // 100]
    assert slowest_s < LAG_TIMES * alone_s
