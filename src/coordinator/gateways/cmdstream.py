"""The gateway to services that speak cmd-stream, in Go or in Python.

    @dataclass(frozen=True)
    class Charge:  # a command of the service
        order_id: str
        cents: int
        idempotency_key: str = ""  # these are filled in by the gateway
        coordinator_epoch: int = 0
        traceparent: str = ""


    class Payments(CmdStreamGateway):
        async def charge(self, order_id: str, cents: int) -> Payment:
            return await self.send(Charge(order_id, cents), into=Payment)


    codec = JsonCodec(Registry(commands=[Charge], results=[Payment, Declined, Busy]))
    Payments(
        "payments:9000",
        codec,
        name="payments",
        answers={Declined: Answer.REFUSED, Busy: Answer.UNKNOWN},
    )

How a call can end:

    how it ends                             answer          why
    -----------                             ------          ---
    a result of the type *into*             did
    a result of a type in *answers*         as it says      a "no" is a result like any,
                                                            the protocol has no other
    a result of any other type              misconfigured   nobody said what it means
    several results                         misconfigured   a step has one outcome
    its answer can't be decoded             unreadable      the service did it
    another command's answer can't be       nobody knows    it ends their connection
    connection lost after sending           nobody knows    also how a service says that
                                                            its code failed
    time-out                                nobody knows    the command runs on there
    connection refused, name not found,     nobody knows    certainly not done, but not
    no greeting in time                                     by a "no" of the business
    another ServerInfo than ours            misconfigured   another service or version
    no greeting of cmd-stream               misconfigured   a wrong port
    TLS that fails                          misconfigured   a certificate not trusted or
                                                            not shown
    no descriptors left in this process     nobody knows    the circuit counts nothing
    the command can't be encoded            `EncodeError`,  a bug of ours; nothing was
                                            unchanged       sent

*What travels with a call.* cmd-stream has no headers, so it is in the command, in
fields that its type declares under the names that the headers have elsewhere:

    idempotency_key      text; the same, character by character, as over HTTP and gRPC
    coordinator_epoch    int, the fencing token
    traceparent          text; empty if the command came with none
    coordinator_replay   bool, true while ``coordinator replay`` tells it again

The first is required, or the type is named in `CmdStreamOptions.keyless`. In Go they
are fields like the others, most simply an embedded struct, whose fields JSON and MUS
lay out as its own::

    type Call struct {
        IdempotencyKey string `json:"idempotency_key"`
        Epoch          int64  `json:"coordinator_epoch"`
        Traceparent    string `json:"traceparent"`
    }

``docs/decisions/cmd-stream-calls.md`` has what was turned down.

*One connection*, made by the first call that finds none, and shared by all. It does not
come back by itself: who waits how long before the next try is what the circuit breaker
decides, and a trial of its must be one.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from cmdstream import (
    Client,
    ClientOptions,
    Codec,
    ConnectError,
    ConnectionClosedError,
    EncodeError,
    KeepaliveOptions,
    LocalProtocolError,
    RemoteProtocolError,
)
from cmdstream.breaker import BreakerOptions
from cmdstream.protocol import SERVER_INFO_DEFAULT
from coordinator.context import StepContext
from coordinator.errors import CommandDelayed, Refused
from coordinator.gateways.base import (
    CALLS_MAX,
    TIMEOUT_S,
    Answer,
    Gateway,
    MisconfiguredError,
    UnreadableAnswerError,
    lacks_resources,
)
from coordinator.gateways.cmdstream_rules import (
    KEY_FIELD,
    address_of,
    answers_of,
    check_classes,
    details_of,
    fails_in_tls,
    fields_to_fill,
    filled,
    reason_of,
)

__all__ = ["Answer", "CmdStreamGateway", "CmdStreamOptions"]

T = TypeVar("T")


class CmdStreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one gateway's connection, and its commands without a key."""

    calls_max: int = CALLS_MAX
    """Calls in flight; 1 or more. They share one connection. Those above it wait, and
    not on their own time (see `Gateway`)."""
    server_info: bytes = SERVER_INFO_DEFAULT
    """What the service must announce: which one it is, and which version."""
    connect_timeout_s: float = 3.0
    """Seconds for the connection, for the hand-shake of TLS, and for the service's
    greeting, each; more than 0. A host that is gone is known long before the call's own
    time-out."""
    keepalive_s: float = 10.0
    """Seconds of silence after which a ping asks whether the host is still there; more
    than 0. Without it calls go on timing out for a quarter of an hour on the connection
    to a host that is gone."""
    keepalive_timeout_s: float = 10.0
    """Seconds for a sign of life after a ping; more than 0. Then the connection is
    over. Longer than the service may leave commands unread because it is busy: behind
    them it reads no pings."""
    tls: ssl.SSLContext | None = None
    """Certificates to trust and to show, as `cmdstream.client_tls` makes them; None
    speaks without TLS. A unix socket has none."""
    keyless: frozenset[type[Any]] = frozenset()
    """Types of commands that need no key, because they change nothing."""

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ValueError: A field is out of its bounds.
        """
        if not (self.calls_max >= 1 and self.connect_timeout_s > 0):
            raise ValueError(
                "cmd-stream options need calls_max >= 1 and connect_timeout_s > 0, "
                f"got {self}"
            )
        if not (self.keepalive_s > 0 and self.keepalive_timeout_s > 0):
            raise ValueError(
                "cmd-stream options need keepalive_s > 0 and keepalive_timeout_s > 0, "
                f"got {self}"
            )

    def client(self) -> ClientOptions:
        """Return the options of the client."""
        keepalive = KeepaliveOptions(
            idle_s=self.keepalive_s,
            interval_s=self.keepalive_s,
            pong_timeout_s=self.keepalive_timeout_s,
        )
        return ClientOptions(
            server_info=self.server_info,
            connect_timeout_s=self.connect_timeout_s,
            tls_handshake_timeout_s=self.connect_timeout_s,
            server_info_timeout_s=self.connect_timeout_s,
            keepalive=keepalive,
        )


class CmdStreamGateway(Gateway):
    """The way to one service over cmd-stream; derive from it, one method per operation.

    Its connection is made at the first call and closed by `aclose`, which the
    coordinator calls; a call after that makes it again.
    """

    def __init__(
        self,
        address: str,
        codec: Codec,
        *,
        name: str,
        timeout_s: float = TIMEOUT_S,
        breaker: BreakerOptions | None = None,
        answers: Mapping[type[Any], Answer] | None = None,
        options: CmdStreamOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the gateway; nothing is connected before the first call.

        Args:
            address: ``host:port`` or ``unix:/path``, from the configuration.
            codec: The service's commands and results, in its order.
            name: The service's name, as in ``service.operation``; see `Gateway`.
            timeout_s: Seconds a call may take in all, connecting included.
            breaker: When to stop asking.
            answers: Types of results by which the service says something other than
                that it did it: `Answer.REFUSED`, ``UNKNOWN`` or ``MISCONFIGURED``.
            options: Limits, TLS, the ServerInfo to expect, and which commands need no
                key.
            clock: Seconds that never go back, for the breaker.

        Raises:
            ValueError: An argument is out of its bounds.
        """
        self._options = options or CmdStreamOptions()
        super().__init__(
            name,
            timeout_s=timeout_s,
            calls_max=self._options.calls_max,
            breaker=breaker,
            clock=clock,
        )
        self._address = address_of(address)
        if self._address[1] is None and self._options.tls is not None:
            raise ValueError("a unix socket has no TLS; leave out CmdStreamOptions.tls")
        self._codec = codec
        self._answers = answers_of(answers)
        self._names: dict[type, tuple[str, ...]] = {}
        self._client: Client | None = None
        self._connecting = asyncio.Lock()
        self._tries = 0
        self._failure: Exception | None = None
        self._closings = 0

    async def send(
        self,
        command: object,
        *,
        into: type[T] | tuple[type[T], ...],
        answers: Mapping[type[Any], Answer] | None = None,
        timeout_s: float | None = None,
    ) -> T:
        """Send one command and return its result.

        Args:
            command: A dataclass, a msgspec Struct or a Protobuf message that the codec
                knows; its key, epoch and trace are filled in, in a copy.
            into: The type of the result that says that it is done, or several; it goes
                before *answers*. ``into=(Refunded, NotFound)`` of an undo whose object
                is gone already.
            answers: What other types mean for this command; they go before the
                gateway's.
            timeout_s: Seconds for this call, instead of the gateway's.

        Cancellation: as `Gateway.call`; the service is not told.

        Raises:
            Refused: The service did not do it; its `details` are the result's fields.
            CommandBlocked: The circuit is open; the service was not asked.
            CommandDelayed: Nobody knows whether it did.
            MisconfiguredError: A fault of address, ServerInfo, TLS, or of types.
            UnreadableAnswerError: It did, but its answer can't be decoded.
            TypeError: *command* has no field for the key, or *into* is no class;
                nothing was sent.
            ValueError: *answers* has an ``Answer.DID``; nothing was sent.
            cmdstream.EncodeError: *command* can't be encoded; nothing was sent.
        """
        check_classes(into)
        names = self._fields_to_fill(command)
        meanings = self._answers | answers_of(answers)

        async def ask(step: StepContext) -> T:
            sent = filled(command, names, step)
            client = await self._connected()
            try:
                result = await client.send(sent)
            except RemoteProtocolError as error:
                raise UnreadableAnswerError(
                    f"{self.service_name} did {_name(command)}, but its answer does "
                    f"not fit: {error}"
                ) from error
            except EncodeError:
                raise
            except LocalProtocolError as error:
                raise MisconfiguredError(f"{self.service_name}: {error}") from error
            if isinstance(result, into):
                return result
            raise self._not_done(command, result, meanings)

        return await self.call(ask, timeout_s=timeout_s)

    async def aclose(self) -> None:
        """Close the connection; calls in flight end as unknown. Idempotent."""
        self._closings += 1
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def translate(self, error: Exception) -> Exception:
        """Say what cmdstream's exceptions mean; see `Gateway.translate`."""
        match error:
            case ConnectionClosedError() if fails_in_tls(error):
                return MisconfiguredError(f"{self.service_name}: TLS: {error}")
            case ConnectionClosedError():
                return CommandDelayed(f"{self.service_name}: {error}")
            case RemoteProtocolError():
                return MisconfiguredError(
                    f"{self.service_name}: {self._where}: {error}; is it the right "
                    f"address, and are both sides of one version?"
                )
            case _:
                return super().translate(error)

    @property
    def _where(self) -> str:
        host, port = self._address
        return f"{host}:{port}" if port else host

    async def _connected(self) -> Client:
        """Return the connection; make it if there is none, or none any more.

        Raises:
            CmdStreamError: There is none to be had.
            OSError: This process lacks descriptors or memory.
        """
        # One at a time: who comes meanwhile waits for the first, and shares its answer.
        # A host that is gone is known to all of them in `connect_timeout_s`, not to one
        # after the other.
        tries = self._tries
        async with self._connecting:
            client = self._client
            if client is not None and not client.closed:
                return client
            if self._tries != tries and self._failure is not None:
                raise self._failure.with_traceback(None)
            self._client = None
            closings = self._closings
            try:
                client = await self._connect()
            except Exception as error:
                self._failure = error
                self._tries += 1
                raise
            if self._closings != closings:
                await client.aclose()
                raise ConnectError("the gateway was closed meanwhile")
            self._client = client
            return client

    async def _connect(self) -> Client:
        (host, port), codec = self._address, self._codec
        options, tls = self._options.client(), self._options.tls
        try:
            if port is None:
                return await Client.connect_unix(host, codec, options=options, tls=tls)
            return await Client.connect(host, port, codec, options=options, tls=tls)
        except ConnectError as error:
            cause = error.__cause__
            if cause is not None and lacks_resources(cause):
                raise cause from error
            raise

    def _fields_to_fill(self, command: object) -> tuple[str, ...]:
        """Return the names of the fields of *command* that are the gateway's.

        Raises:
            TypeError: It has none for the key, and should.
        """
        kind = type(command)
        if (names := self._names.get(kind)) is not None:
            return names
        names = fields_to_fill(kind)
        if KEY_FIELD not in names and kind not in self._options.keyless:
            raise TypeError(
                f"{kind.__qualname__} has no field {KEY_FIELD}, so {self.service_name} "
                "could not tell a repeated command from a second one; declare "
                f'`{KEY_FIELD}: str = ""` on both sides, or, if it changes nothing, '
                f"name it in CmdStreamOptions(keyless={{{kind.__qualname__}}})"
            )
        self._names[kind] = names
        return names

    def _not_done(
        self, command: object, result: object, meanings: Mapping[type[Any], Answer]
    ) -> Exception:
        """Return the exception that says what *result* means."""
        answer = meanings.get(type(result))
        details = details_of(result)
        reason = reason_of(result, details)
        said = f"{_name(result)}: {reason}" if reason else _name(result)
        match answer:
            case Answer.REFUSED:
                return Refused(reason or _name(result), details)
            case Answer.UNKNOWN:
                return CommandDelayed(f"{self.service_name}: {said}")
            case Answer.MISCONFIGURED:
                return MisconfiguredError(
                    f"{self.service_name}: {_name(command)}: {said}"
                )
            case _:
                name = _name(result)
                return MisconfiguredError(
                    f"{self.service_name} answered {_name(command)} by {said}, and "
                    f"nobody said what that means: into={name}, or "
                    f"answers={{{name}: Answer.REFUSED}}"
                )


def _name(value: object) -> str:
    return type(value).__qualname__
