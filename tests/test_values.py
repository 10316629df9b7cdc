"""Values come back as their types say, are refused by name, or are refused at once."""

import asyncio
import contextlib
import enum
import functools
import math
import typing
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Generator
from dataclasses import dataclass, make_dataclass
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Optional, TypedDict, TypeVar

import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import values
from coordinator.errors import CommandTypeError, DecodeError, EncodeError, Refused

if TYPE_CHECKING:
    from coordinator.saga import Verdict  # exists for the type checker only

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: int


class Options(TypedDict):
    size: int


class Item(msgspec.Struct, frozen=True):
    sku: str
    cents: int = 0


class Cash(msgspec.Struct, tag="cash"):
    amount: Decimal


class Card(msgspec.Struct, tag="card"):
    number: str


@dataclass
class Order:
    id: uuid.UUID
    items: list[Item]
    at: datetime
    paid: Cash | Card
    where: Point
    options: Options
    colour: Colour = Colour.RED
    note: str | None = None
    parent: Optional["Order"] = None


class Model(pydantic.BaseModel):
    at: datetime
    price: Decimal
    tags: set[str] = set()
    inner: "Model | None" = None


@dataclass
class WithModel:
    model: Model
    more: list[Model]


@dataclass
class Page(Generic[T]):
    entries: list[T]


class Unstorable:
    """Neither a dataclass nor anything else that is known."""


NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
ORDER = Order(
    uuid.UUID(int=7),
    [Item("s-7", 1999), Item("s-8")],
    NOON,
    Cash(Decimal("19.990")),
    Point(1, 2),
    {"size": 3},
    parent=Order(
        uuid.UUID(int=6), [], NOON, Card("4711"), Point(0, 0), {"size": 0}, note=""
    ),
)
MODEL = Model(at=NOON, price=Decimal("1.50"), tags={"a"}, inner=None)
NESTED = Model(at=NOON, price=Decimal(2), inner=MODEL)


# Round trips.


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (None, None),
        (None, Any),
        (None, int | None),
        (True, bool),
        (-(2**63), int),
        (2**64 - 1, int),
        (0.1, float),
        (float("inf"), float),
        ("text \U0001f600", str),
        (b"\x00\xff", bytes),
        ([1, "a"], list[int | str]),
        ((1, "a"), tuple[int, str]),
        ((1, 2, 3), tuple[int, ...]),
        ({1, 2}, set[int]),
        (frozenset({"a"}), frozenset[str]),
        ({"a": [1]}, dict[str, list[int]]),
        ({1: "a"}, dict[int, str]),
        (Colour.RED, Colour),
        (Level.LOW, Level),
        (Point(1, 2), Point),
        ({"size": 3}, Options),
        (Item("s-7", 1), Item),
        (Card("4711"), Cash | Card),
        (ORDER, Order),
        ([ORDER], list[Order]),
        (NOON, datetime),
        (datetime(2026, 1, 1), datetime),  # noqa: DTZ001 -- a naive one stays so
        (NOON.astimezone(timezone(timedelta(hours=2))), datetime),
        (timedelta(seconds=1.5), timedelta),
        (uuid.UUID(int=1), uuid.UUID),
        (Decimal("1.10"), Decimal),
        (MODEL, Model),
        (NESTED, Model),
        (WithModel(MODEL, [NESTED]), WithModel),
        ([MODEL], list[Model]),
        (Page([Item("a")]), Page[Item]),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_value_of_a_declared_type_comes_back_equal(value: Any, type_: Any) -> None:
    values.require_storable(type_, "it")
    data, back = values.round_trip(value, type_)
    assert back == value
    assert type(back) is type(value)
    assert values.decode(data, type_) == value
    assert values.encode(back) == data


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(plain)
def test_a_plain_value_needs_no_declared_type(value: object) -> None:
    data, back = values.round_trip(value, Any)
    assert back == value
    assert values.decode(data, Any) == value


def test_what_is_stored_of_none_is_one_byte() -> None:
    assert values.encode(None) == values.NONE == b"\xc0"
    assert values.round_trip(None, None) == (b"\xc0", None)
    assert values.decode(b"\xc0", None) is None


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {1},
        Item("a"),
        Point(1, 2),
        ORDER,
        MODEL,
        Colour.RED,
        Decimal(1),
        {"a": (1,)},
    ],
    ids=lambda value: type(value).__name__,
)
def test_undeclared_what_would_come_back_as_something_else_is_refused(
    value: object,
) -> None:
    name = type(value).__qualname__
    with pytest.raises(EncodeError, match="declare the type that is ret") as caught:
        values.round_trip(value, Any)
    assert str(caught.value).startswith(f"{name} would come back as something else: ")


def test_what_would_come_back_as_something_else_is_named_with_its_place() -> None:
    with pytest.raises(EncodeError) as caught:
        values.round_trip({"parcels": [{"size": (3, 4)}]}, Any)
    assert "['parcels'][0]['size'] is tuple (3, 4), and would be list" in str(
        caught.value
    )


def test_declared_as_object_it_is_as_good_as_undeclared() -> None:
    def gives() -> object:
        """Return whatever."""

    assert values.return_type(gives) is Any


def test_undeclared_a_nan_comes_back_though_it_equals_nothing() -> None:
    _, back = values.round_trip([math.nan], Any)
    assert math.isnan(back[0])


def test_declared_a_value_is_what_its_bytes_say_in_the_first_run_too() -> None:
    assert values.round_trip((1, 2), list[int])[1] == [1, 2]
    assert values.round_trip({"a": (1,)}, dict[str, Any])[1] == {"a": [1]}
    assert values.round_trip(Level.LOW, Any)[1] == 1


@pytest.mark.parametrize(
    ("value", "type_"),
    [
        (None, int),
        ("a", int),
        ({"sku": 1}, Item),
        ({"price": "x", "at": "y"}, Model),
        (Card("4711"), Item),
        (1, Unstorable),
        (1, object),
    ],
    ids=str,
)
def test_a_value_that_does_not_fit_its_type_is_refused(value: Any, type_: Any) -> None:
    with pytest.raises(
        EncodeError, match=r"does not come back as .*, which is declared"
    ):
        values.round_trip(value, type_)


endless: list[Any] = []
endless.append(endless)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Unstorable(), "Unstorable"),
        ([Unstorable()], "Unstorable"),
        (Unstorable, "type"),
        (Model, "ModelMetaclass"),
        (len, "builtin_function_or_method"),
        (2**64, "int"),
        ("\ud800", "str"),
        (endless, "list"),
        (1j, "complex"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_can_not_be_stored_is_refused_by_its_name(value: Any, name: str) -> None:
    with pytest.raises(EncodeError, match="can't be stored") as caught:
        values.encode(value)
    assert name in str(caught.value)


def test_what_can_not_be_stored_is_named_with_its_place_and_what_to_do() -> None:
    with pytest.raises(EncodeError) as caught:
        values.encode({"lines": [1, Item("a"), {"big": 2**64}]})
    said = "dict can't be stored, for ['lines'][2]['big'] is int 18446744073709551616: "
    assert str(caught.value).startswith(said)
    with pytest.raises(EncodeError) as caught:
        values.encode([Unstorable()])
    assert str(caught.value) == (
        "list can't be stored, for [0] is Unstorable: Unstorable is neither a "
        "dataclass, a msgspec Struct, a Pydantic model nor a plain type; return one of "
        "these instead"
    )


@pytest.mark.parametrize(
    ("data", "type_"),
    [
        (b"", Any),
        (b"\xc1", Any),
        (b"\xc0", int),
        (b"\xc0\xc0", Any),
        (b"\xa1a", int),
        (b"\x80", Item),
        (b"\x80", Model),
        (b"\x01", Unstorable),
        (b"\x91" * 100_000, Any),
    ],
)
def test_bytes_that_fit_no_value_of_the_type_are_refused(
    data: bytes, type_: Any
) -> None:
    with pytest.raises(DecodeError, match="what is stored does not fit"):
        values.decode(data, type_)


@given(st.binary(max_size=30), st.sampled_from([Any, int, Order, Model, None]))
def test_any_bytes_are_decoded_or_refused(data: bytes, type_: Any) -> None:
    with contextlib.suppress(DecodeError):
        values.decode(data, type_)


@pytest.mark.parametrize("annotation", ["Missing", "collections.Missing", "not a type"])
def test_a_type_that_can_not_be_resolved_is_refused_as_one_that_does_not_fit(
    annotation: str,
) -> None:
    class_ = make_dataclass("Lost", [("x", annotation)])
    with pytest.raises(DecodeError, match="does not fit Lost"):
        values.decode(b"\x80", class_)
    with pytest.raises(EncodeError, match="Lost does not come back as Lost"):
        values.round_trip(class_(1), class_)


# Refused at the start.


@dataclass
class Holder:
    """A plain class in the depth."""

    fields: dict[str, tuple[list[Unstorable | None], ...]]


@dataclass
class Tree:
    """Leads back to itself."""

    children: "list[Tree]"
    leaf: Model | None = None


@pytest.mark.parametrize(
    ("type_", "name"),
    [
        (Unstorable, "Unstorable"),
        (Holder, "Unstorable"),
        (Page[Unstorable], "Unstorable"),
        (object, "object"),
        (Callable[[], int], "Callable"),
        (Awaitable[int], "Awaitable"),
        (dict[str, Unstorable] | None, "Unstorable"),
        (Item | Order, "Item"),
        (make_dataclass("Lost", [("x", "Missing")]), "Missing"),
        (make_dataclass("Lost", [("x", "collections.Missing")]), "collections"),
        (make_dataclass("Lost", [("x", "not a type")]), "not a type"),
    ],
    ids=str,
)
def test_a_type_that_does_not_round_trip_is_refused_by_name(
    type_: Any, name: str
) -> None:
    with pytest.raises(
        CommandTypeError, match=r"^command Pay can't be written"
    ) as caught:
        values.require_storable(type_, "command Pay")
    assert name in str(caught.value)


def test_a_union_whose_members_look_different_can_be_stored() -> None:
    values.require_storable(Item | Point, "it")


def test_a_type_that_contains_itself_is_looked_through_once() -> None:
    values.require_storable(Tree, "it")
    values.require_storable(Any, "it")
    tree = Tree([Tree([], MODEL)])
    assert values.round_trip(tree, Tree)[1] == tree


# What a function declares.


async def asynchronous(_: int) -> Item: ...  # type: ignore[empty-body]


def plain_function(_: int) -> list[Item]: ...  # type: ignore[empty-body]


def says_none() -> None: ...


def says_nothing():  # type: ignore[no-untyped-def]  # noqa: ANN201 -- that is the point
    ...


def quoted() -> "Item": ...  # type: ignore[empty-body]


def lost() -> "Verdict": ...  # type: ignore[empty-body]


def lost_parameter(_: "Verdict") -> "Item": ...  # type: ignore[empty-body]


def lost_attribute() -> Any: ...


def no_annotation() -> Any: ...


lost_attribute.__annotations__["return"] = "enum.Missing"
no_annotation.__annotations__["return"] = "not a type"


def gives_awaitable() -> Awaitable[Item]: ...  # type: ignore[empty-body]


def gives_coroutine() -> Coroutine[Any, Any, Item]: ...  # type: ignore[empty-body]


def gives_future() -> "asyncio.Future[Item]": ...  # type: ignore[empty-body]


def gives_generator() -> Generator[int, None, Item]: ...  # type: ignore[empty-body]


def gives_any_awaitable() -> Any: ...


gives_any_awaitable.__annotations__["return"] = Awaitable


def constrained() -> typing.Annotated[int, msgspec.Meta(gt=0)]: ...  # type: ignore[empty-body]


@functools.wraps(asynchronous)
def wrapped(*args: Any) -> Any:
    return asynchronous(*args)


class Gateway:
    async def method(self) -> Item: ...  # type: ignore[empty-body]

    @classmethod
    def of_class(cls) -> Item: ...  # type: ignore[empty-body]

    @staticmethod
    def static() -> Item: ...  # type: ignore[empty-body]

    async def __call__(self) -> Item: ...  # type: ignore[empty-body]


class Unhashable(Gateway):
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return True


PLAIN_DICT: dict[str, int] = {}
FUNCTIONS: list[tuple[Any, Any]] = [
    (asynchronous, Item),
    (plain_function, list[Item]),
    (says_none, None),
    (says_nothing, Any),
    (quoted, Item),
    (lost, Any),
    (lost_parameter, Item),
    (lost_attribute, Any),
    (no_annotation, Any),
    (gives_awaitable, Item),
    (gives_coroutine, Item),
    (gives_future, Item),
    (gives_generator, Generator[int, None, Item]),
    (gives_any_awaitable, Any),
    (constrained, int),
    (wrapped, Item),
    (Gateway().method, Item),
    (Gateway.method, Item),
    (Gateway.of_class, Item),
    (Gateway.static, Item),
    (Gateway(), Item),
    (Unhashable(), Item),
    (functools.partial(asynchronous, 1), Item),
    (functools.partial(functools.partial(Gateway().method)), Item),
    (functools.partial(Gateway()), Item),
    (len, Any),
    (PLAIN_DICT.get, Any),
    (Item, Any),
    (lambda: 1, Any),
]


@pytest.mark.parametrize(
    ("function", "type_"),
    FUNCTIONS,
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_what_a_function_declares_to_return_is_found(
    function: Callable[..., Any], type_: Any
) -> None:
    assert values.return_type(function) == type_
    assert values.return_type(function) == type_  # remembered, or found again


def test_what_a_function_of_a_function_declares_is_not_found_but_no_accident() -> None:
    @dataclass
    class Local:
        x: int

    def function() -> "Local": ...  # type: ignore[empty-body]

    assert values.return_type(function) is Any


def test_the_object_of_a_method_is_not_kept_alive_by_what_is_remembered() -> None:
    class Watched(Gateway):
        gone = 0

        def __del__(self) -> None:
            Watched.gone += 1

    values.return_type(Watched().method)
    values.return_type(Watched())
    assert Watched.gone == 2


# Refusals.


class Declined(Refused):
    """Has more to say, and an __init__ of its own."""

    def __init__(self, code: int, *, retryable: bool) -> None:
        super().__init__(f"declined with {code}", {"code": code})
        self.code = code
        self.retryable = retryable
        self.tags = ["a", {"b": 1}]
        self.raw = object()
        self.pair = (1, 2)


@dataclass
class Empty(Refused):
    """A dataclass calls no __init__ but its own."""

    sku: str
    left: int = 0


class Nested:
    class Deep(Refused):
        pass


def reloaded(error: Refused) -> Refused:
    return values.load_refusal(values.refusal_of(error))


def test_a_refusal_comes_back_with_its_reason_and_details() -> None:
    error = reloaded(Refused("no stock", {"sku": "s-7", "left": [1, 2]}))
    assert type(error) is Refused
    assert (str(error), error.reason) == ("no stock", "no stock")
    assert error.details == {"sku": "s-7", "left": [1, 2]}


def test_a_refusal_is_stored_as_it_was_released() -> None:
    error = Refused("no stock", {"sku": "s-7"})
    vars(error)["left"] = 2
    assert msgspec.msgpack.decode(values.refusal_of(error)) == [
        "coordinator.errors.Refused",
        "no stock",
        {"sku": "s-7"},
        {"left": 2},
    ]


def test_a_refusal_of_a_subclass_comes_back_as_one_with_its_plain_attributes() -> None:
    error = reloaded(Declined(7, retryable=True))
    assert isinstance(error, Declined)
    assert (error.reason, error.details) == ("declined with 7", {"code": 7})
    assert (error.code, error.retryable, error.tags) == (7, True, ["a", {"b": 1}])
    assert not hasattr(error, "raw")
    assert not hasattr(error, "pair")  # a list would come back


def test_a_refusal_that_comes_back_twice_is_the_same_once_more() -> None:
    once = values.refusal_of(reloaded(Declined(7, retryable=False)))
    assert values.refusal_of(values.load_refusal(once)) == once


def test_a_refusal_that_is_a_dataclass_comes_back() -> None:
    error = reloaded(Empty("s-7", 2))
    assert isinstance(error, Empty)
    assert (error.sku, error.left, error.details) == ("s-7", 2, {})


def test_a_refusal_of_a_class_within_a_class_is_found() -> None:
    assert type(reloaded(Nested.Deep("no"))) is Nested.Deep


def test_a_refusal_whose_class_is_gone_is_a_refusal_still() -> None:
    data = values.refusal_of(Declined(7, retryable=True))
    gone = data.replace(b"Declined", b"Vanished")
    error = values.load_refusal(gone)
    assert type(error) is Refused
    assert (error.reason, error.details) == ("declined with 7", {"code": 7})
    assert vars(error)["code"] == 7


def test_a_refusal_of_a_class_that_is_no_refusal_is_never_made() -> None:
    data = values.refusal_of(Refused("no"))
    name = b"coordinator.errors.Refused"
    evil = data.replace(name, b"coordinator.errors.DecodeE")
    assert len(name) == len(b"coordinator.errors.DecodeE")
    assert type(values.load_refusal(evil)) is Refused


def test_details_that_can_not_be_stored_are_stored_as_their_text() -> None:
    details: Any = {"at": Colour.RED, "pair": (1, 2), 3: "three", "cycle": endless}
    error = reloaded(Refused("no", details))
    assert error.details == {
        "at": "Colour.RED",
        "pair": "(1, 2)",
        "3": "three",
        "cycle": "[[...]]",
    }


def test_a_reason_that_is_no_text_becomes_one() -> None:
    reason: Any = Colour.RED
    assert reloaded(Refused(reason)).reason == "Colour.RED"


@pytest.mark.parametrize("data", [b"", b"\x90", b"\xc0", b"\x92\x01\x02"])
def test_what_is_stored_and_no_refusal_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(DecodeError, match="not a stored refusal"):
        values.load_refusal(data)


class Wordless:
    """Has no text."""

    def __str__(self) -> str:
        raise LookupError("none")


class WordlessError(Exception):
    """Has no text either."""

    def __str__(self) -> str:
        raise LookupError("none")


class Undumped:
    """Says why it can't be had in words that can't be had."""

    def model_dump(self) -> object:
        raise WordlessError

    @classmethod
    def model_validate(cls, value: object) -> object:
        raise WordlessError


def test_the_text_of_anything_can_be_stored() -> None:
    assert values.text_of(7) == "7"
    assert values.text_of("caf\udce9") == "caf\\udce9"
    assert values.text_of(Wordless()) == "(its text can't be had: LookupError)"


def test_what_is_wrong_is_told_even_where_the_users_code_has_no_words_for_it() -> None:
    with pytest.raises(EncodeError, match=r"Undumped can't be stored: .its text can't"):
        values.encode(Undumped())
    with pytest.raises(DecodeError, match=r"not fit Undumped: .its text can't"):
        values.decode(b"\x07", Undumped)


class Sealed(Refused):
    """Can't be made from a reason any more."""

    def __new__(cls, *args: object) -> typing.Self:
        if args:
            raise TypeError("made by nobody")
        return super().__new__(cls)

    def __init__(self, *_: object) -> None:
        super().__init__("no", {"code": 7})


def test_a_refusal_whose_class_can_not_be_made_any_more_is_a_plain_one() -> None:
    again = values.load_refusal(values.refusal_of(Sealed()))
    assert type(again) is Refused
    assert (again.reason, again.details) == ("no", {"code": 7})


class Incomparable:
    """Is not equal to anything, nor unequal."""

    def model_dump(self) -> object:
        return [1]

    def __eq__(self, other: object) -> bool:
        raise WordlessError

    __hash__ = None  # type: ignore[assignment]


def test_undeclared_what_can_not_be_compared_is_refused() -> None:
    with pytest.raises(
        EncodeError, match=r"Incomparable can't be compared with .*LookupError"
    ):
        values.round_trip(Incomparable(), Any)


class Unsearched(dict[str, object]):
    """Can't be stored, nor searched."""

    def items(self) -> typing.NoReturn:
        raise WordlessError


def test_what_can_not_be_searched_for_the_culprit_is_named_itself() -> None:
    with pytest.raises(EncodeError, match=r"^Unsearched can't be stored: "):
        values.encode(Unsearched(a=Unstorable()))
