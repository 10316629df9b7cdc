"""Percentiles and slopes."""

import pytest
from bench.load import percentile, summed_up
from bench.overload import slope


def test_percentiles_are_of_the_sorted_values() -> None:
    values = [float(v) for v in reversed(range(100))]
    assert (percentile(values, 50), percentile(values, 99)) == (50.0, 99.0)
    assert percentile([7.0], 99) == 7.0


def test_a_rate_counts_what_ended_within_the_window() -> None:
    found = summed_up([0.1, 0.3, 0.2], 2.0, 4)
    assert (found.rate, found.p50_ms, found.count, found.total) == (1.5, 200.0, 3, 4)


def test_a_window_in_which_nothing_ended_has_no_figures() -> None:
    with pytest.raises(AssertionError, match="nothing ended"):
        summed_up([], 1.0, 0)


def test_a_line_has_its_slope_and_noise_around_it_none() -> None:
    assert slope([5.0, 7.0, 9.0, 11.0]) == 2.0
    assert slope([1.0, 2.0, 2.0, 1.0]) == 0.0
