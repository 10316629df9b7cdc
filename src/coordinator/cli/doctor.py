"""``coordinator doctor``: is this machine, and this journal, fit to run on?

Works beside a running server: it takes no lock and writes nothing but a nameless file,
to see how long a flush takes. Each check says ok, warning or problem, and what to do.
"""

import asyncio
import os
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec

from coordinator.api.admin_messages import Server, Status
from coordinator.api.admin_socket import journal_folder
from coordinator.cli.checks import (
    Check,
    machine_checks,
    now_us,
    ok,
    place_checks,
    problem,
    warning,
)
from coordinator.cli.exits import CliError, ExitCode, exit_code_of
from coordinator.cli.locks import lock_holder
from coordinator.cli.offline import opened
from coordinator.cli.output import (
    STATUS_STYLES,
    Line,
    emit_lines,
    progress,
    show_count,
    show_duration,
    show_size,
    wrapped,
)
from coordinator.cli.printing import emit_json
from coordinator.cli.remote import NoServerError, SilentServerError, ask, folder_of
from coordinator.errors import JournalError
from coordinator.journals.segments import inspect
from coordinator.journals.segments.files import Folder
from coordinator.journals.urls import examine_streams, examine_topic, segment_size_of

__all__ = ["doctor"]

FUTURE_US_MAX = 1_000_000
"""How far the last record may lie ahead: clocks of one machine agree better."""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """What ``doctor --json`` prints."""

    level: str
    """The worst of them."""
    checks: list[Check]


def doctor(journal: str | None, *, as_json: bool) -> ExitCode:
    """Look at everything, and print what was found.

    Returns:
        FAILED if there is a problem; DAMAGED if it is damage. Warnings are OK.

    Raises:
        CliError: *journal* is a URL with an option that is not known.
    """
    checks = [*machine_checks()]
    code = ExitCode.OK
    with progress("measuring …"):
        try:
            if journal is not None and journal.startswith(("kafka:", "nats:")):
                checks += _brokers(journal)
            else:
                checks += _place(journal)
        except _FoundError as error:
            code = error.code
            checks.append(problem("journal", str(error), error.advice))
    levels = {check.level for check in checks}
    worst = next((one for one in ("problem", "warning") if one in levels), "ok")
    if worst == "problem" and code is not ExitCode.DAMAGED:
        code = ExitCode.FAILED
    if as_json:
        emit_json(Diagnosis(level=worst, checks=checks))
    else:
        emit_lines([line for check in checks for line in _lines(check)])
    return code


class _Finding(Protocol):
    """What backends say of their servers, each in a class of its own."""

    @property
    def name(self) -> str: ...

    @property
    def level(self) -> str: ...

    @property
    def found(self) -> str: ...

    @property
    def advice(self) -> str: ...


class _FoundError(Exception):
    """The journal can't be looked at; with the exit code, and what to do."""

    def __init__(self, said: str, code: ExitCode, advice: str) -> None:
        super().__init__(said)
        self.code = code
        self.advice = advice


def _place(journal: str | None) -> Iterator[Check]:
    """Check the disk, and the journal on it.

    Raises:
        _FoundError: It can't be read.
        CliError: *journal* is a URL with an option that is not known.
    """
    folder = _local_folder(journal)
    yield from place_checks(folder, _segment_size(journal))
    if folder is not None and os.path.isdir(folder):
        try:
            with opened(folder) as opened_folder:
                yield from _journal(opened_folder)
        except CliError as error:
            advice = _HELP.get(error.code, "")
            raise _FoundError(str(error), error.code, advice) from error


def _brokers(journal: str) -> Iterator[Check]:
    """Check a journal in Kafka or NATS, and its servers.

    Raises:
        _FoundError: It can't be looked at.
        CliError: *journal* is no address of one.
    """
    try:
        if journal.startswith("kafka:"):
            found = [*map(_check_of, examine_topic(journal))]
        else:
            found = [*map(_check_of, asyncio.run(examine_streams(journal)))]
    except JournalError as error:
        # What to do is in what it says.
        raise _FoundError(str(error), exit_code_of(error), "") from error
    except ValueError as error:
        raise CliError(str(error), ExitCode.USAGE) from error
    yield from found


def _check_of(finding: _Finding) -> Check:
    return Check(
        name=finding.name,
        level=finding.level,
        found=finding.found,
        advice=finding.advice,
    )


_HELP = {
    ExitCode.DAMAGED: "see `coordinator journal verify`; restore the file from a copy, "
    "or let `coordinator journal repair` say what is lost",
    ExitCode.UNAVAILABLE: "use the folder of a journal, or an empty one",
}


def _local_folder(journal: str | None) -> str | None:
    """Return the journal's folder; None if there is none on this machine."""
    if not journal:
        return None
    if journal_folder(journal) is None and ":" in journal.partition("/")[0]:
        return None  # memory:
    return folder_of(journal)


def _segment_size(journal: str | None) -> int:
    """Return the size that the URL says, as `serve` reads it; the default of a path."""
    url = journal if journal is not None and journal.startswith("file:") else "file:"
    try:
        return segment_size_of(url)
    except ValueError as error:
        raise CliError(str(error), ExitCode.USAGE) from error


def _lines(check: Check) -> list[Line]:
    style = STATUS_STYLES[check.level]
    first: Line = [(f"{check.level:<8}", style), (f" {check.name:<8} ", "bold")]
    margin = (" " * 18, "")
    found, *more = wrapped(check.found, 18)
    lines = [[*first, (found, "")], *([margin, (line, "")] for line in more)]
    if check.advice:
        advice = wrapped(f"-> {check.advice}", 18)
        lines += [[margin, (line, style)] for line in advice]
    return lines


def _journal(folder: Folder) -> Iterator[Check]:
    """Check the journal itself, and the server on it.

    Raises:
        CoordinatorError: It can't be read.
    """
    found = inspect.info(folder)
    segments = [segment for p in found.partitions for segment in p.segments]
    yield ok(
        "journal",
        f"{found.path} is a journal of format 1, id {found.id}: "
        f"{show_count(len(found.partitions), 'partition')}, "
        f"{show_count(len(segments), 'segment')}, "
        f"{show_size(sum(segment.size for segment in segments))}",
    )
    holders = {lock_holder(f"{p.path}/LOCK") for p in found.partitions} - {None}
    yield from _server(found, holders)
    last = max(map(_last_at(folder), found.partitions), default=0)
    ahead = last - now_us()
    if ahead > FUTURE_US_MAX:
        yield warning(
            "times",
            f"the last record is {show_duration(ahead)} in the future",
            "the clock was set back, or the journal is another machine's: times that "
            "are shown will look wrong, nothing else",
        )
    elif last:
        yield ok("times", f"the last record is {show_duration(-ahead)} old")


def _last_at(folder: Folder) -> Callable[[inspect.PartitionInfo], int]:
    def find(partition: inspect.PartitionInfo) -> int:
        since = partition.segments[-1].base if partition.segments else 0
        entries = inspect.dump(folder, partition=partition.number, since=since)
        return max((entry.record.at for entry in entries), default=0)

    return find


def _server(found: inspect.JournalInfo, holders: set[int | None]) -> Iterator[Check]:
    try:
        server = ask(found.path, Status(), Server)
    except NoServerError:
        if holders:
            yield warning(
                "server",
                f"process {', '.join(map(str, holders))} holds the journal, but has no "
                f"admin socket",
                "if it is not an application with the coordinator in it, see its log",
            )
        else:
            yield ok("server", "none is running, and nobody is seen to hold the lock")
        return
    except SilentServerError as error:
        advice = "see its log; one that was stopped goes on with SIGCONT"
        yield warning("server", str(error), advice)
        return
    except CliError as error:
        yield warning("server", str(error), "ask as its user, with its version")
        return
    said = (
        f"process {server.pid} runs it: {server.unfinished} unfinished, "
        f"{server.in_memory} of at most {server.commands_max} in memory"
    )
    if server.closed:
        yield warning("server", f"{said}; takes nothing new: {server.closed}", "wait")
    else:
        yield ok("server", said)
    if server.busy:
        yield warning(
            "busy",
            f"more is offered than can be done: {server.busy}",
            "what is let in is not slowed by it; for more, serve a part elsewhere",
        )
    if server.full:
        yield problem(
            "full",
            f"new commands are refused, what runs goes on: {server.full}",
            "free some space; they are taken again by themselves",
        )
    if server.stuck:
        yield warning(
            "stuck",
            f"{show_count(server.stuck, 'workflow')} wait for a person",
            "see `coordinator list --status stuck`, then retry or cancel",
        )
    for one in server.suspended:
        yield warning(
            "service",
            f"{one.service} is suspended, {one.waiting} waiting",
            "see to the service; they go on by themselves",
        )
