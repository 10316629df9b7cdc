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


def filled(*entries: tuple[str, int]) -> Door[int]:
    door = Door[int]()
    for type_, item in entries:
        door.push(type_, item)
    return door


def emptied(door: Door[int]) -> list[int]:
    items: list[int] = []
    while (item := door.pop(anybody)) is not None:
        items.append(item)
    return items


def test_nobody_comes_through_an_empty_door() -> None:
    assert len(Door[int]()) == 0
    assert Door[int]().pop(anybody) is None


def test_who_came_first_goes_first_whatever_the_type() -> None:
    door = filled(("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5))
    assert len(door) == 5
    assert emptied(door) == [1, 2, 3, 4, 5]
    assert len(door) == 0


def test_a_type_that_may_not_enter_is_passed_by_the_others() -> None:
    door = filled(("closed", 1), ("open", 2), ("closed", 3), ("open", 4))
    assert door.pop(lambda type_: type_ == "open") == 2
    assert door.pop(lambda type_: type_ == "open") == 4
    assert door.pop(lambda type_: type_ == "open") is None
    assert len(door) == 2
    assert emptied(door) == [1, 3]


def test_who_was_passed_has_kept_the_place() -> None:
    door = filled(("a", 1), ("b", 2))
    assert door.pop(lambda type_: type_ == "b") == 2
    door.push("b", 3)
    assert emptied(door) == [1, 3]


def test_who_leaves_is_gone_from_every_type_and_the_rest_stay_in_order() -> None:
    door = filled(("a", 1), ("b", 2), ("a", 3), ("c", 4), ("b", 5))
    door.remove(lambda item: item in {1, 4, 5})
    assert len(door) == 2
    assert emptied(door) == [2, 3]


def test_a_type_of_which_all_left_is_not_asked_about_again() -> None:
    door = filled(("a", 1), ("b", 2))
    door.remove(lambda item: item == 1)
    asked: list[str] = []

    def may_enter(type_: str) -> bool:
        asked.append(type_)
        return True

    assert door.pop(may_enter) == 2
    assert door.pop(may_enter) is None
    assert asked == ["b"]


def test_nobody_enters_while_all_types_are_closed() -> None:
    door = filled(("a", 1), ("b", 2))
    assert door.pop(nobody) is None
    assert len(door) == 2


operations = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.sampled_from("abc")),
        st.tuples(st.just("pop"), st.sampled_from(["", "a", "bc", "abc"])),
        st.tuples(st.just("remove"), st.sampled_from(["0", "1"])),
    )
)


@given(operations)
def test_it_is_a_list_that_is_searched(operations: list[tuple[str, str]]) -> None:
    door = Door[int]()
    model: list[tuple[str, int]] = []
    for number, (operation, which) in enumerate(operations):
        match operation:
            case "push":
                door.push(which, -number)  # what they are says nothing of their order
                model.append((which, -number))
            case "pop":
                first = next((e for e in model if e[0] in which), None)
                found = door.pop(partial(contains, which))
                assert found == (None if first is None else first[1])
                if first is not None:
                    model.remove(first)
            case _:
                leaving = {entry[1] for entry in model if entry[1] % 2 == int(which)}
                door.remove(leaving.__contains__)
                model = [entry for entry in model if entry[1] not in leaving]
        assert len(door) == len(model)
    assert emptied(door) == [item for _, item in model]
