"""Where a rehearsal takes place: the world, which lives on, and a process that dies.

    Stage --- loop       virtual time, one thread
          |-- journal    memory; what was written survives the process
          |-- services   what is answered, and by which function of the receiver
          `-- process    a `Coordinator` on top; killed and started again as is asked

What passes between the process and the rest is `scene`'s; this module starts it, kills
it, and gives it orders.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, NoReturn, TypeVar

from coordinator.app import Coordinator
from coordinator.errors import (
    JournalError,
    UnknownWorkflowError,
    WorkflowStateError,
)
from coordinator.model import format_workflow_id
from coordinator.options import EngineOptions
from coordinator.records import Accepted
from coordinator.testing.errors import RehearsalError
from coordinator.testing.journal import StageJournal
from coordinator.testing.loop import (
    DeadError,
    DeadlockError,
    Life,
    LivelockError,
    SimulatedLoop,
)
from coordinator.testing.scene import Direct, Scene
from coordinator.testing.services import Services

__all__ = ["START", "Stage", "now"]

T = TypeVar("T")

START = datetime(2024, 1, 1, tzinfo=UTC)
"""What the clock says when a rehearsal begins; it is the same each time."""
STEPS_MAX = 200_000
"""Turns of the loop that one order to the stage may take: about two seconds."""
LIVES_MAX = 100
"""Processes that one rehearsal may need; more is a script that kills each of them."""
SETTLE_S = 0.001
"""Virtual seconds in which the engine tells everybody what was just written."""


class _StageLoop(SimulatedLoop):
    """A simulated loop that tells who asks for a network that there is none."""

    def _no_network(self, *_args: Any, **_kwargs: Any) -> NoReturn:
        raise RehearsalError(
            "there is no network in a rehearsal; give what would use it an answer, "
            "services.returns('payments.charge', ...), or a receiver with fakes"
        )

    sock_connect = _no_network
    create_connection = _no_network
    create_unix_connection = _no_network
    create_datagram_endpoint = _no_network
    create_server = _no_network
    getaddrinfo = _no_network
    subprocess_exec = _no_network
    subprocess_shell = _no_network


def now() -> datetime:
    """Return the time of the rehearsal that runs here, in UTC: for fakes and sagas.

    Raises:
        RehearsalError: None runs here.
    """
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        loop = None
    if not isinstance(loop, _StageLoop):
        raise RehearsalError(
            "no rehearsal runs here: now() is for what a saga and its fakes ask for "
            "the time, and rehearsal.clock.now for the test itself"
        )
    return START + timedelta(seconds=loop.time())


class Stage(Scene):
    """One rehearsal, from the first process to the last."""

    def __init__(
        self,
        receiver: Any,
        commands: tuple[type[Any], ...],
        *,
        services: Services,
        options: EngineOptions | None = None,
        seed: int = 0,
        direct: Direct = lambda _moment: "",
        twice: bool = False,
    ) -> None:
        """Prepare; nothing runs yet.

        Args:
            receiver: The world.
            commands: The command classes.
            services: The script.
            options: As of `Coordinator`.
            seed: Of the order of what happens at once, and of jitter.
            direct: Says at which moments the process is killed, or an operator cancels.
            twice: Whether each call that does its work is made a second time, under the
                same key; see `doubled`.
        """
        loop = _StageLoop(
            random.Random(seed),  # noqa: S311 -- a seed is to repeat
            Life(1),
            shuffled=False,
            steps_max=STEPS_MAX,
        )
        super().__init__(services, direct, loop, twice=twice)
        self.receiver = receiver
        self._commands = commands
        self._options = options or EngineOptions()
        self._random = random.Random(f"{seed}/jitter")  # noqa: S311 -- as above
        self._journal = StageJournal(self)
        self._coordinator: Coordinator[Any] | None = None

    # -- the process -----------------------------------------------------------------

    @property
    def coordinator(self) -> Coordinator[Any]:
        """The process that runs now."""
        assert self._coordinator is not None
        return self._coordinator

    def start(self) -> None:
        """Start the first process.

        Raises:
            CommandTypeError: A command's class can't be used.
        """
        self.look_around()
        self._start()

    def _start(self) -> None:
        async def start() -> None:
            self._coordinator = coordinator = Coordinator(
                self.receiver,
                commands=self._commands,
                journal=self._journal,
                options=self._options,
                clock=self.now_us,
                random=self._random,
            )
            coordinator.call_by(self.call)
            await coordinator.start()

        self.run(start, recovering=True)

    def now_us(self) -> int:
        """Return microseconds since 1970."""
        return int(START.timestamp() * 1e6 + self.loop.time() * 1e6)

    def run(
        self, make: Callable[[], Coroutine[Any, Any, T]], *, recovering: bool = False
    ) -> T:
        """Run what *make* returns; anew, with another process, whenever one is killed.

        Raises:
            RehearsalError: Nothing ends any more, or a fault of the test.
        """
        while True:
            self.loop.steps = 0
            work = make()
            try:
                return self.loop.run_until_complete(work)
            except DeadError:
                self._bury_process()
                if not recovering:  # else that is what begins anew
                    self.revive()
            except DeadlockError:
                raise RehearsalError(
                    "everything waits, and nothing will ever wake it: exec, or a "
                    f"service, waits for what nobody does\n{self.story()}"
                ) from None
            except LivelockError:
                raise RehearsalError(
                    f"{STEPS_MAX} turns of the loop, and no end: something asks again "
                    f"and again without letting time pass\n{self.story()}"
                ) from None

    def kill(self, why: str) -> None:
        """Kill the process, and start the next one, which recovers."""
        self.life.end(why)
        self.deaths.append(why)
        self.note("killed", f"the process was killed {why}")
        self._bury_process()
        self.revive()

    def _bury_process(self) -> None:
        self.loop.kill()
        self._journal.let_go()
        self._coordinator = None
        if self.fault is not None:
            raise self.fault
        if self.life.number >= LIVES_MAX:
            raise RehearsalError(
                f"{LIVES_MAX} processes were killed, one after the other; the script "
                f"leaves none alive\n{self.story()}"
            )
        self.begin_life(Life(self.life.number + 1))

    def revive(self) -> None:
        """Start the next process over what the journal holds."""
        self.note("started", f"process {self.life.number} starts, and recovers")
        self._start()

    def close(self) -> None:
        """End the process in an orderly way, and the loop. May be called twice."""
        if self.over:
            return
        self.over = True
        if not self.life.alive:
            self.begin_life(Life(self.life.number + 1))
        self.loop.steps = 0
        try:
            # What keeps it from ending was told already, or is nobody's business.
            with suppress(DeadError, DeadlockError, LivelockError):
                self.loop.run_until_complete(self._end())
        finally:
            self.loop.bury()

    async def _end(self) -> None:
        if self._coordinator is not None:
            await self._coordinator.aclose()
        elif (close := getattr(self.receiver, "aclose", None)) is not None:
            await close()

    # -- what is asked of it ---------------------------------------------------------

    def submit(self, command: Any) -> int:
        """Have *command* run, and return its workflow's position once it is durable.

        A process that is killed meanwhile has taken it in or not: as a client would,
        we look, and ask again if it has not.
        """
        before = len(self.records)
        name = type(command).__name__

        async def ask() -> int:
            for position, record in self.records[before:]:
                if isinstance(record, Accepted) and record.type == name:
                    return position
            handle = await self.coordinator.submit(command)
            return int(handle.id.partition("-")[2])

        return self.run(ask)

    def finish(self, limit_s: float, only: int | None = None) -> None:
        """Let time pass until nothing goes on by itself: all has ended, or is stuck.

        Args:
            limit_s: Virtual seconds after which it is given up.
            only: The workflow that is waited for; None for all.

        Raises:
            RehearsalError: That takes longer than *limit_s*.
        """
        deadline_s = self.loop.time() + limit_s

        async def wait() -> bool:
            while self.open if only is None else only in self.open:
                self.changed.clear()
                try:
                    async with asyncio.timeout_at(deadline_s):
                        await self.changed.wait()
                except TimeoutError:
                    return False
            await asyncio.sleep(SETTLE_S)
            return True

        if not self.run(wait):
            waiting = ", ".join(
                f"{info.id} {info.status}: {info.reason.partition(chr(10))[0]}"
                for info in self.coordinator.workflows()
            )
            raise RehearsalError(
                f"not ended after {limit_s / 3600:g} hours ({waiting})\n{self.story()}"
            )

    def pass_time(self, duration_s: float) -> None:
        """Let *duration_s* pass, through whatever is killed meanwhile."""
        until_s = self.loop.time() + duration_s

        async def wait() -> None:
            await asyncio.sleep(max(0.0, until_s - self.loop.time()))

        self.run(wait)

    async def cancel(self, workflow: int | None) -> None:
        """See `Scene`."""
        for position in [workflow] if workflow is not None else sorted(self.open):
            try:
                await self.coordinator.cancel(
                    format_workflow_id(0, position), by="the test"
                )
            except (UnknownWorkflowError, WorkflowStateError, JournalError):
                self.note("cancelled", "the cancel came too late")
