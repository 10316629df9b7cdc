"""Services that are asked twice; and `once`, which has fakes do it once."""

import inspect
from contextlib import suppress
from dataclasses import dataclass

import pytest
from tests.testing.sagas import Bank, Once, PlaceOrder, Shop, TwiceRefunding, shop_with

from coordinator import Refused, Workflow
from coordinator.context import StepContext, in_step
from coordinator.model import Direction, StepId
from coordinator.testing import (
    BrokenPromiseError,
    RehearsalError,
    check_idempotency,
    once,
)
from coordinator.values import return_type


def step(key: str) -> StepContext:
    return StepContext(key, 1, "0-1", StepId("a.b", 0), Direction.DO, 0)


def test_every_step_and_every_undo_is_asked_twice() -> None:
    report = check_idempotency(PlaceOrder(), Shop)
    assert str(report) == (
        "PlaceOrder(order='o-1', cents=1999)\n"
        "    asked twice: stock.reserve, bank.charge, carrier.book, bank.charge/undo, "
        "stock.reserve/undo"
    )


def test_a_step_that_is_done_twice_is_named_with_what_it_changed() -> None:
    with pytest.raises(BrokenPromiseError) as caught:
        check_idempotency(PlaceOrder(), shop_with(Once))
    told = str(caught.value)
    assert caught.value.kind == "idempotency"
    assert "1 of 5 steps are not done once" in told
    assert "bank.charge\n  the second call changed the world once more:" in told
    assert "is           [1999, 1999]\n        and should be [1999]" in told


def test_so_is_an_undo() -> None:
    with pytest.raises(BrokenPromiseError) as caught:
        check_idempotency(PlaceOrder(), shop_with(TwiceRefunding))
    assert "bank.charge/undo\n  the second call changed" in str(caught.value)


def test_another_answer_is_named_and_so_is_a_failure() -> None:
    class Counting(Bank):
        def charge(self, order: str, cents: int) -> int:
            self.entries.append(cents)
            return len(self.entries)

        def refund(self, cents: int) -> None:
            self.entries.remove(1999)
            self.entries.index(1999)

    with pytest.raises(BrokenPromiseError) as caught:
        check_idempotency(PlaceOrder(), shop_with(Counting))
    told = str(caught.value)
    assert "first it answered 1\n  then              2" in told


def test_an_undo_that_is_never_done_is_told_and_not_passed_over() -> None:
    class Broken(Bank):
        def refund(self, cents: int) -> None:
            raise KeyError("no such account")

    with pytest.raises(BrokenPromiseError) as caught:
        check_idempotency(PlaceOrder(), shop_with(Broken))
    assert caught.value.kind == "stuck"
    assert "fails check_idempotency" in str(caught.value)
    assert "undo of bank.charge failed 10 times" in str(caught.value)


def test_a_script_is_followed_and_has_to_be_right() -> None:
    report = check_idempotency(
        PlaceOrder(), Shop, script=lambda s: s.returns("bank.charge", 5)
    )
    assert "bank.charge" not in report.steps
    with pytest.raises(RehearsalError, match="never came to anything"):
        check_idempotency(PlaceOrder(), Shop, script=lambda s: s.refuse("nobody"))


class Fake:
    def __init__(self) -> None:
        self.count = 0

    @once
    async def do(self, by: int) -> list[int]:
        """Do it."""
        self.count += by
        return [self.count]

    @once
    def do_plain(self, by: int) -> int:
        self.count += by
        return self.count

    @once
    def refuse(self) -> None:
        self.count += 1
        raise Refused("no")

    @once
    async def refuse_later(self) -> None:
        self.count += 1
        raise Refused("no")


def test_a_fake_does_a_thing_once_per_key() -> None:
    fake = Fake()
    for key, expected in (("k-1", 2), ("k-1", 2), ("k-2", 4)):
        with in_step(step(key)):
            assert fake.do_plain(2) == expected
    assert Fake().do_plain(1) == 1  # outside of a step, it is simply called


def test_a_fake_that_refused_refuses_again() -> None:
    fake = Fake()
    for _ in range(2):
        with in_step(step("k-1")), pytest.raises(Refused, match="no"):
            fake.refuse()
    assert fake.count == 1


@dataclass
class Doing:
    async def exec(self, workflow: Workflow, fake: Fake) -> int:
        (first,) = await workflow.step(fake.do, 1)
        with suppress(Refused):
            await workflow.step(fake.refuse_later)
        return first


def test_an_async_fake_does_too() -> None:
    report = check_idempotency(Doing(), Fake)
    assert report.steps == ["Fake.do"]


def test_what_is_wrapped_looks_as_before() -> None:
    assert inspect.iscoroutinefunction(Fake.do)
    assert not inspect.iscoroutinefunction(Fake.do_plain)
    assert Fake.do.__doc__ == "Do it."
    assert return_type(Fake().do) == list[int]


def test_an_object_without_a_memory_is_told() -> None:
    class Slotted:
        __slots__ = ()

        @once
        def do(self) -> None: ...

    with in_step(step("k")), pytest.raises(RehearsalError, match="remembers in the"):
        Slotted().do()
