"""Owners of one partition, on a log that all of them can write to.

    down --load--> loaded --read, claim--> claiming --read up to it--> claimed
      ^                                       |                          | load
      +-------- lost, fenced, in doubt, dead -+                          v
      `---------------------------------------+-- open <--read-- recovering

The checkpoint is loaded twice, as by the port: `Journal.open` needs to know behind
which batch the claim belongs, and has read up to the claim when it returns; the engine
then loads the checkpoint, and reads from there up to the claim. In between, what an
older owner sent may save another checkpoint, and trim.

A life is one opening; whoever is down may try again, in another life. What a life sent
stays under way when it ends, and is delivered at any later time, or never. An answer is
taken when its owner takes it; that one got lost is that the owner gives up first. So
loss, delay, another order, crashes and time-outs need no actions of their own.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.model.invariants import (
    of_a_gap,
    of_the_checkpoint,
    of_the_log,
    of_the_owners,
)
from tests.model.log import deliver, forget, pick_in_log, reach
from tests.model.rules import START, Batch, Checkpoint, Place, Rules, Transport, read
from tests.model.state import (
    CLAIMED,
    CLAIMING,
    DOWN,
    LOADED,
    OPEN,
    RECOVERING,
    Action,
    Answer,
    Owner,
    Request,
    Save,
    State,
    Wait,
    advanced,
    behind,
    find,
    has_owner,
    name,
    put,
    trim,
)
from tests.model.story import tell

__all__ = ["SharedLog"]

RIGHT = Rules()

_Step = tuple[Action, State]
_Histories = dict[tuple[Batch, ...], tuple[Place, tuple[str, ...]]]


@dataclass(frozen=True, kw_only=True)
class SharedLog:
    """The model: a transport, the rules, and bounds that keep it finite."""

    transport: Transport
    rules: Rules = RIGHT
    owners: int = 2
    lives: int = 2
    """Of each owner."""
    writes: int = 1
    """Batches of each life."""
    saves: int = 0
    """Checkpoints of each life."""
    resends: int = 0
    """In all."""
    fulls: int = 0
    """Times that the log has no space, in all."""
    _fine: set[object] = field(
        default_factory=set[object], init=False, repr=False, compare=False
    )
    """Parts of states in which everything holds."""
    _histories: _Histories = field(
        default_factory=_Histories, init=False, repr=False, compare=False
    )

    def initial(self) -> State:
        """See `explorer.Model`."""
        owners = (Owner(),) * self.owners
        return State(owners=owners, resends=self.resends, fulls=self.fulls)

    def successors(self, state: State) -> Iterator[_Step]:
        """See `explorer.Model`."""
        for index, owner in enumerate(state.owners):
            if owner.phase == DOWN:
                if owner.life < self.lives:
                    yield self._load(state, index)
            elif owner.phase == LOADED:
                yield self._claim(state, index)
            elif owner.phase == CLAIMED:
                yield self._recover(state, index)
            elif owner.phase == RECOVERING:
                yield self._read(state, index)
            else:
                yield self._give_up(state, index, "dies, or waits no longer")
                yield from self._resend(state, index)
                if owner.phase == CLAIMING:
                    yield from self._confirm(state, index)
                else:
                    yield from self._write(state, index)
                    yield from self._take_answer(state, index)
                    yield from self._checkpoint(state, index)
        for request in state.under_way:
            yield from deliver(self, state, request)

    def violation(self, state: State) -> str:
        """See `explorer.Model`."""
        written = (state.log, state.acknowledged, state.refused)
        if written not in self._fine:
            if wrong := of_the_log(self, state):
                return wrong
            self._fine.add(written)
        if wrong := of_the_owners(self, state):
            return wrong
        if self.rules.saves_in_log and (wrong := of_a_gap(self, state)):
            return wrong
        kept = (state.log, state.start, state.checkpoints)
        if kept not in self._fine:
            wrong = of_the_checkpoint(self, state) or self._of_a_lone_claimant(state)
            if wrong:
                return wrong
            self._fine.add(kept)
        return ""

    def tell(self, action: Action, before: State, after: State) -> str:
        """See `explorer.Model`."""
        return tell(action, before, after)

    # Reading.

    def history(self, state: State) -> tuple[Place, tuple[str, ...]]:
        """See `invariants.Reader`."""
        found = self._histories.get(state.log)
        if found is None:
            found = self._histories[state.log] = read(self.rules, state.log, START)
        return found

    def pick(self, state: State) -> Checkpoint | None:
        """See `invariants.Reader`."""
        if self.rules.saves_in_log:
            return pick_in_log(self, state.log[state.start :])
        if not state.checkpoints:
            return None
        if self.transport is Transport.APPEND and self.rules.fences_saves:
            return max(state.checkpoints, key=reach)
        return state.checkpoints[-1]

    def loaded(self, state: State, owner: Owner) -> Owner:
        """See `invariants.Reader`."""
        checkpoint = self.pick(state)
        if checkpoint is None:
            return owner._replace(place=START, seen=(), revision=state.revision)
        place, seen = checkpoint.place, checkpoint.holds
        return owner._replace(place=place, seen=seen, revision=state.revision)

    def begin(self, state: State, place: Place) -> Place | None:
        """See `invariants.Reader`."""
        if state.start <= place.offset:
            return place
        return None if self.rules.notices_gap else place._replace(offset=state.start)

    def begin_by_checkpoint(self, state: State, place: Place) -> Place | None:
        """See `invariants.Reader`."""
        begin = self.begin(state, place)
        if begin is None or self.rules.begins_by_checkpoint:
            return begin
        if begin.offset >= len(state.log):
            return begin
        oldest = state.log[begin.offset]
        return Place(begin.offset, 0, oldest.first, oldest.after)

    # An owner opens.

    def _load(self, state: State, index: int) -> _Step:
        """Begin a life, with the checkpoint."""
        owner = self.loaded(state, Owner(state.owners[index].life + 1, LOADED))
        return Action("loads", index), has_owner(state, index, owner)

    def _claim(self, state: State, index: int) -> _Step:
        """Read what there is, and send a claim that would follow it."""
        owner = state.owners[index]
        begin = self.begin_by_checkpoint(state, owner.place)
        if begin is None:
            again = has_owner(state, index, self.loaded(state, owner))
            return Action("loads again", index), again
        place, _ = read(self.rules, state.log, begin)
        epoch = place.epoch + self.rules.raises_epoch
        crc = f"{name(index)}{owner.life}"
        if not self.rules.claims_are_unique:
            crc = f"claim-{epoch}-at-{place.end}"
        batch = Batch(crc, epoch, place.end, place.crc, claim=True)
        owner = owner._replace(
            phase=CLAIMING,
            place=place,
            seen=(),
            waits=(Wait(batch, place.offset, late=False),),
        )
        return Action("claims", index), self._send(state, index, owner)

    def _confirm(self, state: State, index: int) -> Iterator[_Step]:
        """Look for the claim in the log, and at what lies before it."""
        owner = state.owners[index]
        (wait,) = owner.waits
        if self._expects(wait.batch):
            if wait.answer is None:
                return
            offset = wait.offset if wait.answer == Answer("ok", wait.offset) else -1
            if offset < 0:
                yield self._give_up(state, index, "has lost the race")
                return
        else:
            offset = find(state.log, wait.batch.crc, owner.place.offset)
            if offset < 0:
                return
        own = behind(wait.batch, offset)
        if self.rules.reads_to_own_claim:
            begin = self.begin(state, owner.place)
            if begin is None:
                yield self._give_up(state, index, "finds a gap before its claim")
                return
            if read(self.rules, state.log[: offset + 1], begin)[0] != own:
                yield self._give_up(state, index, "finds its claim void")
                return
        owner = owner._replace(phase=CLAIMED, place=own, waits=())
        epochs = tuple(sorted((*state.epochs, own.epoch)))
        after = has_owner(state, index, owner)._replace(epochs=epochs)
        yield Action("opens", index), after

    def _recover(self, state: State, index: int) -> _Step:
        """Load the checkpoint: the engine, to know where to read from."""
        owner = state.owners[index]
        at = state
        if self.rules.saves_in_log:
            # As of the claim. If it is gone by now, so is what it covers: see `_read`.
            at = state._replace(log=state.log[: owner.place.offset])
        checkpoint = self.pick(at)
        newer = checkpoint is not None and checkpoint.epoch > owner.place.epoch
        if newer and self.rules.obeys_newer_checkpoint:
            return self._give_up(state, index, "finds a newer owner's checkpoint")
        loaded = self.loaded(at, owner)
        owner = loaded._replace(phase=RECOVERING, base=loaded.place, place=owner.place)
        return Action("loads", index), has_owner(state, index, owner)

    def _read(self, state: State, index: int) -> _Step:
        """Read from the checkpoint up to the claim."""
        owner = state.owners[index]
        begin = self.begin_by_checkpoint(state, owner.base)
        if begin is None and not self.rules.recovers_all:
            begin = owner.base._replace(offset=state.start)
        if begin is None and self.rules.saves_in_log:
            # Who trimmed behind our claim had a newer one.
            return self._give_up(state, index, "finds a gap, so it is fenced")
        if begin is None:
            again = owner._replace(phase=CLAIMED, seen=(), base=START)
            return Action("finds a gap", index), has_owner(state, index, again)
        entries = state.log[: owner.place.offset]
        _, valid = read(self.rules, entries, begin)
        owner = owner._replace(phase=OPEN, seen=owner.seen + valid, base=START)
        return Action("recovers", index), has_owner(state, index, owner)

    def _give_up(self, state: State, index: int, verb: str) -> _Step:
        """End a life. What it sent stays under way."""
        life = state.owners[index].life
        after = has_owner(state, index, Owner(life=life))
        return Action(verb, index), forget(self, after)

    # It writes.

    def _write(self, state: State, index: int) -> Iterator[_Step]:
        owner = state.owners[index]
        if owner.writes >= self.writes or len(owner.waits) >= self.rules.in_flight:
            return
        place = owner.place
        for wait in owner.waits:
            place = advanced(place, wait.batch, wait.offset)
        crc = f"{name(index)}{owner.life}.{owner.writes + 1}"
        batch = Batch(crc, place.epoch, place.end, place.crc, claim=False)
        late = bool(state.epochs) and state.epochs[-1] > place.epoch
        waits = (*owner.waits, Wait(batch, place.offset, late))
        owner = owner._replace(writes=owner.writes + 1, waits=waits)
        yield Action("writes", index), self._send(state, index, owner)

    def _send(self, state: State, index: int, owner: Owner) -> State:
        """Send the last one that *owner* waits for."""
        request = self._request(index, owner, len(owner.waits) - 1, copy=0)
        return put(has_owner(state, index, owner), request)

    def _request(self, index: int, owner: Owner, which: int, *, copy: int) -> Request:
        wait = owner.waits[which]
        sent = owner.writes + owner.saves * self.rules.saves_in_log
        return Request(
            kind="append",
            owner=index,
            life=owner.life,
            number=sent - (len(owner.waits) - 1 - which),
            copy=copy,
            batch=wait.batch,
            expected=wait.offset if self._expects(wait.batch) else -1,
        )

    def _expects(self, batch: Batch) -> bool:
        """Say whether *batch* is appended only where its sender thinks the end is."""
        if self.transport is Transport.APPEND:
            return False
        if batch.checkpoint is not None:
            return self.rules.fences_saves
        return self.rules.claims_expect or not batch.claim

    def _resend(self, state: State, index: int) -> Iterator[_Step]:
        """Send once more what is not answered."""
        owner = state.owners[index]
        if not (self.rules.resends and state.resends):
            return
        for which, wait in enumerate(owner.waits):
            if wait.answer is None and not wait.resent:
                request = self._request(index, owner, which, copy=1)
                resent = wait._replace(resent=True)
                waits = (*owner.waits[:which], resent, *owner.waits[which + 1 :])
                after = has_owner(state, index, owner._replace(waits=waits))
                after = put(after, request)._replace(resends=state.resends - 1)
                yield Action("sends again", index, request), after

    def _take_answer(self, state: State, index: int) -> Iterator[_Step]:
        """Acknowledge what has landed in its place; else, die."""
        owner = state.owners[index]
        waits = owner.waits[:1] if self.rules.in_order else owner.waits
        for which, wait in enumerate(waits):
            if wait.answer is None:
                continue
            if wait.answer.kind == "full":
                yield self._was_full(state, index, wait)
            elif self._is_acknowledged(state, owner, wait):
                yield self._acknowledge(state, index, which)
            elif self.rules.dies_when_fenced:
                yield self._give_up(state, index, "is fenced")
            else:
                place = owner.place._replace(offset=wait.answer.offset + 1)
                goes_on = owner._replace(place=place, waits=owner.waits[which + 1 :])
                yield Action("is fenced", index), has_owner(state, index, goes_on)

    def _acknowledge(self, state: State, index: int, which: int) -> _Step:
        owner = state.owners[index]
        wait = owner.waits[which]
        batch = wait.batch
        assert wait.answer is not None
        done = owner._replace(waits=(*owner.waits[:which], *owner.waits[which + 1 :]))
        if which == 0:
            done = done._replace(place=advanced(owner.place, batch, wait.answer.offset))
        after = state._replace(too_late=batch.crc if wait.late else state.too_late)
        if batch.checkpoint is not None:
            after = has_owner(after, index, done)
            if self.rules.trims_behind_save:
                save = Save(owner.saves, batch.checkpoint)
                after = put(after, trim(index, owner, save))
            return Action("knows that it is saved, and trims", index), after
        if which == 0:
            done = done._replace(seen=(*owner.seen, batch.crc))
        after = after._replace(acknowledged=(*state.acknowledged, batch.crc))
        return Action("acknowledges", index), has_owner(after, index, done)

    def _was_full(self, state: State, index: int, wait: Wait) -> _Step:
        """Say that nothing was written, and live; if that is certain."""
        owner = state.owners[index]
        certain = not wait.resent or self.rules.trusts_refusal_of_resent
        # Those behind it can't be valid; who sends several has to give all of them up.
        if not certain or len(owner.waits) > 1:
            return self._give_up(state, index, "is in doubt")
        after = has_owner(state, index, owner._replace(waits=()))
        refused = tuple(sorted((*state.refused, wait.batch.crc)))
        return Action("says it is not written", index), after._replace(refused=refused)

    def _is_acknowledged(self, state: State, owner: Owner, wait: Wait) -> bool:
        answer, rules = wait.answer, self.rules
        assert answer is not None
        in_place = answer.offset == wait.offset
        match answer.kind:
            case "ok":
                if in_place or not rules.contiguous:
                    return True
                return rules.looks_between and self._follows(state, owner, wait)
            case "duplicate":
                return rules.takes_duplicates and in_place
            case _:
                # It names the last offset. That is where ours would be.
                return rules.takes_refusal_for_ours and in_place

    def _follows(self, state: State, owner: Owner, wait: Wait) -> bool:
        """Read on to where it lies, as any reader would: is it the next valid one?"""
        assert wait.answer is not None
        if state.start > owner.place.offset:
            return False
        entries = state.log[: wait.answer.offset + 1]
        place, _ = read(self.rules, entries, owner.place)
        return place == advanced(owner.place, wait.batch, wait.answer.offset)

    # It saves a checkpoint, and trims.

    def _checkpoint(self, state: State, index: int) -> Iterator[_Step]:
        owner = state.owners[index]
        save = owner.save
        if self.rules.saves_in_log:
            if owner.saves < self.saves and owner.place.end > owner.saved:
                yield from self._save_in_log(state, index)
        elif save is None:
            if owner.saves < self.saves and owner.place.end > owner.saved:
                yield self._save(state, index)
        elif save.answer is None:
            # It may be stored yet. The handle lives, and may save another one.
            after = has_owner(state, index, owner._replace(save=None))
            yield Action("waits no longer to save", index), after
        elif save.answer.kind == "ok":
            done = owner._replace(save=None, revision=save.answer.offset)
            after = has_owner(state, index, done)
            if self.rules.trims_behind_save:
                after = put(after, trim(index, owner, save))
            yield Action("knows that it is saved, and trims", index), after
        else:
            stored = self.pick(state)
            if stored is not None and stored.epoch > owner.place.epoch:
                yield self._give_up(state, index, "finds a newer owner's checkpoint")
            else:
                again = owner._replace(save=None, saved=-1, revision=state.revision)
                action = Action("finds an older owner's checkpoint there", index)
                yield action, has_owner(state, index, again)

    def _save_in_log(self, state: State, index: int) -> Iterator[_Step]:
        """Write it as a batch is written: nothing else is in flight."""
        owner = state.owners[index]
        if owner.waits:
            return
        place = owner.place
        checkpoint = Checkpoint(place.epoch, place, owner.seen)
        crc = f"{name(index)}{owner.life}.checkpoint-{owner.saves + 1}"
        entry = Batch(crc, place.epoch, -1, "", claim=False, checkpoint=checkpoint)
        late = bool(state.epochs) and state.epochs[-1] > place.epoch
        owner = owner._replace(
            saves=owner.saves + 1,
            saved=place.end,
            waits=(Wait(entry, place.offset, late),),
        )
        after = self._send(state, index, owner)
        if not self.rules.trims_behind_save:
            after = put(after, trim(index, owner, Save(owner.saves, checkpoint)))
        yield Action("writes", index), after

    def _save(self, state: State, index: int) -> _Step:
        owner = state.owners[index]
        place, holds = owner.place, owner.seen
        if not self.rules.saves_what_is_acknowledged:
            for wait in owner.waits:
                place = advanced(place, wait.batch, wait.offset)
                holds = (*holds, wait.batch.crc)
        save = Save(owner.saves, Checkpoint(place.epoch, place, holds))
        fenced = self.transport is Transport.COMPARE and self.rules.fences_saves
        request = Request(
            kind="save",
            owner=index,
            life=owner.life,
            number=save.number,
            copy=0,
            checkpoint=save.checkpoint,
            expected=owner.revision if fenced else -1,
        )
        owner = owner._replace(saves=owner.saves + 1, saved=place.end, save=save)
        after = put(has_owner(state, index, owner), request)
        if not self.rules.trims_behind_save:
            after = put(after, trim(index, owner, save))
        return Action("saves", index, request), after

    # What has to hold besides.

    def _of_a_lone_claimant(self, state: State) -> str:
        """Let one go on by itself: it opens, and gets a batch acknowledged."""
        alone = state._replace(
            under_way=(), owners=(Owner(life=8),), fulls=0, epochs=()
        )
        alone = alone._replace(acknowledged=(), too_late="")
        _, alone = self._claim(self._load(alone, 0)[1], 0)
        if alone.owners[0].phase != CLAIMING:
            return "one alone can't read what it would claim"
        for steps in (self._confirm, self._write, self._take_answer):
            for request in alone.under_way:
                _, alone = next(deliver(self, alone, request))
            for _, after in steps(alone, 0):
                alone = after
            if alone.owners[0].phase == CLAIMED:
                _, alone = self._read(self._recover(alone, 0)[1], 0)
        if not alone.acknowledged:
            return "one alone claims, writes, and gets nothing acknowledged"
        return ""
