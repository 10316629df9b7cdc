"""What a connection tells its owner: one frozen value for each thing that arrived."""

from typing import TypeAlias

import msgspec

__all__ = [
    "ClientEvent",
    "CommandReceived",
    "PingReceived",
    "PongReceived",
    "ResultReceived",
    "ServerEvent",
    "ServerInfoReceived",
]


class CommandReceived(msgspec.Struct, frozen=True):
    """A whole command frame arrived at the server."""

    seq: int
    """The client's number for it, from 1; need be neither unique nor in order."""
    tag: int
    """The number of its type in the registry."""
    command: object
    """The decoded command."""
    body: bytes
    """The codec's bytes behind the tag and length, exactly as received."""
    size: int
    """Bytes of the whole frame."""


class PingReceived(msgspec.Struct, frozen=True):
    """The client asks whether we are there; `ServerConnection.send_pong` answers."""


class ServerInfoReceived(msgspec.Struct, frozen=True):
    """The server's greeting arrived and is the one we expect: commands may be sent."""

    info: bytes


# Made for each result and let go at once, so never part of a cycle.
class ResultReceived(msgspec.Struct, frozen=True, gc=False):
    """A whole result frame arrived at the client."""

    seq: int
    """The number of the command it answers."""
    result: object
    """The decoded result."""
    is_last: bool
    """True if no more results follow for this seq, by the rule of the result's type."""
    size: int
    """Bytes of the whole frame."""


class PongReceived(msgspec.Struct, frozen=True):
    """The server answered a ping. Pongs carry no number: they come in order."""


ServerEvent: TypeAlias = CommandReceived | PingReceived
ClientEvent: TypeAlias = ServerInfoReceived | ResultReceived | PongReceived
