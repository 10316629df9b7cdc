"""What a planted bug is: one piece of the product, replaced by what somebody might have
written.

`planted_journal`, `planted_saga` and `planted_engine` have the bugs, `hunt` counts how
many seeds it takes to find each, `test_planted_bugs` asks that each be found.
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from tests.simulation.run import Result, simulate

__all__ = ["Bug", "NotAwaited", "instead", "planted", "try_seed", "without_waiting"]


@dataclass(frozen=True)
class Bug:
    """One planted bug."""

    name: str
    owner: Any
    attribute: str
    make: Callable[[], Any]
    """Makes what is put there instead: anew for each seed, so that a seed repeats."""
    shows_as: frozenset[str]
    """Kinds of violations, any of which may tell of it first."""
    first: int = 0
    """Where the search of `make test` begins: the seeds before do not find it."""
    museum: str = ""
    """Whose bug it was, once."""


def instead(replacement: Any) -> Callable[[], Any]:
    """Return what makes *replacement*, which has no state of its own."""
    return lambda: replacement


@contextmanager
def planted(bug: Bug) -> Generator[None]:
    """Have *bug* in the product."""
    with patch.object(bug.owner, bug.attribute, bug.make()):
        yield


def try_seed(bug: Bug, seed: int) -> Result | str:
    """Run *seed* with *bug* in the product; its result, or how it broke the simulator.

    That an assertion of the product's own ends the run is a way of being found, too.
    """
    with planted(bug):
        try:
            return simulate(seed)
        except Exception as error:  # noqa: BLE001 -- any will do
            return f"raised {type(error).__name__}: {error}"


class NotAwaited:
    """Awaiting it waits for nothing."""

    def __await__(self) -> Any:
        return iter(())

    __iter__ = __await__  # as a future has it, for `yield from`


def without_waiting(class_: type[Any], kind: str) -> Callable[[], Any]:
    """Go on before the record of that kind is durable."""
    init = class_.__init__

    def plant(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        append = self._append

        def hasty(record: Any) -> Any:
            durable = append(record)
            return NotAwaited() if type(record).__name__ == kind else durable

        self._append = hasty

    return instead(plant)
