"""Protobuf messages for the tests: made from descriptors, as what protoc generates is.

Generated code does no more than hand such a descriptor to the same factory, so there is
nothing to generate here, and nothing that could be out of date.
"""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

__all__ = ["Cmd1", "Cmd2", "Everything", "Part", "Required", "Result1", "Result2"]

_PACKAGE = "cmdstream.tests"
_POOL = descriptor_pool.DescriptorPool()

Kind = FieldDescriptorProto


def _field(
    name: str, number: int, kind: int, *, repeated: bool = False, of: str = ""
) -> FieldDescriptorProto:
    field = FieldDescriptorProto(name=name, number=number)
    field.type = kind  # type: ignore[assignment]  # the stubs want the enum's own type
    field.label = Kind.LABEL_REPEATED if repeated else Kind.LABEL_OPTIONAL
    if of:
        field.type_name = f".{_PACKAGE}.{of}"
    return field


def _one(name: str, field: str, kind: int) -> descriptor_pb2.DescriptorProto:
    return descriptor_pb2.DescriptorProto(name=name, field=[_field(field, 1, kind)])


_COUNTS = descriptor_pb2.DescriptorProto(
    name="CountsEntry",
    field=[_field("key", 1, Kind.TYPE_STRING), _field("value", 2, Kind.TYPE_INT64)],
    options=descriptor_pb2.MessageOptions(map_entry=True),
)

_EVERYTHING = descriptor_pb2.DescriptorProto(
    name="Everything",
    field=[
        _field("flag", 1, Kind.TYPE_BOOL),
        _field("number", 2, Kind.TYPE_SINT64),
        _field("ratio", 3, Kind.TYPE_DOUBLE),
        _field("text", 4, Kind.TYPE_STRING),
        _field("data", 5, Kind.TYPE_BYTES),
        _field("many", 6, Kind.TYPE_INT32, repeated=True),
        _field("inner", 7, Kind.TYPE_MESSAGE, of="Everything"),
        _field(
            "counts", 8, Kind.TYPE_MESSAGE, repeated=True, of="Everything.CountsEntry"
        ),
    ],
    nested_type=[_COUNTS],
)

_PART = descriptor_pb2.DescriptorProto(
    name="Part",
    field=[_field("value", 1, Kind.TYPE_INT64), _field("last", 2, Kind.TYPE_BOOL)],
)

_POOL.Add(
    descriptor_pb2.FileDescriptorProto(
        name="cmdstream/tests.proto",
        package=_PACKAGE,
        syntax="proto3",
        message_type=[
            _one("Cmd1", "X", Kind.TYPE_INT64),
            _one("Cmd2", "Y", Kind.TYPE_STRING),
            _one("Result1", "X", Kind.TYPE_INT64),
            _one("Result2", "Y", Kind.TYPE_STRING),
            _EVERYTHING,
            _PART,
        ],
    )
)

_REQUIRED = _one("Required", "must", Kind.TYPE_INT64)
_REQUIRED.field[0].label = Kind.LABEL_REQUIRED
_POOL.Add(
    descriptor_pb2.FileDescriptorProto(
        name="cmdstream/old.proto",
        package=_PACKAGE,
        syntax="proto2",
        message_type=[_REQUIRED],
    )
)


def _class(name: str) -> Any:
    found = _POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}")
    return message_factory.GetMessageClass(found)


Cmd1 = _class("Cmd1")
Cmd2 = _class("Cmd2")
Result1 = _class("Result1")
Result2 = _class("Result2")
Everything = _class("Everything")
Part = _class("Part")
Required = _class("Required")
