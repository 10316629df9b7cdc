"""One call of a user's function: its context, its time-out, its thread, its waiting."""

import asyncio
import contextvars
import inspect
import os
import traceback
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from concurrent.futures import Executor
from contextlib import suppress
from typing import Any, Generic, Protocol, TypeVar

from coordinator.context import _CURRENT, StepContext
from coordinator.errors import CommandDelayed, Refused
from coordinator.rare import sometimes
from coordinator.threads import Threads
from coordinator.values import storable

__all__ = ["Call", "Lazy", "Reins", "call", "describe", "go_on", "retrieve", "wait_for"]

T = TypeVar("T")

_HERE = __file__.rpartition(os.sep)[0]
_OURS = {_HERE, os.path.join(_HERE, "testing")}  # noqa: PTH118 -- texts, as in frames
"""Folders whose frames a traceback does not show."""
TRACEBACK_SIZE_MAX = 4000
"""Characters of a traceback that are kept, from its end."""


class Call(Protocol):
    """Has one function called as a step; see `call`, which is the one that does it.

    The one place where the engine enters a user's code for a service: what stands here
    instead can have any step refused, lost, or the process killed around it.
    """

    async def __call__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        is_async: bool,
        context: Callable[[], StepContext],
        timeout_s: float,
        threads: Threads,
    ) -> Any:
        """See `call`."""
        ...


async def call(
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    is_async: bool,
    context: Callable[[], StepContext],
    timeout_s: float,
    threads: Threads,
) -> Any:
    """Call *function* as the step of *context*, and return what it returns.

    *context* makes the step's context when the function asks for it. A plain ``def``
    that an earlier attempt of the step left in its thread is waited for instead.

    Cancellation: an ``async def`` is cancelled. A plain ``def`` runs on in its thread,
    and what it returns is lost: nobody knows, as with a call over the network.

    Raises:
        CommandDelayed: No answer within *timeout_s* seconds, or the connection was
            lost.
        RuntimeError: It raised what would stop the loop, or could not leave a thread.
        Exception: Whatever else *function* raises.
    """
    token = _CURRENT.set(context)
    try:
        coroutine: Coroutine[Any, Any, Any] = (
            function(*args, **kwargs)
            if is_async
            else _in_thread(
                threads.of(context().idempotency_key), function, args, kwargs
            )
        )
        # Up to its first wait it runs without a timer, which then costs nothing where
        # nothing is waited for. It runs in the caller's task all the while, so that its
        # own ``asyncio.timeout`` finds the task it expects.
        try:
            waits_for = coroutine.send(None)
        except StopIteration as stop:
            return stop.value
        return await _finish(coroutine, waits_for, timeout_s)
    except (TimeoutError, ConnectionError) as error:
        raise CommandDelayed(describe(error)) from error
    except SystemExit as error:
        # In a task it would end the loop, and everybody else with it.
        raise RuntimeError(f"the step raised {error!r}") from error
    finally:
        _CURRENT.reset(token)


async def _finish(
    coroutine: Coroutine[Any, Any, Any], waits_for: Any, timeout_s: float
) -> Any:
    timer = asyncio.timeout(timeout_s)
    try:
        async with timer:
            return await go_on(coroutine, waits_for)
    except TimeoutError as error:
        if timer.expired():
            raise CommandDelayed(f"no answer within {timeout_s} s") from error
        raise


class Reins:
    """By which a coroutine can be kept from running on."""

    __slots__ = ("cut",)

    def __init__(self) -> None:
        self.cut: BaseException | None = None
        """Why it must not run any more."""


_LOOSE = Reins()


@types.coroutine
def go_on(
    coroutine: "Coroutine[Any, Any, T] | Generator[Any, Any, T]",
    waits_for: Any,
    reins: Reins = _LOOSE,
) -> Generator[Any, Any, T]:
    """Do what ``yield from`` does, with what already waits for something.

    Args:
        coroutine: It gave *waits_for* when it was run last.
        waits_for: For asyncio.
        reins: Looked at each time before it would run again; if they are cut, it is
            closed, and the reason raised.
    """
    try:
        while True:
            try:
                sent = yield waits_for
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:  # noqa: BLE001 -- handed on, not handled
                if reins.cut is not None:
                    break
                waits_for = coroutine.throw(error)
            else:
                if reins.cut is not None:
                    break
                waits_for = coroutine.send(sent)
    except StopIteration as stop:
        result: T = stop.value
        return result
    with suppress(RuntimeError):  # it catches GeneratorExit, too
        coroutine.close()
    sometimes("reins cut")
    raise reins.cut


class Lazy(Generic[T]):
    """What is made when it is awaited, if it is."""

    def __init__(self, make: Callable[[], Generator[Any, Any, T]]) -> None:
        self._make = make

    def __await__(self) -> Generator[Any, Any, T]:
        """Make it, to be gone through."""
        return self._make()


async def wait_for(call: Awaitable[T]) -> T:
    """Return what *call* gives."""
    return await call


def retrieve(future: "asyncio.Future[Any]") -> None:
    """Mark a failure as seen: whoever waited for it may have been cancelled."""
    if not future.cancelled():
        future.exception()


async def _in_thread(
    threads: Executor,
    function: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    context = contextvars.copy_context()

    def run() -> Any:
        try:
            return context.run(function, *args, **kwargs)
        except StopIteration as error:
            # It can't be set on a future: the call would seem to take for ever. An
            # ``async def`` turns it into the same by itself.
            raise RuntimeError(f"the step raised {error!r}") from error

    value: Any = await asyncio.get_running_loop().run_in_executor(threads, run)
    # A plain callable that returns an awaitable is as good as an ``async def``.
    return await value if inspect.isawaitable(value) else value


def describe(error: BaseException) -> str:
    """Return an exception in a line, with its traceback behind it if it is a bug."""
    name = type(error).__name__
    try:
        words = str(error)
    except Exception as unsaid:  # noqa: BLE001 -- user code: anything may come
        words = f"(its text can't be had: {type(unsaid).__name__})"
    text = storable(f"{name}: {words}" if words else name)
    if isinstance(error, CommandDelayed | Refused | TimeoutError | ConnectionError):
        return text
    report = traceback.TracebackException.from_exception(error)
    # Our own frames say nothing about the user's bug.
    report.stack = traceback.StackSummary.from_list(
        [f for f in report.stack if f.filename.rpartition(os.sep)[0] not in _OURS]
    )
    lines = storable("".join(report.format()))
    return f"{text}\n{lines[-TRACEBACK_SIZE_MAX:]}"
