"""What every gateway must do, whatever its protocol.

A protocol's tests derive from `GatewayConformance`, say in `open` how a `Peer` is
reached over that protocol, and inherit the tests:

    class TestHttp(GatewayConformance):
        def open(self, timeout_s, breaker, clock):
            ...

The peer is one payment service that does what a test tells it to. It is idempotent, as
services must be. Where a test must wait it waits for the peer's events; the breaker's
clock is in the test's hand.
"""

import asyncio
import enum
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import pytest

from cmdstream.breaker import BreakerState
from coordinator.context import StepContext, in_step
from coordinator.errors import CommandBlocked, CommandDelayed, Refused
from coordinator.gateways import (
    BreakerOptions,
    BreakerSnapshot,
    GatewayError,
)
from coordinator.model import Direction, StepId

LONG_S = 600.0  # A time-out that no test waits for; the machine may be busy.
SHORT_S = 0.05  # A time-out that must pass, in real time.

BREAKER = BreakerOptions(
    calls_min=4, failure_rate=0.5, open_first_s=10, trials_max=1, trials_to_close=1
)


class Act(enum.Enum):
    """What the service does with one request."""

    DO = "does it and answers"
    REFUSE = "does not do it, and says why"
    FAIL = "says that it failed, and does not say at what"
    LOSE_REPLY = "does it, and the connection breaks before the answer"
    HANG = "takes the request and does nothing until it is released; then does it"
    GARBLE = "does it and answers what nobody can read"


@dataclass(frozen=True)
class Seen:
    """One request as it came over the wire."""

    key: str
    epoch: str
    trace: str
    order_id: str
    cents: int


class Paid(msgspec.Struct, frozen=True):
    id: str
    cents: int


@dataclass
class Peer:
    """The payment service, without its protocol."""

    acts: deque[Act] = field(default_factory=deque[Act])
    """What to do with the next requests; then `Act.DO`."""
    seen: list[Seen] = field(default_factory=list[Seen])
    paid: dict[str, Paid] = field(default_factory=dict[str, Paid])
    """What it did, by idempotency key."""
    arrivals: asyncio.Queue[Seen] = field(default_factory=asyncio.Queue[Seen])
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: Seen) -> tuple[Act, Paid]:
        """Do what the script says; the protocol then answers as the act says."""
        self.seen.append(request)
        self.arrivals.put_nowait(request)
        act = self.acts.popleft() if self.acts else Act.DO
        if act is Act.HANG:
            await self.released.wait()
        paid = Paid(f"payment-{len(self.paid)}", request.cents)
        if act not in {Act.REFUSE, Act.FAIL}:
            paid = self.paid.setdefault(request.key, paid)
        return act, paid


class PaymentsGateway(Protocol):
    """What a protocol's gateway to the peer must offer to the tests."""

    service_name: str

    async def charge(self, order_id: str, cents: int) -> Paid: ...

    def health(self) -> BreakerSnapshot: ...

    async def aclose(self) -> None: ...


@dataclass
class Clock:
    now_s: float = 1000.0

    def __call__(self) -> float:
        return self.now_s


@dataclass
class Scene:
    """A peer that can be reached, and the gateway to it."""

    peer: Peer
    gateway: PaymentsGateway
    clock: Clock
    vanish: Callable[[], Awaitable[None]]
    """Break all connections and take no new ones."""
    come_back: Callable[[], Awaitable[None]]
    in_use: Callable[[], int]
    """How many of the gateway's connections (or calls) are busy."""

    async def charge(self, key: str = "k-1", cents: int = 5, trace: str = "") -> Paid:
        """Charge as the engine would, in a step."""
        step = StepId("payments.charge", 0)
        context = StepContext(key, 7, "0-1", step, Direction.DO, 0, trace)
        with in_step(context):
            return await self.gateway.charge("o-1", cents)

    async def break_circuit(self) -> None:
        self.peer.acts.extend([Act.FAIL] * BREAKER.calls_min)
        for _ in range(BREAKER.calls_min):
            with pytest.raises(CommandDelayed):
                await self.charge()
        assert self.gateway.health().state is BreakerState.OPEN


Scenario = Callable[[Scene], Awaitable[None]]


class GatewayConformance(ABC):
    @abstractmethod
    def open(
        self, timeout_s: float, breaker: BreakerOptions, clock: Clock
    ) -> AbstractAsyncContextManager[Scene]:
        """Start a peer and a gateway to it; stop both at the end of the block."""
        ...

    def play(self, scenario: Scenario, timeout_s: float = LONG_S) -> None:
        async def main() -> None:
            async with self.open(timeout_s, BREAKER, Clock()) as scene:
                try:
                    await scenario(scene)
                finally:
                    scene.peer.released.set()
                assert scene.in_use() == 0

        asyncio.run(main(), debug=True)

    def test_what_the_service_did_is_returned_in_its_type(self) -> None:
        async def scenario(scene: Scene) -> None:
            assert await scene.charge(cents=1999) == Paid("payment-0", 1999)

        self.play(scenario)

    def test_a_refusal_is_raised_with_its_reason_and_details(self) -> None:
        async def scenario(scene: Scene) -> None:
            scene.peer.acts.append(Act.REFUSE)
            with pytest.raises(Refused) as refused:
                await scene.charge()
            assert refused.value.reason == "declined"
            assert refused.value.details["code"] == "do_not_honor"

        self.play(scenario)

    def test_a_failure_of_the_service_is_nobody_knows(self) -> None:
        async def scenario(scene: Scene) -> None:
            scene.peer.acts.append(Act.FAIL)
            with pytest.raises(CommandDelayed) as delayed:
                await scene.charge()
            assert not isinstance(delayed.value, CommandBlocked)
            assert scene.gateway.service_name in delayed.value.reason

        self.play(scenario)

    def test_a_lost_reply_is_nobody_knows_and_asking_again_charges_once(self) -> None:
        async def scenario(scene: Scene) -> None:
            scene.peer.acts.append(Act.LOSE_REPLY)
            with pytest.raises(CommandDelayed):
                await scene.charge()
            first = scene.peer.paid["k-1"]
            assert await scene.charge() == first
            assert len(scene.peer.paid) == 1

        self.play(scenario)

    def test_a_silent_service_is_nobody_knows_after_the_timeout(self) -> None:
        async def scenario(scene: Scene) -> None:
            scene.peer.acts.append(Act.HANG)
            with pytest.raises(CommandDelayed, match="in time"):
                await scene.charge()
            assert scene.in_use() == 0
            assert scene.gateway.health().failures == 1

        self.play(scenario, timeout_s=SHORT_S)

    def test_a_service_that_vanishes_during_the_call_is_nobody_knows(self) -> None:
        async def scenario(scene: Scene) -> None:
            scene.peer.acts.append(Act.HANG)

            async def call() -> None:
                with pytest.raises(CommandDelayed):
                    await scene.charge()

            async with asyncio.TaskGroup() as group:
                group.create_task(call())
                await scene.peer.arrivals.get()
                await scene.vanish()

        self.play(scenario)

    def test_a_service_that_is_not_there_is_nobody_knows_until_it_is(self) -> None:
        async def scenario(scene: Scene) -> None:
            await scene.vanish()
            with pytest.raises(CommandDelayed):
                await scene.charge()
            await scene.come_back()
            assert (await scene.charge()).cents == 5

        self.play(scenario)

    def test_an_unreadable_answer_is_neither_a_refusal_nor_asked_for_ever(self) -> None:
        async def scenario(scene: Scene) -> None:
            scene.peer.acts.append(Act.GARBLE)
            with pytest.raises(GatewayError) as unreadable:
                await scene.charge()
            assert not isinstance(unreadable.value, (Refused, CommandDelayed))
            assert scene.gateway.service_name in str(unreadable.value)

        self.play(scenario)

    def test_key_epoch_and_trace_travel_with_the_call(self) -> None:
        trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

        async def scenario(scene: Scene) -> None:
            await scene.charge("j/0-1/payments.charge/0", 12, trace)
            await scene.charge("j/0-1/payments.charge/1")
            assert scene.peer.seen == [
                Seen("j/0-1/payments.charge/0", "7", trace, "o-1", 12),
                Seen("j/0-1/payments.charge/1", "7", "", "o-1", 5),
            ]

        self.play(scenario)

    def test_any_characters_of_a_key_arrive_and_stay_different(self) -> None:
        keys = ["j/[ä]", "j/[%C3%A4]", "j/[a\r\nX-Evil: 1]", "j/[a\0]", "j/[ ]"]

        async def scenario(scene: Scene) -> None:
            for key in keys:
                await scene.charge(key)
            assert len({seen.key for seen in scene.peer.seen}) == len(keys)

        self.play(scenario)

    def test_outside_of_a_step_the_service_is_not_asked(self) -> None:
        async def scenario(scene: Scene) -> None:
            with pytest.raises(RuntimeError, match=r"workflow\.step"):
                await scene.gateway.charge("o-1", 5)
            assert scene.peer.seen == []

        self.play(scenario)

    def test_a_service_that_fails_is_not_asked_any_more(self) -> None:
        async def scenario(scene: Scene) -> None:
            await scene.break_circuit()
            asked = len(scene.peer.seen)
            scene.clock.now_s += 4
            with pytest.raises(CommandBlocked) as blocked:
                await scene.charge()
            assert blocked.value.service == scene.gateway.service_name
            assert blocked.value.retry_after_s == 6
            assert len(scene.peer.seen) == asked

        self.play(scenario)

    def test_a_trial_that_succeeds_lets_the_calls_through_again(self) -> None:
        async def scenario(scene: Scene) -> None:
            await scene.break_circuit()
            scene.clock.now_s += 10
            await scene.charge()
            assert scene.gateway.health().state is BreakerState.CLOSED

        self.play(scenario)

    def test_a_refused_trial_shows_that_the_service_is_alive(self) -> None:
        async def scenario(scene: Scene) -> None:
            await scene.break_circuit()
            scene.clock.now_s += 10
            scene.peer.acts.append(Act.REFUSE)
            with pytest.raises(Refused):
                await scene.charge()
            assert scene.gateway.health().state is BreakerState.CLOSED

        self.play(scenario)

    def test_a_trial_that_fails_blocks_it_for_longer(self) -> None:
        async def scenario(scene: Scene) -> None:
            await scene.break_circuit()
            scene.clock.now_s += 10
            scene.peer.acts.append(Act.FAIL)
            with pytest.raises(CommandDelayed):
                await scene.charge()
            assert scene.gateway.health().open_left_s == 20

        self.play(scenario)

    def test_during_a_trial_others_are_blocked_without_a_time_to_wait(self) -> None:
        async def scenario(scene: Scene) -> None:
            await scene.break_circuit()
            scene.clock.now_s += 10
            scene.peer.acts.append(Act.HANG)
            while not scene.peer.arrivals.empty():
                scene.peer.arrivals.get_nowait()
            async with asyncio.TaskGroup() as group:
                trial = group.create_task(scene.charge())
                await scene.peer.arrivals.get()
                with pytest.raises(CommandBlocked) as blocked:
                    await scene.charge()
                assert blocked.value.retry_after_s is None
                scene.peer.released.set()
            assert trial.result().cents == 5

        self.play(scenario)

    def test_cancelling_a_call_frees_its_connection_and_its_place(self) -> None:
        async def scenario(scene: Scene) -> None:
            await scene.break_circuit()
            scene.clock.now_s += 10
            scene.peer.acts.append(Act.HANG)
            while not scene.peer.arrivals.empty():
                scene.peer.arrivals.get_nowait()
            async with asyncio.TaskGroup() as group:
                trial = group.create_task(scene.charge())
                await scene.peer.arrivals.get()
                assert scene.gateway.health().trials_in_flight == 1
                trial.cancel()
            assert trial.cancelled()
            assert scene.in_use() == 0
            seen = scene.gateway.health()
            assert (seen.trials_in_flight, seen.state) == (0, BreakerState.HALF_OPEN)
            await scene.charge()
            assert scene.gateway.health().state is BreakerState.CLOSED

        self.play(scenario)

    def test_many_calls_at_once_get_their_own_answers(self) -> None:
        async def scenario(scene: Scene) -> None:
            async with asyncio.TaskGroup() as group:
                calls = [
                    group.create_task(scene.charge(f"k-{cents}", cents))
                    for cents in range(50)
                ]
            assert [call.result().cents for call in calls] == list(range(50))

        self.play(scenario)

    def test_closing_it_twice_is_harmless(self) -> None:
        async def scenario(scene: Scene) -> None:
            await scene.charge()
            await scene.gateway.aclose()
            await scene.gateway.aclose()

        self.play(scenario)
