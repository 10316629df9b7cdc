"""The picture of a workflow, as people see it."""

from coordinator import values
from coordinator.cli.lanes import draw
from coordinator.cli.output import Line
from coordinator.errors import Refused
from coordinator.model import Direction, EndStatus, OutcomeStatus, WorkflowId
from coordinator.records import (
    Aborting,
    Accepted,
    Cancelled,
    Carried,
    Claimed,
    Finished,
    Outcome,
    Record,
    Started,
    Stuck,
)
from coordinator.runs import WorkflowInfo
from coordinator.timeline import build_timeline

T0 = 1_790_000_000_000_000
ACCEPTED = Accepted("PlaceOrder", "json", b'{"sku":"a"}', T0, "o-1")
RESERVED = Outcome(7, "inventory.reserve", 0, values.encode("r-1"), T0 + 12_000)
CHARGED = Outcome(7, "payments.charge", 0, values.encode({"id": 5}), T0 + 14_000)
LABELLED = Outcome(7, "labels.print", 0, values.NONE, T0 + 15_000)
REFUSED = Outcome(
    7,
    "shipping.book",
    0,
    values.refusal_of(Refused("no courier")),
    T0 + 45_000,
    status=OutcomeStatus.REFUSED,
)
ABORTING = Aborting(7, "no courier", T0 + 46_000)
REFUNDED = Outcome(
    7, "payments.charge", 0, values.NONE, T0 + 76_000, direction=Direction.UNDO
)
RELEASED = Outcome(
    7, "inventory.reserve", 0, values.NONE, T0 + 84_000, direction=Direction.UNDO
)
COMPENSATED = Finished(
    7, EndStatus.COMPENSATED, values.refusal_of(Refused("no courier")), T0 + 1_240_000
)

PICTURE = """\
0-7  PlaceOrder  key o-1  compensated
accepted 2026-09-21 14:13:20.000Z, ended 1.24 s later
{"sku":"a"}

     do                                        undo
     │                                         ▲
   ✓ inventory.reserve     12 ms  ◀────────────┤  undone  8 ms
     │ r-1                                     │
   ✓ payments.charge        2 ms  ◀────────────┤  undone  30 ms
     │ {"id":5}                                │
   ✓ labels.print           1 ms               │  ● still done
   ✗ shipping.book         30 ms               │
     │ no courier                              │
     └────────────── turned back ──────────────┘

decided
  14:13:20.000  accepted
  14:13:20.046  aborting    no courier
  14:13:21.240  compensated

still done in the world
  ● labels.print
"""


def test_a_compensated_workflow_is_two_lanes() -> None:
    drawn = _drawn(
        ACCEPTED,
        RESERVED,
        CHARGED,
        LABELLED,
        REFUSED,
        ABORTING,
        REFUNDED,
        RELEASED,
        COMPENSATED,
        columns=73,
    )
    assert drawn == PICTURE


RESTARTED = """\
     do                                        undo
     │                                         ▲
   ✓ inventory.reserve     12 ms ↻  ◀──────────┤  undone  38 ms ↻
     │ r-1                                     │
   ✗ shipping.book         33 ms               │
     │ no courier                              │
     └────────────── turned back ──────────────┘
   … unfinished; it goes on when a coordinator is started

decided
  14:13:20.000  accepted
  14:13:20.005  restarted   ↻ start 2, v1.2 pid 5
  14:13:20.046  aborting    no courier
  14:13:20.060  restarted   ↻ start 3, v1.3 pid 6
"""


def test_restarts_stand_where_they_took_time() -> None:
    drawn = _drawn(
        ACCEPTED,
        Claimed(2, "v1.2 pid 5", T0 + 5_000),
        RESERVED,
        REFUSED,
        ABORTING,
        Claimed(3, "v1.3 pid 6", T0 + 60_000),
        RELEASED,
        columns=73,
    )
    assert RESTARTED in drawn


def test_a_workflow_that_did_not_turn_back_is_one_lane() -> None:
    done = Finished(7, EndStatus.COMPLETED, values.encode([1]), T0 + 20_000)
    drawn = _drawn(ACCEPTED, RESERVED, done)
    assert "undo" not in drawn
    assert "     ▼ [1]\n" in drawn
    assert "still done" not in drawn


def test_a_stuck_workflow_says_why_what_stands_and_what_to_do() -> None:
    stuck = Stuck(7, "undo of a failed 10 times\n  File x", T0 + 90_000)
    drawn = _drawn(ACCEPTED, RESERVED, REFUSED, ABORTING, stuck)
    assert "   ■ stuck: undo of a failed 10 times\n" in drawn
    assert "● not yet undone" in drawn
    assert "still done in the world\n  ● inventory.reserve" in drawn
    assert "  coordinator retry 0-7" in drawn
    assert "coordinator cancel" not in drawn  # it is being undone already
    assert "File x" in drawn


def test_a_stuck_workflow_that_goes_forward_may_be_cancelled() -> None:
    drawn = _drawn(ACCEPTED, Stuck(7, "a bug", T0 + 90_000))
    assert "  coordinator cancel 0-7" in drawn


def test_what_the_server_knows_is_shown() -> None:
    delayed = _info("delayed", due_s=1.2, reason="payments.charge: timed out")
    drawn = _drawn(ACCEPTED, RESERVED, live=delayed)
    assert "… tried 3 times, again in 1.2 s\n     payments.charge: timed out\n" in drawn
    assert "running now" in _drawn(ACCEPTED, RESERVED, live=_info("running"))


def test_without_a_server_an_unfinished_one_waits_for_the_next() -> None:
    drawn = _drawn(ACCEPTED)
    assert drawn.startswith("0-7  PlaceOrder  key o-1  unfinished\n")
    assert "it goes on when a coordinator is started" in drawn


def test_what_goes_forward_is_not_said_to_be_still_done() -> None:
    assert "still done" not in _drawn(ACCEPTED, RESERVED, live=_info("running"))


def test_a_cancelled_workflow_is_undone_in_the_end() -> None:
    cancelled = Cancelled(7, "ann", "too slow", T0 + 20_000)
    ended = Finished(7, EndStatus.CANCELLED, values.encode("too slow"), T0 + 30_000)
    drawn = _drawn(ACCEPTED, cancelled, ABORTING, ended)
    assert "cancelled   by ann: too slow\n" in drawn
    assert "  14:13:20.030  undone\n" in drawn


def test_of_a_traceback_its_lines_are_shown_without_the_marks_below_them() -> None:
    reason = "a bug\nTraceback:\n  File x\n    f(1)\n    ~^^^\nKeyError: 1"
    drawn = _drawn(ACCEPTED, Stuck(7, reason, T0 + 90_000))
    assert "    Traceback:\n      File x\n        f(1)\n    KeyError: 1\n" in drawn


def test_a_step_in_flight_is_unknown() -> None:
    started = Started(7, (("a.b", 0), ("c.d", 0)), T0 + 5)
    drawn = _drawn(ACCEPTED, started, live=_info("running"))
    assert "   … a.b" in drawn
    assert "started, nothing is known of it yet" in drawn


def test_of_a_copied_state_it_says_that_earlier_decisions_are_lost() -> None:
    carried = Carried(7, T0 + 9000, ACCEPTED, outcomes=(RESERVED,))
    assert "only a copy of the earlier state is retained" in _drawn(carried)


def test_ignored_steps_are_named() -> None:
    done = Finished(7, EndStatus.COMPLETED, values.NONE, T0, ("old.step",))
    drawn = _drawn(ACCEPTED, done)
    assert "no longer asked for by the code\n  ● old.step" in drawn


def test_long_values_are_cut_and_names_are_not() -> None:
    name = "a" * 90 + ".b"
    outcome = Outcome(7, name, 0, values.encode("v" * 500), T0 + 1)
    drawn = _drawn(ACCEPTED, outcome, columns=80)
    assert name in drawn
    assert "v" * 500 not in drawn
    assert "…" in drawn


def _info(status: str, *, due_s: float | None = None, reason: str = "") -> WorkflowInfo:
    return WorkflowInfo("0-7", "PlaceOrder", "o-1", status, T0, 1, 3, reason, due_s)


def _drawn(
    *records: Record, live: WorkflowInfo | None = None, columns: int = 80
) -> str:
    timeline = build_timeline(WorkflowId("0-7"), records)
    assert timeline is not None
    lines = [_plain(line) for line in draw(timeline, live, columns)]
    return "\n".join(lines).rstrip() + "\n"


def _plain(line: Line) -> str:
    return "".join(text for text, _ in line).rstrip()
