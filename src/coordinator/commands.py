"""The command classes: what they must be, and how a stored command is made again."""

import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union, get_args, get_origin

import msgspec

from coordinator import values
from coordinator.errors import CommandTypeError, DecodeError
from coordinator.records import Accepted

__all__ = [
    "CommandType",
    "Commands",
    "Decode",
    "command_key",
    "command_type",
    "refuse_ambiguous",
    "results_of",
    "union_members",
]

Decode = Callable[[bytes, Any], Any]
"""Makes a value of a class from a payload; raises DecodeError if it does not fit."""


class CommandType(msgspec.Struct, frozen=True):
    """A registered command class."""

    name: str
    class_: type[Any]
    services: frozenset[str] | None
    """What it declares to need; None if it does not say."""


class Commands:
    """What may be submitted and recovered."""

    def __init__(
        self, types: Sequence[CommandType], codecs: Mapping[str, Decode]
    ) -> None:
        """Register *types*.

        Args:
            types: With different names.
            codecs: How payloads are decoded, by the names that `Accepted` stores.
        """
        self._types = {type_.name: type_ for type_ in types}
        self._codecs = codecs

    def services_of(self, name: str) -> frozenset[str] | None:
        """Return what commands of that name declare to need."""
        return self._types[name].services

    def decode(self, accepted: Accepted) -> Any:
        """Make the command anew.

        Raises:
            CommandTypeError: The code no longer has its type.
            DecodeError: The payload no longer fits it.
        """
        type_ = self._types.get(accepted.type)
        if type_ is None:
            raise CommandTypeError(
                f"the code has no command {accepted.type} any more; put it back and "
                f"retry"
            )
        decode = self._codecs.get(accepted.codec)
        if decode is None:
            raise CommandTypeError(
                f"{accepted.type} is stored as {accepted.codec!r}, which this process "
                f"does not read"
            )
        try:
            return decode(accepted.payload, type_.class_)
        except DecodeError:
            raise
        except Exception as error:  # what the user's class makes of it
            raise DecodeError(f"{accepted.type}: {error}") from error


def command_key(command: object) -> str:
    """Return the command's own key; empty if its class defines no ``key`` method.

    Raises:
        CommandTypeError: Its `key` does not return a string.
    """
    class_ = type(command)
    method = getattr(class_, "key", None)
    if not inspect.isfunction(method):
        return ""
    key = method(command)
    if not isinstance(key, str):
        raise CommandTypeError(
            f"{class_.__name__}.key() must return a str, got {key!r}"
        )
    return key


def command_type(class_: type[Any]) -> CommandType:
    """Check a command class.

    Raises:
        CommandTypeError: It can't be used.
    """
    name = getattr(class_, "__name__", repr(class_))
    exec_ = getattr(class_, "exec", None)
    if not (inspect.isclass(class_) and inspect.iscoroutinefunction(exec_)):
        raise CommandTypeError(
            f"command {name} has no `async def exec(self, workflow, receiver)`"
        )
    values.require_storable(class_, f"command {name}")
    values.require_storable(values.return_type(exec_), f"the result of {name}")
    _require_key_method(class_, name)
    services = getattr(class_, "services", None)
    return CommandType(name, class_, None if services is None else frozenset(services))


def _require_key_method(class_: type[Any], name: str) -> None:
    """Check that what looks like a ``key`` method is one.

    A field of that name is as good as any other, and no key.

    Raises:
        CommandTypeError: It would silently be taken for none, or fail each time.
    """
    key = inspect.getattr_static(class_, "key", None)
    if inspect.iscoroutinefunction(key) or isinstance(
        key, property | functools.cached_property | classmethod | staticmethod
    ):
        raise CommandTypeError(
            f"command {name}: key must be a plain method, `def key(self) -> str`"
        )


def refuse_ambiguous(registered: dict[type[Any], CommandType]) -> None:
    """Refuse two commands of one name.

    Raises:
        CommandTypeError: There are some; says which.
    """
    classes: dict[str, type[Any]] = {}
    for class_, type_ in registered.items():
        other = classes.setdefault(type_.name, class_)
        if other is not class_:
            raise CommandTypeError(
                f"two commands are named {type_.name}: {other.__module__} and "
                f"{class_.__module__}; the journal tells them apart by name only"
            )


def results_of(
    commands: Sequence[type[Any]], failure: Callable[..., object] | None
) -> tuple[type[Any], ...]:
    """Return the classes that *commands* return, in their order, then *failure*."""
    found = [values.return_type(command.exec) for command in commands]
    if isinstance(failure, type):
        found.append(failure)
    members = [
        member
        for type_ in found
        for member in union_members(type_)
        if isinstance(member, type) and (member is type_ or member is not type(None))
    ]
    return tuple(dict.fromkeys(members))


def union_members(type_: Any) -> tuple[Any, ...]:
    """Return the types that *type_* is a union of; itself alone if it is none."""
    if get_origin(type_) in {Union, types.UnionType}:
        return get_args(type_)
    return (type_,)
