"""The registry."""

from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from tests.cmdstream.messages import Cmd1

from cmdstream import EncodeError, Registry, RegistryError, ResultType


class Number(int):
    """A result without fields."""


@dataclass
class Part:
    value: int
    last: bool


class Child(Part):
    """Inherits the field that its rule names."""


class Slotted(msgspec.Struct):
    done: bool


def test_tags_follow_the_order_of_registration() -> None:
    registry = Registry([str, Number], [Part, Number])
    assert registry.commands == (str, Number)
    assert registry.results == (Part, Number)
    assert registry.numbered_commands() == {0: str, 1: Number}
    assert registry.numbered_results() == {0: Part, 1: Number}
    assert registry.numbered_commands(1) == {1: str, 2: Number}


def test_types_may_have_numbers_of_ones_choice() -> None:
    results: dict[int, Any] = {0: ResultType(Part, "last"), 2: Number}
    registry = Registry({7: str, 300: Number}, results)
    assert registry.commands == (str, Number)
    for first in (0, 1):
        assert registry.numbered_commands(first) == {7: str, 300: Number}
        assert registry.numbered_results(first) == {0: Part, 2: Number}
    assert not registry.is_last(Part(1, last=False))


@pytest.mark.parametrize("number", [-1, 2**63, "1", 1.0])
def test_a_number_that_no_frame_can_carry_is_refused(number: Any) -> None:
    with pytest.raises(RegistryError, match=f"command number {number!r} is no integer"):
        Registry({number: str}, [])
    with pytest.raises(RegistryError, match=f"result number {number!r} is no integer"):
        Registry([], {number: Part})


def test_a_result_is_the_last_unless_a_rule_says_otherwise() -> None:
    assert Registry([], [Number]).is_last(Number(1))


@pytest.mark.parametrize(
    ("rule", "result", "is_last"),
    [
        (ResultType(Number, last_one=True), Number(1), True),
        (ResultType(Number, last_one=False), Number(1), False),
        (ResultType(Number, lambda number: number > 2), Number(1), False),
        (ResultType(Number, lambda number: number > 2), Number(3), True),
        (ResultType(Part, "last"), Part(1, last=False), False),
        (ResultType(Part, "last"), Part(1, last=True), True),
        (ResultType(Child, "last"), Child(1, last=True), True),
        (ResultType(Slotted, "done"), Slotted(done=False), False),
    ],
)
def test_a_rule_decides_by_type_field_or_function(
    rule: ResultType[Any], result: object, is_last: bool
) -> None:
    assert Registry([], [rule]).is_last(result) is is_last


def test_a_type_listed_twice_is_refused() -> None:
    with pytest.raises(RegistryError, match="command 2 is str, as is command 0"):
        Registry([str, int, str], [])
    with pytest.raises(RegistryError, match="result 1 is Number, as is result 0"):
        Registry([], [Number, ResultType(Number)])


def test_what_is_not_a_class_is_refused() -> None:
    commands: list[Any] = ["EchoCmd"]
    with pytest.raises(RegistryError, match="command 0 is not a class: 'EchoCmd'"):
        Registry(commands, [])


def test_a_rule_about_a_field_that_is_not_there_is_refused() -> None:
    with pytest.raises(RegistryError, match="Part has no 'final'"):
        Registry([], [ResultType(Part, "final")])


def test_an_unregistered_type_has_no_rule() -> None:
    with pytest.raises(EncodeError, match="str is not a registered result: Number"):
        Registry([], [Number]).is_last("x")
    with pytest.raises(EncodeError, match="str is not a registered result: none"):
        Registry([], []).is_last("x")


OTHERS = [
    Registry([Number, str], [Part, Slotted]),
    Registry([str, Number], [Slotted, Part]),
    Registry([str], [Part, Slotted]),
    Registry([str, Number], [Number, Part, Slotted]),
    Registry({0: str, 2: Number}, [Part, Slotted]),
    Registry([str, Number], [Part, msgspec.defstruct("Slotted", ["over"])]),
]


@pytest.mark.parametrize("other", OTHERS, ids=range(len(OTHERS)))
def test_a_fingerprint_tells_registries_apart_that_would_misread_each_other(
    other: Registry,
) -> None:
    """W-D8: Go takes one type for another, and nobody notices."""
    registry = Registry([str, Number], [Part, Slotted])
    assert registry.fingerprint() != other.fingerprint()


def test_a_fingerprint_is_the_same_in_every_process() -> None:
    registry = Registry([str, Number], [ResultType(Part, "last"), Slotted])
    assert (
        registry.fingerprint()
        == Registry({0: str, 1: Number}, [Part, Slotted]).fingerprint()
    )
    assert registry.fingerprint() == "c2e85f351684"


def test_the_fields_of_a_message_are_in_its_fingerprint() -> None:
    registry = Registry([Cmd1], [])
    assert registry.fingerprint() == Registry([Cmd1], []).fingerprint()
    assert registry.fingerprint() != Registry([type("Cmd1", (), {})], []).fingerprint()
