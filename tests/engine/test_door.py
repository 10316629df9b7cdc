"""Who may come in: the limit, suspended services, equal keys, and the end."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from tests.engine.support import (
    KeepingJournal,
    Receipt,
    Service,
    Shop,
    make,
    run,
    until,
)

from coordinator import (
    CommandBlocked,
    CommandDelayed,
    Coordinator,
    Handle,
    NotAcceptedError,
    Refused,
    Retry,
    Workflow,
    WorkflowStuckError,
)
from coordinator.engine import ERROR_LENGTH_MAX
from coordinator.errors import (
    CommandTypeError,
    JournalClosedError,
    UnknownWorkflowError,
    WorkflowStateError,
)


@dataclass
class Pay:
    """One step; its key is its number."""

    services: ClassVar = {"payments"}
    number: int = 0

    def key(self) -> str:
        return f"pay-{self.number}"

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        receipt = await workflow.step(shop.payments.do, self.number)
        return receipt.number


@dataclass
class Ship:
    """One step of another service."""

    services: ClassVar = {"shipping"}

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        return (await workflow.step(shop.shipping.do)).service


@dataclass
class Careless:
    """Does not say which services it needs."""

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        return (await workflow.step(shop.shipping.do)).service


def test_beyond_the_limit_new_commands_wait_and_none_is_dropped() -> None:
    shop = Shop()
    shop.payments.script = [1.0] * 10

    async def main() -> None:
        async with make(shop, Pay, commands_max=3) as coordinator:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(coordinator.execute(Pay(n))) for n in range(10)
                ]
                await until(lambda: shop.payments.calls)
                assert len(coordinator.workflows()) == 3
                assert "the limit is reached" in coordinator.engine.entrance.closed
            assert sorted(task.result() for task in tasks) == list(range(10))
            assert coordinator.engine.entrance.closed == ""

    run(main())
    assert len(shop.payments.calls) == 10


def test_a_caller_that_leaves_the_door_takes_its_command_along() -> None:
    shop = Shop()
    shop.payments.script = [10.0]

    async def main() -> None:
        async with make(shop, Pay, commands_max=1) as coordinator:
            await coordinator.submit(Pay(1))
            waiting = asyncio.get_running_loop().create_task(coordinator.submit(Pay(2)))
            await until(lambda: shop.payments.calls)
            waiting.cancel()
            await until(lambda: not coordinator.workflows())

    run(main())
    assert len(shop.payments.calls) == 1


def test_an_equal_key_attaches_to_the_workflow_that_runs() -> None:
    shop = Shop()
    shop.payments.script = [5.0]

    async def main() -> None:
        async with make(shop, Pay, commands_max=1) as coordinator:
            first = await coordinator.submit(Pay(1))
            second = await coordinator.submit(Pay(1))  # although the doors are closed
            assert first.id == second.id
            assert await first.result() == await second.result() == 0

    run(main())
    assert len(shop.payments.calls) == 1


def test_an_equal_key_gets_the_same_answer_after_a_restart() -> None:
    shop = Shop()
    journal = KeepingJournal()

    async def ask(number: int, *, refused: bool = False) -> str:
        async with make(shop, Pay, journal=journal) as coordinator:
            handle = await coordinator.submit(Pay(number))
            if refused:
                with pytest.raises(Refused, match="declined"):
                    await handle.result()
            else:
                assert await handle.result() == 0
            return handle.id

    assert run(ask(1)) == run(ask(1))
    shop.payments.script = [Refused("declined")]
    assert run(ask(2, refused=True)) == run(ask(2, refused=True))
    assert len(shop.payments.calls) == 2


def test_a_key_is_as_old_as_its_result_whatever_ended_since() -> None:
    now = 1_700_000_000_000_000

    async def main() -> None:
        nonlocal now
        coordinator = Coordinator(
            Shop(), commands=[Pay], journal=KeepingJournal(), clock=lambda: now
        )
        async with coordinator:
            first = await coordinator.submit(Pay(1))
            await first.result()
            now += 24 * 3600 * 1_000_000
            assert (await coordinator.submit(Pay(1))).id == first.id
            now += 1
            later = await coordinator.submit(Pay(1))
            assert later.id != first.id
            await later.result()

    run(main())


def test_who_asks_in_this_process_and_drops_the_handle_is_not_kept() -> None:
    shop = Shop()
    shop.payments.script = [ValueError("odd")]

    async def main() -> None:
        async with make(shop, Pay, retry=Retry(attempts_max=1)) as coordinator:
            kept = await coordinator.submit(Pay(1))
            for _ in range(20):
                with pytest.raises(WorkflowStuckError):
                    await coordinator.execute(Pay(1))
            (run_,) = coordinator.engine._runs.values()
            assert len(run_.callers) <= 3
            with pytest.raises(WorkflowStuckError):
                await kept.result()
            await coordinator.retry(kept.id, by="ann")
            assert await kept.result() == 0

    run(main())


def test_of_a_long_reason_no_more_is_kept_than_people_read() -> None:
    shop = Shop()
    shop.payments.script = [CommandDelayed("x" * 1_000_000)]

    async def main() -> None:
        async with make(shop, Pay) as coordinator:
            handle = await coordinator.submit(Pay(1))
            await until(lambda: coordinator.workflow(handle.id).reason)
            assert len(coordinator.workflow(handle.id).reason) == ERROR_LENGTH_MAX
            await handle.result()

    run(main())


def test_two_of_one_key_at_the_door_become_one_workflow() -> None:
    shop = Shop()
    shop.payments.script = [1.0]

    async def main() -> None:
        async with make(shop, Pay, commands_max=1) as coordinator:
            await coordinator.submit(Pay(0))
            async with asyncio.TaskGroup() as group:
                for _ in range(3):
                    group.create_task(coordinator.execute(Pay(1)))

    run(main())
    assert len(shop.payments.calls) == 2


def test_who_asks_again_at_the_door_takes_no_second_place() -> None:
    shop = Shop()
    shop.payments.script = [CommandBlocked("payments")] * 3

    async def main() -> None:
        async with make(shop, Pay, Ship, commands_max=2) as coordinator:
            await coordinator.submit(Pay(0))
            await until(lambda: coordinator.engine.admission.suspensions)
            async with asyncio.TaskGroup() as group:
                asking = [group.create_task(coordinator.submit(Pay(1)))]
                for _ in range(5):
                    await asyncio.sleep(0.001)
                    asking.append(group.create_task(coordinator.submit(Pay(1))))
                await asyncio.sleep(0.001)
                assert coordinator.engine.entrance.closed == ""
                asking[0].cancel()
                assert await coordinator.execute(Ship()) == "shipping"
            assert len({task.result().id for task in asking[1:]}) == 1

    run(main())
    assert len(set(shop.payments.calls)) == 2


def test_a_blocked_service_suspends_those_who_need_it_and_nobody_else() -> None:
    shop = Shop()
    shop.payments.script = [CommandBlocked("payments")] * 3

    async def main() -> None:
        async with make(shop, Pay, Ship, Careless) as coordinator:
            first = await coordinator.submit(Pay(1))
            await until(lambda: coordinator.engine.admission.suspensions)
            assert await coordinator.execute(Ship()) == "shipping"
            loop = asyncio.get_running_loop()
            second = loop.create_task(coordinator.execute(Pay(2)))
            careless = loop.create_task(coordinator.execute(Careless()))
            await asyncio.sleep(0)
            assert coordinator.workflow(first.id).reason.startswith("payments.do")
            assert len(coordinator.workflows()) == 1
            assert await first.result() == 0
            assert await second == 1
            assert await careless == "shipping"
            assert coordinator.engine.admission.suspensions == {}

    run(main())


@dataclass
class PayPlain:
    """One step, without a key."""

    number: int = 0

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.payments.do, self.number)


class Down(Shop):
    """Its payments are down until somebody says otherwise."""

    def __init__(self) -> None:
        super().__init__()
        self.down = True
        self.trying = self.trying_max = 0
        self.payments = DownService(self)


class DownService(Service):
    """Counts who asks it at once."""

    def __init__(self, shop: Down) -> None:
        super().__init__("payments")
        self._shop = shop

    async def do(self, amount: int = 0) -> Receipt:
        shop = self._shop
        shop.trying += 1
        shop.trying_max = max(shop.trying_max, shop.trying)
        await asyncio.sleep(0.001)
        shop.trying -= 1
        if shop.down:
            raise CommandBlocked("payments")
        return Receipt("payments", amount)


def test_a_service_that_comes_back_is_probed_by_few_and_then_asked_by_all() -> None:
    shop = Down()

    async def main() -> None:
        retry = Retry(first_s=1.0, longest_s=1.0)
        async with make(shop, PayPlain, probes=2, retry=retry) as coordinator:
            handles = await _submit_at_once(coordinator)
            await asyncio.sleep(0.5)
            shop.trying_max = 0
            await asyncio.sleep(30)
            assert 1 <= shop.trying_max <= 2
            assert len(coordinator.workflows()) == len(handles)
            shop.down = False
            start_s = asyncio.get_running_loop().time()
            for handle in handles:
                await handle.result()
            assert asyncio.get_running_loop().time() - start_s < 3.0

    async def _submit_at_once(coordinator: Coordinator[Down]) -> list[Handle[None]]:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(coordinator.submit(PayPlain(n))) for n in range(16)
            ]
        return [task.result() for task in tasks]

    run(main())


def test_a_stuck_workflow_does_not_count_and_can_only_be_retried_when_stuck() -> None:
    shop = Shop()
    shop.payments.script = [ValueError("odd"), 5.0]

    async def main() -> None:
        retry = Retry(attempts_max=1)
        async with make(shop, Pay, commands_max=1, retry=retry) as coordinator:
            handle = await coordinator.submit(Pay(1))
            with pytest.raises(WorkflowStuckError):
                await handle.result()
            other = await coordinator.submit(Pay(2))
            with pytest.raises(WorkflowStateError, match="is running, not stuck"):
                await coordinator.retry(other.id, by="ann")
            with pytest.raises(UnknownWorkflowError, match="0-99"):
                await coordinator.retry("0-99", by="ann")
            with pytest.raises(UnknownWorkflowError, match="looks like 0-1042"):
                await coordinator.retry("nonsense", by="ann")
            await other.result()
            await coordinator.cancel(handle.id, by="ann")
            with pytest.raises(WorkflowStateError, match="being undone already"):
                await coordinator.cancel(handle.id, by="ann")

    run(main())


def test_after_a_drain_nothing_is_taken_and_what_was_unfinished_goes_on_later() -> None:
    shop = Shop()
    shop.payments.script = [2.0, 1e6]
    journal = KeepingJournal()

    async def first() -> None:
        async with make(
            shop, Pay, journal=journal, commands_max=2, step_timeout_s=1e7
        ) as coordinator:
            quick = await coordinator.submit(Pay(1))
            slow = await coordinator.submit(Pay(2))
            waiting = asyncio.get_running_loop().create_task(coordinator.submit(Pay(3)))
            await until(lambda: len(shop.payments.calls) == 2)
            assert await coordinator.drain(10.0) is False
            # Its step ended, and is recorded; what follows is for the next process.
            assert coordinator.workflow(quick.id).outcomes == 1
            with pytest.raises(NotAcceptedError, match="stopping"):
                await waiting
            with pytest.raises(NotAcceptedError, match="stopping"):
                await coordinator.submit(Pay(4))
        with pytest.raises(JournalClosedError):
            await slow.result()

    async def second() -> None:
        async with make(shop, Pay, journal=journal) as coordinator:
            assert await coordinator.execute(Pay(1)) == 0
            assert await coordinator.execute(Pay(2)) == 1

    run(first())
    run(second())
    assert len(shop.payments.calls) == 3
    assert shop.payments.calls[1] == shop.payments.calls[2]


async def _async_key(_self: object) -> str:
    return ""


def test_classes_that_cannot_be_commands_are_refused_by_name() -> None:
    class NoExec:
        pass

    @dataclass
    class Odd:
        thing: complex
        other: "Shop"

        async def exec(self, workflow: Workflow, shop: Shop) -> None: ...

    class Pay2(Pay):
        pass

    Pay2.__name__ = "Pay"
    keys: list[Any] = [property(str), classmethod(str), staticmethod(str), _async_key]
    for key in keys:
        odd = type("Keyed", (Ship,), {"key": key})
        with pytest.raises(CommandTypeError, match="Keyed: key must be a plain method"):
            make(Shop(), odd)
    make(Shop(), type("Field", (Ship,), {"key": "a field's default"}))
    with pytest.raises(CommandTypeError, match="NoExec has no `async def exec"):
        make(Shop(), NoExec)
    with pytest.raises(CommandTypeError, match="command Odd can't be written"):
        make(Shop(), Odd)
    with pytest.raises(CommandTypeError, match="two commands are named Pay"):
        make(Shop(), Pay, Pay2)

    async def main() -> None:
        async with make(Shop(), Ship) as coordinator:
            with pytest.raises(CommandTypeError, match="Pay is not registered"):
                await coordinator.submit(Pay(1))

    run(main())


def test_a_coordinator_that_is_not_started_says_so() -> None:
    async def main() -> None:
        coordinator = make(Shop(), Ship)
        with pytest.raises(RuntimeError, match="async with"):
            await coordinator.submit(Ship())
        async with coordinator:
            with pytest.raises(RuntimeError, match="already"):
                await coordinator.start()
        coordinator.journal = None
        with pytest.raises(ValueError, match="no journal was given"):
            await coordinator.start()

    run(main())


@dataclass
class Stubborn:
    """Swallows every cancellation."""

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.payments.do)
        while True:
            with suppress(asyncio.CancelledError):
                await asyncio.sleep(3)


def test_user_code_that_swallows_cancellations_does_not_keep_us_from_closing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shop = Shop()

    async def main() -> None:
        async with make(shop, Stubborn) as coordinator:
            handle = await coordinator.submit(Stubborn())
            await until(lambda: coordinator.workflow(handle.id).outcomes)
            await asyncio.sleep(1)

    run(main())
    assert "do not end although they were cancelled" in caplog.text


def test_a_close_that_is_cancelled_goes_on_and_the_next_one_waits_for_it() -> None:
    shop = Shop()

    async def main() -> None:
        coordinator = make(shop, Stubborn)
        await coordinator.start()
        handle = await coordinator.submit(Stubborn())
        await until(lambda: coordinator.workflow(handle.id).outcomes)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1.0):
                await coordinator.aclose()
        with pytest.raises(RuntimeError, match="still being closed"):
            await coordinator.start()
        await coordinator.aclose()
        await coordinator.start()
        assert len(coordinator.workflows()) == 1
        await coordinator.aclose()
        await coordinator.aclose()

    run(main())


class ClosedShop(Shop):
    """Says when it was closed."""

    closed = False

    async def aclose(self) -> None:
        self.closed = True


def test_a_close_that_the_end_of_the_loop_cuts_short_gives_everything_up() -> None:
    shop = ClosedShop()
    journal = KeepingJournal()

    async def main() -> None:
        coordinator = make(shop, Stubborn, journal=journal)
        await coordinator.start()
        handle = await coordinator.submit(Stubborn())
        await until(lambda: coordinator.workflow(handle.id).outcomes)
        closing = asyncio.get_running_loop().create_task(coordinator.aclose())
        await asyncio.sleep(1.0)
        # As `asyncio.run` does when its main task is over.
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.wait(others, timeout=1.0)
        assert closing.done()
        assert shop.closed
        again = make(shop, Stubborn, journal=journal)
        await again.start()
        await again.aclose()

    run(main())
