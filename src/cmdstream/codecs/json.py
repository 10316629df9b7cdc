"""The JSON codec, byte-compatible with Go's codec-json.

    CodecBytes := tag (size varint)  length (size varint)  JSON[length]

A command or a result is a dataclass, a `msgspec.Struct` or a TypedDict-like class whose
fields are JSON members under their own names (Go's field names are capitalised unless
tagged; rename with ``msgspec.field(name=…)`` or a Struct's ``rename``). A Go type that
is a bare value, such as ``type EchoCmd string``, is a subclass of the scalar here, and
so is its body::

    class EchoCmd(str): ...  # "hello"


    class CalcResult(int): ...  # 5

The scalars are str, int, float and bytes; the builtin itself may be registered, too.

What Go's types become, and what becomes of ours:

    int, int64, time.Duration   int (a duration in nanoseconds; timedelta is refused)
    uint64                      Annotated[int, msgspec.Meta(ge=0)]
    float64                     float; an int is accepted, NaN and infinity are refused
    []byte                      bytes, as standard base64 with padding
    time.Time                   str, or a datetime with a zone, rounded to six decimals
    []T, map[string]T, *T       list, dict, T | None; null reads as empty without None

`go_json` has the rules of reading. Most bodies never get there: see `JsonBody.decode`.
"""

import datetime as dt
import math
import re
from collections.abc import Callable, Iterator, Mapping
from types import MemberDescriptorType
from typing import Any

import msgspec
from msgspec import inspect

from cmdstream.codec import BODY_SIZE_MAX, Registry
from cmdstream.codecs import go_json
from cmdstream.codecs.tagged import Body, TaggedCodec
from cmdstream.errors import DecodeError, EncodeError, RegistryError

__all__ = ["JsonBody", "JsonCodec"]

_SCALARS = (str, int, float, bytes)
_SCALAR_KINDS = (
    inspect.StrType, inspect.IntType, inspect.FloatType, inspect.BytesType,
    inspect.CustomType,
)  # fmt: skip


class JsonCodec(TaggedCodec):
    """Commands and results as JSON, numbered by *registry*."""

    def __init__(
        self,
        registry: Registry,
        *,
        body_size_max: int = BODY_SIZE_MAX,
        bodies: Mapping[type, Body] | None = None,
    ) -> None:
        """Prepare an encoder and a decoder for each registered type.

        Args:
            registry: The types, in the order of their tags.
            body_size_max: Bytes of one body, both ways.
            bodies: How to write and read types that msgspec does not know.

        Raises:
            RegistryError: A type has no JSON form that Go would read.
        """
        given = bodies or {}
        super().__init__(
            registry,
            lambda entry: given.get(entry) or JsonBody(entry),
            body_size_max=body_size_max,
        )


class JsonBody:
    """One type's bodies, for whoever has a body without the frame around it."""

    def __init__(self, entry: type) -> None:
        """Prepare to encode and decode values of *entry*.

        Raises:
            RegistryError: It has no JSON form that Go would read.
        """
        self._kind = _type_info(entry)
        kinds = list(_reachable(self._kind))
        _check(entry, kinds)
        self._type: type[object] = entry
        # A bare scalar is decoded as its builtin; msgspec knows no subclasses of them.
        self._make, plain = _bare(entry)
        self._plain = None if self._make is None else _PLAIN[plain]
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(
            plain, dec_hook=_decode_scalar
        )
        self._read: Callable[[bytes], Any] = decoder.decode
        # The encoder itself where nothing needs to be tried twice, see `_write`.
        self._write: Callable[[object], bytes] = (
            _write if any(map(_may_have_keys, kinds)) else _ENCODER.encode
        )
        self._has_parts = not isinstance(self._kind, _SCALAR_KINDS)
        self._is_exact = _exactness_of(self._kind)
        self._has_foreign_key = _key_search(kinds)
        self._quotes = _quotes_of(self._kind)
        self._has_floats = any(_may_hold(kind, float) for kind in kinds)
        self._has_integers = any(_may_hold(kind, int) for kind in kinds)
        self._has_times = any(_may_hold(kind, dt.datetime) for kind in kinds)
        self._has_numbers = self._has_floats or self._has_integers or self._has_times
        self._reads_times = any(
            isinstance(kind, inspect.DateTimeType) for kind in kinds
        )

    def encode(self, value: object) -> bytes:
        """See `cmdstream.codecs.tagged.Body.encode`.

        A class of fields takes whatever it is given, True for an int and a str for a
        float, and msgspec writes what it finds. So what was written is read: in C, and
        for a small part of what a connection that Go hangs up on would cost. Where all
        fields are of just the types that reading would give, it is not.
        """
        try:
            write, plain = self._write, self._plain
            text = write(value if plain is None else plain(value))
            if self._has_numbers:
                text = self._spelled(value, text)
            if self._has_parts and not self._is_exact(value):
                read = self._read
                try:
                    read(text)
                except Exception:  # noqa: BLE001 -- the rules tell what is wrong
                    self._decode_by_the_rules(text)
        except (
            Exception
        ) as error:  # whatever a property of the user's class raises, too
            name = self._type.__qualname__
            raise EncodeError(f"{name} has no JSON form: {error}") from error
        if _LESS in text or _MORE in text or _AND in text or _E2 in text:
            return go_json.escape_html(text)
        return text

    def decode(self, body: bytes) -> object:
        """See `cmdstream.codecs.tagged.Body.decode`.

        msgspec's own decoder reads most bodies, and what it refuses is tried again by
        Go's rules. The danger is a body that both accept and understand differently:

        * an integer beyond int64, which a Python int holds;
        * a time without a zone, which a datetime may be;
        * a key in another case, which msgspec skips as unknown; it would take the
          field's default, or an earlier key of the exact name, for the value;
        * nothing else: nulls, missing fields and bad text fail in msgspec, unknown keys
          and exact duplicates are treated alike.

        A body that has the quotes of all the fields, and no others, has no foreign key;
        nor has one that we would write ourselves, and to write it is quicker than to
        search it. Each of these tests may raise a false alarm, which costs time; it may
        not miss one.
        """
        try:
            read, make = self._read, self._make
            value = read(body)
            if make is not None:
                value = make(value)
            if not (
                (self._has_integers and _is_long(body, body.translate(_SORTS)))
                or (self._reads_times and _naive_time(body))
                or (
                    self._has_foreign_key is not None
                    and (self._quotes is None or body.count(_QUOTE) != self._quotes)
                    and self._write(value) != body
                    and self._has_foreign_key(body)
                )
            ):
                return value
        except Exception:  # noqa: BLE001, S110 -- the rules tell what is wrong
            pass  # whatever a property of the user's class raises, too
        return self._decode_by_the_rules(body)

    def _spelled(self, value: object, text: bytes) -> bytes:
        """Spell numbers and times in *text*, which is *value*, as Go reads them.

        Raises:
            ValueError: Go would not read one of them.
        """
        sorts = text.translate(_SORTS)
        if self._has_integers and _is_long(text, sorts):
            go_json.shape(go_json.parse(text), self._kind)
        if self._has_times and _NAIVE_TIME.search(text):
            _refuse_what_go_cannot_read(value)
        if self._has_floats:
            if text.find(b"null") >= 0:  # which is what NaN and infinity become
                _refuse_what_go_cannot_read(value)
            if sorts.find(_EXPONENT) >= 0 or text.find(b".0") >= 0:
                return go_json.respell_floats(text)
        return text

    def _decode_by_the_rules(self, body: bytes) -> object:
        try:
            value: object = msgspec.convert(
                go_json.shape(go_json.parse(body), self._kind),
                self._type,
                str_keys=True,
                dec_hook=_decode_scalar,
            )
        # Nesting ends in RecursionError, and the class's own checks raise what they
        # like; whatever it is, the peer's bytes brought it about.
        except Exception as error:
            raise DecodeError(str(error) or repr(error)) from error
        return value


# One pass in C tells the bytes apart that matter: digits, and what makes a number a
# float.
_SORTS = bytes(
    ord("0") if byte in b"0123456789"
    else ord("e") if byte in b"eE"
    else ord(" ")
    for byte in range(256)
)  # fmt: skip
_LONG = b"0" * 19  # digits; no integer with fewer exceeds int64
_LONG_INTEGER = re.compile(rb"(?:\A|[-:,\[ \t\r\n])[0-9]{19}")  # no text of digits
_EXPONENT = b"0e"
# What Go escapes; E2 is the first byte of U+2028, and of some thousand others. To look
# for a number is quick; for bytes, `in` tries first whether they are one, and `find`
# does not.
_LESS, _MORE, _AND, _E2 = b"<>&\xe2"

_NAIVE_TIME = re.compile(rb"[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?\"")


def _type_info(entry: type) -> inspect.Type:
    try:
        return inspect.type_info(entry)
    # It evaluates the class's annotations, which may be any expression.
    except Exception as error:
        raise RegistryError(
            f"{entry.__qualname__} has no JSON form: {error}"
        ) from error


def _bare(entry: type) -> tuple[Callable[[Any], object] | None, Any]:
    """Give what makes a decoded value an *entry*, if it is none, and what to decode."""
    info = inspect.type_info(entry)
    for scalar in _SCALARS:
        if isinstance(info, inspect.CustomType) and issubclass(entry, scalar):
            return entry, scalar
    return None, entry


def _may_hold(
    kind: inspect.Type, wanted: type[int | float | dt.datetime | dict[Any, Any]]
) -> bool:
    match kind:
        case inspect.AnyType():
            return True
        case inspect.IntType():
            return wanted is int
        case inspect.FloatType():
            return wanted is float
        case inspect.DateTimeType():
            return wanted is dt.datetime
        case _ if isinstance(kind, inspect.CustomType):
            found: type = kind.cls
            return found is object or issubclass(found, wanted)
        case _:
            return False


def _may_have_keys(kind: inspect.Type) -> bool:
    """Tell whether values may hold dicts, whose keys need not be texts."""
    return isinstance(kind, inspect.DictType) or _may_hold(kind, dict)


def _check(entry: type, kinds: list[inspect.Type]) -> None:
    """Refuse at start-up what would fail, or be misread by Go, at the first command."""
    for kind in kinds:
        if isinstance(kind, inspect.TimeDeltaType):
            raise RegistryError(
                f"{entry.__qualname__} holds a timedelta, which Go cannot read: "
                "use an int of nanoseconds"
            )
        if isinstance(kind, inspect.CustomType):
            cls: type = kind.cls
            if cls is not object and not issubclass(cls, _SCALARS):
                raise RegistryError(
                    f"{entry.__qualname__} holds {cls.__qualname__}, "
                    "which has no JSON form"
                )


_INSIDE = ("key_type", "value_type", "item_type")


def _reachable(kind: inspect.Type) -> Iterator[inspect.Type]:
    """Yield *kind* and every type inside it, once; types may contain themselves."""
    seen: set[int] = set()
    waiting: list[Any] = [kind]
    while waiting:
        found = waiting.pop()
        if id(found) in seen:
            continue
        seen.add(id(found))
        yield found
        inside = (getattr(found, name, None) for name in _INSIDE)
        waiting.extend(kind for kind in inside if kind is not None)
        for name in ("types", "item_types"):
            waiting.extend(getattr(found, name, ()))
        waiting.extend(field.type for field in getattr(found, "fields", ()))


def _key_search(kinds: list[inspect.Type]) -> Callable[[bytes], object] | None:
    """Make the search for a key that Go would take for a field, and msgspec not.

    Returns:
        None if there are no fields.
    """
    names = {
        field.encode_name for kind in kinds for field in getattr(kind, "fields", ())
    }
    if not names:
        return None
    if not all(name.isascii() and name.isidentifier() for name in names):
        return _always  # not worth a pattern: such names are rare and the rules correct
    key = _key_pattern(names).search

    def has_foreign_key(body: bytes) -> object:
        return key(body) or (body.find(b"\\") >= 0 and _ESCAPED_KEY.search(body))

    return has_foreign_key


def _quotes_of(kind: inspect.Type) -> int | None:
    """Count the quotes of a body that holds each field once, and nothing else.

    Returns:
        None if that depends on more than the type.
    """
    if not isinstance(kind, inspect.StructType | inspect.DataclassType):
        return None
    if isinstance(kind, inspect.StructType) and (kind.array_like or kind.tag):
        return None
    count = 0
    for field in kind.fields:
        if not field.required or not isinstance(field.type, _FLAT):
            return None
        count += 4 if isinstance(field.type, _QUOTED) else 2
    return count


def _exactness_of(kind: inspect.Type) -> Callable[[object], bool]:
    """Make the test for values whose fields need not be read back: False if unsure.

    For classes whose text fails to be read for no other reason than a field's type: no
    bounds, no checks of the class's own, and every field is where msgspec finds it.
    """
    if not isinstance(kind, inspect.StructType) or kind.array_like:
        return _never
    entry = kind.cls
    fields = [(field.name, _exact_type(field.type)) for field in kind.fields]
    if hasattr(entry, "__post_init__") or any(
        exact is None or not isinstance(getattr(entry, name), MemberDescriptorType)
        for name, exact in fields
    ):
        return _never

    def is_exact(value: object) -> bool:
        if type(value) is not entry:
            return False
        for name, exact in fields:  # noqa: SIM110 -- `all` would make a generator
            if type(getattr(value, name)) is not exact:
                return False
        return True

    return is_exact


def _exact_type(kind: inspect.Type) -> type | None:
    """Give the only type whose values are read as *kind*, if they all are."""
    exact = _EXACT.get(type(kind))
    # Equal to one that is made without arguments: it has no bounds.
    return exact if exact is not None and kind == type(kind)() else None


_EXACT: dict[type[inspect.Type], type] = {
    inspect.StrType: str,
    inspect.IntType: int,
    inspect.FloatType: float,
    inspect.BoolType: bool,
    inspect.BytesType: bytes,
}

_QUOTE = ord('"')
_QUOTED = (inspect.StrType, inspect.BytesType)
_FLAT = (*_QUOTED, inspect.IntType, inspect.FloatType, inspect.BoolType)

# A key may be spelled with escapes. It ends in a quote and a colon, and what precedes
# it back to its last backslash holds no quote. (A key that ends in an escaped quote is
# missed; no field's name does.)
_ESCAPED_KEY = re.compile(rb'\\[^"]*"[ \t\r\n]*:')

# The two characters beyond ASCII that fold to an ASCII letter: Kelvin sign and long s.
_FOLDS_TO = {"k": "\u212a", "s": "\u017f"}


def _key_pattern(names: set[str]) -> re.Pattern[bytes]:
    """Match a key that folds to one of *names* but is none of them."""
    exact = "|".join(map(re.escape, sorted(names)))
    folded = "|".join("".join(map(_any_case, name)) for name in sorted(names))
    return re.compile(f'"(?!(?:{exact})")(?:{folded})"[ \t\r\n]*:'.encode())


def _any_case(character: str) -> str:
    lower, upper = character.lower(), character.upper()
    if lower in _FOLDS_TO:
        return f"(?:{lower}|{upper}|{_FOLDS_TO[lower]})"
    return f"[{lower}{upper}]" if lower != upper else character


def _is_long(text: bytes, sorts: bytes) -> object:
    """Tell whether *text*, whose *sorts* of bytes these are, may exceed int64."""
    return sorts.find(_LONG) >= 0 and _LONG_INTEGER.search(text)


def _naive_time(body: bytes) -> object:
    # With escapes in it, a time may be spelled in any way.
    return body.find(b"\\") >= 0 or _NAIVE_TIME.search(body)


def _always(_body: bytes) -> bool:
    return True


def _never(_value: object) -> bool:
    return False


def _refuse_what_go_cannot_read(value: object) -> None:
    """Look for the values that msgspec writes in a way of its own.

    Raises:
        ValueError: A float is not finite, or a time says no zone.
    """
    plain: list[Any] = [
        msgspec.to_builtins(
            value, builtin_types=(dt.datetime,), enc_hook=_encode_scalar
        )
    ]
    while plain:
        found = plain.pop()
        if isinstance(found, float) and not math.isfinite(found):
            raise ValueError(f"{found} is not a JSON number")
        if isinstance(found, dt.datetime) and found.tzinfo is None:
            raise ValueError(f"{found} says no time zone, and Go reads none without")
        if isinstance(found, dict):
            plain += found.values()
        if isinstance(found, list | tuple):
            plain += found


# What gives the builtin inside a bare scalar, whatever its class overrides.
_PLAIN: dict[type, Callable[[Any], object]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
    bytes: bytes.__bytes__,
}


def _encode_scalar(value: object) -> object:
    """Give msgspec, which knows no subclasses of scalars, the builtin inside one."""
    for scalar, plain in _PLAIN.items():
        if isinstance(value, scalar):
            return plain(value)
    raise NotImplementedError(f"objects of type {type(value).__qualname__}")


def _decode_scalar(cls: type, value: Any) -> object:
    if cls is object:
        return value
    expected: Any = next(scalar for scalar in _SCALARS if issubclass(cls, scalar))
    return cls(msgspec.convert(value, expected))


# Deterministic: dicts are sorted by key, as Go sorts maps. Fields keep their order.
_ENCODER = msgspec.json.Encoder(order="deterministic", enc_hook=_encode_scalar)


def _write(value: object) -> bytes:
    try:
        return _ENCODER.encode(value)
    except TypeError:
        # A dict whose keys are not strings can only be sorted once they are.
        plain = msgspec.to_builtins(value, str_keys=True, enc_hook=_encode_scalar)
        return _ENCODER.encode(plain)
