"""One seed: a few lives that end badly, then one in which all is well.

draw the plan
for each life of the safety phase:
    start on the disk that the last one left; order, wait, cancel; stop or crash
    the disk loses what the seed says; what is left is recovered twice, and compared
heal everything; a last life, in which everything accepted must end
check the history
"""

import asyncio
import contextlib
import gc
import logging
import random
import traceback
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from tests.simulation.checker import Checker, Violation
from tests.simulation.clients import Clients
from tests.simulation.commands import COMMANDS
from tests.simulation.dawdlers import Branches, Leaky
from tests.simulation.disk import Disk
from tests.simulation.handles import open_root
from tests.simulation.history import History
from tests.simulation.plan import LifePlan, Plan, draw_plan
from tests.simulation.recovery import recovered_twice
from tests.simulation.services import Calls, Shop, World
from tests.simulation.tap import TappedJournal

from coordinator import Coordinator, Options
from coordinator.errors import (
    JournalBrokenError,
    JournalError,
    JournalFullError,
)
from coordinator.journals.segments.journal import SegmentJournal
from coordinator.journals.segments.store import StoreOptions
from coordinator.log import LogOptions
from coordinator.model import Random
from coordinator.testing.loop import (
    DeadError,
    DeadlockError,
    Life,
    LivelockError,
    SimulatedLoop,
)

__all__ = ["HEALED_S", "Result", "simulate"]

ROOT = Path(__file__).parents[2]
"""Of the checkout."""

HEALED_S = 900.0
"""Virtual seconds in which everything must end once all is healed: the slowest shape
has 11 steps, each of which may first have to wait out the longest interval."""

STOP_S = 60.0
"""Virtual seconds after which a process that was told to stop is killed."""

LEFTOVERS_S = 5.0
"""Virtual seconds in which tasks that users left behind go on, once all is closed."""

START_US = 1_700_000_000_000_000
"""What the clock says when virtual time starts."""


@dataclass
class Result:
    """What came of a seed."""

    seed: int
    plan: Plan
    history: History
    violations: list[Violation]
    lives: int = 0
    crashes: int = 0
    steps: int = 0
    """Of the loops."""
    virtual_s: float = 0.0
    workflows: int = 0
    ends: list[str] = field(default_factory=list[str])
    """What ended each life."""


def simulate(seed: int) -> Result:
    """Run *seed* and check what happened."""
    with _steady_garbage(), _quiet_log(), _short_paths():
        return _Simulation(draw_plan(seed)).run()


class _Observer:
    """Writes down what the disk does, and plans a crash at one operation."""

    def __init__(self, history: History, life: Life, plan: LifePlan | None) -> None:
        crash = plan.crash if plan is not None else None
        self._dies_at = crash.number if crash and crash.by == "disk" else None
        self._after = bool(crash and crash.after)
        self._history = history
        self._life = life
        self._count = 0

    def __call__(self, what: str, *, after: bool) -> None:
        if after:
            self._history.add("disk", what=what)
        else:
            self._count += 1
        if self._count == self._dies_at and after is self._after:
            place = "after" if after else "before"
            self._life.end(f"crash {place} disk operation {self._count}: {what}")


class _Simulation:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.now_s = 0.0
        self.loop: SimulatedLoop | None = None
        self.history = History(self._time)
        self.disk = Disk(
            random.Random(f"{plan.seed}/disk"), plan.disk, capacity=plan.capacity
        )
        self.world = World(plan.seed, plan.services, self.history)
        self.clients = Clients(plan, self.history)
        self.journal_id = random.Random(f"{plan.seed}/id").randbytes(16)
        # `Keyed` brings a policy of its own, whose first interval is 50 ms.
        shortest_s = min(plan.retry.first_s, 0.05) * (1 - plan.retry.jitter)
        self.checker = Checker(self.journal_id.hex(), int(shortest_s * 1e6))
        self.result = Result(plan.seed, plan, self.history, self.checker.violations)
        self._checked = 0

    def _time(self) -> float:
        return self.loop.time() if self.loop is not None else self.now_s

    def run(self) -> Result:
        """Live, heal, live, check."""
        for life in self.plan.lives:
            self._live(life)
            if self.result.violations:
                break  # what comes after would only be a consequence
        else:
            self._heal()
            self._live(None)
            self.world.catch_up(float("inf"))
            self._follow()
            self.checker.finish(self.world.effects.values(), self.world.problems)
        self.result.virtual_s = self.now_s
        self.result.workflows = len(self.checker.workflows)
        return self.result

    def _heal(self) -> None:
        self.world.heal()
        self.disk.faults.heal()
        self.disk.capacity = 1 << 32
        self.history.life = len(self.plan.lives)
        self.history.add("healed")

    def _live(self, plan: LifePlan | None) -> None:
        """Run one life of the process, from its start to whatever ends it."""
        number = plan.number if plan is not None else len(self.plan.lives)
        life = Life(number)
        self.history.life = number
        self.history.add("life.begin")
        loop = self.loop = self._make_loop(life, plan)
        try:
            end = loop.run_until_complete(self._process(life, plan))
            gc.collect()  # what failed and was not looked at is told by its end
        except DeadError:
            end = life.cause
        except (DeadlockError, LivelockError) as error:
            end = str(error)
            self._violated("unfinished", f"life {number}: {end}")
        finally:
            self.now_s = loop.time() + (plan.pause_s if plan is not None else 0.0)
            self.result.steps += loop.steps
            loop.bury()
            self.loop = None
        for problem in loop.problems:
            self._violated("program", f"life {number}: {problem}")
        self._end_life(life, plan, end)

    def _end_life(self, life: Life, plan: LifePlan | None, end: str) -> None:
        fate = self.disk.crash() if plan is not None else "none"
        self.history.add("life.end", cause=end, disk=fate)
        self.result.lives += 1
        self.result.crashes += life.cause.startswith("crash")
        self.result.ends.append(end)
        self._follow()
        problem = recovered_twice(self.disk, self.plan, self.journal_id)
        if problem:
            self._violated("lost", f"after life {life.number} ({end}): {problem}")

    def _follow(self) -> None:
        events = self.history.events
        self.checker.follow(events[self._checked :])
        self._checked = len(events)

    def _violated(self, kind: str, sentence: str) -> None:
        self.result.violations.append(Violation(kind, sentence))

    def _make_loop(self, life: Life, plan: LifePlan | None) -> SimulatedLoop:
        seed, drawn = self.plan.seed, self.plan
        chance = random.Random(f"{seed}/loop/{life.number}")
        latencies = random.Random(f"{seed}/latency/{life.number}")
        stalls = drawn.stalls if plan is not None else 0.0

        def latency_s() -> float:
            factor = 100 if latencies.random() < stalls else 1
            return 2 * drawn.latency_s * factor * latencies.random()

        loop = SimulatedLoop(
            chance,
            life,
            now_s=self.now_s,
            latency=latency_s,
            shuffled=drawn.shuffled,
        )
        if drawn.collects:
            collector = random.Random(f"{seed}/garbage/{life.number}")
            loop.collects_at_step = lambda: collector.random() < drawn.collects
        if plan is not None and plan.crash.by == "step":
            loop.dies_at_step = plan.crash.number
        return loop

    # Inside the loop.

    async def _process(self, life: Life, plan: LifePlan | None) -> str:
        """Be the process: start, serve, stop. Returns how it ended, if it did."""
        loop = asyncio.get_running_loop()
        crash = plan.crash if plan is not None else None
        if crash is not None and crash.by == "time":
            loop.call_later(crash.at_s, life.end, "crash at a drawn time")
        if plan is not None and plan.full is not None:
            loop.call_later(plan.full[0], self._fill, life)
            loop.call_later(plan.full[1], self._empty)
        try:
            journal = await self._open_journal(life, plan)
            coordinator = self._make_coordinator(life, plan, journal)
            await coordinator.start()
        except JournalError as error:
            return self._failed_to_start(error)
        failing = loop.create_task(self._watch(coordinator, life))
        end = await self._serve(coordinator, life, plan)
        failing.cancel()
        await asyncio.wait({failing})
        self._stop_soon(life)
        await coordinator.aclose()
        await journal.aclose()
        self.history.add("life.closed")
        self._check_nothing_runs(life)
        # What users left behind lives on, and must get nothing done any more.
        await asyncio.sleep(LEFTOVERS_S)
        return end

    def _stop_soon(self, life: Life) -> None:
        """Have the process killed if it does not stop now."""
        asyncio.get_running_loop().call_later(STOP_S, self._kill, life)

    def _kill(self, life: Life) -> None:
        self._violated("unfinished", f"life {life.number} can't be stopped")
        life.end("killed by its supervisor")

    def _failed_to_start(self, error: JournalError) -> str:
        end = f"failed to start: {error!r}"
        if not isinstance(error, JournalBrokenError | JournalFullError):
            self._violated("lost", end)
        elif self.world.healed:
            self._violated("unfinished", end)
        return end

    async def _open_journal(self, life: Life, plan: LifePlan | None) -> TappedJournal:
        folder = open_root(self.disk, life, _Observer(self.history, life, plan))
        drawn = self.plan
        options = StoreOptions(
            segment_size=drawn.segment_size, retention_s=drawn.retention_s
        )
        journal = await SegmentJournal.open_folder(
            folder,
            options=options,
            clock=self._clock,
            new_id=lambda: self.journal_id,
            process=f"life {life.number}",
        )
        return TappedJournal(journal, self.history)

    def _make_coordinator(
        self, life: Life, plan: LifePlan | None, journal: TappedJournal
    ) -> Coordinator[Shop]:
        crash = plan.crash if plan is not None else None
        dies_at = crash.number if crash is not None and crash.by == "call" else None
        calls = Calls(life, dies_at, after=bool(crash and crash.after))
        drawn = self.plan
        chance: Random = random.Random(f"{drawn.seed}/jitter/{life.number}")
        return Coordinator(
            Shop(self.world, life, calls),
            commands=COMMANDS,
            journal=journal,
            options=Options(
                commands_max=drawn.commands_max,
                step_timeout_s=drawn.step_timeout_s,
                retry=drawn.retry,
                log=LogOptions(
                    checkpoint_size=drawn.checkpoint_size,
                    carry_after=drawn.carry_after,
                ),
            ),
            clock=self._clock,
            random=chance,
        )

    def _clock(self) -> int:
        return START_US + int(self._time() * 1e6)

    async def _watch(self, coordinator: Coordinator[Shop], life: Life) -> None:
        """End the process when the journal is dead, as `wait_failed` asks for."""
        error = await coordinator.wait_failed()
        await asyncio.sleep(0.01)
        life.end(f"the journal failed: {error}")

    async def _serve(
        self, coordinator: Coordinator[Shop], life: Life, plan: LifePlan | None
    ) -> str:
        loop = asyncio.get_running_loop()
        until: asyncio.Future[None] = loop.create_future()
        if plan is None:
            waiting = loop.create_task(self._wait_for_all(coordinator, until))
        else:
            waiting = None
            span_s = plan.span_s * 3 + 20
            if plan.crash.by in {"stop", "drain"}:
                span_s = plan.crash.at_s
            loop.call_later(span_s, until.set_result, None)
        drains = plan is not None and plan.crash.by == "drain"
        if drains:
            await self._serve_and_drain(coordinator, life, plan, until)
        else:
            await self.clients.live(coordinator, plan, until)
        if waiting is not None:
            await waiting
        return "drained" if drains else "stopped"

    async def _serve_and_drain(
        self,
        coordinator: Coordinator[Shop],
        life: Life,
        plan: LifePlan | None,
        until: asyncio.Future[None],
    ) -> None:
        """Drain while the clients are still there."""
        loop = asyncio.get_running_loop()
        gone: asyncio.Future[None] = loop.create_future()
        serving = loop.create_task(self.clients.live(coordinator, plan, gone))
        await until
        self._stop_soon(life)
        await coordinator.drain(5.0)
        if not gone.done():  # else the clients failed, and `serving` says how
            gone.set_result(None)
        await serving

    async def _wait_for_all(
        self, coordinator: Coordinator[Shop], until: asyncio.Future[None]
    ) -> None:
        """Wait until nothing is unfinished, or for as long as that may take."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + HEALED_S
        await asyncio.sleep(0.1)
        while (  # noqa: ASYNC110 -- asks as people do, from outside
            coordinator.workflows() and loop.time() < deadline_s
        ):
            await asyncio.sleep(0.5)
        await asyncio.sleep(0.5)
        until.set_result(None)

    def _check_nothing_runs(self, life: Life) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        names = [repr(task.get_coro()) for task in tasks]
        for name in sorted(name for name in names if not _is_users(name)):
            self._violated(
                "program", f"life {life.number}: left behind by aclose: {name}"
            )

    def _fill(self, life: Life) -> None:
        """Let others fill the disk, but for a few blocks."""
        if life.alive:
            self.disk.capacity -= max(0, self.disk.free() - 4096)

    def _empty(self) -> None:
        self.disk.capacity = self.plan.capacity


def _is_users(coroutine: str) -> bool:
    """Say whether a task is one that a command left behind."""
    return any(f" {shape.__name__}." in coroutine for shape in (Branches, Leaky))


@contextlib.contextmanager
def _steady_garbage() -> Generator[None]:
    """Collect garbage at drawn steps and at the ends of lives, and never else.

    Or the death of an object, and what its task then logs, would be a matter of chance.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()
        if was_enabled:
            gc.enable()


@contextlib.contextmanager
def _short_paths() -> Generator[None]:
    """Show files in tracebacks as seen from the root of the checkout.

    A traceback is stored with the reason why a workflow is stuck. The length of a path
    would decide when a segment is full, and so what a seed means.
    """
    show = traceback.StackSummary.format_frame_summary

    def show_short(
        stack: traceback.StackSummary, frame: traceback.FrameSummary, **options: Any
    ) -> str:
        path = Path(frame.filename)
        within = path.is_relative_to(ROOT)
        frame.filename = path.relative_to(ROOT).as_posix() if within else path.name
        return show(stack, frame, **options)

    with patch.object(traceback.StackSummary, "format_frame_summary", show_short):
        yield


@contextlib.contextmanager
def _quiet_log() -> Generator[None]:
    """What the engine tells people belongs to a real process's log."""
    logger = logging.getLogger("coordinator")
    was_disabled, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was_disabled
