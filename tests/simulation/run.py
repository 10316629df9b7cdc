"""One seed: a few lives that end badly, then one in which all is well.

draw the plan
for each life of the safety phase:
    start on the disk that the last one left; order, wait, cancel; stop or crash
    the disk loses what the seed says; what is left is recovered twice, and compared
heal everything; a last life, in which everything accepted must end
check the history
"""

import asyncio
import gc
import random
from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from tests.simulation.admitted import Bounds
from tests.simulation.checker import Checker, Violation
from tests.simulation.clients import AGAIN_S, LAST_SPAN_S, Clients
from tests.simulation.commands import Keyed
from tests.simulation.disk import Disk
from tests.simulation.handles import open_root
from tests.simulation.history import History
from tests.simulation.plan import LifePlan, Plan, draw_plan
from tests.simulation.recovery import (
    copy_to_archive,
    gap_behind,
    log_options,
    recovered_twice,
    refused_if_flipped,
    refused_if_forked,
)
from tests.simulation.released import LEFTOVERS_S, left_behind, unreleased
from tests.simulation.services import Calls, World
from tests.simulation.shop import Shop
from tests.simulation.surroundings import quiet_log, short_paths, steady_garbage
from tests.simulation.tap import PortFaults, TappedJournal
from tests.simulation.wall_clock import WallClock

from coordinator import Coordinator, Options
from coordinator.engine import ABANDON_S
from coordinator.errors import (
    JournalBrokenError,
    JournalError,
    JournalFullError,
    UncertainError,
)
from coordinator.journals.segments.journal import SegmentJournal
from coordinator.journals.segments.store import StoreOptions
from coordinator.model import Random
from coordinator.testing.loop import (
    DeadError,
    DeadlockError,
    Life,
    LivelockError,
    SimulatedLoop,
)

__all__ = ["HEALED_S", "Result", "simulate"]

HEALED_S = 900.0
"""Virtual seconds in which everything must end once all is healed: the slowest shape
has 11 steps, each of which may first have to wait out the longest interval."""

STOP_S = 60.0
"""Virtual seconds after which a process that was told to stop is killed."""


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
    faults: Counter[str] = field(default_factory=Counter[str])
    """What went wrong outside, by sort."""


def simulate(seed: int) -> Result:
    """Run *seed* and check what happened."""
    with steady_garbage(), quiet_log() as bugs, short_paths():
        return _Simulation(draw_plan(seed), bugs).run()


class _Observer:
    """Writes down what the disk does, and plans a crash at one operation."""

    def __init__(
        self, simulation: "_Simulation", life: Life, plan: LifePlan | None
    ) -> None:
        crash = plan.crash if plan is not None else None
        self._dies_at = crash.number if crash and crash.by == "disk" else None
        self._after = bool(crash and crash.after)
        self._simulation = simulation
        self._life = life
        self._count = 0

    def __call__(self, what: str, *, after: bool) -> None:
        if after:
            self._simulation.history.add("disk", what=what)
            self._simulation.check_gone(what)
        else:
            self._count += 1
        if self._count == self._dies_at and after is self._after:
            place = "after" if after else "before"
            self._life.end(f"crash {place} disk operation {self._count}: {what}")


class _Simulation:
    def __init__(self, plan: Plan, bugs: list[str]) -> None:
        self.plan = plan
        self._bugs = bugs
        """Those of its own that the engine told people of."""
        self.now_s = 0.0
        self.loop: SimulatedLoop | None = None
        self.history = History(self._time)
        self.journal_id = random.Random(f"{plan.seed}/id").randbytes(16)
        policies = [plan.retry]
        if Keyed in plan.shapes:
            policies.append(Keyed.POLICY)
        self.checker = Checker(
            self.journal_id.hex(),
            policies,
            Bounds(
                plan.commands_max,
                plan.keys_max,
                plan.keys_size_max,
                int(plan.keys_age_s * 1e6),
            ),
            plan.gateway,
        )
        self.result = Result(plan.seed, plan, self.history, self.checker.violations)
        faults = self.result.faults
        self.disk = Disk(
            random.Random(f"{plan.seed}/disk"),
            plan.disk,
            capacity=plan.capacity,
            counts=faults,
        )
        self.world = World(plan.seed, plan.services, self.history, counts=faults)
        self.clients = Clients(plan, self.history)
        self.port = PortFaults(
            random.Random(f"{plan.seed}/port"), plan.uncertain, faults
        )
        self.clock = WallClock(
            random.Random(f"{plan.seed}/clock"), plan.clock_jumps, self._time, faults
        )
        self.decay = random.Random(f"{plan.seed}/decay")
        self._checked = 0
        self._closing = False
        """The process is about to end in order."""
        self._staying: tuple[asyncio.Future[None], asyncio.Task[None]] | None = None
        """Clients who are there until all is closed; the future sends them away."""
        self._drains_s = 0.0  # when it began to drain; 0 if it did not

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
        self.port.uncertain = self.clock.jumps = 0.0
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
            bugs = [*self._bugs]  # what comes of a dead life means nothing
            self.now_s = loop.time() + (plan.pause_s if plan is not None else 0.0)
            self.result.steps += loop.steps
            loop.bury()
            self.loop = None
        for problem in (*loop.problems, *bugs):
            self._violated("program", f"life {number}: {problem}")
        self._bugs.clear()
        self._end_life(life, plan, end)

    def _end_life(self, life: Life, plan: LifePlan | None, end: str) -> None:
        fate = self.disk.crash() if plan is not None else "none"
        if self.decay.random() < self.plan.copies:
            copy_to_archive(self.disk, self.decay)
        self.history.add("life.end", cause=end, disk=fate)
        self.result.lives += 1
        self.result.crashes += life.cause.startswith("crash")
        self.result.ends.append(end)
        self._follow()
        problem = recovered_twice(self.disk, self.plan, self.journal_id)
        if not problem and self.decay.random() < self.plan.decay:
            harm = self.decay.choice((refused_if_flipped, refused_if_forked))
            problem = harm(self.disk, self.plan, self.journal_id, self.decay)
        if problem:
            self._violated("lost", f"after life {life.number} ({end}): {problem}")

    def check_gone(self, operation: str) -> None:
        """See what a crash behind *operation* of the disk would leave."""
        problem = gap_behind(operation, self.disk)
        if problem:
            self._violated("lost", problem)

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
        return loop

    # Inside the loop.

    async def _process(self, life: Life, plan: LifePlan | None) -> str:
        """Be the process: start, serve, stop. Returns how it ended, if it did."""
        until: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._plan_end(life, plan, until)
        journal: TappedJournal | None = None
        coordinator: Coordinator[Shop] | None = None
        try:
            journal = await self._open_journal(life, plan)
            coordinator = self._make_coordinator(life, plan, journal)
            await coordinator.start()
            known = [info.id for info in coordinator.workflows()]
            self.history.add("started", workflows=known)
            end = await self._serve_and_watch(coordinator, life, plan, until)
        except JournalError as error:
            return self._failed_to_start(error)
        except asyncio.CancelledError:
            end = "interrupted"
        self._closing = True
        self.clients.leave_alone()
        self._stop_soon(life)
        if plan is None:
            for problem in await unreleased(coordinator):
                self._violated("bound", problem)
        stops_s = self._drains_s or asyncio.get_running_loop().time()
        if coordinator is not None:
            await coordinator.aclose()
        # Code that catches everything is let go of after a while. The engine's patience
        # may end first if the disk stops just then: it says so, and it is soon.
        in_time = asyncio.get_running_loop().time() < stops_s + ABANDON_S
        if journal is not None:
            await journal.aclose()
        self.history.add("life.closed")
        await self._send_away()
        left = left_behind() if in_time else []
        # What users left behind lives on, and must get nothing done any more.
        await asyncio.sleep(LEFTOVERS_S)
        for what in left or left_behind():
            self._violated("program", f"life {life.number}: left behind: {what}")
        return end

    def _plan_end(
        self, life: Life, plan: LifePlan | None, until: asyncio.Future[None]
    ) -> None:
        """See to it that the process is told to stop, or dies, when it is to."""
        self._closing = False
        self._staying = None
        self._drains_s = 0.0
        if plan is None:
            return
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert isinstance(loop, SimulatedLoop)
        assert task is not None

        def stop(faults: int = 0) -> None:
            self.result.faults["signal"] += faults
            if not until.done():
                until.set_result(None)

        def interrupt() -> None:
            # What comes later is a crash: asyncio then cancels everything there is.
            if not self._closing:
                self.result.faults["interrupt"] += 1
                task.cancel()

        crash = plan.crash
        if crash.by == "time":
            loop.call_later(crash.at_s, life.end, "crash at a drawn time")
        elif crash.by == "step":
            loop.dies_at_step = crash.number
        elif crash.by in {"signal", "interrupt"}:
            loop.calls_at_step[crash.number] = (
                interrupt if crash.by == "interrupt" else partial(stop, 1)
            )
        in_time = crash.by in {"stop", "drain"}
        loop.call_later(crash.at_s if in_time else plan.span_s * 3 + 20, stop)
        if plan.full is not None:
            loop.call_later(plan.full[0], self._fill, life)
            loop.call_later(plan.full[1], self._empty)

    def _stop_soon(self, life: Life) -> None:
        """Have the process killed if it does not stop now."""
        asyncio.get_running_loop().call_later(STOP_S, self._kill, life)

    def _kill(self, life: Life) -> None:
        self._violated("unfinished", f"life {life.number} can't be stopped")
        life.end("killed by its supervisor")

    def _failed_to_start(self, error: JournalError) -> str:
        end = f"failed to start: {error!r}"
        if not isinstance(
            error, JournalBrokenError | JournalFullError | UncertainError
        ):
            self._violated("lost", end)
        elif self.world.healed:
            self._violated("unfinished", end)
        return end

    async def _open_journal(self, life: Life, plan: LifePlan | None) -> TappedJournal:
        folder = open_root(self.disk, life, _Observer(self, life, plan))
        drawn = self.plan
        options = StoreOptions(
            segment_size=drawn.segment_size, retention_s=drawn.retention_s
        )
        journal = await SegmentJournal.open_folder(
            folder,
            options=options,
            clock=self.clock.of(life),
            new_id=lambda: self.journal_id,
            archive=folder.make_folder("archive") if drawn.archives else None,
            process=f"life {life.number}",
        )
        return TappedJournal(journal, self.history, self.port)

    def _make_coordinator(
        self, life: Life, plan: LifePlan | None, journal: TappedJournal
    ) -> Coordinator[Shop]:
        crash = plan.crash if plan is not None else None
        dies_at = crash.number if crash is not None and crash.by == "call" else None
        calls = Calls(life, dies_at, after=bool(crash and crash.after))
        drawn = self.plan
        chance: Random = random.Random(f"{drawn.seed}/jitter/{life.number}")
        return Coordinator(
            Shop(self.world, life, calls, drawn.gateway),
            commands=drawn.shapes,
            journal=journal,
            options=Options(
                commands_max=drawn.commands_max,
                probes=drawn.probes,
                step_timeout_s=drawn.step_timeout_s,
                retry=drawn.retry,
                log=log_options(drawn),
            ),
            clock=self.clock.of(life),
            random=chance,
        )

    async def _watch(self, coordinator: Coordinator[Shop], life: Life) -> None:
        """End the process when the journal is dead, as `wait_failed` asks for."""
        error = await coordinator.wait_failed()
        await asyncio.sleep(0.01)
        life.end(f"the journal failed: {error}")

    async def _serve_and_watch(
        self,
        coordinator: Coordinator[Shop],
        life: Life,
        plan: LifePlan | None,
        until: asyncio.Future[None],
    ) -> str:
        failing = asyncio.get_running_loop().create_task(self._watch(coordinator, life))
        try:
            return await self._serve(coordinator, life, plan, until)
        finally:
            failing.cancel()
            await asyncio.wait({failing})

    async def _serve(
        self,
        coordinator: Coordinator[Shop],
        life: Life,
        plan: LifePlan | None,
        until: asyncio.Future[None],
    ) -> str:
        if plan is None:
            loop = asyncio.get_running_loop()
            waiting = loop.create_task(self._wait_for_all(coordinator, until))
            await self.clients.live(coordinator, plan, until)
            await waiting
            return "stopped"
        crash = plan.crash
        if crash.by == "drain" or (crash.by == "signal" and crash.after):
            await self._serve_and_drain(coordinator, life, plan, until)
            return "drained"
        await self.clients.live(coordinator, plan, until)
        return "stopped"

    async def _serve_and_drain(
        self,
        coordinator: Coordinator[Shop],
        life: Life,
        plan: LifePlan | None,
        until: asyncio.Future[None],
    ) -> None:
        """Drain while the clients are still there; they stay until all is closed."""
        loop = asyncio.get_running_loop()
        gone: asyncio.Future[None] = loop.create_future()
        serving = loop.create_task(self.clients.live(coordinator, plan, gone))
        self._staying = gone, serving
        await until
        self._stop_soon(life)
        self.history.add("life.drains")
        self._drains_s = loop.time()
        await coordinator.drain(5.0)

    async def _send_away(self) -> None:
        """Let the clients go who stayed to the end: each has been told something."""
        if self._staying is None:
            return
        gone, serving = self._staying
        self._staying = None
        await asyncio.sleep(0.001)
        if not gone.done():  # else the clients failed, and `serving` says how
            gone.set_result(None)
        await serving

    async def _wait_for_all(
        self, coordinator: Coordinator[Shop], until: asyncio.Future[None]
    ) -> None:
        """Wait until nothing is unfinished, or for as long as that may take."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + HEALED_S
        await asyncio.sleep(0.1 + LAST_SPAN_S + AGAIN_S)  # then nobody orders any more
        while (  # noqa: ASYNC110 -- asks as people do, from outside
            coordinator.workflows() and loop.time() < deadline_s
        ):
            await asyncio.sleep(0.5)
        await asyncio.sleep(0.5)
        until.set_result(None)

    def _fill(self, life: Life) -> None:
        """Let others fill the disk, but for a few blocks."""
        if life.alive:
            self.result.faults["disk filled by others"] += 1
            self.disk.capacity -= max(0, self.disk.free() - 4096)

    def _empty(self) -> None:
        self.disk.capacity = self.plan.capacity
