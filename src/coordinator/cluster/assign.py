"""Which instance is to have which partition: balanced, and with the fewest moves.

    members a b c, 7 partitions       a: 0 1 2 3 4   b: 5 6        c:
    places: 7 = 3 + 2 + 2             a: 0 1 2       b: 5 6        c: 3 4
                                      most hold most: a has the third place

Every instance computes it for itself. So it does not depend on the order of anything,
and does not change while it is carried out: whatever part of the moves is done, the
same call gives the same answer. The tests ask for that.
"""

from collections.abc import Collection, Mapping

__all__ = ["assign"]


def assign(
    members: Collection[str], partitions: int, holders: Mapping[int, str]
) -> dict[int, str]:
    """Return who is to have each partition.

    Args:
        members: Those that may have some; nobody gets any if there is none.
        partitions: How many there are.
        holders: Who has one at present, whether still among *members* or not.

    Returns:
        The member of each partition. No two members differ by more than one, and a
        partition leaves a member only where that has more than its share.
    """
    if not members:
        return {}
    held: dict[str, list[int]] = {member: [] for member in sorted(members)}
    for partition in range(partitions):
        holder = holders.get(partition)
        if holder in held:
            held[holder].append(partition)
    places = _places(held, partitions)
    assigned = {
        partition: member
        for member, own in held.items()
        for partition in own[: places[member]]
    }
    over = (number for number in range(partitions) if number not in assigned)
    # One member after the other is filled, not in turn: in turn, a partition that is
    # taken early would change whose turn it is for the others.
    for member, own in held.items():
        for _ in range(places[member] - len(own)):
            assigned[next(over)] = member
    return assigned


def _places(held: Mapping[str, list[int]], partitions: int) -> dict[str, int]:
    """Return how many partitions each member is to have.

    What does not divide evenly goes to those who have that many already, then by name.
    Who has less than an even share is not asked how much less: its count grows while
    the plan is carried out, and the plan must not change by that.
    """
    share, more = divmod(partitions, len(held))
    ranked = sorted(held, key=lambda member: len(held[member]) <= share)
    return {member: share + (rank < more) for rank, member in enumerate(ranked)}
