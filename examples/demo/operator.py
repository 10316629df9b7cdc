"""What an operator sees of the running coordinator, through its admin socket.

It is what `coordinator list` shows; a coordinator that is dead shows nothing, and the
next one is asked as soon as it is there.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from cmdstream import Client, ClientOptions, ConnectionClosedError
from coordinator.api.admin_messages import (
    SERVER_INFO,
    List,
    Server,
    Status,
    Workflows,
    admin_codec,
)
from coordinator.api.admin_socket import SOCKET, within

ASK_EVERY_S = 0.1


@dataclass(frozen=True)
class Sight:
    """How the coordinator is."""

    pid: int
    delayed: int
    """Workflows that wait until they are tried again."""
    suspended: dict[str, int]
    """Services that are not called but for probes: how many workflows wait for each."""


async def watch(journal: Path) -> AsyncIterator[Sight]:
    """Yield what there is to see, again and again, through any number of restarts."""
    options = ClientOptions(server_info=SERVER_INFO)
    while True:
        try:
            with within(str(journal)) as folder:
                client = await Client.connect_unix(
                    f"{folder}/{SOCKET}", admin_codec(), options=options
                )
            async with client:
                while True:
                    yield await look(client)
                    await asyncio.sleep(ASK_EVERY_S)
        except (ConnectionClosedError, OSError):
            await asyncio.sleep(ASK_EVERY_S)


async def look(client: Client) -> Sight:
    """Ask once."""
    status = await client.send(Status())
    delayed = await client.send(List(statuses=["delayed"], limit=1))
    assert isinstance(status, Server)
    assert isinstance(delayed, Workflows)
    suspended = {s.service: s.waiting for s in status.suspended}
    return Sight(status.pid, delayed.total, suspended)
