"""`Rehearsal`: a script, a clock, crashes, operators; in plain tests and async ones."""

import asyncio
import functools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.testing.sagas import PlaceOrder, Receipt, Shop

from coordinator import (
    CommandDelayed,
    Options,
    Refused,
    Retry,
    Workflow,
    WorkflowCancelledError,
    WorkflowStuckError,
    current_step,
)
from coordinator.errors import CommandTypeError, WorkflowStateError
from coordinator.gateways.http import HttpGateway
from coordinator.testing import Rehearsal, RehearsalError, now

COMPLETED = [
    "accepted",
    "stock.reserve done",
    "bank.charge done",
    "carrier.book done",
    "completed",
]
COMPENSATED = [
    "accepted",
    "stock.reserve done",
    "bank.charge done",
    "carrier.book refused: no carrier",
    "turned back: no carrier",
    "bank.charge undone",
    "stock.reserve undone",
    "compensated",
]


def rehearsed() -> Rehearsal[Shop]:
    return Rehearsal(Shop(), commands=[PlaceOrder])


def test_what_nothing_is_said_of_is_called_as_it_is() -> None:
    with rehearsed() as rehearsal:
        order = rehearsal.submit(PlaceOrder())
        assert order.status == "running"
        assert order.result() == Receipt("o-1", "parcel of o-1")
        assert order.status == "completed"
        assert order.timeline == COMPLETED
        assert order.standing == ("stock.reserve", "bank.charge", "carrier.book")
        assert rehearsal.receiver.bank.entries == [1999]
        assert repr(order) == f"<PlaceOrder {order.id}: completed>"


def test_services_follow_the_script() -> None:
    with rehearsed() as rehearsal:
        rehearsal.services.fail("stock.reserve", times=2)
        rehearsal.services.lose_reply("bank.charge")
        rehearsal.services.delay("bank.charge/undo", "40s")
        rehearsal.services.refuse("carrier.book", "no carrier")
        order = rehearsal.submit(PlaceOrder())
        with pytest.raises(Refused, match="no carrier"):
            order.result()
        assert order.timeline == COMPENSATED
        assert order.reason == "no carrier"
        # The fakes honour their keys: what was asked twice was done once.
        assert rehearsal.receiver.bank.entries == [1999, -1999]
        assert rehearsal.receiver.stock.held == []
        assert "bank.charge did its work, but its reply was lost" in rehearsal.story
        assert "bank.charge/undo did its work, but answered too late" in rehearsal.story


def test_a_delay_within_the_time_out_only_takes_its_time() -> None:
    with rehearsed() as rehearsal:
        rehearsal.services.delay("carrier.book", "20s")
        begun = rehearsal.clock.now
        rehearsal.submit(PlaceOrder()).result()
        passed = rehearsal.clock.now - begun
        assert timedelta(seconds=20) < passed < timedelta(seconds=21)


def test_time_passes_when_it_is_told_to() -> None:
    with rehearsed() as rehearsal:
        rehearsal.services.fail("carrier.book", times=None)
        order = rehearsal.submit(PlaceOrder())
        before = rehearsal.clock.now
        rehearsal.clock.advance("2h")
        passed = rehearsal.clock.now - before
        assert timedelta(hours=2) <= passed < timedelta(hours=2, seconds=1)
        assert order.status == "running"
        with pytest.raises(RehearsalError, match="not ended after 1 hours") as caught:
            order.result(within="1h")
        assert "CommandDelayed: could not be reached" in str(caught.value)


def test_a_crash_changes_nothing_that_can_be_seen_from_outside() -> None:
    with rehearsed() as rehearsal:
        order = rehearsal.submit(PlaceOrder())
        rehearsal.clock.advance("50ms")
        rehearsal.crash()
        rehearsal.crash()
        assert order.result() == Receipt("o-1", "parcel of o-1")
        assert order.timeline == COMPLETED
        assert rehearsal.receiver.bank.entries == [1999]


@pytest.mark.parametrize(
    "moment",
    [
        "before the command was written",
        "after the command was written",
        "before bank.charge was called",
        "after bank.charge had done its work",
        "before the outcome of bank.charge was written",
        "after the end was written",
    ],
)
def test_a_process_can_be_killed_at_a_moment(moment: str) -> None:
    with rehearsed() as rehearsal:
        rehearsal.crash(at=moment)
        order = rehearsal.submit(PlaceOrder())
        rehearsal.finish()
        assert order.timeline == COMPLETED
        assert f"the process was killed {moment}" in rehearsal.story
        assert rehearsal.receiver.bank.entries == [1999]


def test_a_moment_that_never_comes_is_told_with_those_that_did() -> None:
    def test() -> None:
        with rehearsed() as rehearsal:
            rehearsal.crash(at="before bank.chrage was called")
            rehearsal.submit(PlaceOrder()).result()

    with pytest.raises(RehearsalError) as caught:
        test()
    assert "it never came to 'before bank.chrage was called'" in str(caught.value)
    assert "'before bank.charge was called'" in str(caught.value)


def test_a_step_that_is_never_called_is_told_with_those_that_were() -> None:
    def test() -> None:
        with rehearsed() as rehearsal:
            rehearsal.services.refuse("payments.charge")
            rehearsal.submit(PlaceOrder()).result()

    with pytest.raises(RehearsalError) as caught:
        test()
    assert str(caught.value) == (
        "refuse('payments.charge') never came to anything: no step of that name was "
        "called; called were stock.reserve, bank.charge, carrier.book"
    )


def test_a_test_that_fails_gets_the_story_with_it() -> None:
    def test() -> None:
        with rehearsed() as rehearsal:
            rehearsal.services.refuse("never.called")
            assert rehearsal.submit(PlaceOrder()).result().order == "o-2"

    with pytest.raises(AssertionError) as caught:
        test()
    assert any("carrier.book is called" in note for note in caught.value.__notes__)


def test_operators_retry_what_is_stuck() -> None:
    with rehearsed() as rehearsal:
        rehearsal.services.refuse("carrier.book", "no carrier")
        rehearsal.services.refuse("bank.charge/undo", "closed")
        order = rehearsal.submit(PlaceOrder())
        with pytest.raises(WorkflowStuckError, match=r"undo of bank\.charge was"):
            order.result()
        assert order.status == "stuck"
        assert "closed; still done: stock.reserve, bank.charge" in order.reason
        rehearsal.retry(order, by="anna")
        rehearsal.finish()
        assert order.timeline[-4:] == [
            "resumed by anna",
            "bank.charge undone",
            "stock.reserve undone",
            "compensated",
        ]
        with pytest.raises(Exception, match="no unfinished workflow"):
            rehearsal.retry(order)


def test_operators_cancel() -> None:
    with rehearsed() as rehearsal:
        order = rehearsal.submit(PlaceOrder())
        rehearsal.clock.advance("50ms")
        rehearsal.cancel(order, by="bert", reason="changed his mind")
        with pytest.raises(WorkflowStateError):
            rehearsal.cancel(order)
        with pytest.raises(WorkflowCancelledError, match="changed his mind"):
            order.result()
        assert order.status == "cancelled"
        assert rehearsal.receiver.stock.held == []


def test_it_works_the_same_within_a_test_that_is_async() -> None:
    async def main() -> list[str]:
        await asyncio.sleep(0)
        with rehearsed() as rehearsal:
            rehearsal.services.refuse("carrier.book", "no carrier")
            order = rehearsal.submit(PlaceOrder())
            rehearsal.crash()
            rehearsal.clock.advance("1h")
            await asyncio.sleep(0)
            return order.timeline

    assert asyncio.run(main()) == COMPENSATED


def test_out_of_its_block_it_says_so() -> None:
    rehearsal = rehearsed()
    with pytest.raises(RehearsalError, match="has not begun, or is over"):
        rehearsal.submit(PlaceOrder())
    with rehearsal:
        order = rehearsal.submit(PlaceOrder())
    with pytest.raises(RehearsalError, match="stay in the block"):
        order.result()


def test_a_command_that_was_not_named_is_refused_as_ever() -> None:
    with (
        Rehearsal(Shop(), commands=[]) as rehearsal,
        pytest.raises(CommandTypeError, match="is not registered"),
    ):
        rehearsal.submit(PlaceOrder())


# Every kind of function.


async def plain_async(name: str) -> str:
    return current_step().idempotency_key.rpartition("/")[0] + name


def plain(name: str) -> str:
    return plain_key() + name


def plain_key() -> str:
    return current_step().idempotency_key.rpartition("/")[0]


class Called:
    def __call__(self, name: str) -> str:
        return name


@dataclass
class AllKinds:
    async def exec(self, workflow: Workflow, receiver: Called) -> list[Any]:
        return [
            await workflow.step(plain_async, "a").undo(lambda _: None),
            await workflow.step(plain, "b").undo(plain),
            await workflow.step(functools.partial(plain, "c")).named("partial"),
            await workflow.step(receiver, "d"),
            await workflow.step(plain, "e"),
        ]


def test_functions_of_every_kind_are_called_and_scripted() -> None:
    with Rehearsal(Called(), commands=[AllKinds]) as rehearsal:
        for name in ("plain_async", "plain", "partial", "Called", "plain#1"):
            rehearsal.services.lose_reply(name)
        order = rehearsal.submit(AllKinds())
        assert order.result() == [
            f"rehearsal/{order.id}/plain_asynca",
            f"rehearsal/{order.id}/plainb",
            f"rehearsal/{order.id}/partialc",
            "d",
            f"rehearsal/{order.id}/plaine",
        ]


class Payments(HttpGateway):
    async def charge(self, cents: int) -> int:
        return await self.post("/charge", {"cents": cents}, into=int)


class Online:
    def __init__(self) -> None:
        self.payments = Payments("http://127.0.0.1:9", name="payments")

    async def aclose(self) -> None:
        await self.payments.aclose()


@dataclass
class Pay:
    async def exec(self, workflow: Workflow, shop: Online) -> int:
        return await workflow.step(shop.payments.charge, 5)


def test_a_gateway_of_http_is_rehearsed_without_a_socket() -> None:
    with Rehearsal(Online(), commands=[Pay]) as rehearsal:
        rehearsal.services.returns("payments.charge", 7)
        rehearsal.services.lose_reply("payments.charge")
        assert rehearsal.submit(Pay()).result() == 7


def test_who_asks_for_the_network_is_told_what_to_write() -> None:
    with (
        Rehearsal(Online(), commands=[Pay]) as rehearsal,
        pytest.raises(RehearsalError, match="no network in a rehearsal"),
    ):
        rehearsal.submit(Pay()).result()


@dataclass
class Waiting:
    async def exec(self, workflow: Workflow, receiver: object) -> None:
        await asyncio.get_running_loop().create_future()


@dataclass
class Spinning:
    async def exec(self, workflow: Workflow, receiver: object) -> None:
        for _ in iter(int, 1):
            await asyncio.sleep(0)


def test_a_saga_that_waits_for_nothing_is_found_at_once() -> None:
    with Rehearsal(object(), commands=[Waiting]) as rehearsal:
        order = rehearsal.submit(Waiting())
        with pytest.raises(RehearsalError, match="not ended after 24 hours"):
            order.result()


def test_a_saga_that_never_lets_time_pass_is_stopped() -> None:
    with Rehearsal(object(), commands=[Spinning]) as rehearsal:
        order = rehearsal.submit(Spinning())
        with pytest.raises(RehearsalError, match="no end: something asks again"):
            order.result()


def test_a_process_that_is_always_killed_ends_the_test() -> None:
    class Deadly(Shop):
        pass

    with Rehearsal(Deadly(), commands=[PlaceOrder]) as rehearsal:
        for number in range(200):
            rehearsal.crash(at="before stock.reserve was called", after=number)
        with pytest.raises(RehearsalError, match="100 processes were killed"):
            rehearsal.submit(PlaceOrder())
        rehearsal._acts.clear()


@dataclass
class Dated:
    async def exec(self, workflow: Workflow, receiver: object) -> datetime:
        await asyncio.sleep(3600)
        return now()


def test_sagas_and_fakes_can_ask_for_the_time_of_the_rehearsal() -> None:
    with Rehearsal(object(), commands=[Dated]) as rehearsal:
        told = rehearsal.submit(Dated()).result()
        assert told - datetime(2024, 1, 1, tzinfo=UTC) >= timedelta(hours=1)
        assert abs(told - rehearsal.clock.now) < timedelta(seconds=1)
    with pytest.raises(RehearsalError, match="no rehearsal runs here"):
        now()


def test_the_options_are_those_of_a_coordinator() -> None:
    options = Options(step_timeout_s=1, retry=Retry(delays_max=2))
    with Rehearsal(Shop(), commands=[PlaceOrder], options=options) as rehearsal:
        rehearsal.services.delay("bank.charge", "2s", times=None)
        with pytest.raises(WorkflowStuckError, match="no answer within 1 s"):
            rehearsal.submit(PlaceOrder()).result()


def test_the_same_seed_is_the_same_story() -> None:
    def told(seed: int) -> str:
        with Rehearsal(Shop(), commands=[PlaceOrder], seed=seed) as rehearsal:
            rehearsal.services.fail("bank.charge", times=3)
            rehearsal.submit(PlaceOrder()).result()
            return rehearsal.story

    assert told(1) == told(1)
    assert told(1) != told(2)


def test_what_a_service_raises_is_handled_as_ever() -> None:
    with rehearsed() as rehearsal:
        rehearsal.services.fail("bank.charge", KeyError("id"), times=3)
        rehearsal.services.fail("carrier.book", CommandDelayed("slow", 60))
        assert rehearsal.submit(PlaceOrder()).result().order == "o-1"
        assert rehearsal.clock.now - datetime(2024, 1, 1, tzinfo=UTC) > timedelta(
            seconds=60
        )
