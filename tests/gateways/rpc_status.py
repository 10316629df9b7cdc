"""``google.rpc.Status`` as services send it, byte by byte."""

from collections.abc import Mapping

__all__ = ["error_info", "field", "retry_info", "status"]

_TYPES = "type.googleapis.com/google.rpc."


def varint(value: int) -> bytes:
    """A protobuf number."""
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*written, value])


def field(number: int, value: bytes) -> bytes:
    """A field of text, of bytes, or of a message."""
    return varint(number << 3 | 2) + varint(len(value)) + value


def status(*details: bytes) -> bytes:
    """A Status with *details*, each an Any."""
    code_and_message = b"\x08\x09" + field(2, b"declined")
    return code_and_message + b"".join(field(3, detail) for detail in details)


def error_info(
    reason: str, domain: str = "", metadata: Mapping[str, str] | None = None
) -> bytes:
    """An ErrorInfo in an Any."""
    message = field(1, reason.encode()) + field(2, domain.encode())
    for name, value in (metadata or {}).items():
        message += field(3, field(1, name.encode()) + field(2, value.encode()))
    return field(1, f"{_TYPES}ErrorInfo".encode()) + field(2, message)


def retry_info(seconds: int, nanos: int) -> bytes:
    """A RetryInfo in an Any; a negative number of seconds as two's complement."""
    duration = b"\x08" + varint(seconds) + b"\x10" + varint(nanos)
    message = field(1, duration)
    return field(1, f"{_TYPES}RetryInfo".encode()) + field(2, message)
