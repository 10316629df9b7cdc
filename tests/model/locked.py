"""Owners of one partition, in files that a lock keeps the others out of.

    down --lock, read, append the claim--> claiming --sync--> open
      ^                                       |                |
      `------- dead, closed, power cut -------+----------------'

A process that is stopped keeps its lock, one that dies gives it up, and what it wrote
stays in the cache. A power cut ends all of them, and of what was not synced any part
from the end on is gone. A lock says who may write, a sync what is kept: the rest is as
on the other logs.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.model.invariants import of_the_checkpoint, of_the_log, of_the_owners
from tests.model.rules import START, Batch, Checkpoint, Place, Rules, read
from tests.model.state import (
    CLAIMING,
    DOWN,
    OPEN,
    Answer,
    Owner,
    State,
    Wait,
    behind,
    has_owner,
    name,
)

__all__ = ["LockRules", "LockedLog", "LockedState"]

NOBODY = -1


@dataclass(frozen=True, kw_only=True)
class LockRules:
    """What the lock and the disk ask for. A planted bug is one that is not so."""

    locks: bool = True
    syncs_claim: bool = True
    """A claim counts once it is synced, and with it all that lies before."""
    syncs_writes: bool = True
    """A batch is acknowledged once it is synced."""
    closes_behind_writes: bool = True
    """The lock is kept until the write under way is done."""
    cuts_what_did_not_fit: bool = True
    """Of a batch that found no space nothing is left."""
    syncs_checkpoint: bool = True
    """Trimmed is once the checkpoint is synced."""


class LockedState(NamedTuple):
    """A state of the model."""

    at: State
    holder: int = NOBODY
    synced: int = 0
    """Entries that a power cut leaves."""
    kept: tuple[Checkpoint, ...] = ()
    """The checkpoint that a power cut leaves."""
    late: tuple[Batch, ...] = ()
    """Writes of owners that have closed."""
    cuts: int = 0
    """How many times the power may be cut yet."""


_Step = tuple[str, LockedState]


class _Reader:
    """Reads as the others do; there is one checkpoint, and nobody trims meanwhile."""

    def __init__(self) -> None:
        self.rules = Rules()
        self._histories: dict[tuple[Batch, ...], tuple[Place, tuple[str, ...]]] = {}

    def history(self, state: State) -> tuple[Place, tuple[str, ...]]:
        found = self._histories.get(state.log)
        if found is None:
            found = self._histories[state.log] = read(self.rules, state.log, START)
        return found

    def pick(self, state: State) -> Checkpoint | None:
        return state.checkpoints[-1] if state.checkpoints else None

    def loaded(self, state: State, owner: Owner) -> Owner:
        checkpoint = self.pick(state)
        if checkpoint is None:
            return owner
        return owner._replace(place=checkpoint.place, seen=checkpoint.holds)

    def begin_by_checkpoint(self, state: State, place: Place) -> Place | None:
        return None if state.start > place.offset else place


@dataclass(frozen=True, kw_only=True)
class LockedLog:
    """The model: the rules, and bounds that keep it finite."""

    rules: LockRules = LockRules()
    owners: int = 2
    lives: int = 2
    """Of each owner."""
    writes: int = 1
    """Batches of each life."""
    saves: int = 0
    """Checkpoints of each life."""
    fulls: int = 0
    """Times that there is no space, in all."""
    cuts: int = 1
    """Power cuts, in all."""
    _fine: set[object] = field(
        default_factory=set[object], init=False, repr=False, compare=False
    )
    _reader: _Reader = field(
        default_factory=_Reader, init=False, repr=False, compare=False
    )

    def initial(self) -> LockedState:
        """See `explorer.Model`."""
        state = State(owners=(Owner(),) * self.owners, fulls=self.fulls)
        return LockedState(state, cuts=self.cuts)

    def successors(self, state: LockedState) -> Iterator[_Step]:
        """See `explorer.Model`."""
        for index, owner in enumerate(state.at.owners):
            if owner.phase == DOWN:
                free = state.holder == NOBODY or not self.rules.locks
                if owner.life < self.lives and free:
                    yield self._claim(state, index)
                continue
            yield self._end(state, index, "dies")
            if owner.phase == CLAIMING:
                yield self._open(state, index)
            else:
                yield from self._write(state, index)
                yield from self._save(state, index)
                yield from self._close(state, index)
        for batch in state.late:
            at = state.at._replace(log=(*state.at.log, batch))
            yield f"{batch.crc} is written at last", state._replace(at=at, late=())
        yield from self._cut(state)

    def _claim(self, state: LockedState, index: int) -> _Step:
        at = state.at
        owner = self._reader.loaded(at, Owner(life=at.owners[index].life + 1))
        place, valid = read(self._reader.rules, at.log, owner.place)
        crc = f"{name(index)}{owner.life}"
        claim = Batch(crc, place.epoch + 1, place.end, place.crc, claim=True)
        owner = owner._replace(
            phase=CLAIMING,
            place=behind(claim, len(at.log)),
            seen=(*owner.seen, *valid, crc),
        )
        at = has_owner(at, index, owner)._replace(log=(*at.log, claim))
        return (
            f"{name(index)} has the lock, and writes its claim {crc}",
            state._replace(at=at, holder=index),
        )

    def _open(self, state: LockedState, index: int) -> _Step:
        owner = state.at.owners[index]
        at = has_owner(state.at, index, owner._replace(phase=OPEN))
        at = at._replace(epochs=tuple(sorted((*at.epochs, owner.place.epoch))))
        after = state._replace(at=at)
        if self.rules.syncs_claim:
            after = _synced(after)
        return f"{name(index)} opens with epoch {owner.place.epoch}", after

    def _write(self, state: LockedState, index: int) -> Iterator[_Step]:
        """Hand a batch to the thread that writes; it is written; it is synced."""
        at, owner, who = state.at, state.at.owners[index], name(index)
        if not owner.waits:
            if owner.writes < self.writes:
                place = owner.place
                crc = f"{who}{owner.life}.{owner.writes + 1}"
                batch = Batch(crc, place.epoch, place.end, place.crc, claim=False)
                late = at.epochs[-1] > place.epoch
                owner = owner._replace(
                    writes=owner.writes + 1,
                    waits=(Wait(batch, place.offset, late),),
                )
                yield (
                    f"{who} has {crc} to write",
                    state._replace(at=has_owner(at, index, owner)),
                )
            return
        (wait,) = owner.waits
        batch = wait.batch
        if wait.answer is None:
            answer = Answer("ok", len(at.log))
            written = owner._replace(waits=(wait._replace(answer=answer),))
            after = has_owner(at, index, written)._replace(log=(*at.log, batch))
            yield f"{batch.crc} is in the cache", state._replace(at=after)
            if at.fulls:
                full = has_owner(at, index, owner._replace(waits=()))
                full = full._replace(
                    refused=tuple(sorted((*at.refused, batch.crc))), fulls=at.fulls - 1
                )
                if not self.rules.cuts_what_did_not_fit:
                    full = full._replace(log=(*at.log, batch))
                yield (
                    f"{batch.crc} finds no space, and is said to be not written",
                    state._replace(at=full),
                )
        else:
            done = owner._replace(
                place=behind(batch, wait.offset),
                seen=(*owner.seen, batch.crc),
                waits=(),
            )
            after = has_owner(at, index, done)._replace(
                acknowledged=(*at.acknowledged, batch.crc),
                too_late=batch.crc if wait.late else at.too_late,
            )
            new = state._replace(at=after)
            if self.rules.syncs_writes:
                new = _synced(new)
            yield f"{who} acknowledges {batch.crc}", new

    def _save(self, state: LockedState, index: int) -> Iterator[_Step]:
        """Save what is acknowledged, and trim."""
        at, owner = state.at, state.at.owners[index]
        if owner.saves < self.saves and owner.place.end > owner.saved:
            checkpoint = Checkpoint(owner.place.epoch, owner.place, owner.seen)
            owner = owner._replace(saves=owner.saves + 1, saved=owner.place.end)
            after = has_owner(at, index, owner)._replace(
                checkpoints=(checkpoint,), start=owner.place.offset
            )
            kept = (checkpoint,) if self.rules.syncs_checkpoint else state.kept
            yield (
                f"{name(index)} saves a checkpoint up to {owner.seen[-1]}, and trims",
                state._replace(at=after, kept=kept),
            )

    def _close(self, state: LockedState, index: int) -> Iterator[_Step]:
        owner = state.at.owners[index]
        under_way = tuple(wait.batch for wait in owner.waits if wait.answer is None)
        if under_way and not self.rules.closes_behind_writes and not state.late:
            verb, closed = self._end(state, index, "closes, with a write under way")
            yield verb, closed._replace(late=under_way)

    def _end(self, state: LockedState, index: int, verb: str) -> _Step:
        """End a life; the lock is free again."""
        at = has_owner(state.at, index, Owner(life=state.at.owners[index].life))
        holder = NOBODY if state.holder == index else state.holder
        return f"{name(index)} {verb}", state._replace(at=at, holder=holder)

    def _cut(self, state: LockedState) -> Iterator[_Step]:
        """Cut the power: all end, and nobody knows how much is left."""
        if not state.cuts:
            return
        at = state.at
        owners = tuple(Owner(life=owner.life) for owner in at.owners)
        at = at._replace(owners=owners, checkpoints=state.kept)
        for left in range(state.synced, len(at.log) + 1):
            cut = at._replace(log=at.log[:left])
            yield (
                f"the power is cut, {left} entries are left",
                LockedState(cut, synced=left, kept=state.kept, cuts=state.cuts - 1),
            )

    def violation(self, state: LockedState) -> str:
        """See `explorer.Model`."""
        reader, at = self._reader, state.at
        if wrong := of_the_owners(reader, at):
            return wrong
        seen = (at.log, at.start, at.checkpoints, at.acknowledged, at.refused)
        if seen in self._fine:
            return ""
        _, valid = reader.history(at)
        if len(valid) < len(at.log):
            return f"damage: of {len(at.log)} entries {len(valid)} are valid"
        wrong = (
            of_the_log(reader, at)
            or of_the_checkpoint(reader, at)
            or self._of_a_lone_claimant(state)
        )
        if not wrong:
            self._fine.add(seen)
        return wrong

    def _of_a_lone_claimant(self, state: LockedState) -> str:
        """Let the others die: it opens, and gets a batch acknowledged."""
        alone = state._replace(
            at=state.at._replace(owners=(Owner(life=8),), fulls=0, acknowledged=()),
            holder=NOBODY,
        )
        _, alone = self._open(self._claim(alone, 0)[1], 0)
        for _ in range(3):
            for _, after in self._write(alone, 0):
                alone = after
        return "" if alone.at.acknowledged else "one alone gets nothing acknowledged"

    def tell(self, action: str, before: LockedState, after: LockedState) -> str:
        """See `explorer.Model`."""
        del before, after
        return action


def _synced(state: LockedState) -> LockedState:
    return state._replace(synced=len(state.at.log))
