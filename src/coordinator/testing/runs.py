"""One command, run to its end under a script and a plan of crashes; what came of it."""

import inspect
import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from coordinator import values
from coordinator.errors import Refused
from coordinator.model import (
    Direction,
    EndStatus,
    OutcomeStatus,
    StepId,
    format_workflow_id,
)
from coordinator.options import EngineOptions
from coordinator.records import Finished, Outcome
from coordinator.testing.durations import seconds
from coordinator.testing.errors import RehearsalError
from coordinator.testing.rehearsal import LIMIT
from coordinator.testing.scene import Call, Direct, Doubled, Moment
from coordinator.testing.services import Services
from coordinator.testing.stage import Stage
from coordinator.testing.words import timeline_of
from coordinator.testing.worlds import World, look_at, text_of
from coordinator.timeline import build_timeline

__all__ = ["Attached", "Compare", "Run", "Script", "Trial", "named", "same_end"]

Script = Callable[[Services], None]
"""Writes the script of a world: what its services answer."""

Compare = Callable[[Any], Any]
"""What of a result is to be the same in every run."""


@dataclass
class Run:
    """A run of the command, through as many processes as it took."""

    status: str
    """How it ended: ``completed``, ``compensated``, ``cancelled``; or ``stuck``; or
    ``endless``."""
    result: Any
    """What `exec` returned; None unless it completed."""
    refusal: Refused | None
    """Why it was compensated; None if it was not."""
    reason: str
    """Why it was undone, or is stuck, in words."""
    timeline: list[str]
    """What the journal holds, an entry each."""
    standing: tuple[str, ...]
    """The steps whose effect is still in the world."""
    receiver: Any
    """The world as it is in the end."""
    world: dict[str, str]
    """What it looks like."""
    story: str
    """All that happened, line by line."""
    calls: list[Call]
    moments: list[Moment]
    outcomes: list[tuple[str, str, bytes]]
    """What is recorded of each step, in order: its name, ``done``, ``refused`` or
    ``undone``, and the value."""
    written: dict[str, int]
    deaths: list[Moment | str]
    changes: list[tuple[str, str]]
    doubled: list[Doubled]

    @property
    def end(self) -> str:
        """How it ended, in a line."""
        if self.status == "completed":
            return f"completed with {text_of(self.result)}"
        return f"{self.status}: {self.reason}" if self.reason else self.status

    @property
    def refused(self) -> list[str]:
        """The steps that were refused."""
        return [step for step, what, _ in self.outcomes if what == "refused"]

    @property
    def done(self) -> list[str]:
        """The steps that were done, in their order, undone or not."""
        return [step for step, what, _ in self.outcomes if what == "done"]

    @property
    def undone(self) -> list[str]:
        """The steps that were undone, in the order in which they were."""
        return [step for step, what, _ in self.outcomes if what == "undone"]


class Trial:
    """A command that is run again and again, in a fresh world each time."""

    def __init__(
        self,
        command: Any,
        receiver: Any,
        *,
        script: Script | None = None,
        options: EngineOptions | None = None,
    ) -> None:
        """Prepare.

        Raises:
            RehearsalError: The receiver can't be made anew; or *command* is a class.
        """
        if inspect.isclass(command):
            name = command.__name__
            raise RehearsalError(f"{name} is a class; pass a command, {name}(...)")
        self.command = command
        self._class: type[Any] = type(command)
        self._world = World(receiver)
        self._script = script
        self._options = options

    def run(
        self,
        *,
        direct: Direct = lambda _: "",
        services: Services | None = None,
        seed: int = 0,
        looking: bool = False,
        twice: bool = False,
        strict: bool = False,
    ) -> Run:
        """Run the command to its end.

        Args:
            direct: Says at which moments the process is killed, or it is cancelled.
            services: What is behind the script.
            seed: Of jitter, and of the order of what happens at once.
            looking: Whether it is found out who changes what of the world; slow.
            twice: Whether each call is made twice.
            strict: Whether every line of the script has to come to something.

        Raises:
            RehearsalError: The script is wrong, or the saga waits for ever.
        """
        services = services or Services()
        if self._script is not None:
            self._script(services)
        receiver = self._world.fresh()
        stage = Stage(
            receiver,
            (self._class,),
            services=services,
            options=self._options,
            seed=seed,
            direct=direct,
            twice=twice,
        )
        if looking or twice:
            stage.look = lambda: look_at(receiver)
        if isinstance(services, Attached):
            services.attach(stage)
        with _silent():
            try:
                stage.start()
                position = stage.submit(self.command)
                endless = _finish(stage)
                if strict and (unused := services.unused()):
                    raise RehearsalError(unused)
                return _run_of(stage, position, self._class, endless=endless)
            finally:
                stage.close()


class Attached(Services):
    """Services that look at the stage they are on."""

    stage: Stage

    def attach(self, stage: Stage) -> None:
        """Get to know the stage."""
        self.stage = stage


def _finish(stage: Stage) -> bool:
    """Let it end; return whether it never does."""
    try:
        stage.finish(seconds(LIMIT))
    except RehearsalError:
        if not stage.open:
            raise
        return True
    return False


def _run_of(stage: Stage, position: int, class_: type[Any], *, endless: bool) -> Run:
    stage.attribute("exec")
    own = [
        (p, record)
        for p, record in stage.records
        if p == position or getattr(record, "workflow", None) == position
    ]
    story = build_timeline(
        format_workflow_id(0, position), (record for _, record in own)
    )
    assert story is not None
    result, refusal = None, None
    for _, record in own:
        if not isinstance(record, Finished):
            continue
        if record.status is EndStatus.COMPLETED:
            result = values.decode(record.value, values.return_type(class_.exec))
        elif record.status is EndStatus.COMPENSATED:
            refusal = values.load_refusal(record.value)
    return Run(
        status="endless" if endless else story.status,
        result=result,
        refusal=refusal,
        reason=story.reason,
        timeline=timeline_of(position, stage.records),
        standing=story.standing,
        receiver=stage.receiver,
        world=look_at(stage.receiver),
        story=stage.story(),
        calls=stage.calls,
        moments=stage.moments,
        outcomes=[_outcome(r) for _, r in own if isinstance(r, Outcome)],
        written=stage.written,
        deaths=stage.deaths,
        changes=stage.changes,
        doubled=stage.doubled,
    )


def _outcome(record: Outcome) -> tuple[str, str, bytes]:
    step = str(StepId(record.step, record.occurrence))
    what = record.status.name.lower()
    if record.direction is Direction.UNDO and record.status is OutcomeStatus.DONE:
        what = "undone"
    return step, what, record.value


@contextmanager
def _silent() -> Generator[None]:
    """Keep the engine's log quiet: what it warns of here is what was asked for."""
    logger = logging.getLogger("coordinator")

    def nothing(_record: logging.LogRecord) -> bool:
        return False

    logger.addFilter(nothing)
    try:
        yield
    finally:
        logger.removeFilter(nothing)


def named(command: Any) -> str:
    """Return the command as messages name it."""
    return f"{text_of(command)}"


def same_end(run: Run, other: Run, compare: "Compare | None") -> bool:
    """Say whether two runs ended alike, whatever happened on the way."""
    if run.status != other.status:
        return False
    if run.status != "completed":
        return str(run.refusal) == str(other.refusal)
    pick = compare or text_of
    return bool(pick(run.result) == pick(other.result))
