"""The JSON codec: what Go wrote, what Go reads, and what neither may."""

import datetime as dt
import enum
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.cmdstream.helpers import (
    CODEC,
    VECTORS,
    AddCmd,
    CalcResult,
    EchoCmd,
    SleepCmd,
)

from cmdstream import DecodeError, EncodeError, JsonCodec, Registry, RegistryError
from cmdstream.codec import Decoded
from cmdstream.codecs.go_json import respell_floats
from cmdstream.codecs.json import JsonBody
from cmdstream.wire import write_size


def encode(value: object) -> bytes:
    """Encode *value* as the only registered type; give the body."""
    codec = JsonCodec(Registry([type(value)], []))
    found = codec.decode_command(codec.encode_command(value), 0)
    assert isinstance(found, Decoded)
    return found.body


def decode(kind: type, body: bytes) -> Any:
    """Decode *body* as the only registered type."""
    codec = JsonCodec(Registry([kind], []))
    found = codec.decode_command(b"\x00" + write_size(len(body)) + body, 0)
    assert isinstance(found, Decoded)
    assert found.body == body
    assert type(found.value) is kind
    return found.value


GO_JSON = VECTORS["go_json"]


def test_every_recorded_go_behaviour_is_driven() -> None:
    kinds = [entry["kind"] for entry in GO_JSON]
    assert kinds == [
        "go encoding/json struct (see text)",
        "go encoding/json NaN",
        *["go json.Unmarshal into struct{A int}"] * 12,
    ]


class GoStruct(msgspec.Struct):
    """The struct of the first recording."""

    I: int  # noqa: E741 -- Go's name
    F: float
    F2: float
    S: str
    B: bytes
    NB: bytes | None
    L: list[int]
    NL: list[int] | None
    M: dict[str, int]
    NM: dict[str, int] | None
    P: str | None
    D: int
    T: str
    Any: Any


def test_we_write_the_struct_that_go_wrote() -> None:
    value = GoStruct(
        I=2**60, F=1.0, F2=1e21, S='a"<\u2028\x01é', B=b"\x01\x02\xff", NB=None, L=[1],
        NL=None, M={"b": 1, "a": 2}, NM=None, P=None, D=1_500_000_000,
        T="2026-05-03T01:02:03.456789012Z", Any={"k": None},
    )  # fmt: skip
    body = bytes.fromhex(GO_JSON[0]["hex"])
    assert encode(value) == body
    assert decode(GoStruct, body) == value


class A(msgspec.Struct):
    """``struct{A int `json:"a"`}``."""

    A: int = msgspec.field(name="a")


@pytest.mark.parametrize("entry", GO_JSON[2:], ids=lambda entry: entry["input"])
def test_we_read_what_go_reads_and_refuse_what_go_refuses(
    entry: dict[str, str],
) -> None:
    # The recording shows the byte FF as the replacement character.
    body = b"\xff" if entry["input"] == "\ufffd" else entry["input"].encode()
    value, error = entry["outcome"].split(" err=")
    if error == "<nil>":
        assert f"A={decode(A, body).A}" == value
    else:
        with pytest.raises(DecodeError):
            decode(A, body)


class Floats(msgspec.Struct):
    many: list[float]
    maybe: float | None = None
    anything: Any = None


@pytest.mark.parametrize(
    "value",
    [
        Floats([float("nan")]),
        Floats([1.0], float("inf")),
        Floats([], None, {"a": (1, float("-inf"))}),
        float("nan"),
    ],
)
def test_nan_and_infinity_are_refused_as_in_go(value: object) -> None:
    assert GO_JSON[1]["input"] == "json: unsupported value: NaN"
    with pytest.raises(EncodeError, match="is not a JSON number"):
        encode(value)


def test_null_beside_floats_is_fine() -> None:
    value = Floats([1.0, 0.5], None, "null")
    assert encode(value) == b'{"many":[1,0.5],"maybe":null,"anything":"null"}'


@dataclass
class Order:
    """Fields with and without defaults, and a nested one."""

    Id: str
    cents: int = 5
    address: "Address | None" = None
    tags: list[str] = field(default_factory=list[str])


@dataclass
class Address:
    street: str
    Skip: bool = False


DEFAULTS = Order("x")


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b'{"Id":"x"}', DEFAULTS),
        (b'{"Id":"x","CENTS":7}', Order("x", 7)),
        (b'{"Id":"x","cents":6,"Cents":7}', Order("x", 7)),
        (b'{"Id":"x","Cents":7,"cents":6}', Order("x", 6)),
        (b'{"Id":"x","cent\xc5\xbf":7}', Order("x", 7)),
        (b'{"\xc4\xb0d":"y","Id":"x"}', DEFAULTS),
        ('{"Id":"x","address":{"street":"s","S\u212aip":true}}'.encode(),
         Order("x", 5, Address("s", Skip=True))),
        (b'{"Id":"x","address":{"STREET":"s"}}', Order("x", 5, Address("s"))),
        (b'{"Id":"x","address" : {"street":"s" , "skip" : true}}',
         Order("x", 5, Address("s", Skip=True))),
        (rb'{"Id":"x","\u0043ents":7}', Order("x", 7)),
        (rb'{"Id":"x","c\u0065nts":7}', Order("x", 7)),
        (rb'{"Id":"say \"cents\": 7"}', Order('say "cents": 7')),
        (rb'{"Id":"\u003c\\","unknown":{"CENTS":7}}', Order("<\\")),
        (b'{"Id":"x","cents":null,"tags":null,"address":null}', DEFAULTS),
        (b'{"cents":7}', Order("", 7)),
        (b"null", Order("")),
        (b'{"Id":"x","tags":["Cents"]}', Order("x", tags=["Cents"])),
    ],
)  # fmt: skip
def test_no_spelling_of_a_key_is_missed(body: bytes, value: Order) -> None:
    assert decode(Order, body) == value


NAMES = st.sampled_from(
    ["A", "a", "B", "b", r"\u0041", r"\u0061", "c", r"x\"a", "\u00e5", "AA"]
)


@given(st.lists(st.tuples(NAMES, st.integers(0, 9) | st.none()), max_size=6))
def test_the_fast_path_never_reads_otherwise_than_gos_rules(
    pairs: list[tuple[str, int | None]],
) -> None:
    body = ",".join(f'"{name}": {"null" if n is None else n}' for name, n in pairs)
    expected = {"A": 0, "B": 0}
    for name, number in pairs:
        key = {"A": "A", "a": "A", r"\u0041": "A", r"\u0061": "A", "B": "B", "b": "B"}
        if name in key and number is not None:
            expected[key[name]] = number
    assert decode(AddCmd, f"{{{body}}}".encode()) == AddCmd(**expected)


class Unsigned(msgspec.Struct):
    n: Annotated[int, msgspec.Meta(ge=0)]


class Wide(msgspec.Struct):
    """A name that no pattern is made for."""

    größe: int  # noqa: PLC2401 -- the point
    other: int = 3


class Colour(enum.Enum):
    RED = "red"


class Painted(msgspec.Struct):
    colour: Colour


class Keyed(msgspec.Struct):
    by_number: dict[int, str]


class Flag(bytes):
    pass


class Ratio(float):
    pass


class Loud(str):
    """Says something else when asked."""

    __slots__ = ()

    def __str__(self) -> str:
        return "LOUD"


class Holder(msgspec.Struct):
    name: Loud
    number: CalcResult
    thing: object = None


class Tree(msgspec.Struct):
    """A type that holds itself."""

    Name: str
    branches: "list[Tree]" = []


class When(msgspec.Struct):
    at: dt.datetime


class Loose(msgspec.Struct):
    thing: Any


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (EchoCmd("hé"), '"hé"'.encode()),
        (CalcResult(-5), b"-5"),
        (Ratio(2.0), b"2"),
        (Flag(b"\x01\x02"), b'"AQI="'),
        ("plain", b'"plain"'),
        (7, b"7"),
        (Unsigned(2**64 - 1), b'{"n":18446744073709551615}'),
        (Unsigned(10**18), b'{"n":1000000000000000000}'),
        (Wide(größe=1), '{"größe":1,"other":3}'.encode()),
        (Painted(Colour.RED), b'{"colour":"red"}'),
        (Keyed({2: "b", 1: "a"}), b'{"by_number":{"1":"a","2":"b"}}'),
        (Loud("quiet"), b'"quiet"'),
        (
            Tree("a", [Tree("b")]),
            b'{"Name":"a","branches":[{"Name":"b","branches":[]}]}',
        ),
        (Holder(Loud("x"), CalcResult(3)), b'{"name":"x","number":3,"thing":null}'),
        (
            When(dt.datetime(2026, 5, 3, tzinfo=dt.UTC)),
            b'{"at":"2026-05-03T00:00:00Z"}',
        ),
    ],
)
def test_values_have_the_body_that_go_would_write(value: object, body: bytes) -> None:
    assert encode(value) == body
    assert decode(type(value), body) == value


def test_a_bare_value_is_of_its_registered_type() -> None:
    assert isinstance(decode(Holder, b'{"name":"x","number":3}').name, Loud)
    assert decode(EchoCmd, b"null") == EchoCmd("")
    assert decode(CalcResult, b"null") == CalcResult(0)


def test_a_key_is_found_in_any_case_however_deep_it_is() -> None:
    body = b'{"NAME":"a","BRANCHES":[{"name":"b","branches":[{"nAME":"c"}]}]}'
    assert decode(Tree, body) == Tree("a", [Tree("b", [Tree("c")])])


def test_a_name_beyond_ascii_is_matched_in_any_case() -> None:
    assert decode(Wide, '{"GRÖSSE":1,"GRÖẞE":2,"OTHER":4}'.encode()) == Wide(2, 4)


def test_a_name_beyond_ascii_is_matched_where_another_hides_behind_a_default() -> None:
    assert decode(Wide, '{"größe":1, "OTHER":4}'.encode()) == Wide(1, 4)


@dataclass
class Unwritable:
    """Makes of a field, when it is read, what can't be written."""

    name: Any

    def __post_init__(self) -> None:
        self.name = self.__class__


def test_what_can_not_be_written_can_be_read() -> None:
    assert decode(Unwritable, b'{"name":1}').name is Unwritable


def test_a_field_without_a_zero_value_has_to_be_there() -> None:
    with pytest.raises(DecodeError, match="missing required field `colour`"):
        decode(Painted, b"{}")


@pytest.mark.parametrize(
    ("text", "microsecond"),
    [(b"456789012", 456789), (b"456789912", 456790), (b"5", 500000)],
)
def test_a_datetime_is_rounded_to_six_of_gos_nine_decimals(
    text: bytes, microsecond: int
) -> None:
    body = b'{"at":"2026-05-03T01:02:03.' + text + b'+02:00"}'
    assert decode(When, body).at.microsecond == microsecond


def test_the_zero_time_of_go_is_a_datetime() -> None:
    body = b'{"at":"0001-01-01T00:00:00Z"}'
    assert (
        decode(When, body)
        == decode(When, b"{}")
        == When(dt.datetime(1, 1, 1, tzinfo=dt.UTC))
    )
    assert encode(decode(When, body)) == body


NAIVE = dt.datetime(2026, 5, 3, 1, 2, 3)  # noqa: DTZ001 -- the point


@pytest.mark.parametrize(
    "value",
    [
        When(NAIVE),
        When(NAIVE.replace(microsecond=5)),
        Loose([{"at": NAIVE}]),
    ],
)
def test_a_time_without_a_zone_is_not_written(value: object) -> None:
    with pytest.raises(EncodeError, match="says no time zone, and Go reads none"):
        encode(value)


def test_a_text_that_looks_like_a_time_is_written() -> None:
    assert encode(Loose("T01:02:03")) == b'{"thing":"T01:02:03"}'


class Mixed(msgspec.Struct):
    n: int
    ratio: float = 0.0
    text: str = ""


@pytest.mark.parametrize("value", [AddCmd(1.5, 2), AddCmd(10 / 2, 2), Mixed(1.5, 2.5)])  # type: ignore[arg-type]  # the point
def test_a_fraction_is_not_written_where_go_has_an_int(value: object) -> None:
    with pytest.raises(EncodeError, match="has no JSON form"):
        encode(value)


@pytest.mark.parametrize(
    "value",
    [
        AddCmd(True, 2),
        AddCmd("1", 2),  # type: ignore[arg-type]  # the point, also of those below
        Mixed(1, True),
        Mixed(1, "0.5"),  # type: ignore[arg-type]
        Mixed(1, 0.5, 5),  # type: ignore[arg-type]
        Floats(["1"]),  # type: ignore[list-item]
    ],
)
def test_a_field_of_another_type_than_declared_is_not_written(value: object) -> None:
    with pytest.raises(EncodeError, match="has no JSON form"):
        encode(value)


def test_none_is_written_where_go_reads_null_as_its_zero_value() -> None:
    assert encode(Mixed(1, text=None)) == b'{"n":1,"ratio":0,"text":null}'  # type: ignore[arg-type]  # the point


def test_a_fraction_elsewhere_is_written() -> None:
    assert encode(Mixed(1, 2.5, "3.5")) == b'{"n":1,"ratio":2.5,"text":"3.5"}'
    assert encode(SleepCmd(1, "2.5")) == b'{"ms":1,"tag":"2.5"}'


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (CalcResult, b"9223372036854775808"),
        (CalcResult, b"true"),
        (CalcResult, b"1.0"),
        (CalcResult, b"1e2"),
        (EchoCmd, b"5"),
        (Flag, b'"***"'),
        (Ratio, b"1e999"),
        (When, b'{"at":"2026-05-03T01:02:03"}'),
        (When, b'{"at":"2026-05-03t01:02:03.5"}'),
        (When, b'{"at":"2026-05-03 01:02:03"}'),
        (When, rb'{"at":"2026-05-03T01:02:0\u0033"}'),
        (When, b'{"at":5}'),
        (Order, b'{"Id":"x","cents":"7"}'),
        (Order, b"[]"),
        (Order, b'{"Id":"x"} {}'),
        (Order, b'{"Id":' + b"[" * 100_000),
        (AddCmd, b'{"A":' + b"9" * 5000 + b"}"),
    ],
)
def test_what_go_refuses_is_refused(kind: type, body: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(kind, body)


@pytest.mark.parametrize("value", [2**63, CalcResult(-(2**63) - 1), Unsigned(2**64)])
def test_an_integer_that_go_cannot_read_is_not_written(value: object) -> None:
    with pytest.raises(EncodeError, match="integer out of range"):
        encode(value)


@dataclass
class Picky:
    """Its own checks raise what they like."""

    n: int

    def __post_init__(self) -> None:
        if self.n > 1:
            raise LookupError(f"no {self.n}")


def test_a_class_that_refuses_a_value_refuses_the_frame() -> None:
    assert decode(Picky, b'{"n":1}') == Picky(1)
    with pytest.raises(DecodeError, match="no 2"):
        decode(Picky, b'{"n":2}')


def test_text_that_is_not_unicode_is_not_written() -> None:
    with pytest.raises(EncodeError, match="has no JSON form"):
        encode(EchoCmd("\ud800"))


class Odd:
    """Nothing that msgspec knows."""


class HoldsOdd(msgspec.Struct):
    odd: Odd


class HoldsDuration(msgspec.Struct):
    took: list[dt.timedelta]


class Unknown(msgspec.Struct):
    thing: "NoSuchName"  # type: ignore[name-defined]  # noqa: F821 -- the point


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Odd, "Odd holds Odd, which has no JSON form"),
        (HoldsOdd, "HoldsOdd holds Odd"),
        (HoldsDuration, "use an int of nanoseconds"),
        (Unknown, "Unknown has no JSON form: name 'NoSuchName' is not defined"),
    ],
)
def test_a_type_without_a_json_form_is_refused_at_start_up(
    kind: type, reason: str
) -> None:
    with pytest.raises(RegistryError, match=reason):
        JsonCodec(Registry([kind], []))


def test_a_value_without_a_json_form_is_refused() -> None:
    with pytest.raises(EncodeError, match="Loose has no JSON form"):
        encode(Loose(Odd()))


class OddBody:
    def encode(self, value: object) -> bytes:
        del value
        return b"odd"

    def decode(self, body: bytes) -> object:
        assert body == b"odd"
        return Odd()


def test_a_type_that_msgspec_does_not_know_may_bring_its_body() -> None:
    codec = JsonCodec(Registry([Odd], []), bodies={Odd: OddBody()})
    assert codec.encode_command(Odd()) == b"\x00\x03odd"
    found = codec.decode_command(b"\x00\x03odd", 0)
    assert isinstance(found, Decoded)
    assert isinstance(found.value, Odd)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text()
    | st.floats(-1e15, 1e15),  # beyond, a float without a fraction reads as another int
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)  # fmt: skip


@given(plain)
def test_whatever_is_written_reads_back(thing: Any) -> None:
    body = encode(Loose(thing))
    assert decode(Loose, body) == Loose(thing)
    assert not set(body) & set(b"<>&\n")


class Cased(msgspec.Struct):
    Key: int = 7
    ratio: float = 0.5
    text: str = "-"
    inner: "Cased | None" = None
    more: dict[str, Any] = {}


scalars = st.sampled_from(
    ["1", "-5", "9223372036854775807", "9223372036854775808", "12345678901234567890123",
     '"9223372036854775808"', "[-9223372036854775809]",
     "1.0", "0.5", "1e21", "1e999", "1e-7", "null",
     "true", '"x"', '"\\u003c"', '"Key"', "[]"],
)  # fmt: skip
keys = st.sampled_from(
    ["Key", "key", "KEY", "\u212aey", "\\u004bey", "ratio", "Ratio", "text", "teXt",
     "", "inner", "INNER", "more", "mor\\u0065", "other", "a:b", ":"],
)  # fmt: skip


def written(pairs: list[tuple[str, str, str]]) -> str:
    inside = ",".join(f'"{key}"{space}:{value}' for key, space, value in pairs)
    return f"{{{inside}}}"


objects = st.recursive(
    scalars,
    lambda inner: st.lists(
        st.tuples(keys, st.sampled_from(["", " ", "\n"]), inner), max_size=5
    ).map(written),
    max_leaves=8,
)


def outcome(decode: Callable[[bytes], object], body: bytes) -> str:
    try:
        return repr(decode(body))
    except DecodeError:
        return "refused"


@given(objects)
@example('{"Key":1,"key":2}')
@example('{"Key":1,"inner":{"Key":1,"KEY" :2}}')
def test_the_quick_way_reads_a_body_as_the_rules_do(text: str) -> None:
    body = JsonBody(Cased)
    quick = outcome(body.decode, text.encode())
    assert quick == outcome(body._decode_by_the_rules, text.encode())


@pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 5000])
def test_a_number_that_nobody_wants_to_know_may_have_any_size(number: str) -> None:
    body = f'{{"KEY":1,"other":{number}}}'.encode()
    assert decode(Cased, body) == Cased(1)
    for key in ("Key", "ratio", "more"):
        with pytest.raises(DecodeError):
            decode(Cased, f'{{"KEY":1,"{key}":{number}}}'.encode())
    with pytest.raises(DecodeError):
        decode(Cased, f'{{"more":{{"x":{number}}}}}'.encode())


def test_an_empty_key_hides_no_number_beyond_int64() -> None:
    with pytest.raises(DecodeError, match="integer out of range"):
        decode(Cased, b'{"inner":{"":1,"Key":9223372036854775808}}')


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_float_is_spelled_as_go_does(value: float) -> None:
    assert encode(value) == respell_floats(msgspec.json.encode(value))


@given(st.binary(max_size=40))
def test_any_body_is_decoded_or_refused(body: bytes) -> None:
    for tag in range(5):
        frame = bytes((tag, len(body))) + body
        with suppress(DecodeError):
            assert isinstance(CODEC.decode_command(frame, 0), Decoded)


class Flat(msgspec.Struct):
    text: str
    count: int = 0


class Bounded(msgspec.Struct):
    text: Annotated[str, msgspec.Meta(max_length=3)]


class Choosy(msgspec.Struct):
    text: str

    def __post_init__(self) -> None:
        if self.text == "later":
            raise ValueError("is refused")


# Its property hides the field, which is what msgspec looks at.
Veiled: Any = msgspec.defstruct(
    "Veiled", [], bases=(Flat,), namespace={"text": property(lambda _self: "fine")}
)


def _choosy_later() -> Choosy:
    value = Choosy("now")
    value.text = "later"
    return value


def _veiled() -> object:
    value = Veiled("a")
    Flat.__dict__["text"].__set__(value, 5)
    return value


@pytest.mark.parametrize(
    "value",
    [
        Flat(cast("str", 1)),
        Flat("a", cast("int", "1")),
        Flat("a", True),
        Bounded("long"),
        _choosy_later(),
        _veiled(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_go_would_not_read_is_not_written_by_classes_of_plain_fields(
    value: object,
) -> None:
    with pytest.raises(EncodeError, match="has no JSON form"):
        JsonBody(type(value)).encode(value)


class Swapped(msgspec.Struct, rename={"text": "count", "count": "text"}):
    text: str
    count: int


def test_a_value_of_another_class_than_the_body_is_read_back() -> None:
    assert JsonBody(Flat).encode(Flat("a", 1)) == b'{"text":"a","count":1}'
    with pytest.raises(EncodeError, match="Flat has no JSON form"):
        JsonBody(Flat).encode(Swapped("a", 1))
