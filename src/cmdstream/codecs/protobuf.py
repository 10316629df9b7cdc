"""The Protobuf codec, byte-compatible with Go's codec-protobuf.

    CodecBytes := tag (size varint)  length (size varint)  message[length]

A command or a result is a message class that protoc generated, registered as it is::

    from calc_pb2 import AddCmd, CalcResult

    codec = ProtobufCodec(Registry([AddCmd], [CalcResult]))

A message of which every field has its default has no bytes, and a length of 00. Fields
that our schema does not know are kept and written again. Maps are written in the order
of their keys, so that equal messages have equal bytes; Go writes them in any.

The official package ``protobuf`` is imported with this module, and with nothing else of
the package.
"""

from cmdstream.codec import BODY_SIZE_MAX, Registry
from cmdstream.codecs.tagged import TaggedCodec
from cmdstream.errors import DecodeError, EncodeError, RegistryError

try:
    from google.protobuf.message import Message
except ImportError as error:
    raise ImportError(
        f"the Protobuf codec needs protobuf ({error}): "
        "pip install 'coordinator[protobuf]'"
    ) from error

__all__ = ["ProtobufCodec"]


class ProtobufCodec(TaggedCodec):
    """Commands and results as Protobuf messages, numbered by *registry*."""

    def __init__(
        self, registry: Registry, *, body_size_max: int = BODY_SIZE_MAX
    ) -> None:
        """Prepare to write and read each registered type.

        Args:
            registry: The message classes, with their tags or in the order of these.
            body_size_max: Bytes of one message, both ways.

        Raises:
            RegistryError: A type is no message class.
        """
        super().__init__(registry, _MessageBody, body_size_max=body_size_max)


class _MessageBody:
    """The bodies of one message class; see `cmdstream.codecs.tagged.Body`."""

    def __init__(self, entry: type) -> None:
        if not issubclass(entry, Message):
            raise RegistryError(
                f"{entry.__qualname__} is no Protobuf message class: "
                "register what protoc generated"
            )
        self._name = entry.__qualname__
        self._parse = entry.FromString

    def encode(self, value: object) -> bytes:
        """See `cmdstream.codecs.tagged.Body.encode`."""
        assert isinstance(value, Message)
        try:
            return value.SerializeToString(deterministic=True)
        # Which of its exceptions it raises for a required field that is missing or a
        # message that is too large depends on how protobuf was built.
        except Exception as error:
            raise EncodeError(f"{self._name} cannot be written: {error}") from error

    def decode(self, body: bytes) -> object:
        """See `cmdstream.codecs.tagged.Body.decode`."""
        try:
            return self._parse(body)
        except Exception as error:  # as above
            raise DecodeError(str(error) or repr(error)) from error
