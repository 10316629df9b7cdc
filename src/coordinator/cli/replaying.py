"""``coordinator replay``: tell a service that lost its data what it had done.

    history of each partition --> Story --> merged by time --> the user's function
                                                          `--> state file, now and then

At least once: after a crash the outcomes since the last state that was written are told
again. In order: that of the journal in each partition, by time across them.
"""

import asyncio
import heapq
import inspect
import os
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec

from coordinator.batch import Batch
from coordinator.cli.exits import CliError, ExitCode
from coordinator.cli.offline import opened
from coordinator.cli.output import emit_lines, show_count, show_time
from coordinator.cli.printing import complain, emit_json
from coordinator.cli.remote import folder_of
from coordinator.cli.target import load_function
from coordinator.context import StepContext, in_step
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.history import Missing, history
from coordinator.journals.segments.journal import read_journal_file
from coordinator.journals.segments.posix import PosixFolder
from coordinator.journals.segments.recovery import partition_folder
from coordinator.model import Direction, StepId
from coordinator.replay import ReplayedOutcome, Story

__all__ = ["ReplayOptions", "replay"]

SHOWN = 5
"""Outcomes that a dry run shows."""
SAVE_COUNT = 100
"""Outcomes after which the state is written, at most: what a crash tells again."""
TRIES = 6
FIRST_PAUSE_S = 0.2
"""Seconds before the second try; each further pause is twice as long."""
_RATE = re.compile(r"([0-9]+)(?:/(s|m|h))?")
_UNITS_S = {None: 1, "s": 1, "m": 60, "h": 3600}


class ReplayOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line asks for."""

    service: str
    to: str
    archive: str | None
    since: str
    until: str
    dry_run: bool
    rate: str
    state: str | None


class State(msgspec.Struct, kw_only=True):
    """What the state file holds: how far each partition was told."""

    journal: str
    service: str
    to: str
    told: dict[str, tuple[int, int]] = {}
    """By partition: position and index of the last one."""


class Summary(msgspec.Struct, kw_only=True):
    """What ``replay --json`` prints at the end."""

    told: int = 0
    passed_over: int = 0
    """Outcomes that an earlier run had told, or that lie outside the time asked for."""
    unknown: int = 0
    """Outcomes whose workflow's beginning is not retained: not told."""
    missing: list[tuple[int, int, int]] = []
    """What was trimmed away: partition, first position, position behind the last."""
    first: list[ReplayedOutcome] = []


def replay(journal: str | None, options: ReplayOptions, *, as_json: bool) -> ExitCode:
    """Tell the outcomes of one service to a function, in order.

    Raises:
        CliError: It is not a journal, or damaged; the function is not there, or kept
            failing, or Ctrl-C ended it: what was told is in the state file. Or that
            can't be written.
    """
    function = None if options.dry_run else load_function(options.to)
    since, until = _time(options.since, 0), _time(options.until, 1 << 62)
    pause_s = _pause(options.rate)
    summary = Summary()
    with opened(folder_of(journal)) as folder, ExitStack() as stack:
        identity = read_journal_file(folder)
        if identity is None:
            said = f"{folder.path} is not a journal"
            raise CliError(said, ExitCode.UNAVAILABLE)
        state = _load(options, identity.journal_id.hex())
        stories = [
            Story(identity.journal_id.hex(), number, options.service)
            for number in range(identity.partitions)
        ]
        streams = [
            _stream(
                _folders(folder, options.archive, identity.journal_id.hex(), number),
                msgspec.structs.replace(identity, partition=number),
                story,
                summary,
            )
            for number, story in enumerate(stories)
        ]
        wanted = (
            one
            for one in heapq.merge(*streams, key=lambda one: one.at)
            if _is_wanted(one, state, summary, since, until)
        )
        if function is None:
            for one in wanted:
                summary.told += 1
                if len(summary.first) < SHOWN:
                    summary.first.append(one)
        else:
            _save(options, state)  # it can be written, before anything is told
            stack.callback(_save, options, state)
            try:
                asyncio.run(_tell(wanted, function, state, options, pause_s, summary))
            except KeyboardInterrupt:
                raise CliError(
                    _interrupted(summary, options), ExitCode.FAILED
                ) from None
        summary.unknown = sum(story.unknown for story in stories)
    _emit(summary, options, as_json=as_json)
    return ExitCode.OK


def _folders(
    folder: Folder, archive: str | None, journal_id: str, number: int
) -> list[Folder]:
    own = partition_folder(folder, number)
    place = Path(archive or f"{folder.path}/archive", journal_id, f"p{number}")
    if not place.is_dir():
        return [own]
    return [PosixFolder(str(place)), own]


def _stream(
    folders: list[Folder], identity: Any, story: Story, summary: Summary
) -> Iterator[ReplayedOutcome]:
    for part in history(folders, identity):
        if isinstance(part, Missing):
            summary.missing.append((identity.partition, part.first, part.end))
            continue
        batch: Batch = part
        for position, record in batch.records():
            yield from story.tell(position, batch.epoch, record)


def _is_wanted(
    one: ReplayedOutcome, state: State, summary: Summary, since: int, until: int
) -> bool:
    done = state.told.get(str(one.partition), (-1, 0))
    if (one.position, one.index) > done and since <= one.at < until:
        return True
    summary.passed_over += 1
    return False


async def _tell(
    wanted: Iterator[ReplayedOutcome],
    function: Callable[[ReplayedOutcome], Any],
    state: State,
    options: ReplayOptions,
    pause_s: float,
    summary: Summary,
) -> None:
    pace = _Pace(pause_s)
    for one in wanted:
        await _tell_one(one, function, pace)
        state.told[str(one.partition)] = (one.position, one.index)
        summary.told += 1
        if summary.told % SAVE_COUNT == 0:
            _save(options, state)


class _Pace:
    """Lets one call begin at a time, so many seconds after the one before, or more.

    Nothing is caught up on: whoever was slow for a while is not asked faster behind it.
    """

    def __init__(self, pause_s: float) -> None:
        self._pause_s = pause_s
        self._due_s = 0.0

    async def turn(self) -> None:
        """Wait until the next call may begin."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(max(self._due_s - loop.time(), 0))
        self._due_s = loop.time() + self._pause_s


async def _tell_one(
    one: ReplayedOutcome, function: Callable[[ReplayedOutcome], Any], pace: _Pace
) -> None:
    undo = one.direction == "undo"
    for attempt in range(TRIES):
        context = StepContext(
            idempotency_key=one.idempotency_key,
            epoch=one.epoch,
            workflow_id=one.workflow_id,
            step=StepId(one.step, one.occurrence),
            direction=Direction.UNDO if undo else Direction.DO,
            attempt=attempt,
            trace=one.trace,
            replay=True,
        )
        await pace.turn()
        try:
            with in_step(context):
                told = function(one)
                if inspect.isawaitable(told):
                    await told
        except Exception as error:
            said = f"{one.partition}-{one.position} {one.step} of {one.workflow_id}"
            if attempt + 1 == TRIES:
                raise CliError(
                    f"stopped at {said}: it failed {TRIES} times, last: "
                    f"{type(error).__name__}: {error}; what was told before "
                    f"is not told again with --state",
                    ExitCode.FAILED,
                ) from error
            complain(f"{said}: {type(error).__name__}: {error}; trying again")
            await asyncio.sleep(FIRST_PAUSE_S * 2**attempt)
        else:
            return


def _load(options: ReplayOptions, journal_id: str) -> State:
    fresh = State(journal=journal_id, service=options.service, to=options.to)
    if options.state is None or not Path(options.state).exists():
        return fresh
    try:
        state = msgspec.json.decode(Path(options.state).read_bytes(), type=State)
    except (OSError, msgspec.DecodeError) as error:
        raise CliError(
            f"{options.state} is no state of a replay: {error}", ExitCode.USAGE
        ) from error
    if (state.journal, state.service) != (journal_id, options.service):
        raise CliError(
            f"{options.state} is of service {state.service} of journal "
            f"{state.journal}; name another file",
            ExitCode.USAGE,
        )
    return state


def _save(options: ReplayOptions, state: State) -> None:
    """Write the state; durable on return.

    Raises:
        CliError: It can't be written; the one before it stands.
    """
    if options.state is None:
        return
    path = Path(options.state)
    copy = path.with_name(f"{path.name}.tmp")
    try:
        with copy.open("wb") as file:
            file.write(msgspec.json.encode(state))
            file.flush()
            os.fsync(file.fileno())
        copy.replace(path)
        PosixFolder(str(path.parent)).sync()
    except OSError as error:
        raise CliError(
            f"can't write the state {path}: {error.strerror or error}; what was told "
            f"since it was last written will be told again",
            ExitCode.UNAVAILABLE,
        ) from error


def _interrupted(summary: Summary, options: ReplayOptions) -> str:
    said = f"interrupted: {show_count(summary.told, 'outcome')} told"
    if options.state is None:
        return f"{said}; without --state the next run begins at the beginning"
    return f"{said}; the same command goes on behind them"


def _time(text: str, default: int) -> int:
    if not text:
        return default
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise CliError(
            f"{text!r} is no time; one looks like 2026-09-21T14:13:20Z", ExitCode.USAGE
        ) from error
    return round((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1e6)


def _pause(text: str) -> float:
    if not text:
        return 0.0
    match = _RATE.fullmatch(text)
    if match is None or int(match[1]) == 0:
        raise CliError(f"{text!r} is no rate; one looks like 100/s", ExitCode.USAGE)
    return _UNITS_S[match[2]] / int(match[1])


def _emit(summary: Summary, options: ReplayOptions, *, as_json: bool) -> None:
    if as_json:
        emit_json(summary)
        return
    for partition, first, end in summary.missing:
        said = f"partition {partition}: positions {first} to {end - 1} were trimmed "
        emit_lines([[(f"{said}away: what was in them is not told", "yellow")]])
    for one in summary.first:
        emit_lines([[(f"{show_time(one.at)} {one.direction} {one.step}", "")]])
    verb = "would be told" if options.dry_run else "told"
    said = f"{show_count(summary.told, 'outcome')} of {options.service} {verb}"
    if summary.unknown:
        said += f"; {summary.unknown} are of commands that began before, and are not"
    emit_lines([[(said, "bold")]])
