"""The peer of the gateways' tests behind a real gRPC server, and services of a line.

Messages are JSON here; to gRPC they are bytes, as Protobuf is. `PaymentsStub` has the
shape that protoc's plugin gives to a stub.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import grpc
import grpc.aio
import msgspec
from tests.gateways.conformance import Act, Paid, Peer, Seen
from tests.gateways.relay import Relay
from tests.gateways.rpc_status import error_info, status

__all__ = [
    "DETAILS",
    "ChargeRequest",
    "Context",
    "GrpcPeer",
    "Handler",
    "PaymentsStub",
    "handlers",
    "serving",
]

Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]
Handler = Callable[[bytes, Any], Awaitable[Any]]

DETAILS = "grpc-status-details-bin"


class ChargeRequest(msgspec.Struct, frozen=True):
    order_id: str
    cents: int


# A word of generated code alone: the types of grpcio do not have it.
_REGISTERED: dict[str, Any] = {"_registered_method": True}


class PaymentsStub:
    """As generated: one attribute for each method of the service."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.Charge: grpc.aio.UnaryUnaryMultiCallable[ChargeRequest, Paid]
        self.Charge = channel.unary_unary(
            "/shop.Payments/Charge",
            request_serializer=msgspec.json.encode,
            response_deserializer=msgspec.json.Decoder(Paid).decode,
            **_REGISTERED,
        )
        self.Watch: grpc.aio.UnaryStreamMultiCallable[ChargeRequest, Paid]
        self.Watch = channel.unary_stream(
            "/shop.Payments/Watch",
            request_serializer=msgspec.json.encode,
            response_deserializer=msgspec.json.Decoder(Paid).decode,
            **_REGISTERED,
        )


def handlers(charge: Handler) -> grpc.GenericRpcHandler:
    """A service whose one method takes and gives bytes."""
    method: grpc.RpcMethodHandler[bytes, bytes]
    method = grpc.unary_unary_rpc_method_handler(charge)
    return grpc.method_handlers_generic_handler("shop.Payments", {"Charge": method})


@asynccontextmanager
async def serving(
    charge: Handler,
    credentials: grpc.ServerCredentials | None = None,
    host: str = "127.0.0.1",
) -> AsyncGenerator[int]:
    """Serve *charge*; give the port."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handlers(charge),))
    if credentials is None:
        port = server.add_insecure_port(f"{host}:0")
    else:
        port = server.add_secure_port(f"{host}:0", credentials)
    await server.start()
    try:
        yield port
    finally:
        await server.stop(None)


class GrpcPeer:
    """The peer, behind a relay that breaks what gRPC would not."""

    def __init__(self, relay: Relay) -> None:
        self.peer = Peer()
        self.relay = relay

    async def charge(self, content: bytes, context: Context) -> bytes:
        metadata = dict(context.invocation_metadata() or ())
        request = msgspec.json.decode(content, type=ChargeRequest)
        act, paid = await self.peer.take(
            Seen(
                str(metadata["idempotency-key"]),
                str(metadata["coordinator-epoch"]),
                str(metadata.get("traceparent", "")),
                request.order_id,
                request.cents,
            )
        )
        match act:
            case Act.REFUSE:
                info = error_info("DECLINED", metadata={"code": "do_not_honor"})
                await context.abort(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "declined",
                    trailing_metadata=((DETAILS, status(info)),),
                )
            case Act.FAIL:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "overloaded")
            case Act.LOSE_REPLY:
                self.relay.cut()
                await asyncio.Event().wait()  # until the server is told that it is cut
            case Act.GARBLE:
                return b"<html>"
            case Act.DO | Act.HANG:
                return msgspec.json.encode(paid)
        raise AssertionError(act)
