"""A partition full of workflows, and ways to damage it."""

import random
from collections.abc import Callable

import msgspec
from tests.journals.disk import Disk, MemoryFolder
from tests.journals.parts import IDENTITY, SMALL, Clock, open_store

from coordinator.batch import encode_batch
from coordinator.journals.segments.store import Store
from coordinator.model import Direction, EndStatus, OutcomeStatus, Position
from coordinator.records import (
    Aborting,
    Accepted,
    Cancelled,
    Claimed,
    Finished,
    Held,
    Outcome,
    Record,
    Resumed,
    Started,
    Stuck,
    encode_record,
)
from coordinator.state import PartitionState, WorkflowState

__all__ = ["DAMAGES", "Partition", "facts", "fold"]


class Partition:
    """One that a coordinator might have written: its files, and what was in them."""

    def __init__(self, rng: random.Random, *, batches: int = 60) -> None:
        self.folder: MemoryFolder = Disk().folder("/journal/p0")
        self.records: list[tuple[int, Record]] = []
        self.state = PartitionState(0)
        self.clock = Clock()
        self._rng = rng
        store = open_store(self.folder, SMALL, clock=self.clock)
        self._note(0, Claimed(epoch=1, owner="test", at=1))
        for number in range(batches):
            self._append(store)
            if number % 20 == 13:
                self._checkpoint(store)
        self.end = store.chain.end
        self.epoch = store.chain.epoch
        store.close()

    def _note(self, position: int, record: Record) -> None:
        self.records.append((position, record))
        self.state.apply(position, record)

    def _append(self, store: Store) -> None:
        first = store.chain.end
        group: list[bytes] = []
        for _ in range(self._rng.randint(1, 6)):
            record = self._next()
            self._note(first + len(group), record)
            group.append(encode_record(record))
        chain = store.chain
        store.append(
            encode_batch(
                group, epoch=chain.epoch, first=chain.end, previous_crc=chain.crc
            )
        )

    def _checkpoint(self, store: Store) -> None:
        low, data = self.state.encode_checkpoint(Position(store.chain.end))
        store.save_checkpoint(low, data)
        store.trim(low)

    def _next(self) -> Record:
        rng, state = self._rng, self.state
        self.clock.move(1)
        at = self.clock()
        open_ = list(state.workflows.values())
        if rng.random() < 0.05:
            return Held(at)
        if len(open_) < 3 or (rng.random() < 0.25 and len(open_) < 12):
            key = f"k-{at}" if rng.random() < 0.5 else ""
            return Accepted(type="Order", codec="json", payload=b"{}", at=at, key=key)
        one = rng.choice(open_)
        candidates = [
            record for record in self._candidates(one, at) if _may_follow(one, record)
        ]
        return rng.choice(candidates)

    def _candidates(self, one: WorkflowState, at: int) -> list[Record]:
        rng, workflow = self._rng, one.position
        count = len(one.outcomes)
        standing = one.standing()
        done = Outcome(workflow, f"pay.step{count}", 0, bytes([count]) * 30, at)
        refused = msgspec.structs.replace(done, status=OutcomeStatus.REFUSED)
        found: list[Record] = [
            done,
            done,
            done,
            refused,
            Started(workflow=workflow, steps=((f"pay.step{count}", 0),), at=at),
            Stuck(workflow=workflow, reason="no", at=at),
            Resumed(workflow=workflow, by="ann", at=at),
            one.carry(at),
        ]
        if rng.random() < 0.3:
            found.append(Aborting(workflow=workflow, reason="no", at=at, refusal=b"r"))
            found.append(Cancelled(workflow=workflow, by="b", reason="c", at=at))
        if standing:
            step = standing[-1]
            undo = Outcome(workflow, *step, b"", at, direction=Direction.UNDO)
            found += [undo, undo]
        for status in (EndStatus.COMPLETED, EndStatus.COMPENSATED):
            if count > 2:
                found.append(Finished(workflow, status, b"v", at))
        return found


def _may_follow(state: WorkflowState, record: Record) -> bool:
    copy = msgspec.structs.replace(
        state, outcomes=dict(state.outcomes), started=dict(state.started)
    )
    try:
        copy.apply(record)
    except Exception:  # noqa: BLE001 -- whatever it says, it may not
        return False
    return True


def facts(state: WorkflowState) -> tuple[object, ...]:
    """Return what is known of a workflow, but where it is written."""
    return (
        state.accepted,
        state.outcomes,
        state.cancelled,
        state.aborting,
        state.stuck,
        state.started,
    )


def fold(records: list[tuple[int, Record]], end: int) -> PartitionState:
    """Fold *records* up to the position *end*."""
    state = PartitionState(0)
    for position, record in records:
        if position < end:
            state.apply(position, record)
    return state


def _segments(folder: MemoryFolder) -> list[str]:
    return [name for name in folder.names() if name.endswith(".seg")]


def _written(folder: MemoryFolder, name: str) -> int:
    """Return the bytes of a file that were written, not only allocated."""
    return len(bytes(folder.bytes_of(name)).rstrip(b"\0"))


def _any_file(folder: MemoryFolder, rng: random.Random) -> str:
    return rng.choice([n for n in folder.names() if n.endswith(("seg", "checkpoint"))])


def flip(folder: MemoryFolder, rng: random.Random) -> None:
    name = _any_file(folder, rng)
    place = rng.randrange(_written(folder, name))
    folder.bytes_of(name)[place] ^= 1 << rng.randrange(8)


def zeros(folder: MemoryFolder, rng: random.Random) -> None:
    name = _any_file(folder, rng)
    place = rng.randrange(_written(folder, name))
    stop = min(place + rng.choice([8, 64, 512, 4096]), len(folder.bytes_of(name)))
    folder.bytes_of(name)[place:stop] = bytes(stop - place)


def noise(folder: MemoryFolder, rng: random.Random) -> None:
    name = _any_file(folder, rng)
    place = rng.randrange(_written(folder, name))
    stop = min(place + rng.choice([1, 30, 600]), len(folder.bytes_of(name)))
    folder.bytes_of(name)[place:stop] = rng.randbytes(stop - place)


def cut(folder: MemoryFolder, rng: random.Random) -> None:
    name = _any_file(folder, rng)
    del folder.bytes_of(name)[rng.randrange(_written(folder, name)) :]


def remove(folder: MemoryFolder, rng: random.Random) -> None:
    folder.remove(_any_file(folder, rng))


def swap(folder: MemoryFolder, rng: random.Random) -> None:
    names = _segments(folder)
    one, other = rng.sample(names, 2) if len(names) > 1 else (names[0], names[0])
    a, b = bytes(folder.bytes_of(one)), bytes(folder.bytes_of(other))
    folder.bytes_of(one)[:] = b
    folder.bytes_of(other)[:] = a


def double(folder: MemoryFolder, rng: random.Random) -> None:
    names = _segments(folder)
    one, other = rng.choice(names), rng.choice(names)
    folder.bytes_of(other)[:] = bytes(folder.bytes_of(one))


def remove_all(folder: MemoryFolder, _: random.Random) -> None:
    for name in _segments(folder):
        folder.remove(name)


Damage = Callable[[MemoryFolder, random.Random], None]
DAMAGES: tuple[Damage, ...] = (
    flip,
    zeros,
    noise,
    cut,
    remove,
    swap,
    double,
    remove_all,
)

assert IDENTITY.partition == 0
