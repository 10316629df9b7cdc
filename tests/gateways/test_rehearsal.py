"""A saga over the gateways of all protocols, rehearsed: no service, no socket."""

from dataclasses import dataclass

import pytest
from tests.gateways.service import Paid
from tests.gateways.services import PROTOCOLS, Payments, gateway_to

from coordinator import Workflow
from coordinator.gateways import aclose_gateways
from coordinator.testing import Rehearsal, RehearsalError


class Shop:
    def __init__(self, protocol: str) -> None:
        self.payments: Payments = gateway_to(protocol, 9)

    async def aclose(self) -> None:
        await aclose_gateways(self)


@dataclass
class Pay:
    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        charge = workflow.step(shop.payments.charge, "o-1", 5)
        return (await charge.undo(shop.payments.refund)).id


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_gateway_is_rehearsed_without_a_socket(protocol: str) -> None:
    with Rehearsal(Shop(protocol), commands=[Pay]) as rehearsal:
        rehearsal.services.returns("payments.charge", Paid("p-1", 5))
        rehearsal.services.lose_reply("payments.charge")
        assert rehearsal.submit(Pay()).result() == "p-1"


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_who_asks_for_the_network_is_told_what_to_write(protocol: str) -> None:
    with (
        Rehearsal(Shop(protocol), commands=[Pay]) as rehearsal,
        pytest.raises(RehearsalError, match="no network in a rehearsal"),
    ):
        rehearsal.submit(Pay()).result()
