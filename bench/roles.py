"""What a process of a benchmark does: ``python -m bench.roles server file:/tmp/x``."""

import asyncio
import sys
from pathlib import Path

import msgspec

from bench.bare import run_bare
from bench.load import Load, Measured, closed_loop, drive
from bench.open_loop import OpenLoad, offer
from bench.sagas import CODEC, Done, ThreeSteps, make, run_server
from cmdstream import CommandReceived, Reply, Server


async def run_echo() -> None:
    """Serve `ThreeSteps` without doing anything, on any port, which is printed."""

    def answer(received: CommandReceived, reply: Reply) -> None:
        assert isinstance(received.command, ThreeSteps)
        reply.send_nowait(Done(received.command.number))

    async with Server(CODEC, answer) as server:
        _, port = await server.listen("127.0.0.1", 0)
        print(port, flush=True)
        await server.wait_closed()


async def run_within(journal: str, in_flight: int, seconds: float) -> Measured:
    """Measure a coordinator in the process of its callers."""
    async with make(journal) as coordinator:

        async def send(number: int) -> None:
            done = await coordinator.execute(ThreeSteps(number))
            assert done.number == number

        return await closed_loop(send, in_flight, seconds)


async def run_role(role: str, arguments: list[str]) -> object:
    """Play *role*, and return what it measured.

    Raises:
        ValueError: There is no such role, or its arguments are others.
    """
    match role, arguments:
        case "bare", [folder]:
            await run_bare(Path(folder))
        case "echo", []:
            await run_echo()
        case "server", [journal]:
            await run_server(journal)
        case (("shut" | "open"), [journal, commands_max]):
            await run_server(
                journal, is_open=role == "open", commands_max=int(commands_max)
            )
        case "within", [journal, in_flight, seconds]:
            return await run_within(journal, int(in_flight), float(seconds))
        case "client", [load]:
            return await drive(msgspec.json.decode(load, type=Load))
        case "open-client", [load]:
            await offer(msgspec.json.decode(load, type=OpenLoad))
        case "restate-client", [load]:
            from bench.peers.restate_client import drive_restate  # noqa: PLC0415

            return await drive_restate(msgspec.json.decode(load, type=Load))
        case _:
            raise ValueError(f"no such role: {role} {arguments}")
    return None


def main() -> None:
    """Play a role, and print what it measured."""
    result = asyncio.run(run_role(sys.argv[1], sys.argv[2:]))
    if result is not None:
        sys.stdout.buffer.write(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
