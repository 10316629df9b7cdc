"""The pytest plugin: two options, and fixtures that are what `coordinator.testing` has.

    pytest --coordinator-seed=4711     every `explore` runs this seed, and no other
    pytest --coordinator-seeds=20000   every `explore` runs so many

Loaded by pytest in every run (entry point ``pytest11``), so it imports nothing of
coordinator before a test asks for a fixture: a run that has no sagas pays for three
small modules, 0.8 ms. pytest rewrites the asserts of all modules of a distribution that
has a plugin, wherever the plugin is in it; that costs the first run that imports them
0.35 s, after which Python has them cached, and `explore` is as fast as without. Only a
distribution of its own for this one file would avoid it (a module can opt out in its
docstring, a package can't), and that is more to install for less than it saves.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from coordinator.testing.rehearsal import Rehearsal

__all__ = [
    "check_idempotency",
    "crash_everywhere",
    "explore",
    "pytest_addoption",
    "pytest_configure",
    "pytest_unconfigure",
    "rehearse",
]

_VARIABLES = {
    "coordinator_seed": "COORDINATOR_SEED",
    "coordinator_seeds": "COORDINATOR_SEEDS",
}
"""Options, and the environment variables that say the same to `explore`."""
_BEFORE = pytest.StashKey[dict[str, str | None]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    group = parser.getgroup("coordinator", "sagas under random faults")
    group.addoption(
        "--coordinator-seed", type=int, metavar="N", help="explore this seed only"
    )
    group.addoption(
        "--coordinator-seeds", type=int, metavar="N", help="explore so many seeds"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Hand the options on; xdist's workers get them like any other."""
    given = {name: config.getoption(name) for name in _VARIABLES}
    if all(value is None for value in given.values()):
        return
    before: dict[str, str | None] = {}
    for option, value in given.items():
        if value is not None:
            variable = _VARIABLES[option]
            before[variable] = os.environ.get(variable)
            os.environ[variable] = str(value)
    config.stash[_BEFORE] = before


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave the environment as it was."""
    for variable, value in config.stash.setdefault(_BEFORE, {}).items():
        if value is None:
            os.environ.pop(variable, None)
        else:
            os.environ[variable] = value


@pytest.fixture
def rehearse() -> "Iterator[Callable[..., Rehearsal[Any]]]":
    """Begin rehearsals that end with the test: ``rehearse(Shop(), commands=[...])``."""
    from coordinator.testing.rehearsal import Rehearsal  # noqa: PLC0415 -- see above

    with ExitStack() as stack:
        yield lambda *args, **kwargs: stack.enter_context(Rehearsal(*args, **kwargs))


@pytest.fixture
def crash_everywhere() -> Callable[..., Any]:
    """`coordinator.testing.crash_everywhere`."""
    from coordinator import testing  # noqa: PLC0415 -- see above

    return testing.crash_everywhere


@pytest.fixture
def explore() -> Callable[..., Any]:
    """`coordinator.testing.explore`."""
    from coordinator import testing  # noqa: PLC0415 -- see above

    return testing.explore


@pytest.fixture
def check_idempotency() -> Callable[..., Any]:
    """`coordinator.testing.check_idempotency`."""
    from coordinator import testing  # noqa: PLC0415 -- see above

    return testing.check_idempotency
