"""What cmd-stream's commands and results mean to a gateway. Pure.

    command     which of its fields are the gateway's, and a copy with them filled in
    result      its words and its fields, for a refusal
    address     host and port, or the path of a unix socket
    error       whether it is the fault of TLS

A command is what its codec takes: a dataclass, a msgspec Struct or a Protobuf message.
"""

import dataclasses
import re
import ssl
from collections.abc import Collection, Mapping
from typing import Any, cast

import msgspec

from cmdstream import ConnectionClosedError
from coordinator.context import StepContext
from coordinator.gateways.base import REASON_LENGTH_MAX, Answer, call_headers

__all__ = [
    "KEY_FIELD",
    "address_of",
    "answers_of",
    "check_classes",
    "details_of",
    "fails_in_tls",
    "fields_to_fill",
    "filled",
    "reason_of",
]

KEY_FIELD = "idempotency_key"
"""The field of a command that the key is filled into."""

DETAILS_SIZE_MAX = 16 * 1024
"""Bytes of a refusal's fields up to which they are kept as its details: they are
written to the journal."""

_FILLED = (KEY_FIELD, "coordinator_epoch", "traceparent", "coordinator_replay")
_REASONS = ("reason", "detail", "message", "title", "error")

_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\[\]:/@\s]+)):(\d{1,5})")
_UNIX = "unix:"
_TLS_ALERT = re.compile(r"\[SSL: \w*_ALERT_\w+\]")


def check_classes(into: object) -> None:
    """Check that a result can be told to be of *into*, before anything is sent.

    Raises:
        TypeError: It is no class, and no tuple of classes. `isinstance` says so of
            ``list[Paid]``, too, but only when the service has done it.
    """
    # A cast: of what is in a tuple isinstance says nothing.
    kinds = cast("tuple[object, ...]", into) if isinstance(into, tuple) else (into,)
    for kind in kinds:
        if not isinstance(kind, type):
            raise TypeError(f"into= takes a class, or a tuple of them, got {into!r}")


def answers_of(answers: Mapping[type[Any], Answer] | None) -> dict[type[Any], Answer]:
    """Return a copy of *answers*.

    Raises:
        ValueError: One of them is `Answer.DID`.
    """
    for kind, answer in (answers or {}).items():
        if answer is Answer.DID:
            # The value would have no type that the method could declare.
            name = kind.__qualname__
            raise ValueError(f"that {name} means done is said by into={name}")
    return dict(answers or {})


def address_of(address: str) -> tuple[str, int | None]:
    """Split an address that comes from the configuration; no port: a unix socket.

    Raises:
        ValueError: It is not one.
    """
    if address.startswith(_UNIX) and len(address) > len(_UNIX):
        return address.removeprefix(_UNIX), None
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found[3]) < 2**16:
        # The address itself is not repeated: it may hold a password.
        raise ValueError(
            "address must be host:port, [IPv6]:port or unix:/path, without credentials"
        )
    return found[1] or found[2], int(found[3])


# Three kinds of commands, by what they are made with: dataclass, Struct, Protobuf.


def fields_to_fill(kind: type[Any]) -> tuple[str, ...]:
    """Return the names of the fields of *kind* that are the gateway's."""
    fields = _fields_of(kind)
    return tuple(name for name in _FILLED if name in fields)


def _fields_of(kind: type[Any]) -> Collection[str]:
    if (descriptor := getattr(kind, "DESCRIPTOR", None)) is not None:
        return set(descriptor.fields_by_name)
    if dataclasses.is_dataclass(kind):
        return {field.name for field in dataclasses.fields(kind)}
    return kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else ()


def filled(command: Any, names: tuple[str, ...], step: StepContext) -> object:
    """Return a copy of *command* whose fields *names* tell of *step*."""
    headers = call_headers(step)
    values: dict[str, object] = {
        # As over HTTP, percent-encoding and all: the service that is moved from one
        # protocol to the other must know its keys again.
        KEY_FIELD: headers["Idempotency-Key"],
        "coordinator_epoch": step.epoch,
        "traceparent": headers.get("traceparent", ""),
        "coordinator_replay": step.replay,
    }
    changed = {name: values[name] for name in names}
    if not changed:
        return command
    if dataclasses.is_dataclass(command):
        return dataclasses.replace(cast("Any", command), **changed)
    if isinstance(command, msgspec.Struct):
        return msgspec.structs.replace(command, **changed)
    message = type(command)()
    message.CopyFrom(command)
    for name, value in changed.items():
        setattr(message, name, value)
    return message


def details_of(result: object) -> dict[str, object]:
    """Return the fields of *result*; none if it is a bare value, or too big."""
    fields = result
    if hasattr(result, "ListFields"):  # a Protobuf message
        present = cast("Any", result).ListFields()
        fields = {field.name: value for field, value in present}
    try:
        details: object = msgspec.to_builtins(fields, str_keys=True)
        size = len(msgspec.json.encode(details))
    except (TypeError, ValueError, RecursionError):
        return {}
    if not isinstance(details, dict) or size > DETAILS_SIZE_MAX:
        return {}
    # Its keys are strings; isinstance can't say so.
    return cast("dict[str, object]", details)


def reason_of(result: object, details: Mapping[str, object]) -> str:
    """Return what *result*, with these fields, has to say to people, if anything."""
    if isinstance(result, str):  # as in Go's `type Declined string`
        return str(result)[:REASON_LENGTH_MAX]
    # Go's names have capitals, where no tag says otherwise.
    words = {name.lower(): value for name, value in details.items()}
    reasons = (words.get(name) for name in _REASONS)
    reason = next((word for word in reasons if isinstance(word, str) and word), "")
    return reason[:REASON_LENGTH_MAX]


def fails_in_tls(error: ConnectionClosedError) -> bool:
    """Say whether *error* is the fault of TLS, and not just a lost connection in it."""
    if isinstance(cause := error.__cause__, ssl.SSLError):
        lost = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
        return not isinstance(cause, lost)
    # In TLS 1.3 a server that is not shown a certificate says so when the hand-shake is
    # over for us; the client keeps of that the words.
    return _TLS_ALERT.search(str(error)) is not None
