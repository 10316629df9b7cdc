"""Where in the topic a position lies, near enough, in bounded memory.

One landmark per batch until there are `COUNT_MAX`; then every second one goes, and only
every second batch gets one from there on. A search then ends a little early, and a few
batches more are read. The first one never goes by thinning: it is where reading may
start at all.
"""

from bisect import bisect_right

from coordinator.journals.kafka.messages import Landmark

__all__ = ["COUNT_MAX", "Landmarks"]

COUNT_MAX = 4096
"""Some 600 kB of them, and a search that ends 1/2048 of the log early at most."""


class Landmarks:
    """Of the batches from some base on."""

    def __init__(self, base: Landmark) -> None:
        self._kept = [base]
        self._step = 1
        """Batches per landmark."""
        self._passed = 0
        """Batches since the last one that got a landmark."""

    @property
    def base(self) -> Landmark:
        """The first one."""
        return self._kept[0]

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, landmark: Landmark) -> None:
        """Note the next batch."""
        self._passed += 1
        if self._passed < self._step:
            return
        self._passed = 0
        self._kept.append(landmark)
        if len(self._kept) > COUNT_MAX:
            del self._kept[1::2]
            self._step *= 2

    def find(self, position: int) -> Landmark:
        """Return the last one that is not behind *position*; the base, if none is."""
        index = bisect_right(self._kept, position, key=_position)
        return self._kept[max(0, index - 1)]

    def rebase(self, base: Landmark) -> None:
        """Start at *base* from now on; what lies before it goes."""
        index = bisect_right(self._kept, base.offset, key=_offset)
        self._kept[:index] = [base]
        if len(self._kept) < COUNT_MAX // 2:
            self._step = max(1, self._step // 2)


def _position(landmark: Landmark) -> int:
    return landmark.position


def _offset(landmark: Landmark) -> int:
    return landmark.offset
