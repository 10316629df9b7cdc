"""One owner's lease, by values; and that no two leases let two owners turn back."""

from hypothesis import given
from hypothesis import strategies as st

from coordinator.cluster.tenure import Tenure
from coordinator.cluster.timing import TIMING


def tenure(*, began_s: float = 100.0, earlier_lease_s: float = 20.0) -> Tenure:
    return Tenure(
        TIMING, began_s=began_s, claimed_s=103.0, earlier_lease_s=earlier_lease_s
    )


def test_a_lease_counts_from_where_the_claim_began() -> None:
    owned = tenure()
    assert owned.may_start(117.9)
    assert not owned.may_start(118.0)


def test_a_write_prolongs_it_from_where_it_began() -> None:
    owned = tenure()
    owned.renewed(110.0)
    assert owned.lapses_s == 128.0
    assert owned.may_start(127.9)
    assert not owned.may_start(128.0)


def test_an_older_write_that_is_acknowledged_late_shortens_nothing() -> None:
    owned = tenure()
    owned.renewed(110.0)
    owned.renewed(105.0)
    assert owned.lapses_s == 128.0


def test_it_is_renewed_half_way() -> None:
    assert tenure().renew_s == 109.0


def test_it_may_start_again_once_a_write_got_through() -> None:
    owned = tenure()
    assert not owned.may_start(500.0)
    owned.renewed(500.0)
    assert owned.may_start(501.0)


def test_who_comes_after_an_owner_is_alone_a_lease_after_the_claim_is_durable() -> None:
    owned = tenure()
    assert owned.alone_s == 123.0
    assert not owned.is_alone(122.9)
    assert owned.is_alone(123.0)


def test_who_comes_after_a_release_is_alone_at_once() -> None:
    assert tenure(earlier_lease_s=0.0).is_alone(103.0)


def test_behind_a_lock_there_is_no_lease_and_nobody_to_wait_for() -> None:
    owned = Tenure(None, began_s=100.0, claimed_s=103.0, earlier_lease_s=0.0)
    assert owned.may_start(1e12)
    assert owned.is_alone(103.0)
    assert owned.renew_s > 1e12


drifts = st.floats(-TIMING.drift_max, TIMING.drift_max)
moments = st.floats(0.0, 100.0)


@given(drifts, drifts, st.floats(-1e6, 1e6), st.lists(moments), moments, moments)
def test_no_owner_starts_anything_once_the_next_one_is_alone(
    old_drift: float,
    new_drift: float,
    apart_s: float,
    writes: list[float],
    claim: float,
    took: float,
) -> None:
    """In true time, whatever each clock shows, within the drift that is assumed."""

    def old_clock(true_s: float) -> float:
        return apart_s + true_s * (1 + old_drift)

    def new_clock(true_s: float) -> float:
        return true_s * (1 + new_drift)

    old = Tenure(
        TIMING,
        began_s=old_clock(0.0),
        claimed_s=old_clock(0.0),
        earlier_lease_s=0.0,
    )
    for began in writes:
        if began <= claim:  # else it fails: the claim is in the log before it
            old.renewed(old_clock(began))
    new = Tenure(
        TIMING,
        began_s=new_clock(claim),
        claimed_s=new_clock(claim + took),
        earlier_lease_s=TIMING.lease_s,
    )
    alone = new.alone_s / (1 + new_drift)
    lapses = (old.lapses_s - apart_s) / (1 + old_drift)
    assert lapses <= alone + 1e-6
