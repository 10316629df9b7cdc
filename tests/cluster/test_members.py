"""Who is there, and who has what, as one instance sees it."""

import pytest

from coordinator.cluster.members import FORGET_LEASES, Members
from coordinator.cluster.notices import Notice
from coordinator.cluster.timing import TIMING

LEASE_S = TIMING.lease_s


def notice(
    name: str,
    count: int,
    *,
    holds: dict[int, int] | None = None,
    claims: tuple[int, ...] = (),
) -> Notice:
    return Notice(
        "j", 4, name, count, holds=tuple((holds or {}).items()), claims=claims
    )


@pytest.fixture(name="members")
def make_members() -> Members:
    """Return what "me" knows, who heard the first notice of "a" at 100 s."""
    members = Members("me", TIMING)
    assert members.hear(notice("a", 1), 100.0)
    return members


def alive(members: Members, now_s: float) -> set[str]:
    return set(members.alive(now_s))


def holder(members: Members, partition: int, now_s: float) -> str:
    return members.holder(partition, members.alive(now_s))


def test_who_is_silent_for_a_lease_is_not_there(members: Members) -> None:
    assert alive(members, 100.0 + LEASE_S - 0.1) == {"a"}
    assert alive(members, 100.0 + LEASE_S) == set()


def test_each_newer_notice_is_a_sign_of_life(members: Members) -> None:
    assert members.hear(notice("a", 2), 110.0)
    assert alive(members, 129.9) == {"a"}


def test_a_notice_that_comes_again_or_late_is_none(members: Members) -> None:
    members.hear(notice("a", 3, holds={0: 1}), 101.0)
    assert not members.hear(notice("a", 3), 110.0)
    assert not members.hear(notice("a", 2), 110.0)
    assert alive(members, 121.0) == set()
    assert holder(members, 0, 102.0) == "a"


def test_our_own_notice_comes_back_and_means_nothing(members: Members) -> None:
    assert not members.hear(notice("me", 1), 100.0)
    assert alive(members, 100.0) == {"a"}


def test_whose_address_refuses_is_gone_at_once(members: Members) -> None:
    members.refused("a")
    assert alive(members, 100.1) == set()


def test_one_notice_may_have_been_under_way_when_it_died(members: Members) -> None:
    members.refused("a")
    members.hear(notice("a", 2), 100.2)
    assert alive(members, 100.3) == set()
    members.hear(notice("a", 3), 104.0)
    assert alive(members, 104.0) == {"a"}


def test_what_refuses_beside_newer_notices_is_not_believed_again(
    members: Members,
) -> None:
    members.refused("a")
    members.hear(notice("a", 3), 104.0)
    members.refused("a")
    assert alive(members, 104.1) == {"a"}


def test_after_a_connection_it_is_believed_again(members: Members) -> None:
    members.refused("a")
    members.connected("a")
    assert alive(members, 100.1) == {"a"}
    members.refused("a")
    assert alive(members, 100.2) == set()


def test_nothing_is_known_of_a_stranger_who_connects_or_refuses(
    members: Members,
) -> None:
    members.connected("x")
    members.refused("x")
    assert alive(members, 100.0) == {"a"}


def test_since_when_somebody_is_there_begins_anew_behind_a_gap(
    members: Members,
) -> None:
    members.hear(notice("a", 2), 110.0)
    assert members.since_s("a") == 100.0
    members.hear(notice("a", 3), 140.0)
    assert members.since_s("a") == 140.0


def test_whoever_slept_gives_all_others_a_lease(members: Members) -> None:
    members.slept(1000.0)
    assert alive(members, 1000.0 + LEASE_S - 0.1) == {"a"}
    assert members.since_s("a") == 1000.0


def test_a_partition_is_whose_newest_claim_it_is(members: Members) -> None:
    members.hear(notice("a", 2, holds={0: 5}), 100.0)
    members.hear(notice("b", 1, holds={0: 6}), 100.0)
    members.hear(notice("a", 3, holds={0: 5}), 101.0)
    assert holder(members, 0, 101.0) == "b"
    assert members.newer(0, 5)
    assert not members.newer(0, 6)


def test_where_the_newest_owner_is_gone_the_one_before_has_it_no_more(
    members: Members,
) -> None:
    members.hear(notice("a", 2, holds={0: 5}), 100.0)
    members.hear(notice("b", 1, holds={0: 6}), 100.0)
    members.refused("b")
    assert holder(members, 0, 100.0) == ""


def test_what_is_listed_no_more_is_nobodys(members: Members) -> None:
    members.hear(notice("a", 2, holds={0: 5}), 100.0)
    members.hear(notice("a", 3), 101.0)
    assert holder(members, 0, 101.0) == ""


def test_a_claim_is_believed_until_a_newer_notice_does_not_list_it(
    members: Members,
) -> None:
    members.claimed(0, 7, "a", 101.0)
    assert holder(members, 0, 101.0) == "a"
    members.hear(notice("a", 2), 102.0)
    assert holder(members, 0, 102.0) == ""


def test_a_claim_under_way_is_believed_while_it_is_said(members: Members) -> None:
    members.claimed(0, 7, "a", 101.0)
    members.hear(notice("a", 2, claims=(0,)), 102.0)
    assert holder(members, 0, 102.0) == "a"
    members.hear(notice("a", 3, holds={0: 7}), 103.0)
    assert holder(members, 0, 103.0) == "a"


def test_two_who_claim_are_told_apart_by_their_names(members: Members) -> None:
    members.hear(notice("b", 1, claims=(0,)), 100.0)
    members.hear(notice("a", 2, claims=(0,)), 100.0)
    assert members.claimant(0, members.alive(100.0)) == "a"
    assert members.claimant(1, members.alive(100.0)) == ""
    assert holder(members, 0, 100.0) == ""


def test_a_claim_that_was_read_is_a_sign_of_life(members: Members) -> None:
    members.claimed(0, 7, "a", 115.0)
    assert alive(members, 134.0) == {"a"}


def test_an_old_claim_is_none(members: Members) -> None:
    members.claimed(0, 7, "b", 100.0)
    members.claimed(0, 6, "a", 115.0)
    assert alive(members, 121.0) == set()
    assert not members.newer(0, 7)


def test_who_claimed_and_was_never_heard_of_is_not_there(members: Members) -> None:
    members.claimed(0, 7, "x", 100.0)
    assert holder(members, 0, 100.0) == ""
    members.hear(notice("x", 0, holds={0: 7}), 100.0)
    assert holder(members, 0, 100.0) == "x"


def test_time_alone_changes_something_when_one_settles_or_falls_silent(
    members: Members,
) -> None:
    assert members.next_change_s(100.0) == 100.0 + TIMING.settle_s
    assert members.next_change_s(105.0) == 100.0 + LEASE_S
    assert members.next_change_s(500.0) == 500.0 + TIMING.notice_s


def test_who_was_silent_for_very_long_is_forgotten(members: Members) -> None:
    end_s = 100.0 + FORGET_LEASES * LEASE_S
    members.forget(end_s)
    assert members.since_s("a") == 100.0
    members.forget(end_s + 0.1)
    with pytest.raises(KeyError):
        members.since_s("a")
