"""A disk that fills, and one whose flush fails, under a real server.

See `tests.small_disk` for where there is none.
"""

import asyncio
import os
import signal
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.integration.support import (
    SOURCE,
    ask,
    changed,
    charges,
    cli,
    client_of,
    listed,
    serve,
)
from tests.integration.till_app import Greet, Order, OrderFailed, Receipt
from tests.processes import Server, eventually, serving
from tests.small_disk import mounted

from cmdstream import Client, CmdStreamError

SMALL = "file:./journal?segment_mib=1"
FAILED = 1
UNAVAILABLE = 5
ORDERS = [f"o-{number}" for number in range(20)]


@pytest.fixture
def ballast(tmp_path: Path) -> Generator[Path]:
    """Mount a disk of 8 MiB for the journal; yield the file that is to fill it."""
    journal = tmp_path / "journal"
    journal.mkdir()
    with mounted(journal, "8m"):
        yield journal / "ballast"


def _fill(ballast: Path, spare: int = 0) -> None:
    """Take all the space there is but *spare* bytes."""
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    os.truncate(ballast, ballast.stat().st_size - spare)


def _send_orders(
    client: Client, group: asyncio.TaskGroup
) -> list[asyncio.Task[object]]:
    """Send all orders; they wait for their stamps."""
    return [group.create_task(client.send(Order(id_, stamped=True))) for id_ in ORDERS]


async def _until_refused(client: Client) -> OrderFailed:
    """Send commands until one is refused."""
    while not isinstance(answer := await client.send(Greet("x" * 50_000)), OrderFailed):
        pass
    return answer


async def _takes_commands(server: Server) -> bool:
    return await ask(server, Greet("you")) == "hello you"


def test_a_full_disk_refuses_new_commands_and_finishes_what_runs(
    tmp_path: Path, ballast: Path
) -> None:
    async def main() -> None:
        async with serving(tmp_path, SOURCE, journal=SMALL) as server:
            async with client_of(server) as client, asyncio.TaskGroup() as group:
                orders = _send_orders(client, group)
                await eventually(lambda: len(charges(tmp_path)) == len(ORDERS))
                _fill(ballast)
                refused = await _until_refused(client)
                assert (refused.workflow, refused.status) == ("", "refused")
                assert "no new command is taken: ./journal/p0: " in refused.reason
                assert "1048576 bytes are needed for the next segment" in refused.reason
                assert len(await listed(tmp_path)) == len(ORDERS)
                (tmp_path / "go").touch()
                for id_, order in zip(ORDERS, orders, strict=True):
                    assert await order == Receipt(id_, f"paid-{id_}")
            # Still full: who asks again by key is answered, who brings more is not.
            assert await ask(server, Order("o-1")) == Receipt("o-1", "paid-o-1")
            assert isinstance(await ask(server, Order("new")), OrderFailed)
            assert "partition 0 has space" not in server.log
            os.truncate(ballast, 0)
            await eventually(lambda: _takes_commands(server))
            full = "partition 0 takes no new command until there is space"
            assert server.log.count(full) == 1
            assert server.log.count("partition 0 has space and takes commands") == 1
            assert await server.stop() == 0
        verified = await cli(tmp_path, "journal", "verify")
        assert verified.code == 0, verified.stdout

    asyncio.run(main())
    assert charges(tmp_path) == dict.fromkeys(ORDERS, 1)


def test_what_does_not_fit_into_the_reserve_waits_for_space(
    tmp_path: Path, ballast: Path
) -> None:
    large = changed(('return f"stamped-{order}"', 'return "x" * 100_000'))

    async def main() -> None:
        async with serving(tmp_path, large, journal=SMALL) as server:
            async with client_of(server) as client, asyncio.TaskGroup() as group:
                orders = _send_orders(client, group)
                await eventually(lambda: len(charges(tmp_path)) == len(ORDERS))
                _fill(ballast)
                (tmp_path / "go").touch()
                await eventually(lambda: "takes no new command" in server.log)
                assert not all(order.done() for order in orders)
                os.truncate(ballast, 0)
                for id_, order in zip(ORDERS, orders, strict=True):
                    assert await order == Receipt(id_, f"paid-{id_}")
            assert await server.stop() == 0

    asyncio.run(main())
    assert charges(tmp_path) == dict.fromkeys(ORDERS, 1)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_that_ends_on_a_full_disk_starts_and_finishes_on_it(
    tmp_path: Path, ballast: Path, number: signal.Signals
) -> None:
    async def main() -> None:
        async with serving(tmp_path, SOURCE, journal=SMALL) as server:
            async with client_of(server) as client, asyncio.TaskGroup() as group:
                for id_ in ORDERS:
                    group.create_task(_lost(client, Order(id_, stamped=True)))
                await eventually(lambda: len(charges(tmp_path)) == len(ORDERS))
                _fill(ballast)
                async with client_of(server) as other:
                    await _until_refused(other)
                server.signal(number)
            assert await server.exited() == (0 if number == signal.SIGTERM else -number)
        (tmp_path / "go").touch()
        async with serving(tmp_path, SOURCE, journal=SMALL) as server:
            for id_ in ORDERS:
                assert await ask(server, Order(id_)) == Receipt(id_, f"paid-{id_}")
            assert isinstance(await ask(server, Greet("you")), OrderFailed)
            os.truncate(ballast, 0)
            await eventually(lambda: _takes_commands(server))
            assert await server.stop() == 0

    asyncio.run(main())
    assert charges(tmp_path) == dict.fromkeys(ORDERS, 1)


async def _lost(client: Client, command: object) -> None:
    with pytest.raises(CmdStreamError):
        await client.send(command)


@pytest.mark.parametrize("spare", [0, 512 * 1024])
def test_a_new_journal_on_a_full_disk_says_so_and_works_when_there_is_space(
    tmp_path: Path, ballast: Path, spare: int
) -> None:
    new = "file:./journal/new?segment_mib=1"

    async def main() -> None:
        _fill(ballast, spare)
        ended = await serve(tmp_path, journal=new)
        assert ended.code == UNAVAILABLE, ended.stderr
        (line,) = ended.stderr.splitlines()
        assert "./journal/new" in line
        assert "No space left on device" in line or "bytes are needed" in line
        os.truncate(ballast, 0)
        async with serving(tmp_path, SOURCE, journal=new) as server:
            assert await _takes_commands(server)
            assert await server.stop() == 0

    asyncio.run(main())


FAULT = '''
import errno
import os


class Disk:
    """Fails a flush, once and for ever; what was not flushed then may be lost."""

    left = int(os.environ.get("FLUSHES", "1_000_000"))
    loses = "LOSES" in os.environ
    write, flush = os.pwrite, os.fdatasync
    dirty = []

    @classmethod
    def pwrite(cls, file, data, offset):
        assert cls.left >= 0, _note("written after a failed flush x\\\\n")
        cls.dirty.append((file, len(data), offset))
        return cls.write(file, data, offset)

    @classmethod
    def fdatasync(cls, file):
        assert cls.left >= 0, _note("flushed after a failed flush x\\\\n")
        cls.left -= 1
        if cls.left >= 0:
            cls.flush(file)
            cls.dirty.clear()
            return
        for written, size, offset in cls.dirty if cls.loses else ():
            cls.write(written, bytes(size), offset)
        raise OSError(errno.EIO, os.strerror(errno.EIO))


os.pwrite, os.fdatasync = Disk.pwrite, Disk.fdatasync
'''
FAULTY = SOURCE + FAULT


@pytest.mark.parametrize("loses", [False, True], ids=["kept", "lost"])
@pytest.mark.parametrize("flushes", [7, 20, 61])
def test_a_failed_flush_ends_the_server_and_a_restart_finishes_all(
    tmp_path: Path, flushes: int, loses: bool
) -> None:
    answers: dict[str, object] = {}
    asked: list[str] = []
    env = {"FLUSHES": str(flushes)} | ({"LOSES": "1"} if loses else {})

    async def shop(client: Client) -> None:
        with suppress(CmdStreamError):
            while True:
                asked.append(id_ := f"o-{len(asked)}")
                answers[id_] = await client.send(Order(id_))

    async def main() -> None:
        async with serving(tmp_path, FAULTY, env=env) as server:
            async with client_of(server) as client, asyncio.TaskGroup() as group:
                for _ in range(8):
                    group.create_task(shop(client))
            assert await server.exited() == FAILED
            (said,) = (line for line in server.log.splitlines() if "CRITICAL" in line)
            assert "./journal/p0: could not append: [Errno 5] Input/output" in said
            assert "restart the process" in said
            assert "Traceback" not in server.log
        assert all(isinstance(answer, Receipt) for answer in answers.values())
        async with serving(tmp_path, SOURCE) as server, client_of(server) as client:
            for id_ in asked:
                assert await client.send(Order(id_)) == Receipt(id_, f"paid-{id_}")
            assert await listed(tmp_path) == []
            assert await server.stop() == 0
        verified = await cli(tmp_path, "journal", "verify")
        assert verified.code == 0, verified.stdout

    asyncio.run(main())
    assert charges(tmp_path) == dict.fromkeys(asked, 1)


@pytest.mark.parametrize("flushes", [0, 1, 2])
def test_a_flush_that_fails_at_the_start_is_named_and_the_next_start_works(
    tmp_path: Path, flushes: int
) -> None:
    broken = FAULTY.replace("1_000_000", str(flushes))

    async def main() -> None:
        ended = await serve(tmp_path, broken)
        assert ended.code == FAILED
        (line,) = ended.stderr.splitlines()
        assert "./journal" in line
        assert "[Errno 5] Input/output error" in line
        async with serving(tmp_path, SOURCE) as server:
            assert await _takes_commands(server)
            assert await server.stop() == 0

    asyncio.run(main())
