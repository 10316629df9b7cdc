"""What an instance does with each partition: the table of `decision`, row by row."""

import pytest

from coordinator.cluster.decision import Decision, Own, decide, wake
from coordinator.cluster.members import Members
from coordinator.cluster.notices import Notice
from coordinator.cluster.timing import TIMING

NOW_S = 1000.0


class View:
    """What "b" knows, who has listened for long."""

    def __init__(self) -> None:
        self.own = Own(started_s=0.0, looked_s=NOW_S)
        self.members = Members("b", TIMING)
        self._counts: dict[str, int] = {}

    def hear(
        self,
        name: str,
        *,
        holds: dict[int, int] | None = None,
        takes: bool = True,
        claims: tuple[int, ...] = (),
        at_s: float = NOW_S - 2,
    ) -> None:
        count = self._counts[name] = self._counts.get(name, 0) + 1
        held = tuple((holds or {}).items())
        notice = Notice("j", 4, name, count, takes=takes, holds=held, claims=claims)
        self.members.hear(notice, at_s)

    def decide(self, now_s: float = NOW_S) -> Decision:
        return decide(self.own, self.members, partitions=4, timing=TIMING, now_s=now_s)


@pytest.fixture(name="view")
def make_view() -> View:
    return View()


def test_who_is_alone_claims_all_that_is_nobodys(view: View) -> None:
    assert view.decide().claim == (0, 1, 2, 3)


def test_nothing_is_claimed_before_we_have_listened(view: View) -> None:
    view.own.started_s = NOW_S - 0.4
    decision = view.decide()
    assert decision.claim == ()
    assert decision.again_s == pytest.approx(NOW_S + 0.6)


def test_of_what_is_nobodys_each_claims_what_is_planned_for_it(view: View) -> None:
    view.hear("a")
    assert view.decide().claim == (2, 3)


def test_what_somebody_has_is_not_taken(view: View) -> None:
    view.hear("a", holds={0: 1, 1: 1, 2: 1, 3: 1})
    assert view.decide().claim == ()


def test_what_somebody_had_who_is_gone_is_claimed_at_once(view: View) -> None:
    view.hear("a", holds={0: 1, 1: 1, 2: 1, 3: 1})
    view.members.refused("a")
    assert view.decide().claim == (0, 1, 2, 3)


def test_what_somebody_had_who_is_silent_is_claimed_after_a_lease(view: View) -> None:
    view.hear("a", holds={0: 1}, at_s=NOW_S)
    view.own.holds = {1: 1, 2: 1, 3: 1}
    view.own.releases = {1, 2, 3}
    before = view.decide(NOW_S + TIMING.lease_s - 0.1)
    assert before.claim == ()
    assert before.again_s == NOW_S + TIMING.lease_s
    assert view.decide(before.again_s).claim == (0,)


def test_a_newcomer_gets_its_share_once_it_is_settled(view: View) -> None:
    view.own.holds = {0: 1, 1: 1, 2: 1, 3: 1}
    view.hear("a", at_s=NOW_S)
    early = view.decide(NOW_S)
    assert early.release == ()
    assert early.again_s == NOW_S + TIMING.settle_s
    assert view.decide(early.again_s).release == ((2, "a"), (3, "a"))


def test_what_is_being_released_is_not_released_again(view: View) -> None:
    view.own.holds = {0: 1, 1: 1, 2: 1, 3: 1}
    view.own.releases = {2}
    view.hear("a")
    assert view.decide().release == ((3, "a"),)


def test_what_is_being_claimed_is_neither_claimed_again_nor_released(
    view: View,
) -> None:
    view.own.holds = {0: 1, 1: 1}
    view.own.claims = {2, 3}
    view.hear("a")
    decision = view.decide()
    assert (decision.claim, decision.release) == ((), ())


def test_who_stops_releases_all_and_claims_nothing(view: View) -> None:
    view.own.holds = {0: 1, 1: 1}
    view.own.stops = True
    view.hear("a", holds={2: 1})
    decision = view.decide()
    assert decision.release == ((0, "a"), (1, "a"))
    assert decision.claim == ()


def test_who_stops_and_is_the_last_keeps_what_it_has(view: View) -> None:
    view.own.holds = {0: 1, 1: 1}
    view.own.stops = True
    assert view.decide().release == ()


def test_nothing_is_released_to_who_stops(view: View) -> None:
    view.own.holds = {0: 1, 1: 1, 2: 1, 3: 1}
    view.hear("a", takes=False)
    assert view.decide().release == ()


def test_what_somebody_claimed_since_is_dropped_at_once(view: View) -> None:
    view.own.holds = {0: 1, 1: 1}
    view.hear("a", holds={0: 2, 2: 1, 3: 1})
    decision = view.decide()
    assert decision.drop == (0,)
    assert (decision.claim, decision.release) == ((), ())


def test_it_is_dropped_also_while_we_listen_only(view: View) -> None:
    view.own.holds = {0: 1}
    view.own.started_s = NOW_S
    view.hear("a", holds={0: 2})
    assert view.decide().drop == (0,)


def test_what_could_not_be_claimed_is_tried_again_later(view: View) -> None:
    view.own.not_before_s = {0: NOW_S + 0.5, 1: NOW_S - 1}
    decision = view.decide()
    assert decision.claim == (1, 2, 3)
    assert decision.again_s == NOW_S + 0.5
    assert view.decide(NOW_S + 0.5).claim == (0, 1, 2, 3)


def test_who_was_frozen_listens_before_it_claims_what_others_had(view: View) -> None:
    view.hear("a", holds={0: 1, 1: 1, 2: 1, 3: 1})
    woke_s = NOW_S + 100
    assert wake(view.own, view.members, TIMING, woke_s)
    assert view.decide(woke_s).claim == ()
    view.hear("a", holds={0: 1, 1: 1, 2: 1, 3: 1}, at_s=woke_s)
    assert view.decide(woke_s + TIMING.settle_s).claim == ()


def test_who_looks_often_was_not_frozen(view: View) -> None:
    view.hear("a", holds={0: 1, 1: 1, 2: 1, 3: 1})
    assert not wake(view.own, view.members, TIMING, NOW_S + TIMING.lease_s / 2)
    assert not wake(view.own, view.members, TIMING, NOW_S + TIMING.lease_s)
    assert view.decide(NOW_S + TIMING.lease_s).claim == (0, 1, 2, 3)


def test_who_can_not_write_goes_on_claiming_for_as_long_as_its_lease(
    view: View,
) -> None:
    view.own.claims = {0, 1}
    view.own.holds = {2: 1}
    view.own.fails_since_s = NOW_S - 10
    view.hear("a", holds={3: 1})
    decision = view.decide()
    assert decision.takes
    assert decision.drop == ()


def test_then_it_lets_the_others_have_it(view: View) -> None:
    view.own.claims = {0, 1}
    view.own.holds = {2: 1}
    view.own.fails_since_s = NOW_S - (TIMING.lease_s - TIMING.margin_s)
    view.hear("a", holds={3: 1})
    decision = view.decide()
    assert not decision.takes
    assert decision.drop == (0, 1)
    assert decision.release == ((2, "a"),)


def test_it_asks_again_when_that_time_is_over(view: View) -> None:
    view.own.claims = {0, 1, 2, 3}
    view.own.fails_since_s = NOW_S - 17.5
    assert view.decide().again_s == NOW_S + 0.5


def test_what_another_has_got_meanwhile_is_no_longer_claimed(view: View) -> None:
    view.own.claims = {0, 1}
    view.hear("a", holds={0: 5}, claims=(1,))
    assert view.decide().drop == (0,)


def test_what_another_is_claiming_is_left_to_it(view: View) -> None:
    view.hear("a", claims=(0, 1, 2, 3))
    assert view.decide().claim == ()
