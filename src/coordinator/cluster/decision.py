"""What one instance does next with each partition, from what it knows now.

    partition is        and by the plan    then
    ------------------  -----------------  ---------------------------------------------
    nobody's            mine               claim, unless a try just failed
    nobody's            another's          nothing: that one claims it
    another's           anybody's          nothing: nobody takes what somebody has
    mine                mine               nothing
    mine                another's          release to it, once all newcomers are settled
    mine, or wanted,    anybody's          drop: stop at once, nothing is ours any more
    and another's now

"Nobody's" is what nobody who is there says that it has or is claiming. The plan is
`assign`'s, over those who are there and take partitions. A partition moves only where
its owner lets it go, is silent, or is gone: so what two decide who see different things
is put right by the journal once, and then stands.

Who can't write goes on claiming what it had, for as long as its lease: an election in
the log engine moves nothing. Then it lets the others have it, and takes nothing until
it can write again.
"""

from dataclasses import dataclass, field

from coordinator.cluster.assign import assign
from coordinator.cluster.members import Members
from coordinator.cluster.timing import Timing

__all__ = ["Decision", "Own", "decide", "wake"]


@dataclass(slots=True)
class Own:
    """What an instance knows of itself. Times are on its own clock."""

    started_s: float
    """Since when it listens."""
    looked_s: float
    """When it last looked; see `wake`."""
    stops: bool = False
    """Whether it wants no partition any more."""
    fails_since_s: float | None = None
    """Since when no write of it got through; None if the last one did."""
    holds: dict[int, int] = field(default_factory=dict[int, int])
    """The epoch of each partition that it has."""
    claims: set[int] = field(default_factory=set[int])
    """What it is claiming, again and again while nobody knows whether it could."""
    releases: set[int] = field(default_factory=set[int])
    """What it is letting go of; still among `holds`."""
    not_before_s: dict[int, float] = field(default_factory=dict[int, float])
    """When to try again to claim what it was not given."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do now, and when to ask again if nothing is heard before."""

    takes: bool
    """Whether it takes partitions: for its notice."""
    claim: tuple[int, ...]
    release: tuple[tuple[int, str], ...]
    """Each with the instance that is to have it."""
    drop: tuple[int, ...]
    """Of what it has or is claiming."""
    again_s: float


def wake(own: Own, members: Members, timing: Timing, now_s: float) -> bool:
    """Note that we look; if we were frozen before, begin to listen anew.

    To be called before each `decide`, at least once in `Timing.notice_s`. Whoever has
    slept finds everybody silent, and would claim what is theirs before it has read what
    they said meanwhile.

    Returns:
        Whether we were frozen.
    """
    slept = now_s - own.looked_s > timing.lease_s / 2
    if slept:
        own.started_s = now_s
        members.slept(now_s)
    own.looked_s = now_s
    return slept


def decide(
    own: Own, members: Members, *, partitions: int, timing: Timing, now_s: float
) -> Decision:
    """Say what the instance is to do now.

    Args:
        own: What it is and has.
        members: What it knows of the others.
        partitions: How many the journal has.
        timing: That of the journal.
        now_s: On the clock of all times in *own* and *members*.
    """
    me, alive = members.name, members.alive(now_s)
    again_s = members.next_change_s(now_s)
    takes = not own.stops
    if own.fails_since_s is not None:
        gives_up_s = own.fails_since_s + timing.lease_s - timing.margin_s
        takes = takes and now_s < gives_up_s
        again_s = min(again_s, gives_up_s) if takes else again_s
    drop = [n for n, epoch in own.holds.items() if members.newer(n, epoch)]
    drop += [n for n in own.claims if not takes or members.holder(n, alive)]
    dropped = tuple(sorted(drop))
    if now_s < (settled_s := own.started_s + timing.settle_s):
        # Others may be there, and not have been heard of yet.
        return Decision(takes, (), (), dropped, min(again_s, settled_s))
    holders: dict[int, str] = {}
    for number in range(partitions):
        ours = number not in dropped and (number in own.holds or number in own.claims)
        if holder := (
            me
            if ours
            else members.holder(number, alive) or members.claimant(number, alive)
        ):
            holders[number] = holder
    able = [name for name, notice in alive.items() if notice.takes]
    plan = assign([*able, me] if takes else able, partitions, holders)
    wanted = [n for n, member in plan.items() if member == me and n not in holders]
    tries_s = {number: own.not_before_s.get(number, now_s) for number in wanted}
    claim = tuple(sorted(n for n, try_s in tries_s.items() if try_s <= now_s))
    later_s = (try_s for try_s in tries_s.values() if try_s > now_s)
    # Of those who come together, each partition is to move once.
    settled = all(now_s >= members.since_s(name) + timing.settle_s for name in able)
    release = tuple(
        (number, member)
        for number, member in sorted(plan.items())
        if (settled or not takes)
        and holders.get(number) == me != member
        and number in own.holds
        and number not in own.releases
    )
    return Decision(takes, claim, release, dropped, min([again_s, *later_s]))
