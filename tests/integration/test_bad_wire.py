"""Bad bytes to a real server: who sends them is hung up on, and nobody else notices."""

import asyncio
import socket
from pathlib import Path

from tests.integration.support import (
    SOURCE,
    ask,
    changed,
    charges,
    cli,
    client_of,
    listed,
)
from tests.integration.till_app import Greet, Order, OrderFailed, Receipt
from tests.processes import TIMEOUT_S, Server, eventually, serving

MIB = 1024 * 1024
GREETING = b"\x07default"

BAD = {
    "unknown command tag 9: 2 are registered": b"\x01\x09\x02{}",
    "command Order: Expecting property name": b"\x01\x00\x02{{",
    "command Order: Expecting value": b"\x01\x00\x00",
    "command Order: Expected `str`, got `int` - at `$.id`": b'\x01\x00\x08{"id":5}',
    "varint is longer than 10 bytes": b"\x80" * 10,
    "varint exceeds 64 bits": b"\xff" * 9 + b"\x02",
    "negative number: -1": b"\x01\x00" + b"\xff" * 9 + b"\x01",
    "announces 16777217 bytes, the limit is 16777216": b"\x01\x00\x81\x80\x80\x08",
}
"""What the log says, and what was sent."""


def test_bad_bytes_end_their_connection_with_a_reason_and_no_other(
    tmp_path: Path,
) -> None:
    async def main() -> None:
        async with (
            serving(tmp_path, SOURCE) as server,
            client_of(server) as bystander,
            asyncio.TaskGroup() as group,
        ):
            order = group.create_task(bystander.send(Order("o-1", stamped=True)))
            for reason, sent in BAD.items():
                peer = await _send_raw(server, sent)
                (line,) = [at for at in server.log.splitlines() if peer in at]
                assert f"hung up on {peer}: " in line
                assert reason in line
                assert await bystander.send(Greet("you")) == "hello you"
            (tmp_path / "go").touch()
            assert await order == Receipt("o-1", "paid-o-1")
            assert await server.stop() == 0

    asyncio.run(main())


def test_a_command_in_front_of_bad_bytes_runs_on_without_its_client(
    tmp_path: Path,
) -> None:
    good = b'\x01\x00\x1d{"id":"o-1","stamped":true  }'

    async def main() -> None:
        async with serving(tmp_path, SOURCE) as server:
            await _send_raw(server, good + b"\x02\x09\x02{}")
            (workflow,) = await listed(tmp_path)
            assert workflow["key"] == "o-1"
            (tmp_path / "go").touch()
            assert await ask(server, Order("o-1")) == Receipt("o-1", "paid-o-1")
            assert await server.stop() == 0

    asyncio.run(main())
    assert charges(tmp_path) == {"o-1": 1}


def test_a_frame_over_the_limit_is_refused_before_it_takes_memory(
    tmp_path: Path,
) -> None:
    """A thousand million bytes are announced, and as many sent as are taken."""
    announced = b"\x01\x00\x80\x94\xeb\xdc\x03"  # 10^9

    async def main() -> None:
        async with serving(tmp_path, SOURCE) as server:
            await ask(server, Greet("warm up"))
            before = _peak_kib(server)
            for _ in range(20):
                peer = await _send_raw(server, announced, then=bytes(8 * MIB))
                assert (
                    f"hung up on {peer}: command Order announces 1000000000 bytes"
                    in (server.log)
                )
            assert _peak_kib(server) - before < 4 * 1024
            assert await server.stop() == 0

    asyncio.run(main())


def test_what_is_announced_and_does_not_come_takes_no_memory(tmp_path: Path) -> None:
    """100 clients announce 16 MiB each, which is allowed, and send ten bytes of it."""

    async def main() -> None:
        async with serving(tmp_path, SOURCE) as server:
            await ask(server, Greet("warm up"))
            before = _peak_kib(server)
            frames = b"\x01\x00\x80\x80\x80\x08" + bytes(10)
            peers = [socket.create_connection(server.address) for _ in range(100)]
            for peer in peers:
                peer.sendall(frames)
            await ask(server, Greet("behind all of these"))
            assert _peak_kib(server) - before < 16 * 1024
            for peer in peers:
                assert peer.recv(len(GREETING)) == GREETING  # else its end is a reset
                peer.close()
            torn = "connection closed inside a frame, after 16 bytes of it"
            await eventually(lambda: server.log.count(torn) == len(peers))
            assert await server.stop() == 0

    asyncio.run(main())


def test_a_command_whose_own_code_fails_on_arrival_is_told_and_the_connection_lives(
    tmp_path: Path,
) -> None:
    broken = changed(("return self.id\n", "return self.id + self.missing\n"))

    async def main() -> None:
        async with serving(tmp_path, broken) as server, client_of(server) as client:
            answer = await client.send(Order("o-1"))
            assert isinstance(answer, OrderFailed)
            assert answer.status == "refused"
            assert "Order.key() failed" in answer.reason
            assert "no attribute 'missing'" in answer.reason
            assert await client.send(Greet("you")) == "hello you"
            assert await server.stop() == 0

    asyncio.run(main())


def test_a_result_that_can_not_be_sent_is_told_and_the_connection_lives(
    tmp_path: Path,
) -> None:
    large = changed(("Receipt(self.id, paid)", 'Receipt(self.id, "x" * 17_000_000)'))

    async def main() -> None:
        async with serving(tmp_path, large) as server:
            answer = await ask(server, Order("o-1"))
            assert isinstance(answer, OrderFailed)
            assert answer.status == "completed"
            assert "the limit is 16777216" in answer.reason
            assert (
                answer.workflow in (await cli(tmp_path, "show", answer.workflow)).stdout
            )
            assert await server.stop() == 0

    asyncio.run(main())


def test_an_old_result_that_no_longer_fits_is_told_and_the_connection_lives(
    tmp_path: Path,
) -> None:
    grown = changed(("    paid: str\n", "    paid: int\n"))

    async def main() -> None:
        async with serving(tmp_path, SOURCE) as server:
            assert await ask(server, Order("o-1")) == Receipt("o-1", "paid-o-1")
            assert await server.stop() == 0
        async with serving(tmp_path, grown) as server:
            answer = await ask(server, Order("o-1"))
            assert isinstance(answer, OrderFailed)
            assert answer.status == "completed"
            assert "does not fit Receipt: Expected `int`, got `str`" in answer.reason
            assert await server.stop() == 0
        assert charges(tmp_path) == {"o-1": 1}

    asyncio.run(main())


async def _send_raw(server: Server, data: bytes, then: bytes = b"") -> str:
    """Send *data*, and *then* as much as is taken; wait until we are hung up on.

    Returns:
        Our own address, as the server's log names it.
    """
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(*server.address)
        host, port = writer.get_extra_info("sockname")
        try:
            assert await reader.readexactly(len(GREETING)) == GREETING
            writer.write(data)
            await writer.drain()
            writer.write(then)
            assert await reader.read() == b""
        except ConnectionError:
            pass  # What it had not read when it hung up makes a reset of the close.
        finally:
            writer.transport.abort()
    return f"{host}:{port}"


def _peak_kib(server: Server) -> int:
    """Return the most memory that *server* ever had."""
    status = Path(f"/proc/{server.pid}/status").read_text()
    (line,) = [line for line in status.splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1])
