"""What all harnesses share: cases that stand by themselves, a count, a verdict.

A harness is a module with a `HARNESS`: it names its cases, and runs one of them in an
empty folder. A case is a word, such as ``kill:117:within``; with the seed it says all
there is to know, so that whatever fails prints the one command that repeats it.
"""

import contextlib
import logging
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path

__all__ = ["Harness", "Result", "Unavailable", "Verdict", "load", "spread", "torture"]

_PROGRESS_S = 1.0


class Unavailable(Exception):  # noqa: N818 -- no error: the machine lacks something
    """The machine can't do what the harness needs; says what."""


@dataclass
class Result:
    """What one case found."""

    violations: list[str] = field(default_factory=list[str])
    count: int = 1
    """What was done, in the harness' own unit."""
    facts: Counter[str] = field(default_factory=Counter[str])
    """What else is worth knowing, added up over all cases."""


@dataclass(frozen=True)
class Harness:
    """One way to torture it."""

    name: str
    unit: str
    """What is counted, for the verdict."""
    cases: Callable[[int, int], Iterable[str]]
    """Takes a count (0: all there are) and the seed."""
    run: Callable[[str, int, Path], Result]
    """Takes a case, the seed, and an empty folder."""
    full: int
    """Of the run that the record speaks of; 0 for all there are."""
    small: int
    """Of the run that every change has to pass."""


@dataclass
class Verdict:
    """What a harness found."""

    harness: str
    unit: str
    cases: int = 0
    missing: int = 0
    """Cases that were not run, for want of time or after a failure."""
    count: int = 0
    seconds: float = 0.0
    facts: Counter[str] = field(default_factory=Counter[str])
    failures: list[str] = field(default_factory=list[str])
    """Each with its case and the command that repeats it."""

    def __str__(self) -> str:
        word = "FAILED" if self.failures else "held"
        facts = "".join(f", {self.facts[fact]} {fact}" for fact in sorted(self.facts))
        missing = f" ({self.missing} were not run)" if self.missing else ""
        return (
            f"{self.harness}: {word}: {self.count} {self.unit} in {self.cases} "
            f"cases{missing}, {self.seconds:.0f} s{facts}, "
            f"{len(self.failures)} failures"
        )


def load(name: str) -> Harness:
    """Import the harness of that name."""
    harness = import_module(f"tests.torture.{name.replace('-', '_')}").HARNESS
    assert isinstance(harness, Harness)
    return harness


def spread(cases: Sequence[str], count: int) -> Sequence[str]:
    """Return *count* of *cases*, drawn, always the same; all of them if *count* is 0.

    Not every n-th: where kinds take turns, that may be always the same one.
    """
    if not 0 < count < len(cases):
        return cases
    drawn = random.Random(count).sample(range(len(cases)), count)
    return [cases[number] for number in sorted(drawn)]


def run_case(name: str, case: str, seed: int, where: str | None) -> Result:
    """Run one case in a folder of its own, which is gone afterwards."""
    logging.disable()  # what goes wrong here is meant to
    folder = Path(tempfile.mkdtemp(prefix=f"torture-{name}-", dir=where))
    try:
        return load(name).run(case, seed, folder)
    except Unavailable:
        raise
    except Exception:  # noqa: BLE001 -- a harness that breaks must not pass
        return Result([f"the harness itself failed:\n{traceback.format_exc()}"])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def torture(
    harness: Harness,
    *,
    count: int,
    seed: int,
    jobs: int = 1,
    where: str | None = None,
    keep_going: bool = False,
    minutes: float | None = None,
) -> Verdict:
    """Run *harness*, and say what it found.

    Args:
        harness: Which one.
        count: Of its cases; 0 for all there are.
        seed: Of everything that is drawn.
        jobs: Processes at a time.
        where: Folder for what the cases make; that of temporary files if None.
        keep_going: Past failures.
        minutes: After which no further case is begun. They are run in a drawn order
            then, so that those which were run speak for all.

    Raises:
        Unavailable: The machine can't do it.
    """
    verdict = Verdict(harness.name, harness.unit)
    begun_s = time.monotonic()
    every = list(harness.cases(count, seed))
    progress = _progress(verdict, len(every), begun_s)
    if minutes is not None:
        random.Random(seed).shuffle(every)
    cases = iter(every)
    running: dict[Future[Result], str] = {}
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        while True:
            while len(running) < jobs * 2 and (case := next(cases, None)) is not None:
                future = pool.submit(run_case, harness.name, case, seed, where)
                running[future] = case
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                _take(verdict, running.pop(future), future.result(), seed)
            next(progress)
            verdict.seconds = time.monotonic() - begun_s
            late = minutes is not None and verdict.seconds > minutes * 60
            if late or (verdict.failures and not keep_going):
                cases = iter(())
    verdict.missing = len(every) - verdict.cases
    return verdict


def _take(verdict: Verdict, case: str, result: Result, seed: int) -> None:
    verdict.cases += 1
    verdict.count += result.count
    verdict.facts += result.facts
    if result.violations:
        said = "\n".join(f"  {violation}" for violation in result.violations[:8])
        more = len(result.violations) - 8
        said += f"\n  and {more} more" if more > 0 else ""
        again = f"python -m tests.torture {verdict.harness} --case {case} --seed {seed}"
        failure = f"{verdict.harness} {case} failed:\n{said}\n  repeat it: {again}"
        verdict.failures.append(failure)
        with contextlib.suppress(OSError):
            print(failure, file=sys.stderr, flush=True)


def _progress(verdict: Verdict, cases: int, begun_s: float) -> Iterator[None]:
    """Tell how far it is: all the time on a terminal, once a minute elsewhere."""
    told_s = begun_s
    on_terminal = sys.stderr.isatty()
    every_s = _PROGRESS_S if on_terminal else 60 * _PROGRESS_S
    while True:
        yield
        now_s = time.monotonic()
        if now_s - told_s > every_s:
            told_s = now_s
            said = (
                f"{verdict.harness}: {verdict.cases} of {cases} cases, {verdict.count} "
                f"{verdict.unit}, {verdict.count / (now_s - begun_s):.1f}/s"
            )
            line = f"\r{said} " if on_terminal else f"{said}\n"
            print(line, end="", file=sys.stderr, flush=True)
