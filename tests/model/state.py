"""All there is at one time: the log, what is under way to it, and its owners."""

from typing import NamedTuple

from tests.model.rules import START, Batch, Checkpoint, Place

__all__ = [
    "CLAIMED",
    "CLAIMING",
    "DOWN",
    "LOADED",
    "OPEN",
    "RECOVERING",
    "Action",
    "Answer",
    "Owner",
    "Request",
    "Save",
    "State",
    "Wait",
    "advanced",
    "answered",
    "behind",
    "find",
    "has_owner",
    "name",
    "put",
    "replaced",
    "trim",
]

DOWN = "down"
LOADED = "loaded"
CLAIMING = "claiming"
CLAIMED = "claimed"
RECOVERING = "recovering"
OPEN = "open"


class Answer(NamedTuple):
    """What the log said to an append or a save."""

    kind: str
    """ok, duplicate, wrong or full."""
    offset: int
    """Where it lies; of a refused one, the last offset; of a save, the revision."""


class Wait(NamedTuple):
    """An append that its owner waits for."""

    batch: Batch
    offset: int
    """Where it has to land."""
    late: bool
    """Whether a newer owner's claim had returned when it was sent."""
    resent: bool = False
    answer: Answer | None = None


class Save(NamedTuple):
    """A checkpoint that its owner waits for."""

    number: int
    checkpoint: Checkpoint
    answer: Answer | None = None


class Request(NamedTuple):
    """Something under way to the log. The first five tell it from all others."""

    kind: str
    """append, save or trim."""
    owner: int
    life: int
    number: int
    """Of this kind and life."""
    copy: int
    """1 if it is sent for the second time."""
    batch: Batch | None = None
    checkpoint: Checkpoint | None = None
    expected: int = -1
    """The next offset, or the revision, that the sender knows of; -1: any."""


class Owner(NamedTuple):
    """A process, and how far it is."""

    life: int = 0
    phase: str = DOWN
    place: Place = START
    """Behind the last batch that it knows to be valid."""
    seen: tuple[str, ...] = ()
    """Those up to there, in order: what it acts on when it is open."""
    base: Place = START
    """Where recovery reads on from."""
    writes: int = 0
    waits: tuple[Wait, ...] = ()
    saves: int = 0
    saved: int = -1
    """The end of the last checkpoint that it began to save."""
    save: Save | None = None
    revision: int = 0
    """Of the checkpoint that it knows of."""


class State(NamedTuple):
    """A state of the model."""

    log: tuple[Batch, ...] = ()
    """All that ever was in it; what is trimmed is read by no owner."""
    start: int = 0
    """The oldest offset kept."""
    revision: int = 0
    checkpoints: tuple[Checkpoint, ...] = ()
    under_way: tuple[Request, ...] = ()
    """Sorted, so that equal sets are equal."""
    owners: tuple[Owner, ...] = ()
    acknowledged: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    """Told to be not written."""
    epochs: tuple[int, ...] = ()
    """Of claims that returned, sorted."""
    too_late: str = ""
    """Acknowledged, though sent when a newer owner's claim had returned."""
    resends: int = 0
    """How many there may be yet."""
    fulls: int = 0
    """How many times there may be no space yet."""


class Action(NamedTuple):
    """Who did what, for the story."""

    verb: str
    owner: int
    request: Request | None = None


def name(index: int) -> str:
    """Name an owner."""
    return "ABC"[index]


def replaced(owners: tuple[Owner, ...], index: int, owner: Owner) -> tuple[Owner, ...]:
    """Return *owners* with another one at *index*."""
    return (*owners[:index], owner, *owners[index + 1 :])


def has_owner(state: State, index: int, owner: Owner) -> State:
    """Return *state* with another owner at *index*."""
    return state._replace(owners=replaced(state.owners, index, owner))


def behind(batch: Batch, offset: int) -> Place:
    """Return the place of a reader for whom *batch*, at *offset*, was valid."""
    return Place(offset + 1, batch.epoch, batch.first + 1, batch.crc)


def put(state: State, request: Request) -> State:
    """Send *request*."""
    return state._replace(under_way=tuple(sorted((*state.under_way, request))))


def find(log: tuple[Batch, ...], crc: str, begin: int) -> int:
    """Return the offset of a batch, from *begin* on; -1 if it is not there."""
    for offset in range(begin, len(log)):
        if log[offset].crc == crc:
            return offset
    return -1


def answered(state: State, request: Request, answer: Answer) -> State:
    """Give *answer* to who waits for it; what nobody waits for has none."""
    owner = state.owners[request.owner]
    if owner.life != request.life:
        return state
    if request.kind == "save":
        save = owner.save
        if save is None or save.number != request.number:
            return state
        save = save._replace(answer=answer)
        return has_owner(state, request.owner, owner._replace(save=save))
    waits = tuple(
        wait._replace(answer=wait.answer or answer)
        if wait.batch == request.batch
        else wait
        for wait in owner.waits
    )
    return has_owner(state, request.owner, owner._replace(waits=waits))


def advanced(place: Place, entry: Batch, offset: int) -> Place:
    """Return where a reader at *place* goes on, once *entry* is known to count."""
    if entry.checkpoint is not None:
        return place._replace(offset=offset + 1)
    return behind(entry, offset)


def trim(index: int, owner: Owner, save: Save) -> Request:
    """Ask to let go of what the checkpoint of *save* covers."""
    return Request(
        kind="trim",
        owner=index,
        life=owner.life,
        number=save.number,
        copy=0,
        checkpoint=save.checkpoint,
    )
