"""The ways to call services: what every call needs, and one module per protocol.

`coordinator.gateways.http` and `.grpc` are not imported here: they need the extras of
those names, and aiohttp takes half a second to import. Nor is `.cmdstream`, which needs
none.
"""

from cmdstream.breaker import Breaker, BreakerOptions, BreakerSnapshot
from coordinator.gateways.base import (
    Answer,
    Gateway,
    GatewayError,
    MisconfiguredError,
    UnreadableAnswerError,
    aclose_gateways,
    call_headers,
)

__all__ = [
    "Answer",
    "Breaker",
    "BreakerOptions",
    "BreakerSnapshot",
    "Gateway",
    "GatewayError",
    "MisconfiguredError",
    "UnreadableAnswerError",
    "aclose_gateways",
    "call_headers",
]
