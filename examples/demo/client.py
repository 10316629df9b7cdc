"""The client: sends orders over cmd-stream, and asks again until each has an answer.

    python -m examples.demo.client --port 9000 --orders 2000 --answers answers.jsonl

A lost connection says nothing about the orders that were on it: each may have run, or
not, or half. So they are all sent again over the next connection, with the same
payload. Their key is what makes that safe: a workflow that exists is attached to, one
that ended answers at once.

Standard output is for who started it: a line of JSON every 20 ms and at the end, see
`Progress`. The answers go to a file, one line each, see `Answer`. It ends when all
orders have one.
"""

import argparse
import asyncio
import random
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO

import msgspec
from examples.shop.orders import OrderFailed, PlaceOrder, Receipt, coordinator

from cmdstream import Client, ConnectionClosedError
from coordinator.api.cmdstream import json_codec

REPORT_EVERY_S = 0.02
LONG_S = 2.0  # After this an order makes room for the next one.
IN_FLIGHT_GROWTH = 3  # So many times the usual number may be in flight by that.
BACK_OFF_S = (0.02, 0.5)  # Between attempts to connect: the first, and the longest.


class Answer(msgspec.Struct, frozen=True, tag_field="kind"):
    """What the client was told about one order."""

    order_id: str
    asked: int
    """How often it was sent; more than once after lost connections."""


class Completed(Answer, frozen=True, tag="completed"):
    receipt: Receipt


class Failed(Answer, frozen=True, tag="failed"):
    failure: OrderFailed


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far the client is."""

    completed: int = 0
    failed: int = 0
    in_flight: int = 0
    connections: int = 0
    """How often it connected."""

    @property
    def answered(self) -> int:
        return self.completed + self.failed


def make_orders(count: int, seed: int) -> Iterator[PlaceOrder]:
    """Yield the orders of a run: the audit makes the same ones."""
    dice = random.Random(f"{seed}/orders")
    for number in range(1, count + 1):
        pieces, cents = dice.randint(1, 3), dice.randint(500, 20_000)
        yield PlaceOrder(f"o-{number}", pieces, cents)


def read_answers(path: Path) -> Iterable[Completed | Failed]:
    """Read what a client wrote."""
    lines = path.read_bytes().splitlines()
    return [msgspec.json.decode(line, type=Completed | Failed) for line in lines]


class Connection:
    """A connection that comes back; shared by all who send."""

    def __init__(self, port: int) -> None:
        self.made = 0
        self._port = port
        self._codec = json_codec(coordinator)
        self._client: Client | None = None
        self._lock = asyncio.Lock()

    async def client(self) -> Client:
        """Return a client that is connected, once there is one."""
        async with self._lock:  # One connects, the others wait for it.
            wait_s, longest_s = BACK_OFF_S
            while self._client is None or self._client.closed:
                try:
                    self._client = await Client.connect(
                        "127.0.0.1", self._port, self._codec
                    )
                    self.made += 1
                except ConnectionClosedError:
                    await asyncio.sleep(wait_s * random.uniform(0.5, 1))
                    wait_s = min(2 * wait_s, longest_s)
            return self._client

    async def aclose(self) -> None:
        if self._client is not None:
            await self._client.aclose()


class Customers:
    """Send the orders: so many at a time, and more when those take long.

    Customers come whether or not the shop is well. So an order that takes long makes
    room for the next one, up to a bound.
    """

    def __init__(self, connection: Connection, book: IO[bytes], at_once: int) -> None:
        self._connection = connection
        self._book = book
        self._room = asyncio.Semaphore(at_once)
        self._room_in_all = asyncio.Semaphore(at_once * IN_FLIGHT_GROWTH)
        self._in_flight = self._completed = self._failed = 0

    def progress(self) -> Progress:
        return Progress(
            completed=self._completed,
            failed=self._failed,
            in_flight=self._in_flight,
            connections=self._connection.made,
        )

    async def send_all(self, orders: Iterable[PlaceOrder]) -> None:
        async with asyncio.TaskGroup() as group:
            for order in orders:
                await self._room_in_all.acquire()
                await self._room.acquire()
                group.create_task(self._place(order))

    async def _place(self, order: PlaceOrder) -> None:
        loop = asyncio.get_running_loop()
        self._in_flight += 1
        patience = loop.call_later(LONG_S, self._room.release)
        answer = await self._ask(order)
        if loop.time() < patience.when():
            patience.cancel()
            self._room.release()
        self._room_in_all.release()
        self._in_flight -= 1
        if isinstance(answer, Completed):
            self._completed += 1
        else:
            self._failed += 1
        self._book.write(msgspec.json.encode(answer) + b"\n")

    async def _ask(self, order: PlaceOrder) -> Completed | Failed:
        """Send *order* until there is an answer."""
        asked = 0
        while True:
            client = await self._connection.client()
            asked += 1
            try:
                answer = await client.send(order)
            except ConnectionClosedError:
                continue
            match answer:
                case Receipt():
                    return Completed(order.order_id, asked, answer)
                case OrderFailed(status="refused"):
                    await asyncio.sleep(
                        BACK_OFF_S[1]
                    )  # Not accepted: nothing was done.
                case OrderFailed():
                    return Failed(order.order_id, asked, answer)
                case _:
                    raise TypeError(f"an answer that is none: {answer!r}")


async def run(
    port: int, orders: Iterable[PlaceOrder], path: Path, at_once: int
) -> None:
    """Send *orders*, write the answers to *path*, and report."""
    connection = Connection(port)
    with path.open("wb") as book:
        customers = Customers(connection, book, at_once)
        async with asyncio.TaskGroup() as group:
            reporting = group.create_task(report_always(customers))
            await customers.send_all(orders)
            reporting.cancel()
    report(customers)
    await connection.aclose()


async def report_always(customers: Customers) -> None:
    while True:
        report(customers)
        await asyncio.sleep(REPORT_EVERY_S)


def report(customers: Customers) -> None:
    sys.stdout.buffer.write(msgspec.json.encode(customers.progress()) + b"\n")
    sys.stdout.buffer.flush()


def main() -> None:
    """Read the command line and send."""
    parser = argparse.ArgumentParser(prog="examples.demo.client")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--orders", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--in-flight", type=int, default=150)
    parser.add_argument("--answers", type=Path, required=True, help="a file")
    given = parser.parse_args()
    orders = make_orders(given.orders, given.seed)
    asyncio.run(run(given.port, orders, given.answers, given.in_flight))


if __name__ == "__main__":
    main()
