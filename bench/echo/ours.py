"""Ours: `cmdstream.Client` and `Server`, with each codec."""

import itertools
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec
from google.protobuf.wrappers_pb2 import StringValue

from bench.echo import Echo
from cmdstream import (
    Client,
    Codec,
    CommandReceived,
    JsonCodec,
    MusCodec,
    Registry,
    Reply,
    Server,
    ServerOptions,
)
from cmdstream.codecs.protobuf import ProtobufCodec

CONNECTIONS_MAX = 20_000


class EchoCmd(msgspec.Struct):
    """What users write: a class with fields."""

    text: str


class EchoResult(msgspec.Struct):
    """The same back."""

    text: str


class Wire(NamedTuple):
    """A codec, and how a text is put into its messages and taken out again."""

    codec: Codec
    ask: Callable[[str], object]
    answer: Callable[[Any], object]
    text: Callable[[Any], str]
    added: int
    """Bytes of a body beyond the text."""


def _answer(command: EchoCmd) -> EchoResult:
    return EchoResult(command.text)


def _message(text: str) -> StringValue:
    return StringValue(value=text)


def _message_back(command: StringValue) -> StringValue:
    return StringValue(value=command.value)


_TYPES = Registry([EchoCmd], [EchoResult])

WIRES = {
    "json": Wire(
        JsonCodec(_TYPES), EchoCmd, _answer, attrgetter("text"), len('{"text":""}')
    ),
    "mus": Wire(MusCodec(_TYPES), EchoCmd, _answer, attrgetter("text"), 1),
    "protobuf": Wire(
        ProtobufCodec(Registry([StringValue], [StringValue])),
        _message,
        _message_back,
        attrgetter("value"),
        2,
    ),
}


async def serve(wire: Wire) -> None:
    """Send back what comes in."""

    def answer(received: CommandReceived, reply: Reply) -> None:
        reply.send_nowait(wire.answer(received.command))

    options = ServerOptions(connections_max=CONNECTIONS_MAX)
    async with Server(wire.codec, answer, options=options) as server:
        _, port = await server.listen("127.0.0.1", 0)
        print(port, flush=True)
        await server.wait_closed()


@asynccontextmanager
async def calling(wire: Wire, port: int, connections: int) -> AsyncGenerator[Echo]:
    """Call it over *connections*, in turn."""
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                await Client.connect("127.0.0.1", port, wire.codec)
            )
            for _ in range(connections)
        ]
        turns = itertools.cycle(clients)
        ask, text_of = wire.ask, wire.text

        async def echo(text: str) -> str:
            return text_of(await next(turns).send(ask(text)))

        yield echo
