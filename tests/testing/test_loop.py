"""The simulated loop keeps asyncio's promises, and no others."""

import asyncio
import concurrent.futures
import contextlib
import gc
import random
from collections.abc import Coroutine, Generator
from typing import Any

import pytest

from coordinator.testing.loop import (
    DeadError,
    DeadlockError,
    Life,
    LivelockError,
    SimulatedLoop,
)


@contextlib.contextmanager
def simulated(seed: int = 0, **options: Any) -> Generator[SimulatedLoop]:
    loop = SimulatedLoop(random.Random(seed), Life(0), **options)
    try:
        yield loop
    finally:
        loop.bury()


def run(work: Coroutine[Any, Any, Any], seed: int = 0, **options: Any) -> Any:
    with simulated(seed, **options) as loop:
        return loop.run_until_complete(work)


def test_time_jumps_to_the_next_timer() -> None:
    async def sleep_long() -> float:
        await asyncio.sleep(86_400)
        return asyncio.get_running_loop().time()

    assert run(sleep_long()) == pytest.approx(86_400, abs=0.01)


def test_plain_callbacks_keep_their_order() -> None:
    async def call() -> list[int]:
        seen: list[int] = []
        loop = asyncio.get_running_loop()
        for number in range(50):
            loop.call_soon(seen.append, number)
        await asyncio.sleep(1)
        return seen

    assert all(run(call(), seed) == list(range(50)) for seed in range(5))


async def wake_ten() -> tuple[int, ...]:
    seen: list[int] = []
    event = asyncio.Event()

    async def wait(number: int) -> None:
        await event.wait()
        seen.append(number)

    async with asyncio.TaskGroup() as group:
        for number in range(10):
            group.create_task(wait(number))
        await asyncio.sleep(1)
        event.set()
    return tuple(seen)


def test_tasks_that_wake_together_run_in_an_order_of_the_seed() -> None:
    orders = [run(wake_ten(), seed) for seed in range(20)]
    assert len(set(orders)) == 20
    assert orders == [run(wake_ten(), seed) for seed in range(20)]
    assert run(wake_ten(), shuffled=False) == tuple(range(10))


def test_a_done_callback_runs_before_the_task_that_waits_behind_it() -> None:
    async def wait() -> list[str]:
        seen: list[str] = []
        future = asyncio.get_running_loop().create_future()
        future.add_done_callback(lambda _: seen.append("callback"))

        async def waiter() -> None:
            await future
            seen.append("task")

        async def noise() -> None:
            await asyncio.sleep(0.5)

        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(waiter())
            for _ in range(3):
                group.create_task(noise())
            await asyncio.sleep(0.5)
            future.set_result(None)
        return seen

    assert all(run(wait(), seed)[0] == "callback" for seed in range(50))


def test_timers_due_together_run_in_an_order_of_the_seed() -> None:
    async def fire() -> tuple[int, ...]:
        seen: list[int] = []
        loop = asyncio.get_running_loop()
        for number in range(10):
            loop.call_at(5.0, seen.append, number)
        await asyncio.sleep(6)
        return tuple(seen)

    assert len({run(fire(), seed) for seed in range(20)}) == 20


async def three_jobs(executor: concurrent.futures.Executor | None) -> list[int]:
    seen: list[int] = []
    loop = asyncio.get_running_loop()
    await asyncio.wait(
        [loop.run_in_executor(executor, seen.append, number) for number in range(5)]
    )
    return seen


def test_jobs_overtake_one_another_unless_one_thread_does_them() -> None:
    def drawn(seed: int) -> list[int]:
        chance = random.Random(seed)
        return run(three_jobs(None), seed, latency=chance.random)  # type: ignore[no-any-return]

    assert len({tuple(drawn(seed)) for seed in range(20)}) > 10
    single = concurrent.futures.ThreadPoolExecutor(max_workers=1)
    for seed in range(20):
        latency = random.Random(seed).random
        assert run(three_jobs(single), seed, latency=latency) == [0, 1, 2, 3, 4]


def test_a_job_raises_where_it_is_awaited() -> None:
    def fail() -> None:
        raise OSError(5, "broken")

    async def call() -> None:
        await asyncio.get_running_loop().run_in_executor(None, fail)

    with pytest.raises(OSError, match="broken"):
        run(call())


def test_a_job_cancelled_before_it_starts_never_runs() -> None:
    async def call() -> list[int]:
        seen: list[int] = []
        job = asyncio.get_running_loop().run_in_executor(None, seen.append, 1)
        job.cancel()
        await asyncio.sleep(1)
        return seen

    assert run(call()) == []


def test_a_deadlock_and_a_livelock_are_told() -> None:
    async def wait_for_nothing() -> None:
        await asyncio.get_running_loop().create_future()

    async def spin() -> None:
        while True:  # noqa: ASYNC110 -- what a livelock is
            await asyncio.sleep(0)

    with pytest.raises(DeadlockError):
        run(wait_for_nothing())
    with pytest.raises(LivelockError):
        run(spin(), steps_max=1000)


def test_a_crash_stops_everything_between_two_callbacks() -> None:
    seen: list[str] = []

    async def program(life: Life) -> None:
        async def stubborn() -> None:
            try:
                await asyncio.sleep(100)
                seen.append("slept")
            finally:
                life_over = not life.alive
                seen.append(f"finally, dead: {life_over}")
                await asyncio.sleep(1)
                seen.append("never")

        async def deaf() -> None:
            while True:
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    seen.append("never")

        async with asyncio.TaskGroup() as group:
            group.create_task(stubborn())
            group.create_task(deaf())
            await asyncio.sleep(10)
            group.create_task(deaf())  # never started: no "never awaited" either
            life.end("crash")
            await asyncio.sleep(0)
            seen.append("never")

    with simulated() as loop, pytest.raises(DeadError):
        loop.run_until_complete(program(loop.life))
    assert seen == ["finally, dead: True"]


@pytest.mark.parametrize("step", [1, 2, 3, 7, 20])
def test_a_crash_at_any_step_is_quiet(step: int) -> None:
    with simulated() as loop:
        loop.dies_at_step = step
        with pytest.raises(DeadError):
            loop.run_until_complete(wake_ten())


def test_a_crash_at_a_time() -> None:
    with simulated() as loop:
        loop.die_at(3.0)
        with pytest.raises(DeadError):
            loop.run_until_complete(asyncio.sleep(10))
        assert loop.time() == pytest.approx(3.0)


def test_a_crash_in_a_job_gives_no_result() -> None:
    async def program(life: Life) -> None:
        def job() -> None:
            life.end("crash in a job")
            life.check()

        try:
            await asyncio.get_running_loop().run_in_executor(None, job)
        finally:
            assert not life.alive

    with simulated() as loop, pytest.raises(DeadError):
        loop.run_until_complete(program(loop.life))


def test_what_nobody_awaits_is_kept_as_a_problem() -> None:
    async def program() -> None:
        async def fail() -> None:
            raise ValueError("lost")

        task = asyncio.get_running_loop().create_task(fail())
        await asyncio.sleep(1)
        del task

    with simulated() as loop:
        loop.run_until_complete(program())
        gc.collect()  # since 3.12 the exception and its task hold one another
        assert loop.problems == [
            "Task exception was never retrieved: ValueError('lost')"
        ]
