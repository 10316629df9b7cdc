"""Rare points: places in the code that few runs come to, and that tests have to reach.

    if self._held: ...
        sometimes("outcome held")

Off, that is, always but in the simulation, one look at a module's variable: some 30 ns,
on paths that are rare by themselves, and never on a hot one. On, it counts. So a name
that no seed reaches is seen, and what lies there is known to be untried.

A name is a string literal, used once: `tests/simulation/rare.py` reads them all from
the source, so that one which is never reached is listed too.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager

__all__ = ["reached_by", "sometimes"]

_tell: Callable[[str], None] | None = None


def sometimes(name: str) -> None:
    """Note that the rare point *name* was reached, if anybody wants to know."""
    if _tell is not None:
        _tell(name)


@contextmanager
def reached_by(tell: Callable[[str], None]) -> Generator[None]:
    """Call *tell* with the name of each rare point that is reached meanwhile."""
    global _tell  # noqa: PLW0603 -- one process, one observer: nothing to hand around
    before, _tell = _tell, tell
    try:
        yield
    finally:
        _tell = before
