"""Code that catches everything, and exceptions, values and steps of an odd kind.

It costs its author a stuck workflow, at most; nobody else, and no loop for ever.
"""

import asyncio
import gc
import sys
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.engine.support import KeepingJournal, Shop, make, run, until

from coordinator import (
    CommandDelayed,
    Refused,
    Retry,
    Workflow,
    WorkflowStuckError,
)
from coordinator.model import OutcomeStatus
from coordinator.records import Outcome
from coordinator.steps import UNWINDS_MAX


@contextmanager
def coroutines_may_ignore_their_end() -> Generator[None]:
    """Code that catches everything catches its own end as well, and Python says so."""
    said: list[str] = []
    hook = sys.unraisablehook
    sys.unraisablehook = lambda what: said.append(str(what.exc_value))
    try:
        yield
        gc.collect()
    finally:
        sys.unraisablehook = hook
    assert set(said) <= {"coroutine ignored GeneratorExit"}


# Loops.


@dataclass
class Retrying:
    """A retry loop of the user's own.

    Args:
        pause_s: Between two tries; none if negative.
        bare: Whether it catches everything.
    """

    pause_s: float
    bare: bool

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        while True:
            try:
                await workflow.step(shop.payments.do).undo(shop.payments.undo)
            except BaseException as error:
                if not self.bare and not isinstance(error, Exception):
                    raise
                if self.pause_s >= 0:
                    await asyncio.sleep(self.pause_s)
            else:
                return "paid"


@dataclass
class Nothing:
    """Ends at once."""

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        return "done"


@pytest.mark.parametrize("bare", [False, True])
@pytest.mark.parametrize("pause_s", [-1, 0.0, 1.0])
def test_a_retry_loop_ends_its_run_and_the_service_is_asked_again(
    pause_s: float, *, bare: bool
) -> None:
    shop = Shop()
    shop.payments.script = [CommandDelayed("busy")] * 3

    async def main() -> None:
        async with make(shop, Retrying) as coordinator:
            async with asyncio.timeout(3600):
                assert await coordinator.execute(Retrying(pause_s, bare)) == "paid"

    with coroutines_may_ignore_their_end():
        run(main())
    assert len(shop.payments.calls) == 4
    assert len(set(shop.payments.calls)) == 1


@pytest.mark.parametrize("how", ["cancel", "drain", "aclose"])
def test_a_loop_that_catches_everything_is_run_no_further(how: str) -> None:
    shop = Shop()
    shop.payments.script = [0.3]

    async def main() -> None:
        async with make(shop, Endless, Nothing) as coordinator:
            handle = await coordinator.submit(Endless())
            await until(lambda: shop.payments.calls)
            if how == "cancel":
                await coordinator.cancel(handle.id, by="ann")
                await until(lambda: not coordinator.workflows())
            elif how == "drain":
                assert await coordinator.drain(5.0)
            if how != "drain":
                assert await coordinator.execute(Nothing()) == "done"

    with coroutines_may_ignore_their_end():
        run(main())
    assert shop.world[1:] == (["undo payments"] if how == "cancel" else [])


@dataclass
class Endless:
    """Asks for ever, and catches whatever comes."""

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        await workflow.step(shop.payments.do).undo(shop.payments.undo)
        while True:
            try:
                await asyncio.sleep(1.0)
                await workflow.step(shop.shipping.do).timeout(1e6)
                await workflow.append_outcome("note", 1)
            except BaseException:  # noqa: BLE001 -- what it is here for
                pass


def test_a_task_of_the_users_that_catches_everything_is_run_no_further() -> None:
    shop = Shop()
    shop.payments.script = [CommandDelayed("busy")]
    asked = 0

    @dataclass
    class Order:
        async def exec(self, workflow: Workflow, shop: Shop) -> str:
            async with asyncio.TaskGroup() as group:
                group.create_task(self.ask(workflow, shop))
            return "paid"

        async def ask(self, workflow: Workflow, shop: Shop) -> None:
            nonlocal asked
            while True:
                try:
                    await workflow.step(shop.payments.do)
                except GeneratorExit:
                    raise
                except BaseException:  # noqa: BLE001 -- what it is here for
                    asked += 1
                else:
                    return

    async def main() -> None:
        async with make(shop, Order, Nothing) as coordinator:
            assert await coordinator.execute(Order()) == "paid"
            left = asyncio.all_tasks() - {asyncio.current_task()}
            for task in left:  # the one that is run no further waits for nothing
                task.get_coro().close()

    with coroutines_may_ignore_their_end():
        run(main())
    assert asked <= UNWINDS_MAX + 3
    assert len(shop.payments.calls) == 2


# Exceptions.


class RudeError(Exception):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


@dataclass
class Raising:
    """Raises; itself, or in a step, or in an undo."""

    what: str
    where: str

    async def exec(self, workflow: Workflow, shop: Shop) -> None:
        error = {
            "rude": RudeError(),
            "surrogate": ValueError("caf\udce9.txt"),
            "refused": Refused("caf\udce9.txt", {"caf\udce9": "\udce9"}),
            "wordless": Refused(RudeError()),  # type: ignore[arg-type]
        }[self.what]
        if self.where == "step":
            shop.payments.script = [error]
        if self.where == "undo":
            await workflow.step(shop.payments.do).undo(shop.payments.undo)
            shop.payments.undo_script = [error]
            raise Refused("no")
        if self.where == "exec":
            raise error
        await workflow.step(shop.payments.do)


@pytest.mark.parametrize("where", ["exec", "step", "undo"])
@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("rude", "RudeError: (its text can't be had: RuntimeError)"),
        ("surrogate", "caf\\udce9.txt"),
        ("refused", "caf\\udce9.txt"),
        ("wordless", "(its text can't be had: RuntimeError)"),
    ],
)
def test_an_exception_whose_text_can_not_be_had_or_stored_ends_like_any_other(
    what: str, says: str, where: str
) -> None:
    journal = KeepingJournal()
    retry = Retry(attempts_max=1)

    async def main() -> str:
        async with make(Shop(), Raising, journal=journal, retry=retry) as coordinator:
            async with asyncio.timeout(3600):
                try:
                    await coordinator.execute(Raising(what, where))
                except WorkflowStuckError as stuck:
                    assert what in {"rude", "surrogate"} or where == "undo"
                    return stuck.reason
                except Refused as refusal:
                    assert what in {"refused", "wordless"}
                    return refusal.reason
            return ""

    assert says in run(main())


class Shapeless(Refused):
    """Its details are no mapping."""

    details = None  # type: ignore[assignment]

    def __init__(self) -> None:
        Exception.__init__(self, "no")


@pytest.mark.parametrize("where", ["exec", "step"])
def test_a_refusal_whose_details_can_not_be_had_is_stuck(where: str) -> None:
    shop = Shop()

    @dataclass
    class Order:
        async def exec(self, workflow: Workflow, shop: Shop) -> None:
            if where == "exec":
                raise Shapeless
            shop.payments.script = [Shapeless()]
            await workflow.step(shop.payments.do)

    async def main() -> None:
        async with make(shop, Order) as coordinator, asyncio.timeout(3600):
            with pytest.raises(WorkflowStuckError, match="details of Shapeless can't"):
                await coordinator.execute(Order())

    run(main())


def test_a_step_whose_name_can_not_be_stored_is_stuck() -> None:
    @dataclass
    class Order:
        async def exec(self, workflow: Workflow, shop: Shop) -> None:
            await workflow.step(shop.payments.do).named("caf\udce9.pay")

    async def main() -> None:
        async with make(Shop(), Order) as coordinator, asyncio.timeout(3600):
            with pytest.raises(WorkflowStuckError, match="lone surrogate"):
                await coordinator.execute(Order())

    run(main())


@pytest.mark.parametrize("error", [asyncio.CancelledError(), GeneratorExit()], ids=repr)
def test_an_undo_that_raises_what_ends_tasks_is_counted_like_any_other(
    error: BaseException,
) -> None:
    shop = Shop()
    shop.payments.undo_script = [error] * 3
    retry = Retry(attempts_max=3, delays_max=3)

    @dataclass
    class Order:
        async def exec(self, workflow: Workflow, shop: Shop) -> None:
            await workflow.step(shop.payments.do).undo(shop.payments.undo)
            raise Refused("no")

    async def main() -> None:
        async with make(shop, Order, retry=retry) as coordinator:
            handle = await coordinator.submit(Order())
            with pytest.raises(WorkflowStuckError, match=r"undo of .* failed 3 times"):
                await handle.result()
            await coordinator.retry(handle.id, by="ann")
            with pytest.raises(Refused, match="no"):
                await handle.result()

    run(main())
    assert shop.world == ["do payments 0", "undo payments"]
    assert len(shop.payments.calls) == 5


@dataclass(frozen=True)
class Declined(Refused):
    """A frozen dataclass, as a refusal."""

    code: int = 0


@dataclass
class Careful:
    """Takes another way where it is declined."""

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        try:
            await workflow.step(shop.payments.do)
        except Declined as declined:
            await workflow.step(shop.inventory.do)
            return declined.code
        return 0


def test_a_refusal_that_is_frozen_is_made_again_as_what_it_was() -> None:
    shop = Shop()
    shop.payments.script = [Declined(7)]
    shop.inventory.script = [CommandDelayed("busy")]

    async def main() -> int:
        async with make(shop, Careful) as coordinator:
            return await coordinator.execute(Careful())

    assert run(main()) == 7
    assert len(shop.payments.calls) == 1


class Model:
    """What it comes to as plain values can't be had."""

    def model_dump(self) -> dict[str, Any]:
        raise KeyError("serializer")


@dataclass
class Unstorable:
    """Returns it."""

    async def exec(self, workflow: Workflow, shop: Shop) -> Any:
        return Model()


def test_a_result_whose_own_code_fails_is_stuck() -> None:
    async def main() -> None:
        async with make(Shop(), Unstorable) as coordinator:
            async with asyncio.timeout(3600):
                with pytest.raises(WorkflowStuckError, match="the result: Model"):
                    await coordinator.execute(Unstorable())

    run(main())


# Notes.


async def charge(cents: int) -> int:
    """Be a step whose name is a word."""
    return cents


@dataclass
class Noting:
    """Notes something under the name of a step, before it and behind it."""

    async def exec(self, workflow: Workflow, shop: Shop) -> list[Any]:
        await workflow.append_outcome("charge", 7)
        first = await workflow.step(charge, 100)
        await workflow.append_outcome("charge", 8)
        second = await workflow.step(charge, 200)
        return [first, second]


def test_a_note_is_no_outcome_of_a_step_of_that_name() -> None:
    journal = KeepingJournal()

    async def main() -> list[Any]:
        async with make(Shop(), Noting, journal=journal) as coordinator:
            return await coordinator.execute(Noting())

    assert run(main()) == [100, 200]
    outcomes = [record for record in journal.records if isinstance(record, Outcome)]
    assert [(o.step, o.occurrence, o.status) for o in outcomes] == [
        ("charge", 0, OutcomeStatus.NOTED),
        ("charge", 0, OutcomeStatus.DONE),
        ("charge", 1, OutcomeStatus.NOTED),
        ("charge", 1, OutcomeStatus.DONE),
    ]


# Steps that are functions in functions.


@dataclass
class Payload:
    """What a step holds on to."""

    data: list[int] = field(default_factory=lambda: [1])


ALIVE: "weakref.WeakValueDictionary[int, Payload]" = weakref.WeakValueDictionary()


@dataclass
class Local:
    """Makes its step itself."""

    number: int

    async def exec(self, workflow: Workflow, shop: Shop) -> int:
        payload = ALIVE[self.number] = Payload()

        async def local() -> int:
            return len(payload.data)

        return await workflow.step(local)


def test_a_function_that_was_a_step_is_not_kept_alive() -> None:
    async def main() -> None:
        async with make(Shop(), Local) as coordinator:
            for number in range(50):
                assert await coordinator.execute(Local(number)) == 1
            gc.collect()
            assert len(ALIVE) <= 1

    run(main())


# Code that was changed.


async def measure() -> str:
    """Return what the first version returned."""
    return "12 cm"


async def measure_anew() -> int:
    """Return what the second one does."""
    return 12


@dataclass
class Measured:
    """Asks for one of them by one name; then waits."""

    async def exec(self, workflow: Workflow, shop: Shop) -> str:
        step = workflow.step(measure_anew if CHANGED else measure)
        await step.named("measure")
        await workflow.step(shop.payments.do)
        return "done"


CHANGED: list[str] = []


def test_an_outcome_that_no_longer_fits_its_type_is_stuck_until_it_does() -> None:
    shop = Shop()
    shop.payments.script = [1e6]
    journal = KeepingJournal()

    async def first() -> None:
        async with make(shop, Measured, journal=journal) as coordinator:
            await coordinator.submit(Measured())
            await until(lambda: shop.payments.calls)

    async def second() -> None:
        async with make(shop, Measured, journal=journal) as coordinator:
            (info,) = coordinator.workflows()
            await until(lambda: coordinator.workflow(info.id).status == "stuck")
            reason = coordinator.workflow(info.id).reason
            assert "measure: what is stored does not fit int" in reason
            CHANGED.clear()
            await coordinator.retry(info.id, by="ann")
            await until(lambda: not coordinator.workflows())

    run(first())
    CHANGED.append("deployed anew")
    run(second())
    assert shop.world == ["do payments 0"]


def test_who_raises_command_delayed_itself_runs_again_later() -> None:
    runs: list[float] = []

    @dataclass
    class Order:
        async def exec(self, workflow: Workflow, shop: Shop) -> int:
            runs.append(asyncio.get_running_loop().time())
            if len(runs) < 3:
                raise CommandDelayed("not yet")
            return len(runs)

    async def main() -> None:
        async with make(Shop(), Order) as coordinator:
            assert await coordinator.execute(Order()) == 3

    run(main())
    assert runs[0] < runs[1] < runs[2]
