"""Does it add up? Every attempt against what the servers did and what came late.

    how it ended       run by servers    and
    ------------       --------------    ---
    answered           once              all results were compared with the command
    failed             once
    blocked, unsent    never
    timed out          never or once     the last result comes late, unless the
                                         connection ended within `PATIENCE_S`
    left               never or once     it may come late, or have come in the moment
                                         in which its sender left
    lost               never or once
    wrong, overdue                       never to happen

Nothing is run that nobody attempted, nothing twice, and nothing comes late that was
not given up.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable

import msgspec
from tests.stress.messages import HOSTILE, Note, Outcome

__all__ = ["PATIENCE_S", "Count", "check"]

PATIENCE_S = 15.0
"""How long a result may take that nobody waits for any more, while its connection is
up. Faults freeze a connection or a server for less than a third of that."""
SHOWN_MAX = 20  # problems; the first ones tell enough

_ONCE = {Outcome.ANSWERED, Outcome.FAILED}
_NEVER = {Outcome.BLOCKED, Outcome.UNSENT}
_GIVEN_UP = {Outcome.TIMED_OUT, Outcome.LEFT}
_BAD = {Outcome.WRONG, Outcome.OVERDUE}
ENDS = [outcome for outcome in Outcome if outcome <= Outcome.OVERDUE]


class Count(msgspec.Struct, kw_only=True):
    """What was counted, and what does not add up."""

    attempts: int
    ends: dict[str, int]
    results: int
    late: int
    excused: int
    """Timed out, and the connection ended before the last result."""
    begun: int
    begun_hostile: int
    problems: list[str]


def check(attempts: int, notes: Iterable[Note], begun: Iterable[int]) -> Count:
    """Compare all.

    Args:
        attempts: How many there were, as counted where they begin.
        notes: Of all clients.
        begun: Ids, of all servers.
    """
    book = _Book(notes)
    ends, late, problems = book.ends, book.late, book.problems
    runs = Counter(begun)
    hostile = [id_ for id_ in runs if id_ >= HOSTILE]
    for id_ in hostile:
        del runs[id_]
    if attempts != len(ends):
        problems.append(f"{attempts} attempts, and {len(ends)} ends")
    problems += [f"{i:x} was run, which nobody attempted" for i in runs.keys() - ends]
    missing = 0
    for id_, note in ends.items():
        problems += _of_one(note, runs[id_])
        if note.outcome is Outcome.TIMED_OUT and not any(
            one.results for one in late.get(id_, [])
        ):
            missing += 1
            if _lived_on(note, book.hung_up.get(note.port, [])):
                problems.append(f"{id_:x} lost its last result: {note}")
    for id_ in late:
        end = ends.get(id_)
        if end is None or end.outcome not in _GIVEN_UP:
            problems.append(f"{id_:x} has late results, but ended: {end}")
    counted = Counter(note.outcome for note in ends.values())
    return Count(
        attempts=attempts,
        ends={outcome.name.lower(): counted[outcome] for outcome in ENDS},
        results=sum(note.results for note in ends.values()),
        late=sum(map(len, late.values())),
        excused=missing,
        begun=runs.total(),
        begun_hostile=len(hostile),
        problems=_first(problems),
    )


class _Book:
    """What was noted, by what it is about."""

    def __init__(self, notes: Iterable[Note]) -> None:
        self.ends: dict[int, Note] = {}
        self.late: dict[int, list[Note]] = {}
        self.hung_up: dict[int, list[float]] = {}
        self.problems: list[str] = []
        for note in notes:
            self._enter(note)

    def _enter(self, note: Note) -> None:
        match note.outcome:
            case Outcome.HUNG_UP:
                self.hung_up.setdefault(note.port, []).append(note.at_s)
            case Outcome.LATE:
                self.late.setdefault(note.id, []).append(note)
            case _ if note.id in self.ends:
                self.problems.append(
                    f"{note.id:x} ended twice: {self.ends[note.id]}, {note}"
                )
            case _:
                self.ends[note.id] = note


def _first(problems: list[str]) -> list[str]:
    more = len(problems) - SHOWN_MAX
    return problems[:SHOWN_MAX] + ([f"and {more} more"] if more > 0 else [])


def _of_one(note: Note, runs: int) -> list[str]:
    if note.outcome in _BAD:
        return [f"{note.id:x} is {note.outcome.name.lower()}: {note}"]
    least, most = (
        (1, 1)
        if note.outcome in _ONCE
        else (0, 0)
        if note.outcome in _NEVER
        else (0, 1)
    )
    if least <= runs <= most:
        return []
    return [f"{note.id:x} was {note.outcome.name.lower()}, and was run {runs} times"]


def _lived_on(note: Note, hung_up: list[float]) -> bool:
    """Whether its connection did, for long after it was given up."""
    following = bisect_right(hung_up, note.at_s)
    if following == len(hung_up):
        return True
    return hung_up[following] - note.at_s > PATIENCE_S
