"""The numbers that all instances of a journal go by, and what bounds them.

    0 s          notice_s                       lease_s - margin_s      lease_s
    |------------|-- ... -----------------------|-----------------------|
    an owner's   it tells the others            it starts no step       who claimed
    write began  that it is there, so often     without a new write     turns back

The first line of times is by the owner's clock, the last by that of who came after it.
Only the rates of the two have to agree, and `drift_max` says how well.
"""

import msgspec

__all__ = ["TIMING", "Timing"]


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """Durations in seconds, on each instance's own clock."""

    lease_s: float = 20.0
    """How long an owner may act after its last write; and how long one that is not
    heard of is taken to be there. JetStream took 5 to 16 s to elect a leader: were it
    less, an election would move every partition."""
    margin_s: float = 2.0
    """By how much an owner stops earlier: for clocks that drift apart, and for the time
    between its look at the clock and the call."""
    notice_s: float = 4.0
    """Between two notices: four may be lost, and the next is still in time."""
    settle_s: float = 1.0
    """How long a newcomer is looked at before partitions move because of it: of those
    that come together, each partition moves once."""

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ValueError: They do not fit each other.
        """
        if not 0 < self.margin_s <= self.lease_s / 2:
            raise ValueError(
                f"margin_s must be more than 0 and at most half of lease_s, got {self}"
            )
        if not 0 < self.settle_s <= self.notice_s <= self.lease_s / 5:
            raise ValueError(
                f"0 < settle_s <= notice_s <= lease_s / 5 is needed, so that four "
                f"notices may be lost, got {self}"
            )

    @property
    def drift_max(self) -> float:
        """How much faster or slower than true any clock may run, as a share.

        The old owner's ``(lease_s - margin_s) / (1 - drift)`` has to end before the
        new one's ``lease_s / (1 + drift)``.
        """
        return self.margin_s / (2 * self.lease_s - self.margin_s)


TIMING = Timing()
"""What a journal has if its URL names no other lease."""
