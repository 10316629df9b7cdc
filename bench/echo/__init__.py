"""An echo of 64 bytes by everything that is compared: what a round trip costs.

Each peer is a module with two functions:

    async def serve() -> None               prints its port, serves until cancelled
    def calling(port, connections)          is entered: ``async def echo(text)``

Client and server are processes of their own, in the arrangement that is the peer's own,
with its defaults. The body is 64 bytes long: the text, and what the format adds.
"""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import msgspec

__all__ = ["BODY_SIZE", "Echo", "EchoLoad", "text_of"]

BODY_SIZE = 64

Echo: TypeAlias = Callable[[str], Awaitable[str]]


class EchoLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What to send."""

    peer: str
    port: int
    in_flight: int
    connections: int
    seconds: float = 0.0
    calls: int | None = None
    """Instead of the seconds: so many calls, and nothing is measured."""


def text_of(number: int, added: int) -> str:
    """Return the text of call *number*, shorter by what the format adds."""
    return f"{number:0{BODY_SIZE - added}d}"
