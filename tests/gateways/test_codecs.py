"""The cmd-stream gateway with every codec: what it fills in, and what a refusal has."""

import asyncio
from dataclasses import dataclass
from typing import Any

import msgspec
import pytest
from tests.gateways.conformance import LONG_S
from tests.gateways.messages import make
from tests.gateways.test_cmdstream import STEP, TRACE

from cmdstream import Codec, JsonCodec, Registry, Reply, Server, TaskHandler
from cmdstream.codecs.mus import MusCodec
from cmdstream.codecs.protobuf import ProtobufCodec
from coordinator.context import in_step
from coordinator.errors import Refused
from coordinator.gateways import Answer
from coordinator.gateways.cmdstream import CmdStreamGateway


@dataclass(frozen=True)
class Charge:
    order_id: str
    cents: int
    idempotency_key: str = ""
    coordinator_epoch: int = 0
    traceparent: str = ""
    coordinator_replay: bool = False


@dataclass(frozen=True)
class Paid:
    id: str
    cents: int


@dataclass(frozen=True)
class Declined:
    reason: str
    code: int


class Struct(msgspec.Struct, frozen=True):
    order_id: str
    cents: int
    idempotency_key: str = ""
    coordinator_epoch: int = 0
    traceparent: str = ""
    coordinator_replay: bool = False


ChargeMessage = make(
    "Charge",
    order_id=str,
    cents=int,
    idempotency_key=str,
    coordinator_epoch=int,
    traceparent=str,
    coordinator_replay=bool,
)
PaidMessage = make("Paid", id=str, cents=int)
DeclinedMessage = make("Declined", reason=str, code=int)


@dataclass(frozen=True)
class Case:
    """A codec, and the types of its registry."""

    codec: Codec
    charge: Any
    paid: Any
    declined: Any


RESULTS = (Paid, Declined)
MESSAGES = (PaidMessage, DeclinedMessage)
CASES = {
    "json": Case(JsonCodec(Registry([Charge], RESULTS)), Charge, *RESULTS),
    "json-struct": Case(JsonCodec(Registry([Struct], RESULTS)), Struct, *RESULTS),
    "mus": Case(MusCodec(Registry([Charge], RESULTS)), Charge, *RESULTS),
    "mus-struct": Case(MusCodec(Registry([Struct], RESULTS)), Struct, *RESULTS),
    "protobuf": Case(
        ProtobufCodec(Registry([ChargeMessage], MESSAGES)), ChargeMessage, *MESSAGES
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_key_epoch_trace_and_refusals_pass_in_every_codec(case: Case) -> None:
    commands: list[Any] = []

    async def handle(command: Any, reply: Reply) -> None:
        commands.append(command)
        if command.order_id == "refuse":
            await reply.send(case.declined(reason="no money", code=51))
        else:
            await reply.send(case.paid(id="p-1", cents=command.cents))

    async def main() -> None:
        async with Server(case.codec, TaskHandler(handle)) as server:
            host, port = await server.listen("127.0.0.1", 0)
            gateway = CmdStreamGateway(
                f"{host}:{port}",
                case.codec,
                name="payments",
                timeout_s=LONG_S,
                answers={case.declined: Answer.REFUSED},
            )
            async with gateway:
                with in_step(STEP):
                    command = case.charge(order_id="o-1", cents=5)
                    paid: Any = await gateway.send(command, into=case.paid)
                    assert (paid.id, paid.cents) == ("p-1", 5)
                    assert command == case.charge(order_id="o-1", cents=5)
                with in_step(msgspec.structs.replace(STEP, replay=True)):
                    command = case.charge(order_id="refuse", cents=5)
                    with pytest.raises(Refused) as refused:
                        await gateway.send(command, into=case.paid)
                assert refused.value.reason == "no money"
                assert refused.value.details == {"reason": "no money", "code": 51}

    asyncio.run(main())
    filled = {
        "idempotency_key": "k-1",
        "coordinator_epoch": 7,
        "traceparent": TRACE,
        "cents": 5,
    }
    assert commands == [
        case.charge(order_id="o-1", coordinator_replay=False, **filled),
        case.charge(order_id="refuse", coordinator_replay=True, **filled),
    ]
