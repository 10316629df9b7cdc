"""The checker finds what it is for: each rule broken once, and found."""

import pytest
from tests.stress.checker import PATIENCE_S, check
from tests.stress.messages import HOSTILE, Note, Outcome

PORT = 9


def note(
    outcome: Outcome, *, id_: int = 1, results: int = 0, at_s: float = 1.0
) -> Note:
    return Note(id_, outcome, results, PORT, at_s)


LATE = note(Outcome.LATE, results=1)
LATE_BUT_NOT_LAST = note(Outcome.LATE)
BEFORE = note(Outcome.HUNG_UP, id_=0, at_s=0.5)
SOON = note(Outcome.HUNG_UP, id_=0, at_s=1.0 + PATIENCE_S)
MUCH_LATER = note(Outcome.HUNG_UP, id_=0, at_s=1.1 + PATIENCE_S)
ELSEWHERE = note(Outcome.HUNG_UP, id_=0, at_s=1.1)._replace(port=PORT + 1)


@pytest.mark.parametrize(
    ("notes", "begun"),
    [
        ([note(Outcome.ANSWERED)], [1]),
        ([note(Outcome.FAILED)], [1]),
        ([note(Outcome.BLOCKED)], []),
        ([note(Outcome.UNSENT)], []),
        ([note(Outcome.LOST)], []),
        ([note(Outcome.LOST)], [1]),
        ([note(Outcome.TIMED_OUT), SOON], [1]),
        ([BEFORE, note(Outcome.TIMED_OUT), SOON], []),
        ([note(Outcome.TIMED_OUT), LATE, MUCH_LATER], [1]),
        ([note(Outcome.TIMED_OUT), LATE_BUT_NOT_LAST, LATE], [1]),
        ([note(Outcome.LEFT), MUCH_LATER], [1]),
        ([note(Outcome.LEFT), LATE], [1]),
        ([note(Outcome.ANSWERED)], [1, HOSTILE, HOSTILE]),
    ],
)
def test_what_adds_up_is_no_problem(notes: list[Note], begun: list[int]) -> None:
    count = check(1, notes, begun)
    assert count.problems == []
    assert sum(count.ends.values()) == 1


@pytest.mark.parametrize(
    ("notes", "begun", "problem"),
    [
        ([], [], "1 attempts, and 0 ends"),
        ([note(Outcome.LOST)] * 2, [], "ended twice"),
        ([note(Outcome.ANSWERED)], [], "was answered, and was run 0 times"),
        ([note(Outcome.ANSWERED)], [1, 1], "was answered, and was run 2 times"),
        ([note(Outcome.FAILED)], [], "was failed, and was run 0 times"),
        ([note(Outcome.BLOCKED)], [1], "was blocked, and was run 1 times"),
        ([note(Outcome.UNSENT)], [1], "was unsent, and was run 1 times"),
        ([note(Outcome.LOST)], [1, 1], "was lost, and was run 2 times"),
        ([note(Outcome.LEFT)], [1, 1], "was left, and was run 2 times"),
        ([note(Outcome.LOST)], [2], "2 was run, which nobody attempted"),
        ([note(Outcome.TIMED_OUT), MUCH_LATER], [1], "lost its last result"),
        ([note(Outcome.TIMED_OUT), ELSEWHERE], [1], "lost its last result"),
        ([BEFORE, note(Outcome.TIMED_OUT)], [], "lost its last result"),
        ([note(Outcome.TIMED_OUT), LATE_BUT_NOT_LAST], [1], "lost its last result"),
        ([note(Outcome.ANSWERED), LATE], [1], "has late results, but ended"),
        ([note(Outcome.WRONG)], [1], "is wrong"),
        ([note(Outcome.OVERDUE)], [1], "is overdue"),
    ],
)
def test_what_does_not_add_up_is_told(
    notes: list[Note], begun: list[int], problem: str
) -> None:
    (found,) = check(1, notes, begun).problems
    assert problem in found


def test_of_many_problems_the_first_are_shown() -> None:
    notes = [note(Outcome.WRONG, id_=id_) for id_ in range(30)]
    problems = check(30, notes, []).problems
    assert len(problems) == 21
    assert problems[-1] == "and 10 more"
