"""grpc.aio: a unary call of bytes, without a message type, which only would cost."""

import importlib.metadata
import itertools
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

from bench.echo import Echo
from bench.peers import LeftOutError

ADDED = 0
_METHOD = "/bench.Echo/Echo"


def version() -> str:
    """Return which grpcio is measured.

    Raises:
        LeftOutError: There is none.
    """
    try:
        return importlib.metadata.version("grpcio")
    except importlib.metadata.PackageNotFoundError:
        raise LeftOutError("grpcio is not installed") from None


async def serve() -> None:
    """Send back what comes in."""
    import grpc  # noqa: PLC0415 -- only its own process has it

    async def answer(request: bytes, _context: Any) -> bytes:
        return request

    # Without a cast the type of what it holds is not known, and is none of ours.
    handler = cast("Any", grpc.unary_unary_rpc_method_handler(answer))
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("bench.Echo", {"Echo": handler}),)
    )
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    await server.start()
    try:
        await server.wait_for_termination()
    finally:
        await server.stop(None)


@asynccontextmanager
async def calling(port: int, connections: int) -> AsyncGenerator[Echo]:
    """Call it over *connections*, in turn: channels that share none."""
    import grpc  # noqa: PLC0415 -- see above

    alone = [("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as stack:
        methods: list[Any] = []
        for _ in range(connections):
            channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=alone)
            await stack.enter_async_context(channel)
            methods.append(channel.unary_unary(_METHOD))
        turns = itertools.cycle(methods)

        async def echo(text: str) -> str:
            answer: bytes = await next(turns)(text.encode())
            return answer.decode()

        yield echo
