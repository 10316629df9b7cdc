"""The simulator finds bugs: each of these is planted, and found.

A bug is one method of the product, replaced. It has to be found within `SEEDS_MAX`
seeds, and the seed that found it has to pass without it.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, cast

import pytest
from tests.simulation.run import Result, simulate

from coordinator import execution, saga, schedule, steps
from coordinator.batch import Batch
from coordinator.commit import Durable
from coordinator.engine import Engine
from coordinator.execution import Execution
from coordinator.journals.segments import store
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.format import segment_name
from coordinator.journals.segments.recovery import Recovered
from coordinator.journals.segments.renewal import Renewed
from coordinator.journals.segments.store import Store
from coordinator.model import Random, Retry, StepId
from coordinator.retry import DueQueue
from coordinator.state import WorkflowState
from coordinator.steps import Steps

SEEDS_MAX = 300


@dataclass(frozen=True)
class Bug:
    """One planted bug."""

    name: str
    owner: Any
    attribute: str
    replacement: Any
    shows_as: frozenset[str]
    """Kinds of violations, any of which may tell of it first."""
    first: int = 0
    """Where the search begins: the seeds before do not find it, and take their time."""


def append_without_sync(store: Store, batch: Batch) -> None:
    data = batch.data
    if store._offset + len(data) > store._limit:
        store._roll(len(data))
    assert store._active is not None
    store._write(store._active, data)
    store._offset += len(data)
    store.chain.take(batch)


def append_with_second_sync(store: Store, batch: Batch) -> None:
    data = batch.data
    try:
        if store._offset + len(data) > store._limit:
            store._roll(len(data))
        assert store._active is not None
        store._write(store._active, data)
        try:
            store._active.sync()
        except OSError:
            store._active.sync()
    except OSError as error:
        raise store.broke("append", error) from error
    store._offset += len(data)
    store.chain.take(batch)


def undo_first_in_first_out(
    state: WorkflowState, undoable: Collection[StepId]
) -> list[StepId]:
    return [step for step in state.standing() if step in undoable]


class _NotAwaited:
    """Awaiting it waits for nothing."""

    def __await__(self) -> Any:
        return iter(())


def forget_some_delays() -> Callable[..., None]:
    push = DueQueue[Any].push
    count = 0

    def forget(queue: "DueQueue[Any]", item: Any, due_s: float) -> None:
        nonlocal count
        count += 1
        if count % 20:
            push(queue, item, due_s)

    return forget


def without_waiting(class_: type[Any], kind: str) -> Callable[..., Any]:
    """Go on before the record of that kind is durable."""
    init = class_.__init__

    def plant(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        append = self._append

        def hasty(record: Any) -> Any:
            durable = append(record)
            return _NotAwaited() if type(record).__name__ == kind else durable

        self._append = hasty

    return plant


def trust_the_page_cache(folder: Folder, found: Recovered, size: int) -> Renewed:
    name = segment_name(found.segments[-1].base)
    file = folder.open(name, writable=True)
    return Renewed(file, max(size, found.active_size), "")


class _NeverSynced:
    """A folder whose names are not made durable."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    def __getattr__(self, name: str) -> Any:
        return getattr(self._folder, name)

    def sync(self) -> None:
        """Do nothing."""


def roll_without_folder_sync() -> Callable[..., None]:
    roll = Store._roll

    def plant(store: Store, size: int) -> None:
        folder = store.folder
        store.folder = cast("Folder", _NeverSynced(folder))
        try:
            roll(store, size)
        finally:
            store.folder = folder

    return plant


def key_of_each_attempt() -> Callable[..., str]:
    count = 0

    def key(journal_id: str, workflow_id: str, step: StepId, direction: Any) -> str:
        nonlocal count
        count += 1
        return f"{journal_id}/{workflow_id}/{step}/{count}"

    return key


def never_sticky(_attempt: saga.Attempt, _cause: BaseException) -> None: ...


def tell_early(engine: Engine, run: Any, durable: Durable | None = None) -> None:
    for caller in run.callers:
        caller.accepted(run.state.id)
    START(engine, run, durable)


START = Engine._start


def hand_over_at_once(_attempt: saga.Attempt, _step: Any) -> None: ...


def never_closed(_attempt: saga.Attempt) -> None: ...


def when_all_were_asked_for(attempt: saga.Attempt, _rank: int) -> bool:
    return not attempt.awaited


def ask_without_undo(self: Steps, step: Any, *, alone: bool) -> saga.Answer:
    answer = self.attempt.answer(step.id, alone=alone)
    if step.undo_function is not None and answer is saga.Answer.CALL:
        self.undoable[step.id] = step
    if self._held:
        self._let_go()
    return answer


def no_interval(_retry: Retry, _attempt: int, _random: Random) -> float:
    return 0.0


BUGS = [
    Bug(
        "acknowledge before sync",
        Store,
        "append",
        append_without_sync,
        frozenset({"lost"}),
    ),
    Bug(
        "swallow a failed sync",
        Store,
        "append",
        append_with_second_sync,
        frozenset({"lost"}),
    ),
    Bug(
        "undo first in, first out",
        execution,
        "undo_plan",
        undo_first_in_first_out,
        frozenset({"undo"}),
    ),
    Bug(
        "forget a delayed command",
        DueQueue,
        "push",
        forget_some_delays(),
        frozenset({"unfinished"}),
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
        "acknowledge a command before it is durable",
        Engine,
        "_start",
        tell_early,
        frozenset({"unaccepted"}),
    ),
    Bug(
        "trust the page cache after a crash",
        store,
        "renew",
        trust_the_page_cache,
        frozenset({"lost"}),
    ),
    Bug(
        "no folder sync after a roll",
        Store,
        "_roll",
        roll_without_folder_sync(),
        frozenset({"lost"}),
    ),
    Bug(
        "a new idempotency key for each attempt",
        steps,
        "idempotency_key",
        key_of_each_attempt(),
        frozenset({"again"}),
    ),
    Bug(
        "user code may swallow a delay",
        saga.Attempt,
        "stop",
        never_sticky,
        frozenset({"unrecorded", "leftover", "unfinished", "state"}),
    ),
    # Found by the simulator, and put back:
    Bug(
        "a replayed refusal overtakes a sibling",
        saga.Attempt,
        "holds",
        hand_over_at_once,
        frozenset({"leftover", "unfinished", "unrecorded"}),
    ),
    Bug(
        "a replay has no undo until it is handed over",
        Steps,
        "_ask",
        ask_without_undo,
        frozenset({"undo", "state", "leftover", "unfinished"}),
    ),
    Bug(
        "a cancel forgets what the process before left unknown",
        saga.Attempt,
        "doubtful",
        property(lambda _attempt: False),
        frozenset({"leftover"}),
        first=200,
    ),
    # Found by reading, and then by shapes that were made for it:
    Bug(
        "a call that ended unknown, alone, is named nowhere",
        Steps,
        "_open",
        Steps._stop,
        frozenset({"leftover", "unfinished"}),
    ),
    Bug(
        "a run that has ended goes on",
        saga.Attempt,
        "close",
        never_closed,
        frozenset({"forward", "again", "state", "leftover"}),
    ),
    Bug(
        "an outcome is held without regard to the journal's order",
        saga.Attempt,
        "released",
        when_all_were_asked_for,
        frozenset({"unfinished"}),
    ),
    Bug(
        "a call is made before its Started is durable",
        Steps,
        "__init__",
        without_waiting(Steps, "Started"),
        frozenset({"leftover", "unfinished", "unrecorded"}),
        first=200,
    ),
    # Found elsewhere:
    Bug(
        "retry without an interval",
        schedule,
        "slow_interval_s",
        no_interval,
        frozenset({"hurry", "unfinished"}),
    ),
]


def find(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> Result:
    for seed in range(bug.first, bug.first + SEEDS_MAX):
        with monkeypatch.context() as patch:
            patch.setattr(bug.owner, bug.attribute, bug.replacement)
            result = simulate(seed)
        if result.violations:
            return result
    pytest.fail(f"{SEEDS_MAX} seeds did not find: {bug.name}")


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name.replace(" ", "-"))
def test_a_planted_bug_is_found(bug: Bug, monkeypatch: pytest.MonkeyPatch) -> None:
    result = find(bug, monkeypatch)
    print(f"{bug.name}: seed {result.seed}: {result.violations[0]}")
    assert {violation.kind for violation in result.violations} & bug.shows_as
    assert not simulate(result.seed).violations, "the same seed passes without the bug"
