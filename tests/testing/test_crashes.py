"""`crash_everywhere`: every point, every promise, and what is said when one breaks."""

import asyncio
import itertools
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from tests.testing.sagas import (
    Bank,
    Careless,
    ChangesItsMind,
    Forgetful,
    Mailing,
    Numbered,
    Once,
    PlaceOrder,
    Remembers,
    Shop,
    Stock,
    Stubborn,
    TwiceRefunding,
    Uncopyable,
    shop_with,
)

from coordinator import Refused, Workflow
from coordinator.testing import (
    BrokenPromiseError,
    RehearsalError,
    Run,
    Services,
    crash_everywhere,
)


def refuses_the_parcel(services: Services) -> None:
    services.refuse("carrier.book", "no carrier")


def words(error: BaseException) -> str:
    """Return the message of *error* without its line breaks."""
    return " ".join(str(error).split())


def broken(
    saga: object,
    receiver: object = Shop,
    script: Callable[[Services], None] | None = None,
) -> BrokenPromiseError:
    with pytest.raises(BrokenPromiseError) as caught:
        crash_everywhere(saga, receiver, script=script)  # type: ignore[arg-type]  # any
    return caught.value


def test_a_saga_is_killed_before_and_after_every_call_and_every_write() -> None:
    report = crash_everywhere(PlaceOrder(), Shop)
    # Three calls; written are the command, three outcomes, and the end.
    assert (report.calls, report.writes, report.points) == (3, 5, 2 * (3 + 5))
    assert str(report) == (
        "PlaceOrder(order='o-1', cents=1999)\n"
        "    killed at each of 16 points: before and after 3 calls and 5 writes\n"
        "    every run completed with Receipt(order='o-1', parcel='parcel of o-1')"
    )


def test_also_through_a_compensation() -> None:
    report = crash_everywhere(PlaceOrder(), Shop(), script=refuses_the_parcel)
    # The refused call does no work, so no moment lies behind it.
    assert (report.calls, report.writes, report.points) == (5, 8, 2 * (5 + 8) - 1)
    assert report.end == "compensated: no carrier"
    assert report.timeline[-1] == "compensated"


def test_also_where_services_fail_and_lose_replies() -> None:
    def script(services: Services) -> None:
        services.fail("stock.reserve", times=2)
        services.lose_reply("bank.charge")
        services.delay("carrier.book", "1m")

    assert crash_everywhere(PlaceOrder(), Shop, script=script).calls == 7


def test_also_within_a_test_that_is_async() -> None:
    async def main() -> int:
        return crash_everywhere(PlaceOrder(), Shop).points

    assert asyncio.run(main()) == 16


def test_a_service_that_honours_no_key_is_named_with_what_it_did_twice() -> None:
    error = broken(PlaceOrder(), shop_with(Once))
    assert error.kind == "world"
    told = words(error)
    assert "does not survive a crash at 2 of 16 points" in told
    assert "The process was killed after bank.charge had done its work" in told
    assert "bank.entries is [1999, 1999] and should be [1999]" in told
    assert (
        "bank.charge changed that, each of the 2 times that it was called, under one "
        "idempotency key" in told
    )
    assert "put @once" in told
    assert "before the outcome of bank.charge was written (world)" in told


def test_an_undo_that_honours_no_key_is_named() -> None:
    error = broken(PlaceOrder(), shop_with(TwiceRefunding), refuses_the_parcel)
    assert error.kind == "world"
    assert "[1999, -1999, -1999]" in words(error)
    assert "bank.charge/undo changed that, each of the 2 times" in words(error)


def test_an_undo_that_raises_when_it_is_repeated_is_named_with_the_remedy() -> None:
    error = broken(PlaceOrder(), shop_with(Stubborn), refuses_the_parcel)
    assert error.kind == "stuck"
    assert "undo of bank.charge failed 10 times, last: ValueError" in words(error)
    assert "it must be able to run more than once" in words(error)
    assert "bank.charge/undo had done its work before, and is asked again" in words(
        error
    )


def test_an_undo_that_needs_what_is_not_recorded_is_told_with_both_runs() -> None:
    error = broken(Remembers(strict=True), Shop, refuses_the_parcel)
    assert error.kind == "stuck"
    told = words(error)
    assert "killed after the outcome of stock.reserve was written" in told
    assert "undo of stock.reserve failed 10 times, last: KeyError: 'sku'" in told
    assert (
        "stock.reserve/undo did its work in the run in which nothing went wrong" in told
    )
    assert "an undo gets what its step returned, and no more: exec runs again" in told
    assert "Have a step return all that its undo" in told


def test_an_undo_that_quietly_does_nothing_for_it_is_told_with_both_runs() -> None:
    error = broken(Remembers(strict=False), Shop, refuses_the_parcel)
    assert error.kind == "world"
    told = words(error)
    assert "stock.held is ['sku'] and should be []" in told
    assert (
        "stock.reserve/undo changed that in the run in which nothing went wrong, and "
        "not in this one" in told
    )
    assert "kept in a variable is gone" in told
    assert "@once" not in told


def test_an_undo_that_always_raises_is_told_with_its_traceback_and_not_ours() -> None:
    class Broken(Bank):
        def refund(self, cents: int) -> None:
            raise KeyError("no such account")

    error = broken(PlaceOrder(), shop_with(Broken), refuses_the_parcel)
    assert error.kind == "stuck"
    lines = str(error).splitlines()
    assert "fails crash_everywhere as it is" in lines[0]
    frames = [line for line in lines if 'File "' in line]
    assert len(frames) == 1
    assert frames[0].endswith(", in refund")
    assert "  still done: stock.reserve, bank.charge" in lines
    assert "see the traceback for a bug in the undo" in words(error)


def test_what_exec_does_outside_of_a_step_is_found() -> None:
    error = broken(Mailing())
    assert error.kind == "world"
    assert "another one: mails is [" in words(error)
    assert "exec itself changed that, outside of any step" in words(error)
    assert "await workflow.step(function, ...)" in words(error)


def test_a_step_named_otherwise_in_the_next_run_is_found_with_both_names() -> None:
    error = broken(Numbered())
    assert error.kind in {"unknown", "named", "chance"}
    told = words(error)
    assert "bank.charge[try-0]" in told
    assert "What to do: " in told


def test_a_step_named_by_a_random_number_is_told_with_the_names_of_both_runs() -> None:
    chance = itertools.count(41)

    @dataclass
    class Random:
        keyed: bool

        async def exec(self, workflow: Workflow, shop: Shop) -> None:
            charge = workflow.step(shop.bank.charge, "o-1", 5)
            number = next(chance)
            if self.keyed:
                await charge.named("bank.charge", key=str(number))
            else:
                await charge.named(f"charge-{number}")

    error = broken(Random(keyed=True))
    assert error.kind == "named"
    told = words(error)
    assert "named differently from run to run: Bank.charge('o-1', 5)" in told
    assert "is step bank.charge[41] in one run of exec, and bank.charge[42]" in told
    assert ".named('bank.charge', key=...)" in told
    told = words(broken(Random(keyed=False)))
    assert "is step charge-43 in one run of exec, and charge-44 in another" in told
    assert ".named(..., key=...)" in told


def test_another_way_without_a_fault_is_told_with_both_steps() -> None:
    chance = itertools.count()

    @dataclass
    class Draws:
        async def exec(self, workflow: Workflow, shop: Shop) -> None:
            if next(chance) % 2:
                await workflow.step(shop.carrier.book_late, "o-1")
            else:
                await workflow.step(shop.carrier.book, "o-1")

    error = broken(Draws())
    assert error.kind == "chance"
    assert "one run called carrier.book, the other carrier.book_late" in words(error)
    assert "let what decides the way be the command's fields" in words(error)


def test_a_class_in_the_place_of_a_command_is_told() -> None:
    with pytest.raises(RehearsalError, match=r"pass a command, PlaceOrder\(\.\.\.\)"):
        crash_everywhere(PlaceOrder, Shop)  # type: ignore[arg-type]  # the mistake


def test_the_same_call_under_two_names_is_told_with_the_remedy() -> None:
    @dataclass
    class Renamed:
        async def exec(self, workflow: Workflow, shop: Shop) -> None:
            # Both are asked for in the end, so nothing of it stays unknown.
            for number in range(shop.chance() + 1):
                charge = workflow.step(shop.bank.charge, "o-1", 5)
                await charge.named("bank.charge", key=f"try-{number}")

    error = broken(Renamed())
    assert error.kind == "named"
    assert (
        "is step bank.charge[try-0] in one run of exec, and bank.charge[try-1]"
        in words(error)
    )
    assert ".named('bank.charge', key=...)" in words(error)


def test_a_result_that_comes_from_chance_is_found() -> None:
    error = broken(Forgetful())
    assert error.kind == "result"
    assert "it completed with 1;" in words(error)
    assert "without that it completed with 0" in words(error)
    assert "take what changes from run to run" in words(error)
    report = crash_everywhere(Forgetful(), Shop, compare=lambda result: None)
    assert report.points == 8


def test_a_fake_that_draws_is_told_before_anything_is_killed() -> None:
    numbers = itertools.count()

    class Drawing(Stock):
        async def reserve(self, sku: str) -> str:
            self.held.append(str(next(numbers)))
            return sku

    def make() -> Shop:
        shop = Shop()
        shop.stock = Drawing()
        return shop

    error = broken(PlaceOrder(), make)
    assert error.kind == "chance"
    assert "differ: each leaves another world behind" in words(error)

    class Answering(Shop):
        async def reserve(self) -> int:
            return next(numbers)

    @dataclass
    class Reserve:
        async def exec(self, workflow: Workflow, shop: Answering) -> int:
            return await workflow.step(shop.reserve)

    told = words(broken(Reserve(), Answering))
    assert re.search(r"reserve returned \d+ in one run, and \d+ in the other", told)
    assert "let fakes count instead of drawing" in told


def test_a_saga_that_is_stuck_as_it_is_is_told_so() -> None:
    @dataclass
    class Buggy:
        async def exec(self, workflow: Workflow, shop: Shop) -> int:
            return {"a": 1}["b"]

    error = broken(Buggy())
    assert "fails crash_everywhere as it is, without any fault" in words(error)
    assert "it is stuck: exec raised KeyError" in words(error)


def test_the_check_sees_the_world_and_the_run_each_time() -> None:
    seen: list[tuple[str, int]] = []

    def check(shop: Shop, run: Run) -> None:
        seen.append((run.status, sum(shop.bank.entries)))
        assert run.refused == ["carrier.book"]

    crash_everywhere(PlaceOrder(), Shop, script=refuses_the_parcel, check=check)
    assert set(seen) == {("compensated", 0)}
    assert len(seen) > 25


def test_a_check_may_return_false() -> None:
    def check(shop: Shop, run: Run) -> bool:
        return not shop.carrier.parcels

    with pytest.raises(BrokenPromiseError, match="the check returned False") as caught:
        crash_everywhere(
            Careless(), Shop, script=lambda s: s.refuse("bank.charge"), check=check
        )
    assert caught.value.kind == "check"


def test_a_check_that_asserts_is_told_with_its_words() -> None:
    def check(shop: Shop, run: Run) -> None:
        assert not shop.carrier.parcels, "shipped and not paid"

    with pytest.raises(BrokenPromiseError, match="the check failed: shipped and not"):
        crash_everywhere(
            Careless(), Shop, script=lambda s: s.refuse("bank.charge"), check=check
        )


def test_a_way_that_the_clock_decides_loses_what_was_done() -> None:
    with pytest.raises(BrokenPromiseError) as caught:
        crash_everywhere(ChangesItsMind(), Shop, script=slow_parcel)
    assert caught.value.kind in {"unknown", "stuck"}
    assert "carrier.book" in str(caught.value)
    assert "take what decides" in str(caught.value)


def slow_parcel(services: Services) -> None:
    services.delay("carrier.book", "25s")
    services.lose_reply("carrier.book")


def test_a_receiver_that_can_not_be_made_anew_is_told_before_anything_runs() -> None:
    shop = Shop()
    shop.stock.notes = Uncopyable()  # type: ignore[attr-defined]  # a fake has anything
    with pytest.raises(
        RehearsalError, match=r"Shop\.stock\.notes\.lock can't be copied"
    ):
        crash_everywhere(PlaceOrder(), shop)


def test_a_script_for_steps_that_are_not_there_is_told() -> None:
    with pytest.raises(RehearsalError, match=r"called were stock\.reserve, bank"):
        crash_everywhere(PlaceOrder(), Shop, script=lambda s: s.refuse("parcel.book"))


def test_refusals_of_ones_own_survive() -> None:
    error = Refused("sold out", {"sku": 7})
    report = crash_everywhere(
        PlaceOrder(), Shop, script=lambda s: s.refuse("stock.reserve", error)
    )
    assert report.end == "compensated: sold out"
