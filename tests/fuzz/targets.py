"""What is fuzzed: each takes any bytes, and raises if a promise is broken.

json            a body: the quick way reads it as the rules do
mus, protobuf   a body, in MUS cut in every way: a cut makes no difference
tagged          a tag, a length and a body, likewise, for codecs with types and without
server, client  one end of a connection, with each of the codecs: the same events
                however the bytes are cut, and after an error nothing else

In all of them bytes are a value or a `RemoteProtocolError` and nothing else, and a
value that was read is written in a way that is read as the same value.
"""

import datetime as dt
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import accumulate, cycle, pairwise, takewhile
from typing import Annotated, Any

import msgspec
from tests.cmdstream.helpers import COMMANDS, GREETING, RESULTS, VECTORS
from tests.cmdstream.messages import Cmd1, Cmd2, Everything, Part, Result1, Result2

from cmdstream import (
    EncodeError,
    JsonCodec,
    MusCodec,
    Registry,
    RemoteProtocolError,
    ResultType,
)
from cmdstream.codec import Codec, Decoded, Unfinished
from cmdstream.codecs.json import JsonBody
from cmdstream.codecs.mus import Float, Int, Time, Uint
from cmdstream.codecs.opaque import Opaque, OpaqueCodec
from cmdstream.codecs.protobuf import ProtobufCodec
from cmdstream.codecs.tagged import TaggedCodec
from cmdstream.protocol import ClientConnection, ServerConnection
from cmdstream.wire import write_size

__all__ = ["TARGETS", "seeds_of"]


class Tree(msgspec.Struct):
    """A type that holds itself."""

    Name: str
    branches: "list[Tree]" = []
    parent: "Tree | None" = None


@dataclass
class Wide:
    """Each sort of field once."""

    flag: bool
    number: int
    small: Annotated[int, Int(32, "raw")]
    tiny: Annotated[int, Uint(8)]
    size: Annotated[int, msgspec.Meta(ge=0)]
    bounded: Annotated[int, msgspec.Meta(ge=-5, le=500)]
    ratio: Annotated[float, Float(64, "varint")]
    text: str
    data: bytes
    at: Annotated[dt.datetime, Time("us")]
    maybe: str | None
    numbers: list[int]
    by_name: dict[str, Tree | None]


class Loose(msgspec.Struct):
    """Whatever JSON can say."""

    thing: Any


@dataclass
class Cased:
    """What may be misread when a key is spelled in another way."""

    key: int = 7
    at: dt.datetime | None = None
    inner: "Cased | None" = None


JSON = JsonCodec(Registry([*COMMANDS, Wide, Tree, Loose, Cased], RESULTS))
JSON_BODIES = [JsonBody(entry) for entry in JSON.registry.commands]
MUS = MusCodec(Registry([*COMMANDS, Wide, Tree], RESULTS))
PROTOBUF = ProtobufCodec(
    Registry([Cmd1, Cmd2, Everything], [Result1, Result2, ResultType(Part, "last")])
)


class Raw:
    """A body that is its bytes."""

    def encode(self, value: object) -> bytes:
        assert isinstance(value, bytes)
        return value

    def decode(self, body: bytes) -> object:
        return body


TAGGED = TaggedCodec(
    Registry({0: bytes, 200: bytearray}, []),
    lambda _: Raw(),
    body_size_max=2**20,
)


def _decode(codec: Codec, segments: Iterable[bytes]) -> Decoded | str | None:
    """Let *codec* take in a command bit by bit; None if it wants more at the end."""
    data = b""
    resume: Callable[[bytes, int], Decoded | Unfinished | int] = codec.decode_command
    needed = 0
    for segment in segments:
        data += segment
        if len(data) < needed:
            continue
        try:
            found = resume(data, 0)
        except RemoteProtocolError as error:
            return repr(error)
        if isinstance(found, Decoded):
            return found
        if isinstance(found, Unfinished):
            resume, found = found.resume, found.needed
        assert found > len(data), "it asks for what it has"
        needed = found
    return None


OPAQUE = OpaqueCodec(lambda result: result.tag == 0, body_size_max=2**20)


def _cut(data: bytes, how: int) -> list[bytes]:
    """Cut *data* into pieces of 1 to 16 bytes, two sizes by turns, as a byte says."""
    sizes = cycle((how % 16 + 1, how // 16 + 1))
    places = takewhile(lambda place: place < len(data), accumulate(sizes))
    return [data[start:end] for start, end in pairwise([0, *places, len(data)])]


def _check_value(codec: Codec, value: object) -> None:
    written = codec.encode_command(value)
    again = codec.decode_command(written, 0)
    assert isinstance(again, Decoded), "it does not read what it wrote"
    assert codec.encode_command(again.value) == written, "a value has changed"


def _outcome(read: Callable[[bytes], object], body: bytes) -> tuple[object, str]:
    """What *body* is read as, and a text of it, by which not-a-numbers are equal."""
    try:
        value = read(body)
    except RemoteProtocolError:
        return None, "refused"
    return value, repr(value)


def fuzz_json(data: bytes) -> None:
    """The first byte is the tag, the rest the body: lengths have their own target."""
    if not data:
        return
    body = JSON_BODIES[data[0] % len(JSON_BODIES)]
    value, text = _outcome(body.decode, data[1:])
    _, by_the_rules = _outcome(body._decode_by_the_rules, data[1:])
    assert text == by_the_rules, "the quick way reads something else"
    if text == "refused":
        return
    try:
        written = body.encode(value)
    except EncodeError:
        # Anything holds integers of any size, and Go reads none beyond 64 bits.
        assert isinstance(value, Loose), "it does not write what it read"
    else:
        # -0.0 is -0 for Go, which is an integer where anything may stand.
        again = body.encode(body.decode(written))
        assert again == written or isinstance(value, Loose), "a value has changed"


def fuzz_mus(data: bytes) -> None:
    """The first byte says how the rest is cut."""
    if not data:
        return
    found = _decode(MUS, [data[1:]])
    # Not-a-numbers are equal by their text only.
    assert repr(_decode(MUS, _cut(data[1:], data[0]))) == repr(found)
    if isinstance(found, Decoded):
        _check_value(MUS, found.value)


def fuzz_protobuf(data: bytes) -> None:
    """The first byte is the tag, as in JSON."""
    found = _decode(PROTOBUF, [data[:1] + write_size(len(data[1:])) + data[1:]])
    if isinstance(found, Decoded):
        _check_value(PROTOBUF, found.value)


def fuzz_tagged(data: bytes) -> None:
    """The first byte says how the rest is cut: a header, and what follows it."""
    if not data:
        return
    whole, pieces = data[1:], _cut(data[1:], data[0])
    found, opaque = _decode(TAGGED, [whole]), _decode(OPAQUE, [whole])
    assert repr(_decode(TAGGED, pieces)) == repr(found)
    assert repr(_decode(OPAQUE, pieces)) == repr(opaque)
    if isinstance(found, Decoded):
        body = whole[found.end - len(found.body) : found.end]
        assert found.value == found.body == body
        assert opaque == Decoded(Opaque(found.tag, body), found.tag, body, found.end)
    if isinstance(opaque, Decoded):
        _check_value(OPAQUE, opaque.value)


_CODECS: tuple[Codec, ...] = (JSON, MUS, PROTOBUF, OPAQUE)


def _events(
    end: ServerConnection | ClientConnection, segments: Iterable[bytes]
) -> list[str]:
    """What the owner of *end* is told of *segments*."""
    events: list[str] = []
    try:
        for segment in segments:
            end.receive_data(segment)
            while (event := end.next_event()) is not None:
                events.append(repr(event))
        end.receive_eof()
    except RemoteProtocolError as error:
        events += (repr(error), _asked_again(end))
    return events


def _asked_again(end: ServerConnection | ClientConnection) -> str:
    """What an end that has failed answers then."""
    try:
        end.receive_data(b"\0")
    except RemoteProtocolError as error:
        return f"again: {error!r}"
    raise AssertionError("it goes on after an error")


def _check_end(
    end_of: Callable[[Codec], ServerConnection | ClientConnection], data: bytes
) -> None:
    """The first byte chooses the codec, the second how the rest is cut."""
    if len(data) < 2:
        return
    codec = _CODECS[data[0] % len(_CODECS)]
    stream = data[2:]
    whole = _events(end_of(codec), [stream])
    assert _events(end_of(codec), _cut(stream, data[1])) == whole


def fuzz_server(data: bytes) -> None:
    """What a client sends."""
    _check_end(ServerConnection, data)


def fuzz_client(data: bytes) -> None:
    """What a server sends, its greeting included."""
    _check_end(ClientConnection, data)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "json": fuzz_json,
    "mus": fuzz_mus,
    "protobuf": fuzz_protobuf,
    "tagged": fuzz_tagged,
    "server": fuzz_server,
    "client": fuzz_client,
}


def seeds_of(name: str) -> list[bytes]:
    """Where the search begins: what was recorded of Go, and a value of each type."""
    sent = {
        side: [
            (number, b"".join(_bytes_of(entry, side)))
            for entry in VECTORS["exchanges"]
            for number, codec in enumerate(("json", "mus", "protobuf"))
            if entry["codec"] == codec
        ]
        for side in ("client", "server")
    }
    now = dt.datetime(2026, 5, 3, tzinfo=dt.UTC)
    tree = Tree("a", [Tree("b")], Tree("c"))
    wide = Wide(
        True, -1, 2, 3, 4, 5, 0.5, "text", b"data", now, "x", [1, 300], {"t": tree}
    )
    everything = Everything(flag=True, text="x", many=[1, 2], counts={"a": 1})
    match name:
        case "json":
            cased = b'{"Key":1, "\\u006bey" :9223372036854775808,"INNER":{"key":2}}'
            return [
                *(
                    _without_length(JSON.encode_command(value))
                    for value in (wide, tree)
                ),
                b'\x07{"thing":[null,1.5,"\\u003c",{"a":1e21}]}',
                b"\x08" + cased,
                b'\x08{"key":1,"at":"2026-05-03T01:02:03.456789012Z"}',
            ]
        case "mus":
            return [b"\x00" + MUS.encode_command(value) for value in (wide, tree)]
        case "protobuf":
            return [_without_length(PROTOBUF.encode_command(everything))]
        case "tagged":
            return [b"\x00\x00\x02hi", b"\x00\xc8\x01\x81\x00x"]
        case "server":
            return [bytes((number, 3)) + stream for number, stream in sent["client"]]
        case _:
            return [
                bytes((number, 3)) + GREETING + stream.removeprefix(GREETING)
                for number, stream in sent["server"]
            ]


def _without_length(frame: bytes) -> bytes:
    """Cut out the length, which here has one byte or two."""
    return frame[:1] + frame[2 if frame[1] < 0x80 else 3 :]


def _bytes_of(entry: dict[str, Any], side: str) -> Iterable[bytes]:
    for step in entry["steps"]:
        if step["from"] == side and "hex" in step:
            yield bytes.fromhex(step["hex"])
