"""What can go wrong on a cmd-stream connection, by what the caller can do about it.

    CmdStreamError
    |-- ProtocolError                the bytes, or their meaning, break the protocol
    |   |-- LocalProtocolError       we asked for it: a bug in this program
    |   |   |-- RegistryError        a type cannot be registered; raised at start-up
    |   |   `-- EncodeError          a value cannot be sent; nothing of it was written
    |   `-- RemoteProtocolError      the peer did it: log it and drop the peer
    |       |-- DecodeError          a frame arrived whole and means nothing to us
    |       `-- ServerInfoMismatchError  it serves another application; do not retry
    |-- ConnectionClosedError        the connection is gone; see `may_have_run`
    |   `-- ConnectError             it never came to be; nothing was sent
    |-- SendTimeoutError             no answer in time; a TimeoutError, too
    |-- CircuitOpenError             a circuit breaker did not let it pass
    |-- ResultsOverflowError         we read one command's results too slowly
    `-- TlsConfigError               a certificate or key cannot be used; at start-up

An exception raised by a command is none of these: the protocol has no error result, so
the server closes the connection and logs the reason, and the client sees a
`ConnectionClosedError`.
"""

__all__ = [
    "CircuitOpenError",
    "CmdStreamError",
    "ConnectError",
    "ConnectionClosedError",
    "DecodeError",
    "EncodeError",
    "LocalProtocolError",
    "ProtocolError",
    "RegistryError",
    "RemoteProtocolError",
    "ResultsOverflowError",
    "SendTimeoutError",
    "ServerInfoMismatchError",
    "TlsConfigError",
]


class CmdStreamError(Exception):
    """Base of every exception this package raises on purpose."""


class ProtocolError(CmdStreamError):
    """The bytes, or what they say, break the wire protocol."""


class LocalProtocolError(ProtocolError):
    """We tried something the protocol forbids: a bug in this program."""


class RegistryError(LocalProtocolError):
    """A type cannot be a command or a result. Raised while the program starts."""


class EncodeError(LocalProtocolError):
    """A value cannot be sent: its type is not registered, or a field has no encoding.

    The connection is untouched: frames are encoded whole before a byte is written.
    """


class RemoteProtocolError(ProtocolError):
    """The peer sent something the protocol forbids. Close the connection.

    Attributes:
        seq: The number of the command whose result it is that can't be read: that
            command did run. None if it is not inside of a result.
    """

    seq: int | None = None


class DecodeError(RemoteProtocolError):
    """A frame arrived, but its tag is unknown or its body does not fit the type."""


class ServerInfoMismatchError(RemoteProtocolError):
    """The server announces another ServerInfo: another application, or schema version.

    Connecting again cannot help, so a reconnecting client has to stop here.

    Attributes:
        expected: What this client was configured with.
        received: What the server announced.
    """

    def __init__(self, expected: bytes, received: bytes) -> None:
        super().__init__(
            f"server info mismatch: expected {expected!r}, the server has {received!r}"
        )
        self.expected = expected
        self.received = received


class ConnectionClosedError(CmdStreamError):
    """The connection is gone.

    A command that was under way may have run, or not, or half: the protocol does not
    tell. Only an idempotent command may be sent again blindly.

    Attributes:
        may_have_run: False if nothing of the command was handed to a connection, so
            that sending it again is always safe.
    """

    def __init__(self, message: str, *, may_have_run: bool = True) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run


class ConnectError(ConnectionClosedError):
    """The connection could not be made, or the server did not greet.

    Nothing was sent, so trying again later is always safe.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, may_have_run=False)


class SendTimeoutError(CmdStreamError, TimeoutError):
    """The time of one send is over. The connection, and other sends, are untouched.

    The command is forgotten here. If it was sent it runs on there, and its results go
    to the client's `on_unexpected`.

    Attributes:
        may_have_run: False if the time was over before the command was sent, since
            there was no connection, or no room on it.
    """

    def __init__(self, message: str, *, may_have_run: bool) -> None:
        super().__init__(message)
        self.may_have_run = may_have_run


class CircuitOpenError(CmdStreamError):
    """A circuit breaker did not let a command pass. Nothing was sent.

    Attributes:
        retry_after_s: Seconds until it lets some pass again; 0 if it does by now, but
            has as many on the way as it likes.
    """

    def __init__(self, message: str, *, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ResultsOverflowError(CmdStreamError):
    """More results of one command arrived than its reader took in time.

    The command is forgotten; what was queued has been handed out before this is raised.
    """


class TlsConfigError(CmdStreamError):
    """A certificate, a key or a list of authorities cannot be used.

    Raised where the files are read, and names the one to look at.
    """
