"""Which part of a value is to blame, for messages: what can't be stored, what changed.

Values are searched only after one was refused, so nothing here has to be fast. A part
is named as one would write it in Python: ``['lines'][3].price``.
"""

import math
import reprlib
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

__all__ = ["Culprit", "find_change", "find_unstorable", "show"]

DEPTH_MAX = 50
"""Levels that are searched: a value may hold itself."""

_PLAIN = frozenset({bool, int, float, str, bytes, tuple, list, set, dict})

Culprit = tuple[str, Any, Any]
"""Where in the value, empty for all of it; what is there; what it would become."""


def find_unstorable(value: Any, is_storable: Callable[[Any], bool]) -> Culprit:
    """Return the innermost part of *value* that is not storable, or *value* itself."""
    where = ""
    for _ in range(DEPTH_MAX):
        for name, part in _parts(value):
            if not is_storable(part):
                where, value = where + name, part
                break
        else:
            break
    return where, value, None


def find_change(value: Any, back: Any) -> Culprit | None:
    """Return the first part of *value* that is not equal to what came *back* of it.

    None if there is none: a NaN is equal to no other, and came back all the same.
    """
    return _find_change(value, back, "", 0)


def _find_change(value: Any, back: Any, where: str, depth: int) -> Culprit | None:
    if value == back or (_is_nan(value) and _is_nan(back)):
        return None
    if type(value) is type(back) and depth < DEPTH_MAX:
        parts, parts_back = _parts(value), dict(_parts(back))
        if parts and [name for name, _ in parts] == list(parts_back):
            for name, part in parts:
                found = _find_change(part, parts_back[name], where + name, depth + 1)
                if found is not None:
                    return found
            return None
    return where, value, back


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _parts(value: Any) -> list[tuple[str, Any]]:
    """Return what is in *value*, each with how it is reached; empty if it is plain."""
    kind = value.__class__
    if issubclass(kind, str | bytes | bytearray | memoryview | type):
        return []
    if issubclass(kind, Mapping):
        return [(f"[{reprlib.repr(key)}]", part) for key, part in value.items()]
    if issubclass(kind, Sequence):
        return [(f"[{index}]", part) for index, part in enumerate(value)]
    if issubclass(kind, AbstractSet):
        return [("{…}", part) for part in value]
    # Dataclasses and msgspec Structs.
    names = getattr(kind, "__dataclass_fields__", ()) or getattr(
        kind, "__struct_fields__", ()
    )
    return [
        (f".{name}", getattr(value, name)) for name in names if hasattr(value, name)
    ]


def show(value: Any) -> str:
    """Say what *value* is, in a few words: its type, and the value of plain ones."""
    kind = value.__class__
    if kind in _PLAIN:
        return f"{kind.__qualname__} {reprlib.repr(value)}"
    # The text of others may be an address, or whatever their author likes.
    return str(kind.__qualname__)
