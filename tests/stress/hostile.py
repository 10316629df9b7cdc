"""Peers that mean no good, against both servers for the whole run.

    python -m tests.stress.hostile SECONDS SEED PORT PORT

Each does one thing to a server, which has to end it: within `PATIENCE_S`, or at once
where nothing is to be waited for. Prints one line of JSON at its end.
"""

import argparse
import asyncio
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec
from tests.stress.messages import CODEC, HOSTILE, Echo, Stream

from cmdstream.wire import write_size

__all__ = ["Deeds"]

PATIENCE_S = 120.0
"""Many times the server's limits: the kernel takes 2.8 MB on its own account before
the server sees that nobody reads, and the machine is busy."""

_GREETING = b"\x07default"
_RESET = struct.pack("ii", 1, 0)
_PAUSE_S = 0.5  # on average, between two deeds


class Deeds(msgspec.Struct, frozen=True):
    """What was done, and what was let through that should not have been."""

    done: dict[str, int]
    problems: list[str]


class Peer:
    """A connection with a small buffer, to a server that may be down."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self._count = 0

    async def __call__(self, port: int, deed: "Deed") -> bool | None:
        """Do it; False if the server let it go on, None if there was no server."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
            reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
        except OSError:
            sock.close()
            return None
        try:
            async with asyncio.timeout(PATIENCE_S):
                await reader.readexactly(len(_GREETING))
                await deed(self, reader, writer)
        except TimeoutError:
            return False
        except (OSError, EOFError):
            pass  # hung up on, or the server went
        finally:
            writer.transport.abort()
        return True

    def frame(self, *, count: int = 1, text: str = "") -> bytes:
        self._count += 1
        id_ = HOSTILE + self._count
        size = 4096
        command = Stream(id_, 0, count, size) if count > 1 else Echo(id_, 0, text)
        return write_size(self._count) + CODEC.encode_command(command)


Deed = Callable[[Peer, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def garbage(
    peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Bytes that mean nothing."""
    writer.write(peer.chance.randbytes(peer.chance.randrange(1, 4000)))
    writer.write_eof()
    await reader.read(-1)


async def damage(
    peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Good frames with one bit flipped, but for those that hold an id."""
    head = bytearray(b"\x00" + write_size(7))
    bit = peer.chance.randrange(len(head) * 8)
    head[bit // 8] ^= 1 << bit % 8
    writer.write(bytes(head) + peer.frame()[1:])
    writer.write_eof()
    await reader.read(-1)


async def deafness(
    peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Ask for megabytes and read none of them."""
    for _ in range(64):
        writer.write(peer.frame(text="x" * 64 * 1024))
    await writer.drain()
    await _hung_up(writer)


async def endlessness(
    peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Ask for a stream without end, read none of it."""
    writer.write(peer.frame(count=10_000_000))
    await writer.drain()
    await _hung_up(writer)


async def slowloris(
    peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One byte now and then of a frame that never gets whole."""
    for byte in peer.frame(text="x" * 1024):
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(0.3)


async def silence(
    peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Say nothing at all."""
    await reader.read(-1)


async def pings(
    peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """A flood of pings, whose pongs are read, and then the end."""
    sent = 200_000
    writer.write(bytes(sent))
    while sent:
        got = await reader.read(65536)
        if not got:
            return
        sent -= len(got)


async def deaf_pings(
    peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """A flood of pings, whose pongs nobody reads."""
    while True:
        writer.write(bytes(65536))
        await writer.drain()


async def reset(
    peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Ask, and reset the connection in the middle of it."""
    writer.write(peer.frame() * 3 + peer.frame()[:5])
    await writer.drain()
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


async def tls(
    peer: Peer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Speak TLS where it is not spoken."""
    writer.write(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(509))
    await reader.read(-1)


DEEDS: dict[Deed, int] = {
    garbage: 10,
    damage: 10,
    deafness: 10,
    endlessness: 10,
    slowloris: 10,
    silence: 10,
    pings: 1,
    deaf_pings: 1,
    reset: 10,
    tls: 10,
}
"""How often each is done, against the others. Until its connection is full, a flood
takes all the time that a server has left, and the attempts' time-outs are short."""


async def _hung_up(writer: asyncio.StreamWriter) -> None:
    """Wait for the end without reading anything, which a reader would notice first."""
    with suppress(OSError):
        while True:
            writer.write(b"\x00")  # into its buffer, or into nothing
            await writer.drain()
            await asyncio.sleep(0.2)


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seconds", type=float)
    parser.add_argument("seed", type=int)
    parser.add_argument("ports", type=int, nargs=2)
    options = parser.parse_args()
    chance = random.Random(f"{options.seed} hostile")
    peer = Peer(chance)
    done: Counter[str] = Counter()
    problems: list[str] = []

    async def do(deed: Deed, port: int) -> None:
        name = deed.__name__
        was_ended = await peer(port, deed)
        if was_ended is not None:
            done[name.replace("_", " ")] += 1
        if was_ended is False:
            problems.append(f"{name} went on for {PATIENCE_S} s")

    until_s = time.monotonic() + options.seconds
    async with asyncio.TaskGroup() as group:
        while time.monotonic() < until_s:
            (deed,) = chance.choices(list(DEEDS), list(DEEDS.values()))
            group.create_task(do(deed, chance.choice(options.ports)))
            await asyncio.sleep(chance.uniform(0.0, 2 * _PAUSE_S))
    sys.stdout.buffer.write(msgspec.json.encode(Deeds(dict(done), problems)) + b"\n")


if __name__ == "__main__":
    asyncio.run(main())
