"""The plan: even, with the fewest moves, and the same while it is carried out."""

from collections import Counter
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from coordinator.cluster.assign import assign

names = st.sets(st.sampled_from("abcdefgh"), min_size=1)
holders = st.dictionaries(st.integers(0, 20), st.sampled_from("abcdefghxyz"))


def test_what_does_not_divide_stays_where_most_is() -> None:
    held = dict.fromkeys(range(5), "a") | dict.fromkeys((5, 6), "b")
    plan = assign("abc", 7, held)
    assert [plan[partition] for partition in range(7)] == list("aaaccbb")


def test_nobody_gets_anything_where_there_is_nobody() -> None:
    assert assign((), 3, {0: "a"}) == {}


def test_with_more_members_than_partitions_some_have_none() -> None:
    assert Counter(assign("abcde", 3, {}).values()) == {"a": 1, "b": 1, "c": 1}


@given(names, st.integers(0, 20), holders)
def test_each_partition_has_one_member_and_they_differ_by_one(
    members: set[str], partitions: int, held: dict[int, str]
) -> None:
    plan = assign(members, partitions, held)
    assert sorted(plan) == list(range(partitions))
    counts = Counter(plan.values())
    assert set(counts) <= members
    each = [counts[member] for member in members]
    assert max(each) - min(each) <= 1


@given(names, st.integers(0, 20), holders)
def test_the_order_of_what_is_known_makes_no_difference(
    members: set[str], partitions: int, held: dict[int, str]
) -> None:
    plan = assign(sorted(members), partitions, held)
    backwards = dict(reversed(held.items()))
    assert assign(sorted(members, reverse=True), partitions, backwards) == plan


@given(
    st.sets(st.sampled_from("abc"), min_size=1),
    st.integers(0, 5),
    st.dictionaries(st.integers(0, 4), st.sampled_from("abcx")),
)
def test_no_even_plan_has_fewer_moves(
    members: set[str], partitions: int, held: dict[int, str]
) -> None:
    def is_even(plan: tuple[str, ...]) -> bool:
        counts = [plan.count(member) for member in members]
        return max(counts) - min(counts) <= 1

    least = min(
        sum(held.get(n) in members and held[n] != m for n, m in enumerate(plan))
        for plan in product(sorted(members), repeat=partitions)
        if is_even(plan)
    )
    plan = assign(members, partitions, held)
    assert sum(held.get(n) in members and held[n] != m for n, m in plan.items()) == (
        least
    )


@given(names, st.integers(0, 20), holders, st.data())
def test_it_is_the_same_plan_while_it_is_carried_out(
    members: set[str], partitions: int, held: dict[int, str], data: st.DataObject
) -> None:
    plan = assign(members, partitions, held)
    moving = [n for n in plan if held.get(n) != plan[n]]
    halfway = dict(held)
    for number in data.draw(st.sets(st.sampled_from(moving))) if moving else ():
        halfway.pop(number, None)  # released, and nobody's yet
        if data.draw(st.booleans()):
            halfway[number] = plan[number]
    assert assign(members, partitions, halfway) == plan


@given(names, st.integers(0, 20), holders, st.sampled_from("abcdefgh"))
def test_who_joins_takes_its_share_and_moves_nothing_else(
    members: set[str], partitions: int, held: dict[int, str], joins: str
) -> None:
    before = assign(members, partitions, held)
    after = assign({*members, joins}, partitions, before)
    moved = [n for n in after if after[n] != before[n]]
    assert all(after[number] == joins for number in moved)
    assert len(moved) <= -(-partitions // len({*members, joins}))


@given(names, st.integers(0, 20), holders, st.data())
def test_who_leaves_moves_only_what_it_had(
    members: set[str], partitions: int, held: dict[int, str], data: st.DataObject
) -> None:
    before = assign(members, partitions, held)
    leaves = data.draw(st.sampled_from(sorted(members)))
    after = assign(members - {leaves}, partitions, before)
    assert all(after[n] == m for n, m in before.items() if m != leaves and after)
