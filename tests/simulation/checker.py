"""Reads a history and says what in it should not be, one sentence per violation.

It knows nothing of the engine: only what clients were told, what services were asked,
and what the journal said is durable. ``docs/simulation.md`` has the same list.

    lost         an acknowledged record is not read by a later life
    unaccepted   a client is told an id, or a step runs, that is not durable
    ghost        the journal holds what nobody submitted or wrote
    changed      a recorded outcome, or a result that a client saw, is another one later
    again        a step is called although its outcome is recorded or was answered, or
                 twice at once
    early        `exec` goes on with a reply, or a client gets a result, that is not
                 durable
    undo         before `Aborting` is durable, of what was not done, out of order, or
                 beside another call of the workflow
    forward      a step is called after `Aborting`, in a stuck or ended workflow, or
                 after the coordinator was closed
    leftover     what a turned-back workflow did is still done
    unrecorded   a completed workflow did what its record does not know
    state        records follow one another that can't
    twice        one key, two workflows
    hurry        an unknown call is made again sooner than the policy says; see `pacing`
    endless      an unknown call is made again more often than the policy says
    order        commands of one type come in otherwise than they were offered
    bound        more is in memory, kept or under way than may be; see `admitted`
    breaker      a call is let through, or turned away, that should not be; see
                 `circuit`
    forgotten    a process does not know of a workflow that has not ended
    unfinished   an accepted workflow has not ended although all is well
    world        a service was asked for what makes no sense

Effects are counted by the world without regard to keys; that an idempotent service did
it once is checked by it having been asked under one key only.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec
from tests.simulation.admitted import Admitted, Bounds
from tests.simulation.circuit import Gate
from tests.simulation.durable import DurableWorkflow
from tests.simulation.effects import judge
from tests.simulation.history import Event
from tests.simulation.pacing import Pacing, Patience, shortest_us
from tests.simulation.services import UNDO_OF, Effect
from tests.simulation.shop import GatewayPlan
from tests.simulation.told import Told, order_of

from coordinator.model import (
    Direction,
    Retry,
    StepId,
    format_workflow_id,
    idempotency_key,
    parse_workflow_id,
)
from coordinator.records import Accepted, Claimed, Held, Lost, Outcome, Record, Released

__all__ = ["Checker", "Violation", "check"]

OWN_POLICY = ("Keyed", "inventory.reserve")
"""The one step with a policy of its own, see `commands`; it has no limits."""
NAMED_WITHIN = 3
"""Batches: that under way when a call ends, the next, and one that was full."""


@dataclass(frozen=True)
class Violation:
    """One thing that should not be."""

    kind: str
    """One of the words in this module's docstring."""
    sentence: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.sentence}"


class Checker:
    """Follows a history event by event.

    Args:
        journal_id: As in the idempotency keys.
        policies: By which unknown calls are repeated; by the first, undos are.
        bounds: What may be in memory.
        gateway: How shipping is asked, if that is through one.
    """

    def __init__(
        self,
        journal_id: str,
        policies: Iterable[Retry] = (),
        bounds: Bounds | None = None,
        gateway: GatewayPlan | None = None,
    ) -> None:
        self.violations: list[Violation] = []
        self.workflows: dict[int, DurableWorkflow] = {}
        self._journal_id = journal_id
        self._told = Told(self._find, self._violated)
        policies = list(policies)
        self._pacing = Pacing(shortest_us(policies))
        self._patience = Patience(policies[0] if policies else Retry(attempts_max=None))
        self._admitted = Admitted(bounds or Bounds())
        self._gate = Gate(gateway, self._violated)
        self._log: dict[int, Record] = {}
        """What is durable for sure, by position."""
        self._written: dict[int, list[Record]] = {}
        """What was ever handed over to be written there."""
        self._last = -1
        self._epoch = 0
        self._closed = self._draining = self._opened = False
        self._steps: dict[str, tuple[int, str, int, int]] = {}
        """Idempotency key: workflow, step, occurrence, direction."""
        self._answered: set[str] = set()
        """Keys that a service answered in this life."""
        self._unknown: deque[tuple[int, DurableWorkflow, str]] = deque()
        """Calls that ended unknown, and how many batches later that must be durable."""
        self._batches = 0
        self._submitted: set[str] = set()
        self._handlers: dict[str, Callable[[Event], None]] = {
            "life.begin": self._life_begin,
            "life.drains": self._life_drains,
            "life.closed": self._life_closed,
            "submit.begin": self._submit_begin,
            "submit.acked": self._told.submit_acked,
            "result.seen": self._told.result_seen,
            "operator.retry": self._operator_asked,
            "operator.cancel": self._operator_asked,
            "operator.failed": self._operator_failed,
            "operator.done": self._told.operator_done,
            "healed": self._told.healed,
            "clients.left": self._told.clients_left,
            "call.begin": self._call_begin,
            "call.end": self._call_end,
            "exec.saw": self._exec_saw,
            "gate.passes": self._gate.passes,
            "gate.turns_away": self._gate.turns_away,
            "gate.ends": self._gate.ends,
            "started": self._started,
            "journal.checkpoint": self._journal_checkpoint,
            "journal.claimed": self._journal_claimed,
            "journal.read": self._journal_read,
            "journal.writing": self._journal_writing,
            "journal.durable": self._journal_durable,
        }

    def follow(self, events: Iterable[Event]) -> None:
        """Check *events*, which go on where the last ones ended."""
        for event in events:
            handler = self._handlers.get(event.kind)
            if handler is not None:
                handler(event)

    def finish(self, effects: Iterable[Effect], problems: Iterable[str]) -> None:
        """Check what is left in the world once nothing happens any more."""
        for problem in problems:
            self._violated("world", problem)
        for workflow in self.workflows.values():
            if workflow.finished is None:
                state = "stuck" if workflow.stuck else "unfinished"
                self._violated(
                    "unfinished",
                    f"workflow {workflow.id} ({workflow.accepted.type}) was accepted "
                    f"and is {state} after everything was healed",
                )
        for effect in effects:
            self._check_effect(effect)

    def _violated(self, kind: str, sentence: str) -> None:
        self.violations.append(Violation(kind, sentence))

    # Clients.

    def _life_drains(self, event: Event) -> None:
        self._draining = True

    def _life_closed(self, event: Event) -> None:
        self._closed = True
        self._told.close()

    def _life_begin(self, event: Event) -> None:
        self._closed = self._draining = self._opened = False
        self._told.begin()
        self._admitted.restart()
        self._gate.restart()
        self._cut_off()

    def _cut_off(self) -> None:
        """Forget what is in no journal: the runs before are over, all at once."""
        self._patience.restart()
        self._answered.clear()
        self._unknown.clear()
        self._pacing.restart()
        for workflow in self.workflows.values():
            # Also what was answered: its outcome need not have become durable.
            workflow.cut_off |= workflow.made
            workflow.made.clear()
            workflow.calls.clear()
            workflow.resuming = workflow.late = False

    def _started(self, event: Event) -> None:
        """Compare what a new process found unfinished with what is."""
        found = set(event.fields["workflows"])
        for workflow in self.workflows.values():
            if workflow.finished is None and workflow.id not in found:
                self._violated(
                    "forgotten",
                    f"life {event.life} knows nothing of workflow {workflow.id}, which "
                    f"has not ended",
                )

    def _submit_begin(self, event: Event) -> None:
        self._submitted.add(event.fields["order"])
        self._admitted.offer(event.fields["order"])

    def _operator_asked(self, event: Event) -> None:
        workflow = self._find(event.fields["workflow"])
        if workflow is not None:
            workflow.resuming = True
            self._pacing.excuse(workflow.position)
            self._patience.excuse(workflow.position)

    def _operator_failed(self, event: Event) -> None:
        workflow = self._find(event.fields["workflow"])
        if workflow is not None:
            workflow.resuming = False

    # Services.

    def _call_begin(self, event: Event) -> None:
        fields = event.fields
        key, id_ = fields["key"], fields["workflow"]
        step = StepId(fields["step"], fields["occurrence"])
        direction = Direction(fields["direction"])
        workflow = self._find(id_)
        if workflow is None:
            self._violated(
                "unaccepted", f"{step} of workflow {id_} is called, not accepted"
            )
            return
        if key != idempotency_key(self._journal_id, id_, step, direction):
            self._violated("again", f"{step} of workflow {id_} is called under {key}")
        if self._closed:
            self._violated(
                "forward",
                f"{step} of workflow {id_} is called after the coordinator was closed",
            )
        if workflow.late:
            self._violated(
                "forward",
                f"{step} of workflow {id_} is called, which came in while the process "
                f"drained",
            )
        if fields["epoch"] != self._epoch:
            self._violated(
                "forward",
                f"{step} of workflow {id_} is called with epoch {fields['epoch']}, "
                f"ours is {self._epoch}",
            )
        position = parse_workflow_id(id_)[1]
        known = (int(position), step.name, step.occurrence, int(direction))
        self._steps[key] = known
        if direction is Direction.DO and fields["operation"] in UNDO_OF:
            workflow.undoable[step.name, step.occurrence] = key
        self._check_not_again(workflow, step, direction, key)
        if direction is Direction.DO:
            self._check_forward(workflow, step)
        else:
            self._check_undo(workflow, step, fields["undoes"])
        workflow.calls[key] = int(direction)
        workflow.made.add(key)
        workflow.cut_off.discard(key)
        for problem in self._patience.begin(int(position), key):
            self._violated(
                "endless", f"{_way(direction)} {step} of workflow {id_} {problem}"
            )
        hurry = self._pacing.begin(int(position), key, event.at)
        if hurry:
            self._violated(
                "hurry",
                f"{_way(direction)} {step} of workflow {id_} is called again {hurry}",
            )

    def _check_not_again(
        self, workflow: DurableWorkflow, step: StepId, direction: Direction, key: str
    ) -> None:
        what = f"{_way(direction)} {step} of workflow {workflow.id} is called"
        if (step.name, step.occurrence, int(direction)) in workflow.outcomes:
            self._violated("again", f"{what} though its outcome is recorded")
        elif key in self._answered:
            self._violated("again", f"{what} though it was answered in this life")
        if key in workflow.calls:
            self._violated("again", f"{what} twice at once")
        stuck = workflow.stuck and not workflow.resuming
        if workflow.finished is not None or stuck:
            state = "ended" if workflow.finished is not None else "stuck"
            self._violated("forward", f"{what} while the workflow is {state}")

    def _check_forward(self, workflow: DurableWorkflow, step: StepId) -> None:
        if workflow.aborting:
            self._violated(
                "forward",
                f"{step} of workflow {workflow.id} is called, and Aborting is durable",
            )

    def _check_undo(self, workflow: DurableWorkflow, step: StepId, undoes: str) -> None:
        what = f"undo of {step} of workflow {workflow.id} is called"
        if not workflow.aborting:
            self._violated("undo", f"{what} before Aborting is durable")
        if workflow.calls:
            self._violated("undo", f"{what} beside {', '.join(workflow.calls)}")
        standing = workflow.standing()
        if (step.name, step.occurrence) not in standing:
            self._violated("undo", f"{what}, which does not stand")
        elif standing[-1] != (step.name, step.occurrence):
            last = StepId(*standing[-1])
            self._violated("undo", f"{what} before that of {last}, done later")
        done = workflow.undoable.get((step.name, step.occurrence))
        if done != undoes:
            self._violated("undo", f"{what} with the outcome of {undoes or 'nothing'}")

    def _call_end(self, event: Event) -> None:
        key, fate = event.fields["key"], event.fields["fate"]
        known = self._steps.get(key)
        if known is None:
            return
        workflow = self.workflows[known[0]]
        workflow.calls.pop(key, None)
        if fate.startswith("unknown"):
            self._unknown.append((self._batches + NAMED_WITHIN, workflow, key))
        if fate.startswith("unknown") and "CommandBlocked" not in fate:
            self._pacing.unknown(known[0], key, event.at)
            if (workflow.accepted.type, known[1]) != OWN_POLICY:
                self._patience.unknown(known[0], key, fate)
        undo = known[3] == Direction.UNDO
        # A thread may be done, and its result come too late for whoever waited.
        threaded = event.fields.get("threaded", False)
        if not threaded and (fate == "done" or (fate == "refused" and not undo)):
            self._answered.add(key)

    def _exec_saw(self, event: Event) -> None:
        key = event.fields["key"]
        known = self._steps.get(key)
        if known is None:
            self._violated("ghost", f"exec goes on with a reply to {key}, never asked")
            return
        position, step, occurrence, direction = known
        workflow = self.workflows[position]
        outcome = workflow.outcomes.get((step, occurrence, direction))
        if outcome is None:
            self._violated(
                "early",
                f"exec of workflow {workflow.id} goes on with {step}#{occurrence}, "
                f"whose outcome is not durable",
            )
            return
        value = msgspec.msgpack.decode(outcome.value)
        if value != {"key": key, "number": event.fields["number"]}:
            self._violated(
                "changed",
                f"exec of workflow {workflow.id} got {event.fields} from {step}, the "
                f"journal says {value}",
            )

    # The journal.

    def _journal_claimed(self, event: Event) -> None:
        epoch = event.fields["epoch"]
        if epoch <= self._epoch:
            self._violated(
                "state", f"epoch {epoch} was claimed after epoch {self._epoch}"
            )
        self._epoch = epoch
        if self._opened:  # again, behind a write of which nobody knows
            self._cut_off()
        self._opened = True

    def _journal_checkpoint(self, event: Event) -> None:
        problem = self._admitted.kept(event.fields["kept"], event.fields["kept_size"])
        if problem:
            self._violated("bound", problem)

    def _journal_writing(self, event: Event) -> None:
        for position, record in event.fields["records"]:
            self._written.setdefault(position, []).append(record)

    def _journal_durable(self, event: Event) -> None:
        for position, record in event.fields["records"]:
            self._take(position, record)
        self._batches += 1
        while self._unknown and self._unknown[0][0] <= self._batches:
            _, workflow, key = self._unknown.popleft()
            workflow.made.discard(key)  # a `Started` names it, or should

    def _journal_read(self, event: Event) -> None:
        records: list[tuple[int, Record]] = event.fields["records"]
        since, life = event.fields["since"], event.life
        if not records or not isinstance(records[-1][1], Claimed):
            self._violated("state", f"life {life} read a journal without its own claim")
            return
        first, last = records[0][0], records[-1][0]
        if [position for position, _ in records] != list(range(first, last + 1)):
            self._violated("state", f"life {life} read positions with gaps")
        if first > since:
            self._violated("lost", f"life {life} asked from {since}, and got {first}")
        read = dict(records)
        for position, record in self._log.items():
            if position >= first and read.get(position) != record:
                self._violated(
                    "lost",
                    f"position {position} was durable as {record}; life {life} reads "
                    f"{read.get(position)}",
                )
        for position, record in records:
            if position not in self._log:
                self._check_written(position, record)
                self._take(position, record)

    def _check_written(self, position: int, record: Record) -> None:
        if isinstance(record, Claimed):
            return  # The journal's own.
        if record not in self._written.get(position, ()):
            self._violated(
                "ghost", f"position {position} holds {record}, which nobody wrote there"
            )

    def _take(self, position: int, record: Record) -> None:
        """Note that *record* is durable at *position*."""
        if self._log and position != self._last + 1:
            self._violated("state", f"position {position} follows {self._last}")
        before = self._log.get(self._last)
        if isinstance(before, Released) and not isinstance(record, Claimed):
            self._violated("state", f"{record} at {position} follows {before}")
        self._log[position] = record
        self._last = position
        match record:
            case Claimed() | Held() | Released():
                pass
            case Lost():
                self._violated("state", f"{record} at {position}: nobody repaired it")
            case Accepted():
                self._accept(position, record)
            case _:
                workflow = self.workflows.get(record.workflow)
                if workflow is None:
                    self._violated("state", f"{record} is about no workflow")
                else:
                    self._admitted.follow(record)
                    if isinstance(record, Outcome):
                        self._pacing.progress(record.workflow)
                    kind, problem = workflow.take(record)
                    if problem:
                        self._violated(
                            kind, f"workflow {workflow.id}: {record} {problem}"
                        )

    def _accept(self, position: int, record: Accepted) -> None:
        id_ = format_workflow_id(0, position)
        order = order_of(record)
        if order not in self._submitted:
            self._violated("ghost", f"workflow {id_} holds order {order}, never placed")
        for kind, problem in self._admitted.accept(position, record, order):
            self._violated(kind, problem)
        self.workflows[position] = DurableWorkflow(
            id_, position, record, late=self._draining
        )

    def _check_effect(self, effect: Effect) -> None:
        known = self._steps.get(effect.key)
        workflow = self._find(effect.workflow)
        if known is not None and workflow is not None:
            _, step, occurrence, direction = known
            kind, problem = judge(effect, workflow, StepId(step, occurrence), direction)
            if problem:
                self._violated(kind, problem)

    def _find(self, id_: str) -> DurableWorkflow | None:
        return self.workflows.get(int(parse_workflow_id(id_)[1]))


def _way(direction: Direction) -> str:
    return "undo of" if direction is Direction.UNDO else "step"


def check(
    journal_id: str,
    events: Iterable[Event],
    effects: Iterable[Effect],
    problems: Iterable[str],
) -> list[Violation]:
    """Return what is wrong with a whole history."""
    checker = Checker(journal_id)
    checker.follow(events)
    checker.finish(effects, problems)
    return checker.violations
