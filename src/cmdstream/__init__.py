"""The cmd-stream wire protocol: commands one way, results the other, many at a time.

`cmdstream.protocol` is the protocol without I/O, `Client` and `Server` are asyncio
around it. Both speak with every cmd-stream-go from v0.4.0 on; ``docs/wire-format.md``
has the bytes.
"""

from cmdstream.calling import ClientOptions
from cmdstream.client import Client, ResultStream
from cmdstream.codec import Codec, Registry, ResultType
from cmdstream.codecs.json import JsonCodec
from cmdstream.codecs.mus import MusCodec
from cmdstream.errors import (
    CmdStreamError,
    ConnectError,
    ConnectionClosedError,
    DecodeError,
    EncodeError,
    LocalProtocolError,
    ProtocolError,
    RegistryError,
    RemoteProtocolError,
    ResultsOverflowError,
    ServerInfoMismatchError,
)
from cmdstream.messages import CommandReceived, ResultReceived
from cmdstream.server import Gate, Server
from cmdstream.serving import Handler, Reply, ServerOptions
from cmdstream.tasks import CommandHandler, TaskHandler
from cmdstream.transport import LinkOptions

__all__ = [
    "Client",
    "ClientOptions",
    "CmdStreamError",
    "Codec",
    "CommandHandler",
    "CommandReceived",
    "ConnectError",
    "ConnectionClosedError",
    "DecodeError",
    "EncodeError",
    "Gate",
    "Handler",
    "JsonCodec",
    "LinkOptions",
    "LocalProtocolError",
    "MusCodec",
    "ProtocolError",
    "Registry",
    "RegistryError",
    "RemoteProtocolError",
    "Reply",
    "ResultReceived",
    "ResultStream",
    "ResultType",
    "ResultsOverflowError",
    "Server",
    "ServerInfoMismatchError",
    "ServerOptions",
    "TaskHandler",
]
