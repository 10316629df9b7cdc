"""What a connection asks of a codec, and the registry that codecs number types by.

There is no outer frame on the wire: behind the seq come the codec's bytes, and only the
codec knows where they end. So a decoder is handed everything that has arrived and
answers either with a value and the index behind it, or with how much it needs to see
before asking again is worth it. The second answer is what keeps a large body from being
parsed again for every segment it comes in, and lets a length limit strike when the
length is announced rather than when the bytes are there.

The registry is the whole schema. A type's tag is its place in its list, commands and
results are counted separately, and nothing on the wire says which list the peer uses:
appending is safe, reordering is not, and the ServerInfo is the place for a version.
"""

from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import msgspec

from cmdstream.errors import RegistryError
from cmdstream.wire import Buffer

__all__ = ["BODY_SIZE_MAX", "Codec", "Decoded", "LastOne", "Registry", "ResultType"]

BODY_SIZE_MAX = 16 * 1024 * 1024  # bytes; Go has no limit, and dies of an 11-byte frame

T = TypeVar("T")

LastOne: TypeAlias = bool | str | Callable[[T], bool]


class Decoded(msgspec.Struct, frozen=True):
    """One command or result that a codec found."""

    value: object
    tag: int
    body: bytes
    """The bytes behind the tag (and length), as received; a copy of its own."""
    end: int
    """Index just past the last byte."""


class Codec(Protocol):
    """Turns commands and results into bytes that say by themselves where they end.

    A codec keeps no state between calls, so all connections may share one.
    """

    def encode_command(self, command: object, /) -> bytes:
        """Encode *command* with its tag.

        Raises:
            EncodeError: Its type is not registered, a field has no encoding, or the
                body is larger than the peer would accept.
        """
        ...

    def encode_result(self, result: object, /) -> bytes:
        """Encode *result* with its tag; raises as `encode_command`."""
        ...

    def decode_command(self, data: Buffer, offset: int, /) -> Decoded | int:
        """Decode the command that starts at *offset*.

        Returns:
            The command; or, if *data* ends first, the length *data* must have at least
            before this is worth calling again. Always more than ``len(data)``.

        Raises:
            RemoteProtocolError: The bytes cannot become a command, whatever follows.
                Nothing in proportion to an announced size has been allocated.
        """
        ...

    def decode_result(self, data: Buffer, offset: int, /) -> Decoded | int:
        """Decode the result that starts at *offset*, as `decode_command`."""
        ...

    def is_last(self, result: object, /) -> bool:
        """Tell whether *result* ends its command, by the rule of its type.

        Raises:
            EncodeError: Its type is not registered.
        """
        ...


class ResultType(msgspec.Struct, Generic[T], frozen=True):
    """A result type that needs a rule for its last one."""

    type: type[T]
    last_one: LastOne[T] = True
    """Which results end their command: all (True), none (False), those whose field of
    this name is true, or those for which this function is. The protocol does not carry
    it, so it has to agree with the peer's ``LastOne()``."""


class Registry:
    """The ordered command and result types that both sides have to agree on.

    Attributes:
        commands: Command types; the index is the tag in JSON and Protobuf.
        results: Result types, likewise.
    """

    def __init__(
        self,
        commands: Iterable[type],
        results: Iterable[type[Any] | ResultType[Any]],
    ) -> None:
        """Take the types in the order of their tags.

        Raises:
            RegistryError: A type is listed twice or is not a class, or a rule names a
                field that its type has not.
        """
        entries: list[ResultType[Any]] = [
            entry if isinstance(entry, ResultType) else ResultType(entry)
            for entry in results
        ]
        self.commands = _checked("command", commands)
        self.results = _checked("result", (entry.type for entry in entries))
        self._rules = {entry.type: _rule_of(entry) for entry in entries}

    def is_last(self, result: object) -> bool:
        """Apply the rule of the type of *result*.

        Raises:
            KeyError: The type is not registered.
        """
        rule = self._rules[type(result)]
        return rule if isinstance(rule, bool) else bool(rule(result))


def _checked(kind: str, types: Iterable[object]) -> tuple[type, ...]:
    """Refuse what Go would take: a type listed twice decodes as one, encodes as two."""
    seen: dict[type, int] = {}
    for tag, entry in enumerate(types):
        if not isinstance(entry, type):
            raise RegistryError(f"{kind} {tag} is not a class: {entry!r}")
        if entry in seen:
            raise RegistryError(
                f"{kind} {tag} is {entry.__qualname__}, as is {kind} {seen[entry]}"
            )
        seen[entry] = tag
    return tuple(seen)


def _rule_of(entry: ResultType[Any]) -> bool | Callable[[Any], bool]:
    if not isinstance(entry.last_one, str):
        return entry.last_one
    declared = (vars(base).get("__annotations__", {}) for base in entry.type.__mro__)
    if not (
        hasattr(entry.type, entry.last_one)
        or any(entry.last_one in names for names in declared)
    ):
        raise RegistryError(
            f"{entry.type.__qualname__} has no {entry.last_one!r} to tell the last by"
        )
    return attrgetter(entry.last_one)
