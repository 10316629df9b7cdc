"""The registered command classes, and how a stored command is made again."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from coordinator.errors import CommandTypeError, DecodeError
from coordinator.records import Accepted

__all__ = ["CommandType", "Commands", "Decode"]

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
