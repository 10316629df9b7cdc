"""Bugs of what one run of `exec` does: replay, call, turn back, undo."""

from collections.abc import Callable, Collection
from typing import Any

from tests.simulation.planted import Bug, instead, without_waiting

from coordinator import app, calls, execution, saga, steps, values
from coordinator.errors import CommandDelayed, Refused
from coordinator.execution import Execution
from coordinator.model import Direction, StepId
from coordinator.state import WorkflowState
from coordinator.steps import Steps

__all__ = ["BUGS"]


def undo_first_in_first_out(
    state: WorkflowState, undoable: Collection[StepId]
) -> list[StepId]:
    return [step for step in state.standing() if step in undoable]


def undo_nothing(_state: WorkflowState, _undoable: Collection[StepId]) -> list[StepId]:
    return []


PLAN = saga.undo_plan


def undo_behind_the_one_that_failed() -> Callable[..., list[StepId]]:
    seen: dict[str, list[StepId]] = {}

    def plan(state: WorkflowState, undoable: Collection[StepId]) -> list[StepId]:
        steps = PLAN(state, undoable)
        if seen.get(state.id) == steps and len(steps) > 1:
            return steps[1:] + steps[:1]
        seen[state.id] = steps
        return steps

    return plan


def key_of_each_attempt() -> Callable[..., str]:
    count = 0

    def key(journal_id: str, workflow_id: str, step: StepId, direction: Any) -> str:
        nonlocal count
        count += 1
        return f"{journal_id}/{workflow_id}/{step}/{count}"

    return key


def key_without_direction(
    journal_id: str, workflow_id: str, step: StepId, _direction: Any
) -> str:
    return f"{journal_id}/{workflow_id}/{step.name}/{step.occurrence}"


def never_sticky(_steps: Steps, _step: Any, _cause: BaseException) -> None: ...


def hand_over_at_once(_attempt: saga.Attempt, _step: Any) -> None: ...


def never_closed(_attempt: saga.Attempt) -> None: ...


def when_all_were_asked_for(attempt: saga.Attempt, _rank: int) -> bool:
    return not attempt.awaited


def ask_without_undo(self: Steps, step: Any, alone: bool) -> saga.Answer:
    answer = self.attempt.answer(step.id, alone)
    if step.undo_function is not None and answer is saga.Answer.CALL:
        self.undoable[step.id] = step
    if self._held:
        self._let_go()
    return answer


async def hold_for_ever(self: Steps, rank: int, _timeout_s: float) -> None:
    future = self._loop.create_future()
    self._holds += 1
    self._held.append((rank, self._holds, future))
    await future


async def settle_without_waiting(self: Steps) -> None:
    self._task = None
    self.attempt.ending = True
    self.attempt.close()
    self._release()


CALL = calls.call


async def late_is_refused(*args: Any, **kwargs: Any) -> Any:
    try:
        return await CALL(*args, **kwargs)
    except CommandDelayed as error:
        if isinstance(error.__cause__, TimeoutError):
            raise Refused("too late") from error
        raise


CONTEXT = Steps._context


def old_epoch(self: Steps, step: StepId, direction: Direction) -> Any:
    self._epoch -= 1
    try:
        return CONTEXT(self, step, direction)
    finally:
        self._epoch += 1


ANSWER = saga.Attempt.answer


def call_again(self: saga.Attempt, step: StepId, alone: bool) -> saga.Answer:
    answer = ANSWER(self, step, alone)
    if answer is saga.Answer.UNWIND and not self.closed and not self.parked:
        return saga.Answer.CALL
    return answer


def replay_nothing_undone(self: saga.Attempt) -> list[StepId]:
    return []


LOAD_REFUSAL = values.load_refusal


def refusal_of_no_class(data: bytes) -> Refused:
    refusal = LOAD_REFUSAL(data)
    return Refused(refusal.reason, refusal.details)


JUDGE_FAILED = Execution._judge_failed


def delayed_is_the_end(
    self: Execution, failed: Any, direction: Direction = Direction.DO
) -> saga.Verdict:
    verdict = JUDGE_FAILED(self, failed, direction)
    return saga.Parked() if isinstance(verdict, saga.Delayed) else verdict


COUNT = Execution._count


def undo_for_ever(
    self: Execution, step: Any, cause: BaseException, direction: Direction
) -> saga.Unknown | saga.Stuck:
    verdict = COUNT(self, step, cause, direction)
    if isinstance(verdict, saga.Stuck) and direction is Direction.UNDO:
        return saga.Unknown(f"{step.id}", cause, self._host.retry)
    return verdict


def first_alone_counts(
    self: Execution, failed: Any, direction: Direction = Direction.DO
) -> saga.Verdict:
    return JUDGE_FAILED(self, list(failed)[:1], direction)


LEFT = frozenset({"leftover", "unfinished", "unrecorded"})

BUGS = [
    Bug(
        "undo first in, first out",
        execution,
        "undo_plan",
        instead(undo_first_in_first_out),
        frozenset({"undo"}),
        museum="seata #2861",
    ),
    Bug(
        "an undo that failed is put behind the others",
        execution,
        "undo_plan",
        undo_behind_the_one_that_failed,
        frozenset({"undo"}),
        museum="seata #2861",
    ),
    Bug(
        "turn back without an undo",
        execution,
        "undo_plan",
        instead(undo_nothing),
        frozenset({"leftover", "state"}),
        museum="dtm #272",
    ),
    Bug(
        "no answer in time is taken for a refusal",
        app,
        "call",
        instead(late_is_refused),
        frozenset({"leftover", "unrecorded", "changed", "unfinished"}),
        museum="dtm #272",
    ),
    Bug(
        "undo before the decision is durable",
        Execution,
        "__init__",
        without_waiting(Execution, "Aborting"),
        frozenset({"undo"}),
    ),
    Bug(
        "go on before an outcome is durable",
        Steps,
        "__init__",
        without_waiting(Steps, "Outcome"),
        frozenset({"early"}),
    ),
    Bug(
        "tell a result before it is durable",
        Execution,
        "__init__",
        without_waiting(Execution, "Finished"),
        frozenset({"early"}),
    ),
    Bug(
        "a call is made before its Started is durable",
        Steps,
        "__init__",
        without_waiting(Steps, "Started"),
        LEFT,
        first=70,
    ),
    Bug(
        "a new idempotency key for each attempt",
        steps,
        "idempotency_key",
        key_of_each_attempt,
        frozenset({"again"}),
    ),
    Bug(
        "an undo has the key of its step",
        steps,
        "idempotency_key",
        instead(key_without_direction),
        frozenset({"again", "leftover"}),
    ),
    Bug(
        "user code may swallow a delay",
        Steps,
        "_stop",
        instead(never_sticky),
        frozenset({"unrecorded", "leftover", "unfinished", "state"}),
    ),
    Bug(
        "a replayed refusal overtakes a sibling",
        saga.Attempt,
        "holds",
        instead(hand_over_at_once),
        LEFT,
        first=80,
    ),
    Bug(
        "a replay has no undo until it is handed over",
        Steps,
        "_ask",
        instead(ask_without_undo),
        frozenset({"undo", "state", "leftover", "unfinished"}),
    ),
    Bug(
        "a cancel forgets what the process before left unknown",
        saga.Attempt,
        "doubtful",
        instead(property(lambda _attempt: False)),
        frozenset({"leftover"}),
        first=450,
    ),
    Bug(
        "what is unknown does not count when turning back",
        saga.Attempt,
        "unknown",
        instead(replay_nothing_undone),
        frozenset({"leftover", "unfinished", "unrecorded"}),
        first=260,
    ),
    Bug(
        "what code no longer asks for does not count",
        saga.Attempt,
        "ignored",
        instead(replay_nothing_undone),
        frozenset({"leftover", "state"}),
        first=90,
    ),
    Bug(
        "a call that ended unknown, alone, is named nowhere",
        Steps,
        "_open",
        instead(Steps._stop),
        frozenset({"leftover", "unfinished"}),
    ),
    Bug(
        "a run that has ended goes on",
        saga.Attempt,
        "close",
        instead(never_closed),
        frozenset({"forward", "again", "state", "leftover"}),
        first=240,
    ),
    Bug(
        "an outcome is held without regard to the journal's order",
        saga.Attempt,
        "released",
        instead(when_all_were_asked_for),
        frozenset({"unfinished"}),
    ),
    Bug(
        "an outcome is held for something that only it can bring about",
        Steps,
        "_keep",
        instead(hold_for_ever),
        frozenset({"unfinished"}),
        museum="restate #5196",
        first=240,
    ),
    Bug(
        "it is judged while calls are in flight",
        Steps,
        "settle",
        instead(settle_without_waiting),
        frozenset({"state", "undo", "forward", "again", "program", "unfinished"}),
    ),
    Bug(
        "a run on its way back starts what was never started",
        saga.Attempt,
        "answer",
        instead(call_again),
        # Unfinished: its `Started` may not follow `Aborting`, and the log refuses it.
        frozenset({"forward", "state", "again", "unfinished"}),
    ),
    Bug(
        "a call carries the epoch before",
        Steps,
        "_context",
        instead(old_epoch),
        frozenset({"forward"}),
    ),
    Bug(
        "a replayed refusal has lost its class",
        values,
        "load_refusal",
        instead(refusal_of_no_class),
        frozenset({"changed", "state", "leftover", "unfinished"}),
    ),
    Bug(
        "an undo is tried for ever",
        Execution,
        "_count",
        instead(undo_for_ever),
        frozenset({"endless"}),
        museum="seata #5077",
        first=7090,
    ),
    Bug(
        "of steps that fail together the first alone counts",
        Execution,
        "_judge_failed",
        instead(first_alone_counts),
        frozenset({"hurry", "endless"}),
    ),
    Bug(
        "who is delayed is parked",
        Execution,
        "_judge_failed",
        instead(delayed_is_the_end),
        frozenset({"hurry", "unfinished", "bound"}),
    ),
]
