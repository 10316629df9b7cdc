"""An acknowledged batch lies before every later claim, whoever is how late."""

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from tests.journals.nats.support import (
    claim,
    gated,
    names_of,
    new_url,
    next_batch,
    open_url,
    read,
    texts,
    write,
)
from tests.processes import TIMEOUT_S
from tests.servers.nats import Nats, delete_streams, nats_client, shared_server

from coordinator.errors import (
    CoordinatorError,
    FencedError,
    JournalBrokenError,
    JournalClosedError,
    JournalDamagedError,
    JournalError,
    JournalFullError,
    JournalUnavailableError,
    UncertainError,
)
from coordinator.journals.nats.answers import Verdict
from coordinator.journals.nats.connection import LostError
from coordinator.journals.nats.layout import Kind, Message
from coordinator.journals.nats.stream import Stream
from coordinator.model import Position

T = TypeVar("T")


@pytest.fixture
def server() -> Nats:
    return shared_server()


def run(main: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(main)


def test_an_owner_that_was_replaced_is_told_by_whom_and_adds_nothing(
    server: Nats,
) -> None:
    url = new_url(server)

    async def main() -> None:
        async with open_url(url) as one, open_url(url) as other:
            old = await claim(one, "the old one")
            await write(old, "kept")
            new = await claim(other, "the new one")
            said = "partition 0 was claimed by the new one under epoch 2; ours is 1"
            for _ in range(2):
                with pytest.raises(FencedError, match=said):
                    await write(old, "late")
            with pytest.raises(FencedError):
                await old.save_checkpoint(Position(0), b"")
            await write(new, "more")
            await new.aclose()
            assert texts(await read(await claim(other))) == ["kept", "more"]

    run(main())


def test_an_old_checkpoint_is_not_put_over_a_newer_one(server: Nats) -> None:
    url = new_url(server)

    async def main() -> None:
        async with open_url(url) as one, open_url(url) as other:
            old = await claim(one)
            await write(old, "a")
            new = await claim(other)
            await new.save_checkpoint(new.end, b"new")
            with pytest.raises(FencedError):
                await old.save_checkpoint(old.end, b"old" * 1_000_000)
            with pytest.raises(FencedError):
                await write(old, "late")
            assert await new.load_checkpoint() == b"new"

    run(main())


def test_who_recovers_while_a_newer_owner_trims_is_fenced_and_reads_no_part(
    server: Nats,
) -> None:
    url = new_url(server)

    async def main() -> None:
        async with open_url(url) as one, open_url(url) as other:
            before = await claim(one)
            await write(before, "a")
            await before.save_checkpoint(before.end, b"first")
            await write(before, "b")
            await before.aclose()
            old = await claim(one)
            new = await claim(other)
            await write(new, "c")
            await new.save_checkpoint(new.end, b"second")
            await new.trim(new.end)
            with pytest.raises(FencedError, match="claimed under epoch 3"):
                await read(old)
            with pytest.raises(FencedError, match="claimed under epoch 3"):
                await old.load_checkpoint()

    run(main())


def test_a_write_that_arrives_behind_the_claim_counts_for_nothing(
    server: Nats,
) -> None:
    url = new_url(server)

    async def main() -> None:
        async with gated(server) as gate:
            slow = url.replace(server.address, f"127.0.0.1:{gate.port}")
            async with open_url(slow) as one, open_url(url) as other:
                old = await claim(one)
                await write(old, "kept")
                gate.close()
                async with asyncio.TaskGroup() as group:
                    late = group.create_task(_outcome(write(old, "late")))
                    await gate.held.wait()
                    new = await claim(other, "the new one")
                    gate.open()
                assert isinstance(late.result(), FencedError)
                await write(new, "more")
                await new.aclose()
                assert texts(await read(await claim(other))) == ["kept", "more"]

    run(main())


def test_of_claimants_that_race_the_last_one_owns_it(server: Nats) -> None:
    url = new_url(server)
    count = 6

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_claim_and_write(url, n)) for n in range(count)]
        ends = [task.result() for task in tasks]
        assert sorted(epoch for epoch, _ in ends) == [*range(1, count + 1)]
        written = [n for n in range(count) if ends[n][1] is None]
        assert all(
            isinstance(error, FencedError) for _, error in ends if error is not None
        )
        async with open_url(url) as journal:
            found = texts(await read(await claim(journal)))
        assert sorted(found) == sorted(map(str, written))
        last = max(range(count), key=lambda n: ends[n][0])
        assert last in written

    run(main())


async def _claim_and_write(url: str, number: int) -> tuple[int, Exception | None]:
    async with open_url(url) as journal:
        partition = await claim(journal, str(number))
        return partition.epoch, await _outcome(write(partition, str(number)))


def test_a_claim_gets_in_before_an_owner_that_goes_on_writing(server: Nats) -> None:
    url = new_url(server)

    async def main() -> None:
        async with open_url(url) as one, open_url(url) as other:
            old = await claim(one)
            written: list[str] = []
            claimed = asyncio.Event()

            async def go_on() -> None:
                while True:
                    # It may be the quicker one each time: that it lets nobody in for
                    # ever is not promised, and not asked here.
                    if len(written) == 200:
                        await claimed.wait()
                    text = str(len(written))
                    await write(old, text)
                    written.append(text)

            async with asyncio.TaskGroup() as group:
                writing = group.create_task(_outcome(go_on()))
                new = await claim(other)
                claimed.set()
            assert isinstance(writing.result(), FencedError)
            assert texts(await read(new)) == written

    run(main())


WRITER = """
import asyncio, sys
from tests.journals.nats.support import claim, open_url, write

async def main():
    async with open_url(sys.argv[1]) as journal:
        partition = await claim(journal, "the frozen one")
        for number in range(10**9):
            await write(partition, str(number))
            print(number, flush=True)

try:
    asyncio.run(main())
except Exception as error:
    print(type(error).__name__, error, flush=True)
"""


def test_a_process_that_is_frozen_and_wakes_behind_a_claim_adds_nothing(
    server: Nats,
) -> None:
    url = new_url(server)

    async def main() -> None:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", WRITER, url),
            stdout=asyncio.subprocess.PIPE,
            env={"PYTHONPATH": ":".join(filter(None, sys.path))},
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(TIMEOUT_S), open_url(url) as journal:
                said = [(await process.stdout.readline()).decode() for _ in range(20)]
                process.send_signal(signal.SIGSTOP)
                new = await claim(journal, "the new one")
                await write(new, "new")
                process.send_signal(signal.SIGCONT)
                said += (await process.stdout.read()).decode().splitlines()
                await new.aclose()
                found = texts(await read(await claim(journal)))
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
        *acknowledged, end = map(str.strip, said)
        assert end.startswith("FencedError partition 0 was claimed by the new one")
        assert found[-1] == "new"
        # What was acknowledged is there; one more may be, that it did not hear of.
        assert found[: len(acknowledged)] == acknowledged
        assert len(found) - len(acknowledged) in {1, 2}

    run(main())


def test_a_lost_connection_ends_the_write_at_once_and_nobody_knows(
    server: Nats,
) -> None:
    url = new_url(server)

    async def main() -> None:
        async with gated(server) as gate:
            slow = url.replace(server.address, f"127.0.0.1:{gate.port}")
            async with open_url(slow) as journal:
                partition = await claim(journal)
                await write(partition, "kept")
                gate.close()
                async with asyncio.TaskGroup() as group:
                    writing = group.create_task(_outcome(write(partition, "lost")))
                    await gate.held.wait()
                    gate.cut()
                error = writing.result()
                assert isinstance(error, UncertainError)
                assert "was lost" in str(error)
                with pytest.raises(UncertainError):
                    await write(partition, "never")
                gate.open()
                # Given up, and opened again on the same journal.
                await partition.aclose()
                again = await claim(journal)
                assert again.epoch == 2
                assert texts(await read(again)) == ["kept"]

    run(main())


def test_a_connection_that_is_lost_while_nothing_is_written_is_told(
    server: Nats,
) -> None:
    url = new_url(server)

    async def main() -> None:
        async with gated(server) as gate:
            slow = url.replace(server.address, f"127.0.0.1:{gate.port}")
            async with open_url(slow) as journal:
                partition = await claim(journal)
                told: asyncio.Future[JournalError] = asyncio.Future()
                partition.watch(told.set_result)
                gate.cut()
                async with asyncio.timeout(TIMEOUT_S):
                    assert isinstance(await told, UncertainError)
                with pytest.raises(UncertainError, match="was lost"):
                    await write(partition, "never")

    run(main())


def test_a_server_that_does_not_answer_leaves_a_write_in_doubt(
    server: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = new_url(server)

    async def main() -> None:
        async with gated(server) as gate:
            slow = url.replace(server.address, f"127.0.0.1:{gate.port}")
            async with open_url(slow) as journal:
                partition = await claim(journal)
                gate.close()
                monkeypatch.setattr(
                    "coordinator.journals.nats.connection.ANSWER_S", 0.01
                )
                with pytest.raises(UncertainError, match="no answer to coordinator"):
                    await write(partition, "late")
                monkeypatch.undo()
                gate.open()

    run(main())


def test_a_foreign_message_is_named_and_never_obeyed(
    server: Nats, caplog: pytest.LogCaptureFixture
) -> None:
    url = new_url(server)
    names = names_of(url)
    subject = names.partition_subject(0, Kind.BATCH)

    async def main() -> None:
        async with open_url(url) as journal, nats_client(server.address) as client:
            partition = await claim(journal)
            await write(partition, "one")
            await client.jetstream().publish(subject, b"hello")
            said = r"no coordinator writes to stream .*sequence 4: no coordinator wrote"
            with pytest.raises(UncertainError, match=said):
                await write(partition, "two")
            await partition.aclose()
            partition = await claim(journal)
            assert partition.epoch == 2
            await write(partition, "three")
            # A copy of a batch of ours, which is as good as any, but for its place.
            stored = await client.jetstream().get_msg(names.partition_stream(0), 3)
            await client.jetstream().publish(subject, stored.data)
            with pytest.raises(UncertainError, match="a copy of the message at seq"):
                await write(partition, "four")
            await partition.aclose()
            partition = await claim(journal)
            assert texts(await read(partition)) == ["one", "three"]
            await write(partition, "five")

    run(main())
    assert "has 2 messages that no coordinator wrote" in caplog.text


def test_a_stream_that_is_deleted_under_its_owner_is_missed(server: Nats) -> None:
    url = new_url(server)

    async def main() -> None:
        async with open_url(url) as journal:
            partition = await claim(journal)
            await write(partition, "one")
            await delete_streams([server.address], [names_of(url).partition_stream(0)])
            with pytest.raises(UncertainError, match="no leader now, or is gone"):
                await write(partition, "two")
            await partition.aclose()
            with pytest.raises(JournalUnavailableError, match="from a backup"):
                await claim(journal)
        with pytest.raises(JournalDamagedError, match="stream of partition 0 is gone"):
            async with open_url(url):
                pass

    run(main())


def test_a_stream_that_was_emptied_is_damage(server: Nats) -> None:
    url = new_url(server)

    async def main() -> None:
        async with open_url(url) as journal, nats_client(server.address) as client:
            partition = await claim(journal)
            await write(partition, "one")
            await client.jetstream().purge_stream(names_of(url).partition_stream(0))
            await write(partition, "two")  # it lies where it belongs
            await partition.aclose()
            partition = await claim(journal)
            with pytest.raises(JournalDamagedError, match="begins at position 2"):
                await read(partition)
            await partition.aclose()
            await client.jetstream().purge_stream(names_of(url).partition_stream(0))
            with pytest.raises(JournalDamagedError, match="emptied, or made anew"):
                await claim(journal)

    run(main())


def test_a_stream_that_is_full_refuses_and_takes_more_once_it_is_not(
    server: Nats,
) -> None:
    url = new_url(server)
    name = names_of(url).partition_stream(0)

    async def limit(client: Any, size: int) -> None:
        info = await client.jetstream().stream_info(name)
        info.config.max_bytes = size
        await client.jetstream().update_stream(info.config)

    async def main() -> None:
        async with open_url(url) as journal, nats_client(server.address) as client:
            partition = await claim(journal)
            await limit(client, 10_000)
            batch = next_batch(partition, "x" * 20_000)
            with pytest.raises(JournalFullError, match="maximum bytes exceeded"):
                await partition.write(batch)
            assert "maximum bytes exceeded" in partition.full
            assert partition.full == journal.full
            with pytest.raises(JournalFullError):
                await partition.save_checkpoint(Position(0), bytes(20_000))
            await limit(client, 1_000_000)
            await partition.write(batch)
            assert partition.full == ""
            await partition.aclose()
            partition = await claim(journal)
            assert [len(text) for text in texts(await read(partition))] == [20_000]

    run(main())


def test_a_write_behind_a_checkpoint_that_failed_fails_too(server: Nats) -> None:
    url = new_url(server)

    async def main() -> None:
        async with open_url(url) as one, open_url(url) as other:
            old = await claim(one)
            await claim(other)
            async with asyncio.TaskGroup() as group:
                saving = group.create_task(
                    _outcome(old.save_checkpoint(Position(0), b"x"))
                )
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                writing = group.create_task(_outcome(write(old, "x")))
            assert isinstance(saving.result(), FencedError)
            assert isinstance(writing.result(), FencedError)

    run(main())


def test_a_damaged_checkpoint_is_found(server: Nats) -> None:
    url = new_url(server)
    name = names_of(url).partition_stream(0)

    async def main() -> None:
        async with open_url(url) as journal, nats_client(server.address) as client:
            partition = await claim(journal)
            await partition.save_checkpoint(Position(0), bytes(2_500_000))
            await partition.aclose()
            partition = await claim(journal)
            chunks = names_of(url).partition_subject(0, Kind.CHUNK)
            await client.jetstream().purge_stream(name, subject=chunks, keep=1)
            with pytest.raises(JournalDamagedError, match="not what was stored"):
                await partition.load_checkpoint()
            await partition.aclose()
            last = names_of(url).partition_subject(0, Kind.CHECKPOINT)
            await client.jetstream().purge_stream(name, subject=last)
            with pytest.raises(JournalDamagedError, match="the checkpoint is gone"):
                await claim(journal)

    run(main())


def test_a_closed_partition_is_not_dead(server: Nats) -> None:
    url = new_url(server)

    async def main() -> None:
        async with open_url(url) as journal:
            partition = await claim(journal)
            told: list[JournalError] = []
            partition.watch(told.append)
            await partition.aclose()
            assert told == []
            with pytest.raises(JournalClosedError):
                await write(partition, "x")

    run(main())


@pytest.mark.parametrize("stored", [1, 2])
def test_an_owner_that_dies_between_the_parts_of_a_batch_has_written_none_of_it(
    server: Nats, monkeypatch: pytest.MonkeyPatch, stored: int
) -> None:
    url = new_url(server)
    put = Stream.put

    async def main() -> None:
        async with open_url(url) as journal:
            partition = await claim(journal)
            await write(partition, "kept")

            async def die(stream: Stream, message: Message) -> Verdict:
                if message.index == stored:
                    raise LostError("it died")
                return await put(stream, message)

            with monkeypatch.context() as context:
                context.setattr(Stream, "put", die)
                with pytest.raises(UncertainError, match="it died"):
                    await write(partition, "x" * 2_500_000)
            await partition.aclose()
            partition = await claim(journal)
            assert texts(await read(partition)) == ["kept"]
            await write(partition, "more")
            await partition.aclose()
            assert texts(await read(await claim(journal))) == ["kept", "more"]

    run(main())


def test_reading_goes_on_where_a_server_stops_giving(
    server: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.journals.nats.stream.PULL_COUNT", 7)
    monkeypatch.setattr("coordinator.journals.nats.stream.PULL_SIZE", 1)
    url = new_url(server)

    async def main() -> None:
        async with open_url(url) as journal:
            partition = await claim(journal)
            # Two MiB are asked for at once, then: by count here, by size there.
            sizes = [*[10] * 20, *[900_000] * 5]
            for size in sizes:
                await write(partition, "x" * size)
            await partition.aclose()
            found = texts(await read(await claim(journal)))
            assert [len(text) for text in found] == sizes

    run(main())


def test_what_is_not_given_is_not_waited_for_for_ever(
    server: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coordinator.journals.nats.stream.DELIVERIES_MAX", 1)
    monkeypatch.setattr("coordinator.journals.nats.stream._NS", 1_000_000)
    url = new_url(server)
    name = names_of(url).partition_stream(0)

    async def main() -> None:
        async with open_url(url) as journal, nats_client(server.address) as client:
            partition = await claim(journal)
            await client.jetstream().purge_stream(name)
            with pytest.raises(JournalBrokenError, match="gives nothing from seq"):
                await read(partition)

    run(main())


async def _outcome(work: Coroutine[Any, Any, None]) -> Exception | None:
    try:
        await work
    except CoordinatorError as error:
        return error
    return None
