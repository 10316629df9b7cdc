"""Services that are asked twice: whether they notice, and fakes that do.

A service has to do a step once per idempotency key. `check_idempotency` asks each one
twice, and compares; `once` has a fake's method do so.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from coordinator.context import current_step
from coordinator.errors import Refused
from coordinator.options import EngineOptions
from coordinator.testing.checks import ONCE, difference, ended
from coordinator.testing.errors import BrokenPromiseError, RehearsalError
from coordinator.testing.rehearsal import apart
from coordinator.testing.runs import Run, Script, Trial, named
from coordinator.testing.scene import Moment
from coordinator.testing.words import indented, wrapped
from coordinator.testing.worlds import MEMORY, differences, shortened
from coordinator.workflow import Command

__all__ = ["IdempotencyReport", "check_idempotency", "once"]

MethodT = TypeVar("MethodT", bound=Callable[..., Any])


@dataclass
class IdempotencyReport:
    """What `check_idempotency` did; prints nicely."""

    command: str
    steps: list[str] = field(default_factory=list[str])
    """Steps and undos that were each asked twice."""

    def __str__(self) -> str:
        return f"{self.command}\n    asked twice: {', '.join(self.steps)}"


def check_idempotency(
    command: Command[Any, Any],
    receiver: Any,
    *,
    script: Script | None = None,
    options: EngineOptions | None = None,
) -> IdempotencyReport:
    """Call each step, and each undo, twice under its key, and compare.

    The second answer has to be like the first, and to leave the world as it was after
    the first. Steps are asked in a run as it is, undos in one that is cancelled when
    its last step is under way.

    Args:
        command: An instance.
        receiver: The world; see `crash_everywhere`.
        script: What services answer besides; what it answers itself is not asked twice.
        options: As of `Coordinator`.

    Raises:
        BrokenPromiseError: A service does it twice, or answers otherwise; or the saga
            does not come to its end.
        RehearsalError: The test can't be run as it is written.
    """
    __tracebackhide__ = True  # pytest shows the caller's line, not ours
    trial = Trial(command, receiver, script=script, options=options)
    return apart(functools.partial(_check, trial))


def _check(trial: Trial) -> IdempotencyReport:
    __tracebackhide__ = True
    asked = trial.run(strict=True)
    report = IdempotencyReport(named(trial.command))
    runs = [trial.run(twice=True)]
    calls = [m for m in asked.moments if m.what.endswith(" was called")]
    if calls:
        runs.append(_undone(trial, calls[-1]))
    steps = dict.fromkeys(twice.call.step for run in runs for twice in run.doubled)
    report.steps = list(steps)
    wrong = {step: told for run in runs for step, told in _wrong(run)}
    if wrong:
        raise BrokenPromiseError(
            f"{named(trial.command)}: {len(wrong)} of {len(steps)} steps are not done "
            f"once when they are asked twice under one idempotency key\n\n"
            + "\n\n".join(wrong.values())
            + "\n\n"
            + wrapped(f"What to do: {ONCE}"),
            kind="idempotency",
        )
    for run in [asked, *runs]:
        problem = ended(run)
        if problem is not None:  # so not every step, or undo, was asked
            raise BrokenPromiseError(
                f"{named(trial.command)} fails check_idempotency\n\n"
                f"{problem}\n\nThe run:\n{indented(run.story)}",
                kind=problem.kind,
            )
    return report


def _undone(trial: Trial, last: Moment) -> Run:
    return trial.run(
        direct=lambda moment: "cancel" if moment == last else "", twice=True
    )


def _wrong(run: Run) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for twice in run.doubled:
        call, second = twice.call, twice.second
        lines: list[str] = []
        if second != call.value:
            lines += [
                f"  first it answered {shortened(call.value)}",
                f"  then              {shortened(second)}",
            ]
        for path in differences(twice.before, twice.after):
            if not lines or "changed the world" not in lines[-1]:
                lines.append("  the second call changed the world once more:")
            lines += difference(path, twice.after.get(path), twice.before.get(path))
        if lines:
            found.append((call.step, "\n".join([call.step, *lines])))
    return found


def once(method: MethodT) -> MethodT:
    """Have a fake's *method* do its work once per idempotency key.

    Asked again under a key, it answers, or refuses, as it did; as a service has to.
    What is called outside of a step is simply called. ``async def`` or plain ``def``.

    Raises:
        RehearsalError: (When it is called) its object can't remember anything: it has
            no ``__dict__``.
    """
    if inspect.iscoroutinefunction(method):

        @functools.wraps(method)
        async def asked(self: Any, *args: Any, **kwargs: Any) -> Any:
            known = _memory(self, method.__name__)
            if known is None:
                return await method(self, *args, **kwargs)
            if not known:
                try:
                    known.append((await method(self, *args, **kwargs), None))
                except Refused as refusal:
                    known.append((None, refusal))
            return _answer(known)

        return cast("MethodT", asked)

    @functools.wraps(method)
    def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        known = _memory(self, method.__name__)
        if known is None:
            return method(self, *args, **kwargs)
        if not known:
            try:
                known.append((method(self, *args, **kwargs), None))
            except Refused as refusal:
                known.append((None, refusal))
        return _answer(known)

    return cast("MethodT", called)


def _memory(self: Any, name: str) -> list[tuple[Any, Refused | None]] | None:
    """Return what is remembered of this key: an answer, or none; None outside steps."""
    try:
        key = current_step().idempotency_key
    except RuntimeError:
        return None
    try:
        memory = self.__dict__.setdefault(MEMORY, {})
    except AttributeError:
        raise RehearsalError(
            f"@once on {type(self).__name__}.{name} remembers in the object's "
            f"__dict__, and it has none"
        ) from None
    return cast("dict[str, list[Any]]", memory).setdefault(f"{name} {key}", [])


def _answer(known: list[tuple[Any, Refused | None]]) -> Any:
    value, refusal = known[0]
    if refusal is not None:
        raise refusal
    return value
