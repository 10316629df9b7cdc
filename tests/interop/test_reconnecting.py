"""Our clients while Go servers are killed, started again, and frozen."""

import asyncio
import signal

import pytest
from tests.cmdstream.helpers import (
    AddCmd,
    CalcResult,
    SleepCmd,
    let_time_pass,
    run,
    until,
)
from tests.interop.peers import go_server
from tests.interop.wires import WIRES

from cmdstream import (
    Client,
    ClientOptions,
    ConnectionClosedError,
    Group,
    KeepaliveOptions,
    ReconnectOptions,
)

JSON = WIRES[0]
NEVER = SleepCmd(3_600_000, "never")
COMING_BACK = ClientOptions(reconnect=ReconnectOptions(first_s=0.01, longest_s=0.05))
ASKING = 4
ANSWERS = 100
LIVES = 4


def test_a_go_server_is_found_again_and_no_command_ends_in_silence(peer: str) -> None:
    """W-A2, W-A4: each is answered, or its sender is told that nobody knows."""
    answered = 0

    async def ask_on(client: Client) -> None:
        nonlocal answered
        while not client.closed:
            try:
                assert await client.send(AddCmd(2, 3)) == CalcResult(5)
                answered += 1
            except ConnectionClosedError:
                pass

    async def answers_come() -> None:
        target = answered + ANSWERS
        await until(lambda: answered >= target)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            async with go_server(peer, "json") as first:
                port = first.port
                client = await Client.connect(
                    "127.0.0.1", port, JSON.codec, options=COMING_BACK
                )
                for _ in range(ASKING):
                    group.create_task(ask_on(client))
                under_way = group.create_task(_fails(client, NEVER))
                await answers_come()
            assert (await under_way).may_have_run
            for life in range(1, LIVES):
                await until(lambda: not client.connected)
                while_it_is_away = group.create_task(client.send(AddCmd(1, life)))
                async with go_server(peer, "json", "-listen", f"127.0.0.1:{port}"):
                    assert await while_it_is_away == CalcResult(1 + life)
                    await answers_come()
            await client.aclose()

    run(main())


def test_a_group_asks_the_go_server_that_is_up(peer: str) -> None:
    """W-D3: in Go, one that is down goes on getting its share."""

    async def ask_ten_times(group: Group) -> None:
        for number in range(10):
            assert await group.send(AddCmd(1, number)) == CalcResult(1 + number)

    async def main() -> None:
        async with (
            go_server(peer, "json") as stays,
            go_server(peer, "json") as leaves,
            await Group.connect(
                [("127.0.0.1", stays.port), ("127.0.0.1", leaves.port)],
                JSON.codec,
                options=COMING_BACK,
            ) as group,
        ):
            _, member = group.members
            await ask_ten_times(group)
            leaves.kill()
            await until(lambda: not member.connected)
            await ask_ten_times(group)
            where = f"127.0.0.1:{leaves.port}"
            async with go_server(peer, "json", "-listen", where):
                await until(lambda: member.connected)
                await ask_ten_times(group)

    run(main())


def test_a_go_server_that_is_frozen_is_noticed_by_the_lack_of_its_pong(
    peer: str,
) -> None:
    """W-C7: in Go, nobody looks for it."""
    keepalive = KeepaliveOptions(idle_s=0.01, interval_s=0.01, pong_timeout_s=10.0)
    options = ClientOptions(keepalive=keepalive)

    async def main() -> None:
        async with (
            go_server(peer, "json") as server,
            await Client.connect(
                "127.0.0.1", server.port, JSON.codec, options=options
            ) as client,
            asyncio.TaskGroup() as group,
        ):

            def is_closed_later() -> bool:
                let_time_pass(11.0)
                return client.closed

            await client.ping()
            server.process.send_signal(signal.SIGSTOP)
            under_way = group.create_task(_fails(client, NEVER))
            await until(lambda: client.pending == 1)
            await until(is_closed_later)
            assert (await under_way).may_have_run
            assert "no sign of life for 10.0 s" in str(await client.wait_closed())

    run(main())


async def _fails(client: Client, command: object) -> ConnectionClosedError:
    """Return what sending *command* fails with."""
    with pytest.raises(ConnectionClosedError) as caught:
        await client.send(command)
    return caught.value
