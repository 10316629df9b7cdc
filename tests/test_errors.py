"""What can go wrong: the tree is as drawn, and each says what a person needs."""

import re
from typing import Any

import pytest

from coordinator import errors
from coordinator.errors import (
    CommandBlocked,
    CommandDelayed,
    ConcurrentStepsError,
    CoordinatorError,
    JournalDamagedError,
    JournalLockedError,
    Refused,
    WorkflowCancelledError,
    WorkflowStuckError,
)


def drawn() -> dict[str, str]:
    """Return, from the module's docstring, each class and the one it stands under."""
    parents: dict[str, str] = {}
    stack: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"    ((?:[|` -]*-- )?)(\w+)", line)
        if found is None:
            continue
        depth, name = len(found[1]), found[2]
        while stack and stack[-1][0] >= depth:
            stack.pop()
        if stack:
            parents[name] = stack[-1][1]
        stack.append((depth, name))
    return parents


def test_the_classes_stand_as_they_are_drawn() -> None:
    classes = {name: getattr(errors, name) for name in errors.__all__}
    assert {name: class_.__base__.__name__ for name, class_ in classes.items()} == (
        drawn()
    )


def test_every_exception_of_the_module_is_public() -> None:
    found = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and issubclass(value, BaseException)
    }
    assert found == set(errors.__all__)


@pytest.mark.parametrize("name", sorted(set(errors.__all__)))
def test_only_words_that_a_service_says_are_not_called_error(name: str) -> None:
    class_: type[Exception] = getattr(errors, name)
    own = issubclass(class_, CoordinatorError)
    assert name.endswith("Error") is own


def test_a_refusal_carries_its_reason_and_details() -> None:
    error = Refused("no stock", {"sku": "s-7"})
    assert (str(error), error.reason) == ("no stock", "no stock")
    assert error.details == {"sku": "s-7"}
    assert (Refused().reason, Refused().details) == ("", {})


def test_a_refusal_keeps_its_own_details() -> None:
    details: dict[str, object] = {"sku": "s-7"}
    error = Refused("no stock", details)
    details["sku"] = "s-8"
    assert error.details == {"sku": "s-7"}


def test_a_refusal_whose_class_forgets_the_base_has_a_reason_and_details() -> None:
    class Declined(Refused):
        def __init__(self, code: int) -> None:
            self.code = code

    error = Declined(7)
    assert (error.reason, error.details, error.code) == ("", {}, 7)


def test_a_delay_says_for_how_long_if_the_service_did() -> None:
    error = CommandDelayed("busy", retry_after_s=2.5)
    assert (str(error), error.reason, error.retry_after_s) == ("busy", "busy", 2.5)
    assert CommandDelayed().retry_after_s is None


def test_a_blocked_command_names_the_service() -> None:
    error = CommandBlocked("payments")
    assert str(error) == error.reason == "service payments is blocked"
    assert error.service == "payments"
    assert str(CommandBlocked("payments", "breaker open")) == "breaker open"
    assert error.retry_after_s is None


@pytest.mark.parametrize(
    ("error", "message", "fields"),
    [
        (
            ConcurrentStepsError("payments.charge"),
            (
                "two steps named payments.charge are running at once, so their order "
                "would be a matter of chance; give each a key: "
                ".named('payments.charge', key=...)"
            ),
            {"step": "payments.charge"},
        ),
        (
            WorkflowCancelledError("0-7", "by ann"),
            "workflow 0-7 was cancelled: by ann",
            {"workflow_id": "0-7", "reason": "by ann"},
        ),
        (
            WorkflowStuckError("0-7", "a bug"),
            (
                "workflow 0-7 is stuck: a bug; see `coordinator show 0-7`, then retry "
                "or cancel it"
            ),
            {"workflow_id": "0-7", "reason": "a bug"},
        ),
        (
            JournalLockedError("orders", "pid 1"),
            "orders is in use by pid 1; stop it first, or use another folder",
            {"path": "orders", "holder": "pid 1"},
        ),
        (
            JournalDamagedError("orders/0", 8, "bad crc"),
            (
                "orders/0 is damaged at byte 8: bad crc; the partition is not opened: "
                "restore the file from a copy, or let `coordinator journal repair` say "
                "what is lost"
            ),
            {"path": "orders/0", "offset": 8, "problem": "bad crc"},
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_each_says_what_is_wrong_and_what_to_do(
    error: CoordinatorError, message: str, fields: dict[str, Any]
) -> None:
    assert str(error) == message
    assert {name: getattr(error, name) for name in fields} == fields
