"""Every protocol against a service in another process that really dies, or worse.

What must hold whatever happens: a call ends, in one of the answers of `Gateway`; a
refusal is never made up; and asking again under the same key does the work once.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.gateways.conformance import LONG_S
from tests.gateways.relay import Relay
from tests.gateways.service import Paid
from tests.gateways.services import PROTOCOLS, Payments, Service, gateway_to

from coordinator import Coordinator, Options, Refused, Retry, Workflow
from coordinator.context import StepContext, in_step
from coordinator.errors import CommandDelayed
from coordinator.gateways import BreakerOptions, GatewayError, aclose_gateways
from coordinator.model import Direction, StepId

pytestmark = pytest.mark.parametrize("protocol", PROTOCOLS)

SHORT_S = 0.3  # A time-out that must pass, in real time.
NEVER_OPEN = BreakerOptions(calls_min=1_000_000)

Scenario = Callable[[Service, Payments], Awaitable[None]]


def play(protocol: str, folder: Path, scenario: Scenario, **more: Any) -> None:
    async def main() -> None:
        given = {"timeout_s": LONG_S, "breaker": NEVER_OPEN, **more}
        async with Service(protocol, folder) as service:
            gateway = gateway_to(protocol, service.port, **given)
            try:
                await scenario(service, gateway)
            finally:
                await gateway.aclose()

    asyncio.run(main())


async def charge(gateway: Payments, order_id: str, cents: int = 5) -> Paid:
    """Charge as the engine would: the same order has the same key."""
    step = StepId("payments.charge", 0)
    with in_step(StepContext(f"k-{order_id}", 7, "0-1", step, Direction.DO, 0)):
        return await gateway.charge(order_id, cents)


async def nobody_knows(
    gateway: Payments, order_id: str, match: str = "payments"
) -> None:
    with pytest.raises(CommandDelayed, match=match):
        await charge(gateway, order_id)


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_service_that_is_killed_before_or_after_it_did_it_did_it_once(
    protocol: str, moment: str, tmp_path: Path
) -> None:
    async def scenario(service: Service, gateway: Payments) -> None:
        order_id = f"die-{moment}"
        await nobody_knows(gateway, order_id)
        await service.died()
        assert service.charges_ever() == ({order_id: 1} if moment == "after" else {})
        await nobody_knows(gateway, order_id)  # nobody is there
        await service.start()
        first = await charge(gateway, order_id)
        assert await charge(gateway, order_id) == first
        assert service.charges_ever() == {order_id: 1}

    play(protocol, tmp_path, scenario)


def test_all_calls_that_wait_when_the_service_is_killed_end_and_none_is_done_twice(
    protocol: str, tmp_path: Path
) -> None:
    orders = [f"hang-{number}" for number in range(20)]

    async def scenario(service: Service, gateway: Payments) -> None:
        async with asyncio.TaskGroup() as group:
            for order_id in orders:
                group.create_task(nobody_knows(gateway, order_id))
            await service.hung(len(orders))
            await service.kill()
        await service.start()
        async with asyncio.TaskGroup() as group:
            paid = [group.create_task(charge(gateway, order)) for order in orders]
        assert len({task.result().id for task in paid}) == len(orders)
        assert service.charges_ever() == dict.fromkeys(orders, 1)

    play(protocol, tmp_path, scenario)


def test_a_frozen_service_is_nobody_knows_and_its_late_answer_is_no_other_calls(
    protocol: str, tmp_path: Path
) -> None:
    async def scenario(service: Service, gateway: Payments) -> None:
        with suppress(CommandDelayed):  # the machine may be slow, too
            await charge(gateway, "first", 1)
        service.freeze()
        await nobody_knows(gateway, "late", "payments.*in time")
        service.thaw()
        assert await eventually_paid(gateway, "next", 2) == 2
        assert await eventually_paid(gateway, "late", 5) == 5
        assert await eventually_paid(gateway, "first", 1) == 1
        assert service.charges_ever() == {"first": 1, "late": 1, "next": 1}

    play(protocol, tmp_path, scenario, timeout_s=SHORT_S)


def test_a_service_that_is_frozen_when_it_is_first_asked_is_nobody_knows(
    protocol: str, tmp_path: Path
) -> None:
    """The machine takes the connection for it."""

    async def scenario(service: Service, gateway: Payments) -> None:
        service.freeze()
        await nobody_knows(gateway, "o-1")
        service.thaw()
        assert await eventually_paid(gateway, "o-1", 5) == 5
        assert service.charges_ever() == {"o-1": 1}

    play(protocol, tmp_path, scenario, timeout_s=SHORT_S)


async def eventually_paid(gateway: Payments, order_id: str, cents: int) -> int:
    while True:
        with suppress(CommandDelayed):
            return (await charge(gateway, order_id, cents)).cents


def test_a_service_that_was_restarted_between_calls_is_found_again(
    protocol: str, tmp_path: Path
) -> None:
    async def scenario(service: Service, gateway: Payments) -> None:
        for life in range(3):
            # Its end may be seen only by the call that meets with it: one is enough.
            with suppress(CommandDelayed):
                await charge(gateway, f"o-{life}")
            await charge(gateway, f"o-{life}")
            await service.kill()
            await service.start()
        assert service.charges_ever() == {"o-0": 1, "o-1": 1, "o-2": 1}

    play(protocol, tmp_path, scenario)


def test_a_refusal_of_a_service_that_comes_and_goes_stays_a_refusal(
    protocol: str, tmp_path: Path
) -> None:
    async def scenario(service: Service, gateway: Payments) -> None:
        for _ in range(2):
            with pytest.raises(Refused, match="no money"):
                await charge(gateway, "refuse")
            await service.kill()
            await nobody_knows(gateway, "refuse")
            await service.start()

    play(protocol, tmp_path, scenario)


GARBAGE = {
    "nothing": b"",
    "zeros": bytes(300),
    "text": b"SSH-2.0-OpenSSH_9.6\r\n" * 15,
    "noise": random.Random(1).randbytes(300),
}


@pytest.mark.parametrize("garbage", GARBAGE.values(), ids=GARBAGE)
def test_an_answer_that_breaks_off_anywhere_is_neither_done_nor_refused(
    protocol: str, garbage: bytes, tmp_path: Path
) -> None:
    """And what comes instead of the rest, before the connection ends, is no answer."""

    async def scenario(service: Service, _: Payments) -> None:
        async with Relay(service.port) as relay:
            relay.answer_size_max = 1_000_000
            await over(relay, "whole")
            whole = relay.answer_size
            # About fifty places, among them all of the first and the last few.
            places = {*range(8), *range(8, whole, 1 + whole // 40)}
            places |= set(range(whole - 8, whole))
            relay.garbage = garbage
            for place in sorted(places):
                relay.answer_size_max = place
                with suppress(CommandDelayed, GatewayError):
                    # HTTP/2 says good-bye behind the answer: that may be cut off.
                    assert await over(relay, f"cut-{place}") == 5
            relay.answer_size_max = None
            for place in places:
                assert await over(relay, f"cut-{place}") == 5
        orders = {"whole", *(f"cut-{place}" for place in places)}
        assert service.charges_ever() == dict.fromkeys(orders, 1)

    async def over(relay: Relay, order_id: str) -> int:
        gateway = gateway_to(protocol, relay.port, timeout_s=LONG_S)
        try:
            return (await charge(gateway, order_id)).cents
        finally:
            await gateway.aclose()

    play(protocol, tmp_path, scenario)


class Shop:
    def __init__(self, payments: Payments) -> None:
        self.payments = payments

    async def aclose(self) -> None:
        await aclose_gateways(self)


@dataclass(frozen=True)
class Order:
    """Pays a deposit, and then the rest, which may be refused."""

    number: int
    deposit: str
    rest: str

    def key(self) -> str:
        return str(self.number)

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        charge = workflow.step(shop.payments.charge, self.deposit, 5)
        deposit = await charge.undo(shop.payments.refund)
        rest = await workflow.step(shop.payments.charge, self.rest, 95)
        return f"{deposit.id} {rest.id}"


KINDS = [
    ("o", "o"),
    ("die-before", "o"),
    ("o", "refuse"),
    ("die-after", "refuse"),
    ("o", "die-after"),
]


def test_sagas_end_well_while_the_service_dies_again_and_again(
    protocol: str, tmp_path: Path
) -> None:
    orders = [
        Order(number, f"{first}-{number}-a", f"{second}-{number}-b")
        for number, (first, second) in enumerate(KINDS * 2)
    ]

    async def revive(service: Service) -> None:
        while True:
            await service.died()
            await service.start()

    async def end_of(coordinator: Coordinator[Shop], order: Order) -> str:
        try:
            return await coordinator.execute(order)
        except Refused as refused:
            return refused.reason

    async def main() -> None:
        async with Service(protocol, tmp_path) as service:
            shop = Shop(
                gateway_to(
                    protocol,
                    service.port,
                    timeout_s=LONG_S,
                    breaker=BreakerOptions(
                        window_s=1, open_first_s=0.05, open_longest_s=0.1
                    ),
                )
            )
            async with (
                Coordinator(
                    shop,
                    commands=[Order],
                    journal="memory:",
                    options=Options(retry=Retry(first_s=0.02, longest_s=0.1)),
                ) as coordinator,
                asyncio.TaskGroup() as group,
            ):
                reviving = group.create_task(revive(service))
                async with asyncio.TaskGroup() as customers:
                    ends = [
                        customers.create_task(end_of(coordinator, order))
                        for order in orders
                    ]
                reviving.cancel()
            for order, end in zip(orders, ends, strict=True):
                refused = order.rest.startswith("refuse")
                assert ("no money" in end.result()) == refused
            ever, now = service.charges_ever(), service.charges()
            for order in orders:
                paid = not order.rest.startswith("refuse")
                assert ever[order.deposit] == 1
                assert now[order.deposit] == paid
                assert ever.get(order.rest, 0) == paid

    asyncio.run(main())
