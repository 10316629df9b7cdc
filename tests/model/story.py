"""What happened, in sentences."""

from tests.model.state import Action, Answer, Request, State, name

__all__ = ["tell"]


def tell(action: Action, before: State, after: State) -> str:
    """Say what *action* was, from the states around it."""
    if action.request is not None:
        return _tell_request(action, before, after)
    who = name(action.owner)
    was, owner = before.owners[action.owner], after.owners[action.owner]
    match action.verb:
        case "loads" | "loads again":
            what = f"a checkpoint of {_list(owner.seen)}" if owner.seen else "nothing"
            return f"{who} {action.verb}: {what}"
        case "claims":
            claim = owner.waits[0].batch
            return (
                f"{who} reads up to {owner.place.crc or 'the end'}, sends the claim "
                f"{claim.crc}: epoch {claim.epoch}, position {claim.first}"
            )
        case "opens":
            return f"{who} takes its claim for valid: epoch {owner.place.epoch}"
        case "recovers":
            return f"{who} has read up to its claim, knows {_list(owner.seen)}"
        case "writes":
            batch = owner.waits[-1].batch
            return (
                f"{who} sends {batch.crc}: epoch {batch.epoch}, position {batch.first}"
            )
        case "acknowledges":
            return f"{who} acknowledges {after.acknowledged[-1]}"
        case "says it is not written":
            return f"{who} says that {was.waits[0].batch.crc} is not written"
        case "is fenced":
            wait = next(wait for wait in was.waits if wait.answer is not None)
            return f"{who} is fenced: {wait.batch.crc} {_answer(wait.answer)}"
        case _:
            return f"{who} {action.verb}"


def _tell_request(action: Action, before: State, after: State) -> str:
    request = action.request
    assert request is not None
    what = _what(request)
    match action.verb:
        case "saves":
            return f"{what} is sent"
        case "sends again":
            return f"{what} is sent again"
        case "full":
            return f"{what} finds no space"
        case _ if request.kind == "append":
            if len(after.log) > len(before.log):
                return f"{what} lands at offset {len(after.log) - 1}"
            return f"{what} arrives, and is not put into the log"
        case _ if request.kind == "save":
            stored = request.checkpoint in after.checkpoints
            return f"{what} is {'stored' if stored else 'refused'}"
        case _:
            return f"{what} is done: the log begins at offset {after.start}"


def _what(request: Request) -> str:
    if request.batch is not None:
        return request.batch.crc
    assert request.checkpoint is not None
    who, holds = name(request.owner), _list(request.checkpoint.holds)
    if request.kind == "save":
        return f"{who}'s checkpoint of {holds}"
    return f"{who}'s trim up to its checkpoint of {holds}"


def _answer(answer: Answer | None) -> str:
    assert answer is not None
    if answer.kind == "ok":
        return f"lies at offset {answer.offset}"
    return f"is answered {answer.kind}, {answer.offset}"


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "nothing"
