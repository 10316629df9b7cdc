"""The checker finds what is planted: each rule is broken, in sound evidence.

Sound evidence is that of a real run, made once.
"""

import copy
from collections.abc import Callable

import msgspec
import pytest
from tests.torture.checker import check
from tests.torture.elsewhere import elsewhere
from tests.torture.evidence import Evidence, Story, read_evidence
from tests.torture.history import Event, Value
from tests.torture.script import DONE, Life, Place, heal, in_child, script

from coordinator.records import Stuck


def run(place: Place) -> int:
    return in_child(place, script, Life()) or in_child(place, heal, Life())


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Return what a run without faults left behind."""
    place = Place(tmp_path_factory.mktemp("run"))
    assert elsewhere(run, place) == DONE, place.log.read_text()
    return read_evidence(place.path)


@pytest.fixture
def evidence(sound: Evidence) -> Evidence:
    """Return a copy that may be changed."""
    return copy.deepcopy(sound)


def story_of(evidence: Evidence, order: str) -> Story:
    return next(s for s in evidence.journal.stories if s.accepted.key == order)


def rules_broken(evidence: Evidence) -> set[str]:
    return {violation.partition(":")[0] for violation in check(evidence)}


def test_a_run_without_faults_breaks_no_rule(evidence: Evidence) -> None:
    assert check(evidence) == []
    kinds = {(event.type, event.f) for event in evidence.events}
    assert kinds == {("invoke", "submit"), ("ok", "submit"), ("ok", "result")}


def lose_an_order(evidence: Evidence) -> None:
    evidence.journal.stories.remove(story_of(evidence, "o-5"))


def lose_an_end(evidence: Evidence) -> None:
    story_of(evidence, "o-5").ends.clear()


def tell_nobody(evidence: Evidence) -> None:
    evidence.events = [
        e for e in evidence.events if (e.value.id, e.f) != ("o-5", "result")
    ]


def tell_another_result(evidence: Evidence) -> None:
    value = Value("o-5", "completed", "something else")
    evidence.events = [*evidence.events, Event("other", "ok", "result", value, 0)]


def take_an_order_twice(evidence: Evidence) -> None:
    evidence.journal.stories.append(copy.deepcopy(story_of(evidence, "o-5")))


def end_an_order_twice(evidence: Evidence) -> None:
    story = story_of(evidence, "o-5")
    story.ends.append(story.ends[0])


def let_it_happen_twice(evidence: Evidence) -> None:
    evidence.world = [*evidence.world, evidence.world[-1]]


def let_it_happen_again_under_another_key(evidence: Evidence) -> None:
    effect = next(e for e in evidence.world if e.subject == "o-5")
    other = type(effect)("another", effect.service, effect.subject, effect.delta)
    evidence.world = [*evidence.world, other]


def do_what_nobody_asked_for(evidence: Evidence) -> None:
    evidence.events = [e for e in evidence.events if e.value.id != "o-5"]


def do_what_was_refused_at_the_door(evidence: Evidence) -> None:
    refused = Event("client", "fail", "submit", Value("o-5", "full"), 0)
    evidence.events = [*evidence.events, refused]


def forget_a_key(evidence: Evidence) -> None:
    evidence.keys = evidence.keys[:-1]


def refuse_what_the_journal_calls_done(evidence: Evidence) -> None:
    known = next(k for k in evidence.keys if k.subject == "o-5")
    other = type(known)(
        known.key, known.service, known.operation, known.subject, 1, known.epoch
    )
    evidence.keys = [other if k is known else k for k in evidence.keys]


def record_an_outcome_twice(evidence: Evidence) -> None:
    story = story_of(evidence, "o-5")
    story.outcomes.append(story.outcomes[0])


def leave_something_of_an_undone_order(evidence: Evidence) -> None:
    undone = next(e for e in evidence.world if (e.subject, e.delta) == ("o-9", -1))
    evidence.world = [e for e in evidence.world if e is not undone]


def miss_something_of_a_completed_order(evidence: Evidence) -> None:
    done = next(e for e in evidence.world if e.subject == "o-5")
    evidence.world = [e for e in evidence.world if e is not done]


def undo_in_another_order(evidence: Evidence) -> None:
    outcomes = story_of(evidence, "o-9").outcomes
    outcomes[-1], outcomes[-2] = outcomes[-2], outcomes[-1]


def leave_something_stuck(evidence: Evidence) -> None:
    story_of(evidence, "o-5").stuck.append(Stuck(0, "nobody knows why", 0))


def claim_an_epoch_twice(evidence: Evidence) -> None:
    evidence.journal.epochs[0].append(evidence.journal.epochs[0][-1])


def find_damage(evidence: Evidence) -> None:
    evidence.journal.problems.append("p0/00000000000000000000.seg at byte 64: bad")


PLANTED: list[tuple[Callable[[Evidence], None], str]] = [
    (lose_an_order, "lost"),
    (lose_an_end, "lost"),
    (tell_nobody, "lost"),
    (tell_another_result, "changed"),
    (take_an_order_twice, "doubled"),
    (end_an_order_twice, "doubled"),
    (let_it_happen_twice, "doubled"),
    (let_it_happen_again_under_another_key, "doubled"),
    (do_what_nobody_asked_for, "ghosts"),
    (do_what_was_refused_at_the_door, "ghosts"),
    (forget_a_key, "disagreeing"),
    (refuse_what_the_journal_calls_done, "disagreeing"),
    (record_an_outcome_twice, "disagreeing"),
    (leave_something_of_an_undone_order, "left_over"),
    (miss_something_of_a_completed_order, "left_over"),
    (undo_in_another_order, "left_over"),
    (leave_something_stuck, "stuck"),
    (claim_an_epoch_twice, "owners"),
    (find_damage, "owners"),
]


@pytest.mark.parametrize(("plant", "rule"), PLANTED)
def test_what_is_planted_is_found(
    evidence: Evidence, plant: Callable[[Evidence], None], rule: str
) -> None:
    plant(evidence)
    assert rule in rules_broken(evidence)


def test_an_event_outlives_the_way_to_its_file() -> None:
    event = Event("client", "ok", "result", Value("o-1", "completed", "a,b"), 7)
    line = msgspec.json.encode(event)
    assert b'"f":"result"' in line
    assert msgspec.json.decode(line, type=Event) == event
