"""The cmd-stream wire protocol: commands one way, results the other, many at a time.

`cmdstream.protocol` is the protocol without I/O, `Client` and `Server` are asyncio
around it. Both speak with every cmd-stream-go from v0.4.0 on; ``docs/wire-format.md``
has the bytes.
"""

from cmdstream.backoff import ReconnectOptions
from cmdstream.breaker import BreakerOptions, BreakerSnapshot
from cmdstream.circuit import Circuit
from cmdstream.client import Client
from cmdstream.codec import Codec, Registry, ResultType
from cmdstream.codecs.json import JsonCodec
from cmdstream.codecs.mus import MusCodec
from cmdstream.connecting import Address, ClientOptions
from cmdstream.errors import (
    CircuitOpenError,
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
    SendTimeoutError,
    ServerInfoMismatchError,
    TlsConfigError,
)
from cmdstream.group import Group, LeastPending, RoundRobin, Strategy
from cmdstream.hooks import CommandSent, Hook, HookFactory
from cmdstream.keepalive import KeepaliveOptions
from cmdstream.messages import CommandReceived, ResultReceived
from cmdstream.middleware import Middleware, ReplyWatcher, WatchedReply
from cmdstream.sending import ResultStream
from cmdstream.server import ClientWatcher, Gate, Server
from cmdstream.serving import Failure, Handler, Reply, ServerOptions
from cmdstream.tasks import CommandHandler, TaskHandler
from cmdstream.tls import ServerTls, client_tls
from cmdstream.transport import LinkOptions

__all__ = [
    "Address",
    "BreakerOptions",
    "BreakerSnapshot",
    "Circuit",
    "CircuitOpenError",
    "Client",
    "ClientOptions",
    "ClientWatcher",
    "CmdStreamError",
    "Codec",
    "CommandHandler",
    "CommandReceived",
    "CommandSent",
    "ConnectError",
    "ConnectionClosedError",
    "DecodeError",
    "EncodeError",
    "Failure",
    "Gate",
    "Group",
    "Handler",
    "Hook",
    "HookFactory",
    "JsonCodec",
    "KeepaliveOptions",
    "LeastPending",
    "LinkOptions",
    "LocalProtocolError",
    "Middleware",
    "MusCodec",
    "ProtocolError",
    "ReconnectOptions",
    "Registry",
    "RegistryError",
    "RemoteProtocolError",
    "Reply",
    "ReplyWatcher",
    "ResultReceived",
    "ResultStream",
    "ResultType",
    "ResultsOverflowError",
    "RoundRobin",
    "SendTimeoutError",
    "Server",
    "ServerInfoMismatchError",
    "ServerOptions",
    "ServerTls",
    "Strategy",
    "TaskHandler",
    "TlsConfigError",
    "WatchedReply",
    "client_tls",
]
