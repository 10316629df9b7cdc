"""The Go end as the tests see it: `go_server`, `go_client`, and what they say."""

import asyncio
import itertools
import json
import tempfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from typing import IO, Any, TypeAlias

from tests.interop.wires import read_json

__all__ = ["GoClient", "GoError", "GoServer", "Line", "go_client", "go_server"]

Line: TypeAlias = dict[str, Any]

_LINE_SIZE_MAX = 64 * 1024 * 1024


class GoError(Exception):
    """What Go said went wrong.

    Attributes:
        results: Those of the command that came before.
    """

    def __init__(self, reason: str, results: list[Any] | None = None) -> None:
        super().__init__(reason)
        self.results = results or []


class _Program:
    """A running Go program that prints JSON lines."""

    def __init__(
        self, process: asyncio.subprocess.Process, errors: IO[bytes], ready: str
    ) -> None:
        loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[str] = loop.create_future()
        self.process = process
        self._key = ready
        self._errors = errors

    @property
    def stderr(self) -> str:
        """What it has written to stderr so far: its last words, if it died."""
        self._errors.seek(0)
        return self._errors.read().decode()

    def kill(self) -> None:
        """End it as a crash does."""
        with suppress(ProcessLookupError):
            self.process.kill()

    async def exited(self) -> int:
        """Wait for its end, and return the code; negative ones are signals."""
        return await self.process.wait()

    async def listen(self) -> None:
        """Take in its lines, to the last."""
        assert self.process.stdout is not None
        reason = "it ended"
        async for text in self.process.stdout:
            line: Line = read_json(text)
            if "fatal" in line:
                reason = line["fatal"]
            elif self._key in line:
                self.ready.set_result(line[self._key])
            else:
                self.heard(line)
        if not self.ready.done():
            self.ready.set_exception(GoError(reason))
        self.ended(reason)

    def heard(self, line: Line) -> None:
        """Take in one line."""

    def ended(self, reason: str) -> None:
        """Take note that no more will come."""


class GoServer(_Program):
    """A Go server, that says which connections it lost."""

    def __init__(self, process: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        super().__init__(process, errors, ready="address")
        self._lost: asyncio.Queue[Line] = asyncio.Queue()
        self.last_words = ""
        """Why ``Serve`` returned."""

    @property
    def port(self) -> int:
        return int(self.ready.result().rpartition(":")[2])

    async def lost(self) -> str:
        """Wait until it has lost one more connection, and return why."""
        return str((await self._lost.get())["error"])

    def heard(self, line: Line) -> None:
        self._lost.put_nowait(line)

    def ended(self, reason: str) -> None:
        self.last_words = reason


class GoClient(_Program):
    """A Go client, that sends what it is told to."""

    def __init__(self, process: asyncio.subprocess.Process, errors: IO[bytes]) -> None:
        super().__init__(process, errors, ready="connected")
        self.unexpected: asyncio.Queue[Line] = asyncio.Queue()
        self.done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Why it gave its connection up, for good."""
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Line]] = {}

    async def send(
        self, command: str, value: object, *, timeout_s: float = 0.0
    ) -> list[Any]:
        """Have *command* sent, and return its results, as Go's JSON has them.

        Commands go out in the order of these calls.

        Args:
            command: The name of the Go type.
            value: Its JSON.
            timeout_s: Seconds that Go waits for the last result; 0 for ever.

        Raises:
            GoError: There is no last result, and will be none.
        """
        number = next(self._ids)
        timeout_ms = round(timeout_s * 1000)
        asked = {"id": number, "command": command, "value": value}
        answer: asyncio.Future[Line] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answer
        assert self.process.stdin is not None
        line = json.dumps({**asked, "timeout_ms": timeout_ms})
        self.process.stdin.write(f"{line}\n".encode())
        await self.process.stdin.drain()
        told = await answer
        if "error" in told:
            raise GoError(told["error"], told.get("results"))
        results: list[Any] = told["results"]
        return results

    def heard(self, line: Line) -> None:
        if "id" in line:
            self._answer(line["id"], line)
        elif "done" in line:
            self.done.set_result(line["done"])
        else:
            self.unexpected.put_nowait(line)

    def ended(self, reason: str) -> None:
        for number in list(self._waiting):
            self._answer(number, {"error": reason})
        if not self.done.done():
            self.done.set_result(reason)

    def _answer(self, number: int, told: Line) -> None:
        answer = self._waiting.pop(number)
        if not answer.done():  # who asked was cancelled, as the test has failed
            answer.set_result(told)


@asynccontextmanager
async def go_server(peer: str, codec: str, *flags: str) -> AsyncGenerator[GoServer]:
    """Run a Go server, on a free port unless *flags* name one.

    Raises:
        GoError: It could not be made, or could not listen.
    """
    with tempfile.TemporaryFile() as errors:
        process = await _start(errors, peer, "serve", "-codec", codec, *flags)
        server = GoServer(process, errors)
        async with _listened_to(server):
            yield server


@asynccontextmanager
async def go_client(
    peer: str, codec: str, port: int, *flags: str
) -> AsyncGenerator[GoClient]:
    """Run a Go client that is connected to *port* of this machine.

    Raises:
        GoError: It could not connect, or did not like the server.
    """
    where = ("-connect", f"127.0.0.1:{port}")
    with tempfile.TemporaryFile() as errors:
        process = await _start(errors, peer, "call", "-codec", codec, *where, *flags)
        client = GoClient(process, errors)
        async with _listened_to(client):
            yield client


async def _start(
    errors: IO[bytes], peer: str, *arguments: str
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        peer,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        limit=_LINE_SIZE_MAX,
    )


@asynccontextmanager
async def _listened_to(program: _Program) -> AsyncGenerator[None]:
    """Listen to *program* meanwhile, and end it."""
    listening = asyncio.get_running_loop().create_task(program.listen())
    try:
        await asyncio.shield(program.ready)
        yield
    finally:
        program.kill()
        await program.exited()
        await listening
