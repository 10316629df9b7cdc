"""Durations as people write them."""

from datetime import timedelta

import pytest

from coordinator.testing import RehearsalError
from coordinator.testing.durations import Duration, seconds, written


@pytest.mark.parametrize(
    ("duration", "expected_s"),
    [
        ("2h", 7200),
        ("1m 30s", 90),
        ("1.5 h", 5400),
        ("200ms", 0.2),
        ("3min", 180),
        ("1d2h", 93600),
        (12, 12),
        (0.5, 0.5),
        (timedelta(minutes=2), 120),
        (0, 0),
    ],
)
def test_a_duration_is_so_many_seconds(duration: Duration, expected_s: float) -> None:
    assert seconds(duration) == pytest.approx(expected_s)


@pytest.mark.parametrize(
    "duration", ["", " ", "2", "h", "2 weeks", "-1s", "1s2", -1, float("nan"), True]
)
def test_what_is_none_gets_told_what_is_one(duration: Duration) -> None:
    with pytest.raises(RehearsalError, match="is not a duration; write '2h'"):
        seconds(duration)


def test_a_time_is_written_as_people_do() -> None:
    assert [written(s) for s in (0.25, 59, 61, 7260)] == [
        "0.250 s",
        "59.000 s",
        "1 min 01 s",
        "2 h 01 min",
    ]
