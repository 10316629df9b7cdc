"""The part of a value that is to blame is found, and named as one would write it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest

from coordinator.culprits import DEPTH_MAX, find_change, find_unstorable, show


@dataclass
class Line:
    price: Any


class Parcel(msgspec.Struct):
    size: Any


class Slotted:
    __dataclass_fields__: Mapping[str, object] = {"gone": None}


def is_storable(value: object) -> bool:
    return "bad" not in repr(value)


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ("bad", ""),
        (["ok", "bad"], "[1]"),
        ({"a": ("ok", {"b": "bad"})}, "['a'][1]['b']"),
        ([Line(Parcel("bad"))], "[0].price.size"),
        ({"bad"}, "{…}"),
        ({"bad": 1}, ""),
        (Line("ok"), ""),
    ],
)
def test_what_is_not_storable_is_the_innermost_part(value: object, where: str) -> None:
    found, _, _ = find_unstorable(value, is_storable)
    assert found == where


def test_a_value_that_holds_itself_is_searched_so_deep_and_no_deeper() -> None:
    endless: list[Any] = []
    endless.append(endless)
    where, part, _ = find_unstorable(endless, lambda _: False)
    assert where == "[0]" * DEPTH_MAX
    assert part is endless


def test_a_class_and_a_field_without_a_value_have_no_parts() -> None:
    for value in (Line, Parcel, Slotted()):
        assert find_unstorable(value, lambda _: False) == ("", value, None)


@pytest.mark.parametrize(
    ("value", "back", "where"),
    [
        ((1,), [1], ""),
        ([1, (2,)], [1, [2]], "[1]"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "['a'][1]"),
        ({"a": 1}, {"b": 1}, ""),
        ([1], [1, 2], ""),
        ([], [1], ""),
        (Line((1,)), Line([1]), ".price"),
        (1, 2, ""),
        (math.nan, 1.0, ""),
    ],
)
def test_a_change_is_found_where_it_is(value: object, back: object, where: str) -> None:
    found = find_change(value, back)
    assert found is not None
    assert found[0] == where


@pytest.mark.parametrize(
    ("value", "back"),
    [(math.nan, math.nan), ([math.nan], [float("nan")]), ({"a": 1}, {"a": 1})],
)
def test_what_came_back_has_no_change(value: object, back: object) -> None:
    assert find_change(value, back) is None


def test_plain_values_are_shown_and_others_named() -> None:
    assert show("a") == "str 'a'"
    assert show((1, 2)) == "tuple (1, 2)"
    assert len(show("x" * 1000)) < 50
    assert show(Line(object())) == "Line"
