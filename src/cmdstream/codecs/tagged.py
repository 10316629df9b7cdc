"""The layer that the JSON and Protobuf codecs share: a tag, a length, a body.

    CodecBytes := tag (size varint)  length (size varint)  body[length]

The tag is the type's place in the registry, from 0. Since the length is known before
the body, a body over the limit is refused while none of it has arrived.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from cmdstream.codec import BODY_SIZE_MAX, Decoded, Registry
from cmdstream.errors import DecodeError, EncodeError, RemoteProtocolError
from cmdstream.wire import Buffer, read_size, write_size

__all__ = ["Body", "TaggedCodec"]


class Body(Protocol):
    """How one type's bodies are written and read."""

    def encode(self, value: object) -> bytes:
        """Write *value*.

        Raises:
            EncodeError: A field has no encoding.
        """
        ...

    def decode(self, body: bytes) -> object:
        """Read a value.

        Raises:
            DecodeError: *body* does not fit the type.
        """
        ...


class TaggedCodec:
    """A `cmdstream.codec.Codec` for any format whose bodies need a length."""

    def __init__(
        self,
        registry: Registry,
        body_of: Callable[[type], Body],
        *,
        body_size_max: int = BODY_SIZE_MAX,
    ) -> None:
        """Prepare the body of each registered type, once.

        Args:
            registry: The types, in the order of their tags.
            body_of: Makes the body of a type.
            body_size_max: Bytes of one body, both ways: what the peer would refuse is
                not sent either.

        Raises:
            RegistryError: From *body_of*.
        """
        self.registry = registry
        self._commands = _Messages("command", registry.commands, body_of, body_size_max)
        self._results = _Messages("result", registry.results, body_of, body_size_max)
        self.encode_command = self._commands.encode
        self.decode_command = self._commands.decode
        self.encode_result = self._results.encode
        self.decode_result = self._results.decode

    def is_last(self, result: object) -> bool:
        """See `cmdstream.codec.Codec.is_last`."""
        try:
            return self.registry.is_last(result)
        except KeyError:
            raise self._results.unregistered(result) from None


class _Messages:
    """One of the two lists of a registry, ready to encode and decode."""

    def __init__(
        self,
        kind: str,
        types: Sequence[type],
        body_of: Callable[[type], Body],
        body_size_max: int,
    ) -> None:
        bodies = [body_of(entry) for entry in types]
        self._kind = kind
        self._names = [entry.__qualname__ for entry in types]
        self._decoders = [body.decode for body in bodies]
        self._encoders = {
            entry: (write_size(tag), body.encode)
            for tag, (entry, body) in enumerate(zip(types, bodies, strict=True))
        }
        self._body_size_max = body_size_max

    def encode(self, value: object) -> bytes:
        """See `cmdstream.codec.Codec.encode_command`."""
        try:
            tag, encode = self._encoders[type(value)]
        except KeyError:
            raise self.unregistered(value) from None
        body = encode(value)
        size = len(body)
        if size > self._body_size_max:
            raise EncodeError(
                f"{self._kind} {type(value).__qualname__} takes {size} bytes, "
                f"the limit is {self._body_size_max}"
            )
        return tag + write_size(size) + body

    def decode(self, data: Buffer, offset: int) -> Decoded | int:
        """See `cmdstream.codec.Codec.decode_command`."""
        # Most tags and lengths are one byte each, and are read without a call.
        if (
            len(data) - offset > 1
            and (tag := data[offset]) | (size := data[offset + 1]) < 0x80
            and tag < len(self._decoders)
        ):
            start = offset + 2
        elif (head := self._read_head(data, offset)) is None:
            return len(data) + 1
        else:
            tag, size, start = head
        if size > self._body_size_max:
            raise RemoteProtocolError(
                f"{self._kind} {self._names[tag]} announces {size} bytes, "
                f"the limit is {self._body_size_max}"
            )
        end = start + size
        if end > len(data):
            return end
        body = bytes(data[start:end])  # free for bytes, whose slice is a copy already
        try:
            value = self._decoders[tag](body)
        except DecodeError as error:
            raise DecodeError(f"{self._kind} {self._names[tag]}: {error}") from error
        return Decoded(value, tag, body, end)

    def _read_head(self, data: Buffer, offset: int) -> tuple[int, int, int] | None:
        """Read tag and length; give them and where the body starts, if they are there.

        Raises:
            DecodeError: No type has that tag.
            RemoteProtocolError: See `read_size`.
        """
        if (found := read_size(data, offset)) is None:
            return None
        tag, position = found
        if tag >= len(self._decoders):
            # Go closes the connection, and so do we. The length would let us skip the
            # body, but then the peer would wait for a result for ever.
            raise DecodeError(
                f"unknown {self._kind} tag {tag}: {len(self._decoders)} are registered"
            )
        if (found := read_size(data, position)) is None:
            return None
        size, start = found
        return tag, size, start

    def unregistered(self, value: object) -> EncodeError:
        """Make the error for a value whose type is not in the list."""
        known = ", ".join(self._names) or "none"
        return EncodeError(
            f"{type(value).__qualname__} is not a registered {self._kind}: {known}"
        )
