"""Protobuf messages of the payment service, made as `tests.cmdstream.messages` says."""

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

__all__ = ["make"]

_PACKAGE = "gateways.tests"
_POOL = descriptor_pool.DescriptorPool()

_KINDS = {
    str: FieldDescriptorProto.TYPE_STRING,
    int: FieldDescriptorProto.TYPE_INT64,
    bool: FieldDescriptorProto.TYPE_BOOL,
}


def make(name: str, **fields: type) -> Any:
    """Make a message of that name with *fields*, numbered in their order."""
    members: list[FieldDescriptorProto] = []
    for number, (field, kind) in enumerate(fields.items(), 1):
        member = FieldDescriptorProto(name=field, number=number)
        member.type = _KINDS[kind]
        member.label = FieldDescriptorProto.LABEL_OPTIONAL
        members.append(member)
    _POOL.Add(
        descriptor_pb2.FileDescriptorProto(
            name=f"{name}.proto",
            package=_PACKAGE,
            syntax="proto3",
            message_type=[descriptor_pb2.DescriptorProto(name=name, field=members)],
        )
    )
    found = _POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}")
    return message_factory.GetMessageClass(found)
