"""One wire per codec: the types of tests/interop/go in Python, and their plain values.

A plain value is what `json.loads` gives. The tests speak in plain values, and only a
`Wire` makes commands and results of them: by msgspec's or Protobuf's own conversion,
which the codecs under test have no part in.
"""

import datetime as dt
import json
from typing import Annotated, Any, Protocol

import msgspec
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from msgspec import Meta
from tests.cmdstream.helpers import (
    COMMANDS,
    RESULTS,
    EchoResult,
    RangeCmd,
    StreamResult,
    results_of,
)
from tests.interop.messages import message_class

from cmdstream import Codec, JsonCodec, MusCodec, Registry, ResultType
from cmdstream.codecs.mus import Float, Int, Time, Uint
from cmdstream.codecs.protobuf import ProtobufCodec

__all__ = [
    "REGISTRY",
    "WIRES",
    "CancelCmd",
    "MirrorCmd",
    "PanicCmd",
    "Plain",
    "Wire",
    "read_json",
]

Plain = dict[str, Any]


def read_json(text: str | bytes) -> Any:
    """Read as `json.loads`, which takes Go's ``-0``, a float, for an int."""
    return json.loads(text, parse_int=lambda text: -0.0 if text == "-0" else int(text))


class Wire(Protocol):
    """A codec, and how plain values become its commands and results."""

    @property
    def name(self) -> str:
        """What Go calls it."""
        ...

    @property
    def codec(self) -> Codec:
        """Ours."""
        ...

    def echo(self, text: str) -> tuple[str, Any]:
        """Name and plain value of the command that is answered with *text*."""
        ...

    def stream(self, start: int, count: int) -> tuple[str, Any]:
        """Those of the command that has *count* results."""
        ...

    def mirror(self, everything: Plain) -> tuple[str, Any]:
        """Those of the command that comes back with what was seen of it."""
        ...

    def make(self, name: str, plain: Any) -> Any:
        """Make the command or the result of that name."""
        ...

    def plain(self, value: object) -> Any:
        """Return the plain value of a command or result."""
        ...

    def seen(self, result: Any) -> Any:
        """Return the value that a MirrorResult's text says the other side has seen."""
        ...

    def results(self, command: object) -> list[object]:
        """Do what the Go server does."""
        ...


class Point(msgspec.Struct, frozen=True):
    """A value inside a value."""

    x: int
    y: int


class Widths(msgspec.Struct, frozen=True):
    """A field of each other size, and of each other way to write a number or time."""

    tiny: Annotated[int, Int(8)]
    octet: Annotated[int, Uint(8)]
    short: Annotated[int, Int(16)]
    port: Annotated[int, Uint(16)]
    word: Annotated[int, Int(32, "raw")]
    index: Annotated[int, Uint(32)]
    long: Annotated[int, Int(64, "raw")]
    mask: Annotated[int, Meta(ge=0), Uint(64, "raw")]
    size: Annotated[int, Int(64, "positive")]
    half: Annotated[float, Float(32)]
    ratio: Annotated[float, Float(64, "varint")]
    millis: Annotated[dt.datetime, Time("ms")]
    nanos: Annotated[dt.datetime, Time("ns")]


class Everything(msgspec.Struct, frozen=True):
    """A field of each type that both languages have a word for."""

    number: int
    natural: Annotated[int, Meta(ge=0)]
    fraction: float
    flag: bool
    text: str
    data: bytes
    at: dt.datetime
    wait: int
    numbers: list[int]
    counts: dict[str, int]
    maybe: str | None
    point: Point
    path: list[Point]
    widths: Widths


class MirrorCmd(msgspec.Struct, frozen=True):
    """Comes back."""

    value: Everything


class PanicCmd(msgspec.Struct, frozen=True):
    """Ends a Go server's process."""


class CancelCmd(msgspec.Struct, frozen=True):
    """Stops a Go server."""


class MirrorResult(msgspec.Struct, frozen=True):
    """A value as it arrived."""

    value: Everything
    seen: str


REGISTRY = Registry(
    (*COMMANDS, MirrorCmd, PanicCmd, CancelCmd), (*RESULTS, MirrorResult)
)


class CalcWire:
    """The types of the recorded exchanges, with any codec of ours for classes."""

    def __init__(self, name: str, codec: Codec) -> None:
        self.name = name
        self.codec = codec

    def echo(self, text: str) -> tuple[str, Any]:
        return "EchoCmd", text

    def stream(self, start: int, count: int) -> tuple[str, Any]:
        return "StreamCmd", {"from": start, "count": count}

    def mirror(self, everything: Plain) -> tuple[str, Any]:
        return "MirrorCmd", {"value": everything}

    def make(self, name: str, plain: Any) -> Any:
        class_ = _CLASSES[name]
        if issubclass(class_, str):
            return class_(plain)
        if class_ is MirrorResult:
            plain = {**plain, "value": _filled(plain["value"])}
        return msgspec.convert(plain, class_)

    def plain(self, value: object) -> Any:
        if isinstance(value, str | int):
            return json.loads(json.dumps(value))
        return msgspec.to_builtins(value)

    def seen(self, result: MirrorResult) -> Everything:
        return msgspec.convert(_filled(read_json(result.seen)), Everything)

    def results(self, command: object) -> list[object]:
        if isinstance(command, MirrorCmd):
            seen = json.dumps(msgspec.to_builtins(command.value))
            return [MirrorResult(command.value, seen)]
        return results_of(command)


def _filled(everything: Plain) -> Plain:
    """Put what is empty here where Go has a nil, which its JSON calls null."""
    empty: Plain = {"data": "", "numbers": [], "counts": {}, "path": []}
    nothing = {name for name in empty if everything[name] is None}
    return {**everything, **{name: empty[name] for name in nothing}}


_CLASSES: dict[str, Any] = {
    **{class_.__name__: class_ for class_ in REGISTRY.commands},
    **{class_.__name__: class_ for class_ in (EchoResult, StreamResult, MirrorResult)},
    "StreamCmd": RangeCmd,
}


class ProtobufWire:
    """The same as messages. Plain values are Protobuf's own JSON of them."""

    name = "protobuf"

    def __init__(self) -> None:
        commands = ("NumberCmd", "TextCmd", "RangeCmd", "FailCmd", "MirrorCmd")
        results = ("NumberResult", "TextResult", "RangeResult", "MirrorResult")
        self._classes = {name: message_class(name) for name in (*commands, *results)}
        self._everything = message_class("Everything")
        entries = [self._classes[name] for name in results]
        entries[2] = ResultType(entries[2], "last")
        self.codec = ProtobufCodec(
            Registry([self._classes[name] for name in commands], entries)
        )

    def echo(self, text: str) -> tuple[str, Any]:
        return "TextCmd", {"y": text} if text else {}

    def stream(self, start: int, count: int) -> tuple[str, Any]:
        return "RangeCmd", {"from": start, "count": count}

    def mirror(self, everything: Plain) -> tuple[str, Any]:
        wait = Duration()
        wait.FromNanoseconds(everything["wait"])
        return "MirrorCmd", {"value": {**everything, "wait": wait.ToJsonString()}}

    def make(self, name: str, plain: Any) -> Any:
        return json_format.ParseDict(plain, self._classes[name]())

    def plain(self, value: Any) -> Any:
        return json_format.MessageToDict(value)

    def seen(self, result: Any) -> Any:
        return json_format.ParseDict(read_json(result.seen), self._everything())

    def results(self, command: Any) -> list[object]:
        match command.DESCRIPTOR.name:
            case "NumberCmd":
                return [self._classes["NumberResult"](x=command.x)]
            case "TextCmd":
                return [self._classes["TextResult"](y=command.y)]
            case "RangeCmd":
                start, count = getattr(command, "from"), command.count
                part = self._classes["RangeResult"]
                return [
                    part(value=start + i, last=i == count - 1) for i in range(count)
                ]
            case "MirrorCmd":
                seen = json_format.MessageToJson(command.value)
                return [self._classes["MirrorResult"](value=command.value, seen=seen)]
            case _:
                return []


WIRES: list[Wire] = [
    CalcWire("json", JsonCodec(REGISTRY)),
    CalcWire("mus", MusCodec(REGISTRY)),
    ProtobufWire(),
]
