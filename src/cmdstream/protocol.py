"""Both ends of a cmd-stream connection, without any I/O.

    server                             client
    ServerInfo := size, bytes   ---->  compares it with its own, answers nothing
    00                          <----  ping
    00                          ---->  pong
    seq, codec bytes            <----  command; seq from 1, counted by the client
    seq, codec bytes            ---->  result; 0..n of them, with the seq of the command

Bytes that arrived go in through `receive_data`; `next_event` then gives one event per
call, or None when what is left is not a whole frame. The owner may stop asking at any
moment, to hold a peer back, and go on later. What is to be sent comes back as bytes, a
whole frame or nothing: a value that cannot be encoded leaves no trace on the stream.

There is no outer length around a frame. So after any error the place where the next one
begins is unknown: the connection is dead, and every later call raises the same error.

Kept between calls: the bytes that are not yet a whole frame, never more than were
received, each copied once, and how far the codec got in them (`_Inbox`). Differences
from Go, both on purpose: a negative seq is refused rather than echoed, and so is an
empty ServerInfo.
"""

from collections.abc import Callable
from typing import TypeAlias

from cmdstream.codec import Codec, Decoded, Unfinished
from cmdstream.errors import (
    LocalProtocolError,
    RemoteProtocolError,
    ServerInfoMismatchError,
)
from cmdstream.messages import (
    ClientEvent,
    CommandReceived,
    PingReceived,
    PongReceived,
    ResultReceived,
    ServerEvent,
    ServerInfoReceived,
)
from cmdstream.wire import Buffer, read_size, write_size

__all__ = [
    "INFO_SIZE_MAX",
    "SERVER_INFO_DEFAULT",
    "ClientConnection",
    "ServerConnection",
]

INFO_SIZE_MAX = 1024  # bytes of ServerInfo; what Go's client accepts
SERVER_INFO_DEFAULT = b"default"

_PING = b"\x00"  # and the pong: seq 0, and nothing behind it
_PING_RECEIVED = PingReceived()
_PONG_RECEIVED = PongReceived()


Decode: TypeAlias = Callable[[Buffer, int], Decoded | Unfinished | int]


class _Inbox:
    """Received bytes that are not yet consumed, and how far they must reach."""

    def __init__(self, decode: Decode) -> None:
        self.data: Buffer = b""
        self.size = 0  # bytes of data
        self.offset = 0  # everything before it is consumed
        self.reach = 0  # size that data must have before another look is worth it
        self.decode = (
            decode  # or what goes on with a body whose end has to be looked for
        )
        self._decode_anew = decode
        self._error: RemoteProtocolError | None = None

    def check(self) -> None:
        if self._error is not None:
            raise self._error

    def add(self, data: bytes) -> None:
        self.check()
        if self.offset == self.size:
            self.data = data  # the usual case: whole frames, and nothing is copied
        else:
            # A bytearray grows in place and forgets its front for free, so a body that
            # comes in a thousand segments is copied once, not a thousand times.
            if isinstance(self.data, bytes):
                self.data = bytearray(self.data[self.offset :])
            else:
                del self.data[: self.offset]
            self.data += data
            self.reach -= self.offset
        self.size, self.offset = len(self.data), 0

    def consume(self, end: int) -> None:
        self.offset = end
        if self.reach:
            self.reach, self.decode = 0, self._decode_anew

    def wait_for(self, end: int | Unfinished) -> None:
        if isinstance(end, Unfinished):
            self.decode, end = end.resume, end.needed
        self.reach = end

    def wait_for_more(self) -> None:
        self.reach = self.size + 1

    def fail(self, error: RemoteProtocolError) -> None:
        self._error = error
        self.data, self.size, self.offset = b"", 0, 0
        self.decode = self._decode_anew

    def end(self) -> None:
        self.check()
        if kept := self.size - self.offset:
            self.fail(
                RemoteProtocolError(
                    f"connection closed inside a frame, after {kept} bytes of it"
                )
            )
            self.end()


class ServerConnection:
    """The server's end of one connection."""

    def __init__(
        self, codec: Codec, *, server_info: bytes = SERVER_INFO_DEFAULT
    ) -> None:
        """Start a connection on which nothing was sent yet.

        Args:
            codec: Shared by as many connections as you like.
            server_info: 1 to 1,024 bytes that the client compares with its own. The
                only compatibility check there is; put your schema's version into it.

        Raises:
            LocalProtocolError: *server_info* is empty or too long.
        """
        _check_server_info(server_info)
        self._encode = codec.encode_result
        self._greeting = write_size(len(server_info)) + server_info
        self._inbox = _Inbox(codec.decode_command)

    @property
    def is_between_frames(self) -> bool:
        """True if all that arrived has been given out: the next byte begins a frame."""
        return self._inbox.offset == self._inbox.size

    def greeting(self) -> bytes:
        """Give what the server has to send before anything else."""
        return self._greeting

    def receive_data(self, data: bytes) -> None:
        """Take in what arrived; then ask `next_event`.

        Raises:
            RemoteProtocolError: What ended the connection earlier.
        """
        self._inbox.add(data)

    def next_event(self) -> ServerEvent | None:
        """Give the next whole frame, or None until more has arrived.

        Raises:
            RemoteProtocolError: The peer broke the protocol, now or earlier; close the
                connection. Events given before stay valid.
        """
        # The client begins with the same lines. They run for every frame, and a method
        # of the inbox would be one more call each.
        inbox = self._inbox
        data, start = inbox.data, inbox.offset
        if start == inbox.size or inbox.size < inbox.reach:
            inbox.check()
            return None
        try:
            if (found := read_size(data, start)) is None:
                inbox.wait_for_more()
                return None
            seq, position = found
            if seq == 0:
                inbox.consume(position)
                return _PING_RECEIVED
            decode = inbox.decode
            decoded = decode(data, position)
        except RemoteProtocolError as error:
            inbox.fail(error)
            raise
        if not isinstance(decoded, Decoded):
            inbox.wait_for(decoded)
            return None
        end = decoded.end
        inbox.consume(end)
        return CommandReceived(
            seq, decoded.tag, decoded.value, decoded.body, end - start
        )

    def receive_eof(self) -> None:
        """Take in that the peer will send nothing more.

        Raises:
            RemoteProtocolError: It stopped inside a frame, or see `next_event`.
        """
        self._inbox.end()

    def send_result(self, seq: int, result: object) -> bytes:
        """Encode a result of the command numbered *seq*.

        Raises:
            EncodeError: *result* cannot be sent; the connection is unharmed.
        """
        return self._encode(result, write_size(seq))

    def send_pong(self) -> bytes:
        """Encode the answer to a ping."""
        return _PING


class ClientConnection:
    """The client's end of one connection.

    Attributes:
        next_seq: The number of the next command. It continues over reconnects, so that
            a late result can never be taken for one of a newer command.
        greeted: True once the server's ServerInfo was seen and is the expected one.
    """

    def __init__(
        self,
        codec: Codec,
        *,
        server_info: bytes = SERVER_INFO_DEFAULT,
        next_seq: int = 1,
    ) -> None:
        """Start a connection on which nothing arrived yet.

        Args:
            codec: Shared by as many connections as you like.
            server_info: What the server must announce, byte for byte.
            next_seq: The number of the first command; *next_seq* of the connection
                before, when this one replaces it.

        Raises:
            LocalProtocolError: *server_info* is empty or too long.
        """
        _check_server_info(server_info)
        self.next_seq = next_seq
        self.greeted = False
        self._encode, self._is_last = codec.encode_command, codec.is_last
        self._server_info = server_info
        self._inbox = _Inbox(codec.decode_result)

    def receive_data(self, data: bytes) -> None:
        """Take in what arrived; then ask `next_event`.

        Raises:
            RemoteProtocolError: What ended the connection earlier.
        """
        self._inbox.add(data)

    def next_event(self) -> ClientEvent | None:
        """Give the next whole frame, or None until more has arrived.

        Raises:
            RemoteProtocolError: The server broke the protocol, now or earlier; close
                the connection. Events given before stay valid.
            ServerInfoMismatchError: It is not the server we are looking for.
        """
        inbox = self._inbox
        data, start = inbox.data, inbox.offset
        if start == inbox.size or inbox.size < inbox.reach:
            inbox.check()
            return None
        seq = None
        try:
            if not self.greeted:
                return self._read_info(inbox)
            if (found := read_size(data, start)) is None:
                inbox.wait_for_more()
                return None
            seq, position = found
            if seq == 0:
                inbox.consume(position)
                return _PONG_RECEIVED
            decode = inbox.decode
            decoded = decode(data, position)
        except RemoteProtocolError as error:
            error.seq = seq
            inbox.fail(error)
            raise
        if not isinstance(decoded, Decoded):
            inbox.wait_for(decoded)
            return None
        end = decoded.end
        inbox.consume(end)
        value, is_last = decoded.value, self._is_last
        return ResultReceived(seq, value, is_last(value), end - start)

    def receive_eof(self) -> None:
        """Take in that the server will send nothing more.

        Raises:
            RemoteProtocolError: It stopped inside a frame, or see `next_event`.
        """
        self._inbox.end()

    def send_command(self, command: object) -> tuple[int, bytes]:
        """Encode *command* and number it.

        Returns:
            Its seq, which its results will carry, and the frame.

        Raises:
            EncodeError: *command* cannot be sent; no number is used up.
            LocalProtocolError: The server's ServerInfo is still to come.
        """
        if not self.greeted:
            raise LocalProtocolError("command before the server info has arrived")
        seq = self.next_seq
        encode = self._encode
        frame = encode(command, write_size(seq))
        self.next_seq = seq + 1
        return seq, frame

    def send_ping(self) -> bytes:
        """Encode a ping; the server answers each with one `PongReceived`.

        Raises:
            LocalProtocolError: The server's ServerInfo is still to come.
        """
        if not self.greeted:
            raise LocalProtocolError("ping before the server info has arrived")
        return _PING

    def _read_info(self, inbox: _Inbox) -> ServerInfoReceived | None:
        if (found := read_size(inbox.data, inbox.offset)) is None:
            inbox.wait_for_more()
            return None
        size, start = found
        if size > INFO_SIZE_MAX:
            raise RemoteProtocolError(
                f"server info of {size} bytes announced, the limit is {INFO_SIZE_MAX}"
            )
        end = start + size
        if end > inbox.size:
            inbox.wait_for(end)
            return None
        info = bytes(inbox.data[start:end])
        if info != self._server_info:
            raise ServerInfoMismatchError(self._server_info, info)
        inbox.consume(end)
        self.greeted = True
        return ServerInfoReceived(info)


def _check_server_info(server_info: bytes) -> None:
    if not 1 <= len(server_info) <= INFO_SIZE_MAX:
        raise LocalProtocolError(
            f"server info of {len(server_info)} bytes, allowed are 1 to {INFO_SIZE_MAX}"
        )
