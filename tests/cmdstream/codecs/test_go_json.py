"""Go's rules, one by one."""

import datetime as dt
import json
import math
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import inspect

from cmdstream.codecs.go_json import escape_html, fold, parse, respell_floats, shape


def shaped(text: bytes, kind: Any) -> Any:
    return shape(parse(text), inspect.type_info(kind))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ID", "id"),
        ("kelvin", "\u212aelvin"),
        ("sum", "\u017fum"),
        ("ÄRGER", "ärger"),
        ("Σ", "ς"),
        ("ẞ", "ß"),
    ],
)
def test_keys_that_go_takes_for_the_same_fold_to_the_same(one: str, other: str) -> None:
    assert fold(one) == fold(other)


@pytest.mark.parametrize(("one", "other"), [("ß", "ss"), ("İ", "i"), ("a", "b")])
def test_keys_that_go_keeps_apart_fold_apart(one: str, other: str) -> None:
    assert fold(one) != fold(other)


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (1.0, "1"),
        (-1.5, "-1.5"),
        (100.0, "100"),
        (0.001, "0.001"),
        (1e-6, "0.000001"),
        (1e-7, "1e-7"),
        (1.25e-7, "1.25e-7"),
        (1e-10, "1e-10"),
        (1e20, "100000000000000000000"),
        (123456789012345680000.0, "123456789012345680000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
        (5e-324, "5e-324"),
        (123.456, "123.456"),
    ],
)
def test_floats_are_spelled_as_in_go(value: float, spelled: str) -> None:
    assert respell_floats(json.dumps(value).encode()).decode() == spelled


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_respelled_float_is_the_same_float(value: float) -> None:
    spelled = float(respell_floats(msgspec.json.encode(value)))
    assert spelled == value
    assert math.copysign(1, spelled) == math.copysign(1, value)


def test_numbers_inside_strings_are_left_alone() -> None:
    text = rb'{"1.0":"2.0 \" 3.0","a\\":[4.0,-5,6e2]}'
    assert respell_floats(text) == rb'{"1.0":"2.0 \" 3.0","a\\":[4,-5,600]}'


def test_html_is_escaped_and_nothing_else() -> None:
    assert escape_html('"<a>&é\u2028\u2029\u2027"'.encode()).decode() == (
        r'"\u003ca\u003e\u0026é\u2028\u2029' + '\u2027"'
    )


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[1,]", b"1 x", b"NaN", b"-Infinity", b"\xff", b'"\x01"'],
)
def test_what_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"Expect|Extra|JSON|range|control|Illegal"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'"a\xffb"', "a\ufffdb"),
        (b'"\xe2\x82"', "\ufffd\ufffd"),
        (rb'"\ud800"', "\ufffd"),
        (rb'"\ud83d\ude00"', "\U0001f600"),
        ('"é"'.encode(), "é"),
    ],
)
def test_bad_text_becomes_replacement_characters(text: bytes, value: str) -> None:
    assert shaped(text, str) == value


class Inner(msgspec.Struct):
    X: int
    Y: int = 7


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    X: int


class Cat(msgspec.Struct, tag="cat"):
    Name: str


class Dog(msgspec.Struct, tag="dog"):
    Name: str


class Named(msgspec.Struct):
    a: Literal["a", None]  # noqa: PYI061


class Row(msgspec.Struct, array_like=True):
    X: int


class Name(str):
    __slots__ = ()


class Count(int):
    pass


class Blob(bytes):
    pass


class Everything(msgspec.Struct):
    """Each sort of type once, none with a default."""

    Bool: bool
    Int: int
    Float: float
    Str: str
    Bytes: bytes
    List: list[int]
    Tuple: tuple[str, ...]
    Set: set[int]
    Dict: dict[str, int]
    Maybe: int | None
    Inner: Inner
    Any: Any
    Name: Name
    Count: Count


def test_missing_fields_take_gos_zero_values() -> None:
    assert shaped(b"{}", Everything) == {
        "Bool": False, "Int": 0, "Float": 0.0, "Str": "", "Bytes": "", "List": [],
        "Tuple": [], "Set": [], "Dict": {}, "Maybe": None, "Inner": {"X": 0},
        "Any": None, "Name": "", "Count": 0,
    }  # fmt: skip


@pytest.mark.parametrize("name", Everything.__struct_fields__)
def test_null_is_the_zero_value(name: str) -> None:
    assert shaped(json.dumps({name: None}).encode(), Everything) == shaped(
        b"{}", Everything
    )


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        (b"null", int, 0),
        (b"null", Inner, {"X": 0}),
        (b"null", int | None, None),
        (b"null", object, None),
        (b"null", Literal["a", None], None),  # noqa: PYI061
        (b'{"a":null}', Named, {"a": None}),
        (b"null", Row, None),  # has no zero value: left for msgspec to refuse
        (b'{"x":1}', Inner, {"X": 1}),
        (b'{"x":1,"X":2,"x":3}', Inner, {"X": 3}),
        (b'{"X":1,"x":null}', Inner, {"X": 1}),
        (b'{"X":1,"y":null}', Inner, {"X": 1}),
        (b'{"X":1,"Z":{"X":2}}', Inner, {"X": 1}),
        (b'{"X":1,"Z":2}', Strict, {"X": 1, "Z": 2}),
        (b"[1]", Inner, [1]),
        (b"[1,null]", list[int], [1, 0]),
        (b"1", list[int], 1),
        (b'[{"x":1}]', tuple[Inner, ...], [{"X": 1}]),
        (b'[{"x":1},2]', tuple[Inner, int], [{"X": 1}, 2]),
        (b"[1]", tuple[Inner, int], [1]),
        (b'{"k":{"x":1},"l":null}', dict[str, Inner], {"k": {"X": 1}, "l": {"X": 0}}),
        (b"[]", dict[str, Inner], []),
        (b'{"a":[{"b":1}]}', Any, {"a": [{"b": 1}]}),
        (b'"AQ\\r\\nI="', bytes, "AQI="),
        (b'"AQ\\nI="', Blob, "AQI="),
        (b"1", bytes, 1),
        (b'"2026-05-03T01:02:03+02:00"', dt.datetime, "2026-05-03T01:02:03+02:00"),
        (b'"2026-05-03T01:02:03z"', dt.datetime | None, "2026-05-03T01:02:03z"),
        (b"null", dt.datetime, "0001-01-01T00:00:00Z"),
        (b"1", dt.datetime, 1),
        (b'{"x":1}', Inner | None, {"X": 1}),
        (b'{"x":1}', Inner | list[int], {"X": 1}),
        (b"[1,null]", Inner | list[int], [1, 0]),
        (b'"AQ\\nI="', bytes | None, "AQI="),
        (b"5", int | str, 5),
        (b'"x"', int | str, "x"),
        (b'{"type":"dog","name":"Rex"}', Cat | Dog, {"type": "dog", "Name": "Rex"}),
        (b'{"type":"cow","name":"Ida"}', Cat | Dog, {"type": "cow", "name": "Ida"}),
        (b'{"k":null}', dict[str, int] | int, {"k": 0}),
    ],
)
def test_values_are_shaped_for_their_type(text: bytes, kind: Any, value: Any) -> None:
    assert shaped(text, kind) == value


@pytest.mark.parametrize("kind", [int, Count, int | None, list[int]])
def test_an_integer_beyond_int64_is_refused(kind: Any) -> None:
    for number in (2**63, -(2**63) - 1):
        text = f"[{number}]" if kind == list[int] else f"{number}"
        with pytest.raises(ValueError, match=f"integer out of range: {number}"):
            shaped(text.encode(), kind)


@pytest.mark.parametrize("kind", [dt.datetime, dt.datetime | None])
def test_a_time_without_a_zone_is_refused(kind: Any) -> None:
    for text in (b'"2026-05-03T01:02:03"', b'"2026-05-03T01:02:03.456"', b'""'):
        with pytest.raises(ValueError, match="time without a zone"):
            shaped(text, kind)


def test_an_unsigned_integer_has_64_bits() -> None:
    unsigned = Annotated[int, msgspec.Meta(ge=0)]
    assert shaped(b"18446744073709551615", unsigned) == 2**64 - 1
    for number in (-1, 2**64):
        with pytest.raises(ValueError, match="integer out of range"):
            shaped(str(number).encode(), unsigned)
