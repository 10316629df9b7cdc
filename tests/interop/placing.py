"""The Go client of docs/interop.md at work, and what its orders have led to."""

import asyncio
from contextlib import suppress
from pathlib import Path

from tests.processes import TIMEOUT_S

__all__ = ["ledger", "place"]


async def place(
    orders: str, port: int, *ids: str, flags: tuple[str, ...] = ()
) -> dict[str, str]:
    """Run the client to its end; return what it says of each order."""
    process = await asyncio.create_subprocess_exec(
        *(orders, "-connect", f"127.0.0.1:{port}", *flags, *ids),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            told, _ = await process.communicate()
    finally:
        with suppress(ProcessLookupError):
            process.kill()
    assert process.returncode == 0
    told_of = (line.partition(" ") for line in told.decode().splitlines())
    return {order: answer for order, _, answer in told_of}


def ledger(folder: Path, what: str) -> dict[str, set[str]]:
    """Return the idempotency keys under which each order had *what* done to it."""
    path = folder / "ledger.txt"
    done: dict[str, set[str]] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        word, order, key = line.split()
        if word == what:
            done.setdefault(order, set()).add(key)
    return done
