"""Bodies that nobody looks into: for tools that have no types, only bytes.

    CodecBytes := tag (size varint)  length (size varint)  body[length]

Speaks with every JSON and Protobuf peer, since these tell how long a body is. A MUS
peer does not; there only its types can tell.
"""

from collections.abc import Callable

import msgspec

from cmdstream.codec import BODY_SIZE_MAX, Decoded
from cmdstream.errors import EncodeError, RemoteProtocolError
from cmdstream.wire import Buffer, read_size, write_size

__all__ = ["Opaque", "OpaqueCodec"]


class Opaque(msgspec.Struct, frozen=True):
    """A command or a result: the number of its type, and its bytes."""

    tag: int
    body: bytes


class OpaqueCodec:
    """A `cmdstream.codec.Codec` for `Opaque` commands and results."""

    def __init__(
        self,
        last_one: Callable[[Opaque], bool],
        *,
        body_size_max: int = BODY_SIZE_MAX,
    ) -> None:
        """Take the rule by which a result is the last of its command.

        Args:
            last_one: True for a result that no other follows.
            body_size_max: Bytes of one body, both ways.
        """
        self._last_one = last_one
        self._body_size_max = body_size_max

    def encode_command(self, command: object, before: bytes = b"", /) -> bytes:
        """See `cmdstream.codec.Codec.encode_command`."""
        if not isinstance(command, Opaque):
            raise EncodeError(f"{type(command).__qualname__} is not Opaque")
        size = len(command.body)
        if size > self._body_size_max:
            raise EncodeError(
                f"tag {command.tag} has {size} bytes, the limit is "
                f"{self._body_size_max}"
            )
        return before + write_size(command.tag) + write_size(size) + command.body

    encode_result = encode_command

    def decode_command(self, data: Buffer, offset: int, /) -> Decoded | int:
        """See `cmdstream.codec.Codec.decode_command`."""
        if (found := read_size(data, offset)) is None:
            return len(data) + 1
        tag, position = found
        if (found := read_size(data, position)) is None:
            return len(data) + 1
        size, start = found
        if size > self._body_size_max:
            raise RemoteProtocolError(
                f"tag {tag} announces {size} bytes, the limit is {self._body_size_max}"
            )
        end = start + size
        if end > len(data):
            return end
        body = bytes(data[start:end])
        return Decoded(Opaque(tag, body), tag, body, end)

    decode_result = decode_command

    def is_last(self, result: object, /) -> bool:
        """See `cmdstream.codec.Codec.is_last`."""
        if not isinstance(result, Opaque):
            raise EncodeError(f"{type(result).__qualname__} is not Opaque")
        return self._last_one(result)
