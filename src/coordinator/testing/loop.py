"""An event loop without a clock, without threads and without luck: a seed decides.

Time is virtual: it jumps to the next timer while every task waits, and creeps by
`TURN_S` per turn otherwise. What is unordered on a real loop is ordered by the seed.

**What is permuted.** asyncio documents that callbacks run in the order in which
`call_soon` got them, and its own futures lean on that: a done callback runs before the
callbacks registered behind it. So plain callbacks are never moved. These are:

* Timers due at the same instant: the heap of a real loop promises no order for them.
* Jobs of an executor: each starts after a drawn delay, runs at one instant, and its
  result comes back after another. Jobs of one single-threaded executor keep their
  order and never overlap; all others overtake one another.
* Wake-ups of *tasks* that became ready in one turn, as far as no plain callback lies
  between them. No primitive of asyncio promises more than its own fairness across
  tasks; eager tasks (3.12) change this order too, and trio draws it on purpose.

**Crashes.** A `Life` is what the process under test has. When it is over the loop
raises `DeadError` out of `run_until_complete`, between two callbacks; `bury` then
closes what is left, quietly: the disk and the services take nothing from a dead life,
so a `finally` that still runs changes nothing that the next life could see.
"""

import asyncio
import collections
import contextlib
import gc
import heapq
import itertools
import random
import sys
import warnings
import weakref
from collections.abc import Callable, Generator
from concurrent.futures import Executor
from contextvars import Context
from typing import Any, TypeVar, TypeVarTuple

__all__ = [
    "TURN_S",
    "DeadError",
    "DeadlockError",
    "Life",
    "LivelockError",
    "SimulatedLoop",
]

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

TURN_S = 1e-6
"""Virtual seconds that a turn of the loop takes: a task that only yields gets older."""


class DeadError(BaseException):
    """The process under test is dead; nothing it does has an effect any more.

    Not an `Exception`: what the program catches broadly must not keep it alive.
    """


class DeadlockError(Exception):
    """Every task waits, and nothing will ever wake one."""


class LivelockError(Exception):
    """The loop made more steps than any program of this size needs."""


class Life:
    """One life of the process under test, and what ended it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.cause = ""

    @property
    def alive(self) -> bool:
        """Whether it goes on."""
        return not self.cause

    def end(self, cause: str) -> None:
        """Die of *cause*; whoever runs now notices at the next `check`."""
        assert cause
        self.cause = self.cause or cause

    def check(self) -> None:
        """Let nothing through after the end.

        Raises:
            DeadError: The life is over.
        """
        if self.cause:
            raise DeadError(self.cause)


class SimulatedLoop(asyncio.BaseEventLoop):
    """A loop whose time and order come from *chance*.

    Args:
        chance: Draws every order; nothing else may draw from it.
        life: Ends the loop when it ends.
        now_s: Where virtual time starts.
        latency: Draws the seconds until an executor's job starts, and then until its
            result is back.
        shuffled: Whether the wake-ups of tasks are permuted. Some seeds shouldn't: an
            order that is always mixed never shows what needs a long regular run.
        steps_max: Steps after which the program is held to be in a livelock.
    """

    _ready: collections.deque[asyncio.Handle]
    _stopping: bool
    _closed: bool

    def __init__(
        self,
        chance: random.Random,
        life: Life,
        *,
        now_s: float = 0.0,
        latency: Callable[[], float] = lambda: 1e-4,
        shuffled: bool = True,
        steps_max: int = 300_000,
    ) -> None:
        super().__init__()
        self.life = life
        self.steps = 0
        self.dies_at_step: int | None = None
        self.calls_at_step: dict[int, Callable[[], object]] = {}
        """What comes from outside, a signal for one, before which step."""
        self.collects_at_step: Callable[[], bool] | None = None
        self.problems: list[str] = []
        """What tasks and callbacks left to the loop's exception handler."""
        self._chance = chance
        self._now_s = now_s
        self._latency = latency
        self._shuffled = shuffled
        self._steps_max = steps_max
        self._timers: list[tuple[float, float, int, asyncio.TimerHandle]] = []
        self._numbers = itertools.count()
        self._executors_busy_until: weakref.WeakKeyDictionary[Executor, float] = (
            weakref.WeakKeyDictionary()
        )
        self.set_exception_handler(_keep_problem)
        self.set_task_factory(_number_tasks())

    def time(self) -> float:
        """Return virtual seconds."""
        return self._now_s

    # The loop proper.

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.TimerHandle:
        """Call *callback* at *when*, in a drawn order among those due together."""
        self._check_closed()
        timer = asyncio.TimerHandle(when, callback, args, self, context)
        entry = (when, self._chance.random(), next(self._numbers), timer)
        heapq.heappush(self._timers, entry)
        return timer

    def _run_once(self) -> None:
        """Run one turn: what is ready now, not what that makes ready."""
        self._pass_time()
        ready = self._ready
        if self._shuffled and len(ready) > 1:
            self._shuffle_tasks()
        for _ in range(len(ready)):
            handle = ready.popleft()
            if handle.cancelled():
                continue
            self.steps += 1
            if self.steps == self.dies_at_step:
                self.life.end(f"crash at step {self.steps} of the loop")
            if self.steps in self.calls_at_step:
                self.calls_at_step[self.steps]()
            if not self.life.alive:
                ready.appendleft(handle)  # `bury` needs its task, which is held weakly
            self.life.check()
            if self.collects_at_step is not None and self.collects_at_step():
                gc.collect(1)
            handle._run()  # noqa: SLF001 -- as the loop we extend does
            self.life.check()
        if self.steps > self._steps_max:
            raise LivelockError(f"{self.steps} steps, and no end")

    def _pass_time(self) -> None:
        """Move on to the next moment at which something happens, and make it ready."""
        timers = self._timers
        while timers and timers[0][3].cancelled():
            heapq.heappop(timers)
        if self._ready or self._stopping:
            self._now_s += TURN_S
        elif timers:
            self._now_s = max(self._now_s, timers[0][0])
        else:
            raise DeadlockError("every task waits, and no timer is set")
        while timers and timers[0][0] <= self._now_s:
            self._ready.append(heapq.heappop(timers)[3])

    def _shuffle_tasks(self) -> None:
        """Permute neighbouring wake-ups of tasks; leave every plain callback alone."""
        handles = list(self._ready)
        changed = False
        start = 0
        for index in range(len(handles) + 1):
            if index < len(handles) and _wakes_a_task(handles[index]):
                continue
            if index - start > 1:
                run = handles[start:index]
                self._chance.shuffle(run)
                handles[start:index] = run
                changed = True
            start = index + 1
        if changed:
            self._ready.clear()
            self._ready.extend(handles)

    # Threads, of which there are none.

    def run_in_executor(
        self, executor: Executor | None, func: Callable[[*Ts], T], *args: *Ts
    ) -> asyncio.Future[T]:
        """Run *func* at a drawn time, at once and alone; deliver its result later."""
        self._check_closed()
        future: asyncio.Future[T] = self.create_future()
        start_s = self._now_s + self._latency()
        if executor is not None and getattr(executor, "_max_workers", 0) == 1:
            start_s = max(start_s, self._executors_busy_until.get(executor, 0.0))
            self._executors_busy_until[executor] = start_s + TURN_S

        def run() -> None:
            if future.cancelled():
                return
            deliver: Callable[[], None]
            try:
                value = func(*args)
            except DeadError:
                return
            except BaseException as error:  # noqa: BLE001 -- it is the caller's
                deliver = _setter(future, error=error)
            else:
                deliver = _setter(future, value=value)
            if self.life.alive:
                self.call_later(self._latency(), deliver)

        self.call_at(start_s, run)
        return future

    def call_soon_threadsafe(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: Context | None = None,
    ) -> asyncio.Handle:
        """Call *callback* soon; there is only one thread."""
        return self.call_soon(callback, *args, context=context)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Do nothing: no thread was started."""

    def _process_events(self, event_list: object) -> None: ...

    def _write_to_self(self) -> None: ...

    # Life and death.

    def die_at(self, when_s: float) -> None:
        """Crash at a moment of virtual time."""
        self.call_at(when_s, self.life.end, "crash at a drawn time")

    def kill(self) -> None:
        """End the life, and close what it left on the loop, without a word.

        Must not be running. Whatever still runs in a ``finally`` runs in a dead life.
        The loop itself can go on, with another life.
        """
        self.life.end("killed")
        self.set_exception_handler(lambda _loop, _context: None)
        with _silence():
            for _ in range(10):  # what is closed may start tasks
                if not (tasks := asyncio.all_tasks(self)):
                    break
                while tasks:
                    _close_quietly(tasks.pop())
                self._ready.clear()
                gc.collect(1)
            self._ready.clear()
            self._timers.clear()
        self.set_exception_handler(_keep_problem)

    def bury(self) -> None:
        """Kill what is left, and close the loop."""
        self.life.end("the loop was closed")
        self.kill()
        self.set_exception_handler(lambda _loop, _context: None)
        with _silence():
            self.close()
            gc.collect(1)

    def _check_closed(self) -> None:
        # The dead may still call: what they schedule never runs.
        if self._closed and self.life.alive:
            raise RuntimeError("Event loop is closed")


class Task(asyncio.Task[Any]):
    """A task whose place in a set is a matter of its number, not of its address.

    `asyncio.TaskGroup` keeps its tasks in a set, and cancels them in its order.
    """

    def __init__(self, coroutine: Any, number: int, **options: Any) -> None:
        self._number = number  # first: asyncio puts it into a set while it is made
        super().__init__(coroutine, **options)

    def __hash__(self) -> int:
        return self._number


def _number_tasks() -> Callable[..., Task]:
    numbers = itertools.count(1)

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Task:
        return Task(coroutine, next(numbers), loop=loop, **options)

    return make


def _wakes_a_task(handle: asyncio.Handle) -> bool:
    callback: object = getattr(handle, "_callback", None)  # not in the stubs
    return isinstance(getattr(callback, "__self__", None), asyncio.Task)


def _close_quietly(task: asyncio.Task[Any]) -> None:
    # Not in the stubs; both the C and the Python task have it.
    setattr(task, "_log_destroy_pending", False)  # noqa: B010 -- as above
    coroutine: Any = task.get_coro()
    for _ in range(10):  # a finally that awaits refuses GeneratorExit at first
        try:
            coroutine.close()
        except BaseException:  # noqa: BLE001, S112 -- it is dead
            continue
        return


def _setter(
    future: asyncio.Future[T], *, value: Any = None, error: BaseException | None = None
) -> Callable[[], None]:
    def deliver() -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)

    return deliver


def _keep_problem(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(loop, SimulatedLoop)
    error = context.get("exception")
    loop.problems.append(f"{context.get('message')}: {error!r}")


@contextlib.contextmanager
def _silence() -> Generator[None]:
    """Let nobody complain about how the dead are buried."""
    hook = sys.unraisablehook
    sys.unraisablehook = lambda _args: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        sys.unraisablehook = hook
