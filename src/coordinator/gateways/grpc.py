"""The gateway to services that speak gRPC.

    class Payments(GrpcGateway):
        def __init__(self, target: str) -> None:
            super().__init__(target, name="payments")
            self._stub = PaymentsStub(self.channel)

        async def charge(self, order_id: str, cents: int) -> Payment:
            request = ChargeRequest(order_id=order_id, cents=cents)
            reply = await self.unary(self._stub.Charge, request)
            return Payment(reply.id, reply.cents)

`grpc_rules` says what each status code means. What has no code of the service's:

    connection refused, name not found      nobody knows: certainly not done, but it is
                                            not the business that says no
    connection lost, time-out               nobody knows
    TLS that fails                          misconfigured: a certificate that is not
                                            trusted or not shown
    no descriptors left in this process     nobody knows; the circuit counts nothing
    the gateway was closed meanwhile        nobody knows
    two messages instead of one             nobody knows: gRPC waits for the end of the
                                            call, which is behind the second one
    OK without a message                    `UnreadableAnswerError`: the service did it
    OK, not readable as the reply's type,   `UnreadableAnswerError`: the service did it;
    or more than `response_size_max`        a refusal would undo what it never undoes
    a request that can't be serialized      its exception, unchanged: nothing was sent

Metadata sent: ``idempotency-key``, ``coordinator-epoch``, ``traceparent``; see
`call_headers`.

Requests and replies are turned into bytes here, not by gRPC, which logs the exception
of a serializer and sends an empty message instead: to most services a request with all
fields at their defaults.

grpcio is imported with this module, and with nothing else of the package.
"""

import asyncio
import errno
import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any, Generic, NoReturn, TypeVar, cast

import msgspec

from cmdstream.breaker import BreakerOptions
from coordinator.context import StepContext
from coordinator.errors import CommandDelayed, Refused
from coordinator.gateways.base import (
    TIMEOUT_S,
    Answer,
    Gateway,
    MisconfiguredError,
    UnreadableAnswerError,
    call_headers,
)
from coordinator.gateways.grpc_rules import (
    Problem,
    answer_to,
    is_answer_too_big,
    lacks_descriptors,
    metadata_of,
    problem_of,
    target_of,
)

try:
    import grpc
    import grpc.aio
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        f"gRPC gateways need grpcio ({error}): pip install 'coordinator[grpc]'"
    ) from error

__all__ = ["Answer", "GrpcGateway", "GrpcOptions"]

RequestT = TypeVar("RequestT")
ReplyT = TypeVar("ReplyT")

_DETAILS = "grpc-status-details-bin"

_HINTS = {
    "UNIMPLEMENTED": "the service at this address does not have the method: compare "
    "the .proto files of both sides",
    "UNAUTHENTICATED": "see metadata= and GrpcOptions.credentials",
    "PERMISSION_DENIED": "see metadata= and GrpcOptions.credentials",
    "ALREADY_EXISTS": "if it is what an earlier call of this step made: "
    "answers={StatusCode.ALREADY_EXISTS: Answer.DID}",
    "UNAVAILABLE": "see GrpcOptions.credentials",
    "RESOURCE_EXHAUSTED": "the limit is the service's, or GrpcOptions has it",
}


class GrpcOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one gateway's channel, and TLS."""

    calls_max: int = 100
    """Calls in flight; 1 or more. Those above it wait, and not on their own time (see
    `Gateway`). They share one connection, or one to each address of a balanced name."""
    connect_timeout_s: float = 3.0
    """Seconds to open one connection; more than 0. gRPC's own is 20 s, which is longer
    than a call may take."""
    keepalive_s: float = 10.0
    """Seconds of silence during a call after which a ping asks whether the host is
    still there; more than 0. Without it calls go on timing out for a quarter of an
    hour on the connection to a host that is gone. Servers take it ill to be pinged more
    often than every 5 minutes, unless they send something in between: so there are no
    pings without a call, and at most one during a call of 10 s."""
    keepalive_timeout_s: float = 5.0
    """Seconds for the answer to a ping; more than 0. Then the connection is over."""
    response_size_max: int = 1024 * 1024
    """Bytes of a reply; 1 or more. An outcome is written to the journal and kept in
    memory while its workflow lives. gRPC's own is 4 MiB."""
    credentials: grpc.ChannelCredentials | None = None
    """TLS: `grpc.ssl_channel_credentials` with what to trust and what to show. None
    speaks without TLS."""
    channel: tuple[tuple[str, str | int], ...] = ()
    """More of gRPC's channel arguments, as ``("grpc.lb_policy_name", "round_robin")``;
    they go before what the other options set."""

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ValueError: A field is out of its bounds.
        """
        if not (self.calls_max >= 1 and self.connect_timeout_s > 0):
            raise ValueError(
                "grpc options need calls_max >= 1 and connect_timeout_s > 0, "
                f"got {self}"
            )
        if not (self.keepalive_s > 0 and self.keepalive_timeout_s > 0):
            raise ValueError(
                "grpc options need keepalive_s > 0 and keepalive_timeout_s > 0, "
                f"got {self}"
            )
        if self.response_size_max < 1:
            raise ValueError(f"grpc options need response_size_max >= 1, got {self}")

    def arguments(self) -> list[tuple[str, str | int]]:
        """Return gRPC's channel arguments."""
        ours: dict[str, str | int] = {
            "grpc.max_receive_message_length": self.response_size_max,
            "grpc.keepalive_time_ms": int(1000 * self.keepalive_s),
            "grpc.keepalive_timeout_ms": int(1000 * self.keepalive_timeout_s),
            # Without this one a ping has 60 s, whatever the one above says (1.85).
            "grpc.http2.ping_timeout_ms": int(1000 * self.keepalive_timeout_s),
            "grpc.keepalive_permit_without_calls": 0,
            # Which is how long one try to connect may take, by another name.
            "grpc.min_reconnect_backoff_ms": int(1000 * self.connect_timeout_s),
            # The engine repeats, under one key, and nobody else: a retry policy out of
            # DNS would multiply what it asks. What never left may still be sent again.
            "grpc.service_config_disable_resolution": 1,
            # No proxies out of the environment: the target is the configuration's.
            "grpc.enable_http_proxy": 0,
            # Or a new channel would share the back-off of the one it replaces.
            "grpc.use_local_subchannel_pool": 1,
        }
        return list((ours | dict(self.channel)).items())


class GrpcGateway(Gateway):
    """The way to one service over gRPC; derive from it, one method per operation.

    Its channel is opened at the first call and closed by `aclose`, which the
    coordinator calls; a call after that opens it again.

    Attributes:
        channel: What generated stubs are made with. What their methods then are is for
            `unary`, and can't be called otherwise: a call without a key is a charge
            that may be made twice.
    """

    def __init__(
        self,
        target: str,
        *,
        name: str,
        timeout_s: float = TIMEOUT_S,
        breaker: BreakerOptions | None = None,
        answers: Mapping[grpc.StatusCode, Answer] | None = None,
        metadata: Mapping[str, str] | Callable[[], Mapping[str, str]] | None = None,
        options: GrpcOptions | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Make the gateway; nothing is connected before the first call.

        Args:
            target: ``host:port``, or a name as gRPC has them (``dns:///...``,
                ``unix:...``), from the configuration.
            name: The service's name, as in ``service.operation``; see `Gateway`.
            timeout_s: Seconds a call may take in all, connecting included. The service
                is told, as gRPC does.
            breaker: When to stop asking.
            answers: Codes that this service uses in another sense than `grpc_rules` has
                it, e.g. ``{StatusCode.NOT_FOUND: Answer.MISCONFIGURED}``.
            metadata: Sent with every call, e.g. ``authorization``; a function is asked
                each time, for credentials that change.
            options: Limits, and TLS.
            clock: Seconds that never go back, for the breaker.

        Raises:
            ValueError: An argument is out of its bounds.
        """
        self._options = options or GrpcOptions()
        super().__init__(
            name,
            timeout_s=timeout_s,
            calls_max=self._options.calls_max,
            breaker=breaker,
            clock=clock,
        )
        self._target = target_of(target)
        self._answers = _by_name(answers)
        self._metadata = metadata if callable(metadata) else metadata_of(metadata)
        # A cast: generated code asks a channel for its methods, and for nothing else.
        self.channel = cast("grpc.aio.Channel", _Methods())
        self._opened: grpc.aio.Channel | None = None
        self._in_flight = 0

    async def unary(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[RequestT, ReplyT]",
        request: RequestT,
        *,
        answers: Mapping[grpc.StatusCode, Answer] | None = None,
        metadata: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> ReplyT:
        """Send one request and return its reply.

        The reply is a message, which the journal does not store: make an outcome of it,
        of a class of your own.

        Args:
            method: A method of a stub that was made with `channel`.
            request: What it takes.
            answers: Codes that mean something else here, e.g.
                ``{StatusCode.NOT_FOUND: Answer.DID}`` of an undo whose object is gone
                already; the reply is then an empty message.
            metadata: Sent with this call, too.
            timeout_s: Seconds for this call, instead of the gateway's.

        Cancellation: as `Gateway.call`; the service is told.

        Raises:
            Refused: The service did not do it; its `details` are those of an ErrorInfo,
                and the ``status``.
            CommandBlocked: The circuit is open; the service was not asked.
            CommandDelayed: Nobody knows whether it did.
            MisconfiguredError: A fault of address, credentials or protocol.
            UnreadableAnswerError: It did, but its reply can't be read.
            TypeError: *method* is not of such a stub, or has streams.
            ValueError: *metadata* can't be sent; nothing was.
        """
        # All that can fail on this side fails before anything is sent.
        operation = _checked(method)
        content = operation.serialize(request)
        given = self._metadata
        sent = metadata_of(given()) if callable(given) else dict(given)
        sent.update(metadata_of(metadata))
        overrides = self._answers | _by_name(answers)
        limit_s = self._timeout_s if timeout_s is None else timeout_s

        async def ask(step: StepContext) -> ReplyT:
            headers = call_headers(step).items()
            sent.update({name.lower(): value for name, value in headers})
            try:
                reply = await self._ask(operation.path, content, sent, limit_s)
            except grpc.aio.AioRpcError as error:
                if overrides.get(error.code().name) is not Answer.DID:
                    raise self._not_done(error, operation.path, overrides) from error
                reply = b""
            return self._value(operation, reply)

        return await self.call(ask, timeout_s=timeout_s)

    async def aclose(self) -> None:
        """Close the channel; calls in flight end as unknown. Idempotent."""
        channel, self._opened = self._opened, None
        if channel is not None:
            await channel.close()

    async def _ask(
        self, path: str, content: bytes, metadata: Mapping[str, str], timeout_s: float
    ) -> bytes | None:
        channel = await self._channel()
        method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes | None]
        method = channel.unary_unary(path)
        self._in_flight += 1
        try:
            return await method(
                content, timeout=timeout_s, metadata=tuple(metadata.items())
            )
        except asyncio.CancelledError as error:
            # gRPC says the same whether it is we who are cancelled or the channel is
            # closed under the call.
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            raise CommandDelayed(
                f"{self.service_name}: the gateway was closed during {path}"
            ) from error
        finally:
            self._in_flight -= 1

    async def _channel(self) -> grpc.aio.Channel:
        """Return the open channel, or a new one.

        One that is broken is replaced, and each call so tries to connect: gRPC would
        refuse them in the service's name until its own back-off is over, up to two
        minutes after the service is back. When to ask again is the breaker's to say.
        """
        broken = grpc.ChannelConnectivity.TRANSIENT_FAILURE
        if (
            self._opened is not None
            # Calls on a connection that the service closes softly are let end.
            and not self._in_flight
            and self._opened.get_state() is broken
        ):
            await self.aclose()
        if self._opened is None:
            await _ask_for_the_network()
        if self._opened is None:
            options = self._options.arguments()
            credentials = self._options.credentials
            if credentials is None:
                self._opened = grpc.aio.insecure_channel(self._target, options)
            else:
                self._opened = grpc.aio.secure_channel(
                    self._target, credentials, options
                )
        return self._opened

    def _not_done(
        self, error: grpc.aio.AioRpcError, path: str, overrides: Mapping[str, Answer]
    ) -> Exception:
        """Return the exception that says what *error* means."""
        code = error.code().name
        details = dict(error.trailing_metadata() or ()).get(_DETAILS, b"")
        problem = problem_of(
            error.details() or "", details if isinstance(details, bytes) else b""
        )
        reason = f"{code}: {problem.reason}" if problem.reason else code
        if lacks_descriptors(code, problem):
            # As itself: `Gateway` knows what it means, and that it tells nothing.
            return OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        if is_answer_too_big(code, problem):
            return UnreadableAnswerError(
                f"{self.service_name} did {path}, but answered more than "
                f"{self._options.response_size_max} bytes"
            )
        match answer_to(code, problem, overrides):
            case Answer.REFUSED:
                return Refused(
                    problem.reason or code, problem.details | {"status": code}
                )
            case Answer.UNKNOWN if code == "DEADLINE_EXCEEDED":
                return CommandDelayed(
                    f"{self.service_name} did not answer in time: {reason}"
                )
            case Answer.UNKNOWN:
                return CommandDelayed(
                    f"{self.service_name}: {reason}", problem.retry_after_s
                )
            case _:
                return MisconfiguredError(
                    f"{self.service_name}: {path}: {reason}; {_hint(code, problem)}"
                )

    def _value(self, operation: "_Method[Any, ReplyT]", reply: bytes | None) -> ReplyT:
        if reply is None:  # as a stream of no messages ends
            raise UnreadableAnswerError(
                f"{self.service_name} did {operation.path}, but sent no message; "
                "compare the .proto files of both sides"
            )
        try:
            return operation.deserialize(reply)
        except Exception as error:  # a serializer raises whatever its library does
            raise UnreadableAnswerError(
                f"{self.service_name} did {operation.path}, but its answer does not "
                f"fit: {error}"
            ) from error


class _Method(Generic[RequestT, ReplyT]):
    """One method of a service, as generated code declares it to a channel."""

    def __init__(
        self,
        kind: str,
        path: str,
        serialize: Callable[[RequestT], bytes],
        deserialize: Callable[[bytes], ReplyT],
    ) -> None:
        self.kind = kind
        self.path = path
        self.serialize = serialize
        self.deserialize = deserialize

    def __call__(self, *_: object, **__: object) -> NoReturn:
        name = self.path.rpartition("/")[2]
        raise TypeError(
            f"{self.path} is called by the gateway, which adds the key: "
            f"await self.unary(stub.{name}, request)"
        )


class _Methods:
    """What generated code sees of a channel: the four ways to make a method."""

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        **_: object,
    ) -> _Method[Any, Any]:
        # None is gRPC's word for bytes as they are.
        serialize, deserialize = request_serializer, response_deserializer
        return _Method("unary", method, serialize or bytes, deserialize or bytes)

    def unary_stream(self, method: str, *_: object, **__: object) -> _Method[Any, Any]:
        return _Method("streaming", method, bytes, bytes)

    stream_unary = unary_stream
    stream_stream = unary_stream


def _checked(
    method: "grpc.aio.UnaryUnaryMultiCallable[RequestT, ReplyT]",
) -> _Method[RequestT, ReplyT]:
    """Return what *method* really is.

    Raises:
        TypeError: It is something else, or has streams.
    """
    operation: object = method
    if not isinstance(operation, _Method):
        raise TypeError(
            f"unary() needs a method of a stub that was made with the gateway's "
            f"channel, as PaymentsStub(self.channel), got {operation!r}"
        )
    if operation.kind != "unary":
        raise TypeError(
            f"{operation.path} has streams: a step is one request and one answer"
        )
    return cast("_Method[RequestT, ReplyT]", operation)


async def _ask_for_the_network() -> None:
    """Raise what a loop raises that has no network, as that of a rehearsal.

    grpcio connects in threads of its own, past the loop, which can't stop it: a saga
    that is rehearsed would call the real service.
    """
    loop = asyncio.get_running_loop()
    # Nothing is looked up: the answer is the question.
    await loop.getaddrinfo("127.0.0.1", 0, flags=socket.AI_NUMERICHOST)


def _by_name(answers: Mapping[grpc.StatusCode, Answer] | None) -> dict[str, Answer]:
    return {code.name: answer for code, answer in (answers or {}).items()}


def _hint(code: str, problem: Problem) -> str:
    """Say what a person can do about an answer that no program can."""
    if problem.names_the_key:
        return "it is about the idempotency key, so it is not taken for a refusal"
    refusal = f"if it is a refusal: answers={{StatusCode.{code}: Answer.REFUSED}}"
    hint = _HINTS.get(code)
    return f"{hint}; {refusal}" if hint else refusal
