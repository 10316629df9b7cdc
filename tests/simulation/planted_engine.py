"""Bugs of who comes in, who runs when, and who is told; and of the circuit breaker."""

import itertools
from collections.abc import Callable, Iterable
from typing import Any
from weakref import WeakKeyDictionary, WeakValueDictionary

from tests.simulation.planted import Bug, instead

from cmdstream.breaker import Breaker, BreakerState, Ticket
from coordinator import schedule
from coordinator.admission import Admission
from coordinator.commit import Durable
from coordinator.context import current_step
from coordinator.door import Door
from coordinator.engine import Engine
from coordinator.gateways.base import Gateway
from coordinator.model import Random, Retry
from coordinator.operators import Operators
from coordinator.retry import DueQueue, slow_interval_s
from coordinator.runs import Run
from coordinator.saga import Unknown
from coordinator.schedule import Schedule

__all__ = ["BUGS"]

PUSH = DueQueue[Any].push


def forget_some_delays() -> Callable[..., None]:
    count = itertools.count(1)

    def forget(queue: "DueQueue[Any]", item: Any, due_s: float) -> None:
        if next(count) % 20:
            PUSH(queue, item, due_s)

    return forget


SOON = Schedule.soon


def forget_some_at_start() -> Callable[..., None]:
    count = itertools.count(1)

    def soon(schedule: Schedule, run: Any) -> None:
        if next(count) % 5:
            SOON(schedule, run)

    return soon


POP_DUE = DueQueue[Any].pop_due


def due_early(queue: "DueQueue[Any]", now_s: float) -> Any:
    return POP_DUE(queue, now_s + 0.05)


def wake_until_one_must_wait(self: Schedule) -> None:
    self._timer = None
    now_s = self._loop.time()
    while self._may_start():
        run = self._due.pop_due(now_s)
        if run is None:
            break
        if not self._admission.try_or_park(run, now_s):
            return
        self._start(run)
    self._arm()


def park_for_ever(_schedule: Schedule) -> None: ...


def no_interval(_retry: Retry, _attempt: int, _random: Random) -> float:
    return 0.0


def never_longer(retry: Retry, _attempt: int, random: Random) -> float:
    return slow_interval_s(retry, 0, random)


def any_jitter(retry: Retry, attempt: int, random: Random) -> float:
    return slow_interval_s(retry, attempt, random) * random.random()


DELAYED = Schedule.delayed


def undo_without_interval(self: Schedule, run: Any, unknown: Iterable[Unknown]) -> None:
    DELAYED(self, run, unknown)
    if run.state.aborting is not None:
        self._push(run, 0.0125)


TRY = Schedule._try


def try_at_once(self: Schedule, run: Any, now_s: float) -> None:
    run.not_before_s = 0.0
    TRY(self, run, now_s)


START = Engine._start


def tell_early(engine: Engine, run: Any, durable: Durable | None = None) -> None:
    for caller in run.callers:
        caller.accepted(run.state.id)
    START(engine, run, durable)


PREPARE = Engine._prepare


def prepare_while_closing(engine: Engine, run: Any) -> Any:
    entrance = engine.entrance
    closing, entrance.closing = entrance.closing, ""
    try:
        return PREPARE(engine, run)
    finally:
        entrance.closing = closing


def never_stopped(_schedule: Schedule) -> None: ...


def adopt_loosely() -> Callable[..., Run]:
    """What runs is known by a weak reference; what rests is kept."""
    resting: dict[Run, None] = {}

    def keep(run: Any, task: Any) -> None:
        run._task = task
        if task is not None:
            resting.pop(run, None)
        elif run.state.finished is None:
            resting[run] = None

    class LooseRun(Run):
        __slots__ = ("__weakref__", "_task")
        task: Any = property(lambda run: run._task, keep)

    def adopt(engine: Engine, log: Any, state: Any) -> Run:
        if not engine._runs and type(engine._runs) is dict:
            runs: Any = WeakValueDictionary[Any, Run]()
            active: Any = WeakKeyDictionary[Run, None]()
            engine._runs = engine.operators._runs = runs
            engine._active = active
        run = engine._runs[state.id] = LooseRun(log, state)
        engine._count(run, state.stuck is None)
        return run

    return adopt


PUT_DOWN = Engine._put_down


def keep_what_ended(engine: Engine, run: Any) -> None:
    kept = getattr(engine, "kept", [])
    kept.append(run)
    engine.kept = kept  # type: ignore[attr-defined]  # the bug
    PUT_DOWN(engine, run)


def join_nobody(run: Run, caller: Any) -> None:
    if run.durable:
        caller.accepted(run.state.id)


CLOSED_TO = Admission.closed_to


def one_more(self: Admission, services: Any, *, nested: bool = False) -> str:
    self.commands_max += 1
    try:
        return CLOSED_TO(self, services, nested=nested)
    finally:
        self.commands_max -= 1


async def decide_without_telling(operators: Operators, run: Any, record: Any) -> None:
    durable = run.log.append(record)
    if run.task is None:
        operators._resume(run)
    await durable


async def answer_at_once(operators: Operators, run: Any, record: Any) -> None:
    run.log.append(record)
    if run.task is None:
        operators._resume(run)
    elif run.execution is not None and type(record).__name__ == "Cancelled":
        run.execution.steps.cancel()


def pop_last(door: "Door[Any, Any, Any]", may_enter: Callable[[Any], bool]) -> Any:
    places = [
        place
        for kind, waiting in door._waiting.items()
        if may_enter(kind)
        for place in waiting.values()
    ]
    if not places:
        return None
    place = max(places, key=lambda one: one.number)
    door._remove(place)
    for caller in place.callers:
        del door._places[caller]
    return place.thing, tuple(place.callers)


def leave_with_the_thing(door: "Door[Any, Any, Any]", caller: Any) -> bool:
    place = door._places.pop(caller, None)
    if place is None:
        return False
    del place.callers[caller]
    for other in place.callers:
        del door._places[other]
    door._remove(place)
    return True


ADMIT = Breaker.admit


def admit_while_open(breaker: Breaker, now_s: float) -> Ticket | None:
    if breaker._state is BreakerState.OPEN:
        breaker._enter(BreakerState.HALF_OPEN)
    return ADMIT(breaker, now_s)


def any_number_of_trials(breaker: Breaker, now_s: float) -> Ticket | None:
    ticket = ADMIT(breaker, now_s)
    if ticket is None and breaker._state is BreakerState.HALF_OPEN:
        breaker._trials_in_flight += 1
        return breaker._period
    return ticket


SUCCEEDED = Breaker.succeeded


def count_late_results(breaker: Breaker, ticket: Ticket, now_s: float) -> None:
    if ticket != breaker._period and breaker._state is BreakerState.OPEN:
        breaker._close()
        return
    SUCCEEDED(breaker, ticket, now_s)


def keep_the_place(_breaker: Breaker, _ticket: Ticket) -> None: ...


async def call_past_the_queue(
    gateway: Gateway, operation: Any, *, timeout_s: float | None = None
) -> Any:
    ticket = gateway._breaker.admit(gateway._clock())
    if ticket is None:
        raise gateway._blocked()
    limit_s = timeout_s or gateway._timeout_s
    return await gateway._admitted(operation, current_step(), limit_s, ticket)


BUGS = [
    Bug(
        "acknowledge a command before it is durable",
        Engine,
        "_start",
        instead(tell_early),
        frozenset({"unaccepted"}),
    ),
    Bug(
        "forget a delayed command",
        DueQueue,
        "push",
        forget_some_delays,
        frozenset({"unfinished"}),
        museum="dbos #546",
        first=80,
    ),
    Bug(
        "recovery forgets some that it read",
        Schedule,
        "soon",
        forget_some_at_start,
        frozenset({"unfinished"}),
        museum="dbos #716",
    ),
    Bug(
        "what runs is held by the loop alone",
        Engine,
        "_adopt",
        adopt_loosely,
        frozenset({"program", "unfinished", "forgotten"}),
        museum="dbos #710",
    ),
    Bug(
        "one that must wait stops the queue",
        Schedule,
        "_wake",
        instead(wake_until_one_must_wait),
        frozenset({"unfinished"}),
        museum="dbos #805",
    ),
    Bug(
        "who is parked is forgotten",
        Schedule,
        "_unpark",
        instead(park_for_ever),
        frozenset({"unfinished"}),
        museum="dbos #805",
    ),
    Bug(
        "who is told to stop goes on starting",
        Engine,
        "_prepare",
        instead(prepare_while_closing),
        frozenset({"forward", "program", "unfinished"}),
        museum="dbos #804",
        first=70,
    ),
    Bug(
        "what is delayed starts while the process stops",
        Schedule,
        "stop",
        instead(never_stopped),
        frozenset({"forward", "program", "unfinished"}),
        museum="dbos #804",
    ),
    Bug(
        "retry without an interval",
        schedule,
        "slow_interval_s",
        instead(no_interval),
        frozenset({"hurry", "unfinished"}),
        museum="dtm #306",
    ),
    Bug(
        "what failed beside a block waits no longer than that",
        Schedule,
        "_try",
        instead(try_at_once),
        frozenset({"hurry"}),
    ),
    Bug(
        "undo without an interval",
        Schedule,
        "delayed",
        instead(undo_without_interval),
        frozenset({"hurry"}),
        museum="dtm #306",
    ),
    Bug(
        "no interval is longer than the first",
        schedule,
        "slow_interval_s",
        instead(never_longer),
        frozenset({"hurry"}),
    ),
    Bug(
        "jitter without a bound",
        schedule,
        "slow_interval_s",
        instead(any_jitter),
        frozenset({"hurry"}),
    ),
    Bug(
        "a timer that fires early",
        DueQueue,
        "pop_due",
        instead(due_early),
        frozenset({"hurry"}),
    ),
    Bug(
        "what has ended stays in memory",
        Engine,
        "_put_down",
        instead(keep_what_ended),
        frozenset({"bound"}),
    ),
    Bug(
        "who asks again by a key is never told",
        Run,
        "join",
        instead(join_nobody),
        frozenset({"unfinished"}),
    ),
    Bug(
        "one command more than may be",
        Admission,
        "closed_to",
        instead(one_more),
        frozenset({"bound"}),
    ),
    Bug(
        "a cancel does not reach the run",
        Operators,
        "_act",
        instead(decide_without_telling),
        frozenset({"state", "forward", "unfinished", "undo", "leftover", "program"}),
    ),
    Bug(
        "an operator is answered before it is durable",
        Operators,
        "_act",
        instead(answer_at_once),
        frozenset({"early"}),
    ),
    Bug(
        "the last one at the door comes in first",
        Door,
        "pop",
        instead(pop_last),
        frozenset({"order"}),
    ),
    Bug(
        "who leaves the door takes along what others wait for",
        Door,
        "leave",
        instead(leave_with_the_thing),
        frozenset({"unfinished"}),
        first=740,
    ),
    Bug(
        "an open circuit lets calls through",
        Breaker,
        "admit",
        instead(admit_while_open),
        frozenset({"breaker"}),
        first=100,
    ),
    Bug(
        "a half-open circuit lets any number through",
        Breaker,
        "admit",
        instead(any_number_of_trials),
        frozenset({"breaker"}),
        first=80,
    ),
    Bug(
        "a late success closes a circuit",
        Breaker,
        "succeeded",
        instead(count_late_results),
        frozenset({"breaker"}),
        first=80,
    ),
    Bug(
        "a trial that was cut off keeps its place",
        Breaker,
        "abandoned",
        instead(keep_the_place),
        frozenset({"breaker", "unfinished"}),
        first=80,
    ),
    Bug(
        "more calls at a time than may be",
        Gateway,
        "call",
        instead(call_past_the_queue),
        frozenset({"bound"}),
    ),
]
