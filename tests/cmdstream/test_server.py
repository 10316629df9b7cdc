"""The server over real sockets."""

from tests.cmdstream.helpers import (
    AddCmd,
    CalcResult,
    EchoCmd,
    EchoResult,
    RangeCmd,
    StreamResult,
    answer_later,
    connect,
    run,
    serving,
)

from cmdstream import TaskHandler


def test_commands_of_every_shape_are_answered() -> None:
    async def main() -> None:
        async with (
            serving(TaskHandler(answer_later)) as (_, port),
            await connect(port) as client,
        ):
            assert await client.send(AddCmd(2, 3)) == CalcResult(5)
            assert await client.send(EchoCmd("hello")) == EchoResult("hello")
            assert [part async for part in client.stream(RangeCmd(10, 2))] == [
                StreamResult(10, last=False),
                StreamResult(11, last=True),
            ]
            await client.ping()

    run(main())
