"""What one owner of one partition may do when: its lease, and that of those before it.

    write begins --> acknowledged: the lease counts from where it began
    claim acknowledged --> earlier leases have run out once the longest one has passed

Only a write to the partition itself prolongs the lease. Whoever claims it makes all
writes of an earlier owner fail, so the last that one was acknowledged began before the
claim was; nothing it may do by its lease is later than what is waited for here. A sign
of life of any other kind could still be given after the claim, and must not count.
"""

from math import inf

from coordinator.cluster.timing import Timing

__all__ = ["Tenure"]


class Tenure:
    """One partition, from its claim until it is given up. Times are its owner's."""

    __slots__ = ("_alone_s", "_lasts_s", "_renewed_s")

    def __init__(
        self,
        timing: Timing | None,
        *,
        began_s: float,
        claimed_s: float,
        earlier_lease_s: float,
    ) -> None:
        """Begin with a claim.

        Args:
            timing: None where a lock keeps all others out for as long as the process
                lives: then there is no lease.
            began_s: When the write of the claim began.
            claimed_s: When it was acknowledged.
            earlier_lease_s: The longest lease of an owner before, who may not know that
                it is none any more; 0 if there can't be one.
        """
        self._lasts_s = inf if timing is None else timing.lease_s - timing.margin_s
        self._renewed_s = began_s
        self._alone_s = claimed_s + earlier_lease_s

    def renewed(self, began_s: float) -> None:
        """Note that a write which began at *began_s* was acknowledged."""
        self._renewed_s = max(self._renewed_s, began_s)

    @property
    def renew_s(self) -> float:
        """When to write again, if something runs and nothing else was written."""
        return self._renewed_s + self._lasts_s / 2

    @property
    def lapses_s(self) -> float:
        """When the lease ends, less the margin."""
        return self._renewed_s + self._lasts_s

    def may_start(self, now_s: float) -> bool:
        """Say whether a call may begin now; if not, write first."""
        return now_s < self.lapses_s

    @property
    def alone_s(self) -> float:
        """When no earlier owner may act any more.

        Before that, nothing that was found at the claim is decided to be undone, and
        the partition is not given up as one that nobody acts on.
        """
        return self._alone_s

    def is_alone(self, now_s: float) -> bool:
        """Say whether no earlier owner may act any more."""
        return now_s >= self._alone_s
