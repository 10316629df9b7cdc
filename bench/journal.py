"""What is in a journal, counted: that each saga really did end, and what it took."""

from collections import Counter
from pathlib import Path

from coordinator.batch import BatchError, decode_batch
from coordinator.journals.segments.format import SEGMENT_HEADER_SIZE
from coordinator.journals.segments.inspect import dump
from coordinator.journals.segments.posix import PosixFolder
from coordinator.model import EndStatus
from coordinator.records import Accepted, Finished, Outcome


class Tally:
    """How many of each type were accepted, have ended how, and with how many steps."""

    def __init__(self, folder: Path) -> None:
        types: dict[int, str] = {}
        self.accepted: Counter[str] = Counter()
        self.ended: Counter[tuple[str, EndStatus]] = Counter()
        self.outcomes: Counter[str] = Counter()
        for entry in dump(PosixFolder(str(folder))):
            match entry.record:
                case Accepted(type=type_):
                    types[entry.position] = type_
                    self.accepted[type_] += 1
                case Outcome(workflow=workflow):
                    self.outcomes[types[workflow]] += 1
                case Finished(workflow=workflow, status=status):
                    self.ended[types[workflow], status] += 1
                case _:
                    pass

    def require_completed(self, type_: str, count: int) -> None:
        """Make sure that *count* of a type completed, each after three steps, once.

        Raises:
            RuntimeError: They did not.
        """
        ended = self.ended[type_, EndStatus.COMPLETED]
        found = self.accepted[type_], ended, self.outcomes[type_]
        if found != (count, count, 3 * count):
            raise RuntimeError(
                f"{count} {type_} completed; accepted, completed and outcomes in the "
                f"journal: {found}"
            )


def size_bytes(folder: Path) -> int:
    """Return the bytes of all batches in a journal of one partition."""
    size = 0
    for path in sorted(folder.glob("p0/*.seg")):
        data = path.read_bytes()
        offset = SEGMENT_HEADER_SIZE
        while offset < len(data):
            try:
                offset += len(decode_batch(data, offset).data)
            except BatchError:
                break
        size += offset
    return size


def accepted_at_us(folder: Path) -> dict[bytes, int]:
    """Return when each payload was accepted, in microseconds since 1970."""
    return {
        entry.record.payload: entry.record.at
        for entry in dump(PosixFolder(str(folder)))
        if isinstance(entry.record, Accepted)
    }
