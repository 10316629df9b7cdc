"""What a connection asks of a codec, and the registry that codecs number types by.

There is no outer frame on the wire: behind the seq come the codec's bytes, and only the
codec knows where they end. So a decoder is handed everything that has arrived and
answers either with a value and the index behind it, or with how much it needs to see
before asking again is worth it, and, where it had to look for the end, with where it
stopped. The second answer is what keeps a large body from being parsed again for every
segment it comes in, and lets a length limit strike when the length is announced rather
than when the bytes are there.

The registry is the whole schema. A type's number (tag, DTM) is its place in its list,
unless it was given one; commands and results are counted separately, and nothing on the
wire says which list the peer uses: appending is safe, reordering is not, and the
ServerInfo is the place for a version: `Registry.fingerprint` makes one.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from typing import Any, Generic, Protocol, TypeAlias, TypeGuard, TypeVar

import msgspec

from cmdstream.errors import EncodeError, RegistryError
from cmdstream.wire import INT64_MAX, Buffer

__all__ = [
    "BODY_SIZE_MAX",
    "Codec",
    "Decoded",
    "LastOne",
    "Registry",
    "ResultType",
    "Unfinished",
    "unregistered",
]

BODY_SIZE_MAX = 16 * 1024 * 1024  # bytes; Go has no limit, and dies of an 11-byte frame

T = TypeVar("T")

LastOne: TypeAlias = bool | str | Callable[[T], bool]


# Made for each frame and let go at once, so never part of a cycle.
class Decoded(msgspec.Struct, frozen=True, gc=False):
    """One command or result that a codec found."""

    value: object
    tag: int
    body: bytes
    """The bytes behind the tag (and length), as received; a copy of its own."""
    end: int
    """Index just past the last byte."""


class Unfinished(msgspec.Struct, frozen=True):
    """A command or result whose end is still to be found, and where the search stands.

    The codec keeps nothing of it: the search ends with the connection that holds this.
    """

    needed: int
    """The length *data* must have at least before `resume` is worth calling."""
    resume: Callable[[Buffer, int], "Decoded | Unfinished"]
    """Goes on, in data that begins with the same bytes and the offset that these have
    now, and has become longer; returns and raises as `Codec.decode_command`."""


class Codec(Protocol):
    """Turns commands and results into bytes that say by themselves where they end.

    A codec keeps no state between calls, so all connections may share one.
    """

    def encode_command(self, command: object, before: bytes = b"", /) -> bytes:
        """Encode *command* with its tag, behind the bytes *before* it.

        Raises:
            EncodeError: Its type is not registered, a field has no encoding, or the
                body is larger than the peer would accept.
        """
        ...

    def encode_result(self, result: object, before: bytes = b"", /) -> bytes:
        """Encode *result*, as `encode_command`, with what that raises."""
        ...

    def decode_command(
        self, data: Buffer, offset: int, /
    ) -> Decoded | Unfinished | int:
        """Decode the command that starts at *offset*.

        Returns:
            The command; or, if *data* ends first, the length *data* must have at least
            before this is worth calling again, always more than ``len(data)``; or with
            that length a search that can go on, if to begin anew would take long.

        Raises:
            RemoteProtocolError: The bytes cannot become a command, whatever follows.
                Nothing in proportion to an announced size has been allocated.
        """
        ...

    def decode_result(self, data: Buffer, offset: int, /) -> Decoded | Unfinished | int:
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
    """The numbered command and result types that both sides have to agree on.

    Attributes:
        commands: Command types, in their order.
        results: Result types, likewise.
    """

    def __init__(
        self,
        commands: Iterable[type] | Mapping[int, type],
        results: (
            Iterable[type[Any] | ResultType[Any]]
            | Mapping[int, type[Any] | ResultType[Any]]
        ),
    ) -> None:
        """Take the types in their order, or with numbers of your choice.

        Types in a list are numbered as Go does it: from 0 in JSON and Protobuf, from 1
        in MUS unless its codec is told otherwise. A dict from numbers to types is for
        the rest: numbers chosen freely, and peers of whose types we know only some.

        Raises:
            RegistryError: A type is listed twice or is not a class, a number is none,
                or a rule names a field that its type has not.
        """
        entries: list[ResultType[Any]] = [
            entry if isinstance(entry, ResultType) else ResultType(entry)
            for entry in _types_of(results)
        ]
        self.commands = _checked("command", _types_of(commands))
        self.results = _checked("result", (entry.type for entry in entries))
        self._command_numbers = _numbers_of("command", commands)
        self._result_numbers = _numbers_of("result", results)
        self._rules = {entry.type: _rule_of(entry) for entry in entries}

    def numbered_commands(self, first: int = 0) -> dict[int, type]:
        """Return the command types by number; those of a list begin at *first*."""
        return _numbered(self.commands, self._command_numbers, first)

    def numbered_results(self, first: int = 0) -> dict[int, type]:
        """Return the result types likewise."""
        return _numbered(self.results, self._result_numbers, first)

    def fingerprint(self) -> str:
        """Return twelve hex digits that change when a peer would misread us.

        They stand for the numbers and names of all types and the names of their fields,
        in order; not for the types of fields, nor for the rules of last results. In the
        ServerInfo of both sides they turn a reordered list away at the greeting, where
        Go decodes one type as another::

            info = f"orders-{registry.fingerprint()}".encode()
            Server(codec, handler, options=ServerOptions(server_info=info))

        A type that is appended changes them, too, though its peers could go on: choose
        a version by hand where old and new have to meet.
        """
        digest = hashlib.sha256()
        for types in (self.numbered_commands(), self.numbered_results()):
            for number, entry in types.items():
                fields = ",".join(_fields_of(entry))
                digest.update(f"{number} {entry.__name__}({fields})\n".encode())
            digest.update(b"\n")
        return digest.hexdigest()[:12]

    def is_last(self, result: object) -> bool:
        """Apply the rule of the type of *result*.

        Raises:
            EncodeError: The type is not registered.
        """
        try:
            rule = self._rules[type(result)]
        except KeyError:
            raise unregistered("result", result, self._rules) from None
        if rule is True:
            return True
        return rule if isinstance(rule, bool) else bool(rule(result))


def unregistered(kind: str, value: object, types: Iterable[type]) -> EncodeError:
    """Make the error for a command or result whose type is not among *types*."""
    known = ", ".join(entry.__qualname__ for entry in types) or "none"
    return EncodeError(
        f"{type(value).__qualname__} is not a registered {kind}: {known}"
    )


def _are_numbered(types: object) -> TypeGuard[Mapping[Any, Any]]:
    """Tell whether *types* come with their numbers, or only in an order."""
    return isinstance(types, Mapping)


def _types_of(types: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(types.values() if _are_numbered(types) else types)


def _numbers_of(kind: str, types: object) -> tuple[int, ...] | None:
    if not _are_numbered(types):
        return None
    for number in types:
        if not isinstance(number, int) or not 0 <= number <= INT64_MAX:
            raise RegistryError(
                f"{kind} number {number!r} is no integer from 0 to 2**63-1"
            )
    return tuple(types)


def _numbered(
    types: tuple[type, ...], numbers: tuple[int, ...] | None, first: int
) -> dict[int, type]:
    given = range(first, first + len(types)) if numbers is None else numbers
    return dict(zip(given, types, strict=True))


def _checked(kind: str, types: Iterable[object]) -> tuple[type, ...]:
    """Refuse what Go would take: a type listed twice decodes as one, encodes as two."""
    seen: dict[type, int] = {}
    for place, entry in enumerate(types):
        if not isinstance(entry, type):
            raise RegistryError(f"{kind} {place} is not a class: {entry!r}")
        if entry in seen:
            raise RegistryError(
                f"{kind} {place} is {entry.__qualname__}, as is {kind} {seen[entry]}"
            )
        seen[entry] = place
    return tuple(seen)


def _rule_of(entry: ResultType[Any]) -> bool | Callable[[Any], bool]:
    if not isinstance(entry.last_one, str):
        return entry.last_one
    if not _has_field(entry.type, entry.last_one):
        raise RegistryError(
            f"{entry.type.__qualname__} has no {entry.last_one!r} to tell the last by"
        )
    return attrgetter(entry.last_one)


def _has_field(entry: type, name: str) -> bool:
    return hasattr(entry, name) or name in _fields_of(entry)


def _fields_of(entry: type) -> list[str]:
    """Return the names of the fields of *entry*, those of its bases first."""
    # A Protobuf message has its fields where only its descriptor tells of them.
    described = getattr(getattr(entry, "DESCRIPTOR", None), "fields_by_name", ())
    names = dict.fromkeys(described)
    for base in reversed(entry.__mro__):
        names |= dict.fromkeys(vars(base).get("__annotations__", ()))
    return list(names)
