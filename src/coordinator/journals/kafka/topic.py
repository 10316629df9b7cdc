"""One partition of a topic, as the store sees it: a log that numbers what it is given.

It promises no more than Kafka does, with ``acks=all`` and an idempotent producer:

* Whoever reads sees the same messages under the same offsets, in ascending order. Some
  offsets may hold nothing.
* What `append` returned the offset of is there from then on. What it raised for may be
  there, or turn up later, once and behind all that is there by then.
* There is no conditional append: others may have put anything before it.
"""

from collections.abc import Iterator
from typing import Protocol

__all__ = ["GoneError", "TopicPartition"]


class GoneError(Exception):
    """What was to be read was deleted meanwhile; the log starts later."""


class TopicPartition(Protocol):
    """Every call blocks; all but `fetch` of one at a time."""

    def bounds(self) -> tuple[int, int]:
        """Return the offset of the first message, and that behind the last one.

        Raises:
            JournalUnavailableError: It can't be asked.
        """
        ...

    def fetch(self, since: int, until: int) -> Iterator[tuple[int, bytes]]:
        """Yield what lies from offset *since* on and before *until*.

        Waits for it, if the log is not known to reach so far yet. May be left early,
        and others may be begun meanwhile.

        Raises:
            GoneError: The log starts behind *since*.
            JournalBrokenError: It can't be read.
            JournalDamagedError: It is not what was written.
        """
        ...

    def append(self, data: bytes) -> int:
        """Put a message at the end, on all copies, and return its offset.

        Raises:
            UncertainError: Nobody knows whether it is there, or where.
            JournalBrokenError: It was refused, for a reason that a person can mend.
        """
        ...

    def delete(self, before: int) -> None:
        """Let the log start at offset *before*.

        Raises:
            JournalUnavailableError: It can't be done now.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...
