"""A client process of the run: attempts, each of which is noted once.

    python -m tests.stress.client NUMBER SECONDS SEED FILE PORT PORT PORT PORT

The ports lead to server A, to server B, and again to A and B for a group of the two.
When the time is over it waits for what is under way and for what comes late, and prints
one line of JSON.
"""

import argparse
import asyncio
import contextvars
import gc
import logging
import random
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec
from tests.stress.messages import (
    CODEC,
    DELAY_MAX_S,
    Echo,
    EchoResult,
    Fail,
    Failed,
    Note,
    Notes,
    Outcome,
    Stream,
    StreamResult,
    result_of,
    text_of,
)

from cmdstream import (
    BreakerOptions,
    Circuit,
    CircuitOpenError,
    Client,
    ClientOptions,
    CommandSent,
    ConnectionClosedError,
    Group,
    Hook,
    KeepaliveOptions,
    LeastPending,
    ReconnectOptions,
    ResultReceived,
    SendTimeoutError,
)
from cmdstream.sending import Sender

__all__ = ["Done"]

Command = Echo | Stream | Fail

_WORKERS = 10  # for each sender, as many as Go's test has for each of its clients
_TIMEOUT_S = 0.5
_OVERDUE_S = 10.0  # beyond the time-out; nothing but a send that was forgotten takes so
_SETTLE_S = 3.0
_LEFT = 0.005  # share of attempts whose sender is cancelled
_FAILING = 0.001  # share that fails; ten times Go's, so that a short run has some

_OPTIONS = ClientOptions(
    reconnect=ReconnectOptions(first_s=0.05, longest_s=2.0),
    keepalive=KeepaliveOptions(idle_s=1.0, interval_s=0.5, pong_timeout_s=3.0),
    connect_timeout_s=3.0,
    server_info_timeout_s=3.0,
)
_BREAKER = BreakerOptions(window_s=10.0, open_first_s=1.0, open_longest_s=3.0)


class Done(msgspec.Struct, frozen=True):
    """What a client process says at its end."""

    attempts: int
    tasks: int
    pending: int


class Attempt:
    """One command on its way; its hook finds it in the context of the sender."""

    def __init__(self) -> None:
        self.port = 0
        """Where it was sent to."""
        self.results = 0


_ATTEMPT: contextvars.ContextVar[Attempt] = contextvars.ContextVar("attempt")


class Watch(Hook):
    def sent(self, sent: CommandSent) -> None:
        _ATTEMPT.get().port = int(sent.peer.rpartition(":")[2])


class WrongError(Exception):
    """A result does not belong to its command."""


class Worker:
    """Makes one attempt after the other."""

    def __init__(
        self, sender: Sender, ids: "Ids", notes: Notes, chance: random.Random
    ) -> None:
        self._sender = sender
        self._ids = ids
        self._notes = notes
        self._chance = chance

    async def work(self, until_s: float) -> None:
        while time.monotonic() < until_s:
            await self._attempt(self._command())
            await asyncio.sleep(self._pause_s())

    def _command(self) -> Command:
        id_, kind = self._ids.next(), self._chance.random()
        delay_ms = self._chance.randrange(int(1000 * DELAY_MAX_S))
        if kind < _FAILING:
            return Fail(id_)
        if kind < 0.5:
            return Echo(id_, delay_ms, text_of(id_))
        count, size = self._chance.randint(1, 5), self._chance.randrange(200)
        return Stream(id_, delay_ms, count, size)

    def _pause_s(self) -> float:
        kind = self._chance.random()
        if kind < 0.8:
            return 0.0
        if kind < 0.99:
            return self._chance.uniform(0.0, 0.5)
        return self._chance.uniform(2.0, 8.0)

    async def _attempt(self, command: Command) -> None:
        attempt = Attempt()
        _ATTEMPT.set(attempt)
        begun_s = time.monotonic()
        is_left = self._chance.random() < _LEFT
        try:
            async with asyncio.timeout(
                self._chance.uniform(0.0, DELAY_MAX_S) if is_left else None
            ):
                outcome = await self._send(command, attempt)
        except CircuitOpenError:
            outcome = Outcome.BLOCKED
        except SendTimeoutError as error:
            outcome = _unfinished(attempt, Outcome.TIMED_OUT, error.may_have_run)
        except ConnectionClosedError as error:
            outcome = _unfinished(attempt, Outcome.LOST, error.may_have_run)
        except TimeoutError:  # the sender's own; it knows nothing of what was sent
            outcome = _unfinished(attempt, Outcome.LEFT, attempt.port != 0)
        except WrongError as error:
            print(f"wrong: {error}", file=sys.stderr, flush=True)
            outcome = Outcome.WRONG
        ended_s = time.monotonic()
        if ended_s - begun_s > _TIMEOUT_S + _OVERDUE_S:
            outcome = Outcome.OVERDUE
        self._notes.note(
            Note(command.id, outcome, attempt.results, attempt.port, ended_s)
        )

    async def _send(self, command: Command, attempt: Attempt) -> Outcome:
        """Send *command*, and compare its results with it."""
        if not isinstance(command, Stream):
            result = await self._sender.send(command, timeout_s=_TIMEOUT_S)
            attempt.results = 1
            return _judge(command, result)
        stream = self._sender.stream(command, timeout_s=_TIMEOUT_S)
        async with stream as results:
            async for result in results:
                if result != result_of(command, attempt.results):
                    raise WrongError(f"{result} as {attempt.results} of {command}")
                attempt.results += 1
        if attempt.results != command.count:
            raise WrongError(f"{attempt.results} results of {command}")
        return Outcome.ANSWERED


class Ids:
    """Numbers that no other process uses."""

    def __init__(self, process: int) -> None:
        self.count = 0
        self._first = process << 40

    def next(self) -> int:
        self.count += 1
        return self._first + self.count


def _judge(command: Echo | Fail, result: object) -> Outcome:
    match command, result:
        case Echo(), EchoResult() if result == EchoResult(command.id, command.text):
            return Outcome.ANSWERED
        case Fail(), Failed() if result.id == command.id:
            return Outcome.FAILED
        case _:
            raise WrongError(f"{result} for {command}")


def _unfinished(attempt: Attempt, if_sent: Outcome, may_have_run: bool) -> Outcome:
    if may_have_run != (attempt.port != 0):
        raise AssertionError(f"may_have_run is {may_have_run}, port {attempt.port}")
    return if_sent if attempt.port else Outcome.UNSENT


class HangUps(logging.Handler):
    """Notes when connections end, as their client says it to its log."""

    def __init__(self, notes: Notes) -> None:
        super().__init__()
        self._notes = notes

    def emit(self, record: logging.LogRecord) -> None:
        _, found, address = record.getMessage().partition("lost ")
        if found:
            self.note(int(address.split(":")[1]))

    def note(self, port: int) -> None:
        self._notes.note(Note(0, Outcome.HUNG_UP, 0, port, time.monotonic()))


def _clients(
    stack: AsyncExitStack, ports: Sequence[int], notes: Notes
) -> list[Client | Group]:
    def late(received: ResultReceived) -> None:
        result = received.result
        assert isinstance(result, EchoResult | StreamResult | Failed)
        at_s = time.monotonic()
        notes.note(Note(result.id, Outcome.LATE, received.is_last, 0, at_s))

    addresses = [("127.0.0.1", port) for port in ports]
    clients = [
        Client.start(
            address,
            CODEC,
            options=_OPTIONS,
            hooks=[Watch, Circuit(_BREAKER)],
            on_unexpected=late,
        )
        for address in addresses[:2]
    ]
    group = Group.start(
        addresses[2:],
        CODEC,
        options=_OPTIONS,
        strategy=LeastPending(),
        hooks=[Watch],
        on_unexpected=late,
    )
    senders: list[Client | Group] = [*clients, group]
    for sender in senders:
        stack.push_async_callback(sender.aclose)
    return senders


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("number", type=int)
    parser.add_argument("seconds", type=float)
    parser.add_argument("seed", type=int)
    parser.add_argument("notes", type=Path)
    parser.add_argument("ports", type=int, nargs=4)
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    notes, ids = Notes(options.notes), Ids(options.number + 1)
    hang_ups = HangUps(notes)
    logging.getLogger("cmdstream.client").addHandler(hang_ups)
    chance = random.Random(f"{options.seed} {options.number}")
    until_s = time.monotonic() + options.seconds
    async with AsyncExitStack() as stack:
        senders = _clients(stack, options.ports, notes)
        async with asyncio.TaskGroup() as group:
            for sender in senders * _WORKERS:
                worker = Worker(sender, ids, notes, random.Random(chance.random()))
                group.create_task(worker.work(until_s))
        await asyncio.sleep(_SETTLE_S)
        pending = sum(sender.pending for sender in senders)
        for port in options.ports:
            hang_ups.note(port)
    gc.collect()  # a task or a future that nobody looked at complains now
    done = Done(ids.count, len(asyncio.all_tasks()) - 1, pending)
    sys.stdout.buffer.write(msgspec.json.encode(done) + b"\n")


if __name__ == "__main__":
    asyncio.run(main())
