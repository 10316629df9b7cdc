"""The MUS codec, byte-compatible with Go's codec-mus-stream.

    CodecBytes := DTM (size varint)  field  field  …

Nothing says how long a body is: each field says by itself where it ends, so a type that
is not known cannot be skipped. The DTM (data type marker) is the number of the type.
Go's generator counts them from 1, the older dtm-codec from 0, and an application may
choose any; `Registry` says how each is told to us.

A command or a result is a dataclass or a `msgspec.Struct`, or a bare value such as
``class EchoCmd(str)``; `mus_types` has the table of types::

    class AddCmd(msgspec.Struct):
        a: int
        b: int


    class Resize(msgspec.Struct):
        width: Annotated[int, Uint(16)]
        name: str | None

A body is read in one go when it is there. If it is not, `mus_layout.Walk` looks for its
end as it arrives, and it is read when that is found. So the end comes first and the
values later: bytes that end too soon are never judged by what they would mean, and it
makes no difference how a body was cut into segments.
"""

from collections.abc import Mapping

from cmdstream.codec import (
    BODY_SIZE_MAX,
    Decoded,
    Registry,
    Unfinished,
    unregistered,
)
from cmdstream.codecs.mus_forms import Form
from cmdstream.codecs.mus_layout import Limits, Walk
from cmdstream.codecs.mus_types import Float, Int, Time, Uint, form_of
from cmdstream.errors import DecodeError, EncodeError, RemoteProtocolError
from cmdstream.wire import Buffer, read_size, write_size

__all__ = ["Float", "Int", "MusCodec", "Time", "Uint"]

ITEMS_MAX = 1024 * 1024  # a list of so many structs is some 100 MB of Python objects
DEPTH_MAX = 200  # each level is a Python frame while a value is read, of some 1,000


class MusCodec:
    """Commands and results as MUS, numbered by *registry*."""

    def __init__(
        self,
        registry: Registry,
        *,
        first_dtm: int = 1,
        body_size_max: int = BODY_SIZE_MAX,
        items_max: int = ITEMS_MAX,
        depth_max: int = DEPTH_MAX,
    ) -> None:
        """Prepare a reader and a writer for each registered type.

        Args:
            registry: The types, with their DTMs or in the order of these.
            first_dtm: Where the DTMs of a list of types begin: 1 is the habit of Go's
                generator, 0 that of dtm-codec.
            body_size_max: Bytes of one body, both ways: what the peer would refuse is
                not sent either.
            items_max: Elements of one list and pairs of one map, both ways.
            depth_max: Structs, lists, maps and pointers inside one another, both ways.

        Raises:
            RegistryError: A type has no MUS form.
        """
        limits = Limits(
            body_size_max=body_size_max, items_max=items_max, depth_max=depth_max
        )
        self.registry = registry
        commands = _Messages("command", registry.numbered_commands(first_dtm), limits)
        results = _Messages("result", registry.numbered_results(first_dtm), limits)
        self.encode_command = commands.encode
        self.decode_command = commands.decode
        self.encode_result = results.encode
        self.decode_result = results.decode
        self.is_last = registry.is_last


class _Message:
    """One registered type."""

    def __init__(self, kind: str, dtm: int, entry: type, limits: Limits) -> None:
        form, self.is_recursive = form_of(entry, limits.items_max)
        self.dtm = dtm
        self.name = f"{kind} {entry.__qualname__}"
        self._form: Form = form
        self._head = write_size(dtm)
        self._limits = limits

    def encode(self, value: object, before: bytes) -> bytes:
        """Write the DTM and *value*; see `cmdstream.codec.Codec.encode_command`."""
        out = bytearray(before + self._head)
        start = len(out)
        try:
            self._form.write(value, out)
            if self.is_recursive:  # how deep it is, only the walk knows
                self.walk(start).run(out, 0)
        # Whatever a property of the user's class raises, too.
        except Exception as error:
            raise EncodeError(f"{self.name} has no MUS form: {error}") from error
        if len(out) - start > self._limits.body_size_max:
            raise EncodeError(
                f"{self.name} takes {len(out) - start} bytes, "
                f"the limit is {self._limits.body_size_max}"
            )
        return bytes(out)

    def walk(self, start: int) -> Walk:
        """Give the way through a body that begins at *start*."""
        return Walk(self._form.layout, start, self._limits)

    def read(self, data: Buffer, start: int) -> Decoded:
        """Read the body at *start*, which has to be there as a whole.

        Raises:
            Exception: Of any sort: the body is cut short, malformed, or no value.
        """
        value, end = self._form.read(data, start)
        if end - start > self._limits.body_size_max:
            raise ValueError("over the limit")
        return Decoded(value, self.dtm, bytes(data[start:end]), end)


class _Messages:
    """One of the two lists of a registry, ready to encode and decode."""

    def __init__(self, kind: str, types: Mapping[int, type], limits: Limits) -> None:
        self._kind = kind
        self._by_dtm = {
            dtm: _Message(kind, dtm, entry, limits) for dtm, entry in types.items()
        }
        self._by_type = {entry: self._by_dtm[dtm] for dtm, entry in types.items()}

    def encode(self, value: object, before: bytes = b"", /) -> bytes:
        """See `cmdstream.codec.Codec.encode_command`."""
        try:
            message = self._by_type[type(value)]
        except KeyError:
            raise unregistered(self._kind, value, self._by_type) from None
        return message.encode(value, before)

    def decode(self, data: Buffer, offset: int) -> Decoded | Unfinished | int:
        """See `cmdstream.codec.Codec.decode_command`."""
        # Most DTMs are one byte, and are read without a call.
        if offset < len(data) and data[offset] < 0x80:
            dtm, start = data[offset], offset + 1
        elif (found := read_size(data, offset)) is None:
            return len(data) + 1
        else:
            dtm, start = found
        try:
            message = self._by_dtm[dtm]
        except KeyError:
            # Go closes the connection, and so do we: where the body of a type ends
            # that is not known, nobody can tell.
            raise DecodeError(
                f"unknown {self._kind} DTM {dtm}: "
                f"{', '.join(map(str, self._by_dtm)) or 'none'} are registered"
            ) from None
        # A type that may hold itself is walked first: only the walk counts how deep.
        if not message.is_recursive:
            try:
                return message.read(data, start)
            except Exception:  # noqa: BLE001, S110 -- the walk tells what is wrong
                pass
        return _Search(message, start - offset)(data, offset)


class _Search:
    """Looks for the end of one body while it arrives, then reads it."""

    def __init__(self, message: _Message, start: int) -> None:
        self._message = message
        self._start = start  # of the body, from the DTM
        self._walk = message.walk(start)

    def __call__(self, data: Buffer, offset: int) -> Decoded | Unfinished:
        """Go on; see `Unfinished.resume`."""
        try:
            end = self._walk.run(data, offset)
        except RemoteProtocolError as error:
            raise RemoteProtocolError(f"{self._message.name}: {error}") from error
        if end > len(data):
            return Unfinished(end, self)
        try:
            return self._message.read(data, offset + self._start)
        # A string that is no UTF-8, a time out of range, or what the class's own
        # checks raise: it is all there, and the peer's bytes brought it about.
        except Exception as error:
            reason = str(error) or repr(error)
            raise DecodeError(f"{self._message.name}: {reason}") from error
