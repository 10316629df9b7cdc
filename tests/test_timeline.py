"""The story that a workflow's records tell."""

from coordinator import values
from coordinator.errors import Refused
from coordinator.model import Direction, EndStatus, OutcomeStatus, WorkflowId
from coordinator.records import (
    Aborting,
    Accepted,
    Cancelled,
    Carried,
    Claimed,
    Finished,
    Held,
    Lost,
    Outcome,
    Record,
    Released,
    Resumed,
    Started,
    Stuck,
)
from coordinator.timeline import Timeline, build_timeline, readable

ID = WorkflowId("0-7")
ACCEPTED = Accepted("PlaceOrder", "json", b'{"sku": "a"}', 1000, "o-1", "00-ab-cd-01")
RESERVED = Outcome(7, "inventory.reserve", 0, values.encode("r-1"), 1500)
REFUSED = Outcome(
    7,
    "payments.charge",
    0,
    values.refusal_of(Refused("declined")),
    2500,
    status=OutcomeStatus.REFUSED,
)
ABORTING = Aborting(7, "declined", 2600, values.refusal_of(Refused("declined")))
RELEASED = Outcome(
    7, "inventory.reserve", 0, values.NONE, 2900, direction=Direction.UNDO
)
COMPENSATED = Finished(7, EndStatus.COMPENSATED, ABORTING.refusal, 3000)


def test_a_compensated_workflow_has_two_lanes_and_nothing_standing() -> None:
    timeline = _told(ACCEPTED, RESERVED, REFUSED, ABORTING, RELEASED, COMPENSATED)
    assert timeline.status == "compensated"
    assert timeline.reason == "declined"
    assert [(s.step, s.status, s.value) for s in timeline.steps] == [
        ("inventory.reserve", "done", "r-1"),
        ("payments.charge", "refused", "declined"),
    ]
    assert [(u.step, u.status) for u in timeline.undos] == [
        ("inventory.reserve", "done")
    ]
    assert _decided(timeline) == ["accepted", "aborting", "compensated"]
    assert timeline.standing == ()
    assert timeline.ended_at == 3000
    assert timeline.result is None
    assert timeline.complete


def test_each_step_knows_how_long_after_the_record_before_it_came() -> None:
    timeline = _told(ACCEPTED, RESERVED, REFUSED, ABORTING, RELEASED, COMPENSATED)
    assert [step.after_us for step in timeline.steps] == [500, 1000]
    assert [undo.after_us for undo in timeline.undos] == [300]


def test_a_completed_workflow_has_its_result() -> None:
    done = Finished(
        7, EndStatus.COMPLETED, values.encode({"id": 1}), 3000, ("old.step",)
    )
    timeline = _told(ACCEPTED, RESERVED, done)
    assert timeline.status == "completed"
    assert timeline.result == {"id": 1}
    assert timeline.ignored == ("old.step",)
    assert timeline.command == {"sku": "a"}
    assert timeline.key == "o-1"
    assert timeline.trace == "00-ab-cd-01"


def test_a_restart_is_told_with_its_place_and_the_step_that_it_delayed() -> None:
    timeline = _told(
        Claimed(1, "before", 900),
        ACCEPTED,
        RESERVED,
        Claimed(2, "pid 5", 1600),
        Claimed(3, "pid 6", 1700),
        REFUSED,
        ABORTING,
        Claimed(4, "pid 7", 100),  # the clock was set back
        RELEASED,
        COMPENSATED,
        Claimed(5, "behind", 4000),
    )
    assert [(r.epoch, r.owner, r.at, r.behind) for r in timeline.restarts] == [
        (2, "pid 5", 1600, 1),
        (3, "pid 6", 1700, 1),
        (4, "pid 7", 100, 2),
    ]
    assert [step.restarts for step in timeline.steps] == [0, 2]
    assert [undo.restarts for undo in timeline.undos] == [1]


def test_what_an_owner_says_of_itself_alone_is_no_part_of_a_story() -> None:
    untold = (Held(10), Released(20))
    records = (ACCEPTED, RESERVED, REFUSED, ABORTING, RELEASED, COMPENSATED)
    between = [one for record in records for one in (*untold, record)]
    assert _told(*between, *untold) == _told(*records)
    assert build_timeline(ID, untold) is None


def test_what_people_decided_is_told_with_their_names() -> None:
    timeline = _told(
        ACCEPTED,
        RESERVED,
        Stuck(7, "a bug", 2000),
        Resumed(7, "ann", 3000),
        Stuck(7, "a bug", 4000),
        Cancelled(7, "bob", "no hope", 5000),
    )
    assert _decided(timeline) == ["accepted", "stuck", "resumed", "stuck", "cancelled"]
    assert [d.by for d in timeline.decisions] == ["", "", "ann", "", "bob"]
    assert timeline.status == "cancelling"
    assert timeline.standing == ("inventory.reserve",)


def test_a_stuck_workflow_says_why() -> None:
    timeline = _told(
        ACCEPTED, RESERVED, REFUSED, ABORTING, Stuck(7, "undo of it failed", 2700)
    )
    assert timeline.status == "stuck"
    assert timeline.reason == "undo of it failed"
    assert timeline.standing == ("inventory.reserve",)


def test_a_cancelled_workflow_ends_cancelled() -> None:
    timeline = _told(
        ACCEPTED,
        Cancelled(7, "bob", "", 2000),
        Aborting(7, "cancelled by bob: ", 2001),
        Finished(7, EndStatus.CANCELLED, values.encode("cancelled by bob: "), 2002),
    )
    assert timeline.status == "cancelled"
    assert _decided(timeline) == ["accepted", "cancelled", "aborting", "compensated"]


def test_steps_that_were_started_together_are_unknown_until_recorded() -> None:
    started = Started(7, (("payments.charge", 0), ("inventory.reserve", 0)), 1200)
    timeline = _told(ACCEPTED, started, RESERVED)
    assert [(s.step, s.status) for s in timeline.steps] == [
        ("inventory.reserve", "done"),
        ("payments.charge", "unknown"),
    ]
    done = Finished(7, EndStatus.COMPLETED, values.NONE, 3000)
    ended = _told(ACCEPTED, started, RESERVED, done)
    assert [s.status for s in ended.steps] == ["done"]


def test_occurrences_services_and_notes_are_told_apart() -> None:
    timeline = _told(
        ACCEPTED,
        Outcome(7, "mail.send[a]", 1, values.NONE, 1100, service="smtp"),
        Outcome(7, "note", 0, values.encode(5), 1200, status=OutcomeStatus.NOTED),
    )
    (sent, noted) = timeline.steps
    assert (sent.step, sent.service) == ("mail.send[a]#1", "smtp")
    assert (noted.step, noted.service, noted.status) == ("note", "note", "noted")


def test_of_a_copied_state_the_steps_are_known_and_the_rest_is_not() -> None:
    carried = Carried(
        7,
        9000,
        ACCEPTED,
        outcomes=(RESERVED, REFUSED, RELEASED),
        aborting=ABORTING,
        stuck=Stuck(7, "help", 8000),
    )
    lost = Outcome(7, "inventory.reserve", 0, values.encode("r-1"), 1500)
    timeline = _told(lost, carried, Resumed(7, "ann", 9500))
    assert not timeline.complete
    assert [s.after_us for s in timeline.steps] == [500, 1000]
    assert [u.after_us for u in timeline.undos] == [300]
    assert _decided(timeline) == ["accepted", "aborting", "stuck", "carried", "resumed"]
    assert timeline.status == "aborting"


def test_a_copy_behind_the_whole_story_loses_nothing() -> None:
    carried = Carried(7, 9000, ACCEPTED, outcomes=(RESERVED,))
    timeline = _told(ACCEPTED, RESERVED, carried)
    assert timeline.complete
    assert len(timeline.steps) == 1
    assert _decided(timeline) == ["accepted", "carried"]


def test_without_a_record_that_describes_it_there_is_no_story() -> None:
    assert build_timeline(ID, []) is None
    assert build_timeline(ID, [Claimed(1, "us", 1), RESERVED]) is None


def test_any_stored_value_is_readable() -> None:
    assert readable(values.encode({"a": [1, None]})) == {"a": [1, None]}
    assert readable(values.encode({1: b"x"})) == {"1": "eA=="}
    assert readable(b"\xc1") == repr(b"\xc1")
    assert readable(b"\xc7\x01\x05a") == "extension 5: b'a'"


def test_a_payload_that_is_not_what_its_codec_says_is_shown_as_it_is() -> None:
    accepted = Accepted("A", "json", b"{", 1)
    assert _told(accepted).command == repr(b"{")
    stored = Accepted("A", "msgpack", values.encode({"a": 1}), 1)
    assert _told(stored).command == {"a": 1}


def test_a_refusal_without_a_reason_shows_its_class() -> None:
    class Sold(Refused):
        pass

    refused = Outcome(
        7,
        "a.b",
        0,
        values.refusal_of(Sold()),
        1500,
        status=OutcomeStatus.REFUSED,
    )
    assert _told(ACCEPTED, refused).steps[0].value == "Sold"
    unreadable = Outcome(7, "a.b", 0, b"\x05", 1500, status=OutcomeStatus.REFUSED)
    assert _told(ACCEPTED, unreadable).steps[0].value == 5


def _told(*records: Record) -> Timeline:
    timeline = build_timeline(ID, records)
    assert timeline is not None
    return timeline


def _decided(timeline: Timeline) -> list[str]:
    return [decision.what for decision in timeline.decisions]


def test_what_follows_a_lost_record_is_told_as_far_as_it_can_be() -> None:
    whole = _told(Lost(), ACCEPTED, RESERVED)
    assert whole.complete
    timeline = _told(ACCEPTED, RESERVED, Lost(), RELEASED)
    assert not timeline.complete
    assert timeline.undos == ()
    carried = Carried(7, 4000, ACCEPTED, (RESERVED, RELEASED), aborting=ABORTING)
    assert _told(ACCEPTED, Lost(), RELEASED, carried).status == "aborting"
