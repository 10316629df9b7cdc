"""Exit codes, and the one exception that ends a command with a message.

The codes are part of the interface: scripts decide by them. ``docs/cli.md`` has the
same table.
"""

import enum

from coordinator.errors import (
    CommandTypeError,
    DecodeError,
    JournalBrokenError,
    JournalDamagedError,
    JournalError,
    NotAcceptedError,
    UnknownWorkflowError,
    WorkflowStateError,
)

__all__ = ["CliError", "ExitCode", "exit_code_of"]


class ExitCode(enum.IntEnum):
    """What the process tells its caller."""

    OK = 0
    FAILED = 1
    """It was done, and the answer is no: compensated, cancelled, stuck; a journal that
    failed under a server; a problem that `doctor` found. Or it can't be printed."""
    USAGE = 2
    """The command line, the target module or the command's JSON is wrong."""
    NOT_FOUND = 3
    """No such workflow is here."""
    CONFLICT = 4
    """The workflow's state does not allow it, e.g. a retry of one that is not stuck."""
    UNAVAILABLE = 5
    """No server runs there, the journal is locked or not a journal, its disk is full,
    an address is in use, or the server takes nothing now. Later it may go well."""
    DAMAGED = 6
    """Stored bytes are not what was written."""
    CUT_OFF = 141
    """Whoever read stdout went away (``| head``): 128 + SIGPIPE, as elsewhere."""


class CliError(Exception):
    """Ends the command: the message, if any, goes to stderr, the code to the caller."""

    def __init__(self, message: str, code: ExitCode) -> None:
        super().__init__(message)
        self.code = code


def exit_code_of(error: Exception) -> ExitCode:
    """Return the code that says best what *error* means for the caller."""
    match error:
        case JournalDamagedError():
            return ExitCode.DAMAGED
        case JournalBrokenError():
            return ExitCode.FAILED
        case UnknownWorkflowError():
            return ExitCode.NOT_FOUND
        case WorkflowStateError():
            return ExitCode.CONFLICT
        case JournalError() | NotAcceptedError():
            return ExitCode.UNAVAILABLE
        case CommandTypeError() | DecodeError() | ValueError():
            return ExitCode.USAGE
        case _:
            return ExitCode.FAILED
