"""The history checker: what clients saw, what services did, what the journal says.

It is asked when all is healed: a last life has asked again for every order by its key,
and was closed in order. Then each of these must hold, and each is a function that
yields what breaks it:

    lost         what was acknowledged is in the journal, and ended
    changed      everybody who asks for an order gets the same answer, for ever; it is
                 the one that the journal has
    doubled      an order is one workflow, which ended once; an effect happened once
    ghosts       nothing was done that nobody asked for, or that was refused at the door
    disagreeing  under each key, the service decided what the journal says
    left_over    completed: each of the three stands. Undone: nothing stands, and undone
                 is exactly what was done, last first
    stuck        nothing waits for a person
    owners       each claim has a larger epoch than the one before; nothing is damaged

`submit` is "it is durable", `result` is "it is final". An order that was never answered
may have been accepted or not; that is why the healing life asks for it again.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator
from itertools import pairwise

from tests.torture.evidence import Evidence, Story
from tests.torture.ledger import SERVICES
from tests.torture.sagas import Receipt

from coordinator import values
from coordinator.model import (
    Direction,
    EndStatus,
    OutcomeStatus,
    StepId,
    idempotency_key,
)

__all__ = ["check"]


def check(evidence: Evidence) -> list[str]:
    """Return what is wrong, in words; nothing if all is as promised."""
    return list(_Checker(evidence).violations())


class _Checker:
    def __init__(self, evidence: Evidence) -> None:
        self._evidence = evidence
        self._stories: defaultdict[str, list[Story]] = defaultdict(list)
        for story in evidence.journal.stories:
            self._stories[story.accepted.key].append(story)

    def violations(self) -> Iterator[str]:
        rules = (
            self.lost,
            self.changed,
            self.doubled,
            self.ghosts,
            self.disagreeing,
            self.left_over,
            self.stuck,
            self.owners,
        )
        for rule in rules:
            for violation in rule():
                yield f"{rule.__name__}: {violation}"

    def lost(self) -> Iterator[str]:
        """Yield what was acknowledged or accepted, and is not there or has no end."""
        acknowledged = {e.value.id for e in self._evidence.events if e.type == "ok"}
        for order in sorted(acknowledged - self._stories.keys()):
            yield f"{order} was acknowledged, and is not in the journal"
        answered = {
            event.value.id
            for event in self._evidence.events
            if (event.type, event.f) == ("ok", "result")
        }
        for order, stories in self._stories.items():
            if not stories[0].ends:
                yield f"{order} (workflow {stories[0].id}) did not end"
            elif order not in answered:
                yield f"{order} ended, and nobody was told"

    def changed(self) -> Iterator[str]:
        """Yield answers that are not what the journal says."""
        for event in self._evidence.events:
            if (event.type, event.f) != ("ok", "result"):
                continue
            told = (event.value.status, event.value.answer)
            for story in self._stories.get(event.value.id, [])[:1]:
                ended = _end_of(story)
                if told != ended:
                    yield f"{event.value.id}: {told} was told, {ended} is recorded"

    def doubled(self) -> Iterator[str]:
        """Yield what there is twice."""
        for order, stories in self._stories.items():
            if len(stories) > 1:
                ids = ", ".join(story.id for story in stories)
                yield f"{order} is {len(stories)} workflows: {ids}"
            for story in stories:
                if len(story.ends) > 1:
                    yield f"{order} (workflow {story.id}) ended {len(story.ends)} times"
        world = self._evidence.world
        for effect, count in Counter((e.key, e.delta) for e in world).items():
            if count > 1:
                yield f"{effect} happened {count} times under one key"
        happened = Counter((e.service, e.subject, e.delta) for e in world)
        for (service, order, delta), count in happened.items():
            if count > 1:
                yield f"{order}: {count} times {delta:+} at {service}"

    def ghosts(self) -> Iterator[str]:
        """Yield what was done though nobody asked for it, or it was refused."""
        asked = {e.value.id for e in self._evidence.events if e.type == "invoke"}
        last = {event.value.id: event for event in self._evidence.events}
        done = self._stories.keys() | {
            effect.subject for effect in self._evidence.world
        }
        for order in sorted(done - asked):
            yield f"nobody asked for {order}"
        for order in sorted(done & last.keys()):
            if last[order].type == "fail":
                yield f"{order} was refused at the door, and yet done"

    def disagreeing(self) -> Iterator[str]:
        """Yield keys under which journal and service say different things."""
        recorded: dict[str, str] = {}
        for story in self._evidence.journal.stories:
            for outcome in story.outcomes:
                key = idempotency_key(
                    self._evidence.journal.id,
                    story.id,
                    StepId(outcome.step, outcome.occurrence),
                    outcome.direction,
                )
                refused = outcome.status is OutcomeStatus.REFUSED
                if key in recorded:
                    yield f"{key} has two outcomes"
                recorded[key] = "refused" if refused else "done"
        decided = {
            known.key: "refused" if known.refused else "done"
            for known in self._evidence.keys
        }
        for key in sorted(recorded.keys() | decided.keys()):
            ours, theirs = recorded.get(key, "nothing"), decided.get(key, "nothing")
            if ours != theirs:
                yield f"{key}: the journal says {ours}, the service {theirs}"

    def left_over(self) -> Iterator[str]:
        """Yield orders of which not exactly that stands which should."""
        stands: Counter[tuple[str, str]] = Counter()
        for effect in self._evidence.world:
            stands[effect.subject, effect.service] += effect.delta
        for order, stories in self._stories.items():
            status = _end_of(stories[0])[0]
            should = 1 if status == "completed" else 0
            for service in SERVICES:
                if status and stands[order, service] != should:
                    found = stands[order, service]
                    yield f"{order} is {status}, and {found} stands at {service}"
            done = _steps(stories[0], Direction.DO)
            undone = _steps(stories[0], Direction.UNDO)
            if undone != (done[::-1] if status == "compensated" else []):
                yield f"{order} is {status}: did {done}, undid {undone}"

    def stuck(self) -> Iterator[str]:
        """Yield what waits for a person: no fault that we make needs one."""
        for order, stories in self._stories.items():
            for stuck in stories[0].stuck:
                yield f"{order} was stuck: {stuck.reason}"

    def owners(self) -> Iterator[str]:
        """Yield claims out of order, and damage."""
        yield from self._evidence.journal.problems
        for partition, epochs in self._evidence.journal.epochs.items():
            for one, other in pairwise(epochs):
                if other <= one:
                    yield f"epoch {other} of partition {partition} came after {one}"


def _end_of(story: Story) -> tuple[str, str]:
    """Return how *story* ended, as a client would be told; empty if it did not."""
    if not story.ends:
        return "", ""
    end = story.ends[0]
    if end.status is EndStatus.COMPLETED:
        return "completed", ",".join(values.decode(end.value, Receipt).parts)
    return end.status.name.lower(), values.load_refusal(end.value).reason


def _steps(story: Story, direction: Direction) -> list[str]:
    return [
        outcome.step.partition(".")[0]
        for outcome in story.outcomes
        if outcome.direction is direction and outcome.status is OutcomeStatus.DONE
    ]
