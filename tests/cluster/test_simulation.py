"""Several instances, with everything going wrong; and the bugs that this finds.

What `world` says of a run: no service is asked to do what another owner has begun to
undo, a stale owner repeats at most what the next one begins with, and when all is well
again each partition has one owner, evenly, and stays where it is.
"""

from collections.abc import Callable
from functools import partial

import pytest
from tests.cluster.node import CUT_OFF_S, Node, Seat
from tests.cluster.world import World

from coordinator.cluster.members import Members
from coordinator.cluster.tenure import Tenure
from coordinator.cluster.timing import TIMING

LEASE_S = TIMING.lease_s
HEALED_S = LEASE_S + 15
SEEDS_PER_TEST = 5


def disturbed(seed: int) -> World:
    """Return a world in which all went wrong, and all is well again for a while."""
    world = World(seed, partitions=(1, 2, 4, 7, 8)[seed % 5])
    world.disturb(150.0)
    world.start()
    world.run(HEALED_S)
    return world


def overtaken(seed: int, drift: float | None = None) -> World:
    """Return one in which an owner is cut off, and another is told that it is gone."""
    world = World(seed, instances=2, partitions=1, drift=drift, loss=0.0)
    world.run(3.0 + world.random.uniform(0, 10))
    if seed % 2:
        world.run_until(lambda: any(s.writing for n in world.up() for s in all_of(n)))
        world.run(0.02)
    (owner,) = (node for node in world.up() if node.own.holds)
    world.isolate(owner, world.random.choice((0.0, world.random.uniform(1, 19))))
    if seed % 3 == 0:
        # Behind the second owner comes a third, which the first does not hear of.
        world.reset(owner, world.start())
        world.run(2.0)
        next(node for node in world.up() if node.own.holds and node is not owner).stop()
    world.run(60.0)
    return world


def all_of(node: Node) -> list[Seat]:
    return list(node.seats.values())


def quiet(instances: int = 3, partitions: int = 6) -> World:
    """Return a world in which nothing goes wrong, after a while."""
    world = World(1, instances=instances, partitions=partitions, loss=0.0)
    world.run(10.0)
    assert world.settled() == ""
    return world


def claimed_by_others(world: World, gone: Node, partitions: set[int]) -> bool:
    return all(
        world.logs[partition].owner not in {gone.name, ""} for partition in partitions
    )


# What holds.


@pytest.mark.parametrize("first", range(0, 40, SEEDS_PER_TEST))
def test_whatever_goes_wrong_no_two_owners_act_and_all_is_owned_again(
    first: int,
) -> None:
    for seed in range(first, first + SEEDS_PER_TEST):
        world = disturbed(seed)
        assert world.violations() == [], seed
        assert world.settled() == "", seed
        claims = len(world.claims)
        world.run(3 * LEASE_S)
        assert len(world.claims) == claims, seed


@pytest.mark.parametrize("first", range(0, 100, 20))
def test_who_is_overtaken_starts_nothing_that_is_being_undone(first: int) -> None:
    for seed in range(first, first + 20):
        assert overtaken(seed).violations() == [], seed


def test_of_those_that_start_at_once_each_claims_its_share_once() -> None:
    world = quiet(instances=4, partitions=8)
    assert len(world.claims) == 8
    assert max(claim.at for claim in world.claims) < 2 * TIMING.settle_s


def test_what_a_killed_one_had_is_claimed_within_a_second() -> None:
    world = quiet()
    gone = world.up()[0]
    had = set(gone.own.holds)
    world.kill(gone)
    took_s = world.run_until(partial(claimed_by_others, world, gone, had))
    assert took_s < 1.0
    world.run(5.0)
    assert world.settled() == ""
    assert len(world.claims) == 6 + len(had)


def test_what_a_frozen_one_had_is_claimed_within_a_lease_and_a_notice() -> None:
    world = quiet()
    gone = world.up()[0]
    had = set(gone.own.holds)
    world.freeze(gone, 60.0)
    took_s = world.run_until(partial(claimed_by_others, world, gone, had))
    assert LEASE_S - TIMING.notice_s < took_s * (1 + world.drift)
    assert took_s < LEASE_S * (1 + 2 * world.drift) + 1.0
    world.run(60.0)
    # It gets its share back, and no more moves than that.
    assert world.taken == []
    assert world.settled() == ""
    assert len(world.claims) == 6 + 2 * len(had)
    assert world.violations() == []


def test_what_one_that_stops_had_is_handed_over_within_a_second() -> None:
    world = quiet()
    gone = world.up()[0]
    had = set(gone.own.holds)
    gone.stop()
    took_s = world.run_until(partial(claimed_by_others, world, gone, had))
    assert took_s < CUT_OFF_S + 0.25
    world.run(5.0)
    assert gone.dead
    assert world.settled() == ""
    assert len(world.claims) == 6 + len(had)


def test_who_joins_gets_its_share_and_nothing_else_moves() -> None:
    world = quiet()
    world.start()
    world.run(5.0)
    assert world.settled() == ""
    assert len(world.claims) == 6 + 1


def test_three_that_join_together_move_each_partition_once_at_most() -> None:
    world = quiet(instances=1)
    for _ in range(3):
        world.start()
    world.run(10.0)
    assert world.settled() == ""
    assert len(world.claims) == 6 + 4


def test_with_more_instances_than_partitions_the_others_stand_by() -> None:
    world = quiet(instances=3, partitions=1)
    (owner,) = (node for node in world.up() if node.own.holds)
    world.kill(owner)
    world.run(2.0)
    assert world.settled() == ""
    assert len(world.claims) == 2


def test_two_who_can_not_reach_each_other_leave_things_as_they_are() -> None:
    world = quiet()
    world.split(*world.up()[:2])
    world.run(10 * LEASE_S)
    assert len(world.claims) == 6


def test_two_whose_connections_are_refused_for_ever_move_things_once() -> None:
    world = quiet()
    one, other = world.up()[:2]
    for _ in range(50):
        world.reset(one, other)
        world.run(7.0)
    assert world.settled() == ""
    quarrel = len(world.claims)
    assert quarrel <= 6 + 12
    world.run(10 * LEASE_S)
    assert len(world.claims) == quarrel
    assert world.violations() == []


def test_who_can_not_write_lets_the_others_have_it_and_does_not_come_back() -> None:
    world = quiet()
    gone = world.up()[0]
    had = set(gone.own.holds)
    world.cut_off.add(gone.name)
    world.run(10 * LEASE_S)
    assert gone.own.holds == {}
    assert len(world.claims) == 6 + len(had)
    world.heal()
    world.run(10.0)
    assert world.settled() == ""


def test_while_nobody_can_write_nothing_moves_and_then_all_goes_on() -> None:
    world = quiet()
    owners = [log.owner for log in world.logs]
    world.cut_off.update(node.name for node in world.up())
    world.run(16.0)  # the longest election that was seen
    world.heal()
    world.run(15.0)
    assert world.settled() == ""
    assert world.violations() == []
    assert [log.owner for log in world.logs] == owners


# What is found.


def replaced(
    owner: object, name: str, with_: Callable[..., object]
) -> Callable[[pytest.MonkeyPatch], None]:
    return lambda patch: patch.setattr(owner, name, with_)


def count_from_the_answer(node: Node, seat: Seat, _began_s: float) -> None:
    seat.tenure.renewed(node.clock())


def count_notices(node: Node, _tell: Callable[[Node], None] = Node.tell) -> None:
    for seat in all_of(node):
        seat.tenure.renewed(node.clock())
    _tell(node)


def release_whatever_runs(node: Node, seat: Seat) -> None:
    if not (seat.over or seat.writing):
        seat.over = True
        node.write_release(seat)


def release_before_alone(node: Node, seat: Seat) -> None:
    if not (seat.over or seat.writing):
        seat.over = True
        if seat.calling:
            node._gone(seat)
        else:
            node.write_release(seat)


def wait_from_the_beginning(
    tenure: Tenure,
    timing: object,
    *,
    began_s: float,
    claimed_s: float,
    earlier_lease_s: float,
    _init: Callable[..., None] = Tenure.__init__,
) -> None:
    _init(
        tenure,
        timing,
        began_s=began_s,
        claimed_s=claimed_s - 4,
        earlier_lease_s=earlier_lease_s,
    )


BUGS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "the new owner turns back at once": replaced(Tenure, "is_alone", lambda *_: True),
    "an owner never stops starting": replaced(Tenure, "may_start", lambda *_: True),
    "a lease counts from the answer": replaced(Node, "renew", count_from_the_answer),
    "notices prolong a lease": replaced(Node, "tell", count_notices),
    "released with a call in flight": replaced(Node, "_let_go", release_whatever_runs),
    "released while an earlier lease runs": replaced(
        Node, "_let_go", release_before_alone
    ),
    "the wait is four seconds short": replaced(
        Tenure, "__init__", wait_from_the_beginning
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_a_bug_that_lets_two_owners_act_is_found(
    bug: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    BUGS[bug](monkeypatch)
    assert any(overtaken(seed).violations() for seed in range(400))


def test_clocks_that_drift_further_than_is_assumed_are_found() -> None:
    assert any(overtaken(seed, drift=0.25).violations() for seed in range(400))


def in_turn(
    members: list[str], partitions: int, _holders: dict[int, str]
) -> dict[int, str]:
    return {n: sorted(members)[n % len(members)] for n in range(partitions)}


def test_a_plan_that_heeds_no_holder_moves_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("coordinator.cluster.decision.assign", in_turn)
    world = quiet()
    world.start()
    world.run(5.0)
    assert len(world.claims) > 6 + 1


def test_a_refusal_that_is_believed_each_time_never_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refused(members: Members, name: str) -> None:
        member = members._members[name]
        member.refused_at = member.notice.count

    monkeypatch.setattr(Members, "refused", refused)
    world = quiet()
    one, other = world.up()[:2]
    for _ in range(50):
        world.reset(one, other)
        world.run(7.0)
    assert len(world.claims) > 6 + 12


def test_who_was_frozen_and_does_not_listen_first_takes_what_others_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wake(*_: object) -> bool:
        return False

    monkeypatch.setattr("tests.cluster.node.wake", wake)
    world = quiet(instances=2)
    world.freeze(world.up()[0], 60.0)
    world.run(70.0)
    assert len(world.taken) == 3
