"""One call of a user's function: its context, its time-out, its thread, its words."""

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import Any, Never

import pytest
from msgspec import structs
from tests.engine.support import run

from coordinator.calls import TRACEBACK_SIZE_MAX, call, describe
from coordinator.context import StepContext, current_step
from coordinator.errors import CommandBlocked, CommandDelayed, Refused
from coordinator.model import Direction, StepId
from coordinator.threads import Threads

CONTEXT = StepContext("j/0-1/a.b/0", 3, "0-1", StepId("a.b", 0), Direction.DO, 0)
TIMEOUT_S = 10.0


async def called(
    function: Callable[..., Any],
    *args: Any,
    is_async: bool = True,
    timeout_s: float = TIMEOUT_S,
    **kwargs: Any,
) -> Any:
    with Threads(1) as threads:
        return await call(
            function,
            args,
            kwargs,
            is_async=is_async,
            context=lambda: CONTEXT,
            timeout_s=timeout_s,
            threads=threads,
        )


def no_step() -> bool:
    try:
        current_step()
    except RuntimeError:
        return True
    return False


# What comes back.


@pytest.mark.parametrize("seconds", [None, 0, 5])
def test_what_an_async_function_returns_is_returned(seconds: float | None) -> None:
    async def function(*args: int, **kwargs: int) -> object:
        if seconds is not None:
            await asyncio.sleep(seconds)
        return args, kwargs

    assert run(called(function, 1, 2, a=3)) == ((1, 2), {"a": 3})


def test_a_function_may_wait_as_often_as_it_likes() -> None:
    async def function() -> list[str]:
        queue: asyncio.Queue[str] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        found: list[str] = []
        for item in "abc":
            loop.call_later(1, queue.put_nowait, item)
            found.append(await queue.get())
        return found

    assert run(called(function)) == ["a", "b", "c"]


def test_a_plain_function_runs_in_a_thread() -> None:
    """A real thread, and a real loop beside it."""

    def function(amount: int, *, more: int) -> tuple[int, bool]:
        return amount + more, threading.current_thread() is threading.main_thread()

    assert asyncio.run(called(function, 1, more=2, is_async=False)) == (3, False)


def test_a_plain_function_that_gives_an_awaitable_is_awaited_in_the_loop() -> None:
    async def answer() -> str:
        await asyncio.sleep(1)
        return current_step().idempotency_key

    function = functools.partial(lambda: answer())  # noqa: PLW0108 -- a plain one
    assert run(called(function, is_async=False)) == CONTEXT.idempotency_key


# The context.


def test_a_function_knows_the_step_that_it_runs_in_and_nobody_else_does() -> None:
    async def at_once() -> StepContext:
        return current_step()

    async def later() -> StepContext:
        await asyncio.sleep(1)
        return current_step()

    async def main() -> None:
        for function in (at_once, later):
            assert no_step()
            assert await called(function) is CONTEXT
            assert no_step()
        assert await called(current_step, is_async=False) is CONTEXT
        assert no_step()

    run(main())


def test_the_step_is_over_when_the_function_raised() -> None:
    async def function() -> None:
        raise ValueError("a bug")

    async def main() -> None:
        with pytest.raises(ValueError, match="a bug"):
            await called(function)
        assert no_step()

    run(main())


# Time.


def test_without_an_answer_in_time_nobody_knows() -> None:
    ended: list[str] = []

    async def function() -> None:
        try:
            await asyncio.sleep(1e9)
        finally:
            ended.append("cancelled")

    async def main() -> None:
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        with pytest.raises(
            CommandDelayed, match=r"^no answer within 10.0 s$"
        ) as caught:
            await called(function)
        assert loop.time() - began_s == pytest.approx(TIMEOUT_S, abs=0.01)
        assert isinstance(caught.value.__cause__, TimeoutError)

    run(main())
    assert ended == ["cancelled"]


def test_a_plain_function_that_takes_too_long_is_left_to_itself() -> None:
    going_on = threading.Event()

    async def main() -> None:
        with Threads(1) as threads:
            work = call(
                going_on.wait,
                (60,),
                {},
                is_async=False,
                context=lambda: CONTEXT,
                timeout_s=0.01,
                threads=threads,
            )
            with pytest.raises(CommandDelayed, match=r"^no answer within 0.01 s$"):
                await work
            going_on.set()

    asyncio.run(main())


def test_a_plain_function_still_in_its_thread_is_waited_for_not_called_again() -> None:
    going_on = threading.Event()
    calls: list[int] = []

    def slow() -> int:
        calls.append(1)
        assert going_on.wait(60)
        return len(calls)

    async def attempt(threads: Threads, step: str, timeout_s: float) -> Any:
        return await call(
            slow,
            (),
            {},
            is_async=False,
            context=lambda: structs.replace(CONTEXT, idempotency_key=step),
            timeout_s=timeout_s,
            threads=threads,
        )

    async def main() -> None:
        with Threads(2) as threads:
            for _ in range(3):
                with pytest.raises(CommandDelayed, match="no answer within"):
                    await attempt(threads, "one", 0.01)
            assert len(calls) == 1
            with pytest.raises(CommandDelayed, match="no answer within"):
                await attempt(threads, "another", 0.01)
            going_on.set()
            assert await attempt(threads, "one", 60.0) >= 1

    asyncio.run(main())
    assert 2 <= len(calls) <= 3  # the last attempt came in time, or just did not


def test_a_function_that_answers_though_its_time_is_over_has_answered() -> None:
    async def function() -> str:
        try:
            await asyncio.sleep(1e9)
        except asyncio.CancelledError:
            return "done"
        return "never"

    assert run(called(function)) == "done"


def test_a_function_that_fails_when_its_time_is_over_has_failed() -> None:
    async def function() -> None:
        try:
            await asyncio.sleep(1e9)
        except asyncio.CancelledError as error:
            raise Refused("too late") from error

    with pytest.raises(Refused, match="too late"):
        run(called(function))


def test_a_time_out_of_the_functions_own_is_its_own() -> None:
    async def caught() -> str:
        try:
            async with asyncio.timeout(1):
                await asyncio.sleep(100)
        except TimeoutError:
            await asyncio.sleep(1)
            return "went on"
        return "never"

    async def let_out() -> None:
        async with asyncio.timeout(1):
            await asyncio.sleep(100)

    assert run(called(caught)) == "went on"
    with pytest.raises(CommandDelayed, match=r"^TimeoutError$"):
        run(called(let_out))


@pytest.mark.parametrize("wait_s", [None, 1])
@pytest.mark.parametrize("error", [TimeoutError("slow"), ConnectionResetError("gone")])
def test_a_lost_connection_is_something_that_nobody_knows(
    error: Exception, wait_s: float | None
) -> None:
    async def function() -> None:
        if wait_s is not None:
            await asyncio.sleep(wait_s)
        raise error

    with pytest.raises(CommandDelayed) as caught:
        run(called(function))
    assert str(caught.value) == f"{type(error).__name__}: {error}"
    assert caught.value.__cause__ is error


# What is raised.


@pytest.mark.parametrize("wait_s", [None, 1])
@pytest.mark.parametrize("is_async", [True, False])
@pytest.mark.parametrize(
    "error", [Refused("no"), CommandBlocked("a"), ValueError("a bug")]
)
def test_what_a_function_raises_is_raised(
    error: Exception, is_async: bool, wait_s: float | None
) -> None:
    async def asynchronous() -> None:
        if wait_s is not None:
            await asyncio.sleep(wait_s)
        raise error

    def plain() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        run(called(asynchronous if is_async else plain, is_async=is_async))
    assert caught.value is error


@pytest.mark.parametrize("is_async", [True, False])
def test_a_function_that_wants_to_exit_does_not_take_the_process_along(
    is_async: bool,
) -> None:
    async def asynchronous() -> Never:
        raise SystemExit(3)

    def plain() -> Never:
        raise SystemExit(3)

    with pytest.raises(RuntimeError, match=r"the step raised SystemExit\(3\)"):
        run(called(asynchronous if is_async else plain, is_async=is_async))


def test_a_plain_function_that_runs_out_of_items_has_failed() -> None:
    """A StopIteration can't be set on a future: the call would never come back."""

    def function() -> object:
        return next(iter(()))

    for runner in (run, asyncio.run):
        with pytest.raises(RuntimeError, match=r"the step raised StopIteration\(\)"):
            runner(called(function, is_async=False))


# Cancellation.


@pytest.mark.parametrize("is_async", [True, False])
def test_a_cancelled_call_ends_at_once(is_async: bool) -> None:
    ended: list[str] = []

    async def function() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            ended.append("cancelled")

    async def main() -> None:
        task = asyncio.get_running_loop().create_task(
            called(function, is_async=is_async)
        )
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    assert ended == ["cancelled"]


def test_a_call_that_is_thrown_away_closes_the_function() -> None:
    """As a loop does that is closed with tasks left on it."""
    ended: list[str] = []

    async def function() -> None:
        try:
            await asyncio.sleep(5)
        except GeneratorExit:
            ended.append("closed")
            raise

    async def main() -> None:
        work = called(function)
        work.send(None)
        work.close()
        assert no_step()

    run(main())
    assert ended == ["closed"]


# Words.


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (Refused("no stock"), "Refused: no stock"),
        (CommandDelayed(), "CommandDelayed"),
        (CommandBlocked("payments"), "CommandBlocked: service payments is blocked"),
        (TimeoutError(), "TimeoutError"),
        (ConnectionResetError("gone"), "ConnectionResetError: gone"),
    ],
    ids=str,
)
def test_what_a_service_says_is_described_in_a_line(
    error: Exception, text: str
) -> None:
    assert describe(error) == text


def raised(function: Callable[[], Any]) -> BaseException:
    with pytest.raises(BaseException) as caught:  # noqa: PT011 -- whatever it is
        function()
    return caught.value


def test_a_bug_is_described_with_its_traceback() -> None:
    def buggy() -> None:
        raise ZeroDivisionError("division by nought")

    first, *rest = describe(raised(buggy)).splitlines()
    assert first == "ZeroDivisionError: division by nought"
    assert rest[0] == "Traceback (most recent call last):"
    assert rest[-1] == first
    assert any("in buggy" in line for line in rest)
    assert describe(KeyError()).splitlines()[0] == "KeyError"


def test_a_traceback_shows_the_users_frames_and_not_ours() -> None:
    async def buggy() -> None:
        raise ZeroDivisionError

    text = describe(raised(lambda: run(called(buggy))))
    assert "in buggy" in text
    assert "coordinator/calls.py" not in text


def test_a_long_traceback_keeps_its_end() -> None:
    def buggy() -> None:
        raise ValueError("x" * TRACEBACK_SIZE_MAX + "the end")

    text = describe(raised(buggy))
    _, _, lines = text.partition("\n")
    assert len(lines) == TRACEBACK_SIZE_MAX
    assert lines.endswith("the end\n")
