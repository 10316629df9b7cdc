"""Who waits at the door: commands that may not come in yet, in the order they came.

    push(kind, key, thing, caller)   behind all others; or beside who has that key
    pop(may_enter)                   the first whose kind may enter, with its callers
    leave(caller)                    and the thing with the last of its callers

Kept by kind, which is what may keep some out and others not: the command's type, for
the services that it needs, and whether a step offers it.
Kept by key, because who asks again is not another: it takes no second place. And by
caller, because many may leave at once, each at a cost that does not grow with the rest.

The bound is whoever fills it: a connection's limit of commands in flight, and the tasks
that wait in `submit`.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from coordinator.rare import sometimes

__all__ = ["Door"]

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
C = TypeVar("C")


class _Place(Generic[K, T, C]):
    """Where one thing waits, and for whom."""

    __slots__ = ("callers", "key", "kind", "number", "thing")

    def __init__(self, number: int, kind: K, key: str, thing: T) -> None:
        self.number = number
        self.kind = kind
        self.key = key
        self.thing = thing
        self.callers: dict[C, None] = {}


class Door(Generic[K, T, C]):
    """Waiting things, each of a kind, each with the callers who want it."""

    def __init__(self) -> None:
        # Ordered ones: a plain dict whose first entries are gone is searched for its
        # first from its beginning, again and again.
        self._waiting: dict[K, OrderedDict[int, _Place[K, T, C]]] = {}
        self._keyed: dict[tuple[K, str], _Place[K, T, C]] = {}
        self._places: dict[C, _Place[K, T, C]] = {}
        self.counter = 0
        self.count = 0
        """How many things wait."""

    def push(self, kind: K, key: str, thing: T, caller: C) -> None:
        """Let *thing* wait for *caller*, who waits for nothing else.

        If one of the same *kind* and *key* waits, the caller joins it; an empty key is
        nobody's.
        """
        place = self._keyed.get((kind, key)) if key else None
        if place is not None:
            sometimes("two at the door under one key")
        else:
            self.counter += 1
            self.count += 1
            place = _Place[K, T, C](self.counter, kind, key, thing)
            self._waiting.setdefault(kind, OrderedDict())[place.number] = place
            if key:
                self._keyed[kind, key] = place
        assert caller not in self._places
        place.callers[caller] = None
        self._places[caller] = place

    def pop(self, may_enter: Callable[[K], bool]) -> tuple[T, tuple[C, ...]] | None:
        """Take out the first whose kind may enter, with its callers.

        None if there is none.
        """
        heads = [
            next(iter(places.values()))
            for kind, places in self._waiting.items()
            if may_enter(kind)
        ]
        if not heads:
            return None
        place = min(heads, key=lambda head: head.number)
        self._remove(place)
        for caller in place.callers:
            del self._places[caller]
        return place.thing, tuple(place.callers)

    def leave(self, caller: C) -> bool:
        """Take *caller* away, and what it waited for if nobody else does.

        Returns:
            Whether it was here.
        """
        place = self._places.pop(caller, None)
        if place is None:
            return False
        del place.callers[caller]
        if not place.callers:
            sometimes("last caller left the door")
            self._remove(place)
        return True

    def _remove(self, place: _Place[K, T, C]) -> None:
        places = self._waiting[place.kind]
        del places[place.number]
        if not places:
            del self._waiting[place.kind]
        if place.key:
            del self._keyed[place.kind, place.key]
        self.count -= 1
