"""``coordinator journal``: look into a journal's folder, also while it is written.

Nothing is locked, changed or created; see `coordinator.journals.segments.inspect`.
"""

import re
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import msgspec

from coordinator.cli.exits import CliError, ExitCode
from coordinator.cli.locks import lock_holder
from coordinator.cli.offline import opened
from coordinator.cli.output import (
    Line,
    emit_lines,
    emit_table,
    show_size,
    show_time,
)
from coordinator.cli.plain import plain_record
from coordinator.cli.printing import emit_json, flush
from coordinator.cli.remote import folder_of
from coordinator.journals.segments import inspect
from coordinator.journals.segments.files import Folder
from coordinator.model import WorkflowId, parse_workflow_id

__all__ = ["dump", "info", "tail", "verify"]

POLL_S = 0.2
"""Seconds between two looks at the end of the journal."""

STYLES = {
    "Accepted": "bold cyan",
    "Outcome": "green",
    "Aborting": "magenta",
    "Finished": "bold green",
    "Stuck": "bold red",
    "Resumed": "cyan",
    "Cancelled": "magenta",
    "Claimed": "dim",
    "Held": "dim",
    "Released": "dim",
}


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """What ``journal info --json`` prints."""

    journal: inspect.JournalInfo
    holders: list[int | None]
    """Process that holds each partition's lock, as far as can be seen."""


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What ``journal verify --json`` prints."""

    ok: bool
    partitions: tuple[inspect.PartitionReport, ...]


class Dumped(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``journal dump --json`` and ``journal tail --json``."""

    partition: int
    position: int
    epoch: int
    record: dict[str, Any]


def info(journal: str, *, as_json: bool) -> ExitCode:
    """Print what the headers say.

    Raises:
        CliError: It is not a journal, or can't be read.
    """
    with opened(folder_of(journal)) as folder:
        found = inspect.info(folder)
    holders = [lock_holder(f"{p.path}/LOCK") for p in found.partitions]
    if as_json:
        emit_json(Described(journal=found, holders=holders))
        return ExitCode.OK
    emit_lines([[(f"journal {found.path}", "bold"), (f"  id {found.id}", "dim")]])
    for partition, holder in zip(found.partitions, holders, strict=True):
        emit_lines(_partition_lines(partition, holder))
        rows = [
            (
                f"  {segment.base}",
                show_size(segment.size),
                show_time(segment.created_at),
                str(segment.epoch),
                segment.path,
            )
            for segment in partition.segments
        ]
        if rows:
            emit_table(("  FROM", "SIZE", "CREATED", "EPOCH", "FILE"), rows)
    return ExitCode.OK


def _partition_lines(
    partition: inspect.PartitionInfo, holder: int | None
) -> list[Line]:
    if holder is not None:
        # By default the owner's name is its process, which the lock names anyway.
        said = re.sub(r"^(.+) \(\1\)", r"\1", partition.holder.strip())
        pid = f"pid {holder} "
        more = said.removeprefix(pid) if said.startswith(pid) else f"({said})"
        held = f"held by process {holder} {more}"
    else:
        held = "not in use, as far as can be seen here"
    saved = partition.checkpoint
    recovery = (
        "no checkpoint: recovery reads everything"
        if saved is None
        else f"recovery reads from position {saved.low}; checkpoint of {saved.end}"
    )
    return [
        [(f"partition {partition.number}", "bold"), (f"  {held}", "")],
        [(f"  {recovery}", "")],
    ]


def verify(journal: str, *, as_json: bool) -> ExitCode:
    """Read all of the journal, and print what is wrong with it.

    Raises:
        CliError: It is not a journal, or can't be read at all.
    """
    with opened(folder_of(journal)) as folder:
        reports = inspect.verify(folder)
    ok = not any(report.problems for report in reports)
    if as_json:
        emit_json(Verified(ok=ok, partitions=reports))
        return ExitCode.OK if ok else ExitCode.DAMAGED
    for report in reports:
        _emit_report(report)
    if not ok:
        said = "`coordinator journal repair` says what is lost, and asks before it acts"
        emit_lines([[(said, "")]])
    return ExitCode.OK if ok else ExitCode.DAMAGED


def _emit_report(report: inspect.PartitionReport) -> None:
    records = sum(segment.records for segment in report.segments)
    batches = sum(segment.batches for segment in report.segments)
    size = show_size(sum(segment.size for segment in report.segments))
    word, style = ("damaged", "bold red") if report.problems else ("ok", "green")
    lines: list[Line] = [
        [
            (f"partition {report.number}: ", "bold"),
            (word, style),
            (f", {records} records in {batches} batches, {size}", ""),
        ]
    ]
    for problem in report.problems:
        where = f"  {problem.path} at byte {problem.offset}: "
        lines.append([(where, "bold"), (problem.problem, "red")])
    if report.torn is not None:
        where = f"  {report.torn.path} at byte {report.torn.offset}: "
        lines.append(
            [
                (where, ""),
                (
                    f"incomplete tail, never acknowledged ({report.torn.problem})",
                    "yellow",
                ),
            ]
        )
    emit_lines(lines)


def dump(
    journal: str,
    *,
    partition: int | None,
    since: int,
    workflow: str | None,
    as_json: bool,
) -> ExitCode:
    """Print the records.

    Raises:
        CliError: It is not a journal, or damaged; what lies before was printed.
    """
    of_workflow = None
    if workflow is not None:
        try:
            of_workflow, _ = parse_workflow_id(workflow)
        except ValueError as error:
            raise CliError(str(error), ExitCode.USAGE) from error
    with opened(folder_of(journal)) as folder:
        _require_partition(folder, partition)
        _require_partition(folder, of_workflow)
        entries = inspect.dump(
            folder,
            partition=partition,
            since=since,
            workflow=None if workflow is None else WorkflowId(workflow),
        )
        for entry in entries:
            _emit(entry, as_json=as_json)
    return ExitCode.OK


def tail(
    journal: str, *, partition: int, count: int, follow: bool, as_json: bool
) -> ExitCode:
    """Print the last records, and with *follow* those that come, until Ctrl-C.

    Raises:
        CliError: It is not a journal, or damaged.
    """
    with opened(folder_of(journal)) as folder:
        _require_partition(folder, partition)
        # The last two segments: the active one may be new, and all but empty.
        segments = inspect.info(folder).partitions[partition].segments[-2:]
        since = segments[0].base if segments else 0
        polls = _polls(folder, partition, since)
        for entry in deque(next(polls), maxlen=count):
            _emit(entry, as_json=as_json, at_once=follow)
        while follow:
            entries = list(next(polls))
            for entry in entries:
                _emit(entry, as_json=as_json, at_once=True)
            if not entries:
                time.sleep(POLL_S)
    return ExitCode.OK


def _polls(
    folder: Folder, partition: int, since: int
) -> Iterator[Iterator[inspect.Entry]]:
    for batches in inspect.tail(folder, partition=partition, since=since):
        yield (
            inspect.Entry(partition, position, batch.epoch, record)
            for batch in batches
            for position, record in batch.records()
        )


def _require_partition(folder: Folder, partition: int | None) -> None:
    count = len(inspect.info(folder).partitions)
    if partition is not None and partition >= count:
        raise CliError(
            f"there is no partition {partition}; the journal has {count}, from 0",
            ExitCode.USAGE,
        )


def _emit(entry: inspect.Entry, *, as_json: bool, at_once: bool = False) -> None:
    record = plain_record(entry.record)
    if as_json:
        line = Dumped(
            partition=entry.partition,
            position=entry.position,
            epoch=entry.epoch,
            record=record,
        )
        emit_json(line, at_once=at_once)
        return
    kind: str = record.pop("record")
    at: int = record.pop("at")
    # As everywhere: with its partition.
    if "workflow" in record:
        record["workflow"] = f"{entry.partition}-{record['workflow']}"
    # What a field is by default says nothing.
    said = [
        f"{name}={value if isinstance(value, str) else _compact(value)}"
        for name, value in record.items()
        if value not in (None, "", [], 0) or name in {"workflow", "position"}
    ]
    emit_lines(
        [
            [
                (f"{entry.partition}-{entry.position:<8} ", "bold"),
                (f"{show_time(at)} ", "dim"),
                (f"{kind:<9} ", STYLES.get(kind, "")),
                (" ".join(said), ""),
            ]
        ]
    )
    if at_once:
        flush()


def _compact(value: Any) -> str:
    return msgspec.json.encode(value).decode()
