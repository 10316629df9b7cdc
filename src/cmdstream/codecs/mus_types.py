"""From the annotations of a class to its form in MUS: once, when it is registered.

    bool, int, float, str, bytes      and classes made from the last four; enums
    datetime                          Go's time.Time
    list[T], tuple[T, ...]            []T
    dict[K, V]                        map[K]V; K is a scalar
    T | None                          *T
    dataclass, msgspec.Struct         struct, its fields as they are declared

An int is Go's int64; where the other side has something else, say so:

    Annotated[int, Meta(ge=0)]        uint64
    Annotated[int, Int(32)]           int32; Int(8) is a raw byte, as in Go's generator
    Annotated[int, Uint(16, "raw")]   uint16, in two bytes
    Annotated[int, Int(64, "positive")]   a varint that is not zigzag
    Annotated[float, Float(32)]       float32
    Annotated[datetime, Time("ns")]   nanoseconds since 1970

The other constraints of a `msgspec.Meta` are checked when a value is read, as they are
in JSON.
"""

import dataclasses
import datetime as dt
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import msgspec

from cmdstream.codecs import mus_forms as forms
from cmdstream.codecs.mus_forms import Form, Read, Write
from cmdstream.codecs.mus_layout import Fields
from cmdstream.errors import RegistryError

__all__ = ["Float", "Int", "Time", "Uint", "form_of"]

_SCALARS = (str, int, float, bytes)


class Int(msgspec.Struct, frozen=True):
    """Says which of Go's signed integers an int is, and how it is written."""

    bits: Literal[8, 16, 32, 64] = 64
    encoding: Literal["varint", "positive", "raw"] | None = None
    """None is what Go's generator takes: raw for 8 bits, varint (zigzag) for more."""


class Uint(msgspec.Struct, frozen=True):
    """Says which of Go's unsigned integers an int is, and how it is written."""

    bits: Literal[8, 16, 32, 64] = 64
    encoding: Literal["varint", "raw"] | None = None
    """None is what Go's generator takes: raw for 8 bits, varint for more."""


class Float(msgspec.Struct, frozen=True):
    """Says which of Go's floats a float is, and how it is written."""

    bits: Literal[32, 64] = 64
    encoding: Literal["raw", "varint"] = "raw"


class Time(msgspec.Struct, frozen=True):
    """Says in which unit a datetime is written."""

    unit: Literal["s", "ms", "us", "ns"] = "s"


def form_of(entry: type, items_max: int) -> tuple[Form, bool]:
    """Make the form of *entry*.

    Args:
        entry: A command's or a result's class.
        items_max: Elements of one list, or pairs of one map.

    Returns:
        The form, and whether a value of it may hold another of the same class, and
        so lie in itself as deeply as a peer likes.

    Raises:
        RegistryError: A part of it has no form; says which.
    """
    maker = _Maker(entry, items_max)
    try:
        form = maker.form(entry, ())
    except RegistryError:
        raise
    # It evaluates the class's annotations, which may be any expression.
    except Exception as error:
        raise RegistryError(f"{entry.__qualname__} has no MUS form: {error}") from error
    return form, maker.is_recursive


class _Maker:
    """Makes the forms of one registered class and of all that it holds."""

    def __init__(self, entry: type, items_max: int) -> None:
        self.is_recursive = False
        self._entry = entry
        self._items_max = items_max
        self._structs: dict[type, Form] = {}
        self._open: set[type] = set()

    def form(self, hint: Any, directly_in: tuple[type, ...]) -> Form:
        """Make the form of *hint*, found inside the structs *directly_in*."""
        hint, marks = _stripped(hint)
        metas = [mark for mark in marks if isinstance(mark, msgspec.Meta)]
        kinds = [mark for mark in marks if isinstance(mark, Int | Uint | Float | Time)]
        origin = typing.get_origin(hint) or hint
        if origin in {typing.Union, types.UnionType}:
            return self._union(typing.get_args(hint))
        if not isinstance(origin, type):
            raise self._no_form(hint, "it is no class")
        form = self._class(hint, origin, kinds, metas, directly_in)
        constraints = [meta for meta in metas if _constrains(meta)]
        return _checked(form, origin, constraints) if constraints else form

    def _class(
        self,
        hint: Any,
        origin: type[Any],
        kinds: Sequence[Int | Uint | Float | Time],
        metas: Sequence[msgspec.Meta],
        directly_in: tuple[type, ...],
    ) -> Form:
        scalar = next((base for base in _SCALARS if issubclass(origin, base)), None)
        if kinds:
            return self._said(hint, origin, scalar, kinds)
        if origin is bool:
            return forms.BOOL
        if issubclass(origin, dt.datetime):
            return forms.time_form("s")
        if scalar is not None:
            unsigned = any(meta.ge is not None and meta.ge >= 0 for meta in metas)
            return _bare(_scalar_form(scalar, unsigned=unsigned), scalar, origin)
        if origin in {list, tuple, dict}:
            return self._collection(hint, origin)
        if dataclasses.is_dataclass(origin) or issubclass(origin, msgspec.Struct):
            return self._struct(origin, directly_in)
        if issubclass(origin, dt.timedelta):
            raise self._no_form(hint, "use an int of nanoseconds")
        raise self._no_form(hint, "it is neither a dataclass nor a msgspec.Struct")

    def _said(
        self,
        hint: Any,
        origin: type[Any],
        scalar: type | None,
        kinds: Sequence[Int | Uint | Float | Time],
    ) -> Form:
        """Make the form that an annotation asks for."""
        match scalar, kinds:
            case type(), [Int(bits, encoding)] if scalar is int and origin is not bool:
                form = forms.int_form(bits, encoding or _generators(bits), signed=True)
            case type(), [Uint(bits, encoding)] if scalar is int and origin is not bool:
                form = forms.int_form(bits, encoding or _generators(bits), signed=False)
            case type(), [Float(bits, encoding)] if scalar is float:
                form = forms.float_form(bits, encoding)
            case None, [Time(unit)] if issubclass(origin, dt.datetime):
                return forms.time_form(unit)
            case _:
                raise self._no_form(hint, f"{kinds} does not go with it")
        return _bare(form, scalar, origin)

    def _union(self, members: tuple[Any, ...]) -> Form:
        others = [member for member in members if member is not types.NoneType]
        if len(others) != 1 or len(others) == len(members):
            raise self._no_form(
                " | ".join(map(_name, members)), "a union can only be T | None"
            )
        return forms.pointer(self.form(others[0], ()))

    def _collection(self, hint: Any, origin: type) -> Form:
        match origin, typing.get_args(hint):
            case _, [key, value] if origin is dict:
                key_form = self.form(key, ())
                plain, _ = _stripped(key)
                if not (
                    isinstance(plain, type) and issubclass(plain, (*_SCALARS, bool))
                ):
                    raise self._no_form(hint, "its keys are no scalars")
                return forms.pairs(key_form, self.form(value, ()), self._items_max)
            case _, [item] if origin is list:
                make = None
            case _, [item, last] if origin is tuple and last is ...:
                make = tuple
            case _:
                raise self._no_form(hint, "say of what, and of one type: list[T]")
        form = self.form(item, ())
        if not form.layout.takes_bytes:
            # A few bytes could announce any number of them.
            raise self._no_form(hint, "its elements take no bytes")
        return forms.items(form, self._items_max, make)

    def _struct(self, origin: type, directly_in: tuple[type, ...]) -> Form:
        if origin in directly_in:
            raise self._no_form(origin, "it holds itself: use T | None, or a list")
        if origin in self._open:
            self.is_recursive = True
        if (known := self._structs.get(origin)) is not None:
            return known
        layout = Fields()
        named: list[tuple[str, Read, Write]] = []
        form = forms.fields(layout, named, _maker_of(origin))
        self._structs[origin] = form
        self._open.add(origin)
        hints = typing.get_type_hints(origin, include_extras=True)
        for name in _field_names(origin):
            inner = self.form(hints[name], (*directly_in, origin))
            named.append((name, inner.read, inner.write))
            layout.fields.append(inner.layout)
        layout.takes_bytes = any(inner.takes_bytes for inner in layout.fields)
        self._open.discard(origin)
        return form

    def _no_form(self, hint: Any, why: str) -> RegistryError:
        return RegistryError(
            f"{self._entry.__qualname__} holds {_name(hint)}, "
            f"which has no MUS form: {why}"
        )


def _name(hint: Any) -> str:
    return hint.__qualname__ if isinstance(hint, type) else str(hint)


def _stripped(hint: Any) -> tuple[Any, list[Any]]:
    """Take away what stands around a type: Annotated, NewType, ``type X = …``."""
    marks: list[Any] = []
    while True:
        if typing.get_origin(hint) is Annotated:
            hint, *more = typing.get_args(hint)
            marks += more
        elif hasattr(hint, "__supertype__"):
            hint = hint.__supertype__
        elif type(hint).__name__ == "TypeAliasType":  # from Python 3.12 on
            hint = hint.__value__
        else:
            return hint, marks


def _generators(bits: int) -> Literal["varint", "raw"]:
    return "raw" if bits == 8 else "varint"


def _scalar_form(scalar: type, *, unsigned: bool) -> Form:
    if scalar is int:
        return forms.int_form(64, "varint", signed=False) if unsigned else forms.INT
    if scalar is float:
        return forms.float_form(64, "raw")
    return forms.STRING if scalar is str else forms.BYTES


def _bare(form: Form, scalar: Any, origin: type[Any]) -> Form:
    return form if origin is scalar else forms.made(form, scalar, origin)


_CONSTRAINTS = (
    "gt", "ge", "lt", "le", "multiple_of", "pattern", "min_length", "max_length", "tz",
)  # fmt: skip


def _constrains(meta: msgspec.Meta) -> bool:
    said = {name for name in _CONSTRAINTS if getattr(meta, name) is not None}
    return bool(said if meta.ge != 0 else said - {"ge"})  # ge=0 is a uint already


def _checked(
    form: Form, origin: type[Any], constraints: Sequence[msgspec.Meta]
) -> Form:
    # Of a collection only the length can be constrained, so what is in it, which was
    # checked already, is not looked at.
    plain = next((base for base in _SCALARS if issubclass(origin, base)), origin)
    kind: Any = Annotated[(plain, *constraints)]
    return forms.checked(form, lambda value: msgspec.convert(value, kind))


def _field_names(origin: type) -> tuple[str, ...]:
    if issubclass(origin, msgspec.Struct):
        return origin.__struct_fields__
    fields = dataclasses.fields(typing.cast("Any", origin))  # the caller has looked
    for field in fields:
        if not field.init:
            raise ValueError(f"{field.name} cannot be given to __init__")
    return tuple(field.name for field in fields)


def _maker_of(origin: type) -> Callable[..., object]:
    """Give what makes an *origin* of its fields, in their order on the wire."""
    parameters = inspect.signature(origin).parameters.values()
    if not any(p.kind is inspect.Parameter.KEYWORD_ONLY for p in parameters):
        return origin
    names = _field_names(origin)
    return lambda *values: origin(**dict(zip(names, values, strict=True)))
