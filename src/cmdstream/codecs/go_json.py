r"""How Go's encoding/json reads and writes, where msgspec does otherwise.

Reading happens in two steps. `parse` turns text into plain values and keeps an object's
pairs in their order, because Go's rules are about pairs. `shape` then walks these
values along the type they are meant for and applies the rules, so that
`msgspec.convert` can do the rest:

    key in another case         is the field of that name, unless one matches exactly
    unknown key                 ignored, whatever its value, if that is JSON at all
                                (unless the Struct forbids unknown fields)
    several keys for one field  the last one wins (Go merges if the values are objects)
    null                        leaves what is there: the default, or Go's zero value
    missing key                 the default, or Go's zero value
    1.0, 1.5, "1" for an int    an error
    an int outside int64        an error; from 0 to 2**64-1 where declared Meta(ge=0)
    invalid UTF-8, lone \ud800  U+FFFD
    line breaks inside base64   ignored
    a time without a zone       an error

A missing field without a default takes the zero value rather than being an error: Go
peers leave zero values out of what they write (``omitempty``), and Go readers accept
it, so refusing would close the connection on a legal command. Whoever needs a field to
be there has to look at its value, as in Go. Types for which there is no obvious zero
(an enum, a Literal, a UUID) are an error when missing.

Writing is a matter of two spellings: `escape_html` and `respell_floats`.
"""

import json
import math
import re
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec
from msgspec import inspect

from cmdstream.wire import INT64_MAX, INT64_MIN, UINT64_MAX

__all__ = ["escape_html", "fold", "parse", "respell_floats", "shape"]

NO_ZERO = msgspec.UNSET
"""Stands for "this type has no zero value"; never part of a decoded value."""

KeyedType: TypeAlias = (
    inspect.StructType | inspect.DataclassType | inspect.TypedDictType
)

Shaper: TypeAlias = Callable[[Any, Any], Any]


class Pairs(list[tuple[str, Any]]):
    """A JSON object as its pairs, in order, duplicates included."""


def parse(body: bytes) -> Any:
    """Parse *body* into None, bools, numbers, strings, lists and `Pairs`.

    Raises:
        ValueError: It is not one JSON value.
        RecursionError: It is nested too deeply.
    """
    # Go reads each invalid byte as U+FFFD, and a lone surrogate escape likewise. Both
    # become lone surrogates first, which no valid text contains, so `_clean` can tell.
    text = body.decode("utf-8", "surrogateescape")
    return _DECODER.decode(text)


def shape(value: Any, kind: inspect.Type) -> Any:
    """Make *value*, from `parse`, into what `msgspec.convert` takes for *kind*.

    Args:
        value: A parsed value; null here means the zero value of *kind*.
        kind: The type it is for, from `msgspec.inspect.type_info`.

    Raises:
        ValueError: A number does not fit its Go type.
    """
    if value is None and not _takes_null(kind):
        zero = _zero(kind)
        return None if zero is NO_ZERO else zero
    shaper: Shaper = _SHAPERS.get(type(kind), _shape_plain)
    return shaper(value, kind)


def fold(key: str) -> str:
    """Map *key* to what all keys that Go takes for the same have in common.

    Unicode simple folding, as in Go. Python has only the full one, which turns some
    characters into several (ß into ss); those keep their lower case, or themselves.
    """
    if key.isascii():
        return key.lower()
    return "".join(map(_fold_character, key))


def escape_html(text: bytes) -> bytes:
    """Write ``< > &`` and U+2028/9 of valid JSON *text* as escapes, as Go does.

    They can only be inside strings there, so no parsing is needed.
    """
    return _HTML.sub(lambda match: _HTML_ESCAPES[match[0]], text)


def respell_floats(text: bytes) -> bytes:
    """Spell the floats of valid JSON *text* as Go does: 1 for 1.0, 1e+21 for 1e21."""
    return _TOKEN.sub(_respell_token, text)


def _fold_character(character: str) -> str:
    for folded in (character.casefold(), character.lower()):
        if len(folded) == 1:
            return folded
    return character


_HTML = re.compile(rb"[<>&]|\xe2\x80[\xa8\xa9]")
_HTML_ESCAPES = {
    b"<": rb"\u003c",
    b">": rb"\u003e",
    b"&": rb"\u0026",
    "\u2028".encode(): rb"\u2028",
    "\u2029".encode(): rb"\u2029",
}

# Strings are matched first so that what looks like a number inside one is stepped over.
_TOKEN = re.compile(
    rb'"[^"\\]*(?:\\.[^"\\]*)*"|-?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?'
)


def _respell_token(match: re.Match[bytes]) -> bytes:
    token = match[0]
    if token.startswith(b'"') or token.lstrip(b"-").isdigit():
        return token
    return _spell_float(float(token)).encode()


def _spell_float(value: float) -> str:
    """Spell a finite float as Go does, with the fewest digits that read back."""
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    padded = whole + fraction
    digits = padded.lstrip("0")
    # The value is 0.digits times ten to the power of point.
    point = len(whole) + int(exponent or 0) - (len(padded) - len(digits))
    digits = digits.rstrip("0")
    if not digits:
        return f"{sign}0"
    if not -5 <= point <= 21:  # Go's bounds: from 1e-6 to below 1e21 without exponent
        rest = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{rest}e{point - 1:+d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if point >= len(digits):
        return sign + digits + "0" * (point - len(digits))
    return f"{sign}{digits[:point]}.{digits[point:]}"


def _whole(text: str) -> int | float:
    # What no float64 holds is infinite, as in `float`; Python refuses to read more than
    # some thousand digits, also where nobody wants to know the value.
    return int(text) if len(text) <= _FLOAT_DIGITS_MAX else math.inf


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _pairs(pairs: list[tuple[str, Any]]) -> Pairs:
    return Pairs(pairs)


_FLOAT_DIGITS_MAX = 310  # the largest float64 has 309

_DECODER = json.JSONDecoder(
    object_pairs_hook=_pairs,
    parse_int=_whole,
    parse_constant=_refuse_constant,
)

_SURROGATES = re.compile("[\ud800-\udfff]")


def _clean(text: str) -> str:
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def _takes_null(kind: inspect.Type) -> bool:
    match kind:
        case inspect.NoneType() | inspect.AnyType():
            return True
        case inspect.UnionType(types=types):
            return any(map(_takes_null, types))
        case inspect.LiteralType(values=values):
            return None in values
        case inspect.CustomType(cls=cls):
            return cls is object
        case _:
            return False


def _zero(kind: inspect.Type) -> Any:
    """Give the plain value that converts to Go's zero value of *kind*, or NO_ZERO."""
    match kind:
        case inspect.StructType(array_like=True):
            return NO_ZERO
        case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType():
            return _shape_keyed(Pairs(), kind)
        case inspect.CustomType(cls=cls):
            bases = (base for base in _SCALAR_ZEROS if issubclass(cls, base))
            return next((_SCALAR_ZEROS[base] for base in bases), NO_ZERO)
        case _:
            zero = _ZEROS.get(type(kind), NO_ZERO)
            return [] if zero is list else {} if zero is dict else zero


_SCALAR_ZEROS: dict[type, Any] = {str: "", int: 0, float: 0.0, bytes: ""}

_ZEROS: dict[type[inspect.Type], Any] = {
    inspect.BoolType: False,
    inspect.IntType: 0,
    inspect.FloatType: 0.0,
    inspect.StrType: "",
    inspect.BytesType: "",
    inspect.ByteArrayType: "",
    inspect.DateTimeType: "0001-01-01T00:00:00Z",
    inspect.ListType: list,
    inspect.SetType: list,
    inspect.FrozenSetType: list,
    inspect.VarTupleType: list,
    inspect.DictType: dict,
}


def _shape_keyed(value: Any, kind: Any) -> Any:
    """Find the field of each pair, and fill in what must be there and is not."""
    if not isinstance(value, Pairs):
        return _shape_plain(value, kind)
    fields = {field.encode_name: field for field in kind.fields}
    folded = {fold(name): name for name in reversed(fields)}
    keeps_unknown = getattr(kind, "forbid_unknown_fields", False)
    shaped: dict[str, Any] = {}
    for raw, item in value:
        key = _clean(raw)
        name = key if key in fields else folded.get(fold(key))
        if name is None:
            if keeps_unknown or key == getattr(kind, "tag_field", None):
                shaped[key] = _shape_plain(item, kind)
        elif item is not None or _takes_null(fields[name].type):
            shaped[name] = shape(item, fields[name].type)
    for name, field in fields.items():
        if field.required and name not in shaped:
            zero = None if _takes_null(field.type) else _zero(field.type)
            if zero is not NO_ZERO:
                shaped[name] = zero
    return shaped


def _shape_items(value: Any, kind: Any) -> Any:
    if not _is_array(value):
        return _shape_plain(value, kind)
    return [shape(item, kind.item_type) for item in value]


def _is_array(value: Any) -> bool:
    return isinstance(value, list) and not isinstance(value, Pairs)


def _shape_tuple(value: Any, kind: Any) -> Any:
    if not _is_array(value) or len(value) != len(kind.item_types):
        return _shape_plain(value, kind)
    return list(map(shape, value, kind.item_types))


def _shape_dict(value: Any, kind: Any) -> Any:
    if not isinstance(value, Pairs):
        return _shape_plain(value, kind)
    return {_clean(key): shape(item, kind.value_type) for key, item in value}


def _shape_union(value: Any, kind: Any) -> Any:
    """Shape for the one member that takes this sort of value, or for none.

    msgspec allows a union one member of each sort, except for tagged Structs: there
    the tag decides, and as Go knows no tags, it has to be spelled exactly.
    """
    if isinstance(value, Pairs):
        tags = dict(value)
        members = [
            member
            for member in kind.types
            if isinstance(member, inspect.DictType)
            or (isinstance(member, KeyedType) and _is_tagged(member, tags))
        ]
    else:
        members = [member for member in kind.types if type(value) in _sorts_of(member)]
    return shape(value, members[0]) if members else _shape_plain(value, kind)


def _is_tagged(member: KeyedType, tags: dict[str, Any]) -> bool:
    name = getattr(member, "tag_field", None)
    return name is None or bool(tags.get(name) == getattr(member, "tag", None))


def _sorts_of(kind: inspect.Type) -> tuple[type, ...]:
    """Name the parsed types that may become a *kind* that is not an object."""
    match kind:
        case inspect.IntType():
            return (int,)
        case inspect.BytesType() | inspect.ByteArrayType() | inspect.DateTimeType():
            return (str,)
        case _ if hasattr(kind, "item_type") or hasattr(kind, "item_types"):
            return (list,)
        case _:
            return ()


def _shape_int(value: Any, kind: Any) -> Any:
    unsigned = kind.ge is not None and kind.ge >= 0
    low, high = (0, UINT64_MAX) if unsigned else (INT64_MIN, INT64_MAX)
    if type(value) is int and not low <= value <= high:
        raise ValueError(f"integer out of range: {value}")
    return _shape_plain(value, kind)


def _shape_custom(value: Any, kind: Any) -> Any:
    if issubclass(kind.cls, int):
        return _shape_int(value, _INT)
    if issubclass(kind.cls, bytes):
        return _shape_base64(value, kind)
    return _shape_plain(value, kind)


_ZONE = re.compile(r"(?:[Zz]|[+-][0-9:]{4,5})\Z")


def _shape_time(value: Any, kind: Any) -> Any:
    if type(value) is str and not _ZONE.search(value):
        raise ValueError(f"time without a zone: {value}")
    return _shape_plain(value, kind)


def _shape_base64(value: Any, kind: Any) -> Any:
    if type(value) is str:
        return value.replace("\r", "").replace("\n", "")
    return _shape_plain(value, kind)


def _is_infinite(value: object) -> bool:
    return isinstance(value, float) and math.isinf(value)


def _shape_plain(value: Any, kind: inspect.Type) -> Any:
    """Drop the pairs: nothing below *value* is known to be keyed by field names."""
    if isinstance(value, str):
        return _clean(value)
    if _is_infinite(value):
        raise ValueError("number out of range")  # as no infinity can be written
    if isinstance(value, Pairs):
        return {_clean(key): _shape_plain(item, _ANY) for key, item in value}
    if _is_array(value):
        return [_shape_plain(item, _ANY) for item in value]
    return value


_ANY = inspect.AnyType()
_INT = inspect.IntType()

_SHAPERS: dict[type[inspect.Type], Shaper] = {
    inspect.StructType: _shape_keyed,
    inspect.DataclassType: _shape_keyed,
    inspect.TypedDictType: _shape_keyed,
    inspect.ListType: _shape_items,
    inspect.SetType: _shape_items,
    inspect.FrozenSetType: _shape_items,
    inspect.VarTupleType: _shape_items,
    inspect.TupleType: _shape_tuple,
    inspect.DictType: _shape_dict,
    inspect.UnionType: _shape_union,
    inspect.IntType: _shape_int,
    inspect.CustomType: _shape_custom,
    inspect.BytesType: _shape_base64,
    inspect.ByteArrayType: _shape_base64,
    inspect.DateTimeType: _shape_time,
}
