"""Values in the journal: commands, outcomes and results as MessagePack, by their types.

A value is always handed on as what its stored bytes decode to, in the first run as in
every re-run: so a type that does not round-trip shows itself at once, not after a
crash. Dataclasses, msgspec Structs, TypedDicts, NamedTuples, enums, datetimes, UUIDs,
Decimals and the plain types work; Pydantic models too, if Pydantic is installed.
"""

import contextlib
import functools
import inspect
import types
import typing
import weakref
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from coordinator.culprits import find_change, find_unstorable, show
from coordinator.errors import CommandTypeError, DecodeError, EncodeError, Refused

__all__ = [
    "NONE",
    "Refusal",
    "decode",
    "encode",
    "load_refusal",
    "refusal_of",
    "require_storable",
    "return_type",
    "round_trip",
    "storable",
    "text_of",
]

_SAME = frozenset({int, str, bool, bytes})
"""Types whose values come back as they were, whatever they are."""
NONE = b"\xc0"
"""MessagePack of None."""


def _to_plain(value: Any) -> Any:
    """Turn a Pydantic model into plain values, without importing Pydantic."""
    dump = getattr(value, "model_dump", None)
    if dump is None:
        raise TypeError(
            f"{_name(type(value))} is neither a dataclass, a msgspec Struct, a "
            f"Pydantic model nor a plain type; return one of these instead"
        )
    return dump()


def _from_plain(type_: Any, value: Any) -> Any:
    validate = getattr(type_, "model_validate", None)
    if validate is None:
        raise TypeError(f"a value of type {_name(type_)} can't be read back")
    return validate(value)


_UNRESOLVED = (NameError, AttributeError, SyntaxError)
"""What becomes of an annotation that exists for the type checker only."""

_ENCODER = msgspec.msgpack.Encoder(enc_hook=_to_plain)


@functools.lru_cache(maxsize=4096)
def _decoder(type_: Any) -> "msgspec.msgpack.Decoder[Any]":
    return msgspec.msgpack.Decoder(type_, dec_hook=_from_plain)


def encode(value: Any) -> bytes:
    """Encode *value*.

    Raises:
        EncodeError: It, or something in it, is of a type that can't be stored.
    """
    if value is None:
        return NONE
    try:
        return _ENCODER.encode(value)
    except Exception as error:  # a hook of the user's class may raise anything
        raise _unstorable(value, error) from error


def _unstorable(value: Any, error: Exception) -> EncodeError:
    at = ""
    with contextlib.suppress(Exception):  # of the user's code, which is searched
        where, part, _ = find_unstorable(value, lambda part: not _refused(part))
        if where:
            at = f", for {where} is {show(part)}"
            error = _refused(part) or error
    return EncodeError(f"{_name(type(value))} can't be stored{at}: {text_of(error)}")


def _refused(value: Any) -> Exception | None:
    """Return what is wrong with *value*; None if it can be stored."""
    try:
        _ENCODER.encode(value)
    except Exception as error:  # noqa: BLE001 -- as in `encode`
        return error
    return None


def decode(data: bytes, type_: Any) -> Any:
    """Decode *data* as a value of *type_*.

    Raises:
        DecodeError: It does not fit the type.
    """
    if data == NONE and type_ is Any:
        return None
    try:
        return _decoder(type_).decode(data)
    except Exception as error:  # a hook of the user's class may raise anything
        raise DecodeError(
            f"what is stored does not fit {_name(type_)}: {text_of(error)}"
        ) from error


def round_trip(value: Any, type_: Any) -> tuple[bytes, Any]:
    """Encode *value* and decode it again as *type_*: what is stored, what is handed on.

    Raises:
        EncodeError: It can't be stored, or would come back as something else.
    """
    # Every outcome comes by here: not through `encode`, which is a call more.
    try:
        data = _ENCODER.encode(value)
    except Exception as error:  # as in `encode`
        raise _unstorable(value, error) from error
    if type(value) is type_ and type_ in _SAME:
        return data, value
    if data == NONE and type_ in {Any, None}:
        return data, None
    try:
        back = decode(data, type_)
    except DecodeError as error:
        raise EncodeError(
            f"{show(value)} does not come back as {_name(type_)}, which is declared: "
            f"{text_of(error.__cause__)}"
        ) from error
    if type_ is Any:
        changed = _explain_change(value, back)
        if changed:
            raise EncodeError(f"{_name(type(value))} {changed}")
    return data, back


def _explain_change(value: Any, back: Any) -> str:
    """Say where *back* is something else than *value*; empty if it is the same."""
    try:
        change = None if back == value else find_change(value, back)
        if change is None:
            return ""
        where, part, part_back = change
        return (
            f"would come back as something else: {where or 'it'} is {show(part)}, and "
            f"would be {show(part_back)}; declare the type that is returned, which "
            f"tells how to read it back"
        )
    except Exception as error:  # noqa: BLE001 -- the user's `__eq__` may raise anything
        return f"can't be compared with what comes back of it: {text_of(error)}"


def storable(text: str) -> str:
    """Return *text* with what UTF-8 has no bytes for (lone surrogates) written out."""
    return text.encode("utf-8", "backslashreplace").decode()


def text_of(value: object) -> str:
    """Return the text of what users hand over, `storable`; or why it can't be had."""
    try:
        return storable(str(value))
    except Exception as error:  # noqa: BLE001 -- user code: anything may come
        return f"(its text can't be had: {type(error).__name__})"


def _name(type_: Any) -> str:
    name = getattr(type_, "__qualname__", None)
    return str(name or type_)


_RETURNS: "weakref.WeakKeyDictionary[Callable[..., Any], Any]" = (
    weakref.WeakKeyDictionary()
)
"""What functions declare to return. They are not kept alive by it: a local function
holds on to all that is around it."""


def _declared_return(function: Callable[..., Any]) -> Any:
    try:
        return _RETURNS[function]
    except KeyError:
        declared = _RETURNS[function] = _read_return(function)
        return declared
    except TypeError:  # nothing that can be referred to weakly
        return _read_return(function)


def _read_return(function: Callable[..., Any]) -> Any:
    try:
        # Only this one: those of the parameters may exist for the type checker only.
        alone = types.SimpleNamespace(
            __annotations__={"return": function.__annotations__["return"]},
            __type_params__=getattr(function, "__type_params__", ()),
        )
        names = getattr(inspect.unwrap(function), "__globals__", {})
        declared = typing.get_type_hints(alone, names)["return"]
    except (KeyError, TypeError, *_UNRESOLVED):
        # The annotation is no help at run time, or there is none: the plain value is
        # what the step returns.
        return Any
    origin = typing.get_origin(declared) or declared
    if inspect.isclass(origin) and issubclass(origin, Awaitable):
        # A plain function that hands out a coroutine or a future; the last of its
        # parameters is what awaiting it gives.
        return (typing.get_args(declared) or (Any,))[-1]
    if declared is object:
        return Any  # it says as much as no annotation does
    return None if declared is type(None) else declared


def return_type(function: Callable[..., Any]) -> Any:
    """Return what *function* declares to return; `Any` if it declares nothing.

    Of what is awaited, an ``async def`` for one, that is what awaiting it gives.
    """
    while isinstance(function, functools.partial):
        function = function.func
    # The function behind a bound method or a callable object: the cache must not keep
    # an object, which may not even be hashable.
    function = getattr(function, "__func__", function)
    if not inspect.isroutine(function):
        function = type(function).__call__
    return _declared_return(function)


def require_storable(type_: Any, what: str) -> None:
    """Check that values of *type_* can be written and read back.

    Raises:
        CommandTypeError: They can't; the message begins with *what*.
    """
    try:
        _decoder(type_)
        custom = _custom_types(msgspec.inspect.type_info(type_))
    except (TypeError, ValueError, *_UNRESOLVED) as error:
        raise CommandTypeError(
            f"{what} can't be written to the journal and read back: {error}; use "
            f"dataclasses, msgspec Structs, Pydantic models or plain types"
        ) from error
    foreign = [_name(found) for found in custom if not hasattr(found, "model_validate")]
    if foreign:
        raise CommandTypeError(
            f"{what} can't be written to the journal and read back: "
            f"{', '.join(foreign)} is neither a dataclass, a msgspec Struct, a "
            f"Pydantic model nor a plain type"
        )


def _custom_types(
    info: msgspec.inspect.Type, seen: frozenset[int] = frozenset()
) -> list[type]:
    """Return the types in *info* that msgspec leaves to its hooks."""
    if isinstance(info, msgspec.inspect.CustomType):
        return [info.cls]
    # msgspec gives one object per type, so that a recursive type leads back to it.
    if id(info) in seen:
        return []
    seen |= {id(info)}
    found: list[type] = []
    for child in _children(info):
        found += _custom_types(child, seen)
    return found


def _children(info: Any) -> list[msgspec.inspect.Type]:
    children: list[msgspec.inspect.Type] = []
    for name in getattr(info, "__struct_fields__", ()):
        value: Any = getattr(info, name)
        # Dict fields, union members and tuple items come as tuples, the rest alone.
        items: list[Any] = [value]
        if isinstance(value, tuple):
            items = list(value)  # pyright: ignore[reportUnknownArgumentType]
        for item in items:
            if isinstance(item, msgspec.inspect.Field):
                children.append(item.type)
            elif isinstance(item, msgspec.inspect.Type):
                children.append(item)
    return children


class Refusal(msgspec.Struct, frozen=True, array_like=True):
    """A `Refused` exception in the journal."""

    type: str
    """Qualified name of its class."""
    reason: str
    details: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    """Those attributes of a subclass that are plain values."""


_REFUSAL_DECODER = msgspec.msgpack.Decoder(Refusal)


def refusal_of(error: Refused) -> bytes:
    """Encode *error*. What can't be stored of its details is stored as its text.

    Raises:
        EncodeError: Not even that can be had.
    """
    class_ = type(error)
    try:
        attributes = {
            name: value
            for name, value in vars(error).items()
            if name not in {"reason", "details"} and _is_plain(value)
        }
        details = {
            text_of(name): value if _is_plain(value) else text_of(value)
            for name, value in error.details.items()
        }
    except Exception as wrong:  # a subclass may have made anything of them
        raise EncodeError(
            f"the details of {_name(class_)} can't be had: {text_of(wrong)}"
        ) from wrong
    name = f"{class_.__module__}.{class_.__qualname__}"
    return encode(Refusal(name, text_of(error.reason), details, attributes))


def _is_plain(value: object) -> bool:
    try:
        return bool(msgspec.msgpack.decode(msgspec.msgpack.encode(value)) == value)
    except Exception:  # noqa: BLE001 -- the user's `__eq__` may raise anything
        return False


def load_refusal(data: bytes) -> Refused:
    """Make the exception again: of the same class if the code still has it.

    Raises:
        DecodeError: It is no stored refusal.
    """
    try:
        refusal = _REFUSAL_DECODER.decode(data)
    except msgspec.DecodeError as error:
        raise DecodeError(f"not a stored refusal: {error}") from error
    class_ = _find_refused(refusal.type)
    try:
        # Not through the subclass's __init__, whose parameters nobody here knows.
        refused = class_.__new__(class_, refusal.reason)
        attributes = refusal.attributes | {
            "reason": refusal.reason,
            "details": refusal.details,
        }
        for name, value in attributes.items():
            object.__setattr__(refused, name, value)  # the class may be frozen
    except Exception:  # noqa: BLE001 -- the class may have been changed in any way
        return Refused(refusal.reason, refusal.details)
    return refused


def _find_refused(name: str) -> type[Refused]:
    to_do: list[type[Refused]] = [Refused]
    while to_do:
        class_ = to_do.pop()
        if f"{class_.__module__}.{class_.__qualname__}" == name:
            return class_
        to_do += class_.__subclasses__()
    return Refused
