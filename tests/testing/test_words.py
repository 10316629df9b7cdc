"""What the kit says of records and events."""

from coordinator import CommandDelayed, Refused, values
from coordinator.model import Direction, EndStatus, OutcomeStatus
from coordinator.records import (
    Aborting,
    Accepted,
    Cancelled,
    Claimed,
    Finished,
    Held,
    Outcome,
    Record,
    Released,
    Resumed,
    Started,
    Stuck,
)
from coordinator.testing.words import (
    LINES_MAX,
    Event,
    answered,
    batch_words,
    storyline,
    timeline_of,
)


def test_a_timeline_says_what_the_journal_holds_of_one_workflow() -> None:
    refusal = values.refusal_of(Refused("no credit"))
    refused = Outcome(1, "bank.charge", 1, refusal, 0, status=OutcomeStatus.REFUSED)
    records: list[tuple[int, Record]] = [
        (0, Claimed(1, "x", 0)),
        (1, Accepted("PlaceOrder", "msgpack", b"", 0)),
        (2, Accepted("PlaceOrder", "msgpack", b"", 0)),
        (3, Outcome(1, "stock.reserve", 0, b"\xc0", 0)),
        (4, Outcome(2, "stock.reserve", 0, b"\xc0", 0)),
        (5, Outcome(1, "note", 0, b"\xc0", 0, status=OutcomeStatus.NOTED)),
        (6, Started(1, (("bank.charge", 1),), 0)),
        (7, refused),
        (8, Stuck(1, "a bug\nand its traceback", 0)),
        (9, Resumed(1, "anna", 0)),
        (10, Cancelled(1, "bert", "why not", 0)),
        (11, Cancelled(1, "bert", "", 0)),
        (12, Aborting(1, "no credit", 0)),
        (13, Outcome(1, "stock.reserve", 0, b"\xc0", 0, Direction.UNDO)),
        (14, Finished(1, EndStatus.COMPENSATED, b"", 0)),
        (15, Held(0)),
        (16, Released(0)),
    ]
    assert timeline_of(1, records) == [
        "accepted",
        "stock.reserve done",
        "note noted",
        "bank.charge#1 refused: no credit",
        "stuck: a bug",
        "resumed by anna",
        "cancelled by bert: why not",
        "cancelled by bert",
        "turned back: no credit",
        "stock.reserve undone",
        "compensated",
    ]


def test_a_write_is_named_after_what_is_in_it() -> None:
    undo = Outcome(1, "bank.charge", 0, b"\xc0", 0, Direction.UNDO)
    end = Finished(1, EndStatus.COMPLETED, b"", 0)
    assert batch_words([undo]) == "the outcome of bank.charge/undo was"
    assert batch_words([undo, end, end]) == (
        "the outcome of bank.charge/undo and the end were"
    )
    assert batch_words([Held(0), Released(0)]) == (
        "that the owner is there and that the owner gave up were"
    )


def test_a_failed_call_says_how() -> None:
    assert answered(Refused("no")) == "refused: no"
    assert answered(CommandDelayed("slow")) == "failed: CommandDelayed: slow"
    assert answered(KeyError()) == "failed: KeyError"


def test_a_long_story_is_cut_in_its_middle() -> None:
    told = storyline([Event(0.0, "x", str(n)) for n in range(LINES_MAX + 5)])
    assert "... 5 more like these ..." in told
    assert len(told.splitlines()) == LINES_MAX + 1
