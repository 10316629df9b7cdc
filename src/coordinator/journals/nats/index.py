"""At which sequence the batch lies that holds a position: what trim and reading ask."""

from array import array
from bisect import bisect_right

__all__ = ["Index"]


class Index:
    """Batches in their order: 16 bytes for each of those not trimmed yet."""

    def __init__(self) -> None:
        self._positions = array("Q")
        self._sequences = array("Q")

    def note(self, position: int, sequence: int) -> None:
        """Take in a batch; one that was taken in already is passed over."""
        if not self._positions or position > self._positions[-1]:
            self._positions.append(position)
            self._sequences.append(sequence)

    def find(self, position: int) -> int:
        """Return the sequence of the last batch at or before *position*; 0 if none."""
        found = bisect_right(self._positions, position)
        return self._sequences[found - 1] if found else 0

    def forget(self, sequence: int) -> None:
        """Forget the batches before *sequence*, which were trimmed."""
        gone = bisect_right(self._sequences, sequence - 1)
        del self._positions[:gone]
        del self._sequences[:gone]
