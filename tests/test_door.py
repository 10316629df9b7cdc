"""Who waits at the door comes in in the order of coming, past those who may not."""

from functools import partial
from operator import contains

from hypothesis import given
from hypothesis import strategies as st

from coordinator.door import Door


def anybody(_type: str) -> bool:
    return True


def nobody(_type: str) -> bool:
    return False


def filled(*entries: tuple[str, int]) -> Door[str, str, int]:
    """Return a door at which each number waits for the thing that is called like it."""
    door = Door[str, str, int]()
    for type_, number in entries:
        door.push(type_, "", str(number), number)
    return door


def popped(door: Door[str, str, int], types: str) -> str | None:
    found = door.pop(partial(contains, types))
    return None if found is None else found[0]


def emptied(door: Door[str, str, int]) -> list[int]:
    things: list[int] = []
    while (found := door.pop(anybody)) is not None:
        thing, callers = found
        assert int(thing) in callers
        things.append(int(thing))
    return things


def test_nobody_comes_through_an_empty_door() -> None:
    assert Door[str, str, int]().count == 0
    assert Door[str, str, int]().pop(anybody) is None


def test_who_came_first_goes_first_whatever_the_type() -> None:
    door = filled(("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5))
    assert door.count == 5
    assert emptied(door) == [1, 2, 3, 4, 5]
    assert door.count == 0


def test_a_type_that_may_not_enter_is_passed_by_the_others() -> None:
    door = filled(("x", 1), ("o", 2), ("x", 3), ("o", 4))
    assert [popped(door, "o") for _ in range(3)] == ["2", "4", None]
    assert door.count == 2
    assert emptied(door) == [1, 3]


def test_who_was_passed_has_kept_the_place() -> None:
    door = filled(("a", 1), ("b", 2))
    assert popped(door, "b") == "2"
    door.push("b", "", "3", 3)
    assert emptied(door) == [1, 3]


def test_who_leaves_is_gone_and_the_rest_stay_in_order() -> None:
    door = filled(("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5))
    assert [door.leave(caller) for caller in (1, 4, 5)] == [True, True, True]
    assert not door.leave(4)
    assert door.count == 2
    assert emptied(door) == [2, 3]
    assert not door.leave(2)


def test_a_type_of_which_all_left_is_not_asked_about_again() -> None:
    door = filled(("a", 1), ("b", 2))
    door.leave(1)
    asked: list[str] = []

    def may_enter(type_: str) -> bool:
        asked.append(type_)
        return True

    assert door.pop(may_enter) == ("2", (2,))
    assert door.pop(may_enter) is None
    assert asked == ["b"]


def test_nobody_enters_while_all_types_are_closed() -> None:
    door = filled(("a", 1), ("b", 2))
    assert door.pop(nobody) is None
    assert door.count == 2


def test_an_equal_key_takes_no_second_place_and_lasts_until_its_last_caller() -> None:
    door = Door[str, str, int]()
    door.push("a", "k", "first", 1)
    door.push("a", "", "other", 2)
    door.push("a", "k", "again", 3)
    door.push("b", "k", "of another type", 4)
    assert door.count == 3
    door.leave(1)
    assert door.count == 3
    assert door.pop(anybody) == ("first", (3,))
    door.push("a", "k", "anew", 5)
    door.leave(5)
    door.push("a", "k", "later", 6)
    assert [door.pop(anybody) for _ in range(3)] == [
        ("other", (2,)),
        ("of another type", (4,)),
        ("later", (6,)),
    ]
    assert door.count == 0


operations = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from("abc"), st.sampled_from(["", "k"])),
        st.tuples(st.just("pop"), st.sampled_from(["", "a", "bc", "abc"]), st.just("")),
        st.tuples(st.just("leave"), st.integers(0, 30).map(str), st.just("")),
    )
)


@given(operations)
def test_it_is_a_list_that_is_searched(operations: list[tuple[str, str, str]]) -> None:
    door = Door[str, str, int]()
    model: list[tuple[str, str, str, list[int]]] = []
    for number, (operation, which, key) in enumerate(operations):
        match operation:
            case "push":
                door.push(which, key, str(number), number)
                equal = [e for e in model if e[:2] == (which, key) and key]
                if equal:
                    equal[0][3].append(number)
                else:
                    model.append((which, key, str(number), [number]))
            case "pop":
                first = next((e for e in model if e[0] in which), None)
                found = door.pop(partial(contains, which))
                assert found == (None if first is None else (first[2], (*first[3],)))
                if first is not None:
                    model.remove(first)
            case _:
                caller = int(which)
                assert door.leave(caller) is any(caller in e[3] for e in model)
                for entry in model:
                    if caller in entry[3]:
                        entry[3].remove(caller)
                model = [entry for entry in model if entry[3]]
        assert door.count == len(model)
