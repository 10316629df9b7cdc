"""The judge of ``nats-kills`` finds what it is there for."""

import pytest
from tests.torture.nats_kills import judge


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([1, 2, 3], []),
        ([1, 2, 3, 4], []),
        ([1, 3], ["acknowledged and lost: [2]"]),
        ([1, 2, 2, 3], ["there more than once: [2]"]),
        ([1, 3, 2], ["not in the order in which it was written"]),
    ],
)
def test_what_is_wrong_is_said(found: list[int], said: list[str]) -> None:
    assert list(judge([1, 2, 3], found)) == said
