"""The world of a run: a fresh one for each, and what it looks like in the end.

The receiver, with its fakes, is the world: it survives the process. Each run gets one
as it was at first:

    a class, or a function without arguments   is called
    an object with a ``reset()``               is reset
    any other object                           is copied (`copy.deepcopy`)

What it looks like is its attributes, and theirs, as text: ``bank.ledger`` is
``[1999, -1999]``. Left out is what can't be compared: functions, locks, connections,
mocks, and what belongs to gateways of ours.
"""

import copy
import enum
import inspect
import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from datetime import date, time, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

from coordinator.testing.errors import RehearsalError

__all__ = ["MEMORY", "World", "differences", "look_at", "shortened", "text_of"]

MEMORY = "_once"
"""The attribute in which `once` remembers what a fake did; no part of what it is."""
DEPTH_MAX = 8
"""Attributes of attributes that are looked at; what is deeper is no state of a fake."""
TEXT_LENGTH_MAX = 300
"""Characters of a value in a message."""

_PLAIN = (
    bool | int | float | complex | str | bytes | bytearray | None | Decimal | Fraction
)
_VALUES = date | time | timedelta | UUID | PurePath | enum.Enum
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_FOREIGN = ("unittest.mock", "asyncio", "threading", "_thread", "logging", "socket")


class World:
    """Makes the receiver of each run."""

    def __init__(self, receiver: Any) -> None:
        """Find out how *receiver* is made anew.

        Raises:
            RehearsalError: It can't be; says which attribute, and the remedy.
        """
        self._make = _maker(receiver)
        self._resets = _has_reset(receiver)
        self._made: Any = None
        self._first: dict[str, str] | None = None

    def fresh(self) -> Any:
        """Return the receiver as it was at first.

        Raises:
            RehearsalError: It is not as it was, or can't be had; says what it is that
                differs, and the remedy.
        """
        made = self._make()
        if made is self._made and not self._resets:
            raise RehearsalError(
                f"each run needs a fresh world, but the same {type(made).__name__} was "
                f"returned again; return a new one each time"
            )
        seen = look_at(made)
        if self._first is None:
            self._made, self._first = made, seen
        for path in differences(seen, self._first):
            now, then = seen.get(path), self._first.get(path)
            raise RehearsalError(
                f"each run needs the same fresh world, but {path} is "
                f"{_shown(now)} at the beginning of this one, and was {_shown(then)} "
                f"at the beginning of the first. {self._remedy(made)}"
            )
        return made

    def _remedy(self, made: Any) -> str:
        name = type(made).__name__
        if self._resets:
            return (
                f"Have {name}.reset() put that back too, or pass `lambda: {name}(...)`"
            )
        return (
            f"Let what makes {name} count instead of drawing (uuid4, random, the "
            f"clock), and keep nothing outside of it"
        )


def _maker(receiver: Any) -> Callable[[], Any]:
    if inspect.isclass(receiver):
        return lambda: _called(receiver, receiver.__name__)
    if inspect.isroutine(receiver) or hasattr(receiver, "func"):
        return lambda: _called(receiver, "the function that makes the receiver")
    if _has_reset(receiver):
        return lambda: _reset(receiver)
    pristine = _copied(receiver)
    return lambda: copy.deepcopy(pristine)


def _has_reset(receiver: Any) -> bool:
    made = inspect.isclass(receiver) or inspect.isroutine(receiver)
    return not made and callable(getattr(receiver, "reset", None))


def _reset(receiver: Any) -> Any:
    name = f"{type(receiver).__name__}.reset()"
    try:
        waiting = receiver.reset()
    except Exception as error:
        raise RehearsalError(
            f"each run needs a fresh world, but {name} raised "
            f"{type(error).__name__}: {error}"
        ) from error
    _plain(waiting, name)
    _forget(receiver, set(), 0)
    return receiver


def _forget(value: Any, above: set[int], depth: int) -> None:
    """Have the fakes of a world forget what `once` has them remember.

    The keys are the same in every run, so they would answer for the run before.
    """
    if depth > DEPTH_MAX or id(value) in above or isinstance(value, _PLAIN | _VALUES):
        return
    above = above | {id(value)}
    whole: Any = value  # of no narrower type than it came with
    if isinstance(value, Mapping):
        inner: list[Any] = list(whole.values())
    elif isinstance(value, list | tuple | set | frozenset | deque):
        inner = list(whole)
    else:
        getattr(value, "__dict__", {}).pop(MEMORY, None)
        inner = [attribute for _, attribute in _attributes(value)]
    for each in inner:
        if not _opaque(each):
            _forget(each, above, depth + 1)


def _plain(made: object, name: str) -> None:
    if inspect.iscoroutine(made):
        made.close()
        raise RehearsalError(
            f"{name} is async, and there is no loop yet when a run's world is made; "
            f"make it a plain def"
        )


def _called(factory: Any, name: str) -> Any:
    try:
        inspect.signature(factory).bind()
    except TypeError as error:
        raise RehearsalError(
            f"{name} can't be called without arguments ({error}): each run needs a "
            f"fresh world, so pass `lambda: {name}(...)`"
        ) from None
    except ValueError:
        pass  # no signature to be had: then it is tried
    made = factory()
    if made is None:
        raise RehearsalError(f"{name} returned None; it is to return the receiver")
    _plain(made, name)
    return made


def _copied(receiver: Any) -> Any:
    try:
        return copy.deepcopy(receiver)
    except Exception as error:  # noqa: BLE001 -- whatever it says: it can't be copied
        name = type(receiver).__name__
        path = _culprit(receiver, name, 0)
        raise RehearsalError(
            f"each run needs a fresh world, but {path} can't be copied ({error}). Pass "
            f"the class or a function that makes the receiver (`lambda: {name}(...)`), "
            f"or give {name} a `reset()` that puts it back to its beginning"
        ) from None


def _culprit(value: Any, path: str, depth: int) -> str:
    """Return the path to what can't be copied."""
    if depth < DEPTH_MAX:
        for name, inner in _attributes(value):
            try:
                copy.deepcopy(inner)
            except Exception:  # noqa: BLE001 -- whatever it says: it is the one
                return _culprit(inner, f"{path}.{name}", depth + 1)
    return path


def _attributes(value: Any) -> Iterator[tuple[str, Any]]:
    yield from getattr(value, "__dict__", {}).items()
    for class_ in type(value).__mro__:
        slots = getattr(class_, "__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if hasattr(value, name):
                yield name, getattr(value, name)


def look_at(receiver: Any) -> dict[str, str]:
    """Return what *receiver* looks like: each attribute's path, and its value."""
    found: dict[str, str] = {}
    _visit(receiver, "", found, {id(receiver)}, 0)
    return found


def _visit(
    value: Any, path: str, found: dict[str, str], above: set[int], depth: int
) -> None:
    for name, inner in _attributes(value):
        if name.startswith("__") or name == MEMORY or _opaque(inner):
            continue
        inner_path = f"{path}.{name}" if path else name
        if _is_object(inner):
            if id(inner) not in above and depth < DEPTH_MAX:
                _visit(inner, inner_path, found, above | {id(inner)}, depth + 1)
        else:
            found[inner_path] = text_of(inner)


def _is_object(value: Any) -> bool:
    """Whether its attributes say more than it does."""
    if isinstance(value, _PLAIN | _VALUES | Mapping | list | tuple | set | frozenset):
        return False
    return not isinstance(value, deque) and any(True for _ in _attributes(value))


def _opaque(value: Any) -> bool:
    if inspect.isroutine(value) or inspect.ismodule(value) or inspect.isclass(value):
        return True
    if isinstance(value, _PLAIN | _VALUES):
        return False
    for class_ in type(value).__mro__:
        module = class_.__module__
        if module.startswith(_FOREIGN) or module.startswith("coordinator.gateways"):
            return True
    return inspect.isawaitable(value) or inspect.isgenerator(value)


def text_of(value: Any, depth: int = 0) -> str:
    """Return *value* as text: equal for equal values, in every process."""
    if isinstance(value, _PLAIN | _VALUES):
        return repr(value)
    if depth > DEPTH_MAX:
        return "..."
    inner = depth + 1
    whole: Any = value  # of no narrower type than it came with
    name = type(value).__name__
    if isinstance(value, Mapping):
        pairs = [f"{text_of(k, inner)}: {text_of(v, inner)}" for k, v in whole.items()]
        return "{" + ", ".join(sorted(pairs)) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(text_of(v, inner) for v in whole)) + "}"
    if isinstance(value, list | deque):
        return "[" + ", ".join(text_of(v, inner) for v in whole) + "]"
    if isinstance(value, tuple):
        members = ", ".join(text_of(v, inner) for v in whole)
        return f"{'' if name == 'tuple' else name}({members})"
    fields = dict(_attributes(value))
    if fields and not _opaque(value):
        shown = ", ".join(
            f"{k}={text_of(v, inner)}"
            for k, v in fields.items()
            if k != MEMORY and not _opaque(v)
        )
        return f"{name}({shown})"
    return _ADDRESS.sub("", repr(value))


def shortened(text: str) -> str:
    """Return *text*, or its beginning and its end if it is long."""
    if len(text) <= TEXT_LENGTH_MAX:
        return text
    half = TEXT_LENGTH_MAX // 2
    return f"{text[:half]} ... {text[-half:]}"


def _shown(text: str | None) -> str:
    return "not there" if text is None else shortened(text)


def differences(ours: dict[str, str], theirs: dict[str, str]) -> list[str]:
    """Return the paths at which two worlds differ, in the order of the attributes."""
    paths = dict.fromkeys([*ours, *theirs])
    return [path for path in paths if ours.get(path) != theirs.get(path)]
