"""The types of the recorded exchanges, and what the tests of both ends share."""

import asyncio
import json
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import msgspec
from tests.streams import StreamServer

from cmdstream import (
    Client,
    ClientOptions,
    ClientWatcher,
    Codec,
    CommandReceived,
    Failure,
    Gate,
    Handler,
    JsonCodec,
    Middleware,
    Registry,
    Reply,
    ResultType,
    Server,
    ServerOptions,
    ServerTls,
    TaskHandler,
)
from cmdstream.wire import write_size

T = TypeVar("T")

TIMEOUT_S = 120.0  # generous: only a hang gets here, and the machine may be busy

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors.json").read_text()
)


class AddCmd(msgspec.Struct, frozen=True):
    """Fields without a tag keep Go's capitals."""

    A: int
    B: int


class EchoCmd(str):
    """``type EchoCmd string``."""

    __slots__ = ()


@dataclass(frozen=True)
class StreamCmd:
    """A dataclass cannot rename a field; Go's `from` is a keyword here."""

    count: int


class RangeCmd(msgspec.Struct, frozen=True):
    """StreamCmd{from, count} of the recordings."""

    start: int = msgspec.field(name="from")
    count: int


class FailCmd(msgspec.Struct, frozen=True):
    """A command without fields, whose execution fails."""


class SleepCmd(msgspec.Struct, frozen=True):
    """A command that is answered when the test says so."""

    ms: int
    tag: str


class CalcResult(int):
    """``type CalcResult int``."""


class EchoResult(str):
    """``type EchoResult string``."""

    __slots__ = ()


@dataclass(frozen=True)
class StreamResult:
    """The field `last` decides which is the last."""

    value: int
    last: bool


COMMANDS = (AddCmd, EchoCmd, RangeCmd, FailCmd, SleepCmd)
RESULTS = (CalcResult, EchoResult, ResultType(StreamResult, "last"))
REGISTRY = Registry(COMMANDS, RESULTS)
CODEC = JsonCodec(REGISTRY)

GREETING = b"\x07default"


def results_of(command: object) -> list[object]:
    """What the recorded Go server answers."""
    match command:
        case AddCmd(A=a, B=b):
            return [CalcResult(a + b)]
        case EchoCmd():
            return [EchoResult(command)]
        case RangeCmd(start=start, count=count):
            return [StreamResult(start + i, i == count - 1) for i in range(count)]
        case SleepCmd(tag=tag):
            return [EchoResult(tag)]
        case _:
            return []


def frame(seq: int, command: object) -> bytes:
    """The bytes of one command."""
    return write_size(seq) + CODEC.encode_command(command)


def result_frame(seq: int, result: object) -> bytes:
    """The bytes of one result."""
    return write_size(seq) + CODEC.encode_result(result)


def answer(received: CommandReceived, reply: Reply) -> None:
    """A handler that answers within the call."""
    for result in results_of(received.command):
        reply.send_nowait(result)


async def answer_later(command: object, reply: Reply) -> None:
    """A handler that is a coroutine."""
    for result in results_of(command):
        await reply.send(result)


class Held:
    """A handler that keeps its replies for the test to answer."""

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[tuple[CommandReceived, Reply]] = asyncio.Queue()

    def __call__(self, received: CommandReceived, reply: Reply) -> None:
        self.arrived.put_nowait((received, reply))

    async def next(self) -> tuple[CommandReceived, Reply]:
        return await self.arrived.get()

    async def reply(self) -> Reply:
        return (await self.arrived.get())[1]


class TestGate:
    """A gate for the test to open and close."""

    __test__ = False

    def __init__(self, *, is_open: bool) -> None:
        self._is_open = is_open
        self.subscribers: list[Callable[[], None]] = []

    def is_open(self) -> bool:
        return self._is_open

    def subscribe(self, reopened: Callable[[], None]) -> Callable[[], None]:
        self.subscribers.append(reopened)
        return lambda: self.subscribers.remove(reopened)

    def open(self) -> None:
        self._is_open = True
        for reopened in self.subscribers:
            reopened()

    def close(self) -> None:
        self._is_open = False


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until *condition* holds; the time-out of `run` bounds it."""
    loop = asyncio.get_running_loop()
    while not condition():
        turned = loop.create_future()
        loop.call_soon(turned.set_result, None)
        await turned


async def turns(count: int = 20) -> None:
    """Let the loop turn *count* times: what is due and near would have happened."""
    for _ in range(count):
        await asyncio.sleep(0)


def let_time_pass(seconds: float) -> None:
    """Put the clock of the running loop forward.

    A time-out that is to pass for one and not for another must be long: on a busy
    machine a short one passes for both. This is how it is waited for all the same.
    """
    loop = asyncio.get_running_loop()
    now_s = loop.time
    loop.time = lambda: now_s() + seconds  # type: ignore[method-assign]  # there is no other way


def run(
    main: Coroutine[Any, Any, T],
    new_loop: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> T:
    """Run *main* in a loop of its own, in which nothing may be left to complain."""

    async def limited() -> T:
        problems: list[dict[str, Any]] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _loop, context: problems.append(context))
        async with asyncio.timeout(TIMEOUT_S):
            value = await main
        assert not problems, problems
        return value

    with asyncio.Runner(loop_factory=new_loop) as runner:
        return runner.run(limited())


@asynccontextmanager
async def serving(
    handler: Handler | TaskHandler = answer,
    *,
    options: ServerOptions | None = None,
    gate: Gate | None = None,
    codec: Codec = CODEC,
    failure: Failure | None = None,
    middleware: Iterable[Middleware] = (),
    tls: ServerTls | ssl.SSLContext | None = None,
    watcher: ClientWatcher | None = None,
) -> AsyncGenerator[tuple[Server, int]]:
    """A server on a free port of 127.0.0.1."""
    async with Server(
        codec,
        handler,
        options=options,
        gate=gate,
        failure=failure,
        middleware=middleware,
        watcher=watcher,
    ) as server:
        _, port = await server.listen("127.0.0.1", 0, tls=tls)
        yield server, port


async def connect(port: int, options: ClientOptions | None = None) -> Client:
    """A client of `serving`."""
    return await Client.connect("127.0.0.1", port, CODEC, options=options)


class RawPeer:
    """A peer that sends any bytes, whole or not."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(
        cls,
        port: int,
        greeting: bytes = GREETING,
        *,
        tls: ssl.SSLContext | None = None,
    ) -> Self:
        """Connect with a small buffer, so that one who does not read soon says so."""
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", port))
        name = None if tls is None else "127.0.0.1"
        peer = cls(
            *await asyncio.open_connection(
                sock=sock, limit=4096, ssl=tls, server_hostname=name
            )
        )
        try:
            assert await peer.receive(len(greeting)) == greeting
        except BaseException:
            await peer.aclose()
            raise
        return peer

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def receive(self, size: int) -> bytes:
        return await self.reader.readexactly(size)

    async def rest(self) -> bytes:
        """All that comes before the other side hangs up, rudely or not."""
        try:
            return await self.reader.read(-1)
        except ConnectionResetError:
            return b""

    async def aclose(self) -> None:
        self.writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await self.writer.wait_closed()


class RawServer:
    """A server that sends any bytes, one connection at a time."""

    def __init__(
        self,
        talk: Callable[[RawPeer], Awaitable[None]],
        sock: socket.socket | None = None,
    ) -> None:
        """Listen on *sock*, which is bound, or on a free port."""

        async def serve(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            await talk(RawPeer(reader, writer))

        self._server = StreamServer(serve, sock)

    async def __aenter__(self) -> Self:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.__aexit__()

    @property
    def port(self) -> int:
        return self._server.port
