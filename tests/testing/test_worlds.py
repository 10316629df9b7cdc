"""A fresh world for each run, and what it looks like."""

import enum
import threading
from collections import deque
from dataclasses import dataclass
from unittest.mock import Mock

import pytest
from tests.testing.sagas import Bank, Shop, Uncopyable

from coordinator.context import StepContext, in_step
from coordinator.model import Direction, StepId
from coordinator.testing import RehearsalError
from coordinator.testing.worlds import World, differences, look_at, shortened, text_of


class Counter:
    def __init__(self) -> None:
        self.count = 0


def make_counter() -> Counter:
    return Counter()


class Resettable(Counter):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()

    def reset(self) -> None:
        self.count = 0


class Slotted:
    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 1


class Colour(enum.Enum):
    RED = 1


@dataclass
class Pair:
    left: object
    right: object


@pytest.mark.parametrize("receiver", [Counter, Counter(), make_counter, Resettable()])
def test_each_run_gets_the_world_as_it_was(receiver: object) -> None:
    world = World(receiver)
    for _ in range(2):
        fresh = world.fresh()
        assert fresh.count == 0
        fresh.count = 7


def test_what_can_not_be_made_anew_is_told_by_its_attribute_with_the_remedy() -> None:
    shop = Shop()
    shop.stock.notes = Uncopyable()  # type: ignore[attr-defined]  # a fake has anything
    with pytest.raises(RehearsalError) as caught:
        World(shop)
    assert "Shop.stock.notes.lock can't be copied" in str(caught.value)
    assert "`lambda: Shop(...)`" in str(caught.value)
    assert "`reset()`" in str(caught.value)


def test_a_class_that_wants_arguments_is_told_how_to_pass_them() -> None:
    class Needy:
        def __init__(self, url: str) -> None:
            self.url = url

    with pytest.raises(RehearsalError, match=r"pass `lambda: Needy\(\.\.\.\)`"):
        World(Needy).fresh()
    with pytest.raises(RehearsalError, match="returned None"):
        World(lambda: None).fresh()


def test_the_same_object_in_the_place_of_a_fresh_one_is_told() -> None:
    shop = Shop()
    world = World(lambda: shop)
    world.fresh()
    with pytest.raises(RehearsalError, match="the same Shop was returned again"):
        world.fresh()


def test_a_reset_that_forgets_something_is_told_with_what_and_the_remedy() -> None:
    class Half(Shop):
        def reset(self) -> None:
            self.mails.clear()

    world = World(Half())
    shop = world.fresh()
    shop.bank.entries.append(5)
    shop.mails.append("o-1")
    with pytest.raises(RehearsalError) as caught:
        world.fresh()
    assert str(caught.value) == (
        "each run needs the same fresh world, but bank.entries is [5] at the beginning "
        "of this one, and was [] at the beginning of the first. Have Half.reset() put "
        "that back too, or pass `lambda: Half(...)`"
    )


def test_a_world_that_is_made_otherwise_each_time_is_told_with_the_remedy() -> None:
    numbers = iter(range(9))

    def make() -> Pair:
        return Pair(next(numbers), 0)

    world = World(make)
    world.fresh()
    with pytest.raises(RehearsalError, match=r"left is 1 .* was 0 .* count instead of"):
        world.fresh()


def test_a_reset_that_raises_is_told() -> None:
    class Away(Counter):
        def reset(self) -> None:
            raise ConnectionError("the database is away")

    with pytest.raises(
        RehearsalError, match=r"Away\.reset\(\) raised ConnectionError: the database"
    ):
        World(Away()).fresh()


def test_a_world_that_only_a_loop_can_make_is_told() -> None:
    class Later(Counter):
        async def reset(self) -> None: ...

    async def make() -> Counter:
        return Counter()

    for receiver in (Later(), make):
        with pytest.raises(RehearsalError, match=r"is async.*make it a plain def"):
            World(receiver).fresh()


def test_a_reset_has_fakes_forget_what_they_did_once() -> None:
    """The keys are the same in every run: they would answer for the one before."""

    class Resets(Shop):
        def __init__(self) -> None:
            super().__init__()
            self.others = [Bank()]

        def reset(self) -> None:
            self.bank.entries.clear()
            self.others[0].entries.clear()

    world = World(Resets())
    for _ in range(2):
        shop = world.fresh()
        with in_step(StepContext("k", 1, "0-1", StepId("a.b", 0), Direction.DO, 0)):
            shop.bank.charge("o-1", 5)
            shop.others[0].charge("o-1", 5)
        assert shop.bank.entries == shop.others[0].entries == [5]
        assert look_at(shop)["others"] == "[Bank(entries=[5])]"


def test_a_world_looks_like_its_attributes_by_path() -> None:
    shop = Shop()
    shop.bank.entries += [5, -5]
    assert look_at(shop) == {
        "stock.held": "[]",
        "bank.entries": "[5, -5]",
        "carrier.parcels": "[]",
        "carrier.late": "[]",
        "mails": "[]",
    }


def test_what_can_not_be_compared_is_left_out() -> None:
    world = Pair(Mock(), Pair(threading.Lock(), Pair(look_at, 3)))
    assert look_at(world) == {"right.right.right": "3"}


def test_a_world_that_contains_itself_is_looked_at_once() -> None:
    world = Pair(1, None)
    world.right = Pair(world, 2)
    assert look_at(world) == {"left": "1", "right.right": "2"}


def test_equal_values_have_equal_texts() -> None:
    assert text_of({"b": {2, 1}, "a": (1,)}) == text_of({"a": (1,), "b": {1, 2}})
    assert text_of([deque([1]), Colour.RED, Slotted()]) == (
        "[[1], <Colour.RED: 1>, Slotted(count=1)]"
    )
    assert text_of(object()) == text_of(object())
    assert text_of(Pair(1, "x")) == "Pair(left=1, right='x')"


def test_differences_are_paths() -> None:
    assert differences({"a": "1", "b": "2"}, {"b": "3", "c": "4"}) == ["a", "b", "c"]


def test_a_long_value_is_shortened_in_its_middle() -> None:
    assert shortened("x" * 300) == "x" * 300
    assert len(shortened("x" * 5000)) == 305
