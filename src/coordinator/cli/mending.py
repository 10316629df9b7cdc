"""``coordinator journal repair``: go on with what is left of a damaged journal.

    lock all partitions --> salvage --> fold (losses) --> say it --> ask --> stage
    --> finish

`journals.segments.salvage` finds what can be read, `coordinator.losses` what that means
for each workflow, `journals.segments.rebuild` writes it, by steps of which each leaves
the damaged partition or one that the next repair goes on with.
"""

import os
import socket
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import msgspec

from coordinator.cli.checks import now_us
from coordinator.cli.exits import CliError, ExitCode
from coordinator.cli.offline import opened
from coordinator.cli.output import (
    Line,
    confirmed,
    emit_lines,
    show_count,
    show_size,
)
from coordinator.cli.printing import emit_json
from coordinator.cli.remote import folder_of, operator_name
from coordinator.errors import JournalDamagedError, JournalFormatError
from coordinator.journals.segments.files import Folder
from coordinator.journals.segments.journal import (
    describe_journal,
    read_journal_file,
    told_by_segments,
)
from coordinator.journals.segments.reading import Identity
from coordinator.journals.segments.rebuild import finish
from coordinator.journals.segments.recovery import is_marked
from coordinator.losses import Dropped, Marked
from coordinator.mending import LostPositions, PartitionRepair, RepairReport

__all__ = ["repair"]

_SHOWN_MAX = 100
"""Workflows that people are shown; `--json` has all."""


class Repaired(msgspec.Struct, frozen=True, kw_only=True):
    """What ``journal repair --json`` prints."""

    done: bool
    finished: tuple[int, ...]
    """Partitions whose repair had been cut off, and was finished."""
    partitions: tuple[RepairReport, ...]
    """Those that needed one."""


def repair(journal: str, *, yes: bool, as_json: bool) -> ExitCode:
    """Say what is lost of *journal*, ask, and go on with the rest.

    Raises:
        CliError: It is not a journal, is in use or of a newer format; there is no
            space; the answer was no, or nobody is there to be asked. Nothing was
            changed then.
    """
    path = folder_of(journal)
    with opened(path) as folder, _unharmed(path), ExitStack() as locks:
        identity, damaged = _identity(folder)
        partitions: list[tuple[Folder, Identity]] = []
        for number in range(identity.partitions):
            partition = folder.make_folder(f"p{number}")
            lock = partition.lock("LOCK", _holder())
            locks.callback(lock.release)
            own = msgspec.structs.replace(identity, partition=number)
            partitions.append((partition, own))
        finished = tuple(map(_finish, filter(_is_marked, partitions)))
        at = now_us()
        cases = [
            case
            for case in (PartitionRepair(*p, at) for p in partitions)
            if case.needed
        ]
        reports = tuple(case.report() for case in cases)
        if not as_json:
            _emit(finished, damaged, reports)
        if cases or damaged:
            _agree(
                Repaired(done=False, finished=finished, partitions=reports),
                yes,
                as_json,
            )
            reports = _do(folder, identity, cases, reports, at, damaged)
        if as_json:
            emit_json(Repaired(done=True, finished=finished, partitions=reports))
        elif cases or damaged:
            emit_lines(
                [
                    [("repaired", "bold green"), (f"; kept: {report.kept}", "")]
                    for report in reports
                ]
                or [[("repaired", "bold green")]]
            )
    return ExitCode.OK


@contextmanager
def _unharmed(path: str) -> Generator[None]:
    """Say what a failure of the disk, or a Ctrl-C, leaves behind.

    Raises:
        CliError: That happened.
    """
    left = "nothing is lost by that, and the same command goes on from here"
    try:
        yield
    except OSError as error:
        said = f"can't repair {path}: {error}; {left}"
        raise CliError(said, ExitCode.UNAVAILABLE) from error
    except KeyboardInterrupt:
        raise CliError(f"interrupted; {left}", ExitCode.FAILED) from None


def _is_marked(partition: tuple[Folder, Identity]) -> bool:
    return is_marked(partition[0])


def _finish(partition: tuple[Folder, Identity]) -> int:
    folder, identity = partition
    finish(folder)
    return identity.partition


def _agree(planned: Repaired, yes: bool, as_json: bool) -> None:
    if yes:
        return
    if as_json:
        emit_json(planned)
    elif sys.stdin.isatty() and confirmed(
        "What is replaced is kept beside it. Repair?"
    ):
        return
    asked = sys.stdin.isatty() and not as_json
    said = "nothing was changed"
    raise CliError(said if asked else f"{said}; --yes repairs", ExitCode.FAILED)


def _do(
    folder: Folder,
    identity: Identity,
    cases: list[PartitionRepair],
    reports: tuple[RepairReport, ...],
    at: int,
    damaged: str,
) -> tuple[RepairReport, ...]:
    needed = sum(case.prepare() for case in cases)
    free = folder.free()
    if free < needed:
        raise CliError(
            f"{show_size(needed)} are needed, {show_size(free)} are free; nothing was "
            f"changed",
            ExitCode.UNAVAILABLE,
        )
    stamp = f"damaged-{datetime.fromtimestamp(at / 1e6, UTC):%Y%m%dT%H%M%S.%fZ}"
    for case in cases:
        case.stage(stamp, by=operator_name())
    done = tuple(
        msgspec.structs.replace(report, kept=finish(case.folder).kept)
        for case, report in zip(cases, reports, strict=True)
    )
    if damaged:
        # Last: until it is there, nobody opens the journal.
        describe_journal(folder, identity, kept=f"journal.json.{stamp}")
    return done


def _holder() -> str:
    return f"pid {os.getpid()} on {socket.gethostname()} ({operator_name()}, repair)"


def _identity(folder: Folder) -> tuple[Identity, str]:
    """Return which journal it is, and what is wrong with its description."""
    try:
        identity = read_journal_file(folder)
        problem = f"{folder.path}/journal.json is missing"
    except JournalDamagedError as error:
        identity, problem = None, f"{error.path}: {error.problem}"
    if identity is not None:
        return identity, ""
    found = Counter(told_by_segments(folder))
    if not found:
        raise JournalFormatError(
            f"{folder.path} is not a journal: {problem}, and no segment says which"
        )
    (identity, _), *_ = found.most_common(1)
    return identity, problem


def _emit(
    finished: tuple[int, ...], damaged: str, reports: tuple[RepairReport, ...]
) -> None:
    lines: list[Line] = [
        [(f"partition {number}: ", "bold"), ("a repair was cut off; it is done", "")]
        for number in finished
    ]
    if damaged:
        said = f"{damaged}; it is made anew from what the segments say"
        lines.append([(said, "red")])
    for report in reports:
        lines += _report_lines(report)
    if not lines:
        lines.append([("nothing is damaged: nothing to repair", "")])
    emit_lines(lines)


def _report_lines(report: RepairReport) -> list[Line]:
    lines: list[Line] = [[(f"partition {report.partition}", "bold")]]
    if report.problem:
        lines.append([(f"  {report.problem}", "red")])
    if report.checkpoint:
        said = (
            f"  the checkpoint can't be read ({report.checkpoint}): keys and results "
            f"of commands that ended before the oldest segment are forgotten"
        )
        lines.append([(said, "")])
    lines += [[(f"  not used: {path}: {why}", "")] for path, why in report.unused]
    lines += [[(f"  lost: {_said(gap)}", "red")] for gap in report.lost]
    if not report.lost:
        lines.append([("  no record is lost", "green")])
    lines.append(
        [(f"  {show_count(report.whole, 'unfinished workflow')} whole: they go on", "")]
    )
    if report.stuck:
        count = show_count(len(report.stuck), "workflow")
        lines.append([(f"  {count} may have lost records, and will be stuck:", "")])
        for marked in report.stuck[:_SHOWN_MAX]:
            lines.append([(f"    {_name(marked)}", "bold")])
            lines += [[(f"      {loss}", "")] for loss in marked.losses]
    if report.dropped:
        count = show_count(len(report.dropped), "workflow")
        said = (
            f"  {count} can't go on, for the beginning is lost; sent again it is a new "
            f"command, under new keys:"
        )
        lines.append([(said, "red")])
        for dropped in report.dropped[:_SHOWN_MAX]:
            done = ", ".join(dropped.recorded) or "nothing else is recorded"
            lines.append([(f"    {_name(dropped)}", "bold"), (f": {done}", "")])
    if max(len(report.stuck), len(report.dropped)) > _SHOWN_MAX:
        lines.append([(f"  of each {_SHOWN_MAX} are shown; --json has all", "dim")])
    return lines


def _said(gap: LostPositions) -> str:
    count = gap.end - gap.first
    where = f"{gap.path}: bytes {gap.offset} to {gap.offset + gap.size - 1}"
    if not gap.size:
        where = gap.path
    if count == 1:
        return f"position {gap.first} ({where}: {gap.problem})"
    return f"positions {gap.first} to {gap.end - 1} ({where}: {gap.problem})"


def _name(one: Marked | Dropped) -> str:
    key = f"  {one.key}" if one.key else ""
    return f"{one.id}  {one.type or 'of an unknown type'}{key}"
