import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import msgspec
import pytest
from tests.gateways.conformance import (
    LONG_S,
    Clock,
    GatewayConformance,
    Paid,
    Scene,
)
from tests.gateways.grpc_peer import (
    DETAILS,
    ChargeRequest,
    Context,
    GrpcPeer,
    Handler,
    PaymentsStub,
    serving,
)
from tests.gateways.relay import Relay
from tests.gateways.rpc_status import error_info, retry_info, status

from coordinator.context import StepContext, in_step
from coordinator.errors import CommandDelayed, Refused
from coordinator.gateways import (
    Answer,
    BreakerOptions,
    MisconfiguredError,
    UnreadableAnswerError,
)
from coordinator.gateways.grpc import GrpcGateway, GrpcOptions
from coordinator.model import Direction, StepId

STEP = StepContext("k-1", 7, "0-1", StepId("payments.charge", 0), Direction.DO, 0)
REQUEST = ChargeRequest("o-1", 5)

Code = grpc.StatusCode


class Payments(GrpcGateway):
    """What users write."""

    def __init__(self, target: str, **more: Any) -> None:
        given: dict[str, Any] = {"name": "payments", **more}
        super().__init__(target, **given)
        self.stub = PaymentsStub(self.channel)

    async def charge(self, order_id: str, cents: int) -> Paid:
        request = ChargeRequest(order_id=order_id, cents=cents)
        return await self.unary(self.stub.Charge, request)


class TestGrpc(GatewayConformance):
    @asynccontextmanager
    async def open(
        self, timeout_s: float, breaker: BreakerOptions, clock: Clock
    ) -> AsyncGenerator[Scene, None]:
        async def charge(content: bytes, context: Context) -> bytes:
            return await server.charge(content, context)

        async with serving(charge) as port, Relay(port) as relay:
            server = GrpcPeer(relay)
            async with Payments(
                f"127.0.0.1:{relay.port}",
                timeout_s=timeout_s,
                breaker=breaker,
                clock=clock,
                options=GrpcOptions(connect_timeout_s=LONG_S),
            ) as gateway:
                yield Scene(
                    server.peer,
                    gateway,
                    clock,
                    relay.stop,
                    relay.start,
                    lambda: gateway._in_flight,
                )
                server.peer.released.set()


def with_gateway(
    handler: Handler,
    use: Callable[[Payments], Coroutine[Any, Any, object]],
    **more: Any,
) -> None:
    """Run *use*, in a step, with a gateway to *handler* that has all the time."""

    async def main() -> None:
        async with serving(handler) as port:
            given = {"timeout_s": LONG_S, **more}
            async with Payments(f"127.0.0.1:{port}", **given) as gateway:
                with in_step(STEP):
                    await use(gateway)
                assert gateway._in_flight == 0

    asyncio.run(main(), debug=True)


def saying(code: Code, text: str = "", details: bytes = b"") -> Handler:
    async def charge(content: bytes, context: Context) -> bytes:
        trailing = ((DETAILS, details),) if details else ()
        await context.abort(code, text, trailing_metadata=trailing)
        raise AssertionError

    return charge


async def echo(content: bytes, context: Context) -> bytes:
    """Answer with the metadata that arrived, as a payment's id."""
    metadata = dict(context.invocation_metadata() or ())
    return msgspec.json.encode(Paid(msgspec.json.encode(metadata).decode(), 5))


async def paid(content: bytes, context: Context) -> bytes:
    return msgspec.json.encode(Paid("p-1", 5))


ERROR_CODES = [code for code in Code if code is not Code.OK]


@pytest.mark.parametrize("code", ERROR_CODES, ids=lambda code: code.name)
def test_every_code_arrives_as_what_it_means(code: Code) -> None:
    kinds: dict[Code, type[Exception]] = {
        Code.INVALID_ARGUMENT: Refused,
        Code.NOT_FOUND: Refused,
        Code.FAILED_PRECONDITION: Refused,
        Code.OUT_OF_RANGE: Refused,
        Code.ALREADY_EXISTS: MisconfiguredError,
        Code.PERMISSION_DENIED: MisconfiguredError,
        Code.UNAUTHENTICATED: MisconfiguredError,
        Code.UNIMPLEMENTED: MisconfiguredError,
        Code.DATA_LOSS: MisconfiguredError,
    }
    kind = kinds.get(code, CommandDelayed)

    async def use(gateway: Payments) -> None:
        with pytest.raises(Exception, match="no stock") as raised:
            await gateway.charge("o-1", 5)
        assert type(raised.value) is kind
        if kind is Refused:
            assert raised.value.details == {"status": code.name}  # type: ignore[attr-defined]  # of a Refused
        else:
            assert "payments" in str(raised.value)
            assert code.name in str(raised.value)
        assert gateway.health().failures == (kind is not Refused)

    with_gateway(saying(code, "no stock"), use)


def test_a_refusal_has_the_reason_and_details_of_its_error_info() -> None:
    info = error_info("DECLINED", "bank.example", {"code": "do_not_honor"})

    async def use(gateway: Payments) -> None:
        with pytest.raises(Refused) as refused:
            await gateway.charge("o-1", 5)
        assert refused.value.reason == "no"
        assert refused.value.details == {
            "code": "do_not_honor",
            "reason": "DECLINED",
            "domain": "bank.example",
            "status": "FAILED_PRECONDITION",
        }

    with_gateway(saying(Code.FAILED_PRECONDITION, "no", status(info)), use)


def test_a_refusal_without_a_word_has_its_code_as_the_reason() -> None:
    async def use(gateway: Payments) -> None:
        with pytest.raises(Refused) as refused:
            await gateway.charge("o-1", 5)
        assert refused.value.reason == "NOT_FOUND"

    with_gateway(saying(Code.NOT_FOUND), use)


def test_the_time_that_the_service_asks_for_is_handed_on() -> None:
    async def use(gateway: Payments) -> None:
        with pytest.raises(CommandDelayed, match="slow down") as delayed:
            await gateway.charge("o-1", 5)
        assert delayed.value.retry_after_s == 7.5

    details = status(retry_info(7, 500_000_000))
    with_gateway(saying(Code.RESOURCE_EXHAUSTED, "slow down", details), use)


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (Code.UNIMPLEMENTED, r"\.proto"),
        (Code.UNAUTHENTICATED, "metadata="),
        (Code.PERMISSION_DENIED, r"GrpcOptions\.credentials"),
        (Code.ALREADY_EXISTS, r"answers=\{StatusCode.ALREADY_EXISTS: Answer.DID\}"),
        (Code.DATA_LOSS, r"answers=\{StatusCode.DATA_LOSS: Answer.REFUSED\}"),
    ],
)
def test_a_message_for_a_person_says_what_to_do(code: Code, hint: str) -> None:
    async def use(gateway: Payments) -> None:
        with pytest.raises(MisconfiguredError, match=hint) as raised:
            await gateway.charge("o-1", 5)
        assert str(raised.value).startswith(
            f"payments: /shop.Payments/Charge: {code.name}: no"
        )

    with_gateway(saying(code, "no"), use)


def test_a_refusal_that_names_the_key_is_none_and_the_message_says_so() -> None:
    async def use(gateway: Payments) -> None:
        with pytest.raises(MisconfiguredError, match="it is about the idempotency key"):
            await gateway.charge("o-1", 5)

    handler = saying(Code.FAILED_PRECONDITION, "idempotency-key in use")
    with_gateway(handler, use)


def test_codes_can_be_decided_by_gateway_and_by_call() -> None:
    async def use(gateway: Payments) -> None:
        charge = gateway.stub.Charge
        with pytest.raises(Refused):
            await gateway.unary(charge, REQUEST)
        with pytest.raises(CommandDelayed):
            await gateway.unary(
                charge, REQUEST, answers={Code.ALREADY_EXISTS: Answer.UNKNOWN}
            )

    answers = {Code.ALREADY_EXISTS: Answer.REFUSED}
    with_gateway(saying(Code.ALREADY_EXISTS), use, answers=answers)


def test_a_code_that_means_done_gives_an_empty_message() -> None:
    class Empty(Payments):
        async def refund(self) -> bytes:
            method: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]
            method = self.channel.unary_unary("/shop.Payments/Charge")
            done = {Code.NOT_FOUND: Answer.DID}
            return await self.unary(method, b"", answers=done)

    async def main() -> None:
        async with (
            serving(saying(Code.NOT_FOUND)) as port,
            Empty(f"127.0.0.1:{port}") as gateway,
        ):
            with in_step(STEP):
                assert await gateway.refund() == b""
            assert gateway.health().failures == 0

    asyncio.run(main())


def test_a_code_that_means_done_where_no_message_may_be_empty_is_unreadable() -> None:
    async def use(gateway: Payments) -> None:
        with pytest.raises(UnreadableAnswerError, match=r"did /shop\.Payments/Charge"):
            await gateway.unary(
                gateway.stub.Charge, REQUEST, answers={Code.NOT_FOUND: Answer.DID}
            )

    with_gateway(saying(Code.NOT_FOUND), use)


def test_what_is_sent_is_what_was_said() -> None:
    async def use(gateway: Payments) -> None:
        reply = await gateway.unary(
            gateway.stub.Charge, REQUEST, metadata={"X-Tenant": "t", "accept": "x"}
        )
        sent = msgspec.json.decode(reply.id, type=dict[str, str])
        assert sent["idempotency-key"] == "k-1"
        assert sent["coordinator-epoch"] == "7"
        assert sent["authorization"] == "Bearer t-1"
        assert (sent["x-tenant"], sent["accept"]) == ("t", "x")
        assert "traceparent" not in sent
        assert "coordinator-replay" not in sent

    with_gateway(echo, use, metadata={"Authorization": "Bearer t-1"})


def test_the_service_is_told_how_long_it_has() -> None:
    remaining: list[float] = []

    async def charge(content: bytes, context: Context) -> bytes:
        left_s = context.time_remaining()
        assert left_s is not None
        remaining.append(left_s)
        return await paid(content, context)

    async def use(gateway: Payments) -> None:
        await gateway.charge("o-1", 5)
        await gateway.unary(gateway.stub.Charge, REQUEST, timeout_s=2 * LONG_S)

    with_gateway(charge, use)
    # Roughly: gRPC sends a long time in coarse units, rounded up.
    assert 0 < remaining[0] < 1.5 * LONG_S < remaining[1]


def test_credentials_that_change_are_asked_for_each_time() -> None:
    tokens = iter(["t-1", "t-2"])

    async def use(gateway: Payments) -> None:
        for token in ("t-1", "t-2"):
            reply = await gateway.charge("o-1", 5)
            assert f'"authorization":"{token}"' in reply.id

    with_gateway(echo, use, metadata=lambda: {"authorization": next(tokens)})


def test_a_request_that_can_not_be_serialized_is_a_bug_and_nothing_is_sent() -> None:
    """grpc.aio itself logs it, and sends an empty message."""
    arrived: list[bytes] = []

    async def charge(content: bytes, context: Context) -> bytes:
        arrived.append(content)
        return await paid(content, context)

    async def use(gateway: Payments) -> None:
        unsendable: Any = object()
        with pytest.raises(TypeError, match="object"):
            await gateway.unary(gateway.stub.Charge, unsendable)
        assert gateway.health().calls == 0

    with_gateway(charge, use)
    assert arrived == []


def test_a_method_with_streams_is_not_a_step() -> None:
    async def use(gateway: Payments) -> None:
        watch: Any = gateway.stub.Watch
        with pytest.raises(TypeError, match=r"/shop\.Payments/Watch has streams"):
            await gateway.unary(watch, REQUEST)

    with_gateway(paid, use)


def test_a_method_of_another_channel_is_refused() -> None:
    async def use(gateway: Payments) -> None:
        async with grpc.aio.insecure_channel("127.0.0.1:9") as channel:
            foreign = PaymentsStub(channel)
            with pytest.raises(TypeError, match=r"PaymentsStub\(self\.channel\)"):
                await gateway.unary(foreign.Charge, REQUEST)

    with_gateway(paid, use)


def test_a_stubs_method_is_not_called_past_the_gateway() -> None:
    gateway = Payments("127.0.0.1:9")
    with pytest.raises(TypeError, match=r"self\.unary\(stub\.Charge, request\)"):
        gateway.stub.Charge(REQUEST)


def test_calls_above_the_limit_wait_for_a_place() -> None:
    at_once = most = 0
    go_on = asyncio.Event()

    async def charge(content: bytes, context: Context) -> bytes:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 2:
            go_on.set()
        await go_on.wait()
        at_once -= 1
        return await paid(content, context)

    async def use(gateway: Payments) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(gateway.charge("o-1", 5))

    with_gateway(charge, use, options=GrpcOptions(calls_max=2))
    assert most == 2


def test_a_closed_gateway_opens_again_at_the_next_call() -> None:
    async def use(gateway: Payments) -> None:
        await gateway.charge("o-1", 5)
        await gateway.aclose()
        await gateway.charge("o-1", 5)

    with_gateway(paid, use)


@pytest.mark.parametrize(
    "options",
    [
        {"calls_max": 0},
        {"connect_timeout_s": 0},
        {"keepalive_s": 0},
        {"keepalive_timeout_s": -1},
        {"response_size_max": 0},
    ],
)
def test_options_out_of_their_bounds_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="grpc options need"):
        GrpcOptions(**options)


def test_the_users_channel_arguments_go_before_ours() -> None:
    name = "grpc.max_receive_message_length"
    given = (("grpc.lb_policy_name", "round_robin"), (name, 7))
    arguments = dict(GrpcOptions(channel=given).arguments())
    assert arguments["grpc.lb_policy_name"] == "round_robin"
    assert arguments[name] == 7


@pytest.mark.parametrize("target", ["", "http://payments"])
def test_a_target_that_is_none_is_refused(target: str) -> None:
    with pytest.raises(ValueError, match="target must be"):
        Payments(target)


def test_what_is_not_of_grpc_passes_unchanged() -> None:
    bug = KeyError("x")
    assert Payments("h:1").translate(bug) is bug


def test_without_grpcio_the_package_imports_and_the_message_says_what_to_install() -> (
    None
):
    code = """
import sys
sys.modules["grpc"] = None
import coordinator.gateways
assert "coordinator.gateways.grpc" not in sys.modules
try:
    import coordinator.gateways.grpc
except ModuleNotFoundError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": "src"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "pip install 'coordinator[grpc]'" in done.stdout
