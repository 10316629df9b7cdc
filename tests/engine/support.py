"""A shop whose services do as they are told, and a loop without a clock.

Virtual time makes 30 s time-outs and back-off of hours free, and a test in which
everything waits for nothing fails at once, as a deadlock.
"""

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from coordinator import Coordinator, Options, Refused, current_step
from coordinator.batch import Batch
from coordinator.journals.memory import MemoryJournal, MemoryPartition
from coordinator.ports import Journal
from coordinator.records import Record
from coordinator.testing.loop import Life, SimulatedLoop

T = TypeVar("T")
ShopT = TypeVar("ShopT", bound="Shop")
Answer: TypeAlias = float | BaseException | tuple[float, BaseException]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* to its end in virtual time."""
    loop = SimulatedLoop(random.Random(0), Life(0), shuffled=False)
    asyncio.set_event_loop(loop)
    try:
        return loop.run_until_complete(work)
    finally:
        asyncio.set_event_loop(None)
        loop.bury()
        loop.close()
        assert loop.problems == []


@dataclass
class Receipt:
    """What a service gives out, and what undoes it."""

    service: str
    number: int


@dataclass
class Service:
    """Answers from a script, and then does what it is asked; applies each key once."""

    name: str
    script: list[Answer] = field(default_factory=list[Answer])
    """For each call from the first: seconds to take, an exception to raise, or both."""
    undo_script: list[Answer] = field(default_factory=list[Answer])
    done: dict[str, Receipt] = field(default_factory=dict[str, Receipt])
    """What was done, by key."""
    calls: list[str] = field(default_factory=list[str])
    """Every key it was called with, in order."""
    world: "list[str] | None" = None
    """Shared by the services of a shop: what happened, in order."""

    async def do(self, amount: int = 0) -> Receipt:
        """Do it."""
        return await self._answer(self.script, f"do {self.name} {amount}".strip())

    async def undo(self, receipt: Receipt) -> None:
        """Undo it."""
        assert receipt in self.done.values()
        await self._answer(self.undo_script, f"undo {self.name}")

    async def _answer(self, script: list[Answer], what: str) -> Receipt:
        step = current_step()
        self.calls.append(step.idempotency_key)
        answer = script.pop(0) if script else 0.0
        seconds, error = (
            answer
            if isinstance(answer, tuple)
            else (0.0, answer)
            if isinstance(answer, BaseException)
            else (answer, None)
        )
        if seconds:
            await asyncio.sleep(seconds)
        if error is not None:
            raise error
        if step.idempotency_key not in self.done:
            if self.world is not None:
                self.world.append(what)
            self.done[step.idempotency_key] = Receipt(self.name, len(self.done))
        return self.done[step.idempotency_key]


class Shop:
    """Three services; ``world`` is what happened, in order."""

    def __init__(self) -> None:
        self.world: list[str] = []
        self.inventory = Service("inventory", world=self.world)
        self.payments = Service("payments", world=self.world)
        self.shipping = Service("shipping", world=self.world)


def refuse(reason: str = "no") -> Refused:
    """Return a refusal."""
    return Refused(reason)


def make(
    shop: ShopT, *commands: type[Any], journal: Journal | None = None, **options: Any
) -> Coordinator[ShopT]:
    """Return a coordinator in memory, on a clock that stands still."""
    return Coordinator(
        shop,
        commands=commands,
        journal=journal or MemoryJournal(),
        options=Options(**options),
        clock=lambda: 1_700_000_000_000_000,
        random=random.Random(0),
    )


class KeepingJournal(MemoryJournal):
    """Remembers every record that became durable, also those trimmed away since."""

    def __init__(self, *, journal_id: str = "j") -> None:
        super().__init__(journal_id=journal_id)
        self.records: list[Record] = []

    async def open(self, partition: int, *, owner: str, at: int) -> MemoryPartition:
        """Open, and listen to what is written."""
        opened = await super().open(partition, owner=owner, at=at)
        write = opened.write

        async def write_and_keep(batch: Batch) -> None:
            await write(batch)
            self.records += [record for _, record in batch.records()]

        setattr(opened, "write", write_and_keep)  # noqa: B010 -- one instance's method
        return opened


async def until(condition: Callable[[], object]) -> None:
    """Let virtual time pass until *condition* holds; fail after an hour of it."""
    async with asyncio.timeout(3600):
        while not condition():  # noqa: ASYNC110 -- virtual time
            await asyncio.sleep(0.01)
