"""A server of the run: ``python -m tests.stress.server PORT FILE [--failure]``.

Comes down on SIGTERM, in an orderly way; dies of SIGKILL. What it says of itself when
it ended in order is one line of JSON.
"""

import argparse
import asyncio
import gc
import logging
import signal
import sys
from pathlib import Path

import msgspec
from tests.stress.messages import (
    CODEC,
    Echo,
    EchoResult,
    Fail,
    Failed,
    Notes,
    Stream,
    result_of,
)

from cmdstream import LinkOptions, Reply, Server, ServerOptions, TaskHandler

__all__ = ["OPTIONS", "Farewell"]

OPTIONS = ServerOptions(
    connections_max=64,
    in_flight_max=1024,
    in_flight_per_connection_max=256,
    first_frame_timeout_s=10.0,
    idle_timeout_s=10.0,
    link=LinkOptions(
        unsent_size_max=8 * 1024 * 1024, write_stall_timeout_s=5.0, close_timeout_s=2.0
    ),
)
"""Short, so that the run gets to see each."""

_DRAIN_S = 1.0


class Farewell(msgspec.Struct, frozen=True):
    """What a server says at its end."""

    drained: bool
    connections: int
    in_flight: int
    tasks: int


class Commands:
    """What the commands do."""

    def __init__(self, notes: Notes) -> None:
        self._notes = notes

    async def handle(self, command: Echo | Stream | Fail, reply: Reply) -> None:
        self._notes.begun(command.id)
        match command:
            case Echo():
                await asyncio.sleep(command.delay_ms / 1000)
                reply.send_nowait(EchoResult(command.id, command.text))
            case Stream():
                for number in range(command.count):
                    await asyncio.sleep(command.delay_ms / 1000 / command.count)
                    if reply.closed:  # nobody reads the rest, and it may be endless
                        reply.finish()
                        return
                    await reply.send(result_of(command, number))
            case Fail():
                reply.fail(f"{command.id:x}")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("notes", type=Path)
    parser.add_argument("--failure", action="store_true", help="has a failure result")
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    commands = Commands(Notes(options.notes))
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Server(
        CODEC,
        TaskHandler(commands.handle),
        options=OPTIONS,
        failure=Failed if options.failure else None,
    ) as server:
        await server.listen("127.0.0.1", options.port)
        print("ready", flush=True)
        await stop.wait()
        drained = await server.shutdown(_DRAIN_S)
        gc.collect()  # a task that failed and was not looked at complains now
        farewell = Farewell(
            drained, server.connections, server.in_flight, len(asyncio.all_tasks()) - 1
        )
    sys.stdout.buffer.write(msgspec.json.encode(farewell) + b"\n")


if __name__ == "__main__":
    asyncio.run(main())
