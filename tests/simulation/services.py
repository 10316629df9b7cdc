"""The world outside: services that refuse, fail, hang, or do it and say nothing.

A service keeps the one promise we ask of every service: it is idempotent by key. What
it did under a key it never does again, and what it answered it answers again. All else
goes wrong, as drawn:

    refuse    a no, for ever, by key
    fail      nothing was done, nobody knows
    odd       as `fail`, by an exception that no gateway would map
    lost      it was done, the reply never comes
    hang      the caller gives up; the request arrives all the same, before or *after*
    blocked   for a while nothing gets through, and callers are told so at once
    down      for a while nothing gets through, and nobody knows why

A request, once sent, is the world's: it arrives though its caller was cancelled, or
died, or gave up. So a request may arrive after its workflow was undone, unless the
engine asked again, under the same key, until it knew.

Replies carry their key, by which the checker finds what `exec` went on with.
"""

import asyncio
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.simulation.history import History

from coordinator.context import StepContext, current_step
from coordinator.errors import CommandBlocked, CommandDelayed, Refused
from coordinator.model import Direction
from coordinator.testing.loop import Life

__all__ = [
    "PAUSES_S",
    "UNDO_OF",
    "Calls",
    "DeclinedError",
    "Effect",
    "Reply",
    "Service",
    "ServiceFaults",
    "World",
    "hash_of",
]

UNDO_OF = {
    "reserve": "release",
    "charge": "refund",
    "book": "unbook",
    "post": "unpost",
}
"""Operation and what undoes it; a label that was printed stays printed."""

HANG_S = 5.0
"""Seconds after which a caller gives up."""
PAUSES_S = (None, 0.0, 0.001, 0.02, 0.1, 0.2)
"""How long `exec` is busy with something else; None: it does not even yield. Two of the
longest are less than the shortest time-out of a step: nobody waits longer than that
for `exec` to ask for what was called before."""


class DeclinedError(Refused):
    """A refusal of a class of its own: commands tell it apart."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason, {"code": code})
        self.code = code


@dataclass(frozen=True)
class Reply:
    """What a service answers, and an undo gets."""

    key: str
    number: int
    """Of the effect, from the world's own counter."""


@dataclass
class ServiceFaults:
    """How likely what goes wrong is, per call (refusals: per key)."""

    refuse: float = 0.0
    refuse_undo: float = 0.0
    """Per call of an undo, and not sticky: a person's retry may get it done."""
    fail: float = 0.0
    odd: float = 0.0
    lost: float = 0.0
    hang: float = 0.0
    blocked: float = 0.0
    """Per call: that its service is blocked from then on, for a while."""
    blocked_s: float = 3.0
    """Seconds of a block, at most."""
    down: float = 0.0
    """Per call: that its service answers nobody from then on, for a while."""
    latency_s: float = 0.01
    """Mean of each way; now and then a hundred times as long."""

    def heal(self) -> None:
        """Let nothing go wrong from here on. A no that was said stays one."""
        self.refuse = self.refuse_undo = self.fail = self.odd = 0.0
        self.lost = self.hang = self.blocked = self.down = 0.0


@dataclass
class Effect:
    """Something that is done in the world."""

    key: str
    workflow: str
    operation: str
    number: int
    undone: bool = False

    @property
    def undoable(self) -> bool:
        return self.operation in UNDO_OF


@dataclass
class _Request:
    """A call on its way to a service."""

    step: StepContext
    operation: str
    arrives_s: float
    undoes: Reply | None
    arrived: bool = False


@dataclass
class World:
    """What services did, whoever asked and whatever became of them."""

    seed: int
    faults: ServiceFaults
    history: History
    effects: dict[str, Effect] = field(default_factory=dict[str, Effect])
    problems: list[str] = field(default_factory=list[str])
    """What no caller may ask of a service, in words."""
    counts: Counter[str] = field(default_factory=Counter[str])
    """Of faults, by sort."""
    healed: bool = False
    _answers: dict[str, Reply | DeclinedError] = field(
        default_factory=dict[str, Reply | DeclinedError]
    )
    _under_way: list[tuple[float, int, _Request]] = field(
        default_factory=list[tuple[float, int, _Request]]
    )
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _fences: dict[str, int] = field(default_factory=dict[str, int])

    def __post_init__(self) -> None:
        self.chance = random.Random(f"{self.seed}/services")
        self.pauses = random.Random(f"{self.seed}/pauses")

    def heal(self) -> None:
        self.faults.heal()
        self.healed = True

    def send(self, request: _Request) -> None:
        """Take *request* over: it will arrive."""
        entry = (request.arrives_s, next(self._numbers), request)
        heapq.heappush(self._under_way, entry)

    def catch_up(self, now_s: float) -> None:
        """Let arrive what is due by *now_s*, in order."""
        while self._under_way and self._under_way[0][0] <= now_s:
            request = heapq.heappop(self._under_way)[2]
            if not request.arrived:
                self.arrive(request)

    def arrive(self, request: _Request) -> Reply | DeclinedError:
        """Do what *request* asks for, unless that was done; return the answer."""
        request.arrived = True
        key = request.step.idempotency_key
        answer = self._answers.get(key)
        if answer is not None:
            self.history.add("duplicate", key=key)
            return answer
        answer = self._do(request, key)
        self._answers[key] = answer
        return answer

    def _do(self, request: _Request, key: str) -> Reply | DeclinedError:
        operation = request.operation
        undo = request.step.direction is Direction.UNDO
        if not undo and self.chance.random() < self.faults.refuse:
            self.counts["refusal"] += 1
            self.history.add("refusal", key=key)
            return DeclinedError(f"no {operation} today", self.chance.randrange(100))
        number = next(self._numbers)
        if undo:
            self._undo(request, key)
        else:
            workflow = request.step.workflow_id
            self.effects[key] = Effect(key, workflow, operation, number)
        self.history.add("effect", key=key, operation=operation, number=number)
        return Reply(key, number)

    def _undo(self, request: _Request, key: str) -> None:
        done = request.undoes
        effect = self.effects.get(done.key) if done is not None else None
        if effect is None:
            self.problems.append(f"{key} undoes {done}, which was never done")
        elif effect.undone or UNDO_OF.get(effect.operation) != request.operation:
            self.problems.append(f"{key} undoes {effect} by {request.operation}")
        elif f"{effect.key}/undo" != key:
            self.problems.append(f"{key} undoes the effect of {effect.key}")
        else:
            effect.undone = True


class Calls:
    """Counts the calls of a life, which may be planned to end at one of them."""

    def __init__(self, life: Life, dies_at: int | None, *, after: bool) -> None:
        self._life = life
        self._dies_at = dies_at
        self._after = after
        self.count = 0

    async def reached(self, *, after: bool) -> None:
        """Die here if it is planned: never returns then."""
        if not after:
            self.count += 1
        if self.count == self._dies_at and after is self._after:
            place = "after" if after else "before"
            self._life.end(f"crash {place} call {self.count}")
            # Yields up to the loop without running any code of the program.
            await asyncio.get_running_loop().create_future()


class Service:
    """One service, as a life sees it."""

    def __init__(self, name: str, world: World, life: Life, calls: Calls) -> None:
        self.name = name
        self._world = world
        self._life = life
        self._calls = calls
        self.fail = 0.0
        """How likely a call of it fails until all is healed, whatever others do."""
        self._blocked_until_s = 0.0
        self._down_until_s = 0.0

    async def _call(self, operation: str, undoes: Reply | None = None) -> Reply:
        self._life.check()
        step = current_step()
        with self._noted(step, operation, undoes):
            await self._calls.reached(after=False)
            return await self._ask(step, operation, undoes)

    def _call_now(self, operation: str, undoes: Reply | None = None) -> Reply:
        """Serve a plain function, in a thread: all in one moment."""
        self._life.check()
        world = self._world
        step = current_step()
        with self._noted(step, operation, undoes, threaded=True):
            if self._draw(world.faults.fail + world.faults.hang, "call failed"):
                raise CommandDelayed(f"{self.name} is not there")
            if self._draw(world.faults.odd, "odd error"):
                raise OSError(32, "Broken pipe")
            if undoes is not None and self._draw(
                world.faults.refuse_undo, "undo refused"
            ):
                raise DeclinedError("it can't be undone at present", 409)
            request = _Request(step, operation, self._now_s(), undoes)
            answer = world.arrive(request)
            if self._draw(world.faults.lost, "done, reply lost"):
                raise CommandDelayed(f"no reply from {self.name}", retry_after_s=0.5)
            return _answered(answer)

    @contextmanager
    def _noted(
        self,
        step: StepContext,
        operation: str,
        undoes: Reply | None,
        *,
        threaded: bool = False,
    ) -> Generator[None]:
        history = self._world.history
        key = step.idempotency_key
        history.add(
            "call.begin",
            key=key,
            workflow=step.workflow_id,
            step=step.step.name,
            occurrence=step.step.occurrence,
            direction=int(step.direction),
            operation=operation,
            epoch=step.epoch,
            undoes=undoes.key if undoes is not None else "",
        )
        self._world.catch_up(self._now_s())
        fate = "cancelled"
        try:
            yield
            fate = "done"
        except Refused:
            fate = "refused"
            raise
        except Exception as error:
            fate = f"unknown: {error!r}"
            raise
        finally:
            if self._life.alive:
                history.add("call.end", key=key, fate=fate, threaded=threaded)

    async def _ask(
        self, step: StepContext, operation: str, undoes: Reply | None
    ) -> Reply:
        world, faults = self._world, self._world.faults
        there_s, back_s = self._latency_s(), self._latency_s()
        self._maybe_block()
        if self._blocked_until_s > self._now_s() and not world.healed:
            await asyncio.sleep(there_s)
            raise CommandBlocked(self.name)
        is_down = self._down_until_s > self._now_s() and not world.healed
        fail = faults.fail if world.healed else max(faults.fail, self.fail)
        if is_down or self._draw(fail, "call failed"):
            await asyncio.sleep(there_s)
            raise CommandDelayed(f"{self.name} is not there", retry_after_s=None)
        if self._draw(faults.odd, "odd error"):
            raise self._odd_error()
        if undoes is not None and self._draw(faults.refuse_undo, "undo refused"):
            await asyncio.sleep(there_s)
            raise DeclinedError("it can't be undone at present", 409)
        hangs = self._draw(faults.hang, "call hung")
        slow_s = 3 * HANG_S * world.chance.random() if hangs else 0.0
        request = _Request(step, operation, self._now_s() + there_s + slow_s, undoes)
        world.send(request)
        if hangs:
            await asyncio.sleep(HANG_S)
            raise CommandDelayed(f"{self.name} timed out")
        await asyncio.sleep(there_s)
        world.catch_up(self._now_s())
        answer = world.arrive(request)
        await self._calls.reached(after=True)
        await asyncio.sleep(back_s)
        if self._draw(faults.lost, "done, reply lost"):
            raise CommandDelayed(f"no reply from {self.name}")
        return _answered(answer)

    def _maybe_block(self) -> None:
        faults = self._world.faults
        if self._blocked_until_s <= self._now_s() and self._draw(
            faults.blocked, "service blocked"
        ):
            blocked_s = faults.blocked_s * self._world.chance.random()
            self._blocked_until_s = self._now_s() + blocked_s

        if self._down_until_s <= self._now_s() and self._draw(
            faults.down, "service down"
        ):
            down_s = faults.blocked_s * self._world.chance.random()
            self._down_until_s = self._now_s() + down_s

    def _odd_error(self) -> Exception:
        errors: list[Callable[[], Exception]] = [
            lambda: OSError(104, "Connection reset by peer"),
            lambda: KeyError("id"),
            TimeoutError,
            lambda: ExceptionGroup("several", [ValueError("one"), OSError("two")]),
        ]
        return self._world.chance.choice(errors)()

    def _draw(self, probability: float, what: str) -> bool:
        happens = probability > 0 and self._world.chance.random() < probability
        if happens:
            self._world.counts[what] += 1
        return happens

    def _latency_s(self) -> float:
        chance = self._world.chance
        factor = 100 if chance.random() < 0.02 and not self._world.healed else 1
        return self._world.faults.latency_s * factor * chance.random() * 2

    def _now_s(self) -> float:
        return self._world.history.now_s()


def _answered(answer: Reply | DeclinedError) -> Reply:
    if isinstance(answer, DeclinedError):
        raise DeclinedError(answer.reason, answer.code)
    return answer


def hash_of(seed: int, text: str) -> int:
    """Return a number that is the same in every process."""
    return random.Random(f"{seed}/{text}").getrandbits(32)
