"""The shared words: ids, keys and policies are what their docstrings say."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.model import (
    Direction,
    EndStatus,
    OutcomeStatus,
    Retry,
    StepId,
    format_workflow_id,
    idempotency_key,
    parse_workflow_id,
    service_of,
)

names = st.text(string.ascii_letters + "./[]#", min_size=1, max_size=12)
steps = st.builds(StepId, names, st.integers(0, 20))


def test_the_stored_numbers_are_the_ones_that_were_released() -> None:
    assert {d.name: d.value for d in Direction} == {"DO": 0, "UNDO": 1}
    statuses = {"DONE": 0, "REFUSED": 1, "NOTED": 2}
    assert {s.name: s.value for s in OutcomeStatus} == statuses
    ends = {"COMPLETED": 0, "COMPENSATED": 1, "CANCELLED": 2}
    assert {s.name: s.value for s in EndStatus} == ends


def test_a_step_says_its_occurrence_only_if_it_is_not_the_first() -> None:
    assert str(StepId("payments.charge", 0)) == "payments.charge"
    assert str(StepId("payments.charge", 2)) == "payments.charge#2"


@given(st.integers(0, 2**31), st.integers(0, 2**63))
def test_a_workflow_id_says_where_its_accepted_record_is(
    partition: int, position: int
) -> None:
    id_ = format_workflow_id(partition, position)
    assert id_ == f"{partition}-{position}"
    assert parse_workflow_id(id_) == (partition, position)


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "1", "1-", "-1", "a-1", "1-b", "1-2-3", "1.0-2", " 1-2", "1--2"),
        *("00-1", "0-01", "\u0660-\u0661", "\uff11-1", "\u00b2-1", "0-1\n"),
    ],
)
def test_what_is_no_workflow_id_is_refused_by_its_text(text: str) -> None:
    with pytest.raises(ValueError, match="looks like 0-1042") as caught:
        parse_workflow_id(text)
    assert repr(text) in str(caught.value)


def test_a_long_text_is_no_workflow_id_and_is_not_repeated() -> None:
    with pytest.raises(ValueError, match="looks like 0-1042") as caught:
        parse_workflow_id("0-" + "9" * 5000)
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("step", "service"),
    [
        ("payments.charge", "payments"),
        ("eu.payments.charge", "eu.payments"),
        ("charge", "charge"),
        ("payments.charge[order.7]", "payments"),
        ("charge[order.7]", "charge"),
        ("payments.charge[a[b].c]", "payments"),
    ],
)
def test_the_service_is_what_stands_before_the_last_dot(
    step: str, service: str
) -> None:
    assert service_of(step) == service


def test_an_idempotency_key_is_made_as_promised_to_the_services() -> None:
    step = StepId("payments.charge", 3)
    key = "j/0-7/payments.charge/3"
    assert idempotency_key("j", "0-7", step, Direction.DO) == key
    assert idempotency_key("j", "0-7", step, Direction.UNDO) == f"{key}/undo"


@given(steps, steps, st.sampled_from(Direction), st.sampled_from(Direction))
def test_no_two_steps_share_a_key(
    a: StepId, b: StepId, direction_a: Direction, direction_b: Direction
) -> None:
    key_a = idempotency_key("j", "0-7", a, direction_a)
    key_b = idempotency_key("j", "0-7", b, direction_b)
    assert (key_a == key_b) is ((a, direction_a) == (b, direction_b))


def test_a_retry_policy_may_lie_on_its_bounds() -> None:
    retry = Retry(
        first_s=1, longest_s=1, factor=1, jitter=0, attempts_max=1, delays_max=1
    )
    assert Retry(jitter=1, attempts_max=None).jitter == 1
    assert (retry.attempts_max, retry.delays_max) == (1, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("first_s", 0),
        ("first_s", -1),
        ("first_s", 31),
        ("first_s", float("nan")),
        ("longest_s", 0.1),
        ("longest_s", float("nan")),
        ("factor", 0.9),
        ("factor", float("nan")),
        ("jitter", -0.1),
        ("jitter", 1.1),
        ("jitter", float("nan")),
        ("attempts_max", 0),
        ("delays_max", 0),
    ],
)
def test_a_retry_policy_beyond_its_bounds_is_refused(field: str, value: float) -> None:
    with pytest.raises(ValueError, match="retry"):
        Retry(**{field: value})  # type: ignore[arg-type]  # the test goes through all
