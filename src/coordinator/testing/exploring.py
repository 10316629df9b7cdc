"""`explore`: the same saga under random faults, and the fewest that break it.

for each seed:  draw faults  -->  run  -->  judge by `checks`, beside the quiet run
                                            of the same refusals
the first that breaks a promise:  drop fault after fault as long as it still does;
                                  tell what is left, and how to repeat it
"""

import functools
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from coordinator.options import EngineOptions
from coordinator.testing.checks import Check, Problem, Promises
from coordinator.testing.crashes import quiet_run
from coordinator.testing.errors import BrokenPromiseError, RehearsalError
from coordinator.testing.faults import Fault, Ground, Schedule, draw
from coordinator.testing.rehearsal import apart
from coordinator.testing.runs import Compare, Run, Script, Trial, named
from coordinator.testing.scene import Moment
from coordinator.testing.words import indented
from coordinator.workflow import Command

__all__ = ["SEED", "SEEDS", "ExploreReport", "explore"]

SEED = "COORDINATOR_SEED"
"""Environment variable: the one seed to run."""
SEEDS = "COORDINATOR_SEEDS"
"""Environment variable: how many seeds to run, whatever the test says."""

STEPS_MAX = 20
"""Steps that are refused once each, to get to know what then happens."""


@dataclass
class ExploreReport:
    """What `explore` did; prints nicely."""

    command: str
    seeds: int
    faults: Counter[str] = field(default_factory=Counter[str])
    """How often each kind of fault came about."""
    ends: Counter[str] = field(default_factory=Counter[str])
    """How the runs ended."""
    refused: Counter[str] = field(default_factory=Counter[str])
    """The steps whose refusal did not keep a run from completing."""
    moments: int = 0
    """Different points at which a process was killed."""

    def __str__(self) -> str:
        lines = [
            self.command,
            f"    {self.seeds} seeds: {_counts(self.ends)}",
            f"    faults: {_counts(self.faults) or 'none'}",
            f"    killed at {self.moments} different points",
        ]
        if self.refused:
            lines.append(f"    completed although refused: {_counts(self.refused)}")
        return "\n".join(lines)


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counter.most_common())


def explore(
    command: Command[Any, Any],
    receiver: Any,
    *,
    seeds: int = 500,
    seed: int | None = None,
    script: Script | None = None,
    check: Check | None = None,
    compare: Compare | None = None,
    options: EngineOptions | None = None,
) -> ExploreReport:
    """Run *command* under random faults, and judge each run.

    Services refuse, can't be reached, lose replies and answer too late; the process is
    killed, at several points; an operator cancels. Whatever is drawn, the run has to
    end, and like one with the same refusals in which nothing else goes wrong.

    The same seed is the same run, in every process. The environment variable
    ``COORDINATOR_SEED`` (pytest: ``--coordinator-seed``) goes before *seed*, and
    ``COORDINATOR_SEEDS`` (``--coordinator-seeds``) before *seeds*.

    Args:
        command: An instance.
        receiver: The world; see `crash_everywhere`.
        seeds: How many are run, from 0.
        seed: The only one to run.
        script: What services answer besides.
        check: Judges the world and the `Run`: raises `AssertionError`, or returns
            False. It sees sagas that completed, were compensated, or cancelled.
        compare: What of a result is to be the same.
        options: As of `Coordinator`.

    Raises:
        BrokenPromiseError: A run broke a promise; tells the fewest faults that do it,
            and what repeats it.
        RehearsalError: The test can't be run as it is written.
    """
    __tracebackhide__ = True  # pytest shows the caller's line, not ours
    seed = _number(SEED, seed)
    chosen = range(_number(SEEDS, seeds) or 0) if seed is None else [seed]
    trial = Trial(command, receiver, script=script, options=options)
    promises = Promises(check, compare)
    return apart(functools.partial(_Exploration(trial, promises).explore, chosen))


def _number(name: str, given: int | None) -> int | None:
    text = os.environ.get(name)
    if text is None:
        return given
    try:
        return int(text)
    except ValueError:
        raise RehearsalError(f"{name} must be a number, got {text!r}") from None


class _Exploration:
    def __init__(self, trial: Trial, promises: Promises) -> None:
        self._trial = trial
        self._promises = promises
        self._quiet: dict[frozenset[str], Run] = {}
        self._looking = False

    def explore(self, seeds: Sequence[int]) -> ExploreReport:
        """Run *seeds*, and judge each."""
        __tracebackhide__ = True
        grounds = self._survey()
        report = ExploreReport(named(self._trial.command), len(seeds))
        killed: set[Moment] = set()
        for seed in seeds:
            faults = draw(seed, grounds)
            run, happened = self._run(faults, seed)
            problem = self._judge(run, happened)
            if problem is not None:
                raise self._failure(seed, happened, problem)
            report.ends[run.status] += 1
            report.faults.update(fault.kind for fault in happened)
            killed |= {fault.at for fault in happened if fault.kind == "crash"}
            if run.status == "completed":
                report.refused.update(run.refused)
        report.moments = len(killed)
        return report

    def _survey(self) -> list[Ground]:
        """Get to know the saga: as it is, cancelled at its end, each step refused."""
        quiet = quiet_run(self._trial, self._promises, "explore")
        self._quiet[frozenset()] = quiet
        steps = dict.fromkeys(call.step for call in quiet.calls if not call.undo)
        ways = [[Fault("refuse", Moment(step, 0))] for step in list(steps)[:STEPS_MAX]]
        if steps:
            last = [m for m in quiet.moments if m.what.endswith(" was called")][-1]
            ways.append([Fault("cancel", last)])
        runs = [(way, self._run(way, 0)[0]) for way in ways]
        runs.insert(0, ([], quiet))
        self._promises.undoable = {step for _, run in runs for step in run.undone}
        return [_ground(way, run) for way, run in runs]

    def _run(
        self, faults: Sequence[Fault], seed: int, *, looking: bool = False
    ) -> tuple[Run, list[Fault]]:
        schedule = Schedule(faults)
        run = self._trial.run(
            direct=schedule.direct, services=schedule, seed=seed, looking=looking
        )
        return run, schedule.happened

    def _judge(self, run: Run, happened: Sequence[Fault]) -> Problem | None:
        quiet = None
        if all(fault.kind != "cancel" for fault in happened):
            quiet = self._quiet_of(happened)
            problem = self._promises.broken(quiet, None)
            if problem is not None:
                return problem
        return self._promises.broken(run, quiet)

    def _quiet_of(self, happened: Sequence[Fault]) -> Run:
        """Return the run of the same refusals in which nothing else goes wrong."""
        refused = frozenset(f.at.what for f in happened if f.kind == "refuse")
        quiet = self._quiet.get(refused)
        if quiet is None:
            faults = [Fault("refuse", Moment(step, 0)) for step in sorted(refused)]
            quiet = self._run(faults, 0, looking=self._looking)[0]
            self._quiet[refused] = quiet
        return quiet

    def _failure(
        self, seed: int, faults: list[Fault], problem: Problem
    ) -> BrokenPromiseError:
        fewest, tries = self._shrunk(seed, faults, problem.kind)
        self._looking = True  # it is told once, and may take longer
        self._quiet.clear()
        run, happened = self._run(fewest, seed, looking=True)
        problem = self._judge(run, happened) or problem
        told = "\n".join(
            f"    {number}. {fault}" for number, fault in enumerate(happened, 1)
        )
        dropped = len(faults) - len(happened)
        fewer = f" ({dropped} dropped, in {tries} tries)" if dropped else ""
        return BrokenPromiseError(
            f"{named(self._trial.command)} breaks a promise: seed {seed}\n\n"
            f"What it takes{fewer}:\n{told or '    nothing at all'}\n\n"
            f"Then\n{problem}\n\n"
            f"The run:\n{indented(run.story)}\n\n"
            f"Again:\n    {_again(seed)}",
            kind=problem.kind,
            seed=seed,
        )

    def _shrunk(
        self, seed: int, faults: list[Fault], kind: str
    ) -> tuple[list[Fault], int]:
        """Drop fault after fault, as long as the same goes wrong without it."""
        tries = 0
        shrinking = True
        while shrinking:
            shrinking = False
            for index in range(len(faults)):
                fewer = [*faults[:index], *faults[index + 1 :]]
                run, happened = self._run(fewer, seed)
                tries += 1
                problem = self._judge(run, happened)
                if problem is not None and problem.kind == kind:
                    faults, shrinking = fewer, True
                    break
        return faults, tries


def _ground(way: list[Fault], run: Run) -> Ground:
    calls = dict.fromkeys(call.step for call in run.calls)
    return Ground(
        way=way,
        steps=[step for step in calls if not step.endswith("/undo")],
        undos=[step for step in calls if step.endswith("/undo")],
        moments=list(dict.fromkeys(moment.what for moment in run.moments)),
    )


def _again(seed: int) -> str:
    """Return what repeats *seed*: by pytest where that runs us, else by Python."""
    test = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]
    if test:
        return f"pytest {shlex.quote(test)} --coordinator-seed={seed}"
    return f"explore(..., seed={seed})"
