"""OpenTelemetry: spans and metrics. Needs ``pip install 'coordinator[otel]'``.

    Client.connect(…, hooks=[ClientTelemetry(traced=[TracedAdd])])
    Server(codec, handler, middleware=[ServerTelemetry()])

Spans, metrics and attributes have the names that otelcmd-stream-go gives them, so a Go
service and a Python one share their dashboards; ``docs/telemetry.md`` lists them.

The protocol has no headers, so a trace can only travel inside a command: as a command
of a type of its own, that wraps another and is registered beside it. It is the wrapper
of otelcmd-stream-go, byte for byte::

    class TracedAdd(TraceCommand, frozen=True):  # TraceCmd[Calc, AddCmd]
        command: AddCmd


    Registry([AddCmd, TracedAdd], [CalcResult])

    {"MapCarrier":{"traceparent":"00-…-01"},"Cmd":{"A":2,"B":3}}

A client wraps the commands for which it has a wrapper, and a server unwraps them: who
sends, and who handles, sees an AddCmd. Other commands are sent as they are, and begin a
trace of their own at the server.

Only the API of OpenTelemetry is needed here. What becomes of the spans and metrics is
said by the program, to the SDK; without one they cost little and go nowhere.
"""

import time
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import msgspec

from cmdstream.errors import RegistryError, SendTimeoutError
from cmdstream.hooks import CommandSent, Hook
from cmdstream.messages import CommandReceived, ResultReceived
from cmdstream.middleware import WatchedReply
from cmdstream.serving import Handler

try:
    from opentelemetry import context, metrics, propagate, trace
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError(
        f"telemetry needs opentelemetry-api ({missing}): "
        "pip install 'coordinator[otel]'"
    ) from missing

__all__ = ["ClientTelemetry", "ServerTelemetry", "TraceCommand"]

_SCOPE = "cmdstream"

_OK, _FAILED, _TIMEOUT = "OK", "FAILED", "TIMEOUT"

Attributes: TypeAlias = dict[str, str | int]


class TraceCommand(
    msgspec.Struct, frozen=True, rename={"carrier": "MapCarrier", "command": "Cmd"}
):
    """A command and the trace it belongs to. Make a subclass for each command type."""

    carrier: dict[str, str] | None
    """What the propagator wrote, such as ``traceparent``; None is Go's nil."""
    command: Any
    """The command. The subclass says its type."""


class ClientTelemetry:
    """Spans and metrics of a client's sends; one of its `hooks`.

    As the first of them it sees what the others make of a send, such as the veto of a
    circuit breaker. The span's parent is the current one of the sender, which stays
    current: a send has no inside that others could add spans to.
    """

    def __init__(
        self,
        *,
        traced: Iterable[type[TraceCommand]] = (),
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        """Prepare the instruments.

        Args:
            traced: The wrappers that the server has registered, too. A command for
                which there is one is sent in it.
            tracer_provider: Makes the spans; the global one if None.
            meter_provider: Makes the metrics; the global one if None.

        Raises:
            RegistryError: A wrapper does not say what it wraps, or two wrap the same.
        """
        self._wrappers = _by_wrapped(traced)
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        self._instruments = _Instruments("client", meter_provider)

    def __call__(self) -> Hook:
        """Make the hook of one send."""
        return _ClientHook(self._wrappers, self._tracer, self._instruments)


class ServerTelemetry:
    """Spans and metrics of a server's commands; one of its `middleware`.

    The span is current in the handler, and in the task of a `TaskHandler`. It ends with
    the reply. Its parent is what came with the command, never what was current where
    the server was made.
    """

    def __init__(
        self,
        *,
        tracer_provider: trace.TracerProvider | None = None,
        meter_provider: metrics.MeterProvider | None = None,
    ) -> None:
        """Prepare the instruments.

        Args:
            tracer_provider: Makes the spans; the global one if None.
            meter_provider: Makes the metrics; the global one if None.
        """
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        self._instruments = _Instruments("server", meter_provider)

    def __call__(
        self, received: CommandReceived, reply: WatchedReply, inner: Handler
    ) -> None:
        """Handle one command, unwrapped if it was wrapped.

        Its tag, body and size stay those of the wrapper: what has arrived.
        """
        name = _type_name(received.command)
        caller = context.Context()
        if isinstance(received.command, TraceCommand):
            caller = propagate.extract(received.command.carrier or {}, caller)
            received = msgspec.structs.replace(
                received, command=received.command.command
            )
        span = self._tracer.start_span(f"Invoke {name}", caller, trace.SpanKind.SERVER)
        inside = trace.set_span_in_context(span, caller)
        measured = _Measured(self._instruments, inside, name)
        measured.sent(received.seq, received.size, reply.peer)
        reply.watch(_ReplyWatcher(measured))
        token = context.attach(inside)
        try:
            inner(received, reply)
        finally:
            context.detach(token)


class _ClientHook(Hook):
    """One send."""

    def __init__(
        self,
        wrappers: Mapping[type, type[TraceCommand]],
        tracer: trace.Tracer,
        instruments: "_Instruments",
    ) -> None:
        self._wrappers = wrappers
        self._tracer = tracer
        self._instruments = instruments

    def before(self, command: object) -> object:
        """Begin the span, and put it into the command if there is room for it."""
        if (wrapper := self._wrappers.get(type(command))) is not None:
            command = wrapper(None, command)
        name = _type_name(command)
        span = self._tracer.start_span(f"Send {name}", kind=trace.SpanKind.CLIENT)
        inside = trace.set_span_in_context(span)
        self._measured = _Measured(self._instruments, inside, name)
        if isinstance(command, TraceCommand):
            carrier: dict[str, str] = {}
            propagate.inject(carrier, inside)
            command = msgspec.structs.replace(command, carrier=carrier)
        return command

    def sent(self, sent: CommandSent) -> None:
        """Note what was sent, and where."""
        self._measured.sent(sent.seq, sent.size, sent.peer)

    def received(self, received: ResultReceived) -> None:
        """Note a result."""
        self._measured.result(received.result, received.size)

    def ended(self, error: BaseException | None) -> None:
        """End the span."""
        if error is None:
            self._measured.ended(_OK)
            return
        status = _TIMEOUT if isinstance(error, SendTimeoutError) else _FAILED
        self._measured.ended(status, type(error).__qualname__, str(error))


class _ReplyWatcher:
    """One command at the server."""

    def __init__(self, measured: "_Measured") -> None:
        self._measured = measured

    def sent(self, result: object, size: int, *, is_last: bool) -> None:
        """Note a result, unless the client has left and it went nowhere."""
        if size:
            self._measured.result(result, size)

    def ended(self, reason: str | None, error: BaseException | None) -> None:
        """End the span."""
        if reason is None:
            self._measured.ended(_OK)
        else:
            kind = "_OTHER" if error is None else type(error).__qualname__
            self._measured.ended(_FAILED, kind, reason)


class _Instruments:
    """The metrics of one side."""

    def __init__(self, side: str, provider: metrics.MeterProvider | None) -> None:
        meter = metrics.get_meter(_SCOPE, meter_provider=provider)
        of = f"cmd-stream.{side}"
        self.commands = meter.create_counter(
            f"{of}.command.count", "{command}", f"Number of {side} commands."
        )
        self.command_size = meter.create_histogram(
            f"{of}.command.size", "By", f"Size of {side} commands."
        )
        self.command_duration = meter.create_histogram(
            f"{of}.command.duration", "s", f"Duration of {side} commands."
        )
        self.results = meter.create_counter(
            f"{of}.result.count", "{result}", f"Number of {side} results."
        )
        self.result_size = meter.create_histogram(
            f"{of}.result.size", "By", f"Size of {side} results."
        )
        self.result_duration = meter.create_histogram(
            f"{of}.result.duration", "s", f"Duration of {side} results."
        )


class _Measured:
    """One command, from its begin to its end, on either side."""

    def __init__(
        self, instruments: _Instruments, inside: context.Context, name: str
    ) -> None:
        self._instruments = instruments
        self._inside = inside  # of the span: links a measurement to its trace
        self._span = trace.get_current_span(inside)
        self._name = name
        self._began_s = time.perf_counter()
        self._size: int | None = None
        self._results = 0
        self._span.set_attribute("cmd-stream.command.type", name)

    def sent(self, seq: int, size: int, peer: str) -> None:
        """Note the command's frame."""
        self._size = size
        attributes: Attributes = {
            "cmd-stream.command.seq": seq,
            "cmd-stream.command.size": size,
        }
        self._span.set_attributes(attributes | _peer_attributes(peer))

    def result(self, result: object, size: int) -> None:
        """Note a result's frame."""
        self._results += 1
        kind = _type_name(result)
        self._span.add_event(
            "result",
            {
                "cmd-stream.result.seq": self._results,
                "cmd-stream.result.type": kind,
                "cmd-stream.result.size": size,
            },
        )
        attributes = {
            "cmd-stream.command.type": self._name,
            "cmd-stream.result.type": kind,
        }
        instruments, inside = self._instruments, self._inside
        instruments.results.add(1, attributes, inside)
        instruments.result_size.record(size, attributes, inside)
        instruments.result_duration.record(self._elapsed_s(), attributes, inside)

    def ended(self, status: str, error_type: str = "", reason: str = "") -> None:
        """Note how it ended."""
        self._span.set_attribute("cmd-stream.command.status", status)
        if status != _OK:
            self._span.set_attribute("error.type", error_type)
            self._span.set_status(trace.StatusCode.ERROR, reason)
        attributes = {
            "cmd-stream.command.type": self._name,
            "cmd-stream.command.status": status,
        }
        instruments, inside = self._instruments, self._inside
        instruments.commands.add(1, attributes, inside)
        if self._size is not None:  # else nothing was sent
            instruments.command_size.record(self._size, attributes, inside)
        instruments.command_duration.record(self._elapsed_s(), attributes, inside)
        self._span.end()

    def _elapsed_s(self) -> float:
        return time.perf_counter() - self._began_s


def _by_wrapped(
    wrappers: Iterable[type[TraceCommand]],
) -> dict[type, type[TraceCommand]]:
    """Find out what each of *wrappers* wraps.

    Raises:
        RegistryError: See `ClientTelemetry`.
    """
    found: dict[type, type[TraceCommand]] = {}
    for wrapper in wrappers:
        wrapped = typing.get_type_hints(wrapper)["command"]
        if wrapped is Any or not isinstance(wrapped, type):
            raise RegistryError(
                f"{wrapper.__qualname__} does not say the type of its command"
            )
        if wrapped in found:
            raise RegistryError(
                f"{wrapper.__qualname__} wraps {wrapped.__qualname__}, "
                f"as does {found[wrapped].__qualname__}"
            )
        found[wrapped] = wrapper
    return found


def _type_name(value: object) -> str:
    """Name a type as otelcmd-stream-go does."""
    if isinstance(value, TraceCommand):
        return f"{type(value.command).__name__} (trace)"
    return type(value).__name__


def _peer_attributes(peer: str) -> Attributes:
    host, _, port = peer.rpartition(":")
    if host and port.isdecimal():
        return {
            "network.peer.address": host,
            "network.peer.port": int(port),
            "network.transport": "tcp",
        }
    return {"network.peer.address": peer, "network.transport": "unix"}
