import asyncio

import pytest

from coordinator.context import StepContext, current_step, in_a_step, in_step
from coordinator.model import Direction, StepId


def context_of(key: str) -> StepContext:
    return StepContext(key, 3, "0-1", StepId("payments.charge", 0), Direction.DO, 0)


def test_outside_of_a_step_there_is_no_context_and_the_error_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match=r"workflow\.step"):
        current_step()


def test_the_context_ends_with_the_block() -> None:
    with in_step(context_of("outer")):
        with in_step(context_of("inner")):
            assert current_step().idempotency_key == "inner"
        assert current_step().idempotency_key == "outer"
    with pytest.raises(RuntimeError):
        current_step()


def test_concurrent_tasks_and_their_threads_see_their_own_step() -> None:
    async def step(key: str) -> str:
        with in_step(context_of(key)):
            await asyncio.sleep(0)
            return await asyncio.to_thread(lambda: current_step().idempotency_key)

    async def main() -> list[str]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(step(key)) for key in ("a", "b")]
        return [task.result() for task in tasks]

    assert asyncio.run(main()) == ["a", "b"]


def test_whether_a_step_runs_here_can_be_asked_without_an_error() -> None:
    assert not in_a_step()
    with in_step(context_of("one")):
        assert in_a_step()
    assert not in_a_step()
