import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.gateways.conformance import (
    LONG_S,
    Act,
    Clock,
    GatewayConformance,
    Paid,
    Peer,
    Scene,
    Seen,
)
from tests.gateways.relay import Relay

from cmdstream import (
    EncodeError,
    JsonCodec,
    Registry,
    Reply,
    ResultType,
    Server,
    ServerOptions,
    TaskHandler,
)
from cmdstream.wire import write_size
from coordinator.context import StepContext, in_step
from coordinator.errors import CommandDelayed, Refused
from coordinator.gateways import (
    Answer,
    BreakerOptions,
    MisconfiguredError,
    UnreadableAnswerError,
    call_headers,
)
from coordinator.gateways.cmdstream import CmdStreamGateway, CmdStreamOptions
from coordinator.gateways.cmdstream_rules import DETAILS_SIZE_MAX
from coordinator.model import Direction, StepId

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
STEP = StepContext(
    "k-1", 7, "0-1", StepId("payments.charge", 0), Direction.DO, 0, TRACE
)


@dataclass(frozen=True)
class Charge:
    """A command with all the fields that a gateway fills in."""

    order_id: str
    cents: int
    idempotency_key: str = ""
    coordinator_epoch: int = 0
    traceparent: str = ""
    coordinator_replay: bool = False


class Refund(msgspec.Struct, frozen=True):
    """One with the key alone, named as in Go."""

    id: str
    idempotency_key: str = msgspec.field(default="", name="Key")


@dataclass(frozen=True)
class Balance:
    """One that changes nothing."""

    account: str


@dataclass(frozen=True)
class Unknown:
    """One that nobody registered."""

    idempotency_key: str = ""


@dataclass(frozen=True)
class Declined:
    reason: str
    code: str


@dataclass(frozen=True)
class Busy:
    reason: str


class NotFound(msgspec.Struct, frozen=True):
    message: str = msgspec.field(name="Message")


@dataclass(frozen=True)
class Rejected:
    """With keys that are no text here, as they are none in the codec's types."""

    codes: dict[int, str]


class Sorry(str):
    """``type Sorry string``."""

    __slots__ = ()


@dataclass(frozen=True)
class Part:
    last: bool


@dataclass(frozen=True)
class Garbled:
    """What the peer's codec turns into bytes that are no Paid."""


COMMANDS = [Charge, Refund, Balance]
RESULTS: list[type[Any] | ResultType[Any]] = [
    *(Paid, Declined, Busy, NotFound, Sorry, ResultType(Part, "last")),
    Rejected,
]
CODEC = JsonCodec(Registry(COMMANDS, RESULTS))
ANSWERS = {Declined: Answer.REFUSED, Busy: Answer.UNKNOWN}


class PeerCodec(JsonCodec):
    """The peer's, which can say what the other side can't read."""

    def __init__(self) -> None:
        super().__init__(Registry(COMMANDS, RESULTS))
        sound, is_last = self.encode_result, self.is_last
        garbled = write_size(0) + write_size(6) + b"<html>"

        def encode(value: object, before: bytes = b"", /) -> bytes:
            if isinstance(value, Garbled):
                return before + garbled
            return sound(value, before)

        def last(result: object) -> bool:
            return isinstance(result, Garbled) or is_last(result)

        self.encode_result = encode
        self.is_last = last


class Payments(CmdStreamGateway):
    """What users write."""

    def __init__(self, address: str, **more: Any) -> None:
        given: dict[str, Any] = {"name": "payments", "answers": ANSWERS, **more}
        super().__init__(address, CODEC, **given)

    async def charge(self, order_id: str, cents: int) -> Paid:
        return await self.send(Charge(order_id, cents), into=Paid)


class CmdStreamPeer:
    """The peer, behind a relay that breaks what the server would not."""

    def __init__(self, relay: Relay) -> None:
        self.peer = Peer()
        self.relay = relay

    async def handle(self, command: Charge, reply: Reply) -> None:
        request = Seen(
            command.idempotency_key,
            str(command.coordinator_epoch),
            command.traceparent,
            command.order_id,
            command.cents,
        )
        act, paid = await self.peer.take(request)
        match act:
            case Act.REFUSE:
                await reply.send(Declined("declined", "do_not_honor"))
            case Act.FAIL:
                await reply.send(Busy("overloaded"))
            case Act.LOSE_REPLY:
                self.relay.cut()
                reply.finish()
            case Act.GARBLE:
                await reply.send(Garbled())
            case Act.DO | Act.HANG:
                await reply.send(paid)


Handle = Callable[[Any, Reply], Coroutine[Any, Any, None]]


@asynccontextmanager
async def serving(
    handle: Handle, options: ServerOptions | None = None
) -> AsyncGenerator[int]:
    async with Server(PeerCodec(), TaskHandler(handle), options=options) as server:
        _, port = await server.listen("127.0.0.1", 0)
        yield port


def pending(gateway: CmdStreamGateway) -> int:
    return 0 if gateway._client is None else gateway._client.pending


class TestCmdStream(GatewayConformance):
    @asynccontextmanager
    async def open(
        self, timeout_s: float, breaker: BreakerOptions, clock: Clock
    ) -> AsyncGenerator[Scene, None]:
        async def handle(command: Charge, reply: Reply) -> None:
            await server.handle(command, reply)

        async with serving(handle) as port, Relay(port) as relay:
            server = CmdStreamPeer(relay)
            async with Payments(
                f"127.0.0.1:{relay.port}",
                timeout_s=timeout_s,
                breaker=breaker,
                clock=clock,
                options=CmdStreamOptions(connect_timeout_s=LONG_S),
            ) as gateway:
                yield Scene(
                    server.peer,
                    gateway,
                    clock,
                    relay.stop,
                    relay.start,
                    lambda: pending(gateway),
                )


def with_gateway(
    handle: Handle,
    use: Callable[[Payments], Coroutine[Any, Any, object]],
    **more: Any,
) -> None:
    """Run *use*, in a step, with a gateway to *handle* that has all the time."""

    async def main() -> None:
        async with serving(handle) as port:
            given = {"timeout_s": LONG_S, **more}
            async with Payments(f"127.0.0.1:{port}", **given) as gateway:
                with in_step(STEP):
                    await use(gateway)
                assert pending(gateway) == 0

    asyncio.run(main(), debug=True)


def saying(*results: object) -> Handle:
    async def handle(command: object, reply: Reply) -> None:
        for result in results:
            await reply.send(result)

    return handle


class Keeping:
    """Answers everything, and keeps what came."""

    def __init__(self, result: object = Paid("p-1", 5)) -> None:
        self.result = result
        self.commands: list[Any] = []

    async def __call__(self, command: object, reply: Reply) -> None:
        self.commands.append(command)
        await reply.send(self.result)


def test_key_epoch_trace_and_replay_are_filled_into_the_fields_of_these_names() -> None:
    keeping = Keeping()

    async def use(gateway: Payments) -> None:
        with in_step(msgspec.structs.replace(STEP, replay=True)):
            await gateway.charge("o-1", 5)

    with_gateway(keeping, use)
    assert keeping.commands == [
        Charge(
            "o-1",
            5,
            idempotency_key="k-1",
            coordinator_epoch=7,
            traceparent=TRACE,
            coordinator_replay=True,
        )
    ]


def test_of_the_fields_only_the_key_must_be_there() -> None:
    keeping = Keeping()

    async def use(gateway: Payments) -> None:
        refund = Refund("p-1")
        await gateway.send(refund, into=Paid)
        assert refund.idempotency_key == ""

    with_gateway(keeping, use)
    assert keeping.commands == [Refund("p-1", "k-1")]


def test_the_key_is_the_same_text_as_over_http() -> None:
    keeping = Keeping()
    step = msgspec.structs.replace(STEP, idempotency_key="j/[ä %\n]")

    async def use(gateway: Payments) -> None:
        with in_step(step):
            await gateway.charge("o-1", 5)

    with_gateway(keeping, use)
    assert keeping.commands[0].idempotency_key == call_headers(step)["Idempotency-Key"]


def test_a_command_without_a_field_for_the_key_is_not_sent() -> None:
    keeping = Keeping()

    async def use(gateway: Payments) -> None:
        with pytest.raises(
            TypeError,
            match=r"Balance has no field idempotency_key.*keyless=\{Balance\}",
        ):
            await gateway.send(Balance("a"), into=Paid)
        assert gateway.health().calls == 0

    with_gateway(keeping, use)
    assert keeping.commands == []


def test_a_command_that_changes_nothing_needs_no_key_if_the_gateway_says_so() -> None:
    keeping = Keeping()

    async def use(gateway: Payments) -> None:
        assert await gateway.send(Balance("a"), into=Paid) == Paid("p-1", 5)

    with_gateway(keeping, use, options=CmdStreamOptions(keyless=frozenset({Balance})))
    assert keeping.commands == [Balance("a")]


def test_something_that_has_no_fields_at_all_has_none_for_the_key() -> None:
    async def use(gateway: Payments) -> None:
        with pytest.raises(TypeError, match="str has no field idempotency_key"):
            await gateway.send("charge", into=Paid)

    with_gateway(saying(), use)


def test_a_command_that_is_not_registered_is_a_bug_and_nothing_is_sent() -> None:
    keeping = Keeping()

    async def use(gateway: Payments) -> None:
        with pytest.raises(EncodeError, match="Unknown is not a registered command"):
            await gateway.send(Unknown(), into=Paid)
        assert gateway.health().calls == 0
        await gateway.charge("o-1", 5)

    with_gateway(keeping, use)
    assert len(keeping.commands) == 1


def test_a_refusal_has_the_reason_and_the_fields_of_its_result() -> None:
    async def use(gateway: Payments) -> None:
        with pytest.raises(Refused) as refused:
            await gateway.charge("o-1", 5)
        assert refused.value.reason == "no money"
        assert refused.value.details == {"reason": "no money", "code": "c-1"}
        assert gateway.health().failures == 0

    with_gateway(saying(Declined("no money", "c-1")), use)


@pytest.mark.parametrize(
    ("result", "reason", "details"),
    [
        (NotFound("gone"), "gone", {"Message": "gone"}),
        (Sorry("no"), "no", {}),
        (Part(last=True), "Part", {"last": True}),
        (Rejected({7: "x"}), "Rejected", {"codes": {"7": "x"}}),
        (Declined("no", "x" * DETAILS_SIZE_MAX), "Declined", {}),
        (Declined("y" * 600, ""), "y" * 500, {"reason": "y" * 600, "code": ""}),
    ],
    ids=["as in Go", "a bare string", "without a word", "keys", "too big", "long"],
)
def test_refusals_of_any_form(
    result: object, reason: str, details: dict[str, object]
) -> None:
    async def use(gateway: Payments) -> None:
        with pytest.raises(Refused) as refused:
            await gateway.charge("o-1", 5)
        assert refused.value.reason == reason
        assert refused.value.details == details

    with_gateway(saying(result), use, answers={type(result): Answer.REFUSED})


def test_a_result_that_means_not_now_is_nobody_knows() -> None:
    async def use(gateway: Payments) -> None:
        with pytest.raises(CommandDelayed, match="payments: Busy: lunch"):
            await gateway.charge("o-1", 5)
        assert gateway.health().failures == 1

    with_gateway(saying(Busy("lunch")), use)


def test_a_result_that_a_person_must_see() -> None:
    async def use(gateway: Payments) -> None:
        with pytest.raises(MisconfiguredError, match="payments: Charge: Sorry: token"):
            await gateway.charge("o-1", 5)

    with_gateway(saying(Sorry("token")), use, answers={Sorry: Answer.MISCONFIGURED})


def test_a_result_that_nobody_gave_a_meaning_is_neither_done_nor_refused() -> None:
    async def use(gateway: Payments) -> None:
        with pytest.raises(
            MisconfiguredError,
            match=r"payments answered Charge by NotFound: gone, and nobody said what "
            r"that means: into=NotFound, or answers=\{NotFound: Answer.REFUSED\}",
        ):
            await gateway.charge("o-1", 5)
        assert gateway.health().failures == 1

    with_gateway(saying(NotFound("gone")), use)


def test_results_can_be_decided_by_call() -> None:
    async def use(gateway: Payments) -> None:
        refund = Refund("p-1")
        with pytest.raises(CommandDelayed):
            await gateway.send(refund, into=Paid, answers={Declined: Answer.UNKNOWN})
        # What is asked for goes before what it means elsewhere.
        assert await gateway.send(refund, into=(Paid, Declined)) == Declined("no", "c")

    with_gateway(saying(Declined("no", "c")), use)


@pytest.mark.parametrize("into", [list[Paid], (Paid, list[Paid]), "Paid", None])
def test_an_into_that_no_result_can_be_told_by_is_found_before_sending(
    into: Any,
) -> None:
    keeping = Keeping()

    async def use(gateway: Payments) -> None:
        with pytest.raises(TypeError, match="into= takes a class, or a tuple"):
            await gateway.send(Charge("o-1", 5), into=into)
        assert gateway.health().calls == 0

    with_gateway(keeping, use)
    assert keeping.commands == []


def test_what_means_done_is_said_by_into() -> None:
    with pytest.raises(ValueError, match="into=NotFound"):
        Payments("h:1", answers={NotFound: Answer.DID})

    async def use(gateway: Payments) -> None:
        with pytest.raises(ValueError, match="into=NotFound"):
            await gateway.send(Refund("1"), into=Paid, answers={NotFound: Answer.DID})
        assert gateway._client is None

    with_gateway(saying(), use)


def test_a_command_with_several_results_is_not_a_step() -> None:
    async def use(gateway: Payments) -> None:
        with pytest.raises(MisconfiguredError, match="payments: Charge has several"):
            await gateway.charge("o-1", 5)

    with_gateway(saying(Part(last=False), Part(last=True)), use)


def test_a_service_whose_code_fails_is_nobody_knows() -> None:
    """All the protocol has for it is to hang up."""

    async def handle(command: object, reply: Reply) -> None:
        raise KeyError(command)

    async def use(gateway: Payments) -> None:
        with pytest.raises(CommandDelayed, match="payments: the peer closed"):
            await gateway.charge("o-1", 5)
        assert gateway.health().failures == 1

    with_gateway(handle, use)


def test_an_answer_that_can_not_be_read_is_only_its_own_commands() -> None:
    """The connection ends with it, and the others do not know what became of theirs."""
    both = asyncio.Barrier(2)

    async def handle(command: Charge, reply: Reply) -> None:
        await both.wait()
        if command.order_id == "garbled":
            await reply.send(Garbled())

    async def use(gateway: Payments) -> None:
        async def garbled() -> None:
            with pytest.raises(
                UnreadableAnswerError, match="payments did Charge, but its answer"
            ):
                await gateway.charge("garbled", 5)

        async with asyncio.TaskGroup() as group:
            group.create_task(garbled())
            with pytest.raises(CommandDelayed, match="payments: result Paid: "):
                await gateway.charge("other", 5)

    with_gateway(handle, use)


def test_many_calls_share_one_connection() -> None:
    async def main() -> None:
        async with serving(saying(Paid("p-1", 5))) as port, Relay(port) as relay:
            address = f"127.0.0.1:{relay.port}"
            async with Payments(address, timeout_s=LONG_S) as gateway:
                with in_step(STEP):
                    async with asyncio.TaskGroup() as group:
                        for _ in range(50):
                            group.create_task(gateway.charge("o-1", 5))
            assert relay.accepted == 1

    asyncio.run(main(), debug=True)


def test_a_late_answer_does_not_reach_the_next_call() -> None:
    released = asyncio.Event()

    async def handle(command: Charge, reply: Reply) -> None:
        if command.order_id == "late":
            await released.wait()
        await reply.send(Paid(command.order_id, command.cents))

    async def use(gateway: Payments) -> None:
        with pytest.raises(CommandDelayed, match="in time"):
            await gateway.send(Charge("late", 1), into=Paid, timeout_s=0.05)
        released.set()
        assert await gateway.charge("next", 2) == Paid("next", 2)

    with_gateway(handle, use)


def test_calls_above_the_limit_wait_for_a_place() -> None:
    at_once = most = 0
    go_on = asyncio.Event()

    async def handle(command: object, reply: Reply) -> None:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        if at_once == 2:
            go_on.set()
        await go_on.wait()
        at_once -= 1
        await reply.send(Paid("p-1", 5))

    async def use(gateway: Payments) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(10):
                group.create_task(gateway.charge("o-1", 5))

    with_gateway(handle, use, options=CmdStreamOptions(calls_max=2))
    assert most == 2


def test_a_closed_gateway_connects_again_at_the_next_call() -> None:
    async def use(gateway: Payments) -> None:
        await gateway.charge("o-1", 5)
        await gateway.aclose()
        await gateway.charge("o-1", 5)

    with_gateway(saying(Paid("p-1", 5)), use)


def test_a_service_on_a_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "payments.sock")

    async def main() -> None:
        handler = TaskHandler(saying(Paid("p-1", 5)))
        async with Server(CODEC, handler) as server:
            await server.listen_unix(path)
            async with Payments(f"unix:{path}") as gateway:
                with in_step(STEP):
                    assert await gateway.charge("o-1", 5) == Paid("p-1", 5)

    asyncio.run(main())


@pytest.mark.parametrize(
    "options",
    [
        {"calls_max": 0},
        {"connect_timeout_s": 0},
        {"keepalive_s": 0},
        {"keepalive_timeout_s": -1},
    ],
)
def test_options_out_of_their_bounds_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="cmd-stream options need"):
        CmdStreamOptions(**options)


def test_what_is_not_of_cmdstream_passes_unchanged() -> None:
    bug = KeyError("x")
    assert Payments("h:1").translate(bug) is bug
