"""What has to hold of a run, whatever was done to it on the way.

    every run        ends; calls nothing whose outcome is recorded; undoes only what was
                     done, last first, and all of it; knows of all that was done
    beside a quiet   takes no other key for the same call; and where the same was
    run              recorded: ends alike, with the same result, and leaves the same
                     world behind

A *quiet* run is one in which the services say the same, but nothing is lost, delayed
or killed. That these two do not differ is the whole promise.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from coordinator.testing.runs import Compare, Run, same_end
from coordinator.testing.services import names_of
from coordinator.testing.words import indented, wrapped
from coordinator.testing.worlds import differences, shortened, text_of

__all__ = [
    "Check",
    "Problem",
    "Promises",
    "difference",
    "ended",
    "first_difference",
    "renamed",
]

Check = Callable[[Any, Run], object]
"""A judgement of the user's on the world and the run: raises, or returns False."""

ONCE = (
    "a service has to do a step once per idempotency key, however often it is asked. "
    "If the real one does, and only this fake does not, put @once "
    "(coordinator.testing) on the fake's method; if the real one does not, this is "
    "what it will do in production"
)
FORGOTTEN = (
    "exec runs again after a crash, a delay or a cancel, over the recorded outcomes "
    "and without calling those steps: what it, or a step, kept in a variable is gone "
    "by then. Have a step return all that its undo, and the steps behind it, need"
)
OURS = "this should never happen whatever a saga does: please report it with the story"


@dataclass
class Problem:
    """What is wrong with a run."""

    kind: str
    what: str
    """In the user's words; may have several lines."""
    remedy: str = ""

    def __str__(self) -> str:
        remedy = f"\n\nWhat to do: {self.remedy}" if self.remedy else ""
        return wrapped(f"{indented(self.what)}{remedy}")


@dataclass
class Promises:
    """Judges runs."""

    check: Check | None = None
    compare: Compare | None = None
    alike: bool = False
    """Whether a run must end like its quiet one also where it took another way."""
    undoable: Collection[str] = ()
    """The steps that are known to have an undo."""

    def broken(self, run: Run, quiet: Run | None) -> Problem | None:
        """Return the first promise that *run* breaks; None if it keeps all.

        Args:
            run: To be judged.
            quiet: The same without a crash, and with nothing lost; None if there is no
                such run, or *run* is it.
        """
        problem = ended(run, quiet) or _order(run) or _known(run) or self._left(run)
        if problem is None and quiet is not None:
            problem = _keys(run, quiet)
            same = _same_outcomes(run, quiet)
            if problem is None and (same or self.alike):
                problem = self._same(run, quiet)
            if problem is None and same:
                problem = _world(run, quiet)
        return problem or self._users(run)

    def _left(self, run: Run) -> Problem | None:
        if run.status not in {"compensated", "cancelled"}:
            return None
        left = [
            step
            for step in run.standing
            if any(name in self.undoable for name in names_of(step))
        ]
        if not left:
            return None
        return Problem(
            "left",
            f"it was {run.status}, but {', '.join(left)} was not undone, and has an "
            f"undo in other runs",
            "give the step its undo on every path that asks for it",
        )

    def _same(self, run: Run, quiet: Run) -> Problem | None:
        if same_end(run, quiet, self.compare):
            return None
        return Problem(
            "result",
            f"it {run.end};\nwithout that it {quiet.end}",
            "what exec returns must follow from the command and from what its steps "
            "returned: take what changes from run to run (a clock, random, uuid4) in "
            "by a step, whose outcome is recorded. Where only a part of the result "
            "has to be the same: compare=lambda result: ...",
        )

    def _users(self, run: Run) -> Problem | None:
        if self.check is None:
            return None
        try:
            verdict = self.check(run.receiver, run)
        except AssertionError as error:
            return Problem("check", f"the check failed: {str(error) or 'an assertion'}")
        if verdict is False:
            return Problem("check", "the check returned False")
        return None


def ended(run: Run, quiet: Run | None = None) -> Problem | None:
    """Say what is wrong if *run* did not end; *quiet* is one that may have."""
    if run.status == "endless":
        return Problem(
            "endless",
            "it does not end, although nothing goes wrong any more",
            "see the last lines of the story for what it asks again and again",
        )
    if run.status != "stuck":
        return None
    what = f"it is stuck: {_reason(run.reason)}"
    if run.reason.startswith("undo of "):
        undo = run.calls[-1].step
        if _did(run, undo):
            what += f"\n{undo} had done its work before, and is asked again"
            remedy = (
                "an undo is called until its success is recorded: it must be able to "
                "run more than once, also after it has been done, and with nothing but "
                "what its step returned"
            )
        elif quiet is not None and _did(quiet, undo):
            what += f"\n{undo} did its work in the run in which nothing went wrong"
            remedy = f"an undo gets what its step returned, and no more: {FORGOTTEN}"
        else:
            remedy = (
                f"see the traceback for a bug in the undo. It gets what its step "
                f"returned, and no more: {FORGOTTEN}"
            )
    elif "nobody knows whether" in run.reason or "can't undo" in run.reason:
        remedy = (
            "exec took another way than the run before, by a clock, by chance, or by "
            "what it kept in memory; take what decides in by a step, whose outcome is "
            "recorded, or ask for every step on every way"
        )
    elif run.reason.startswith("exec raised"):
        remedy = "exec has a bug on this path; see the traceback"
    else:
        remedy = ""
    return Problem("stuck", what, remedy)


def _reason(reason: str) -> str:
    """Set a traceback off from what is said before it and behind it."""
    first, *lines = reason.split("\n")
    last = lines.pop() if lines and lines[-1].startswith("; ") else ""
    return "\n".join([first, *(f"    {line}" for line in lines if line), last[2:]])


def _order(run: Run) -> Problem | None:
    for call in run.calls:
        if run.written.get(call.step, call.at) < call.at:
            return Problem(
                "again", f"{call.step} was called when its outcome was written", OURS
            )
    done = run.done
    undone = list(dict.fromkeys(c.step[:-5] for c in run.calls if c.undo))
    never = [step for step in undone if step not in done]
    if never:
        return Problem("undo", f"{never[0]} was undone, but never done", OURS)
    if undone != [step for step in reversed(done) if step in undone]:
        return Problem(
            "undo",
            f"undone were {', '.join(undone)}; done were, in this order, "
            f"{', '.join(done)}",
            OURS,
        )
    return None


def _known(run: Run) -> Problem | None:
    recorded = {step for step, what, _ in run.outcomes if what in {"done", "refused"}}
    for call in run.calls:
        if call.done and not call.undo and call.step not in recorded:
            return Problem(
                "unknown",
                f"{call.step} did its work, but it {run.status} without asking for "
                f"that step again: nothing is recorded of it, and nothing undoes it",
                "exec took another way after that; take what decides (a clock, random, "
                "what is kept in memory) in by a step, whose outcome is recorded",
            )
    return None


def _keys(run: Run, quiet: Run) -> Problem | None:
    """Look for one call under two keys: what tells a service that it is another one."""
    ours, theirs = _keys_by_call(run), _keys_by_call(quiet)
    for (function, arguments), keys in ours.items():
        usual = max(1, len(theirs.get((function, arguments), {})))
        if len(keys) <= usual:
            continue
        names = list(keys.values())
        if len(set(names)) > 1:
            return _named(f"{function}{arguments}", names[0], names[-1])
    return None


def _named(call: str, name: str, other: str) -> Problem:
    bare = repr(_bare(name)) if _bare(name) == _bare(other) else "..."
    return Problem(
        "named",
        f"the same call is named differently from run to run: {shortened(call)}\n"
        f"is step {name} in one run of exec, and {other} in another, so it is done "
        f"under two keys",
        f"name the step after what it is about, .named({bare}, key=...), with a name "
        f"and a key that are the same in every run: of the command's fields, or of "
        f"what a step returned",
    )


def renamed(run: Run, other: Run) -> Problem | None:
    """Say whether two runs first went apart by the name of one and the same call."""
    for ours, theirs in zip(run.calls, other.calls, strict=False):
        if ours.step != theirs.step:
            same = (ours.function, ours.arguments) == (
                theirs.function,
                theirs.arguments,
            )
            call = f"{ours.function}{ours.arguments}"
            return _named(call, ours.step, theirs.step) if same else None
    return None


def _keys_by_call(run: Run) -> dict[tuple[str, str], dict[str, str]]:
    found: dict[tuple[str, str], dict[str, str]] = {}
    for call in run.calls:
        if call.done:
            keys = found.setdefault((call.function, call.arguments), {})
            keys[call.key] = call.step
    return found


def _bare(step: str) -> str:
    return names_of(step)[-1].removesuffix("/undo")


def _same_outcomes(run: Run, quiet: Run) -> bool:
    # Without the values: what a fake numbers may get another number the second time.
    return [o[:2] for o in run.outcomes] == [o[:2] for o in quiet.outcomes]


def _world(run: Run, quiet: Run) -> Problem | None:
    paths = differences(run.world, quiet.world)
    if not paths:
        return None
    lines: list[str] = ["the world it leaves behind is another one:"]
    for path in paths[:5]:
        lines += difference(path, run.world.get(path), quiet.world.get(path))
    if len(paths) > 5:
        lines.append(f"    and {len(paths) - 5} more: {', '.join(paths[5:])}")
    who = _who(run, paths)
    missing = [step for step in _who(quiet, paths) if step not in who]
    if "exec" in who:
        lines.append(
            "exec itself changed that, outside of any step; and exec runs again from "
            "its beginning after every crash and every delay"
        )
        remedy = (
            "do it in a step: await workflow.step(function, ...), which is done once, "
            "and whose outcome is recorded"
        )
    else:
        repeated = [step for step in who if _did(run, step) > 1]
        for step in repeated:
            lines.append(
                f"{step} changed that, each of the {_did(run, step)} times that "
                f"it was called, under one idempotency key"
            )
        if missing:
            lines.append(
                f"{', '.join(missing)} changed that in the run in which nothing went "
                f"wrong, and not in this one"
            )
        remedy = FORGOTTEN if missing and not repeated else ONCE
    return Problem("world", "\n".join(lines), remedy)


def _who(run: Run, paths: Collection[str]) -> dict[str, None]:
    return dict.fromkeys(step for path, step in run.changes if path in paths)


def _did(run: Run, step: str) -> int:
    """Return how often the function of *step* did its work."""
    return sum(call.done for call in run.calls if call.step == step)


def difference(path: str, ours: str | None, theirs: str | None) -> list[str]:
    """Return the lines that say how a path differs."""
    absent = "not there"
    return [
        f"    {path}",
        f"        is           {shortened(ours) if ours is not None else absent}",
        f"        and should be {shortened(theirs) if theirs is not None else absent}",
    ]


def first_difference(run: Run, other: Run) -> str:
    """Say where two runs first went apart: what was asked, or what was answered."""
    for ours, theirs in zip(run.calls, other.calls, strict=False):
        if ours.step != theirs.step:
            return f"one run called {ours.step}, the other {theirs.step}"
        if ours.arguments != theirs.arguments:
            return (
                f"{ours.step} was called with {shortened(ours.arguments)} in one run, "
                f"and with {shortened(theirs.arguments)} in the other"
            )
        if ours.value != theirs.value:
            return (
                f"{ours.step} returned {shortened(ours.value)} in one run, and "
                f"{shortened(theirs.value)} in the other"
            )
    if len(run.calls) != len(other.calls):
        longer = max(run.calls, other.calls, key=len)
        step = longer[min(len(run.calls), len(other.calls))].step
        return f"one run called {step}, the other had ended before"
    if text_of(run.result) != text_of(other.result):
        return (
            f"exec returned {shortened(text_of(run.result))} in one run, and "
            f"{shortened(text_of(other.result))} in the other, from the same outcomes"
        )
    return ""
