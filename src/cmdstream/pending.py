"""The commands of one connection that still await results, and how they end.

An entry leaves the table in exactly one of three ways: its last result is taken, it is
forgotten, or the connection ends and `close` hands it back to be failed. Closing comes
before failing: an entry that is added while the others are being failed would otherwise
be in a table that nobody empties any more, and wait for ever.
"""

from typing import Generic, TypeVar

from cmdstream.errors import CmdStreamError, ConnectionClosedError

__all__ = ["PendingCommands", "closed_error"]

T = TypeVar("T")


class PendingCommands(Generic[T]):
    """Entries by the seq of their command, until the connection is closed."""

    def __init__(self) -> None:
        self._entries: dict[int, T] = {}
        self._reason: CmdStreamError | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, seq: int) -> bool:
        return seq in self._entries

    @property
    def reason(self) -> CmdStreamError | None:
        """Why the table is closed, or None while it is open."""
        return self._reason

    def check_open(self) -> None:
        """Raise if nothing may be added any more.

        Raises:
            ConnectionClosedError: See `close`; a new one each time, caused by the
                reason, since many tasks may raise it at once.
        """
        if self._reason is not None:
            raise closed_error(self._reason, may_have_run=False)

    def add(self, seq: int, entry: T) -> None:
        """Expect results for *seq*. The table is open: see `check_open`."""
        assert self._reason is None
        assert seq not in self._entries
        self._entries[seq] = entry

    def get(self, seq: int) -> T | None:
        """Give the entry of *seq*, if there is one, and leave it."""
        return self._entries.get(seq)

    def take(self, seq: int, *, is_last: bool) -> T | None:
        """Give the entry that a result is for, and remove it if the result is the last.

        Returns:
            The entry, or None if nobody waits for *seq*: the command was forgotten, it
            has had its last result, or it was never sent.
        """
        return self._entries.pop(seq, None) if is_last else self._entries.get(seq)

    def forget(self, seq: int) -> bool:
        """Expect no more results for *seq*; the server is not told. True if it was."""
        return self._entries.pop(seq, None) is not None

    def close(self, reason: CmdStreamError) -> list[T]:
        """Close the table for good.

        Returns:
            The entries that are still there; the caller has to fail every one of them.
            Nothing if the table is closed already: the first reason stands.
        """
        if self._reason is not None:
            return []
        self._reason = reason
        entries = list(self._entries.values())
        self._entries.clear()
        return entries


def closed_error(
    reason: CmdStreamError, *, may_have_run: bool
) -> ConnectionClosedError:
    """Make a fresh error for one waiter out of the *reason* they all share."""
    what = "may have run" if may_have_run else "was not sent"
    error = ConnectionClosedError(
        f"{reason}; the command {what}", may_have_run=may_have_run
    )
    error.__cause__ = reason
    return error
