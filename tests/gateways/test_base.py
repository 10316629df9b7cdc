import asyncio
import errno
import os
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from types import SimpleNamespace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gateways.conformance import (
    Act,
    Clock,
    GatewayConformance,
    Paid,
    Peer,
    Scene,
    Seen,
)

from coordinator.context import StepContext, in_step
from coordinator.errors import CommandBlocked, CommandDelayed, Refused
from coordinator.gateways import (
    BreakerOptions,
    Gateway,
    UnreadableAnswerError,
    aclose_gateways,
    call_headers,
)
from coordinator.model import Direction, StepId

STEP = StepContext("k-1", 7, "0-1", StepId("payments.charge", 0), Direction.DO, 0)


class DeclinedError(Exception):
    """The foreign client's own way to say no."""


class BankClient:
    """A client that somebody else wrote: any async callable will do."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.there = True
        self.in_flight = 0

    async def pay(self, request: Seen) -> object:
        if not self.there:
            raise ConnectionRefusedError("nobody listens")
        self.in_flight += 1
        try:
            act, paid = await self.peer.take(request)
        finally:
            self.in_flight -= 1
        if not self.there:
            raise ConnectionResetError
        match act:
            case Act.REFUSE:
                raise DeclinedError
            case Act.FAIL:
                raise ConnectionError("internal error")
            case Act.LOSE_REPLY:
                raise asyncio.IncompleteReadError(b"", 4)
            case Act.GARBLE:
                return "<html>"
            case Act.DO | Act.HANG:
                return paid


class BankGateway(Gateway):
    """What `docs/gateways.md` tells a user to write for such a client."""

    def __init__(
        self,
        client: BankClient,
        *,
        timeout_s: float,
        breaker: BreakerOptions,
        clock: Callable[[], float],
    ) -> None:
        super().__init__("bank", timeout_s=timeout_s, breaker=breaker, clock=clock)
        self._client = client

    async def charge(self, order_id: str, cents: int) -> Paid:
        async def ask(step: StepContext) -> Paid:
            key, epoch = step.idempotency_key, str(step.epoch)
            paid = await self._client.pay(Seen(key, epoch, step.trace, order_id, cents))
            if not isinstance(paid, Paid):
                raise UnreadableAnswerError(f"bank answered {paid!r}")
            return paid

        return await self.call(ask)

    def translate(self, error: Exception) -> Exception:
        if isinstance(error, DeclinedError):
            return Refused("declined", {"code": "do_not_honor"})
        return super().translate(error)


class TestAnyCallable(GatewayConformance):
    @asynccontextmanager
    async def open(
        self, timeout_s: float, breaker: BreakerOptions, clock: Clock
    ) -> AsyncGenerator[Scene, None]:
        client = BankClient(Peer())

        async def vanish() -> None:
            client.there = False
            client.peer.released.set()

        async def come_back() -> None:
            client.there = True

        async with BankGateway(
            client, timeout_s=timeout_s, breaker=breaker, clock=clock
        ) as gateway:
            yield Scene(
                client.peer, gateway, clock, vanish, come_back, lambda: client.in_flight
            )


def failing(error: Exception) -> Callable[[StepContext], Awaitable[object]]:
    async def operation(step: StepContext) -> object:
        raise error

    return operation


@pytest.mark.parametrize(
    "number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM]
)
def test_what_this_process_lacks_is_asked_for_again_and_counts_for_nothing(
    number: int,
) -> None:
    gateway, lack = Gateway("bank"), OSError(number, os.strerror(number))
    with in_step(STEP), pytest.raises(CommandDelayed, match="this process lacks"):
        asyncio.run(gateway.call(failing(lack)))
    assert gateway.health().calls == 0


def test_an_exception_it_does_not_know_passes_unchanged_and_counts_for_nothing() -> (
    None
):
    gateway, bug = Gateway("bank"), TypeError("a bug on this side")
    with in_step(STEP), pytest.raises(TypeError) as raised:
        asyncio.run(gateway.call(failing(bug)))
    assert raised.value is bug
    assert gateway.health().calls == 0


def test_a_block_of_another_service_does_not_count_for_this_one() -> None:
    gateway = Gateway("bank")
    with in_step(STEP), pytest.raises(CommandBlocked):
        asyncio.run(gateway.call(failing(CommandBlocked("vault"))))
    assert gateway.health().calls == 0


def test_an_answer_that_translate_gives_keeps_the_cause() -> None:
    cause = ConnectionResetError("reset by peer")
    with in_step(STEP), pytest.raises(CommandDelayed, match="reset by peer") as delayed:
        asyncio.run(Gateway("bank").call(failing(cause)))
    assert delayed.value.__cause__ is cause


def test_a_bug_in_translate_keeps_no_trials_place() -> None:
    class Broken(Gateway):
        def translate(self, error: Exception) -> Exception:
            raise RuntimeError("a bug in translate")

    gateway = Broken("bank", breaker=BreakerOptions(calls_min=1, trials_max=1))
    gateway._breaker.failed(gateway._breaker.admit(0) or gateway._breaker._period, 0)
    gateway._clock = lambda: 100.0
    for _ in range(2):
        with in_step(STEP), pytest.raises(RuntimeError, match="translate"):
            asyncio.run(gateway.call(failing(ValueError())))
    assert gateway.health().trials_in_flight == 0


def test_one_call_may_have_its_own_timeout() -> None:
    async def hang(step: StepContext) -> object:
        return await asyncio.Event().wait()

    with in_step(STEP), pytest.raises(CommandDelayed, match="in time"):
        asyncio.run(Gateway("bank", timeout_s=1000).call(hang, timeout_s=0.01))


def test_waiting_for_a_place_is_not_on_the_time_of_the_call() -> None:
    """If it were, both calls would be over at the same moment."""
    gateway = Gateway("bank", timeout_s=0.05, calls_max=1)

    async def hang(step: StepContext) -> object:
        return await asyncio.Event().wait()

    async def reply(step: StepContext) -> str:
        return "done"

    async def first() -> None:
        with pytest.raises(CommandDelayed, match="in time"):
            await gateway.call(hang)

    async def main() -> str:
        async with asyncio.TaskGroup() as group:
            group.create_task(first())
            second = group.create_task(gateway.call(reply))
        return second.result()

    with in_step(STEP):
        assert asyncio.run(main()) == "done"


def test_who_waited_for_a_place_while_the_circuit_opened_is_blocked() -> None:
    gateway = Gateway("bank", calls_max=1, breaker=BreakerOptions(calls_min=1))

    async def fail_later(step: StepContext) -> object:
        await asyncio.sleep(0)
        raise CommandDelayed("down")

    async def first() -> None:
        with pytest.raises(CommandDelayed):
            await gateway.call(fail_later)

    async def second() -> None:
        with pytest.raises(CommandBlocked):
            await gateway.call(failing(AssertionError("it was asked")))

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(first())
            group.create_task(second())

    with in_step(STEP):
        asyncio.run(main())


def test_nobody_queues_behind_hanging_calls_to_be_turned_away() -> None:
    gateway = Gateway("bank", calls_max=1, breaker=BreakerOptions(calls_min=1))

    async def open_and_hang(step: StepContext) -> object:
        gateway._breaker.failed(gateway._breaker._period, gateway._clock(), "down")
        return await asyncio.Event().wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            hanging = group.create_task(gateway.call(open_and_hang))
            await asyncio.sleep(0)
            with pytest.raises(CommandBlocked):
                await gateway.call(open_and_hang)
            hanging.cancel()

    with in_step(STEP):
        asyncio.run(main())
    assert gateway.health().turned_away == 1


def test_a_refusal_can_be_given_a_class_of_its_own() -> None:
    class DeclinedByBank(Refused):
        pass

    class Bank(Gateway):
        def translate(self, error: Exception) -> Exception:
            if isinstance(error, Refused) and error.details.get("code") == "declined":
                return DeclinedByBank(error.reason, error.details)
            return super().translate(error)

    for code, kind in (("declined", DeclinedByBank), ("other", Refused)):
        refusal = Refused("no", {"code": code})
        bank = Bank("bank")
        with in_step(STEP), pytest.raises(Refused) as refused:
            asyncio.run(bank.call(failing(refusal)))
        assert type(refused.value) is kind
        assert bank.health().failures == 0


def test_the_engine_finds_the_services_name_on_a_bound_method() -> None:
    gateway = Gateway("bank")
    method: object = gateway.call
    owner = getattr(method, "__self__", None)
    assert getattr(owner, "service_name", None) == "bank"


def test_at_least_one_call_must_be_allowed() -> None:
    with pytest.raises(ValueError, match="calls_max"):
        Gateway("bank", calls_max=0)


def test_a_person_may_close_the_circuit() -> None:
    gateway = Gateway("bank", breaker=BreakerOptions(calls_min=1))
    with in_step(STEP):
        with pytest.raises(CommandDelayed):
            asyncio.run(gateway.call(failing(CommandDelayed("down"))))
        with pytest.raises(CommandBlocked, match="down; it is tried again in"):
            asyncio.run(gateway.call(failing(CommandDelayed("down"))))
    gateway.reset_breaker()
    assert gateway.health().state == "closed"


@pytest.mark.parametrize("name", ["", "a.b", "a[b]", "a b", "ä"])
def test_a_name_that_a_step_could_not_carry_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        Gateway(name)


@pytest.mark.parametrize("timeout_s", [0, -1, float("nan")])
def test_a_timeout_must_be_more_than_nothing(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="timeout_s"):
        Gateway("bank", timeout_s=timeout_s)


def test_the_headers_of_a_call_are_the_key_the_epoch_and_the_trace() -> None:
    assert call_headers(STEP) == {"Idempotency-Key": "k-1", "Coordinator-Epoch": "7"}
    again = msgspec.structs.replace(STEP, replay=True)
    assert call_headers(again)["Coordinator-Replay"] == "true"


@given(st.text(), st.text())
def test_different_keys_stay_different_and_fit_into_a_header(a: str, b: str) -> None:
    def sent(key: str) -> str:
        step = StepContext(key, 0, "0-1", STEP.step, Direction.DO, 0)
        return call_headers(step)["Idempotency-Key"]

    assert (sent(a) == sent(b)) == (a == b)
    assert sent(a).isascii()
    assert sent(a).isprintable()


def test_a_receiver_closes_all_its_gateways_even_if_one_fails() -> None:
    closed: list[str] = []

    class Closing(Gateway):
        async def aclose(self) -> None:
            closed.append(self.service_name)
            if self.service_name == "a":
                raise OSError("stuck")

    shop = SimpleNamespace(a=Closing("a"), b=Closing("b"), name="not a gateway")
    with pytest.raises(ExceptionGroup) as problems:
        asyncio.run(aclose_gateways(shop))
    assert closed == ["a", "b"]
    assert len(problems.value.exceptions) == 1
    asyncio.run(aclose_gateways(SimpleNamespace(b=Closing("b"))))


class Slotted:
    __slots__ = ("__bank", "empty", "name")

    def __init__(self, bank: Gateway) -> None:
        self.__bank = bank
        self.name = "shop"


@dataclass(slots=True)
class SlottedShop(Slotted):
    card: Gateway


def test_gateways_in_slots_are_closed_too() -> None:
    closed: list[str] = []

    class Closing(Gateway):
        async def aclose(self) -> None:
            closed.append(self.service_name)

    shop = SlottedShop(Closing("card"))
    Slotted.__init__(shop, Closing("bank"))
    asyncio.run(aclose_gateways(shop))
    assert sorted(closed) == ["bank", "card"]
