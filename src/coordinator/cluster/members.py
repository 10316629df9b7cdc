"""Who is there, and who has which partition: what one instance knows of the others.

    heard of within lease_s --> alive            a new notice, by whichever way it came
    lease_s in silence -------> not alive        frozen, or cut off from everybody
    its address refuses us ---> not alive        its process is gone
       | two newer notices ---> alive            it is there: something else refuses us,
       |                                         and is not believed again
       '-- connected ---------> believed again

To be wrong about somebody costs moves, never more: the journal decides who owns what.
Two notices, because one may have been under way when the process died: what comes by
the board was said over the connections first.
"""

from collections.abc import Mapping

from coordinator.cluster.notices import Notice
from coordinator.cluster.timing import Timing

__all__ = ["Members"]

FORGET_LEASES = 50
"""Leases of silence after which a member is forgotten. Each start of a process makes a
new one, so they would pile up."""


class _Member:
    """What is known of one other instance."""

    __slots__ = ("heard_s", "notice", "refused_at", "since_s")

    def __init__(self, notice: Notice, now_s: float) -> None:
        self.notice = notice
        self.heard_s = now_s
        self.since_s = now_s
        """Since when it has been there without a gap."""
        self.refused_at: int | None = None
        """The count of its last notice when its address first refused us; None if it
        has not since we were connected."""

    def is_alive(self, now_s: float, lease_s: float) -> bool:
        if now_s >= self.heard_s + lease_s:
            return False
        return self.refused_at is None or self.notice.count >= self.refused_at + 2


class _Claim:
    """The newest claim known of a partition."""

    __slots__ = ("count", "epoch", "name")

    def __init__(self, epoch: int, name: str, count: int) -> None:
        self.epoch = epoch
        self.name = name
        self.count = count
        """Of the last notice of that instance when we learned of the claim: until a
        newer one comes, that it does not list the partition means nothing."""


class Members:
    """The other instances, as one of them sees them. Times are on its own clock."""

    def __init__(self, name: str, timing: Timing) -> None:
        """Begin with nobody.

        Args:
            name: Of the instance that looks.
            timing: That of the journal.
        """
        self.name = name
        self._timing = timing
        self._members: dict[str, _Member] = {}
        self._claims: dict[int, _Claim] = {}

    # -- what is learned -------------------------------------------------------------

    def hear(self, notice: Notice, now_s: float) -> bool:
        """Take in a notice of this journal; return whether it said anything new.

        The board may give one several times, or late; our own comes back, too.
        """
        if notice.name == self.name:
            return False
        member = self._members.get(notice.name)
        if member is None:
            member = self._members[notice.name] = _Member(notice, now_s)
        elif notice.count <= member.notice.count:
            return False
        else:
            before = member.is_alive(now_s, self._timing.lease_s)
            member.notice = notice
            member.heard_s = now_s
            if not before:
                member.since_s = now_s
        for partition, epoch in notice.holds:
            self._learn(partition, epoch, notice.name, notice.count)
        return True

    def claimed(self, partition: int, epoch: int, name: str, now_s: float) -> None:
        """Note a claim of *name* that was read in the journal: a sign of life, too."""
        member = self._members.get(name)
        count = -1
        if member is not None:
            count = member.notice.count
            if epoch > self._epoch_of(partition):
                member.heard_s = now_s
        self._learn(partition, epoch, name, count)

    def connected(self, name: str) -> None:
        """Note that *name* answered at its address."""
        if name in self._members:
            self._members[name].refused_at = None

    def refused(self, name: str) -> None:
        """Note that nobody listens at the address of *name*, or somebody else does."""
        member = self._members.get(name)
        # What refuses again and again beside new notices is not the process.
        if member is not None and member.refused_at is None:
            member.refused_at = member.notice.count

    def slept(self, now_s: float) -> None:
        """Begin to listen anew: we were frozen, and can't tell who was silent."""
        for member in self._members.values():
            member.heard_s = member.since_s = now_s

    def forget(self, now_s: float) -> None:
        """Forget who has been silent for very long."""
        end_s = now_s - FORGET_LEASES * self._timing.lease_s
        for name in [n for n, m in self._members.items() if m.heard_s < end_s]:
            del self._members[name]

    # -- what is known ---------------------------------------------------------------

    def alive(self, now_s: float) -> dict[str, Notice]:
        """Return the last notice of each that is there."""
        lease_s = self._timing.lease_s
        return {
            name: member.notice
            for name, member in self._members.items()
            if member.is_alive(now_s, lease_s)
        }

    def since_s(self, name: str) -> float:
        """Return since when *name* has been there without a gap."""
        return self._members[name].since_s

    def holder(self, partition: int, alive: Mapping[str, Notice]) -> str:
        """Return which of *alive* has *partition*; empty if none.

        By the newest claim alone: that an older owner still lists it means only that it
        does not know.
        """
        claim = self._claims.get(partition)
        if claim is None or (notice := alive.get(claim.name)) is None:
            return ""
        listed = (partition, claim.epoch) in notice.holds
        pending = partition in notice.claims or notice.count <= claim.count
        return claim.name if listed or pending else ""

    def claimant(self, partition: int, alive: Mapping[str, Notice]) -> str:
        """Return which of *alive* is claiming *partition*; empty if none."""
        claiming = [n for n, notice in alive.items() if partition in notice.claims]
        return min(claiming, default="")

    def newer(self, partition: int, epoch: int) -> bool:
        """Say whether somebody claimed *partition* after *epoch*."""
        return self._epoch_of(partition) > epoch

    def next_change_s(self, now_s: float) -> float:
        """Return when silence or time alone next changes who is there, and settled."""
        times = [
            time_s
            for member in self._members.values()
            for time_s in (
                member.heard_s + self._timing.lease_s,
                member.since_s + self._timing.settle_s,
            )
            if time_s > now_s
        ]
        return min(times, default=now_s + self._timing.notice_s)

    def _epoch_of(self, partition: int) -> int:
        claim = self._claims.get(partition)
        return 0 if claim is None else claim.epoch

    def _learn(self, partition: int, epoch: int, name: str, count: int) -> None:
        if epoch > self._epoch_of(partition):
            self._claims[partition] = _Claim(epoch, name, count)
