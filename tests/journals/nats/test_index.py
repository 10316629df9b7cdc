"""Where a position lies."""

from hypothesis import given
from hypothesis import strategies as st

from coordinator.journals.nats.index import Index


@given(
    st.lists(st.integers(0, 50), unique=True),
    st.integers(0, 60),
    st.integers(0, 60),
)
def test_the_last_batch_at_or_before_a_position_is_found(
    positions: list[int], position: int, forgotten: int
) -> None:
    index = Index()
    kept: dict[int, int] = {}
    for sequence, each in enumerate(sorted(positions), 1):
        index.note(each, sequence)
        index.note(each, 99)  # once more, as a second reading does
        kept[each] = sequence
    index.forget(forgotten)
    before = [
        sequence
        for each, sequence in kept.items()
        if each <= position and sequence >= forgotten
    ]
    assert index.find(position) == max(before, default=0)
