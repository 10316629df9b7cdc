"""Who may come in: a limit on commands in memory, and suspended services.

Nothing is ever dropped here: who may not come in waits at the door, which is a
connection that is not read from, or a `submit` that does not return yet.

A service is suspended by the first command that finds it blocked:

                    blocked                            blocked
                 .----------.                       .-----------.
                 |          v   a command gets      |           v
    (open) --> SUSPENDED ------------------------> RECOVERING (allowance doubles)
       ^           |   through                         |     |
       |           |        blocked again: allowance   |     |
       |           |<-----  back to `probes` ----------'     |
       '-----------'-----------------------------------------'
                     no delayed command waits for it

While a service is suspended, the commands that wait for it go on trying, each when it
is due, at most `allowance` of them at a time, and as many begin in one slow interval:
also a service that fails fast is asked seldom. Who is due and finds no try left is
parked, which costs nothing, and is given a try when there is one, in order. The first
that gets through turns the interval to fast and doubles the allowance, as does each
after it: a service that just came back is not hit by everyone at once. When nobody
waits for it, the doors open.
"""

from collections import OrderedDict, deque
from collections.abc import Collection, Hashable, Iterator
from collections.abc import Set as AbstractSet

from coordinator.rare import sometimes

__all__ = ["Admission", "Suspension"]


class Suspension:
    """One suspended service."""

    def __init__(self, service: str, probes: int, interval_s: float) -> None:
        self.service = service
        self.answering = False
        """True once a command got through since it was last blocked."""
        self.waiting: dict[Hashable, None] = {}
        """The delayed commands that it blocked, whether trying at present or not; in
        the order in which they came."""
        # An ordered one: a plain dict whose first entries are gone is searched for its
        # first from its beginning, again and again.
        self.parked: OrderedDict[Hashable, None] = OrderedDict()
        """Those of them that were due and found no try left."""
        self.trying: set[Hashable] = set()
        """Those of them that are trying at present."""
        self.allowance = probes
        """How many may try at a time."""
        self._probes = probes
        self._interval_s = interval_s
        self._began_s: deque[float] = deque(maxlen=probes)
        """When the last tries began."""

    def blocked(self, command: Hashable) -> None:
        """Note that *command* found the service blocked (again)."""
        self.answering = False
        self.allowance = self._probes
        self.waiting[command] = None
        self.trying.discard(command)

    def may_try(self, command: Hashable, now_s: float) -> bool:
        """Say whether *command* has one of the allowed tries, or one is left."""
        if command in self.trying:
            return True
        free_s = self.free_s()
        return free_s is not None and free_s <= now_s

    def free_s(self) -> float | None:
        """Return from when on a try is left, now or later.

        None if that is not known: somebody has to give one back.
        """
        if len(self.trying) >= self.allowance:
            return None
        if self.answering or len(self._began_s) < self._probes:
            return 0.0
        return self._began_s[0] + self._interval_s

    def take(self, command: Hashable, now_s: float) -> None:
        """Give *command*, which `may_try`, a try; once."""
        if command not in self.trying:
            self.trying.add(command)
            self._began_s.append(now_s)

    def passed(self) -> None:
        """Note that the service answered a command."""
        self.answering = True
        # Doubling past what waits would only grow a number.
        self.allowance = min(2 * self.allowance, 2 * len(self.waiting) + self._probes)


class Admission:
    """Counts the commands in memory and knows the suspended services."""

    def __init__(self, commands_max: int, probes: int, interval_s: float) -> None:
        """Open the doors.

        Args:
            commands_max: How many commands may be in memory, running or delayed.
            probes: How many commands may try a suspended service at a time, and begin
                to in one interval.
            interval_s: The slow interval, in seconds.
        """
        self.commands_max = commands_max
        self.nested_max = 2 * commands_max
        """How many may be in memory for one more that a step offers to come in: it must
        not wait for a place that the command which waits for it holds."""
        self.count = 0
        """Commands in memory; more than `nested_max` only after a recovery."""
        self.suspensions: dict[str, Suspension] = {}
        self._probes = probes
        self._interval_s = interval_s

    def closed_to(
        self, services: AbstractSet[str] | None, *, nested: bool = False
    ) -> str:
        """Say why a command that needs *services* may not come in; empty if it may.

        Args:
            services: What it needs; None if it does not declare that: any suspended
                service keeps it out.
            nested: A step offers it.
        """
        if self.count >= (self.nested_max if nested else self.commands_max):
            return f"{self.count} commands are in memory, the limit is reached"
        if not self.suspensions:
            return ""
        needed = (
            self.suspensions.keys()
            if services is None
            else self.suspensions.keys() & services
        )
        return f"suspended: {', '.join(sorted(needed))}" if needed else ""

    @property
    def closed_to_all(self) -> str:
        """Why no command at all may come in; empty if some may."""
        return self.closed_to(frozenset())

    def blocked(self, service: str, command: Hashable) -> None:
        """Suspend *service*, which *command* found blocked and now waits for."""
        suspension = self.suspensions.get(service)
        if suspension is None:
            sometimes("service suspended")
            suspension = Suspension(service, self._probes, self._interval_s)
            self.suspensions[service] = suspension
        suspension.blocked(command)

    def try_or_park(self, command: Hashable, now_s: float) -> bool:
        """Say whether a delayed *command* may run now, and take the tries it needs.

        It may not while a service that blocked it has no try left, and is parked; then
        it takes none of another service either, where somebody else could use it.

        Args:
            command: Due.
            now_s: On the clock that is asked each time.
        """
        mine = self._of(command)
        for suspension in mine:
            if not suspension.may_try(command, now_s):
                sometimes("no probe left")
                suspension.parked[command] = None
                return False
        if mine:
            sometimes("probe")
        for suspension in mine:
            suspension.take(command, now_s)
        return True

    def unpark(self, now_s: float) -> Iterator[Hashable]:
        """Yield the parked commands that may run now; they have the tries they need."""
        for suspension in tuple(self.suspensions.values()):
            parked = suspension.parked
            while parked and suspension.may_try(first := next(iter(parked)), now_s):
                del parked[first]
                if self.try_or_park(first, now_s):
                    yield first

    def unpark_s(self) -> float | None:
        """Return from when on `unpark` has more.

        None if nobody is parked, or if it depends on those who try.
        """
        times = (s.free_s() for s in self.suspensions.values() if s.parked)
        return min((time for time in times if time is not None), default=None)

    def is_parked(self, command: Hashable) -> bool:
        """Say whether *command* waits for a try."""
        return any(command in s.parked for s in self.suspensions.values())

    def take_out(self, command: Hashable) -> None:
        """Park *command* no longer: it runs without being asked."""
        for suspension in self.suspensions.values():
            suspension.parked.pop(command, None)

    def passed(self, service: str, command: Hashable) -> bool:
        """Note that *service* answered *command*.

        Returns:
            Whether this was the first answer, so that those who wait for it
            (`Suspension.waiting`) are now due at the fast interval.
        """
        suspension = self.suspensions.get(service)
        if suspension is None:
            return False
        first = not suspension.answering
        if first:
            sometimes("suspended service answers")
        suspension.passed()
        self._release(suspension, command)
        return first

    def tried(self, command: Hashable) -> None:
        """Give back the tries of *command*: its attempt is over."""
        for suspension in self._of(command):
            suspension.trying.discard(command)

    def left(self, command: Hashable) -> None:
        """Forget *command*: it ended, is stuck, or waits for something else now."""
        for suspension in self._of(command):
            self._release(suspension, command)

    def _of(self, command: Hashable) -> Collection[Suspension]:
        if not self.suspensions:
            return ()
        return [s for s in self.suspensions.values() if command in s.waiting]

    def _release(self, suspension: Suspension, command: Hashable) -> None:
        suspension.waiting.pop(command, None)
        suspension.parked.pop(command, None)
        suspension.trying.discard(command)
        if not suspension.waiting:
            del self.suspensions[suspension.service]
