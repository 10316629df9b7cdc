"""The script: which answer is for which call."""

import pytest

from coordinator import CommandDelayed, Refused
from coordinator.testing import RehearsalError, Services
from coordinator.testing.services import names_of


def kind(services: Services, step: str) -> str:
    answer = services.answer(step)
    if answer.before is not None:
        return type(answer.before).__name__
    return "lost" if answer.lost else "called"


def test_a_step_is_meant_by_its_name_its_number_and_its_key() -> None:
    assert names_of("bank.charge") == ("bank.charge", "bank.charge#0")
    assert names_of("bank.charge#1/undo") == ("bank.charge#1/undo", "bank.charge/undo")
    assert names_of("stock.reserve[a]#2") == (
        "stock.reserve[a]#2",
        "stock.reserve[a]",
        "stock.reserve",
    )


def test_each_line_takes_as_many_calls_as_it_says_in_their_order() -> None:
    services = Services()
    services.fail("bank.charge", times=2)
    services.lose_reply("bank.charge")
    services.refuse("bank.charge", after=4)
    assert [kind(services, "bank.charge") for _ in range(6)] == [
        "CommandDelayed",
        "CommandDelayed",
        "lost",
        "called",
        "Refused",
        "called",
    ]
    assert services.unused() == ""


def test_a_step_is_not_its_undo() -> None:
    services = Services()
    services.refuse("bank.charge/undo")
    assert kind(services, "bank.charge") == "called"
    assert kind(services, "bank.charge/undo") == "Refused"


def test_a_number_means_one_step_and_a_name_all_of_them() -> None:
    services = Services()
    services.refuse("bank.charge#1")
    services.fail("bank.charge", times=None)
    assert kind(services, "bank.charge") == "CommandDelayed"
    assert kind(services, "bank.charge#1") == "Refused"
    assert kind(services, "bank.charge#2") == "CommandDelayed"


def test_refusals_and_failures_of_ones_own_are_raised_as_they_are() -> None:
    class NoCarrier(Refused):
        pass

    services = Services()
    refusal, failure = NoCarrier("there"), KeyError("id")
    services.refuse("carrier.book", refusal)
    services.fail("bank.charge", failure)
    assert services.answer("carrier.book").before is refusal
    assert services.answer("bank.charge").before is failure
    services.fail("bank.charge", "down")
    assert isinstance(services.answer("bank.charge").before, CommandDelayed)


def test_a_value_and_a_delay_go_with_anything() -> None:
    services = Services()
    services.returns("bank.charge", None)
    services.delay("bank.charge", "2s")
    services.lose_reply("bank.charge")
    answer = services.answer("bank.charge")
    assert (answer.canned, answer.value, answer.delay_s, answer.lost) == (
        True,
        None,
        2.0,
        True,
    )
    assert not services.answer("stock.reserve").canned


def test_a_name_that_was_never_called_is_told_with_those_that_were() -> None:
    services = Services()
    services.refuse("payments.chrage")
    services.returns("bank.refund/undo", None)
    services.answer("payments.charge")
    assert services.unused() == (
        "refuse('payments.chrage'), returns('bank.refund/undo') never came to "
        "anything: no step of that name was called; called were payments.charge"
    )


def test_a_call_that_never_came_is_told_too() -> None:
    services = Services()
    services.fail("bank.charge", after=1)
    services.answer("bank.charge")
    assert "the step was called less often than that" in services.unused()


def test_a_value_for_an_undo_that_did_not_come_to_it_is_no_mistake() -> None:
    services = Services()
    services.returns("bank.charge/undo", None)
    services.answer("bank.charge")
    assert services.unused() == ""


def test_a_line_that_means_nothing_is_refused() -> None:
    services = Services()
    with pytest.raises(RehearsalError, match="name the step as the timeline does"):
        services.refuse("")
    with pytest.raises(RehearsalError, match="times must be 1 or more"):
        services.fail("bank.charge", times=0)
    with pytest.raises(RehearsalError, match="is not a duration"):
        services.delay("bank.charge", "soon")
