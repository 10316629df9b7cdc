"""The bare program: receives, writes, syncs and replies, and nothing else.

It is what the engine is compared with: for every command five records of the sizes that
the engine writes, each durable before the next, in the same group commit, into an
allocated file, by one thread; one asyncio task per command. No codec, no state, no
recovery. The interpreter is set as the server's is (`coordinator.serve`: seldom garbage
collection, threads switched at once), so that it is the engine that makes the
difference. That gives the bare program, too, what it can use.
"""

import asyncio
import gc
import os
import struct
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

from bench.frames import read_frames, varint

RECORD_SIZES = (55, 44, 42, 42, 27)
"""Bytes of `Accepted`, three `Outcome` and `Finished` of `sagas.ThreeSteps`."""
FILE_SIZE = 256 * 1024 * 1024


class BareLog:
    """Group commit into one file."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_RDWR)
        os.posix_fallocate(self._file, 0, FILE_SIZE)
        self._offset = 0
        self._crc = 0
        self._thread = ThreadPoolExecutor(1)
        self._loop = asyncio.get_running_loop()
        self._records: list[bytes] = []
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._writer: asyncio.Task[None] | None = None

    def append(self, record: bytes) -> asyncio.Future[None]:
        """Return what is done when *record* is on the disk."""
        self._records.append(record)
        if self._writer is None:
            self._writer = self._loop.create_task(self._write())
        return self._done

    async def _write(self) -> None:
        while self._records:
            records, self._records = self._records, []
            done, self._done = self._done, self._loop.create_future()
            await self._loop.run_in_executor(self._thread, self._put, records)
            done.set_result(None)
            await asyncio.sleep(0)
        self._writer = None

    def _put(self, records: list[bytes]) -> None:
        body = b"".join(struct.pack("<I", len(record)) + record for record in records)
        body += bytes(-len(body) % 8)
        self._crc = zlib.crc32(body, self._crc)
        data = struct.pack("<36sI", bytes(36), self._crc) + body
        if self._offset + len(data) > FILE_SIZE:
            self._offset = 0
        os.pwrite(self._file, data, self._offset)
        os.fdatasync(self._file)
        self._offset += len(data)


class BareConnection(asyncio.Protocol):
    """Takes frames of cmd-stream apart by their length, and answers each."""

    def __init__(self, log: BareLog) -> None:
        self._log = log
        self._loop = asyncio.get_running_loop()
        self._rest: bytes = b""
        self._out: list[bytes] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Greet."""
        # A cast: a transport of uvloop's is one without being a subclass.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.write(b"\x07default")

    def data_received(self, data: bytes) -> None:
        """Start a task for each frame."""
        data = self._rest + data
        offset = 0
        for seq, begin, end in read_frames(data):
            task = self._loop.create_task(self._serve(varint(seq), data[begin:end]))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            offset = end
        self._rest = data[offset:]

    async def _serve(self, seq: bytes, body: bytes) -> None:
        for size in RECORD_SIZES:
            await self._log.append(body[:1] * size)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out += (seq, b"\x00", bytes((len(body),)), body)

    def _flush(self) -> None:
        self._transport.write(b"".join(self._out))
        self._out.clear()


async def run_bare(folder: Path) -> None:
    """Serve on any port, which is printed, until cancelled."""
    gc.set_threshold(10_000, 20, 50)
    sys.setswitchinterval(0.001)
    loop = asyncio.get_running_loop()
    log = BareLog(folder / "bare.log")
    server = await loop.create_server(lambda: BareConnection(log), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
