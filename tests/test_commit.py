"""Group commit, over a partition that does as the test says, in virtual time."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import Context, ContextVar
from dataclasses import dataclass, field
from typing import Any

import pytest
from tests.engine.support import run, until

from coordinator.batch import Batch
from coordinator.commit import (
    FULL_RETRY_S,
    GROUP_RECORDS_MAX,
    GROUP_SIZE_MAX,
    Durable,
    GroupCommit,
)
from coordinator.errors import (
    EncodeError,
    FencedError,
    JournalBrokenError,
    JournalClosedError,
    JournalError,
    JournalFullError,
    UncertainError,
)
from coordinator.model import Position
from coordinator.records import RECORD_SIZE_MAX, Resumed, encode_record
from coordinator.testing.loop import SimulatedLoop

FIRST = Position(41)
"""Where the partition ends when it is opened."""


@dataclass
class Disk:
    """A partition whose writes take as long, and fail, as the test says."""

    number: int = 0
    epoch: int = 3
    end: Position = FIRST
    crc: int = 0
    full: str = ""
    write_s: float = 1.0
    failures: list[Exception | None] = field(default_factory=list[Exception | None])
    """For each write from the first: what it raises; None or nothing: it lands."""
    batches: list[Batch] = field(default_factory=list[Batch])
    """What landed."""
    tries: int = 0
    writing: int = 0
    closed: bool = False

    def watch(self, on_death: Callable[[JournalError], None]) -> None:
        """Nothing happens in the background here."""

    async def write(self, batch: Batch) -> None:
        assert self.writing == 0, "one write at a time"
        assert (batch.epoch, batch.first) == (self.epoch, self.end)
        assert batch.previous_crc == self.crc
        self.writing += 1
        self.tries += 1
        failure = self.failures.pop(0) if self.failures else None
        await asyncio.sleep(self.write_s)
        self.writing -= 1
        if failure is not None:
            raise failure
        self.end, self.crc = batch.end, batch.crc
        self.batches.append(batch)

    def read(self, since: Position) -> AsyncIterator[Batch]:
        raise NotImplementedError

    async def save_checkpoint(self, low: Position, data: bytes) -> None:
        raise NotImplementedError

    async def load_checkpoint(self) -> bytes | None:
        raise NotImplementedError

    async def trim(self, before: Position) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed = True

    @property
    def sizes(self) -> list[int]:
        """How many records each batch holds."""
        return [batch.count for batch in self.batches]

    @property
    def names(self) -> list[str]:
        """The records that landed, by what `record` called them."""
        return [
            item.by
            for batch in self.batches
            for _, item in batch.records()
            if isinstance(item, Resumed)
        ]


def record(name: str = "", *, size: int = 0) -> Resumed:
    """Return a record that says *name*, about *size* bytes large."""
    return Resumed(0, name or "x" * size, 1)


def never(error: JournalError) -> None:
    raise AssertionError(f"the partition is not dead: {error!r}")


def opened(
    disk: Disk, on_failure: Callable[[JournalError], None] = never
) -> GroupCommit:
    return GroupCommit(disk, on_failure)


def letters() -> Iterator[str]:
    return iter("abcdefghijklmnopqrstuvwxyz")


# Groups.


def test_a_group_is_no_larger_than_was_decided() -> None:
    assert (GROUP_SIZE_MAX, GROUP_RECORDS_MAX) == (2**20, 1000)


def test_what_is_appended_in_one_turn_becomes_one_batch_with_one_future() -> None:
    async def main() -> None:
        disk = Disk()
        commit = opened(disk)
        futures = {commit.append(record(name)) for name in "abc"}
        assert len(futures) == 1
        assert not futures.pop().done()
        await commit.flush()
        assert disk.sizes == [3]
        assert disk.names == ["a", "b", "c"]

    run(main())


def test_a_record_is_numbered_when_it_is_appended_and_lies_there_in_the_end() -> None:
    async def main() -> None:
        disk = Disk()
        commit = opened(disk)
        assert commit.next == FIRST
        places: dict[int, str] = {}
        for name in letters():
            places[commit.next] = name
            commit.append(record(name))
            await asyncio.sleep(0.3)
        await commit.flush()
        assert commit.next == disk.end == FIRST + 26
        found = [item for batch in disk.batches for item in batch.records()]
        assert {
            place: item.by for place, item in found if isinstance(item, Resumed)
        } == (places)

    run(main())


def test_what_is_appended_while_a_batch_is_written_becomes_the_next_one() -> None:
    async def main() -> None:
        disk = Disk(write_s=1.0)
        commit = opened(disk)
        first = commit.append(record("a"))
        await until(lambda: disk.writing)
        second = commit.append(record("b"))
        assert commit.append(record("c")) is second
        assert second is not first
        await first
        assert not second.done()
        await second
        assert disk.sizes == [1, 2]

    run(main())


def test_those_who_were_waiting_append_into_one_group() -> None:
    """They wake in the turn after the write; the next one waits for that turn."""

    async def main() -> None:
        disk = Disk()
        commit = opened(disk)

        async def two_steps(name: str) -> None:
            await commit.append(record(name))
            await commit.append(record(name.upper()))

        async with asyncio.TaskGroup() as tasks:
            for name in "abc":
                tasks.create_task(two_steps(name))
            await until(lambda: disk.writing)
            commit.append(record("meanwhile"))
        assert disk.sizes == [3, 4]

    run(main())


def test_a_group_is_closed_when_it_holds_as_many_records_as_it_may() -> None:
    async def main() -> None:
        disk = Disk()
        commit = opened(disk)
        futures = [commit.append(record("a")) for _ in range(2 * GROUP_RECORDS_MAX + 1)]
        assert len(set(futures)) == 3
        await commit.flush()
        assert disk.sizes == [GROUP_RECORDS_MAX, GROUP_RECORDS_MAX, 1]

    run(main())


def test_a_group_is_closed_before_it_gets_larger_than_it_may() -> None:
    async def main() -> None:
        disk = Disk()
        commit = opened(disk)
        for _ in range(5):
            commit.append(record(size=GROUP_SIZE_MAX // 2 - 100))
        await commit.flush()
        assert disk.sizes == [2, 2, 1]
        assert commit.size == pytest.approx(5 * GROUP_SIZE_MAX // 2, rel=0.01)

    run(main())


def test_a_group_may_be_exactly_as_large_as_it_may_be() -> None:
    async def main() -> None:
        disk = Disk()
        commit = opened(disk)
        commit.append(record("a"))
        around = len(encode_record(record(size=100_000))) - 100_000
        commit.append(record(size=GROUP_SIZE_MAX - commit.size - around))
        assert commit.size == GROUP_SIZE_MAX
        commit.append(record("b"))
        await commit.flush()
        assert disk.sizes == [2, 1]

    run(main())


def test_a_larger_record_is_a_group_of_its_own() -> None:
    async def main() -> None:
        disk = Disk()
        commit = opened(disk)
        commit.append(record("a"))
        commit.append(record(size=3 * GROUP_SIZE_MAX))
        commit.append(record("b"))
        await commit.flush()
        assert disk.sizes == [1, 1, 1]

    run(main())


def test_groups_become_durable_in_the_order_in_which_they_were_appended() -> None:
    async def main() -> None:
        disk = Disk()
        commit = opened(disk)
        done: list[str] = []

        async def wait_for(name: str) -> None:
            await commit.append(record(name))
            done.append(name)

        async with asyncio.TaskGroup() as tasks:
            for name in letters():
                tasks.create_task(wait_for(name))
                await asyncio.sleep(0.4)
        assert "".join(done) == "".join(disk.names) == "".join(letters())
        assert max(disk.sizes) > 1

    run(main())


def test_a_record_that_is_too_large_is_refused_and_hurts_nobody_else() -> None:
    async def main() -> None:
        disk = Disk()
        commit = opened(disk)
        commit.append(record("a"))
        with pytest.raises(EncodeError, match="can't be stored"):
            commit.append(record(size=RECORD_SIZE_MAX))
        commit.append(record("b"))
        assert commit.next == FIRST + 2
        await commit.flush()
        assert disk.names == ["a", "b"]

    run(main())


# Flushing and closing.


def test_nothing_to_flush_is_flushed_at_once() -> None:
    async def main() -> None:
        disk = Disk()
        await opened(disk).flush()
        assert disk.tries == 0

    run(main())


def test_a_flush_waits_for_what_is_being_written() -> None:
    async def main() -> None:
        disk = Disk()
        commit = opened(disk)
        commit.append(record("a"))
        await until(lambda: disk.writing)
        await commit.flush()
        assert disk.names == ["a"]

    run(main())


def test_a_flush_waits_for_the_last_of_several_groups() -> None:
    async def main() -> None:
        disk = Disk()
        commit = opened(disk)
        for _ in range(2 * GROUP_RECORDS_MAX):
            commit.append(record("a"))
        await commit.flush()
        assert disk.sizes == [GROUP_RECORDS_MAX, GROUP_RECORDS_MAX]

    run(main())


def test_a_flush_does_not_wait_for_what_is_appended_after_it() -> None:
    """Else a coordinator that is never idle would never take a checkpoint."""

    async def main() -> None:
        disk = Disk(write_s=1.0)
        commit = opened(disk)
        loop = asyncio.get_running_loop()

        async def append_for_ever() -> None:
            while True:
                await commit.append(record("more"))

        more = loop.create_task(append_for_ever())
        await until(lambda: disk.writing)
        began_s = loop.time()
        await commit.flush()
        assert loop.time() - began_s <= 1.0
        more.cancel()
        await asyncio.wait({more})
        assert more.cancelled()

    run(main())


def test_closed_it_has_written_everything_and_refuses_more() -> None:
    async def main() -> None:
        disk = Disk()
        commit = opened(disk)
        durable = commit.append(record("a"))
        await commit.aclose()
        assert durable.done()
        assert disk.names == ["a"]
        with pytest.raises(JournalClosedError, match="was closed"):
            commit.append(record("b"))
        with pytest.raises(JournalClosedError):
            await commit.flush()
        assert commit.next == FIRST + 1
        assert not disk.closed

    run(main())


def test_what_is_appended_while_it_is_being_closed_is_still_written() -> None:
    async def main() -> None:
        disk = Disk()
        commit = opened(disk)
        commit.append(record("a"))
        closing = asyncio.get_running_loop().create_task(commit.aclose())
        await until(lambda: disk.writing)
        late = commit.append(record("b"))
        await closing
        assert late.done()
        assert disk.names == ["a", "b"]

    run(main())


def test_it_may_be_closed_twice() -> None:
    async def main() -> None:
        commit = opened(Disk())
        await commit.aclose()
        await commit.aclose()

    run(main())


# Failing.

DEATHS: list[JournalError] = [
    FencedError("somebody newer"),
    UncertainError("nobody knows"),
    JournalBrokenError("flush failed"),
]


@pytest.mark.parametrize("death", DEATHS, ids=lambda error: type(error).__name__)
def test_a_failed_write_fails_all_that_wait_with_the_same_error(
    death: JournalError,
) -> None:
    async def main() -> None:
        disk = Disk(failures=[death])
        failures: list[JournalError] = []
        commit = opened(disk, failures.append)
        waiting = [commit.append(record("a"))]
        await until(lambda: disk.writing)
        # One that is closed, one that is open.
        waiting += [commit.append(record("b")) for _ in range(GROUP_RECORDS_MAX + 1)]
        assert len(set(waiting)) == 3
        for durable in waiting:
            with pytest.raises(JournalError) as caught:
                await durable
            assert caught.value is death
        assert failures == [death]
        assert (disk.tries, disk.batches) == (1, [])

    run(main())


def test_a_failure_that_nobody_waits_for_is_not_said_to_be_lost() -> None:
    async def main() -> None:
        failures: list[JournalError] = []
        commit = opened(Disk(failures=[DEATHS[0]]), failures.append)
        commit.append(record("a"))
        await until(lambda: failures)
        gc.collect()
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimulatedLoop)
        assert loop.problems == []

    run(main())


def test_once_dead_it_takes_and_flushes_nothing_more() -> None:
    async def main() -> None:
        disk = Disk(failures=[DEATHS[0]])
        failures: list[JournalError] = []
        commit = opened(disk, failures.append)
        commit.append(record("a"))
        with pytest.raises(FencedError):
            await commit.flush()
        place, size = commit.next, commit.size
        with pytest.raises(FencedError):
            commit.append(record("b"))
        with pytest.raises(FencedError):
            await commit.flush()
        assert (commit.next, commit.size) == (place, size)
        await commit.aclose()
        await asyncio.sleep(10)
        assert failures == [DEATHS[0]]
        assert disk.tries == 1

    run(main())


def test_it_may_die_while_it_is_closed() -> None:
    async def main() -> None:
        failures: list[JournalError] = []
        commit = opened(Disk(failures=[DEATHS[1]]), failures.append)
        commit.append(record("a"))
        await commit.aclose()
        assert failures == [DEATHS[1]]
        with pytest.raises(UncertainError):
            commit.append(record("b"))

    run(main())


def test_a_flush_of_what_is_being_written_fails_with_it() -> None:
    async def main() -> None:
        disk = Disk(failures=[DEATHS[0]])
        commit = opened(disk, lambda _: None)
        commit.append(record("a"))
        await until(lambda: disk.writing)
        with pytest.raises(FencedError):
            await commit.flush()

    run(main())


def test_a_bug_in_a_backend_is_a_broken_journal() -> None:
    async def main() -> None:
        bug = ZeroDivisionError("division by zero")
        failures: list[JournalError] = []
        commit = opened(Disk(failures=[bug]), failures.append)
        with pytest.raises(JournalBrokenError, match="ZeroDivisionError") as caught:
            await commit.append(record("a"))
        assert caught.value.__cause__ is bug
        assert failures == [caught.value]

    run(main())


# No space.


def test_on_a_full_disk_the_same_batch_is_tried_until_there_is_space() -> None:
    async def main() -> None:
        disk = Disk(write_s=0, failures=[JournalFullError("no space")] * 5)
        commit = opened(disk)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        first = commit.append(record("a"))
        await until(lambda: disk.tries)
        second = commit.append(record("b"))
        await first
        assert loop.time() - began_s == pytest.approx(5 * FULL_RETRY_S, abs=0.1)
        await second
        assert disk.names == ["a", "b"]
        assert disk.tries == 7

    run(main())


def test_who_no_longer_waits_for_space_is_told_that_nothing_was_written() -> None:
    async def main() -> None:
        disk = Disk(failures=[JournalFullError("no space")] * 1000)
        commit = opened(disk)  # the journal is not dead: nobody is told
        first = commit.append(record("a"))
        await until(lambda: disk.tries > 1)
        second = commit.append(record("b"))
        commit.stop_waiting()
        for durable in (first, second):
            with pytest.raises(JournalClosedError, match="no space") as caught:
                await durable
            assert isinstance(caught.value.__cause__, JournalFullError)
        with pytest.raises(JournalClosedError):
            commit.append(record("c"))
        await commit.aclose()

    run(main())


def test_where_there_is_space_nobody_notices_that_none_is_waited_for() -> None:
    async def main() -> None:
        disk = Disk()
        commit = opened(disk)
        commit.append(record("a"))
        commit.stop_waiting()
        await commit.flush()
        await commit.append(record("b"))
        assert disk.names == ["a", "b"]

    run(main())


# Cancellation.


def test_a_future_that_is_shared_can_not_be_cancelled() -> None:
    async def main() -> None:
        commit = opened(Disk())
        durable = commit.append(record("a"))
        assert not durable.cancel()
        assert not durable.cancel("because")
        assert isinstance(durable, Durable)
        await durable

    run(main())


def test_a_waiter_that_is_cancelled_hears_of_it_when_its_record_is_durable() -> None:
    async def main() -> None:
        disk = Disk(write_s=5)
        commit = opened(disk)
        loop = asyncio.get_running_loop()
        went_on: list[str] = []

        async def wait_for(name: str) -> None:
            await commit.append(record(name))
            went_on.append(name)

        cancelled = loop.create_task(wait_for("cancelled"))
        other = loop.create_task(wait_for("other"))
        await until(lambda: disk.writing)
        cancelled.cancel()
        await asyncio.sleep(1)
        assert not cancelled.done()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert disk.names == ["cancelled", "other"]
        await other
        assert went_on == ["other"]

    run(main())


def test_a_time_out_around_a_flush_takes_nothing_from_the_others() -> None:
    async def main() -> None:
        disk = Disk(write_s=5)
        commit = opened(disk)
        durable = commit.append(record("a"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await commit.flush()
        await durable
        assert disk.names == ["a"]

    run(main())


def test_all_of_asyncio_may_wait_for_a_group_and_none_takes_it_from_the_others() -> (
    None
):
    async def main() -> None:
        disk = Disk(write_s=5)
        commit = opened(disk)
        loop = asyncio.get_running_loop()
        durable: Any = commit.append(record("a"))
        assert asyncio.isfuture(durable)
        assert not durable.cancelled()

        async def wrapped() -> None:
            await asyncio.shield(durable)

        async def together() -> None:
            await asyncio.gather(durable, durable)  # noqa: TID251 -- as users may

        async def impatient() -> None:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(asyncio.shield(durable), 1)  # noqa: TID251
            assert not durable.done()

        async def first() -> None:
            done, _ = await asyncio.wait({durable}, timeout=1)
            assert done == set()
            done, _ = await asyncio.wait({durable})
            assert done == {durable}

        tasks = [
            loop.create_task(work())
            for work in (wrapped, together, impatient, first, wrapped)
        ]
        await asyncio.sleep(2)
        tasks[-1].cancel()
        await durable
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert [task.done() for task in tasks] == [True] * 5
        assert [task.cancelled() for task in tasks] == [False] * 4 + [True]
        assert durable.exception() is None
        assert durable.get_loop() is loop

    run(main())


def test_who_is_cancelled_in_a_wait_for_hears_of_it_when_the_group_is_durable() -> None:
    async def main() -> None:
        disk = Disk(write_s=5)
        commit = opened(disk)
        loop = asyncio.get_running_loop()
        durable: Any = commit.append(record("a"))

        async def wait() -> None:
            with contextlib.suppress(TimeoutError):  # Python 3.11 raises none
                await asyncio.wait_for(durable, 1)  # noqa: TID251 -- as users may

        began_s = loop.time()
        waiting = loop.create_task(wait())
        await asyncio.wait({waiting})
        assert loop.time() - began_s >= 5
        assert durable.done()
        assert disk.names == ["a"]

    run(main())


def test_who_comes_late_to_a_group_that_is_done_waits_for_nothing() -> None:
    async def main() -> None:
        durable: Any = opened(Disk()).append(record("a"))
        await durable
        await durable
        assert await asyncio.wait({durable}) == ({durable}, set())
        told: list[Durable] = []
        durable.add_done_callback(told.append)
        assert told == []
        await asyncio.sleep(0)
        assert told == [durable]

    run(main())


def test_a_callback_runs_in_its_own_context_and_may_be_taken_back() -> None:
    name: ContextVar[str] = ContextVar("name", default="none")

    async def main() -> None:
        durable = opened(Disk()).append(record("a"))
        told: list[str] = []

        def tell(_: object) -> None:
            told.append(name.get())

        def never(_: object) -> None:
            raise AssertionError

        name.set("ours")
        durable.add_done_callback(never)
        durable.add_done_callback(tell)
        durable.add_done_callback(tell, context=Context())
        durable.add_done_callback(never)
        assert durable.remove_done_callback(never) == 2
        assert durable.remove_done_callback(never) == 0
        name.set("others")
        await durable
        assert told == ["ours", "none"]

    run(main())


def test_a_waiter_that_ends_the_process_does_not_take_the_others_along() -> None:
    """An orderly end awaits those: they would wait for ever."""
    told: list[str] = []

    def exit_(_: object) -> None:
        raise SystemExit(3)

    loop = asyncio.new_event_loop()
    try:
        durable = Durable(loop)
        durable.add_done_callback(lambda _: told.append("first"))
        durable.add_done_callback(exit_)
        durable.add_done_callback(lambda _: told.append("last"))
        durable.finish()
        with pytest.raises(SystemExit):
            loop.run_forever()
        assert told == ["first"]
        loop.call_soon(loop.stop)
        loop.run_forever()
        assert told == ["first", "last"]
    finally:
        loop.close()


@pytest.mark.parametrize("groups", [1, 3])
def test_a_writer_that_is_cancelled_ends_all_who_wait(groups: int) -> None:
    """By a program that ends its loop without closing us."""

    async def main() -> None:
        disk = Disk(write_s=5)
        failures: list[JournalError] = []
        commit = opened(disk, failures.append)
        loop = asyncio.get_running_loop()
        before = asyncio.all_tasks()
        waiting = [
            commit.append(record("a"))
            for _ in range((groups - 1) * GROUP_RECORDS_MAX + 1)
        ]
        (writer,) = asyncio.all_tasks() - before
        await until(lambda: disk.writing)

        async def wait(durable: Durable) -> None:
            await durable

        tasks = [loop.create_task(wait(durable)) for durable in set(waiting)]
        assert len(tasks) == groups
        await asyncio.sleep(0)
        writer.cancel()
        await asyncio.wait(tasks)
        for task in tasks:
            assert isinstance(task.exception(), UncertainError)
            assert "ended in CancelledError" in str(task.exception())
        assert len(failures) == 1
        with pytest.raises(UncertainError):
            commit.append(record("b"))
        await asyncio.wait({writer})
        assert writer.cancelled()

    run(main())
