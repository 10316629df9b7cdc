"""Where a MUS value ends: what its bytes look like, and a walk along them.

    Fixed     a number of bytes
    Flag      01 or 00
    Varint    a uvarint of 8, 16, 32 or 64 bits
    Sized     size, then that many bytes
    Pointer   00 and a value, or 01
    Items     size, then that many elements, or pairs of a key and its value
    Fields    values one after the other, and nothing else

There is no length around a MUS body: whoever wants to know where it ends has to walk
it, field by field. `Walk` does so and makes no values, so a body of which little has
arrived costs the bytes that are there and nothing else. It can stop at any byte and go
on when more has come: a large body that comes in a thousand segments is walked once,
not a thousand times.

Its limits bound what a peer can make us do: the bytes of the whole body, the elements
of one list or map, and how deep values lie in one another. Each strikes when a number
is announced, not when the bytes are there.
"""

from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import Protocol, TypeAlias

import msgspec

from cmdstream.errors import RemoteProtocolError
from cmdstream.wire import Buffer, read_size, read_uvarint

__all__ = [
    "Fields",
    "Fixed",
    "Flag",
    "Items",
    "Layout",
    "Limits",
    "Pointer",
    "Sized",
    "Varint",
    "Walk",
]


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What a peer may announce."""

    body_size_max: int
    """Bytes of one body."""
    items_max: int
    """Elements of one list, or pairs of one map."""
    depth_max: int
    """Structs, lists, maps and pointers inside one another."""


class Layout(Protocol):
    """What the bytes of one type look like."""

    @property
    def takes_bytes(self) -> bool:
        """False for a value of which nothing is on the wire."""
        ...

    def step(self, data: Buffer, at: int, limits: Limits) -> "Step":
        """Go past what is at *at*.

        Returns:
            The index just past it, and the values that lie there, inside of this one.
            If *data* ends first, the index is one beyond its end or more: how far it
            must reach for another try.

        Raises:
            RemoteProtocolError: The bytes cannot become one, whatever follows.
        """
        ...


Step: TypeAlias = tuple[int, Iterable[Layout]]

_NOTHING: tuple[Layout, ...] = ()


class Fixed(msgspec.Struct, frozen=True):
    """A number of bytes that may be anything."""

    size: int
    takes_bytes: bool = True

    def step(self, data: Buffer, at: int, limits: Limits) -> Step:
        """See `Layout.step`."""
        del data, limits
        return at + self.size, _NOTHING


class Flag(msgspec.Struct, frozen=True):
    """A bool."""

    takes_bytes: bool = True

    def step(self, data: Buffer, at: int, limits: Limits) -> Step:
        """See `Layout.step`."""
        del limits
        if at < len(data) and (byte := data[at]) > 1:
            raise RemoteProtocolError(f"bool {byte:#04x}, neither 00 nor 01")
        return at + 1, _NOTHING


class Varint(msgspec.Struct, frozen=True):
    """A number of at most so many bits."""

    bits: int
    takes_bytes: bool = True

    def step(self, data: Buffer, at: int, limits: Limits) -> Step:
        """See `Layout.step`."""
        del limits
        found = read_uvarint(data, at, self.bits)
        return (len(data) + 1 if found is None else found[1]), _NOTHING


class Sized(msgspec.Struct, frozen=True):
    """Bytes, or a string."""

    takes_bytes: bool = True

    def step(self, data: Buffer, at: int, limits: Limits) -> Step:
        """See `Layout.step`."""
        del limits
        if (found := read_size(data, at)) is None:
            return len(data) + 1, _NOTHING
        size, start = found
        return start + size, _NOTHING


class Pointer(msgspec.Struct, frozen=True):
    """A value that may be missing."""

    inner: Layout
    takes_bytes: bool = True

    def step(self, data: Buffer, at: int, limits: Limits) -> Step:
        """See `Layout.step`."""
        del limits
        if at >= len(data):
            return at + 1, _NOTHING
        if (flag := data[at]) > 1:
            # 02 is a pointer that may be shared, from Go's package pm: a table of what
            # was read before would have to travel with each value.
            raise RemoteProtocolError(f"pointer flag {flag:#04x}, neither 00 nor 01")
        return at + 1, (_NOTHING if flag else (self.inner,))


class Items(msgspec.Struct, frozen=True):
    """A list of one type, or the keys and values of a map by turns."""

    each: tuple[Layout, ...]
    takes_bytes: bool = True

    def step(self, data: Buffer, at: int, limits: Limits) -> Step:
        """See `Layout.step`."""
        if (found := read_size(data, at)) is None:
            return len(data) + 1, _NOTHING
        count, start = found
        if count > limits.items_max:
            raise RemoteProtocolError(
                f"{count} elements announced, the limit is {limits.items_max}"
            )
        return start, chain.from_iterable(repeat(self.each, count))


class Fields(msgspec.Struct):
    """A struct. Its fields are filled in later, since they may hold it in turn."""

    fields: list[Layout] = []
    takes_bytes: bool = True

    def step(self, data: Buffer, at: int, limits: Limits) -> Step:
        """See `Layout.step`."""
        del data, limits
        return at, self.fields


class Walk:
    """The way through one value, as far as its bytes have arrived."""

    def __init__(self, layout: Layout, start: int, limits: Limits) -> None:
        """Stand before a value.

        Args:
            layout: What it looks like.
            start: Where it begins, from the offset that `run` is given.
            limits: What it may announce.
        """
        self._at = start  # from the offset, which moves as the owner drops old bytes
        self._end_max = start + limits.body_size_max
        self._limits = limits
        self._ahead: list[Iterator[Layout]] = [iter((layout,))]
        self._cut: Layout | None = None  # what *data* ended in, to be tried again

    def run(self, data: Buffer, offset: int) -> int:
        """Walk on.

        Args:
            data: Everything that has arrived; what was walked may not change.
            offset: Where what *start* was counted from is now.

        Returns:
            The index just past the value if that is within *data*; otherwise how long
            *data* must be at least before this is worth calling again.

        Raises:
            RemoteProtocolError: The bytes cannot become the value, whatever follows.
        """
        at = offset + self._at
        end_max = offset + self._end_max
        while self._ahead:
            layout = self._cut or next(self._ahead[-1], None)
            if layout is None:
                self._ahead.pop()
                continue
            behind, inside = layout.step(data, at, self._limits)
            if behind > end_max:
                raise RemoteProtocolError(
                    f"more than {self._limits.body_size_max} bytes, which is the limit"
                )
            if behind > len(data):
                self._cut, self._at = layout, at - offset
                return behind
            self._cut, at = None, behind
            if inside is not _NOTHING:
                self._enter(inside)
        return at

    def _enter(self, inside: Iterable[Layout]) -> None:
        if len(self._ahead) > self._limits.depth_max:
            raise RemoteProtocolError(
                f"values lie more than {self._limits.depth_max} deep in one another"
            )
        self._ahead.append(iter(inside))
