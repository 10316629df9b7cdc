"""What the tests of journals in NATS share: journals on real servers, and writing."""

import asyncio
import secrets
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

from tests.servers.nats import Nats, NatsCluster

from coordinator.batch import Batch, encode_batch
from coordinator.journals.nats.address import parse_address
from coordinator.journals.nats.journal import NatsJournal
from coordinator.journals.nats.layout import Names
from coordinator.model import Position
from coordinator.ports import Partition
from coordinator.records import Resumed, encode_record

__all__ = [
    "Gate",
    "claim",
    "gated",
    "names_of",
    "new_url",
    "next_batch",
    "open_url",
    "read",
    "texts",
    "write",
]


def new_url(servers: Nats | NatsCluster, **options: object) -> str:
    """Return the URL of a journal that nobody else has."""
    addresses = [servers.address] if isinstance(servers, Nats) else servers.addresses
    query = "&".join(f"{name}={value}" for name, value in options.items())
    return f"nats://{','.join(addresses)}/{secrets.token_hex(8)}?{query}"


def names_of(url: str) -> Names:
    return parse_address(url, {}).names


@asynccontextmanager
async def open_url(url: str) -> AsyncGenerator[NatsJournal]:
    journal = await NatsJournal.open_address(parse_address(url, {}))
    try:
        yield journal
    finally:
        await journal.aclose()


async def claim(journal: NatsJournal, owner: str = "test") -> Partition:
    return await journal.open(0, owner=owner, at=1)


def next_batch(partition: Partition, *said: str) -> Batch:
    return encode_batch(
        [encode_record(Resumed(0, text, 1)) for text in said],
        epoch=partition.epoch,
        first=partition.end,
        previous_crc=partition.crc,
    )


async def write(partition: Partition, *said: str) -> None:
    await partition.write(next_batch(partition, *said))


async def read(partition: Partition, since: int = 0) -> list[Batch]:
    return [batch async for batch in partition.read(Position(since))]


def texts(batches: list[Batch]) -> list[str]:
    return [
        record.by
        for batch in batches
        for _, record in batch.records()
        if isinstance(record, Resumed)
    ]


class Gate:
    """A way to a server on which what a client sends can be held back."""

    def __init__(self) -> None:
        self.port = 0
        self._open = asyncio.Event()
        self._open.set()
        self.held = asyncio.Event()
        """Set once something is held back."""
        self._tasks: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Hold back what comes from now on."""
        self._open.clear()

    def open(self) -> None:
        """Let it go on, and what was held back first."""
        self._open.set()

    def cut(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()

    async def carry(
        self, to: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Carry one connection to port *to*."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        server_reader, server_writer = await asyncio.open_connection("127.0.0.1", to)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._forward(reader, server_writer, gated=True))
                group.create_task(self._forward(server_reader, writer, gated=False))
        except asyncio.CancelledError:
            pass  # cut
        finally:
            self._tasks.discard(task)
            for one in (writer, server_writer):
                one.close()
                with suppress(OSError):
                    await one.wait_closed()

    async def _forward(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, gated: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                if gated and not self._open.is_set():
                    self.held.set()
                    await self._open.wait()
                writer.write(data)
                await writer.drain()
        writer.close()


@asynccontextmanager
async def gated(server: Nats) -> AsyncGenerator[Gate]:
    """Give a gate before *server*."""
    gate = Gate()
    listening = await asyncio.start_server(
        lambda reader, writer: gate.carry(server.port, reader, writer), "127.0.0.1", 0
    )
    gate.port = listening.sockets[0].getsockname()[1]
    try:
        yield gate
    finally:
        listening.close()
        gate.open()
        gate.cut()
        await listening.wait_closed()
