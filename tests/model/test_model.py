"""Every state of the small models, and every planted bug; `make model` is larger.

docs/shared-log.md says the protocol, and what is found without each of its rules.
"""

import zlib
from dataclasses import replace
from functools import lru_cache
from itertools import product
from pathlib import Path

import pytest
from tests.model.explorer import explore
from tests.model.locked import LockedLog, LockRules
from tests.model.models import SMALL, explored
from tests.model.planted import BUGS, Bug
from tests.model.rules import START, Batch, Rules, Transport, read
from tests.model.shared import SharedLog

from coordinator import batch
from coordinator.journals.chain import Chain, Verdict
from coordinator.model import Position

PAGE = Path(__file__).parents[2] / "docs" / "shared-log.md"


@pytest.mark.parametrize("name", SMALL)
def test_the_protocol_holds_in_every_state(name: str) -> None:
    result = explored(SMALL[name])
    assert not result.violation, result
    assert result.states > 100


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: str(bug).replace(" ", "-"))
def test_a_planted_bug_is_found(bug: Bug) -> None:
    result = explored(bug.model)
    assert result.violation.startswith(bug.shows), result
    print(f"{bug}\n{result}")


@lru_cache
def all_is_well(model: SharedLog | LockedLog) -> str:
    return explored(model).violation


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: str(bug).replace(" ", "-"))
def test_within_the_same_bounds_all_is_well_without_it(bug: Bug) -> None:
    model = bug.model
    if isinstance(model, LockedLog):
        assert not all_is_well(replace(model, rules=LockRules()))
    else:
        kept = Rules(
            in_flight=model.rules.in_flight,
            message_ids=model.rules.message_ids,
            resends=model.rules.resends,
            idempotent=model.rules.idempotent,
            saves_in_log=model.rules.saves_in_log,
        )
        assert not all_is_well(replace(model, rules=kept))


@pytest.mark.parametrize("in_flight", [1, 2])
@pytest.mark.parametrize("log", Transport)
def test_which_of_the_readers_comparisons_are_enough(
    log: Transport, in_flight: int
) -> None:
    enough: set[str] = set()
    for epoch, first, crc in product((True, False), repeat=3):
        rules = Rules(
            compares_epoch=epoch,
            compares_first=first,
            compares_crc=crc,
            in_flight=in_flight,
        )
        model = SharedLog(transport=log, rules=rules, lives=1, writes=2)
        if not explored(model).violation:
            enough.add("epoch " * epoch + "first " * first + "crc" * crc)
    with_crc = {"crc", "epoch crc", "first crc", "epoch first crc"}
    with_first = {"first ", "epoch first "}
    match log, in_flight:
        case Transport.COMPARE, 1:
            assert enough == {"", "epoch "} | with_first | with_crc
        case Transport.APPEND, 1:
            assert enough == with_first | with_crc
        case _:
            assert enough == {"epoch first "} | with_crc


def test_every_planted_bug_is_told_on_the_page() -> None:
    page = PAGE.read_text()
    rows = {f"| {bug.name} | {_steps(bug)} |" for bug in BUGS}
    assert sorted(row for row in rows if row not in page) == []
    assert len(BUGS) >= 30


def _steps(bug: Bug) -> str:
    """Say how long the story is on each kind of log; they are planted in that order."""
    return ", ".join(
        f"{other.kind} {len(explored(other.model).story)}"
        for other in BUGS
        if other.name == bug.name
    )


def logs_of(name: str) -> set[tuple[Batch, ...]]:
    model = SMALL[name]
    assert isinstance(model, SharedLog)
    return {state.log for state in explore(model, keep=True).visited}


def test_the_product_judges_every_log_as_the_model_does() -> None:
    logs = logs_of("append-only: two batches")
    logs |= logs_of("append-only: two in flight, in order")
    void = 0
    for log in logs:
        chain = Chain()
        valid = tuple(b.crc for b in log if chain.take(_encoded(b)) is Verdict.NEXT)
        assert valid == read(Rules(), log, START)[1]
        void += len(log) - len(valid)
    assert void > len(logs) / 4, "logs in which everything is valid prove little"


def starts_behind_the_end(log: tuple[Batch, ...]) -> bool:
    """Tell whether a void batch looks as if something before it were missing."""
    ends = [read(Rules(), log[:count], START)[0].end for count in range(len(log) + 1)]
    return any(
        before == after and batch.first >= before
        for batch, before, after in zip(log, ends, ends[1:], strict=False)
    )


def test_what_is_void_never_looks_like_a_loss_with_one_in_flight() -> None:
    logs = logs_of("append-only: two batches")
    logs |= logs_of("append-only: resends, not idempotent")
    assert not any(map(starts_behind_the_end, logs))
    assert any(
        map(starts_behind_the_end, logs_of("append-only: two in flight, in order"))
    )


def _encoded(entry: Batch) -> batch.Batch:
    return batch.Batch(
        epoch=entry.epoch,
        first=Position(entry.first),
        count=1,
        previous_crc=zlib.crc32(entry.after.encode()) if entry.after else 0,
        crc=zlib.crc32(entry.crc.encode()),
        data=b"",
    )


class Stairs:
    """A model of two stairs that meet at the fifth step; the sixth may be wrong."""

    def __init__(self, *, wrong: int = 9) -> None:
        self.wrong = wrong

    def initial(self) -> int:
        return 0

    def successors(self, state: int) -> list[tuple[str, int]]:
        return [("one", state + 1), ("two", state + 2)] if state < 6 else []

    def violation(self, state: int) -> str:
        return "too high" if state == self.wrong else ""

    def tell(self, action: str, before: int, after: int) -> str:
        return f"{action}: from {before} to {after}"


def test_the_explorer_visits_each_state_once() -> None:
    result = explore(Stairs(), keep=True)
    assert sorted(result.visited) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert (result.states, result.transitions, result.depth) == (8, 12, 4)
    assert (result.violation, result.story) == ("", ())


def test_the_explorer_tells_a_shortest_story() -> None:
    result = explore(Stairs(wrong=5))
    assert result.violation == "too high"
    assert len(result.story) == 3
    assert result.story[-1].endswith("to 5")
    assert str(result).startswith("too high:\n  1. ")


def test_the_explorer_looks_at_the_first_state_too() -> None:
    assert explore(Stairs(wrong=0)).story == ()
    assert explore(Stairs(wrong=0)).violation == "too high"
