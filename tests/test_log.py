"""The log of one partition: its state, its checkpoints, and what a crash leaves."""

import asyncio
import copy
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.support import run, until

from coordinator.batch import Batch
from coordinator.commit import Durable
from coordinator.errors import (
    EncodeError,
    FencedError,
    JournalBrokenError,
    JournalClosedError,
    JournalDamagedError,
    JournalError,
    JournalFullError,
    JournalLockedError,
    UncertainError,
)
from coordinator.journals.memory import MemoryJournal, MemoryPartition
from coordinator.log import CHECKPOINT_SHARE, Log, LogOptions
from coordinator.model import EndStatus, Position
from coordinator.records import (
    RECORD_SIZE_MAX,
    Accepted,
    Carried,
    Claimed,
    Finished,
    Outcome,
    Record,
    Resumed,
    encode_record,
)
from coordinator.state import InvalidRecordError, PartitionState, WorkflowState

# The journal: in memory, slow where the test says, and it fails where the test says.


@dataclass
class Script:
    """What is to happen to a partition, and what happened."""

    write_s: float = 0.0
    save_s: float = 0.0
    write_error: JournalError | None = None
    save_error: JournalError | None = None
    saving: bool = False
    done: list[str] = field(default_factory=list[str])
    """``write``, ``save`` and ``trim``, each when it was over."""
    records: list[tuple[Position, Record]] = field(
        default_factory=list[tuple[Position, Record]]
    )
    """All that became durable, trimmed or not."""
    on_write: Callable[[], None] = lambda: None
    """Called whenever a batch became durable, before anybody is told."""


class ScriptedPartition(MemoryPartition):
    """A real partition, in memory, with faults put before it."""

    script: Script

    async def write(self, batch: Batch) -> None:
        script = self.script
        await asyncio.sleep(script.write_s)
        if script.write_error is not None:
            self._handle.failed(script.write_error)
            raise script.write_error
        await super().write(batch)
        script.done.append("write")
        script.records += batch.records()
        script.on_write()

    async def save_checkpoint(self, low: Position, data: bytes) -> None:
        script = self.script
        assert not script.saving, "one checkpoint at a time"
        script.saving = True
        await asyncio.sleep(script.save_s)
        script.saving = False
        if script.save_error is not None:
            raise script.save_error
        await super().save_checkpoint(low, data)
        script.done.append("save")

    async def trim(self, before: Position) -> None:
        await super().trim(before)
        self.script.done.append("trim")


class ScriptedJournal(MemoryJournal):
    def __init__(self, script: Script) -> None:
        super().__init__(journal_id="j")
        self.script = script

    async def open(self, partition: int, *, owner: str, at: int) -> MemoryPartition:
        opened = await super().open(partition, owner=owner, at=at)
        opened.__class__ = ScriptedPartition
        assert isinstance(opened, ScriptedPartition)
        opened.script = self.script
        return opened

    @property
    def batches(self) -> list[Batch]:
        return self._logs[0].batches

    def crashed(self) -> "ScriptedJournal":
        """Return what the next process finds if this one ends now."""
        other = ScriptedJournal(Script())
        other._logs = [copy.copy(log) for log in self._logs]
        for log in other._logs:
            log.batches = list(log.batches)
            log.holder = None
        return other


def never(error: JournalError) -> None:
    raise AssertionError(f"the partition is not dead: {error!r}")


async def opened(
    journal: MemoryJournal,
    on_failure: Callable[[JournalError], None] = never,
    **options: Any,
) -> Log:
    return await Log.open(
        journal,
        0,
        owner="test",
        clock=lambda: 1_000,
        options=LogOptions(**options),
        on_failure=on_failure,
    )


def test_a_partition_that_dies_by_itself_is_told_at_once() -> None:
    async def main() -> None:
        told: list[JournalError] = []
        log = await opened(ScriptedJournal(Script()), told.append)
        partition = log.partition
        assert isinstance(partition, ScriptedPartition)
        partition._died(JournalBrokenError("no disk"))
        assert [str(error) for error in told] == ["no disk"]
        with pytest.raises(JournalBrokenError):
            await log.append(Accepted(type="T", codec="json", payload=b"", at=1))
        assert len(told) == 1
        await log.aclose()

    run(main())


def in_log(
    work: Callable[[Log, ScriptedJournal, Script], Coroutine[Any, Any, None]],
    **options: Any,
) -> None:
    """Run *work* over a new log, which is closed afterwards."""

    async def main() -> None:
        script = Script()
        journal = ScriptedJournal(script)
        log = await opened(journal, **options)
        await work(log, journal, script)
        await log.aclose()

    run(main())


def accepted(key: str = "", *, size: int = 0) -> Accepted:
    return Accepted("Order", "json", b"x" * size, 1, key)


def outcome(state: WorkflowState, step: str = "a.b", *, size: int = 0) -> Outcome:
    return Outcome(state.position, step, 0, b"x" * size, 2)


def finished(state: WorkflowState, at: int = 1_000) -> Finished:
    return Finished(state.position, EndStatus.COMPLETED, b"\x07", at)


def snapshot(state: PartitionState) -> object:
    return (
        {
            position: (copy.deepcopy(workflow), list(workflow.outcomes))
            for position, workflow in state.workflows.items()
        },
        {key: workflow.position for key, workflow in state._keys.items()},
        list(state._ended.items()),
    )


async def recovered(journal: ScriptedJournal, **options: Any) -> PartitionState:
    """Return what the next process would know if this one ended now."""
    return (await opened(journal.crashed(), **options)).state


# Opening.


def test_a_new_journal_is_claimed_and_knows_nothing() -> None:
    async def main() -> None:
        journal = MemoryJournal()
        log = await opened(journal)
        assert log.state.workflows == {}
        assert log.state.epoch == log.partition.epoch == 1
        with pytest.raises(JournalLockedError):
            await opened(journal)
        await log.aclose()

    run(main())


def test_the_lease_that_a_checkpoint_knows_is_known_again() -> None:
    async def main() -> None:
        journal = MemoryJournal()
        partition = await journal.open(0, owner="a", at=1)
        end = partition.end
        low, data = PartitionState(0, lease_ms=20_000).encode_checkpoint(end)
        await partition.save_checkpoint(low, data)
        await partition.aclose()
        for _ in range(2):  # the second time by a checkpoint that the first one left
            log = await opened(journal)
            assert log.state.earlier_lease_ms == log.state.lease_ms == 20_000
            await log.aclose()

    run(main())


def test_what_was_durable_is_there_again_under_a_new_epoch() -> None:
    async def work(log: Log, journal: ScriptedJournal, _: Script) -> None:
        first, _durable = log.accept(accepted("k"))
        await log.append(outcome(first))
        second, _durable = log.accept(accepted())
        await log.append(finished(second))
        again = await recovered(journal)
        assert snapshot(again) == snapshot(log.state)
        assert again.epoch == 2

    in_log(work)


@pytest.mark.parametrize("what", ["checkpoint", "records", "history"])
def test_a_journal_that_makes_no_sense_is_refused_and_let_go(what: str) -> None:
    async def main() -> None:
        journal = ScriptedJournal(Script())
        partition = await journal.open(0, owner="x", at=1)
        if what == "checkpoint":
            await partition.save_checkpoint(Position(0), b"nonsense")
        await partition.aclose()
        if what == "records":
            batch = journal.batches[0]
            journal.batches[0] = Batch(
                batch.epoch, batch.first, 2, batch.previous_crc, batch.crc, batch.data
            )
        if what == "history":
            log = await opened(journal)
            await log._commit.append(Resumed(7, "nobody", 1))
            journal = journal.crashed()
        for _ in range(2):  # not locked by the first who tried
            with pytest.raises(JournalDamagedError, match="makes no sense") as caught:
                await opened(journal)
            assert caught.value.path == "partition 0"
            said = str(caught.value)
            assert said.endswith("let `coordinator journal repair` say what is lost")
            assert said.count("`coordinator ") == 1  # nothing else helps in each case

    run(main())


# Appending.


def test_what_is_appended_is_applied_at_once_and_durable_later() -> None:
    async def work(log: Log, _: ScriptedJournal, script: Script) -> None:
        script.write_s = 5
        state, durable = log.accept(accepted("k"))
        assert log.state.find("Order", "k") is state
        assert not durable.done()
        log.append(outcome(state))
        assert len(state.outcomes) == 1
        assert script.records == []
        await log.flush()
        assert durable.done()
        assert [position for position, _ in script.records] == [1, 2]

    in_log(work)


def test_a_record_that_can_not_follow_is_not_written_either() -> None:
    """Written, it would keep every later process from opening the journal."""

    async def work(log: Log, journal: ScriptedJournal, script: Script) -> None:
        state, _ = log.accept(accepted())
        with pytest.raises(InvalidRecordError):
            log.append(Resumed(state.position, "ann", 1))
        with pytest.raises(InvalidRecordError):
            log.append(Resumed(99, "ann", 1))
        await log.append(outcome(state))
        assert [type(record) for _, record in script.records] == [Accepted, Outcome]
        assert snapshot(await recovered(journal)) == snapshot(log.state)

    in_log(work)


def test_a_record_that_is_too_large_changes_nothing() -> None:
    async def work(log: Log, _: ScriptedJournal, script: Script) -> None:
        state, _durable = log.accept(accepted())
        with pytest.raises(EncodeError):
            log.append(outcome(state, size=RECORD_SIZE_MAX))
        assert state.outcomes == {}
        await log.append(outcome(state, "c.d"))
        assert len(script.records) == 2

    in_log(work)


def test_a_dead_partition_changes_no_state() -> None:
    async def main() -> None:
        script = Script()
        failures: list[JournalError] = []
        log = await opened(ScriptedJournal(script), failures.append)
        state, durable = log.accept(accepted())
        await durable
        script.write_error = FencedError("somebody newer")
        with pytest.raises(FencedError):
            await log.append(outcome(state))
        before = snapshot(log.state)
        with pytest.raises(FencedError):
            log.append(finished(state))
        with pytest.raises(FencedError):
            log.accept(accepted())
        with pytest.raises(FencedError):
            await log.flush()
        assert snapshot(log.state) == before
        await log.aclose()
        assert failures == [script.write_error]

    run(main())


# Checkpoints.


def test_a_checkpoint_is_taken_whenever_so_many_bytes_were_appended() -> None:
    async def work(log: Log, _: ScriptedJournal, script: Script) -> None:
        state, _durable = log.accept(accepted())
        size, due, count = log._commit.size, 1_000, 0
        for number in range(20):
            record = outcome(state, f"s{number}", size=300)
            await log.append(record)
            await asyncio.sleep(1)
            size += len(encode_record(record))
            if size >= due:
                due, count = size + 1_000, count + 1
            assert script.done.count("save") == count
        assert count == 5

    in_log(work, checkpoint_size=1_000)


def test_the_larger_a_checkpoint_is_the_more_is_appended_until_the_next() -> None:
    async def work(log: Log, _: ScriptedJournal, script: Script) -> None:
        state, _durable = log.accept(accepted("k" * 10_000))
        await log.append(finished(state))
        await until(lambda: "trim" in script.done)
        begun, state = log._commit.size, log.accept(accepted())[0]
        for number in range(100):
            await log.append(outcome(state, f"s{number}", size=1_000))
            await asyncio.sleep(1)
            if script.done.count("save") == 2:
                break
        assert log._commit.size - begun > (CHECKPOINT_SHARE - 1) * 10_000

    in_log(work, checkpoint_size=1_000)


def test_one_checkpoint_is_taken_at_a_time_and_the_next_when_it_is_over() -> None:
    async def work(log: Log, _: ScriptedJournal, script: Script) -> None:
        script.save_s = 100
        state, _durable = log.accept(accepted(size=1_000))
        for number in range(10):
            await log.append(outcome(state, f"s{number}", size=1_000))
            await asyncio.sleep(1)
        assert script.done.count("save") == 0
        await until(lambda: "trim" in script.done)
        assert script.done.count("save") == 1
        await log.append(outcome(state, "last"))
        await until(lambda: script.done.count("trim") == 2)

    in_log(work, checkpoint_size=1_000)


def test_a_checkpoint_is_not_saved_before_what_it_knows_is_durable() -> None:
    async def main() -> None:
        script = Script(write_s=5)
        journal = ScriptedJournal(script)
        log = await opened(journal)
        state, durable = log.accept(accepted("k"))
        await durable
        finishing = log.append(finished(state))
        checkpoint = asyncio.get_running_loop().create_task(log.checkpoint())
        await asyncio.sleep(4)
        assert log.state.find("Order", "k") is not None
        assert script.done == ["write"]
        # The process ends here: nobody was told of the result, and nobody will be.
        again = await recovered(journal)
        assert isinstance(again.find("Order", "k"), WorkflowState)
        await checkpoint
        assert finishing.done()
        assert script.done == ["write", "write", "save", "trim"]
        await log.aclose()

    run(main())


def test_a_checkpoint_is_taken_of_a_log_that_is_never_idle() -> None:
    async def work(log: Log, _: ScriptedJournal, script: Script) -> None:
        script.write_s = 0.01

        async def append_for_ever() -> None:
            while True:
                state, durable = log.accept(accepted())
                await durable
                await log.append(finished(state))

        loop = asyncio.get_running_loop()
        busy = [loop.create_task(append_for_ever()) for _ in range(3)]
        await until(lambda: script.done.count("save") >= 3)
        for task in busy:
            task.cancel()
        await asyncio.wait(busy)

    in_log(work, checkpoint_size=5_000)


def test_what_lies_before_a_checkpoint_is_let_go() -> None:
    async def work(log: Log, journal: ScriptedJournal, _: Script) -> None:
        for _number in range(5):
            state, durable = log.accept(accepted("k"))
            await durable
            await log.append(finished(state))
        running, durable = log.accept(accepted())
        await durable
        assert len(journal.batches) == 12
        await log.checkpoint()
        assert [batch.first for batch in journal.batches] == [running.position]
        assert snapshot(await recovered(journal)) == snapshot(log.state)

    in_log(work)


def test_recovery_begins_in_the_midst_of_a_batch_if_a_workflow_does() -> None:
    async def work(log: Log, journal: ScriptedJournal, _: Script) -> None:
        first, _durable = log.accept(accepted("a"))
        second, _durable = log.accept(accepted("b"))
        log.append(finished(first))
        await log.checkpoint()
        assert [batch.first for batch in journal.batches] == [first.position]
        again = await recovered(journal)
        assert list(again.workflows) == [second.position]
        assert snapshot(again) == snapshot(log.state)

    in_log(work)


def test_without_space_for_a_checkpoint_the_one_before_stands(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(log: Log, journal: ScriptedJournal, script: Script) -> None:
        state, _durable = log.accept(accepted(size=1_000))
        script.save_error = JournalFullError("no space")
        await log.append(outcome(state, "a", size=1_000))
        await asyncio.sleep(1)
        assert "save" not in script.done
        assert snapshot(await recovered(journal)) == snapshot(log.state)
        script.save_error = None
        await log.append(outcome(state, "b", size=2_000))
        await until(lambda: "save" in script.done)

    with caplog.at_level(logging.WARNING):
        in_log(work, checkpoint_size=1_500)
    assert caplog.messages == ["no checkpoint of partition 0: no space"]


def test_a_checkpoint_that_can_not_be_stored_is_the_end_and_told_once() -> None:
    async def main() -> None:
        script = Script(save_error=JournalBrokenError("flush failed"))
        failures: list[JournalError] = []
        log = await opened(
            ScriptedJournal(script), failures.append, checkpoint_size=1_000
        )
        await log.accept(accepted(size=2_000))[1]
        await until(lambda: failures)
        assert failures == [script.save_error]
        script.write_error = script.save_error
        with pytest.raises(JournalBrokenError):
            await log.accept(accepted())[1]
        await log.aclose()
        assert failures == [script.save_error]

    run(main())


def test_a_write_that_fails_under_a_checkpoint_is_told_once() -> None:
    async def main() -> None:
        script = Script(write_s=1, write_error=UncertainError("nobody knows"))
        failures: list[JournalError] = []
        log = await opened(
            ScriptedJournal(script), failures.append, checkpoint_size=1_000
        )
        durable = log.accept(accepted(size=2_000))[1]
        assert log._checkpointing is not None
        with pytest.raises(UncertainError):
            await durable
        await until(lambda: log._checkpointing is None)
        await log.aclose()
        assert failures == [script.write_error]

    run(main())


def test_a_checkpoint_that_waits_for_space_is_given_up_when_nobody_waits() -> None:
    """A stop, not a death: who supervises us must not be told that the disk died."""

    async def main() -> None:
        script = Script(write_error=JournalFullError("no space"))
        log = await opened(ScriptedJournal(script), checkpoint_size=1_000)
        durable = log.accept(accepted(size=2_000))[1]
        await asyncio.sleep(10)
        log.stop_waiting()
        with pytest.raises(JournalClosedError):
            await durable
        await log.aclose()

    run(main())


def test_results_are_remembered_for_as_long_as_the_options_say() -> None:
    async def work(log: Log, journal: ScriptedJournal, _: Script) -> None:
        for key, at in (("a", 1_000_000), ("b", 1_500_000), ("c", 3_400_000)):
            state, _durable = log.accept(accepted(key))
            await log.append(finished(state, at=at))
        again = await recovered(journal, keys_age_s_max=2.0)
        assert again.find("Order", "a") is None
        assert again.find("Order", "b") is not None
        again = await recovered(journal, keys_size_max=3)
        assert again.find("Order", "b") is None
        assert again.find("Order", "c") is not None
        assert LogOptions().keys_age_s_max == 24 * 3600

    in_log(work)


# Carrying over.


def kinds(records: list[tuple[Position, Record]]) -> list[str]:
    return [
        type(record).__name__
        for _, record in records
        if not isinstance(record, Accepted | Claimed | Finished)
    ]


def test_a_workflow_that_pins_old_checkpoints_is_written_again_at_the_head() -> None:
    async def work(log: Log, journal: ScriptedJournal, script: Script) -> None:
        old, durable = log.accept(accepted("old"))
        await durable
        await log.append(outcome(old))
        for number in range(1, 4):
            for key in ("a", "b"):
                state, durable = log.accept(accepted(key))
                await durable
                await log.append(finished(state))
            await log.checkpoint()
            assert kinds(script.records) == ["Outcome"] + ["Carried"] * (number > 2)
            assert (old.first == old.position) is (number < 3)
        assert journal.batches[0].first > old.position
        assert log.state.low(Position(99)) == old.first
        again = await recovered(journal)
        assert snapshot(again) == snapshot(log.state)
        assert again.find("Order", "old") == old

    in_log(work, carry_after=2)


def test_only_what_needs_old_records_is_carried_over_and_not_again_at_once() -> None:
    async def work(log: Log, _: ScriptedJournal, script: Script) -> None:
        old, _durable = log.accept(accepted())
        await log.checkpoint()
        await log.checkpoint()
        new, _durable = log.accept(accepted())
        await log.checkpoint()
        carried = [r for _, r in script.records if isinstance(r, Carried)]
        assert [record.workflow for record in carried] == [old.position]
        assert new.first == new.position
        await log.checkpoint()
        assert len([r for _, r in script.records if isinstance(r, Carried)]) == 1

    in_log(work, carry_after=2)


def test_a_workflow_that_is_too_large_is_not_carried_and_stops_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work(log: Log, journal: ScriptedJournal, script: Script) -> None:
        large, _durable = log.accept(accepted())
        small, _durable = log.accept(accepted())
        for number in range(3):
            log.append(outcome(large, f"s{number}", size=RECORD_SIZE_MAX // 2))
        for _ in range(3):
            await log.checkpoint()
        assert large.first == large.position
        assert small.first > small.position
        assert snapshot(await recovered(journal)) == snapshot(log.state)
        await log.checkpoint()  # the smaller one is not written again at each
        carried = [r.workflow for _, r in script.records if isinstance(r, Carried)]
        assert carried == [small.position]

    with caplog.at_level(logging.WARNING):
        in_log(work, carry_after=2)
    assert caplog.messages[0].startswith("workflow 0-1 keeps old segments: ")


# Any history, any crash.

moves = st.lists(
    st.tuples(
        st.sampled_from(["accept", "accept", "outcome", "finish", "checkpoint"]),
        st.integers(0, 3),
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(moves, st.integers(1, 3), st.integers(0, 3))
def test_after_a_crash_at_any_write_a_checkpoint_tells_what_everything_does(
    drawn: list[tuple[str, int]], carry_after: int, keys_max: int
) -> None:
    crashes: list[tuple[ScriptedJournal, int]] = []

    async def work(log: Log, journal: ScriptedJournal, script: Script) -> None:
        script.on_write = lambda: crashes.append(
            (journal.crashed(), len(script.records))
        )
        last: Durable | None = None
        for number, (move, which) in enumerate(drawn):
            open_ = list(log.state.workflows.values())
            state = open_[which % len(open_)] if open_ else None
            if move == "accept":
                key = f"k{which}"
                free = ("Order", key) not in log.state._keys
                _, last = log.accept(accepted(key if free else ""))
            elif move == "checkpoint":
                await log.checkpoint()
                crashes.append((journal.crashed(), len(script.records)))
            elif state is not None and move == "outcome":
                last = log.append(outcome(state, f"s{number}"))
            elif state is not None:
                last = log.append(finished(state, at=1_000 + number))
            if last is not None and which == 0:
                await last
        await log.flush()
        for journal_then, count in crashes:
            all_of_it = PartitionState(0, ended_max=keys_max)
            for position, record in script.records[:count]:
                all_of_it.apply(position, record)
            then = await opened(journal_then, keys_max=keys_max)
            assert snapshot(then.state) == snapshot(all_of_it)

    in_log(work, checkpoint_size=10**9, carry_after=carry_after, keys_max=keys_max)


# Closing.


def test_closed_it_leaves_a_checkpoint_and_lets_the_journal_go() -> None:
    async def main() -> None:
        journal = ScriptedJournal(Script())
        log = await opened(journal)
        state, _ = log.accept(accepted("k"))
        log.append(finished(state))
        await log.aclose()
        assert journal.script.done == ["write", "save", "trim"]
        with pytest.raises(JournalClosedError):
            log.append(Resumed(1, "ann", 1))
        again = await opened(journal)
        assert again.state.find("Order", "k") == log.state.find("Order", "k")
        await again.aclose()

    run(main())


@pytest.mark.parametrize("at_once", [False, True])
def test_it_may_be_closed_twice(
    caplog: pytest.LogCaptureFixture, at_once: bool
) -> None:
    async def main() -> None:
        script = Script(save_s=5)
        log = await opened(ScriptedJournal(script))

        async def close() -> None:
            await log.aclose()
            assert script.done == ["save", "trim"]

        async with asyncio.TaskGroup() as group:
            first = group.create_task(close())
            if not at_once:
                await first
            group.create_task(close())

    run(main())
    assert caplog.messages == []


def test_closing_waits_for_the_checkpoint_under_way_and_begins_no_other() -> None:
    async def main() -> None:
        script = Script(save_s=50)
        log = await opened(ScriptedJournal(script), checkpoint_size=1_000)
        await log.accept(accepted(size=2_000))[1]
        await asyncio.sleep(1)
        closing = asyncio.get_running_loop().create_task(log.aclose())
        await asyncio.sleep(1)
        log.accept(accepted(size=2_000))
        await until(lambda: script.done.count("save") == 1 and script.saving)
        log.accept(accepted(size=2_000))
        await closing
        assert script.done.count("save") == 2
        assert len(script.records) == 3
        assert log._checkpointing is None

    run(main())


def test_closed_without_a_checkpoint_it_says_why_and_lets_the_journal_go(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        script = Script(save_error=JournalFullError("no space"))
        journal = ScriptedJournal(script)
        log = await opened(journal)
        await log.accept(accepted("k"))[1]
        await log.aclose()
        script.save_error = None
        again = await opened(journal)
        assert snapshot(again.state) == snapshot(log.state)
        await again.aclose()

    with caplog.at_level(logging.WARNING):
        run(main())
    assert caplog.messages == ["closed partition 0 without a checkpoint: no space"]
