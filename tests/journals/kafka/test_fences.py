"""Owners that are paused, brokers that die: nothing acknowledged is lost or doubled."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager

import pytest
from tests.journals.kafka.brokers import (
    kept,
    new_topic_name,
    persistently,
    run,
    take_over,
    write,
)
from tests.servers.kafka import KafkaCluster, kafka_cluster, shared_server

from coordinator.errors import JournalError


@asynccontextmanager
async def owning(url: str, owner: str) -> AsyncGenerator[Process]:
    """Run an owner in a process of its own; it owns the partition on return."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.journals.kafka.owner", url, owner),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        assert await line_of(process) == "open"
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def line_of(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def acknowledged(process: Process, count: int) -> list[int]:
    """Return the next *count* numbers whose writes were acknowledged."""
    return [int(await line_of(process)) for _ in range(count)]


@pytest.mark.parametrize("writes", [1, 2, 7, 50])
def test_an_owner_that_was_paused_in_mid_write_is_fenced(writes: int) -> None:
    url = shared_server().url(new_topic_name())

    async def main() -> None:
        async with owning(url, "old") as old:
            told = await acknowledged(old, writes)
            old.send_signal(signal.SIGSTOP)
            journal, new = await take_over(url, "new")
            for number in range(10):
                await write(new, f"new {number}")
            old.send_signal(signal.SIGCONT)
            # What was acknowledged before the pause may be in the pipe yet.
            while (line := await line_of(old)).isdecimal():
                told.append(int(line))
            assert line.startswith(
                ("FencedError: new claimed partition 0 of topic ", "UncertainError: ")
            )
            assert line.startswith("FencedError")
            await write(new, "new 10")
            await journal.aclose()
        found = await kept(url)
        of_old = [f"old {number}" for number in told]
        # One may have landed just before the claim: durable, and not acknowledged.
        assert found[: len(told)] == of_old
        assert len(found) - len(told) - 11 in {0, 1}
        assert found[-11:] == [f"new {number}" for number in range(11)]

    run(main())


def test_two_that_take_the_partition_from_one_another_never_both_write() -> None:
    url = shared_server().url(new_topic_name())
    told: list[str] = []

    async def own(name: str) -> None:
        for turn in range(5):
            journal, partition = await persistently(lambda: take_over(url, name))
            try:
                for number in range(20):
                    text = f"{name} {turn} {number}"
                    await write(partition, text)
                    told.append(text)
            except JournalError:
                pass
            await journal.aclose()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for name in "ab":
                group.create_task(own(name))
        found = await kept(url)
        assert [text for text in found if text in told] == told
        assert len(set(found)) == len(found)

    run(main())


@pytest.fixture(scope="module")
def cluster() -> Generator[KafkaCluster]:
    with kafka_cluster() as running:
        yield running


class Writer:
    """Writes one after another, opens again if it must, and notes what was told."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.told: list[str] = []
        self.openings = 0
        self._enough = asyncio.Event()
        self._wanted = 0

    async def reach(self, count: int) -> None:
        """Return once *count* more were acknowledged."""
        self._enough.clear()
        self._wanted = len(self.told) + count
        await self._enough.wait()

    async def write_on(self) -> None:
        sent = 0
        while True:
            journal, partition = await persistently(
                lambda: take_over(self._url, "writer")
            )
            self.openings += 1
            try:
                while True:
                    sent += 1
                    await write(partition, str(sent))
                    self.told.append(str(sent))
                    if len(self.told) >= self._wanted:
                        self._enough.set()
            except JournalError:
                pass
            finally:
                await journal.aclose()


@asynccontextmanager
async def writing(url: str) -> AsyncGenerator[Writer]:
    writer = Writer(url)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(writer.write_on())
        await writer.reach(20)
        yield writer
        await writer.reach(20)
        task.cancel()
    found = await kept(url)
    assert [text for text in found if text in set(writer.told)] == writer.told
    assert found == sorted(set(found), key=int)


def test_a_write_outlives_the_leader(cluster: KafkaCluster) -> None:
    url = cluster.url(topic := new_topic_name())

    async def main() -> None:
        async with writing(url) as writer:
            leader = await asyncio.to_thread(cluster.leader, topic, 0)
            leader.kill()
            await writer.reach(20)
            assert writer.openings == 1
            await asyncio.to_thread(cluster.start)

    run(main())


def test_nothing_is_lost_when_all_brokers_are_killed(cluster: KafkaCluster) -> None:
    url = cluster.url(new_topic_name())

    async def main() -> None:
        async with writing(url):
            for broker in cluster.brokers:
                broker.kill()
            await asyncio.to_thread(cluster.start)

    run(main())


def test_nor_when_the_leader_hangs(cluster: KafkaCluster) -> None:
    url = cluster.url(topic := new_topic_name())

    async def main() -> None:
        async with writing(url) as writer:
            leader = await asyncio.to_thread(cluster.leader, topic, 0)
            leader.pause()
            try:
                await writer.reach(20)
            finally:
                leader.resume()

    run(main())
