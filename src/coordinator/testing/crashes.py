"""`crash_everywhere`: the process is killed at every point there is, one after another.

a run without a crash  -->  its moments: before and after every write, every call
for each moment        -->  a fresh world, a run that is killed there, the next
                            process that recovers; judged by `checks`
"""

import functools
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from coordinator.options import EngineOptions
from coordinator.testing.checks import (
    Check,
    Problem,
    Promises,
    first_difference,
    renamed,
)
from coordinator.testing.errors import BrokenPromiseError
from coordinator.testing.rehearsal import apart
from coordinator.testing.runs import Compare, Run, Script, Trial, named
from coordinator.testing.scene import Moment
from coordinator.testing.words import indented, wrapped
from coordinator.testing.worlds import text_of
from coordinator.workflow import Command

__all__ = ["CrashReport", "crash_everywhere", "quiet_run"]


WAY = (
    "let what decides the way be the command's fields, or what steps returned: take "
    "what changes from run to run (a clock, random) in by a step, whose outcome is "
    "recorded. Name steps alike in every run, and let fakes count instead of drawing"
)


@dataclass
class CrashReport:
    """What `crash_everywhere` did; prints nicely."""

    command: str
    points: int
    """Moments at which the process was killed, each in a run of its own."""
    calls: int
    """Calls of services that the run without a crash makes."""
    writes: int
    """Writes of the journal that it makes."""
    end: str
    """How it ended, in every run."""
    timeline: list[str] = field(default_factory=list[str])
    """Of the run without a crash."""

    def __str__(self) -> str:
        return (
            f"{self.command}\n    killed at each of {self.points} points: before and "
            f"after {self.calls} calls and {self.writes} writes\n"
            f"    every run {self.end}"
        )


def crash_everywhere(
    command: Command[Any, Any],
    receiver: Any,
    *,
    script: Script | None = None,
    check: Check | None = None,
    compare: Compare | None = None,
    options: EngineOptions | None = None,
) -> CrashReport:
    """Run *command* once for each point at which its process can be killed, and judge.

    Every run has to end like the one without a crash: with the same result, in the same
    world, with no step repeated under another key, and undos only for what was done,
    last first.

    Args:
        command: An instance. It is stored and made anew, as always.
        receiver: The world. A class, or a function without arguments, is called for
            each run; an object is reset by its ``reset()``, or copied.
        script: Writes what the services answer: ``lambda services:
            services.refuse("shipping.book")`` crashes through a compensation.
        check: Judges the world and the `Run` at the end of each run: raises
            `AssertionError`, or returns False.
        compare: What of a result is to be the same; by default all of it.
        options: As of `Coordinator`.

    Raises:
        BrokenPromiseError: A run ended otherwise; tells the first one's story.
        RehearsalError: The test can't be run as it is written.
    """
    __tracebackhide__ = True  # pytest shows the caller's line, not ours
    trial = Trial(command, receiver, script=script, options=options)
    return apart(functools.partial(_everywhere, trial, check, compare))


def quiet_run(trial: Trial, promises: Promises, what: str) -> Run:
    """Run without a crash, twice, and see that it keeps the promises by itself.

    Raises:
        BrokenPromiseError: It does not, or the two runs differ.
    """
    __tracebackhide__ = True
    quiet, again = trial.run(strict=True), trial.run()
    problem = promises.broken(quiet, None)
    if problem is None and quiet.timeline != again.timeline:
        problem = promises.broken(again, None)
    if problem is None:
        problem = _differs(quiet, again, promises.compare)
    if problem is not None:
        raise BrokenPromiseError(
            f"{named(trial.command)} fails {what} as it is, without any fault\n\n"
            f"{_told(problem, quiet)}",
            kind=problem.kind,
        )
    return quiet


def _differs(quiet: Run, again: Run, compare: Compare | None) -> Problem | None:
    """Say how two runs differ in which nothing went wrong."""
    pick: Compare = compare or text_of
    same = pick(quiet.result) == pick(again.result)
    if quiet.timeline == again.timeline and quiet.world == again.world and same:
        return None
    where = first_difference(quiet, again)
    if not where and quiet.world == again.world:
        return None
    if named_otherwise := renamed(quiet, again):
        return named_otherwise
    if " was called with " in where:
        return Problem(
            "chance",
            f"two runs in which nothing went wrong differ: {where}",
            "what exec draws (uuid4, random, the clock) it draws again when it runs "
            "again after a crash, and the service is asked for another thing under "
            "the same key. Draw it in a step, whose outcome is recorded; and let the "
            "fakes of the test count instead of drawing",
        )
    if where.startswith("one run called"):
        return Problem(
            "chance",
            f"two runs in which nothing went wrong differ: {where}",
            WAY,
        )
    return Problem(
        "chance",
        "two runs in which nothing went wrong differ: "
        + (where or "each leaves another world behind"),
        "each run gets a fresh world, and has to do the same in it: let fakes count "
        "instead of drawing (uuid4, random, the clock), and hand in a seed, or "
        "coordinator.testing.now",
    )


def _everywhere(
    trial: Trial, check: Check | None, compare: Compare | None
) -> CrashReport:
    __tracebackhide__ = True
    promises = Promises(check, compare, alike=True)
    quiet = quiet_run(trial, promises, "crash_everywhere")
    promises.undoable = set(quiet.undone)
    failures: list[tuple[Moment, Problem]] = []
    for moment in quiet.moments:
        run = _killed_at(trial, moment)
        problem = _missed(run, moment) or promises.broken(run, quiet)
        if problem is not None:
            failures.append((moment, problem))
    if failures:
        raise _failure(trial, promises, quiet, failures)
    writes = sum(moment.what.endswith(" written") for moment in quiet.moments) // 2
    return CrashReport(
        named(trial.command),
        points=len(quiet.moments),
        calls=len(quiet.calls),
        writes=writes,
        end=quiet.end,
        timeline=quiet.timeline,
    )


def _killed_at(trial: Trial, moment: Moment, *, looking: bool = False) -> Run:
    return trial.run(
        direct=lambda reached: "kill" if reached == moment else "", looking=looking
    )


def _missed(run: Run, moment: Moment) -> Problem | None:
    if run.deaths:
        return None
    return Problem(
        "chance",
        f"it came to «{moment}» in one run, and not in the next, although nothing had "
        f"gone wrong until then",
        WAY,
    )


def _failure(
    trial: Trial,
    promises: Promises,
    quiet: Run,
    failures: list[tuple[Moment, Problem]],
) -> BrokenPromiseError:
    moment, problem = failures[0]
    run, quiet = _killed_at(trial, moment, looking=True), trial.run(looking=True)
    problem = promises.broken(run, quiet) or problem  # it knows now who changed what
    kinds = Counter(found.kind for _, found in failures)
    others = "".join(f"\n    {at} ({found.kind})" for at, found in failures[1:6])
    more = f"\n    and {len(failures) - 6} more" if len(failures) > 6 else ""
    also = f"\n\nThe same happens when it is killed{others}{more}" if others else ""
    if len(kinds) > 1:
        also = also.replace("The same happens", "It fails as well")
    killed = f"The process was killed {moment}, and the next one recovered. Then"
    return BrokenPromiseError(
        f"{named(trial.command)} does not survive a crash at {len(failures)} of "
        f"{len(quiet.moments)} points\n\n"
        f"{wrapped(killed)}\n"
        f"{_told(problem, run)}{also}",
        kind=problem.kind,
    )


def _told(problem: Problem, run: Run) -> str:
    return f"{problem}\n\nThe run:\n{indented(run.story)}"
