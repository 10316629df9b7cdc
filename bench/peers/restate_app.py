"""A Restate service of three durable steps: ``python -m bench.peers.restate_app 9080``.

Served by Hypercorn, as Restate's documentation has it. Typed loosely, so that it is
checked without Restate, too: it is in the extra ``bench``.
"""

import asyncio
import importlib
import signal
import sys
from typing import Any

restate: Any = importlib.import_module("restate")


async def do(number: int) -> int:
    """Do nothing, at once."""
    return number


async def hang(number: int) -> int:
    """Wait until the process is another one, which is told to be open."""
    if "open" not in sys.argv:
        print("asked", flush=True)
        await asyncio.Event().wait()
    return number


async def three_steps(ctx: Any, number: int) -> int:
    """Three steps in a row."""
    held = await ctx.run_typed("inventory.do", do, number=number)
    paid = await ctx.run_typed("payments.do", do, number=held)
    sent: int = await ctx.run_typed("shipping.do", do, number=paid)
    return sent


async def hangs(ctx: Any, number: int) -> int:
    """Three steps; the second is under way while the gate is shut."""
    held = await ctx.run_typed("inventory.do", do, number=number)
    paid = await ctx.run_typed("gate.hang", hang, number=held)
    sent: int = await ctx.run_typed("shipping.do", do, number=paid)
    return sent


async def main() -> None:
    """Serve until SIGTERM."""
    for handler in (three_steps, hangs):
        handler.__annotations__["ctx"] = restate.Context
    service: Any = restate.Service("Bench")
    service.handler("three_steps")(three_steps)
    service.handler("hangs")(hangs)
    config: Any = importlib.import_module("hypercorn.config").Config()
    config.bind = [f"127.0.0.1:{sys.argv[1]}"]
    serve: Any = importlib.import_module("hypercorn.asyncio").serve
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await serve(restate.app([service]), config, shutdown_trigger=stop.wait)


if __name__ == "__main__":
    asyncio.run(main())
