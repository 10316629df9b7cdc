"""2,000 generated values over the border, each way, with every codec.

A value counts as understood if it comes back equal, and if what the other side's own
JSON said of it is equal, too: two mistakes that undo one another are not a match.
"""

import asyncio
from random import Random
from typing import Any

import pytest
from tests.cmdstream.helpers import run
from tests.interop.peers import go_client, go_server
from tests.interop.test_calls import each_wire, our_client, serving
from tests.interop.values import EMPTY, everything
from tests.interop.wires import Plain, Wire

COUNT = 2_000


@pytest.fixture(name="values", scope="module")
def make_values() -> list[Plain]:
    """The same everywhere."""
    return [everything(Random(number)) for number in range(COUNT)]


@each_wire
def test_go_understands_every_value_that_we_send(
    peer: str, wire: Wire, values: list[Plain]
) -> None:
    async def main() -> None:
        async with (
            go_server(peer, wire.name) as server,
            our_client(wire, server.port) as client,
        ):

            async def compare(value: Plain) -> None:
                command = wire.make(*wire.mirror(value))
                result: Any = await client.send(command)
                assert result.value == command.value
                assert wire.seen(result) == command.value

            async with asyncio.TaskGroup() as group:
                for value in values:
                    group.create_task(compare(value))

    run(main())


@each_wire
def test_we_understand_every_value_that_go_sends(
    peer: str, wire: Wire, values: list[Plain]
) -> None:
    async def main() -> None:
        async with serving(wire) as server:
            _, port = await server.listen("127.0.0.1", 0)
            async with go_client(peer, wire.name, port) as client:

                async def compare(value: Plain) -> None:
                    (mirrored,) = await client.send(*wire.mirror(value))
                    result = wire.make("MirrorResult", mirrored)
                    sent = wire.make(*wire.mirror(value)).value
                    assert result.value == sent
                    assert wire.seen(result) == sent

                async with asyncio.TaskGroup() as group:
                    for value in values:
                        group.create_task(compare(value))

    run(main())


@each_wire
def test_a_nil_of_go_is_empty_here(peer: str, wire: Wire) -> None:
    async def main() -> None:
        name, command = wire.mirror(EMPTY)
        nils = dict.fromkeys(("data", "numbers", "counts", "path"))
        with_nils = {"value": {**command["value"], **nils}}
        sent = wire.make(name, command).value
        async with serving(wire) as server:
            _, port = await server.listen("127.0.0.1", 0)
            async with go_client(peer, wire.name, port) as client:
                (mirrored,) = await client.send(name, with_nils)
                result = wire.make("MirrorResult", mirrored)
                assert (result.value, wire.seen(result)) == (sent, sent)

    run(main())
