"""Open-loop load: commands come at their own rate, whatever the server does.

Each has the time at which it was due, and is given to the next connection that takes
more. If none does, it is turned away: that is how back-pressure reaches who can't slow
down. What the server lets in is timed from its `Accepted` record, read later from the
journal, to the answer; so nothing is left out because the server was slow
("coordinated omission"), and waiting in a socket is not counted as being served.
"""

import asyncio
import time
from pathlib import Path
from typing import cast

import msgspec

from bench.frames import read_frames, varint

TICK_S = 0.001
PATIENCE_S = 30.0
"""Seconds for the last answers, where they are waited for."""


class OpenLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What to offer."""

    port: int
    rate: float
    """Commands per second."""
    seconds: float
    connections: int
    first: int
    """The number of the first command."""
    answers: str
    """File for the answers: `Answers`."""
    wait: bool
    """Until all are answered, as long as `PATIENCE_S`; else leave them."""


class Answers(msgspec.Struct, frozen=True, array_like=True):
    """What came back."""

    offered: int
    turned_away: int
    numbers: list[int]
    """Of the commands that were answered, in that order."""
    at_us: list[int]
    """When, in microseconds since 1970: on the clock of `Accepted.at`."""


class _Connection(asyncio.Protocol):
    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._rest: bytes = b""
        self._greeted = False
        self.numbers: list[int] = []
        """Of the commands sent, by their seq less one."""
        self.answered = 0
        self.writable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast: a transport of uvloop's is one without being a subclass.
        self.transport = cast("asyncio.Transport", transport)

    def pause_writing(self) -> None:
        self.writable = False

    def resume_writing(self) -> None:
        self.writable = True

    def send(self, number: int) -> None:
        self.numbers.append(number)
        body = b'{"number":%d}' % number
        # Tag 0 is `ThreeSteps`, the first of `sagas.COMMANDS`.
        seq = varint(len(self.numbers))
        self.transport.write(b"%b\0%b%b" % (seq, varint(len(body)), body))

    def data_received(self, data: bytes) -> None:
        now_us = time.time_ns() // 1000
        data = self._rest + data
        offset = 0
        if not self._greeted:
            size = 1 + data[0]
            if len(data) < size:
                self._rest = data
                return
            self._greeted, offset = True, size
        for seq, begin, end in read_frames(data, offset):
            number = self.numbers[seq - 1]
            assert data[begin:end] == b'{"number":%d}' % number, data[begin:end]
            self._answers.numbers.append(number)
            self._answers.at_us.append(now_us)
            self.answered += 1
            offset = end
        self._rest = data[offset:]


async def offer(load: OpenLoad) -> None:
    """Offer *load*, and write down what came back."""
    loop = asyncio.get_running_loop()
    answers = Answers(0, 0, [], [])
    connections: list[_Connection] = []
    for _ in range(load.connections):
        _, connection = await loop.create_connection(
            lambda: _Connection(answers), "127.0.0.1", load.port
        )
        connections.append(connection)
    begin = time.perf_counter()
    offered = turned_away = 0
    while (passed := time.perf_counter() - begin) < load.seconds:
        due = int(passed * load.rate)
        takers = [c for c in connections if c.writable]
        while offered < due:
            if takers:
                connection = takers[offered % len(takers)]
                connection.send(load.first + offered)
                if not connection.writable:
                    takers.remove(connection)
            else:
                turned_away += 1
            offered += 1
        await asyncio.sleep(TICK_S)
    if load.wait:
        async with asyncio.timeout(PATIENCE_S):
            # An event would be set in the path that is measured.
            while any(c.answered < len(c.numbers) for c in connections):  # noqa: ASYNC110
                await asyncio.sleep(TICK_S)
    for connection in connections:
        connection.transport.abort()
    found = Answers(offered, turned_away, answers.numbers, answers.at_us)
    # Nothing else runs here any more.
    data = msgspec.msgpack.encode(found)
    Path(load.answers).write_bytes(data)  # noqa: ASYNC240
