"""The server that is killed, frozen and started twice: `coordinator serve` runs it.

Time-outs and intervals are short, so that what takes seconds in the world takes a part
of one here.
"""

import os

from tests.torture.sagas import Order, OrderFailed, Services

from coordinator import Coordinator, Options, Retry
from coordinator.gateways import BreakerOptions
from coordinator.gateways.http import HttpGateway

__all__ = ["STEP_TIMEOUT_S", "coordinator"]

STEP_TIMEOUT_S = 0.5
BREAKER = BreakerOptions(window_s=0.5, open_first_s=0.1, open_longest_s=0.2)


class HttpService(HttpGateway):
    """A service in another process."""

    async def do(self, order: str) -> str:
        """Do it, once per key."""
        return await self.post("/do", {"order": order}, into=str)

    async def undo(self, order: str) -> None:
        """Undo it, once per key."""
        await self.post("/undo", {"order": order})

    async def wait(self, order: str) -> str:
        """As `do`: what is late elsewhere is not, here."""
        return await self.do(order)


def make_service(name: str) -> HttpService:
    """Return the gateway to a service of the process that the environment names."""
    base = os.environ.get("SERVICES_URL", "http://127.0.0.1:1")
    return HttpService(
        f"{base}/{name}", name=name, breaker=BREAKER, timeout_s=STEP_TIMEOUT_S
    )


coordinator = Coordinator(
    Services(make_service),
    commands=[Order],
    failure=OrderFailed,
    options=Options(
        retry=Retry(first_s=0.02, longest_s=0.2, attempts_max=None),
        step_timeout_s=2 * STEP_TIMEOUT_S,
    ),
)
"""What is served."""
