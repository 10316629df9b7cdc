"""The operators' socket, as the benchmarks use it: to submit and go, and to ask."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from cmdstream import Client, ClientOptions
from coordinator.api.admin_messages import (
    SERVER_INFO,
    Accepted,
    Ended,
    Server,
    Status,
    Submit,
    admin_codec,
)
from coordinator.api.admin_socket import SOCKET, within

IN_FLIGHT = 256
POLL_S = 0.02
PATIENCE_S = 300.0


@asynccontextmanager
async def connected(folder: Path) -> AsyncGenerator[Client]:
    """Speak with the server of the journal in *folder*."""
    # A server that is too busy to answer is slow, and that is what is measured.
    options = ClientOptions(server_info=SERVER_INFO, server_info_timeout_s=PATIENCE_S)
    with within(str(folder)) as short:
        client = await Client.connect_unix(
            f"{short}/{SOCKET}", admin_codec(), options=options
        )
    async with client:
        yield client


async def submit(client: Client, type_: str, number: int) -> None:
    """Have one command accepted: it is durable on return, and goes on by itself."""
    payload = f'{{"number":{number}}}'
    answer = await client.send(Submit(type=type_, payload=payload))
    assert isinstance(answer, Accepted), answer


async def submit_many(client: Client, type_: str, count: int) -> None:
    """Have *count* commands accepted, numbered from 0."""
    numbers = iter(range(count))

    async def work() -> None:
        for number in numbers:
            await submit(client, type_, number)

    async with asyncio.TaskGroup() as group:
        for _ in range(IN_FLIGHT):
            group.create_task(work())


async def look(client: Client) -> tuple[int, int]:
    """Return how many have asked the gate, and how many tasks there are."""
    async with client.stream(
        Submit(type="Looks", payload='{"number":0}', wait=True)
    ) as answers:
        async for answer in answers:
            if isinstance(answer, Ended):
                seen = msgspec.json.decode(answer.result)
                return seen["asked"], seen["tasks"]
    raise AssertionError("no answer")


async def until_asked(client: Client, count: int) -> None:
    """Wait until so many have asked the gate."""
    async with asyncio.timeout(PATIENCE_S):
        while (await look(client))[0] < count:  # noqa: ASYNC110 -- another process
            await asyncio.sleep(5 * POLL_S)


async def until(client: Client, holds: Callable[[Server], bool]) -> None:
    """Wait until *holds* of the server's status."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            answer = await client.send(Status())
            assert isinstance(answer, Server), answer
            if holds(answer):
                return
            await asyncio.sleep(POLL_S)
