"""The ways to call services: what every call needs, and one module per protocol.

`coordinator.gateways.http` is not imported here: it needs the extra ``http``, and
aiohttp takes half a second to import.
"""

from cmdstream.breaker import Breaker, BreakerOptions, BreakerSnapshot
from coordinator.gateways.base import (
    Gateway,
    GatewayError,
    MisconfiguredError,
    UnreadableAnswerError,
    aclose_gateways,
    call_headers,
)

__all__ = [
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
