"""The layer that the JSON and Protobuf codecs share: a tag, a length, a body.

    CodecBytes := tag (size varint)  length (size varint)  body[length]

The tag is the type's number in the registry, which counts from 0. Since the length is
known before the body, a body over the limit is refused while none of it has arrived.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

from cmdstream.codec import BODY_SIZE_MAX, Decoded, Registry, unregistered
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
            registry: The types, with their tags or in the order of these.
            body_of: Makes the body of a type.
            body_size_max: Bytes of one body, both ways: what the peer would refuse is
                not sent either.

        Raises:
            RegistryError: From *body_of*.
        """
        self.registry = registry
        commands = _Messages(
            "command", registry.numbered_commands(), body_of, body_size_max
        )
        results = _Messages(
            "result", registry.numbered_results(), body_of, body_size_max
        )
        self.encode_command = commands.encode
        self.decode_command = commands.decode
        self.encode_result = results.encode
        self.decode_result = results.decode
        self.is_last = registry.is_last


class _Messages:
    """One of the two lists of a registry, ready to encode and decode."""

    def __init__(
        self,
        kind: str,
        types: Mapping[int, type],
        body_of: Callable[[type], Body],
        body_size_max: int,
    ) -> None:
        bodies = {tag: body_of(entry) for tag, entry in types.items()}
        self._kind = kind
        self._names = {tag: entry.__qualname__ for tag, entry in types.items()}
        self._decoders = {tag: body.decode for tag, body in bodies.items()}
        self._short_tags = {
            tag: decode for tag, decode in self._decoders.items() if tag < 0x80
        }
        self._encoders = {
            entry: (_short_heads(tag), bodies[tag].encode)
            for tag, entry in types.items()
        }
        self._body_size_max = body_size_max
        self._short_max = min(_SHORT_MAX, body_size_max)

    def encode(self, value: object, before: bytes = b"", /) -> bytes:
        """See `cmdstream.codec.Codec.encode_command`."""
        try:
            heads, encode = self._encoders[type(value)]
        except KeyError:
            raise unregistered(self._kind, value, self._encoders) from None
        body = encode(value)
        size = len(body)
        if size <= self._short_max:
            return before + heads[size] + body
        if size > self._body_size_max:
            raise EncodeError(
                f"{self._kind} {type(value).__qualname__} takes {size} bytes, "
                f"the limit is {self._body_size_max}"
            )
        return before + heads[0][:-1] + write_size(size) + body

    def decode(self, data: Buffer, offset: int) -> Decoded | int:
        """See `cmdstream.codec.Codec.decode_command`."""
        # Most tags and lengths are one byte each, and are read without a call.
        try:
            decode = self._short_tags[tag := data[offset]]
            size = data[offset + 1]
        except (IndexError, KeyError):
            return self._decode_long(data, offset)
        if size > self._short_max:
            return self._decode_long(data, offset)
        start = offset + 2
        end = start + size
        body = data[start:end]
        if len(body) < size:
            return end
        if not isinstance(body, bytes):
            body = bytes(body)
        try:
            value = decode(body)
        except DecodeError as error:
            raise self._named(tag, error) from error
        return Decoded(value, tag, body, end)

    def _decode_long(self, data: Buffer, offset: int) -> Decoded | int:
        """Decode what begins with a tag and a length of any size, or of none yet."""
        if (head := self._read_head(data, offset)) is None:
            return len(data) + 1
        tag, size, start = head
        end = start + size
        if end > len(data):
            return end
        body = bytes(data[start:end])
        try:
            value = self._decoders[tag](body)
        except DecodeError as error:
            raise self._named(tag, error) from error
        return Decoded(value, tag, body, end)

    def _named(self, tag: int, error: DecodeError) -> DecodeError:
        return DecodeError(f"{self._kind} {self._names[tag]}: {error}")

    def _read_head(self, data: Buffer, offset: int) -> tuple[int, int, int] | None:
        """Read tag and length; give them and where the body starts, if they are there.

        Raises:
            DecodeError: No type has that tag.
            RemoteProtocolError: The body is too large, or see `read_size`.
        """
        if (found := read_size(data, offset)) is None:
            return None
        tag, position = found
        if tag not in self._decoders:
            # Go closes the connection, and so do we. The length would let us skip the
            # body, but then the peer would wait for a result for ever.
            raise DecodeError(
                f"unknown {self._kind} tag {tag}: {len(self._decoders)} are registered"
            )
        if (found := read_size(data, position)) is None:
            return None
        size, start = found
        if size > self._body_size_max:
            raise RemoteProtocolError(
                f"{self._kind} {self._names[tag]} announces {size} bytes, "
                f"the limit is {self._body_size_max}"
            )
        return tag, size, start


_SHORT_MAX = 0x7F  # the largest length of one byte


def _short_heads(tag: int) -> list[bytes]:
    """Write *tag* with each length of one byte."""
    return [write_size(tag) + bytes((size,)) for size in range(_SHORT_MAX + 1)]
