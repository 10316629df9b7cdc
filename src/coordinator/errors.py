"""What can go wrong, sorted by who can do something about it.

    Exception
    |-- Refused                     a service did not do it and will not: compensate
    |-- CommandDelayed              nobody knows whether it did: ask again, same key
    |   `-- CommandBlocked          ... and the service is down: hold the others back
    `-- CoordinatorError            everything this package raises on its own account
        |-- CommandTypeError        a command class cannot be used; fix the class
        |-- ConcurrentStepsError    two steps of one name at once; name them apart
        |-- EncodeError             a value cannot be stored; fix its type
        |-- DecodeError             a stored value no longer fits its type; fix the code
        |-- NotAcceptedError        the coordinator takes no new command now; ask later
        |-- UnknownWorkflowError    no such workflow here
        |-- WorkflowStateError      the operator's action does not fit its state
        |-- WorkflowCancelledError  an operator cancelled the workflow; it was undone
        |-- WorkflowStuckError      the workflow waits for a person
        `-- JournalError
            |-- JournalFormatError  not a journal, or of a newer format
            |-- JournalLockedError  another process holds it
            |-- JournalUnavailableError  it can't be opened, e.g. for want of rights
            |-- JournalDamagedError stored bytes are not what was written
            |-- JournalFullError    no space (or file); nothing was written, try again
            |-- JournalClosedError  the handle was closed
            |-- FencedError         somebody newer owns the partition
            |-- UncertainError      nobody knows whether the last batch landed
            `-- JournalBrokenError  a write or flush failed; the process must end

`Refused`, `CommandDelayed` and `CommandBlocked` are words a service (or its gateway)
says to the engine, not accidents, so they carry no ``Error`` in their names.
"""

from collections.abc import Mapping
from types import MappingProxyType

__all__ = [
    "CommandBlocked",
    "CommandDelayed",
    "CommandTypeError",
    "ConcurrentStepsError",
    "CoordinatorError",
    "DecodeError",
    "EncodeError",
    "FencedError",
    "JournalBrokenError",
    "JournalClosedError",
    "JournalDamagedError",
    "JournalError",
    "JournalFormatError",
    "JournalFullError",
    "JournalLockedError",
    "JournalUnavailableError",
    "NotAcceptedError",
    "Refused",
    "UncertainError",
    "UnknownWorkflowError",
    "WorkflowCancelledError",
    "WorkflowStateError",
    "WorkflowStuckError",
]


class Refused(Exception):  # noqa: N818 -- a word, not an accident; see the module
    """The service did not do it, and will not: the saga turns back.

    Subclass it for refusals that `exec` tells apart. The refusal is recorded like an
    outcome: a re-run raises the same class again, with the same reason and with those
    of its attributes that are plain values (numbers, strings, lists, dicts).

    Attributes:
        reason: For people and for the client.
        details: Plain values for the client's program, e.g. ``{"code": "declined"}``.
    """

    # For subclasses that never call our `__init__`, as a dataclass does not.
    reason: str = ""
    details: Mapping[str, object] = MappingProxyType({})

    def __init__(
        self, reason: str = "", details: Mapping[str, object] | None = None
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.details = dict(details or {})


class CommandDelayed(Exception):  # noqa: N818 -- as `Refused`
    """Nobody knows whether the service did it: it is asked again, under the same key.

    Attributes:
        retry_after_s: Seconds the service asked us to wait at least; None if it did not
            say.
    """

    def __init__(self, reason: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after_s = retry_after_s


class CommandBlocked(CommandDelayed):
    """As `CommandDelayed`, and the whole service is down: it is suspended.

    Attributes:
        service: The name of the service, as in ``service.operation``.
    """

    def __init__(self, service: str, reason: str = "") -> None:
        super().__init__(reason or f"service {service} is blocked")
        self.service = service


class CoordinatorError(Exception):
    """Base of every exception this package raises on its own account."""


class CommandTypeError(CoordinatorError):
    """A command class can't be used: it is unknown, ambiguous or can't round-trip."""


class ConcurrentStepsError(CoordinatorError):
    """Two steps of one name ran at once, so which is which is a matter of chance."""

    def __init__(self, step: str) -> None:
        super().__init__(
            f"two steps named {step} are running at once, so their order would be a "
            f"matter of chance; give each a key: .named({step!r}, key=...)"
        )
        self.step = step


class EncodeError(CoordinatorError):
    """A value can't be stored in the journal."""


class DecodeError(CoordinatorError):
    """A stored value does not fit the type that the code declares for it now."""


class NotAcceptedError(CoordinatorError):
    """The coordinator takes no new command now; nothing was stored."""


class UnknownWorkflowError(CoordinatorError):
    """No workflow of that id is here, or it ended longer ago than is remembered."""


class WorkflowStateError(CoordinatorError):
    """What the operator asked for does not fit the state the workflow is in."""


class WorkflowCancelledError(CoordinatorError):
    """The workflow was cancelled by an operator, and what it had done was undone."""

    def __init__(self, workflow_id: str, reason: str) -> None:
        super().__init__(f"workflow {workflow_id} was cancelled: {reason}")
        self.workflow_id = workflow_id
        self.reason = reason


class WorkflowStuckError(CoordinatorError):
    """The workflow can't go on by itself: a person must retry or cancel it.

    It has not ended. Asking for its result again waits for what the person does.
    """

    def __init__(self, workflow_id: str, reason: str) -> None:
        super().__init__(
            f"workflow {workflow_id} is stuck: {reason}; "
            f"see `coordinator show {workflow_id}`, then retry or cancel it"
        )
        self.workflow_id = workflow_id
        self.reason = reason


class JournalError(CoordinatorError):
    """Base of everything a journal reports."""


class JournalFormatError(JournalError):
    """It is not a journal, or one of a format that this version does not read."""


class JournalLockedError(JournalError):
    """Another process holds the journal.

    Attributes:
        holder: What the other process wrote about itself, e.g. ``pid 4711 on host a``.
    """

    def __init__(self, path: str, holder: str) -> None:
        super().__init__(
            f"{path} is in use by {holder}; stop it first, or use another folder"
        )
        self.path = path
        self.holder = holder


class JournalUnavailableError(JournalError):
    """It can't be opened where it is: a person has to mend the place, not the journal.

    No right to it, a read-only disk, a file where a folder should be. Nothing of the
    journal was changed.
    """


class JournalDamagedError(JournalError):
    """Stored bytes are not what was written, somewhere other than in a torn tail.

    Attributes:
        path: The damaged file, or stream.
        offset: Bytes from its start to the first batch (or header) that is bad; in a
            stream, the sequence of the message.
    """

    def __init__(
        self,
        path: str,
        offset: int,
        problem: str,
        *,
        unit: str = "byte",
        advice: str = "restore the file from a copy, or let `coordinator journal "
        "repair` say what is lost",
    ) -> None:
        super().__init__(
            f"{path} is damaged at {unit} {offset}: {problem}; the partition is not "
            f"opened: {advice}"
        )
        self.path = path
        self.offset = offset
        self.problem = problem


class JournalFullError(JournalError):
    """There is no space. Nothing was written; the handle lives, try again later.

    Or no file descriptor, or no memory, where a file was to be made.
    """


class JournalClosedError(JournalError):
    """The handle was closed; what was not acknowledged was not written."""


class FencedError(JournalError):
    """Somebody newer owns the partition: stop its workflows, acknowledge nothing."""


class UncertainError(JournalError):
    """Nobody knows whether the last batch landed: open again, with a new epoch."""


class JournalBrokenError(JournalError):
    """A write or a flush failed. What is on the disk is unknown; the process must end.

    A failed flush is never tried again: the kernel marks the lost pages clean, and the
    second try would succeed without them.
    """
