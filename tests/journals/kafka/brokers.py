"""What tests of a journal on real brokers do again and again."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from coordinator.batch import Batch, encode_batch
from coordinator.errors import JournalError
from coordinator.journals.kafka.address import parse_url
from coordinator.journals.kafka.journal import KafkaJournal
from coordinator.journals.kafka.partition import KafkaPartition
from coordinator.model import Position
from coordinator.records import Resumed, encode_record

__all__ = [
    "connect",
    "kept",
    "new_topic_name",
    "next_batch",
    "persistently",
    "run",
    "take_over",
    "write",
]

T = TypeVar("T")

TIMEOUT_S = 240.0
"""Only a hang gets here; brokers may be starting on a busy machine."""


def run(main: Coroutine[Any, Any, T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(TIMEOUT_S):
            return await main

    return asyncio.run(bounded())


def new_topic_name() -> str:
    return f"t-{secrets.token_hex(8)}"


async def connect(url: str, **environment: str) -> KafkaJournal:
    return await KafkaJournal.connect(parse_url(url, environment))


async def take_over(
    url: str, owner: str, **environment: str
) -> tuple[KafkaJournal, KafkaPartition]:
    journal = await connect(url, **environment)
    return journal, await journal.open(0, owner=owner, at=1)


def next_batch(partition: KafkaPartition, text: str) -> Batch:
    return encode_batch(
        [encode_record(Resumed(0, text, 1))],
        epoch=partition.epoch,
        first=partition.end,
        previous_crc=partition.crc,
    )


async def write(partition: KafkaPartition, text: str) -> None:
    await partition.write(next_batch(partition, text))


async def kept(url: str, **environment: str) -> list[str]:
    """Return what a new owner finds."""
    journal, partition = await take_over(url, "reader", **environment)
    found = [
        record.by
        async for batch in partition.read(Position(0))
        for _, record in batch.records()
        if isinstance(record, Resumed)
    ]
    await journal.aclose()
    return found


async def persistently(call: Callable[[], Awaitable[T]]) -> T:
    """Return what *call* does, once brokers are there again."""
    while True:
        try:
            return await call()
        except JournalError:
            await asyncio.sleep(0)
