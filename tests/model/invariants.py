"""What has to hold in every state, in the words of docs/shared-log.md."""

from typing import Protocol

from tests.model.rules import Checkpoint, Place, Rules, read
from tests.model.state import LOADED, OPEN, RECOVERING, Owner, State, name

__all__ = ["Reader", "of_a_gap", "of_the_checkpoint", "of_the_log", "of_the_owners"]


class Reader(Protocol):
    """How a model's owners read."""

    @property
    def rules(self) -> Rules:
        """What makes a batch valid."""
        ...

    def history(self, state: State) -> tuple[Place, tuple[str, ...]]:
        """Return what a reader makes of the whole log, were nothing trimmed."""
        ...

    def pick(self, state: State) -> Checkpoint | None:
        """Choose the checkpoint that a reader loads."""
        ...

    def loaded(self, state: State, owner: Owner) -> Owner:
        """Let *owner* load it."""
        ...

    def begin_by_checkpoint(self, state: State, place: Place) -> Place | None:
        """Say how reading begins at *place*, that of a checkpoint."""
        ...


def of_the_log(reader: Reader, state: State) -> str:
    """Check what was acknowledged, and refused, against what is valid."""
    _, valid = reader.history(state)
    if len(set(valid)) < len(valid):
        return f"a batch is read twice: {_list(valid)}"
    lost = [crc for crc in state.acknowledged if crc not in valid]
    if lost:
        return f"acknowledged, and read by nobody: {_list(lost)}"
    batches = {batch.crc: batch for batch in state.log}
    epochs = [batches[crc].epoch for crc in valid]
    if epochs != sorted(epochs):
        return f"an old owner's batch is valid behind a newer claim: {_list(valid)}"
    if [batches[crc].first for crc in valid] != [*range(len(valid))]:
        return f"the positions of what is valid have gaps: {_list(valid)}"
    if wrong := [crc for crc in state.refused if crc in valid]:
        return f"said to be not written, and valid: {_list(wrong)}"
    return ""


def of_the_owners(reader: Reader, state: State) -> str:
    """Check what the owners know, and when they acknowledged."""
    if state.too_late:
        return f"acknowledged behind a newer owner's claim: {state.too_late}"
    if len(set(state.epochs)) < len(state.epochs):
        return f"two owners act under one epoch: {_list(state.epochs)}"
    valid: tuple[str, ...] | None = None
    for index, owner in enumerate(state.owners):
        if owner.phase == OPEN:
            if valid is None:
                _, valid = reader.history(state)
            up_to_there = valid[: owner.place.end]
            if owner.seen != up_to_there:
                return (
                    f"{name(index)} stands at position {owner.place.end} and goes by "
                    f"{_list(owner.seen)}; what is valid there is {_list(up_to_there)}"
                )
    return ""


def of_a_gap(reader: Reader, state: State) -> str:
    """Check that who finds a gap behind its claim may say that it is fenced."""
    newest = reader.history(state)[0].epoch
    for owner in state.owners:
        gap = owner.phase == RECOVERING and state.start > owner.base.offset
        if gap and newest <= owner.place.epoch:
            return "a gap, and nobody newer has claimed"
    return ""


def of_the_checkpoint(reader: Reader, state: State) -> str:
    """Check that a reader, from the checkpoint on, finds what the whole log says."""
    place, valid = reader.history(state)
    checkpoint = reader.pick(state)
    loaded = reader.loaded(state, Owner(phase=LOADED))
    if state.start > loaded.place.offset:
        covers = "no checkpoint covers any"
        if checkpoint is not None:
            covers = f"the checkpoint goes on from offset {loaded.place.offset}"
        return f"the log begins at offset {state.start}, {covers}"
    begin = reader.begin_by_checkpoint(state, loaded.place)
    assert begin is not None
    at, more = read(reader.rules, state.log, begin)
    found = loaded.seen + more
    if begin.offset > len(state.log) or (at, found) != (place, valid):
        return (
            f"by its checkpoint a reader finds {_list(found)}, "
            f"the whole log says {_list(valid)}"
        )
    return ""


def _list(names: tuple[object, ...] | list[str]) -> str:
    return ", ".join(map(str, names)) or "nothing"
