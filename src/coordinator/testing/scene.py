"""What passes between the process and the outside: calls and writes, each a moment.

    the engine -- calls.Call --> Scene.call ----> the script, or the user's function
               -- journal -----> Scene.landed     what is recorded by now
                                 Scene.moment     before and after each: who is killed?

`Scene.call` stands in for `calls.call`, the one place where the engine enters a user's
code for a service: every kind of function passes there, and nothing is patched.
"""

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from coordinator import calls
from coordinator.context import StepContext
from coordinator.errors import CommandDelayed, Refused
from coordinator.model import Direction, Position, StepId
from coordinator.records import (
    Accepted,
    Cancelled,
    Finished,
    Outcome,
    Record,
    Resumed,
    Stuck,
)
from coordinator.testing.errors import RehearsalError
from coordinator.testing.loop import Life, SimulatedLoop
from coordinator.testing.services import Answer, Services
from coordinator.testing.words import Event, answered, record_event, storyline
from coordinator.testing.worlds import differences, text_of
from coordinator.threads import Threads

__all__ = ["Call", "Direct", "Doubled", "Moment", "Scene"]


class Moment(NamedTuple):
    """A point at which a process can be killed."""

    what: str
    """``before payments.charge was called``, ..."""
    nth: int
    """How many of the same words came before, from 0."""

    def __str__(self) -> str:
        return self.what if not self.nth else f"{self.what} (time {self.nth + 1})"


@dataclass
class Call:
    """One call of a step's or an undo's function, or what stood in its place."""

    step: str
    """As in the timeline; ``/undo`` behind it for an undo."""
    key: str
    function: str
    arguments: str
    life: int
    at: int
    """Index in the stage's events."""
    done: bool = False
    """Whether the function did its work, whatever became of its answer."""
    value: str = ""

    @property
    def undo(self) -> bool:
        """Whether it is one of an undo."""
        return self.step.endswith("/undo")


@dataclass
class Doubled:
    """A call that was made twice, under one key."""

    call: Call
    second: str
    """What the second one answered."""
    before: dict[str, str]
    """What the world looked like after the first one."""
    after: dict[str, str]
    """And after the second."""


Direct = Callable[[Moment], str]
"""Says what happens at a moment: ``kill``, ``cancel``, or nothing."""


class Scene:
    """What has passed so far, and what is to happen next."""

    def __init__(
        self, services: Services, direct: Direct, loop: SimulatedLoop, *, twice: bool
    ) -> None:
        """Begin with nothing.

        Args:
            services: The script.
            direct: Says at which moments the process is killed, or an operator cancels.
            loop: Whose life ends when the process is killed.
            twice: Whether each call that does its work is made a second time.
        """
        self.services = services
        self.loop = loop
        self.records: list[tuple[Position, Record]] = []
        """What is in the journal."""
        self.calls: list[Call] = []
        self.moments: list[Moment] = []
        self.events: list[Event] = []
        self.deaths: list[Moment | str] = []
        self.open: set[int] = set()
        """The workflows that go on by themselves, by position."""
        self.changed = asyncio.Event()
        """Set whenever something was written."""
        self.doubled: list[Doubled] = []
        self.written: dict[str, int] = {}
        """Of each outcome, by its step: how many events came before it was written."""
        self.look: Callable[[], dict[str, str]] | None = None
        """Looks at the world, after each call; slow, so only where somebody asks."""
        self.changes: list[tuple[str, str]] = []
        """Paths of the world, and who changed each: a step's name, or ``exec``."""
        self.fault: RehearsalError | None = None
        """What the test does wrong, found in mid-run."""
        self.over = False
        self._direct = direct
        self._twice = twice
        self._in_turn = asyncio.Lock()
        self._counts: dict[str, int] = {}
        self._noes: dict[str, Exception] = {}
        """Refusals, by key: a service that refused under a key refuses again."""
        self._looked: dict[str, str] = {}

    @property
    def life(self) -> Life:
        """The process that runs now."""
        return self.loop.life

    async def cancel(self, workflow: int | None) -> None:
        """Do as an operator, with *workflow*, or with all that goes on."""
        raise NotImplementedError

    def note(self, kind: str, text: str) -> None:
        """Write an event down."""
        if not self.over:
            self.events.append(Event(self.loop.time(), kind, text))

    def story(self) -> str:
        """Tell all that happened so far."""
        return storyline(self.events)

    async def moment(self, what: str, workflow: int | None = None) -> None:
        """Come to a moment, at which the process may be killed: never returns then."""
        if self.over:
            return
        nth = self._counts.get(what, 0)
        self._counts[what] = nth + 1
        moment = Moment(what, nth)
        self.moments.append(moment)
        act = self._direct(moment)
        if act == "kill":
            self.deaths.append(moment)
            self.note("killed", f"the process was killed {what}")
            await self._die(str(moment))
        if act == "cancel":
            self.note("cancelled", f"an operator cancelled it, {what}")
            self.loop.create_task(self.cancel(workflow))

    def landed(self, entries: list[tuple[Position, Record]]) -> None:
        """Take in what was just written."""
        for position, record in entries:
            self.records.append((position, record))
            match record:
                case Accepted():
                    self.open.add(position)
                case Resumed() | Cancelled():
                    self.open.add(record.workflow)
                case Finished() | Stuck():
                    self.open.discard(record.workflow)
                case _:
                    pass
            if isinstance(record, Outcome):
                undo = "/undo" if record.direction is Direction.UNDO else ""
                step = f"{StepId(record.step, record.occurrence)}{undo}"
                self.written[step] = len(self.events)
            event = record_event(self.loop.time(), record)
            if event is not None:
                self.events.append(event)
        self.changed.set()

    async def call(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        is_async: bool,
        context: Callable[[], StepContext],
        timeout_s: float,
        threads: Threads,
    ) -> Any:
        """See `calls.call`. Plays the script around it.

        Raises:
            Exception: As `calls.call`, and what the script says.
        """
        step = context()
        undo = "/undo" if step.direction is Direction.UNDO else ""
        name = f"{step.step}{undo}"
        workflow = int(step.workflow_id.partition("-")[2])
        await self.moment(f"before {name} was called", workflow)
        call = Call(
            name,
            step.idempotency_key,
            getattr(function, "__qualname__", repr(function)),
            text_of((*args, *sorted(kwargs.items()))),
            self.life.number,
            len(self.events),
        )
        again = any(call.key == earlier.key for earlier in self.calls)
        self.calls.append(call)
        self.note("called", f"{name} is called{' again' if again else ''}")

        async def make() -> Any:
            self.attribute("exec")
            try:
                return await calls.call(
                    function,
                    args,
                    kwargs,
                    is_async,
                    context,
                    timeout_s,
                    threads,
                )
            finally:
                self.attribute(name)

        answer = self.services.answer(name)
        try:
            value = await self._do(call, answer, make)
        except RehearsalError as error:
            self.fault = error
            await self._die("a fault of the test")
        except Exception as error:
            self.note("answered", f"{name} {answered(error)}")
            raise
        else:
            await self.moment(f"after {name} had done its work", workflow)
            await self._reply(call, answer, timeout_s)
            return value

    async def _do(
        self, call: Call, answer: Answer, make: Callable[[], Coroutine[Any, Any, Any]]
    ) -> Any:
        """Have the work of *call* done, or what the script says instead.

        Raises:
            Exception: What the function raises, or the script says.
        """
        if call.key in self._noes:
            raise self._noes[call.key]
        if answer.before is not None:
            # That of an undo is another matter: a person sees to it, and asks again.
            if isinstance(answer.before, Refused) and not call.undo:
                self._noes[call.key] = answer.before
            raise answer.before
        value = answer.value if answer.canned else await make()
        call.done, call.value = True, text_of(value)
        if self._twice and not answer.canned:
            await self._do_again(call, make)
        return value

    async def _do_again(
        self, call: Call, make: Callable[[], Coroutine[Any, Any, Any]]
    ) -> None:
        look = self.look
        assert look is not None
        # In turn, or the world would be changed by others between the two looks.
        async with self._in_turn:
            before = look()
            try:
                second = text_of(await make())
            except RehearsalError:
                raise
            except Exception as error:  # noqa: BLE001 -- that it fails is the finding
                second = f"{type(error).__name__}: {error}"
            self.doubled.append(Doubled(call, second, before, look()))

    async def _reply(self, call: Call, answer: Answer, timeout_s: float) -> None:
        """Bring the answer of *call* back, as the script says.

        Raises:
            CommandDelayed: It does not come, or too late.
        """
        if answer.delay_s:
            await asyncio.sleep(min(answer.delay_s, timeout_s))
        if answer.delay_s >= timeout_s:
            self.note("answered", f"{call.step} did its work, but answered too late")
            raise CommandDelayed(f"no answer within {timeout_s} s")
        if answer.lost:
            self.note("answered", f"{call.step} did its work, but its reply was lost")
            raise CommandDelayed("the reply was lost")
        self.note("answered", f"{call.step} answered {call.value}")

    async def _die(self, cause: str) -> NoReturn:
        self.life.end(cause)
        # Yields up to the loop without running any code of the process.
        await self.loop.create_future()
        raise AssertionError("the dead do not wake")

    def begin_life(self, life: Life) -> None:
        """Go on with another process: what the last one held is free."""
        self.loop.life = life
        self._in_turn = asyncio.Lock()

    def attribute(self, who: str) -> None:
        """Say that *who* changed what is changed since this was last asked."""
        if self.look is not None:
            before, self._looked = self._looked, self.look()
            self.changes += [(path, who) for path in differences(before, self._looked)]

    def look_around(self) -> None:
        """Take the world as it is now for its beginning."""
        if self.look is not None:
            self._looked = self.look()
