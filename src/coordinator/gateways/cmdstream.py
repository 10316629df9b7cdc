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
import dataclasses
import re
import ssl
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, cast

import msgspec

from cmdstream import (
    Client,
    ClientOptions,
    Codec,
    ConnectError,
    ConnectionClosedError,
    EncodeError,
    LocalProtocolError,
    RemoteProtocolError,
)
from cmdstream.breaker import BreakerOptions
from coordinator.context import StepContext
from coordinator.errors import CommandDelayed, Refused
from coordinator.gateways.base import (
    CALLS_MAX,
    REASON_LENGTH_MAX,
    TIMEOUT_S,
    Answer,
    Gateway,
    MisconfiguredError,
    UnreadableAnswerError,
    call_headers,
    lacks_resources,
)

__all__ = ["Answer", "CmdStreamGateway", "CmdStreamOptions"]

T = TypeVar("T")

DETAILS_SIZE_MAX = 16 * 1024
"""Bytes of a refusal's fields up to which they are kept as its details: they are
written to the journal."""

_KEY = "idempotency_key"
_FILLED = (_KEY, "coordinator_epoch", "traceparent", "coordinator_replay")
_REASONS = ("reason", "detail", "message", "title", "error")

_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.%]+)\]|([^\[\]:/@\s]+)):(\d{1,5})")
_UNIX = "unix:"


class CmdStreamOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of one gateway's connection, and its commands without a key."""

    calls_max: int = CALLS_MAX
    """Calls in flight; 1 or more. They share one connection. Those above it wait, and
    not on their own time (see `Gateway`)."""
    client: ClientOptions = ClientOptions(
        connect_timeout_s=3.0, server_info_timeout_s=3.0
    )
    """The connection's bounds, and the ServerInfo to expect. 3 s to connect: a host
    that is gone is known long before the call's own time-out."""
    keyless: frozenset[type] = frozenset()
    """Types of commands that need no key, because they change nothing."""


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
            options: Limits, the ServerInfo to expect, and which commands need no key.
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
        self._address = _address_of(address)
        self._codec = codec
        self._answers = _checked(answers)
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
        _check_classes(into)
        names = self._fields_to_fill(command)
        meanings = self._answers | _checked(answers)

        async def ask(step: StepContext) -> T:
            filled = _filled(command, names, step)
            client = await self._connected()
            try:
                result = await client.send(filled)
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
            case ConnectError() if _fails_in_tls(error.__cause__):
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
        host, port = self._address
        options = self._options.client
        try:
            if port is None:
                return await Client.connect_unix(host, self._codec, options=options)
            return await Client.connect(host, port, self._codec, options=options)
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
        names = tuple(name for name in _FILLED if name in _fields_of(kind))
        if _KEY not in names and kind not in self._options.keyless:
            raise TypeError(
                f"{kind.__qualname__} has no field {_KEY}, so {self.service_name} "
                f"could not tell a repeated command from a second one; declare "
                f'`{_KEY}: str = ""` on both sides, or, if it changes nothing, name it '
                f"in CmdStreamOptions(keyless={{{kind.__qualname__}}})"
            )
        self._names[kind] = names
        return names

    def _not_done(
        self, command: object, result: object, meanings: Mapping[type[Any], Answer]
    ) -> Exception:
        """Return the exception that says what *result* means."""
        answer = meanings.get(type(result))
        details = _details_of(result)
        reason = _reason_of(result, details)
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


def _check_classes(into: object) -> None:
    """Raise a TypeError if a result can't be told to be of *into*.

    Before anything is sent: `isinstance` says so of ``list[Paid]``, too, but only when
    the service has done it.
    """
    # A cast: of what is in a tuple isinstance says nothing.
    kinds = cast("tuple[object, ...]", into) if isinstance(into, tuple) else (into,)
    for kind in kinds:
        if not isinstance(kind, type):
            raise TypeError(f"into= takes a class, or a tuple of them, got {into!r}")


def _checked(answers: Mapping[type[Any], Answer] | None) -> dict[type[Any], Answer]:
    """Return a copy of *answers*.

    Raises:
        ValueError: One of them is `Answer.DID`.
    """
    for kind, answer in (answers or {}).items():
        if answer is Answer.DID:
            # The value would have no type that the method could declare.
            name = kind.__qualname__
            raise ValueError(f"that {name} means done is said by into={name}")
    return dict(answers or {})


def _address_of(address: str) -> tuple[str, int | None]:
    """Split an address that comes from the configuration; no port: a unix socket.

    Raises:
        ValueError: It is not one.
    """
    if address.startswith(_UNIX) and len(address) > len(_UNIX):
        return address.removeprefix(_UNIX), None
    found = _ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found[3]) < 2**16:
        # The address itself is not repeated: it may hold a password.
        raise ValueError(
            "address must be host:port, [IPv6]:port or unix:/path, without credentials"
        )
    return found[1] or found[2], int(found[3])


# Three kinds of commands, by what they are made with: dataclass, Struct, Protobuf.


def _fields_of(kind: type[Any]) -> Collection[str]:
    if (descriptor := getattr(kind, "DESCRIPTOR", None)) is not None:
        return set(descriptor.fields_by_name)
    if dataclasses.is_dataclass(kind):
        return {field.name for field in dataclasses.fields(kind)}
    return kind.__struct_fields__ if issubclass(kind, msgspec.Struct) else ()


def _filled(command: Any, names: tuple[str, ...], step: StepContext) -> object:
    """Return a copy of *command* whose fields *names* tell of *step*."""
    headers = call_headers(step)
    values: dict[str, object] = {
        # As over HTTP, percent-encoding and all: the service that is moved from one
        # protocol to the other must know its keys again.
        _KEY: headers["Idempotency-Key"],
        "coordinator_epoch": step.epoch,
        "traceparent": headers.get("traceparent", ""),
        "coordinator_replay": step.replay,
    }
    changed = {name: values[name] for name in names}
    if not changed:
        return command
    if dataclasses.is_dataclass(command):
        return dataclasses.replace(cast("Any", command), **changed)
    if isinstance(command, msgspec.Struct):
        return msgspec.structs.replace(command, **changed)
    message = type(command)()
    message.CopyFrom(command)
    for name, value in changed.items():
        setattr(message, name, value)
    return message


def _details_of(result: object) -> dict[str, object]:
    """Return the fields of *result*; none if it is a bare value, or too big."""
    fields = result
    if hasattr(result, "ListFields"):  # a Protobuf message
        present = cast("Any", result).ListFields()
        fields = {field.name: value for field, value in present}
    try:
        details: object = msgspec.to_builtins(fields, str_keys=True)
        size = len(msgspec.json.encode(details))
    except (TypeError, ValueError, RecursionError):
        return {}
    if not isinstance(details, dict) or size > DETAILS_SIZE_MAX:
        return {}
    # Its keys are strings; isinstance can't say so.
    return cast("dict[str, object]", details)


def _reason_of(result: object, details: Mapping[str, object]) -> str:
    if isinstance(result, str):  # as in Go's `type Declined string`
        return str(result)[:REASON_LENGTH_MAX]
    # Go's names have capitals, where no tag says otherwise.
    words = {name.lower(): value for name, value in details.items()}
    reasons = (words.get(name) for name in _REASONS)
    reason = next((word for word in reasons if isinstance(word, str) and word), "")
    return reason[:REASON_LENGTH_MAX]


def _fails_in_tls(error: BaseException | None) -> bool:
    """Say whether *error* is the fault of TLS, and not just a lost connection in it."""
    lost = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
    return isinstance(error, ssl.SSLError) and not isinstance(error, lost)
