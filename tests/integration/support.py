"""What the tests of bad input share: the server's code, its clients, its journal."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tests.cli.runner import ask as in_this_process
from tests.integration.till_app import Greet, Order, OrderFailed, Receipt
from tests.processes import TIMEOUT_S, Ended, Server, run_cli

from cmdstream import Client, JsonCodec, Registry
from coordinator.batch import Batch, BatchError, decode_batch
from coordinator.journals.segments.format import SEGMENT_HEADER_SIZE

SOURCE = Path(__file__).with_name("till_app.py").read_text()
CODEC = JsonCodec(Registry([Order, Greet], [Receipt, str, OrderFailed]))
JOURNAL = "file:./journal"


def changed(*edits: tuple[str, str], source: str = SOURCE) -> str:
    """Return the server's code after *edits*, each of which replaces one by another."""
    for old, new in edits:
        assert old in source, old
        source = source.replace(old, new)
    return source


@asynccontextmanager
async def client_of(server: Server) -> AsyncGenerator[Client]:
    """Connect to *server*."""
    async with await Client.connect(*server.address, CODEC) as client:
        yield client


async def ask(server: Server, command: object) -> object:
    """Send one command over a connection of its own, and return the result."""
    async with asyncio.timeout(TIMEOUT_S), client_of(server) as client:
        return await client.send(command)


async def serve(folder: Path, source: str = SOURCE, journal: str = JOURNAL) -> Ended:
    """Run a ``serve`` that is expected to end by itself."""
    (folder / "target_app.py").write_text(source)
    listen = ("--listen", "tcp://127.0.0.1:0")
    return await run_cli(
        folder, "serve", "target_app:coordinator", "--journal", journal, *listen
    )


async def cli(folder: Path, *arguments: str) -> Ended:
    """Run a command on the journal in *folder*; in this process, which is faster."""
    return await in_this_process(folder, *arguments)


async def listed(folder: Path) -> list[dict[str, Any]]:
    """Return the unfinished workflows, as ``list`` shows them."""
    ended = await cli(folder, "list", "--json")
    assert ended.code == 0, ended.stderr
    workflows: list[dict[str, Any]] = ended.json()["workflows"]
    return workflows


def charges(folder: Path) -> dict[str, int]:
    """Return how often each order was charged by a service that heeds the keys."""
    path = folder / "charges.txt"
    lines = set(path.read_text().splitlines()) if path.exists() else set[str]()
    orders = [line.rpartition(" ")[2] for line in lines]
    return {order: orders.count(order) for order in orders}


class Placed(NamedTuple):
    """A batch, and the byte of its file where it begins."""

    offset: int
    batch: Batch


def segments(folder: Path, partition: int = 0) -> list[Path]:
    """Return the segments of the journal in *folder*, oldest first."""
    return sorted((folder / "journal" / f"p{partition}").glob("*.seg"))


def batches(segment: Path) -> list[Placed]:
    """Return the valid batches of *segment*, up to the first place where none is."""
    data, offset = segment.read_bytes(), SEGMENT_HEADER_SIZE
    found: list[Placed] = []
    while True:
        try:
            batch = decode_batch(data, offset)
        except BatchError:
            return found
        found.append(Placed(offset, batch))
        offset += len(batch.data)


def overwrite(path: Path, offset: int, data: bytes) -> None:
    """Write *data* over what is at *offset* of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def flip(path: Path, offset: int, bit: int = 0) -> None:
    """Flip one bit of a file."""
    overwrite(path, offset, bytes([path.read_bytes()[offset] ^ (1 << bit)]))
