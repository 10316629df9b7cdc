"""The Protobuf messages of tests/interop/go, as classes of the official package.

They are made from the descriptor that ``protoc`` wrote into ``calc.pb.go``, so Go's
types and these have one source.
"""

import ast
import re
from typing import Any

from google.protobuf import (
    descriptor_pool,
    duration_pb2,
    message_factory,
    timestamp_pb2,
)
from tests.interop.golang import MODULE

__all__ = ["message_class"]

_POOL = descriptor_pool.DescriptorPool()
_LITERAL = r'"(?:[^"\\]|\\.)*"'
_RAW = re.compile(rf"^const \w+_rawDesc = ((?:{_LITERAL}\s*\+?\s*)+)", re.MULTILINE)


def message_class(name: str) -> Any:
    """Return the class of the message *name*."""
    found = _POOL.FindMessageTypeByName(f"calcpb.{name}")
    return message_factory.GetMessageClass(found)


def _descriptor() -> bytes:
    found = _RAW.search((MODULE / "calcpb" / "calc.pb.go").read_text())
    assert found is not None
    # What Go escapes in a string literal, Python's bytes escape in the same way.
    parts = re.findall(_LITERAL, found[1])
    return b"".join(ast.literal_eval(f"b{part}") for part in parts)


for _known in (duration_pb2, timestamp_pb2):
    _POOL.AddSerializedFile(_known.DESCRIPTOR.serialized_pb)
_POOL.AddSerializedFile(_descriptor())
