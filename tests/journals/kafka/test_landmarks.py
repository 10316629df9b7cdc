"""A position is found in bounded memory, and never behind where it lies."""

from hypothesis import given
from hypothesis import strategies as st

from coordinator.journals.kafka.landmarks import COUNT_MAX, Landmarks
from coordinator.journals.kafka.messages import Landmark


def mark(number: int) -> Landmark:
    return Landmark(number * 3, number * 2, 1, number)


def test_few_are_all_kept() -> None:
    landmarks = Landmarks(mark(0))
    for number in range(1, COUNT_MAX):
        landmarks.add(mark(number))
    for number in range(COUNT_MAX):
        assert landmarks.find(number * 2) == mark(number)
        assert landmarks.find(number * 2 + 1) == mark(number)
    assert landmarks.find(-1) == mark(0)


@given(st.integers(0, 40_000), st.integers(0, 1 << 20))
def test_however_many_there_are_few_are_kept_and_the_search_ends_near(
    count: int, asked: int
) -> None:
    landmarks = Landmarks(mark(0))
    for number in range(1, count):
        landmarks.add(mark(number))
    assert len(landmarks) <= COUNT_MAX
    assert landmarks.base == mark(0)
    found = landmarks.find(asked)
    assert found.position <= asked
    near = max(1, count * 4 // COUNT_MAX)
    assert min(asked // 2, count - 1) - found.crc <= near


def test_from_a_new_base_on_each_gets_its_own_again() -> None:
    landmarks = Landmarks(mark(0))
    for number in range(1, COUNT_MAX * 3):
        landmarks.add(mark(number))
    step = landmarks.find(COUNT_MAX * 4).crc - landmarks.find(COUNT_MAX * 4 - 8).crc
    assert step > 1
    last = COUNT_MAX * 3
    for base in (1, last - 10, last - 5, last - 1):
        landmarks.rebase(mark(base))
        assert landmarks.base == mark(base)
        assert landmarks.find(0) == mark(base)
        assert len(landmarks) <= COUNT_MAX
    for number in range(last, last + 10):
        landmarks.add(mark(number))
    assert [landmarks.find(n * 2).crc for n in range(last, last + 10)] == [
        *range(last, last + 10)
    ]


def test_a_base_that_lies_before_all_takes_nothing_away() -> None:
    landmarks = Landmarks(mark(5))
    landmarks.add(mark(6))
    landmarks.rebase(mark(5))
    assert [landmarks.find(10), landmarks.find(12)] == [mark(5), mark(6)]
