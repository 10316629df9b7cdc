"""What the two shared logs do with what arrives, and what they keep."""

from collections.abc import Iterator
from typing import Protocol

from tests.model.rules import Batch, Checkpoint, Rules, Transport
from tests.model.state import Action, Answer, Request, State, answered, find

__all__ = ["Log", "deliver", "forget", "pick_in_log", "reach"]


class Log(Protocol):
    """Which log it is."""

    @property
    def transport(self) -> Transport:
        """Its kind."""
        ...

    @property
    def rules(self) -> Rules:
        """What it is asked to do."""
        ...


def deliver(log: Log, state: State, request: Request) -> Iterator[tuple[Action, State]]:
    """Yield what may come of *request* when it arrives."""
    under_way = tuple(other for other in state.under_way if other != request)
    arrived = state._replace(under_way=under_way)
    action = Action("arrives", request.owner, request)
    if request.kind == "save":
        yield action, _store(log, arrived, request)
    elif request.kind == "trim":
        yield action, _trim(log, arrived, request)
    else:
        yield action, _append(log, arrived, request)
        assert request.batch is not None
        plain = not request.batch.claim and request.batch.checkpoint is None
        if state.fulls and plain:
            full = answered(arrived, request, Answer("full", 0))
            yield action._replace(verb="full"), full._replace(fulls=state.fulls - 1)


def _append(log: Log, state: State, request: Request) -> State:
    batch, end = request.batch, len(state.log)
    assert batch is not None
    if log.rules.message_ids:
        for offset, other in enumerate(state.log):
            if other.first == batch.first:
                return answered(state, request, Answer("duplicate", offset))
    if request.expected not in {-1, end}:
        return answered(state, request, Answer("wrong", end - 1))
    knows = log.rules.resends and log.rules.idempotent
    if log.transport is Transport.APPEND and knows:
        before = find(state.log, batch.crc, 0)
        if before >= 0:
            return answered(state, request, Answer("ok", before))
    state = state._replace(log=(*state.log, batch))
    return forget(log, answered(state, request, Answer("ok", end)))


def forget(log: Log, state: State) -> State:
    """Drop what can have no effect any more. Fewer states, and nothing else.

    That is an append to an end that the log has passed, which nobody waits for.
    """
    if log.transport is Transport.APPEND or log.rules.message_ids:
        return state
    kept = tuple(
        request
        for request in state.under_way
        if request.kind != "append"
        or request.expected == -1
        or request.expected >= len(state.log)
        or _has_waiter(state, request)
    )
    return state._replace(under_way=kept)


def _store(log: Log, state: State, request: Request) -> State:
    checkpoint = request.checkpoint
    assert checkpoint is not None
    if request.expected not in {-1, state.revision}:
        return answered(state, request, Answer("wrong", state.revision))
    revision = state.revision
    checkpoints: tuple[Checkpoint, ...] = (checkpoint,)
    if log.transport is Transport.COMPARE:
        revision += 1
    elif log.rules.fences_saves:
        checkpoints = tuple(sorted({*state.checkpoints, checkpoint}))
    after = state._replace(revision=revision, checkpoints=checkpoints)
    return answered(after, request, Answer("ok", revision))


def _trim(log: Log, state: State, request: Request) -> State:
    """Let the log begin where the checkpoint ends; remove those it replaces."""
    checkpoint = request.checkpoint
    assert checkpoint is not None
    kept = state.checkpoints
    if log.transport is Transport.APPEND and log.rules.fences_saves:
        others = not log.rules.removes_only_older
        kept = tuple(
            other
            for other in kept
            if other == checkpoint or (not others and reach(other) > reach(checkpoint))
        )
    start = min(checkpoint.place.offset, len(state.log))
    return state._replace(start=max(state.start, start), checkpoints=kept)


def pick_in_log(log: Log, entries: tuple[Batch, ...]) -> Checkpoint | None:
    """Choose the checkpoint that a reader of *entries* loads."""
    found = [entry.checkpoint for entry in entries if entry.checkpoint is not None]
    if not found:
        return None
    newest = max(checkpoint.epoch for checkpoint in found)
    if log.transport is Transport.APPEND and log.rules.fences_saves:
        found = [one for one in found if one.epoch == newest]
    return found[-1]


def reach(checkpoint: Checkpoint) -> tuple[int, int]:
    """Order the checkpoints that have places of their own."""
    return checkpoint.epoch, checkpoint.place.end


def _has_waiter(state: State, request: Request) -> bool:
    owner = state.owners[request.owner]
    return owner.life == request.life and any(
        wait.batch == request.batch for wait in owner.waits
    )
