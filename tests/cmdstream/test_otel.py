"""Spans and metrics, as the SDK of OpenTelemetry collects them in memory."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    NumberDataPoint,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from tests.cmdstream.helpers import (
    COMMANDS,
    GREETING,
    RESULTS,
    AddCmd,
    CalcResult,
    EchoCmd,
    EchoResult,
    FailCmd,
    Held,
    RangeCmd,
    RawPeer,
    RawServer,
    answer,
    answer_later,
    let_time_pass,
    result_frame,
    run,
    serving,
    until,
)

from cmdstream import (
    BreakerOptions,
    Circuit,
    CircuitOpenError,
    Client,
    CommandReceived,
    ConnectionClosedError,
    EncodeError,
    Handler,
    HookFactory,
    JsonCodec,
    Middleware,
    MusCodec,
    Registry,
    RegistryError,
    Reply,
    SendTimeoutError,
    Server,
    TaskHandler,
)
from cmdstream.otel import ClientTelemetry, ServerTelemetry, TraceCommand
from cmdstream.wire import write_size


class TracedAdd(TraceCommand, frozen=True):
    """``TraceCmd[Calc, AddCmd]``."""

    command: AddCmd


class TracedEcho(TraceCommand, frozen=True):
    """A wrapped scalar."""

    command: EchoCmd


TRACED = (TracedAdd, TracedEcho)
CODEC = JsonCodec(Registry((*COMMANDS, *TRACED), RESULTS))

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{PARENT}-01"


class Collected:
    """What was measured on one side, or both."""

    def __init__(self) -> None:
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meter_provider = MeterProvider([self._metrics], shutdown_on_exit=False)

    def client(self, traced: Sequence[type[TraceCommand]] = TRACED) -> ClientTelemetry:
        return ClientTelemetry(
            traced=traced,
            tracer_provider=self.tracer_provider,
            meter_provider=self.meter_provider,
        )

    def server(self) -> ServerTelemetry:
        return ServerTelemetry(
            tracer_provider=self.tracer_provider, meter_provider=self.meter_provider
        )

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """The spans that have ended, by their names; one each."""
        ended = self._spans.get_finished_spans()
        assert len({span.name for span in ended}) == len(ended)
        return {span.name: span for span in ended}

    @property
    def metrics(self) -> dict[str, tuple[str, list[Any]]]:
        """Unit and points of each metric."""
        data = self._metrics.get_metrics_data()
        assert data is not None
        return {
            metric.name: (metric.unit or "", list(metric.data.data_points))
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def count(self, name: str, attributes: Mapping[str, object]) -> float:
        """How often *name* was measured with just these *attributes*."""
        for point in self.metrics.get(name, ("", []))[1]:
            if point.attributes == attributes:
                if isinstance(point, HistogramDataPoint):
                    return point.count
                assert isinstance(point, NumberDataPoint)
                return point.value
        return 0


async def connect(port: int, hooks: Sequence[HookFactory]) -> Client:
    return await Client.connect("127.0.0.1", port, CODEC, hooks=hooks)


@asynccontextmanager
async def talking(
    seen: Collected,
    handler: Handler | TaskHandler = answer,
    *,
    traced: Sequence[type[TraceCommand]] = TRACED,
    inner_hooks: Sequence[HookFactory] = (),
) -> AsyncGenerator[Client]:
    """A client of a server, both measured."""
    async with (
        serving(handler, codec=CODEC, middleware=[seen.server()]) as (_, port),
        await connect(port, [seen.client(traced), *inner_hooks]) as client,
    ):
        yield client


def context_of(span: ReadableSpan) -> SpanContext:
    found = span.context
    assert isinstance(found, SpanContext)
    return found


def status_of(span: ReadableSpan) -> tuple[object, object, StatusCode]:
    attributes = span.attributes or {}
    return (
        attributes.get("cmd-stream.command.status"),
        attributes.get("error.type"),
        span.status.status_code,
    )


def traced_frame(seq: int, tag: int, body: bytes) -> bytes:
    return write_size(seq) + write_size(tag) + write_size(len(body)) + body


# A trace over both sides.


def test_a_span_of_the_server_is_the_child_of_the_client_s() -> None:
    async def main() -> None:
        seen = Collected()
        tracer = seen.tracer_provider.get_tracer("test")
        handler = TaskHandler(answer_later)
        async with (
            serving(handler, codec=CODEC, middleware=[seen.server()]) as (_, port),
            await connect(port, [seen.client()]) as client,
        ):
            with tracer.start_as_current_span("buy"):
                assert await client.send(AddCmd(1, 2)) == CalcResult(3)
            await until(lambda: len(seen.spans) == 3)
        buy = seen.spans["buy"]
        send = seen.spans["Send AddCmd (trace)"]
        invoke = seen.spans["Invoke AddCmd (trace)"]
        assert (send.kind, invoke.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
        assert send.parent == buy.context
        assert invoke.parent is not None
        assert invoke.parent.is_remote
        assert invoke.parent.span_id == context_of(send).span_id
        assert len({context_of(one).trace_id for one in (buy, send, invoke)}) == 1
        size = (send.attributes or {})["cmd-stream.command.size"]
        result_size = len(result_frame(1, CalcResult(3)))
        assert send.attributes == {
            "cmd-stream.command.type": "AddCmd (trace)",
            "cmd-stream.command.seq": 1,
            "cmd-stream.command.size": size,
            "cmd-stream.command.status": "OK",
            "network.peer.address": "127.0.0.1",
            "network.peer.port": port,
            "network.transport": "tcp",
        }
        assert invoke.attributes is not None
        assert invoke.attributes["cmd-stream.command.size"] == size
        assert invoke.attributes["cmd-stream.command.status"] == "OK"
        for span in (send, invoke):
            assert span.status.status_code is StatusCode.UNSET
            assert [(event.name, event.attributes) for event in span.events] == [
                (
                    "result",
                    {
                        "cmd-stream.result.seq": 1,
                        "cmd-stream.result.type": "CalcResult",
                        "cmd-stream.result.size": result_size,
                    },
                )
            ]

    run(main())


def test_a_trace_travels_as_the_wrapper_of_otelcmd_stream_go() -> None:
    async def main() -> None:
        seen = Collected()
        received: list[bytes] = []

        async def talk(peer: RawPeer) -> None:
            await peer.send(GREETING)
            received.append(await peer.receive(3))
            received.append(await peer.receive(received[0][2]))
            await peer.send(result_frame(1, CalcResult(3)))
            await peer.rest()

        async with (
            RawServer(talk) as server,
            await connect(server.port, [seen.client()]) as client,
        ):
            assert await client.send(AddCmd(1, 2)) == CalcResult(3)
        own = context_of(seen.spans["Send AddCmd (trace)"])
        said = f"00-{own.trace_id:032x}-{own.span_id:016x}-{own.trace_flags:02x}"
        assert received[0][:2] == bytes([1, len(COMMANDS)])
        assert received[1].decode() == (
            '{"MapCarrier":{"traceparent":"' + said + '"},"Cmd":{"A":1,"B":2}}'
        )

    run(main())


def test_in_mus_it_is_a_pointer_to_a_map_and_the_command_s_fields() -> None:
    """As Go's generator writes ``MapCarrier *map[string]string; Cmd AddCmd``."""
    codec = MusCodec(Registry([AddCmd, TracedAdd], [CalcResult]))
    traced = TracedAdd({"traceparent": TRACEPARENT}, AddCmd(2, -3))
    key, value = b"\x0btraceparent", b"\x37" + TRACEPARENT.encode()
    assert codec.encode_command(traced) == b"\2\0\1" + key + value + b"\4\5"
    assert codec.encode_command(TracedAdd(None, AddCmd(2, -3))) == b"\2\1\4\5"


@pytest.mark.parametrize(
    ("body", "parent"),
    [
        ('{"MapCarrier":{"traceparent":"%s"},"Cmd":{"A":1,"B":2}}', TRACE),
        ('{"mapcarrier":{"traceparent":"%s","x":"y"},"CMD":{"A":1,"B":2}}', TRACE),
        ('{"MapCarrier":{"traceparent":"gibberish"},"Cmd":{"A":1,"B":2}}', None),
        ('{"MapCarrier":{},"Cmd":{"A":1,"B":2}}', None),
        ('{"MapCarrier":null,"Cmd":{"A":1,"B":2}}', None),
    ],
    ids=["Go's", "as Go reads", "gibberish", "none", "nil"],
)
def test_the_parent_is_what_a_go_peer_has_written(
    body: str, parent: str | None
) -> None:
    async def main() -> None:
        seen = Collected()
        async with (
            serving(codec=CODEC, middleware=[seen.server()]) as (_, port),
            await RawPeer.connect(port) as peer,
        ):
            text = body.replace("%s", TRACEPARENT).encode()
            await peer.send(traced_frame(1, len(COMMANDS), text))
            answered = result_frame(1, CalcResult(3))
            assert await peer.receive(len(answered)) == answered
        span = seen.spans["Invoke AddCmd (trace)"]
        if parent is None:
            assert span.parent is None
        else:
            assert span.parent is not None
            assert f"{span.parent.trace_id:032x}" == parent
            assert f"{span.parent.span_id:016x}" == PARENT

    run(main())


def test_who_sends_and_who_handles_knows_nothing_of_the_wrapper() -> None:
    async def main() -> None:
        seen = Collected()
        handled: list[CommandReceived] = []
        outer: list[CommandReceived] = []

        def handle(received: CommandReceived, reply: Reply) -> None:
            handled.append(received)
            answer(received, reply)

        def look(received: CommandReceived, reply: Reply, inner: Handler) -> None:
            outer.append(received)
            inner(received, reply)

        layers: list[Middleware] = [look, seen.server()]
        async with (
            serving(handle, codec=CODEC, middleware=layers) as (_, port),
            await connect(port, [seen.client()]) as client,
        ):
            assert await client.send(EchoCmd("x")) == EchoResult("x")
        assert [received.command for received in handled] == [EchoCmd("x")]
        assert type(outer[0].command) is TracedEcho
        # What has arrived is the wrapper, and so its number and its bytes.
        assert handled[0].tag == outer[0].tag == len(COMMANDS) + 1
        assert (handled[0].body, handled[0].size) == (outer[0].body, outer[0].size)

    run(main())


def test_the_span_and_the_baggage_are_current_where_a_command_is_handled() -> None:
    async def main() -> None:
        seen = Collected()
        tracer = seen.tracer_provider.get_tracer("test")
        found: list[object] = []

        async def handle(command: object, reply: Reply) -> None:
            await asyncio.sleep(0)
            found.append(baggage.get_baggage("customer"))
            with tracer.start_as_current_span("pay"):
                await answer_later(command, reply)

        async with talking(seen, TaskHandler(handle)) as client:
            token = context.attach(baggage.set_baggage("customer", "7"))
            try:
                await client.send(AddCmd(1, 2))
            finally:
                context.detach(token)
            await until(lambda: len(seen.spans) == 3)
        assert found == ["7"]
        assert seen.spans["pay"].parent == seen.spans["Invoke AddCmd (trace)"].context

    run(main())


def test_a_command_without_a_wrapper_begins_a_trace_of_its_own_at_the_server() -> None:
    """Also where a span was current when the server was made."""

    async def main() -> None:
        seen = Collected()
        tracer = seen.tracer_provider.get_tracer("test")
        with tracer.start_as_current_span("start-up"):
            async with talking(seen, traced=()) as client:
                assert await client.send(AddCmd(1, 2)) == CalcResult(3)
        send, invoke = seen.spans["Send AddCmd"], seen.spans["Invoke AddCmd"]
        assert invoke.parent is None
        assert send.parent == seen.spans["start-up"].context

    run(main())


# How it ended.


def test_a_time_out_is_one() -> None:
    async def main() -> None:
        seen, held = Collected(), Held()
        async with talking(seen, held, traced=()) as client:
            asked = asyncio.get_running_loop().create_task(
                client.send(AddCmd(1, 2), timeout_s=5.0)
            )
            reply = await held.reply()
            let_time_pass(5.0)
            with pytest.raises(SendTimeoutError):
                await asked
            reply.finish()
        span = seen.spans["Send AddCmd"]
        assert status_of(span) == ("TIMEOUT", "SendTimeoutError", StatusCode.ERROR)
        assert "AddCmd has no last result after 5.0 s" in (
            span.status.description or ""
        )
        of = {"cmd-stream.command.type": "AddCmd"}
        timed_out = of | {"cmd-stream.command.status": "TIMEOUT"}
        assert seen.count("cmd-stream.client.command.count", timed_out) == 1

    run(main())


def test_a_cancellation_is_no_time_out() -> None:
    """W-D2: in Go it is one."""

    async def main() -> None:
        seen, held = Collected(), Held()
        async with talking(seen, held, traced=()) as client:
            asked = asyncio.get_running_loop().create_task(
                client.send(AddCmd(1, 2), timeout_s=5.0)
            )
            reply = await held.reply()
            asked.cancel()
            await asyncio.wait([asked])
            reply.finish()
        span = seen.spans["Send AddCmd"]
        assert status_of(span) == ("FAILED", "CancelledError", StatusCode.ERROR)

    run(main())


def test_a_command_that_fails_has_failed_on_both_sides() -> None:
    async def main() -> None:
        seen = Collected()

        def refuse(_received: CommandReceived, _reply: Reply) -> None:
            raise LookupError("no such order")

        async with talking(seen, refuse) as client:
            with pytest.raises(ConnectionClosedError):
                await client.send(FailCmd())
        send, invoke = seen.spans["Send FailCmd"], seen.spans["Invoke FailCmd"]
        assert status_of(send) == ("FAILED", "ConnectionClosedError", StatusCode.ERROR)
        assert status_of(invoke) == ("FAILED", "LookupError", StatusCode.ERROR)
        assert "no such order" in (invoke.status.description or "")
        of = {"cmd-stream.command.type": "FailCmd"}
        failed = of | {"cmd-stream.command.status": "FAILED"}
        assert seen.count("cmd-stream.client.command.count", failed) == 1
        assert seen.count("cmd-stream.server.command.count", failed) == 1

    run(main())


def test_a_failure_without_an_exception_is_of_no_particular_kind() -> None:
    async def main() -> None:
        seen, held = Collected(), Held()
        async with talking(seen, held) as client:
            asked = asyncio.get_running_loop().create_task(client.send(FailCmd()))
            (await held.reply()).fail("the till is closed")
            with pytest.raises(ConnectionClosedError):
                await asked
        span = seen.spans["Invoke FailCmd"]
        assert status_of(span) == ("FAILED", "_OTHER", StatusCode.ERROR)
        assert span.status.description == "the till is closed"

    run(main())


def test_what_was_not_sent_has_no_size() -> None:
    async def main() -> None:
        seen = Collected()
        async with talking(seen) as client:
            with pytest.raises(EncodeError):
                await client.send(object())
        span = seen.spans["Send object"]
        assert status_of(span) == ("FAILED", "EncodeError", StatusCode.ERROR)
        assert "cmd-stream.command.size" not in (span.attributes or {})
        assert "cmd-stream.client.command.size" not in seen.metrics
        assert "cmd-stream.client.command.duration" in seen.metrics

    run(main())


def test_as_the_first_hook_it_sees_the_veto_of_a_circuit() -> None:
    async def main() -> None:
        seen, held = Collected(), Held()
        circuit = Circuit(BreakerOptions(calls_min=1, failure_rate=1.0))
        async with talking(seen, held, traced=(), inner_hooks=[circuit]) as client:
            asked = asyncio.get_running_loop().create_task(client.send(FailCmd()))
            (await held.reply()).fail("for the test")
            with pytest.raises(ConnectionClosedError):
                await asked
            with pytest.raises(CircuitOpenError):
                await client.send(AddCmd(1, 2))
        span = seen.spans["Send AddCmd"]
        assert status_of(span) == ("FAILED", "CircuitOpenError", StatusCode.ERROR)

    run(main())


# Metrics.


def test_each_result_of_a_stream_is_counted_and_the_command_once() -> None:
    async def main() -> None:
        seen = Collected()
        async with talking(seen) as client:
            assert len([one async for one in client.stream(RangeCmd(1, 3))]) == 3
        for side in ("client", "server"):
            of = {"cmd-stream.command.type": "RangeCmd"}
            ended = of | {"cmd-stream.command.status": "OK"}
            each = of | {"cmd-stream.result.type": "StreamResult"}
            for what in ("count", "size", "duration"):
                name = f"cmd-stream.{side}"
                assert seen.count(f"{name}.command.{what}", ended) == 1
                assert seen.count(f"{name}.result.{what}", each) == 3
        for name in ("Send RangeCmd", "Invoke RangeCmd"):
            numbers = [
                (event.attributes or {})["cmd-stream.result.seq"]
                for event in seen.spans[name].events
            ]
            assert numbers == [1, 2, 3]

    run(main())


def test_the_metrics_have_the_names_and_units_of_otelcmd_stream_go() -> None:
    async def main() -> None:
        seen = Collected()
        async with talking(seen) as client:
            await client.send(AddCmd(1, 2))
        units = {name: unit for name, (unit, _) in seen.metrics.items()}
        assert units == {
            f"cmd-stream.{side}.{what}.{measured}": unit
            for side in ("client", "server")
            for what in ("command", "result")
            for measured, unit in (
                ("count", "{" + what + "}"),
                ("size", "By"),
                ("duration", "s"),
            )
        }

    run(main())


def test_results_for_a_client_that_has_left_are_not_counted() -> None:
    async def main() -> None:
        seen, held = Collected(), Held()
        async with serving(held, codec=CODEC, middleware=[seen.server()]) as (_, port):
            client = await connect(port, [])
            asked = asyncio.get_running_loop().create_task(client.send(AddCmd(1, 2)))
            reply = await held.reply()
            await client.aclose()
            await asyncio.wait([asked])
            assert isinstance(asked.exception(), ConnectionClosedError)
            await until(lambda: reply.closed)
            reply.send_nowait(CalcResult(3))
        span = seen.spans["Invoke AddCmd"]
        assert status_of(span) == ("OK", None, StatusCode.UNSET)
        assert not span.events
        assert "cmd-stream.server.result.count" not in seen.metrics

    run(main())


# The rest.


def test_a_unix_socket_has_no_port(tmp_path: Path) -> None:
    async def main() -> None:
        seen = Collected()
        path = str(tmp_path / "socket")
        async with Server(CODEC, answer) as server:
            await server.listen_unix(path)
            async with await Client.connect_unix(
                path, CODEC, hooks=[seen.client(traced=())]
            ) as client:
                await client.send(AddCmd(1, 2))
        attributes = seen.spans["Send AddCmd"].attributes or {}
        assert attributes["network.transport"] == "unix"
        assert attributes["network.peer.address"] == path
        assert "network.peer.port" not in attributes

    run(main())


def test_a_wrapper_made_by_hand_is_filled_too() -> None:
    async def main() -> None:
        seen = Collected()
        async with talking(seen, traced=()) as client:
            command = TracedAdd(None, AddCmd(1, 2))
            assert await client.send(command) == CalcResult(3)
        invoke = seen.spans["Invoke AddCmd (trace)"]
        assert invoke.parent is not None
        send = context_of(seen.spans["Send AddCmd (trace)"])
        assert invoke.parent.span_id == send.span_id

    run(main())


def test_without_an_sdk_all_goes_on_and_nothing_is_measured() -> None:
    async def main() -> None:
        telemetry = ClientTelemetry(traced=TRACED)
        async with (
            serving(codec=CODEC, middleware=[ServerTelemetry()]) as (_, port),
            await connect(port, [telemetry]) as client,
        ):
            assert await client.send(AddCmd(1, 2)) == CalcResult(3)
            assert len([one async for one in client.stream(RangeCmd(1, 3))]) == 3
        assert not trace.get_current_span().is_recording()

    run(main())


def test_a_wrapper_says_what_it_wraps_and_no_two_wrap_the_same() -> None:
    class Nothing(TraceCommand, frozen=True):
        pass

    class AlsoAdd(TraceCommand, frozen=True):
        command: AddCmd

    with pytest.raises(RegistryError, match="Nothing does not say the type"):
        ClientTelemetry(traced=[Nothing])
    with pytest.raises(RegistryError, match=r"AlsoAdd wraps AddCmd, as does TracedAdd"):
        ClientTelemetry(traced=[TracedAdd, AlsoAdd])


def python(code: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )


def test_nothing_else_imports_opentelemetry() -> None:
    done = python(
        "import sys, cmdstream, coordinator\n"
        "assert not any(name.startswith('opentelemetry') for name in sys.modules)"
    )
    assert done.returncode == 0, done.stderr


def test_without_the_package_it_says_what_to_install() -> None:
    done = python(
        "import sys\nsys.modules['opentelemetry'] = None\nimport cmdstream.otel"
    )
    assert done.returncode == 1
    assert "pip install 'coordinator[otel]'" in done.stderr
