"""The numbers that instances go by: what may be chosen, and what they allow."""

import pytest

from coordinator.cluster.timing import TIMING, Timing


def test_a_lease_outlives_the_slowest_election_that_was_seen() -> None:
    assert TIMING.lease_s - TIMING.margin_s > 16


def test_four_notices_may_be_lost_in_a_row() -> None:
    assert 5 * TIMING.notice_s <= TIMING.lease_s


def test_clocks_may_drift_apart_by_what_the_margin_covers() -> None:
    drift = TIMING.drift_max
    assert drift == pytest.approx(1 / 19)
    old_s = (TIMING.lease_s - TIMING.margin_s) / (1 - drift)
    new_s = TIMING.lease_s / (1 + drift)
    assert old_s == pytest.approx(new_s)


@pytest.mark.parametrize(
    ("lease_s", "margin_s", "notice_s", "settle_s", "what"),
    [
        (20, 0, 4, 1, "margin_s must be more than 0"),
        (20, 10.5, 4, 1, "at most half of lease_s"),
        (20, 2, 4.1, 1, "notice_s <= lease_s / 5"),
        (20, 2, 1, 1.1, "settle_s <= notice_s"),
        (20, 2, 4, 0, "0 < settle_s"),
    ],
)
def test_numbers_that_do_not_fit_each_other_are_refused(
    lease_s: float, margin_s: float, notice_s: float, settle_s: float, what: str
) -> None:
    with pytest.raises(ValueError, match=what):
        Timing(lease_s=lease_s, margin_s=margin_s, notice_s=notice_s, settle_s=settle_s)


def test_a_test_may_have_a_lease_of_a_second() -> None:
    timing = Timing(lease_s=1, margin_s=0.1, notice_s=0.2, settle_s=0.05)
    assert timing.drift_max == pytest.approx(1 / 19)
