"""What gRPC means to a gateway: status codes, and the details beside them. Pure.

    code                          answer          why
    ----                          ------          ---
    OK                            did
    INVALID_ARGUMENT NOT_FOUND    did not         the business says no
    FAILED_PRECONDITION
    OUT_OF_RANGE
    ... if it names the key       misconfigured   in use, or used for two requests
    ABORTED                       nobody knows    a lost race: ask again, says gRPC
    UNAVAILABLE                   nobody knows    "not now", refused or lost connections
    RESOURCE_EXHAUSTED            nobody knows    "not now": a quota ends by itself
    ... of a message's size, or   misconfigured   that does not
        the metadata's
    DEADLINE_EXCEEDED CANCELLED   nobody knows    it may have run on all the same
    UNKNOWN INTERNAL              nobody knows    an exception, but when?
    ALREADY_EXISTS                misconfigured   another's, or our own earlier try's?
    DATA_LOSS                     misconfigured   asking again will not bring it back
    PERMISSION_DENIED             misconfigured   a fault of credentials,
    UNAUTHENTICATED
    UNIMPLEMENTED                 misconfigured   of address or version
    any other number              misconfigured   not of gRPC
    UNAVAILABLE, by the client:   misconfigured   a certificate that is not trusted or
    TLS that fails                                not shown

A refusal is believed of four codes only: it undoes an order for good, while what is not
taken for one is at worst asked about again, or looked at by a person.

*NOT_FOUND* is one of them, though 404 is not: a wrong path is UNIMPLEMENTED here, and
what a proxy makes of a 404 is UNIMPLEMENTED, too. So only the service's own code says
NOT_FOUND.

*ALREADY_EXISTS* is none. It is what a service says that knows things by their names
instead of requests by their keys, when it is asked again after a lost reply: the order
would be undone, and this step, which has no outcome, would not be. The message names
the two lines that decide it: ``answers={StatusCode.ALREADY_EXISTS: Answer.DID}``, or
``Answer.REFUSED``.

*UNKNOWN* is what becomes of an exception in a handler, and in Go of an ``error`` that
was made without a code. A Go service that says no like that is asked for ever: it
should ``return status.Error(codes.FailedPrecondition, ...)``.

*About the key*, as in `http_rules`: a service whose first call with the key still runs
may say so with any code. Of the four it becomes one that is asked again for a minute
and a half, and then looked at; by then the first call is over.

Beside the code there may be a ``google.rpc.Status`` (``grpc-status-details-bin``). Its
``ErrorInfo`` and ``RetryInfo`` are read. Three small messages of a fixed form: the few
lines here take the place of two packages.
"""

import re
from collections.abc import Iterator, Mapping

import msgspec

from coordinator.gateways.base import (
    CALL_HEADERS,
    KEY_WORD,
    REASON_LENGTH_MAX,
    Answer,
)

__all__ = [
    "Problem",
    "answer_to",
    "is_answer_too_big",
    "lacks_descriptors",
    "metadata_of",
    "problem_of",
    "target_of",
]

RETRY_AFTER_S_MAX = 3600.0
"""Seconds; what a service may ask for. One wrong detail must not park an order for a
year."""

DETAILS_SIZE_MAX = 16 * 1024
"""Bytes of details up to which they are looked at: they are written to the journal."""

_REFUSED = frozenset(
    {"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "OUT_OF_RANGE"}
)
_UNKNOWN = frozenset(
    {
        "ABORTED",
        "UNAVAILABLE",
        "RESOURCE_EXHAUSTED",
        "DEADLINE_EXCEEDED",
        "CANCELLED",
        "UNKNOWN",
        "INTERNAL",
    }
)
assert not _REFUSED & _UNKNOWN

# What gRPC's C core, Go, Java and .NET say of what one side will not take: messages,
# and metadata, of which the status's own text is a part.
_TOO_BIG = re.compile(
    r"message (is )?larger than max|exceeds maximum size"
    r"|message exceeds the maximum configured|metadata size exceeds"
)
_ANSWER_TOO_BIG = re.compile(r"CLIENT: received message larger than max", re.IGNORECASE)

# What the C core says of a connection that it could not make.
_NOT_CONNECTED = re.compile(r"failed to connect to|connections to all backends failing")
_TLS = re.compile(r"SSL_ERROR_SSL|CERTIFICATE_VERIFY_FAILED|not in peer certificate")
_NO_DESCRIPTORS = re.compile(r"Too many open files", re.IGNORECASE)

_PORT = re.compile(r".+:(\d{1,5})")

_METADATA_NAME = re.compile(r"[a-z0-9_.-]+")
_METADATA_VALUE = re.compile(r"[\x20-\x7e]*")

_ERROR_INFO = "google.rpc.ErrorInfo"
_RETRY_INFO = "google.rpc.RetryInfo"


class Problem(msgspec.Struct, frozen=True):
    """What an answer other than OK says."""

    reason: str
    """For people; empty if it gives none."""
    details: dict[str, object]
    """``metadata``, ``reason`` and ``domain`` of an ErrorInfo, in one dict."""
    retry_after_s: float | None = None
    """Seconds the service asks us to wait, 0 to `RETRY_AFTER_S_MAX`; None if it does
    not say."""
    names_the_key: bool = False
    """Whether it is about the idempotency key, not about the business."""


def answer_to(code: str, problem: Problem, overrides: Mapping[str, Answer]) -> Answer:
    """Say what *code* with *problem* means; *overrides* go before everything.

    Args:
        code: The name of a status code, as ``FAILED_PRECONDITION``.
        problem: What else the answer says.
        overrides: Other meanings, by the names of codes.
    """
    if (answer := overrides.get(code)) is not None:
        return answer
    if code == "OK":
        return Answer.DID
    if code in _REFUSED:
        return Answer.MISCONFIGURED if problem.names_the_key else Answer.REFUSED
    if code not in _UNKNOWN:
        return Answer.MISCONFIGURED
    if code == "RESOURCE_EXHAUSTED" and _TOO_BIG.search(problem.reason.lower()):
        return Answer.MISCONFIGURED
    if code == "UNAVAILABLE" and _fails_in_tls(problem.reason):
        return Answer.MISCONFIGURED
    return Answer.UNKNOWN


def problem_of(text: str, details: bytes) -> Problem:
    """Read what stands beside a code.

    Args:
        text: The status's message.
        details: The bytes of ``grpc-status-details-bin``; what can't be read of them
            is left out.
    """
    found: dict[str, object] = {}
    retry_after_s = None
    try:
        for kind, message in _anys(details[:DETAILS_SIZE_MAX]):
            if kind == _ERROR_INFO:
                found = _error_info(message)
            elif kind == _RETRY_INFO:
                retry_after_s = _retry_delay_s(message)
    except ValueError:
        pass  # what came before it stands: the code alone decides the answer
    words = (text, str(found.get("reason", "")))
    return Problem(
        text[:REASON_LENGTH_MAX],
        found,
        retry_after_s,
        names_the_key=any(KEY_WORD in word.lower() for word in words),
    )


def is_answer_too_big(code: str, problem: Problem) -> bool:
    """Say whether it is our own limit that an answer is too big for."""
    return code == "RESOURCE_EXHAUSTED" and bool(_ANSWER_TOO_BIG.search(problem.reason))


def lacks_descriptors(code: str, problem: Problem) -> bool:
    """Say whether this process had no descriptor left to connect with."""
    return (
        code == "UNAVAILABLE"
        and bool(_NOT_CONNECTED.search(problem.reason))
        and bool(_NO_DESCRIPTORS.search(problem.reason))
    )


def target_of(target: str) -> str:
    """Check an address that comes from the configuration.

    Raises:
        ValueError: It is neither ``host:port`` nor a name as gRPC has them. It is not
            repeated: it may hold a password.
    """
    if (
        not target.isprintable()
        or " " in target
        or "@" in target
        or target.startswith(("http:", "https:", "grpc:", "grpcs:"))
        or not _has_a_port(target)
    ):
        raise ValueError(
            "target must be host:port, or a name as gRPC has them "
            "(dns:///payments:50051, unix:/run/payments.sock), without credentials "
            "and without http://"
        )
    return target


def _has_a_port(target: str) -> bool:
    """Say whether *target* has a port, or is of a kind that may have none."""
    if "/" in target or target.startswith("unix"):
        return True
    found = _PORT.fullmatch(target)
    return found is not None and 0 < int(found[1]) < 2**16


def metadata_of(given: Mapping[str, str] | None) -> dict[str, str]:
    """Return a copy of *given*, with its names in lower case.

    Raises:
        ValueError: One of them is the gateway's own, or can't be sent.
    """
    metadata: dict[str, str] = {}
    for written, value in (given or {}).items():
        name = written.lower()
        # gRPC would say so, too: once it is connected, and of nothing in particular.
        # Values may be credentials, so they are not repeated.
        if not _METADATA_NAME.fullmatch(name) or name.startswith("grpc-"):
            raise ValueError(f"{written!r} is not the name of metadata")
        if name.endswith("-bin"):
            raise ValueError(f"the metadata {written} would have to be bytes")
        if name in CALL_HEADERS:
            raise ValueError(f"the gateway sets {name} itself")
        if not _METADATA_VALUE.fullmatch(value):
            raise ValueError(f"the metadata {written} has a value that can't be sent")
        metadata[name] = value
    return metadata


def _fails_in_tls(reason: str) -> bool:
    return bool(_NOT_CONNECTED.search(reason)) and bool(_TLS.search(reason))


# google.rpc.Status { int32 code = 1; string message = 2; repeated Any details = 3 }
# google.protobuf.Any { string type_url = 1; bytes value = 2 }


def _anys(status: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield type and value of each detail; ValueError where one is not readable."""
    for number, value in _fields(status):
        if number == 3 and isinstance(value, bytes):
            members = dict(_fields(value))
            yield _text(members, 1).rpartition("/")[2], _bytes(members, 2)


def _error_info(message: bytes) -> dict[str, object]:
    # { string reason = 1; string domain = 2; map<string, string> metadata = 3 }
    members: dict[int, int | bytes] = {}
    found: dict[str, object] = {}
    for number, value in _fields(message):
        if number == 3 and isinstance(value, bytes):
            entry = dict(_fields(value))
            found[_text(entry, 1)] = _text(entry, 2)
        else:
            members[number] = value
    return found | {"reason": _text(members, 1), "domain": _text(members, 2)}


def _retry_delay_s(message: bytes) -> float:
    # { Duration retry_delay = 1 }, Duration { int64 seconds = 1; int32 nanos = 2 }
    duration = dict(_fields(_bytes(dict(_fields(message)), 1)))
    seconds, nanos = duration.get(1, 0), duration.get(2, 0)
    if not (isinstance(seconds, int) and isinstance(nanos, int)):
        raise ValueError("a duration is made of numbers")  # noqa: TRY004 -- bad bytes
    if seconds >> 63:  # a negative int64
        return 0.0
    return min(seconds + nanos / 1e9, RETRY_AFTER_S_MAX)


def _text(members: Mapping[int, int | bytes], number: int) -> str:
    return _bytes(members, number).decode("utf-8", "replace")


def _bytes(members: Mapping[int, int | bytes], number: int) -> bytes:
    value = members.get(number, b"")
    if not isinstance(value, bytes):
        raise ValueError(f"field {number} is not made of bytes")  # noqa: TRY004 -- bad bytes
    return value


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a protobuf message: their numbers and values.

    Raises:
        ValueError: The bytes are none.
    """
    offset = 0
    while offset < len(message):
        tag, offset = _varint(message, offset)
        match tag & 7:
            case 0:
                value, offset = _varint(message, offset)
                yield tag >> 3, value
            case 2:
                size, offset = _varint(message, offset)
                if size > len(message) - offset:
                    raise ValueError("a field is longer than its message")
                yield tag >> 3, message[offset : offset + size]
                offset += size
            case 1:
                offset += 8  # no field that we read is a fixed64 or a fixed32
            case 5:
                offset += 4
            case kind:
                raise ValueError(f"there is no wire type {kind}")


def _varint(message: bytes, offset: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(message[offset : offset + 10]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, offset + index + 1
    raise ValueError("a number has no end")
