"""From annotations to forms: what each becomes, and what has none."""

import datetime as dt
import enum
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Annotated, Any, ClassVar, Generic, NewType, TypeVar

import msgspec
import pytest
from msgspec import Meta
from typing_extensions import TypeAliasType

from cmdstream import RegistryError
from cmdstream.codecs.mus_types import Float, Int, Time, Uint, form_of

T = TypeVar("T")


def through(entry: type, value: object) -> tuple[bytes, Any]:
    """Write *value* as an *entry*; give the bytes and what they read back as."""
    form, _ = form_of(entry, 10)
    out = bytearray()
    form.write(value, out)
    read, end = form.read(out, 0)
    assert end == len(out)
    return bytes(out), read


class Colour(enum.IntEnum):
    RED = 1
    BLUE = -2


class Mode(enum.StrEnum):
    FAST = "fast"


OrderId = NewType("OrderId", str)
Small = Annotated[int, Int(16)]
Alias = TypeAliasType("Alias", Small)  # ``type Alias = Small`` from Python 3.12 on


class Inner(msgspec.Struct, frozen=True):
    n: int


@dataclass(frozen=True)
class Outer:
    kind: ClassVar[str] = "not a field"
    flag: bool
    inner: Inner


UTC_TIME = dt.datetime(2026, 5, 3, 1, 2, 3, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("hint", "value", "data"),
    [
        (bool, True, "01"),
        (int, -3, "05"),
        (float, 1.5, "000000000000f83f"),
        (str, "hé", "0368c3a9"),
        (bytes, b"\xff", "01ff"),
        (dt.datetime, UTC_TIME, "8b9ef66900000000"),
        (Colour, Colour.BLUE, "03"),
        (Mode, Mode.FAST, "0466617374"),
        (OrderId, OrderId("x"), "0178"),
        (Small, -1, "01"),
        (Alias, -1, "01"),
        (Annotated[int, Meta(ge=0)], 2**64 - 1, "ffffffffffffffffff01"),
        (Annotated[int, Meta(ge=1, le=200)], 150, "9601"),
        (Annotated[int, Int()], -1, "01"),
        (Annotated[int, Int(8)], -1, "ff"),
        (Annotated[int, Int(8, "varint")], -1, "01"),
        (Annotated[int, Int(64, "positive")], 150, "9601"),
        (Annotated[int, Int(32, "raw")], 40, "28000000"),
        (Annotated[int, Uint()], 150, "9601"),
        (Annotated[int, Uint(8)], 255, "ff"),
        (Annotated[int, Uint(8, "varint")], 255, "ff01"),
        (Annotated[int, Uint(16, "raw")], 258, "0201"),
        (Annotated[Colour, Int(8)], Colour.RED, "01"),
        (Annotated[float, Float(32)], 1.5, "0000c03f"),
        (Annotated[float, Float(encoding="varint")], 1.5, "80808080808080fc3f"),
        (Annotated[dt.datetime, Time()], UTC_TIME, "8b9ef66900000000"),
        (Annotated[dt.datetime, Time("ms")], UTC_TIME, "f84e5beb9d010000"),
        (list[int], [1, -1, 300], "030201d804"),
        (list[list[bool]], [[], [True]], "02000101"),
        (tuple[str, ...], ("a",), "010161"),
        (dict[str, int], {"a": 1}, "01016102"),
        (dict[Colour, bytes], {Colour.RED: b""}, "010200"),
        (str | None, None, "01"),
        (str | None, "hi", "00026869"),
        (None | Inner, Inner(1), "0002"),
        (Inner, Inner(-1), "01"),
        (Outer, Outer(True, Inner(2)), "0104"),
        (list[Outer], [Outer(False, Inner(0))], "010000"),
    ],
)
def test_a_field_has_the_form_that_its_annotation_says(
    hint: Any, value: object, data: str
) -> None:
    holder = msgspec.defstruct("Holder", [("field", hint)])
    written, read = through(holder, holder(value))
    assert written.hex() == data
    assert read.field == value
    assert type(read.field) is type(value)


def test_the_time_zone_read_is_utc_whatever_was_written() -> None:
    holder = msgspec.defstruct("Holder", [("at", dt.datetime)])
    zone = dt.timezone(dt.timedelta(hours=2))
    written, read = through(holder, holder(UTC_TIME.astimezone(zone)))
    assert written.hex() == "8b9ef66900000000"
    assert read.at.tzinfo is dt.UTC


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("value", ["x", 5, 0.5, b"x", True, Text("x"), Colour.RED])
def test_a_bare_value_may_be_registered_itself(value: object) -> None:
    _, read = through(type(value), value)
    assert read == value
    assert type(read) is type(value)


@dataclass
class WithKeywords:
    a: int
    _: KW_ONLY
    b: str = "b"


class StructWithKeywords(msgspec.Struct, kw_only=True):
    b: str
    a: int


class Child(Inner, frozen=True):
    more: str = ""


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (WithKeywords(1, b="x"), "020178"),
        (StructWithKeywords(a=1, b="x"), "017802"),
        (Child(1, "x"), "020178"),
    ],
)
def test_fields_have_the_order_of_their_declaration(value: object, data: str) -> None:
    written, read = through(type(value), value)
    assert written.hex() == data
    assert read == value


class Tree(msgspec.Struct):
    name: str
    branches: "list[Tree]" = []
    parent: "Tree | None" = None


class Forest(msgspec.Struct):
    trees: dict[str, Tree]
    more: Tree


class Twice(msgspec.Struct):
    one: Inner
    other: Inner


@pytest.mark.parametrize(
    ("entry", "is_recursive"),
    [(Tree, True), (Forest, True), (Twice, False), (Outer, False), (int, False)],
)
def test_a_type_that_may_hold_itself_is_known_for_it(
    entry: type, is_recursive: bool
) -> None:
    assert form_of(entry, 10)[1] is is_recursive


def test_a_type_that_may_hold_itself_is_read_and_written() -> None:
    tree = Tree("a", [Tree("b"), Tree("c", parent=Tree("d"))])
    assert through(Tree, tree)[1] == tree
    assert through(Forest, Forest({"x": tree}, tree))[1] == Forest({"x": tree}, tree)


@pytest.mark.parametrize(
    ("hint", "value", "reason"),
    [
        (Annotated[int, Meta(ge=1)], 0, "Expected `int` >= 1"),
        (Annotated[int, Meta(le=200)], 201, "Expected `int` <= 200"),
        (Annotated[Colour, Meta(gt=0)], Colour.BLUE, "Expected `int` >= 1"),
        (Annotated[str, Meta(min_length=2)], "x", "length >= 2"),
        (Annotated[Text, Meta(pattern="^a")], Text("b"), "matching regex"),
        (Annotated[list[Inner], Meta(max_length=1)], [Inner(1)] * 2, "length <= 1"),
        (list[Annotated[float, Meta(lt=1)]], [0.5, 1.5], "Expected `float` < 1"),
    ],
)
def test_constraints_are_checked_when_a_value_is_read(
    hint: Any, value: object, reason: str
) -> None:
    holder = msgspec.defstruct("Holder", [("field", hint)])
    with pytest.raises(msgspec.ValidationError, match=reason):
        through(holder, holder(value))


def test_what_keeps_its_constraints_is_read() -> None:
    hint: Any = Annotated[list[Inner], Meta(max_length=2, description="two at most")]
    holder = msgspec.defstruct("Holder", [("field", hint)])
    assert through(holder, holder([Inner(1)]))[1].field == [Inner(1)]


class Odd:
    """Nothing that has fields."""


class Empty(msgspec.Struct):
    pass


class HoldsEmpties(msgspec.Struct):
    one: Empty
    other: Empty


class Knot(msgspec.Struct):
    knot: "Knot"


class Ping(msgspec.Struct):
    pong: "Pong"


class Pong(msgspec.Struct):
    ping: Ping


class Unknown(msgspec.Struct):
    thing: "NoSuchName"  # type: ignore[name-defined]  # noqa: F821 -- the point


@dataclass
class Computed:
    n: int
    twice: int = field(init=False)


class Box(msgspec.Struct, Generic[T]):
    thing: T


@pytest.mark.parametrize(
    ("hint", "reason"),
    [
        (Odd, "Holder holds Odd, which has no MUS form: it is neither a dataclass"),
        (type(None), "holds NoneType"),
        (Any, "holds Any, which has no MUS form"),
        (object, "holds object"),
        (complex, "holds complex"),
        (dt.timedelta, "use an int of nanoseconds"),
        (dt.date, "holds date"),
        (int | str, r"holds int \| str, which has no MUS form: a union can only be T"),
        (int | str | None, r"holds int \| str \| NoneType"),
        (list, "holds list, which has no MUS form: say of what, and of one type"),
        (tuple[int, str], r"holds tuple\[int, str\]"),
        (dict, "holds dict"),
        (set[int], r"holds set\[int\], which has no MUS form"),
        (dict[tuple[int, ...], int], "its keys are no scalars"),
        (dict[Inner, int], "its keys are no scalars"),
        (dict[str | None, int], "its keys are no scalars"),
        (list[Empty], r"its elements take no bytes"),
        (tuple[HoldsEmpties, ...], "its elements take no bytes"),
        (Knot, "holds Knot, which has no MUS form: it holds itself: use T | None"),
        (Ping, "it holds itself"),
        (Unknown, "name 'NoSuchName' is not defined"),
        (Computed, "twice cannot be given to __init__"),
        (Box[int], "holds ~T, which has no MUS form: it is no class"),
        (Annotated[str, Int(32)], r"\[Int\(.*\)\] does not go with it"),
        (Annotated[bool, Uint(8)], "does not go with it"),
        (Annotated[int, Float(32)], "does not go with it"),
        (Annotated[int, Time("s")], "does not go with it"),
        (Annotated[dt.datetime, Int(64)], "does not go with it"),
        (Annotated[int, Int(8), Int(16)], "does not go with it"),
    ],
)
def test_what_has_no_form_is_refused_and_named(hint: Any, reason: str) -> None:
    holder = msgspec.defstruct("Holder", [("field", hint)])
    with pytest.raises(RegistryError, match=reason):
        form_of(holder, 10)


@pytest.mark.parametrize("entry", [Odd, list, object, Knot])
def test_what_has_no_form_cannot_be_registered_itself(
    entry: Callable[..., object],
) -> None:
    with pytest.raises(RegistryError, match="has no MUS form"):
        form_of(entry, 10)  # type: ignore[arg-type]  # each is a class
