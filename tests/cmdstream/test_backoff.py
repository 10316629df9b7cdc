"""The delays of a client that comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmdstream import ReconnectOptions
from cmdstream.backoff import Backoff


def longest_of(options: ReconnectOptions, tries: int) -> list[float]:
    """The intervals from which the delays are drawn."""
    backoff = Backoff(options)
    return [backoff.next_s() for _ in range(tries)]


def test_each_try_may_wait_longer_up_to_the_cap() -> None:
    """W-C3: Go does not wait at all."""
    options = ReconnectOptions(first_s=1, factor=2, longest_s=10, random=lambda: 1.0)
    assert longest_of(options, 6) == [1, 2, 4, 8, 10, 10]


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 2000))
def test_the_jitter_is_full_and_the_delay_stays_finite(chance: float, n: int) -> None:
    options = ReconnectOptions(first_s=1, longest_s=10, random=lambda: chance)
    backoff = Backoff(options)
    for _ in range(n):
        backoff.next_s()
    assert backoff.next_s() == chance * min(2 ** min(n, 4), 10)


def test_only_a_connection_that_lasted_makes_the_next_wait_short_again() -> None:
    options = ReconnectOptions(first_s=1, longest_s=10, random=lambda: 1.0)
    backoff = Backoff(options)
    backoff.next_s()
    backoff.lasted(9.9)
    assert backoff.next_s() == 2
    backoff.lasted(10)
    assert backoff.next_s() == 1


@pytest.mark.parametrize(
    "options",
    [
        {"first_s": 0},
        {"first_s": 20},
        {"first_s": float("nan")},
        {"factor": 0.9},
        {"tries_max": 0},
        {"outage_max_s": 0},
    ],
)
def test_options_out_of_their_bounds_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="reconnecting needs"):
        ReconnectOptions(**options)  # type: ignore[arg-type]  # the point of the test
