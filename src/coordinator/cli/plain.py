"""Records as plain values: for people, and as JSON for programs."""

import enum
from typing import Any

import msgspec

from coordinator.records import Accepted, Record
from coordinator.timeline import readable

__all__ = ["plain_record"]


def plain_record(record: Record) -> dict[str, Any]:
    """Return *record* as a dict: its kind, and its fields with their values decoded."""
    return {"record": type(record).__name__, **_fields(record)}


def _fields(record: Any) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.structs.asdict(record)
    if isinstance(record, Accepted) and record.codec == "json":
        fields["payload"] = _json(record.payload)
    return {name: _plain(value) for name, value in fields.items()}


def _plain(value: Any) -> Any:
    match value:
        case bytes():
            return readable(value) if value else None
        case enum.Enum():
            return value.name.lower()
        case msgspec.Struct():
            return _fields(value)
        case tuple():
            items: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType]
            return [_plain(item) for item in items]
        case _:
            return value


def _json(payload: bytes) -> Any:
    try:
        return msgspec.json.decode(payload)
    except msgspec.DecodeError:
        return repr(payload)
