"""What the admin socket says and hears: the commands and results of its registry.

    0 Status    --> Server
    1 Submit    --> Accepted, then Ended if `Submit.wait`
    2 List      --> Workflows
    3 Show      --> Workflows, of one
    4 Retry     --> Accepted, then Ended if `Retry.wait`
    5 Cancel    --> Accepted, then Ended if `Cancel.wait`
    6 Wait      --> Ended

Any of them may be answered by `Failed` instead. It is cmd-stream with the JSON codec,
so a Go program can do what ``coordinator`` does: append only, never reorder.
"""

from collections.abc import Iterable

import msgspec

from cmdstream import JsonCodec, Registry, ResultType
from coordinator.runs import WorkflowInfo

__all__ = [
    "SERVER_INFO",
    "Accepted",
    "Cancel",
    "Ended",
    "Failed",
    "List",
    "Retry",
    "Server",
    "Show",
    "Status",
    "Submit",
    "Suspended",
    "Wait",
    "Workflows",
    "admin_codec",
    "listed",
]

SERVER_INFO = b"coordinator admin 1"
"""The number changes when old and new can't talk to each other."""


LIST_SIZE_MAX = 8 * 1024 * 1024
"""Bytes of JSON in one list. A frame takes 16 MiB, and whatever the number of stuck
workflows and the length of their keys, a person must see those that fit."""
REASON_LENGTH_MAX = 200
"""Characters of a reason in a list: a line. `Show` has all of it."""


class Status(msgspec.Struct, frozen=True):
    """How is the server?"""


class Submit(msgspec.Struct, frozen=True, kw_only=True):
    """Run a command."""

    type: str
    payload: str
    """JSON, as a cmd-stream client would send it."""
    wait: bool = False


class List(msgspec.Struct, frozen=True, kw_only=True):
    """Which workflows are unfinished? Of their reasons come the first lines."""

    statuses: list[str] = []
    """Only those that have one of these; all if there is none."""
    type: str = ""
    """Only of this command type, if it is not empty."""
    limit: int = 0
    """At most so many, those accepted first; all if it is 0."""


class Show(msgspec.Struct, frozen=True, kw_only=True):
    """How is this workflow?"""

    id: str


class Retry(msgspec.Struct, frozen=True, kw_only=True):
    """Run a stuck workflow again."""

    id: str
    by: str
    wait: bool = False


class Cancel(msgspec.Struct, frozen=True, kw_only=True):
    """Stop a workflow and undo what it did."""

    id: str
    by: str
    reason: str
    wait: bool = False


class Wait(msgspec.Struct, frozen=True, kw_only=True):
    """Tell how it ends."""

    id: str


class Suspended(msgspec.Struct, frozen=True, kw_only=True):
    """A service that is not called but for probes."""

    service: str
    waiting: int
    """Delayed workflows that wait for it."""


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """How the server is."""

    pid: int
    journal_id: str
    python: str
    commands: list[str]
    """The types it knows."""
    unfinished: int
    stuck: int
    in_memory: int
    """Running or delayed: what `EngineOptions.commands_max` bounds."""
    commands_max: int
    closed: str
    """Why no command comes in at present; empty if some may."""
    suspended: list[Suspended]
    busy: str = ""
    """Why new commands wait for their turn, if they do; see `coordinator.pace`."""
    full: str = ""
    """Which disk has no space, so that new commands are refused; empty if none."""


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for is durable."""

    id: str
    last: bool
    """Whether this is all; else `Ended` follows."""


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """How a workflow ended, or that it is stuck."""

    id: str
    type: str
    status: str
    """``completed``, ``compensated``, ``cancelled`` or ``stuck``."""
    result: str
    """JSON of the value that `exec` returned; empty unless it completed."""
    reason: str
    """Why it was undone, or is stuck."""


class Workflows(msgspec.Struct, frozen=True, kw_only=True):
    """Unfinished workflows."""

    items: list[WorkflowInfo]
    total: int
    """How many there are, with those that the limit left out, or that did not fit."""
    full: str = ""
    """As `Server.full`."""


class Failed(msgspec.Struct, frozen=True, kw_only=True):
    """It was not done."""

    kind: str
    """Whose fault: ``usage``, ``not found``, ``conflict``, ``unavailable``."""
    message: str


def listed(workflows: Iterable[WorkflowInfo], wanted: List) -> Workflows:
    """Return those of *workflows* that are *wanted*, as they fit into an answer."""
    statuses = set(wanted.statuses)
    found = [
        info
        for info in workflows
        # One that is "aborting, delayed" is both.
        if (not statuses or not statuses.isdisjoint(info.status.split(", ")))
        and wanted.type in {"", info.type}
    ]
    found.sort(key=lambda info: info.accepted_at)
    items: list[WorkflowInfo] = []
    size = 0
    for info in found[: wanted.limit or None]:
        brief = msgspec.structs.replace(info, reason=_brief(info.reason))
        size += len(msgspec.json.encode(brief))
        if size > LIST_SIZE_MAX:
            break
        items.append(brief)
    return Workflows(items=items, total=len(found))


def _brief(reason: str) -> str:
    line = (reason.strip().splitlines() or [""])[0]
    if len(line) <= REASON_LENGTH_MAX:
        return line
    return line[: REASON_LENGTH_MAX - 1] + "…"


def admin_codec() -> JsonCodec:
    """Return the codec of both sides."""
    return JsonCodec(
        Registry(
            [Status, Submit, List, Show, Retry, Cancel, Wait],
            [Server, ResultType(Accepted, "last"), Ended, Workflows, Failed],
        )
    )
