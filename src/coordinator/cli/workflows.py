"""What people do with workflows: submit, list, show, retry, cancel."""

import sys
import time

import msgspec

from coordinator.api.admin_messages import (
    Cancel,
    Ended,
    List,
    Retry,
    Show,
    Submit,
    Workflows,
    listed,
)
from coordinator.cli.exits import CliError, ExitCode
from coordinator.cli.lanes import draw
from coordinator.cli.offline import opened, timeline_of, unfinished
from coordinator.cli.output import (
    emit_lines,
    emit_table,
    emit_text,
    progress,
    show_duration,
    width,
)
from coordinator.cli.printing import complain, emit_json
from coordinator.cli.remote import NoServerError, ask, folder_of, operator_name, start
from coordinator.model import parse_workflow_id
from coordinator.runs import WorkflowInfo
from coordinator.timeline import Timeline

__all__ = ["cancel", "list_workflows", "retry", "show", "submit"]


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """What ``list --json`` prints."""

    running: bool
    """Whether a server answered; else the journal was read."""
    total: int
    workflows: list[WorkflowInfo]
    full: str
    """Which disk has no space, so that the server takes nothing new; empty if none."""


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What ``show --json`` prints."""

    running: bool
    """Whether a server answered."""
    live: WorkflowInfo | None
    """What it says; None if it does not know the workflow (any more)."""
    timeline: Timeline
    full: str
    """As `Listed.full`, while the workflow is unfinished."""


class Started(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What ``submit``, ``retry`` and ``cancel`` print with ``--json``."""

    id: str
    status: str
    """``accepted``; with ``--wait`` as `Ended.status`."""
    result: msgspec.Raw = msgspec.Raw(b"null")
    reason: str = ""


def submit(
    type_: str, payload: str, *, journal: str | None, wait: bool, as_json: bool
) -> ExitCode:
    """Hand a command to the running server.

    Raises:
        CliError: There is no server, or it did not take the command.
    """
    try:
        # Bytes: stdin's encoding is the locale's, and JSON is UTF-8.
        given = sys.stdin.buffer.read() if payload == "-" else payload.encode()
        text = given.decode()
    except UnicodeError as error:
        raise CliError(f"the JSON is not UTF-8: {error}", ExitCode.USAGE) from error
    command = Submit(type=type_, payload=text, wait=wait)
    return _start(command, journal, "accepted", as_json=as_json)


def retry(
    workflow_id: str, *, journal: str | None, by: str | None, wait: bool, as_json: bool
) -> ExitCode:
    """Have a stuck workflow run again.

    Raises:
        CliError: There is no server, no such workflow, or it is not stuck.
    """
    command = Retry(id=_checked(workflow_id), by=by or operator_name(), wait=wait)
    return _start(command, journal, "runs again", as_json=as_json)


def cancel(
    workflow_id: str,
    *,
    journal: str | None,
    by: str | None,
    reason: str,
    wait: bool,
    as_json: bool,
) -> ExitCode:
    """Have a workflow stopped and undone.

    Raises:
        CliError: There is no server, no such workflow, or it is being undone already.
    """
    command = Cancel(
        id=_checked(workflow_id), by=by or operator_name(), reason=reason, wait=wait
    )
    return _start(command, journal, "is being undone", as_json=as_json)


def _checked(workflow_id: str) -> str:
    try:
        parse_workflow_id(workflow_id)
    except ValueError as error:
        raise CliError(str(error), ExitCode.USAGE) from error
    return workflow_id


def _start(
    command: Submit | Retry | Cancel, journal: str | None, done: str, *, as_json: bool
) -> ExitCode:
    folder = folder_of(journal)
    with progress("asking the server …") as tell:

        def on_accepted(id_: str) -> None:
            if isinstance(command, Submit):
                # Whatever becomes of the waiting, the id has been said.
                complain(f"{id_} accepted")
            tell(
                f"{id_} runs, see `coordinator show {id_}`; Ctrl-C leaves it running …"
            )

        accepted, ended = start(folder, command, on_accepted=on_accepted)
    if ended is None:
        if as_json:
            emit_json(Started(id=accepted.id, status="accepted"))
        else:
            emit_text(
                accepted.id if isinstance(command, Submit) else f"{accepted.id} {done}"
            )
        return ExitCode.OK
    _emit_end(ended, as_json=as_json)
    wanted = "cancelled" if isinstance(command, Cancel) else "completed"
    return ExitCode.OK if ended.status == wanted else ExitCode.FAILED


def _emit_end(ended: Ended, *, as_json: bool) -> None:
    if as_json:
        result = msgspec.Raw((ended.result or "null").encode())
        emit_json(
            Started(
                id=ended.id, status=ended.status, result=result, reason=ended.reason
            )
        )
    else:
        said = ended.result if ended.status == "completed" else ended.reason.strip()
        emit_text(f"{ended.id} {ended.status}: {said}")
        if ended.status == "stuck":
            complain(f"see `coordinator show {ended.id}`")


def list_workflows(
    *,
    journal: str | None,
    statuses: list[str],
    type_: str,
    limit: int,
    as_json: bool,
) -> ExitCode:
    """Print the unfinished workflows.

    Raises:
        CliError: There is no such journal, or it can't be read.
    """
    folder = folder_of(journal)
    command = List(statuses=statuses, type=type_, limit=limit)
    running = True
    try:
        found = ask(folder, command, Workflows)
    except NoServerError:
        running = False
        with opened(folder) as opened_folder:
            found = listed(unfinished(opened_folder), _offline(command))
    if as_json:
        emit_json(
            Listed(
                running=running,
                total=found.total,
                workflows=found.items,
                full=found.full,
            )
        )
        return ExitCode.OK
    if not running:
        complain(f"no coordinator is running on {folder}")
    _emit_list(found, running=running)
    return ExitCode.OK


def _offline(command: List) -> List:
    """Ask the journal the same, which does not tell what is delayed."""
    if "delayed" not in command.statuses:
        return command
    complain("what is delayed only a server knows: all that would run is shown")
    statuses = [*command.statuses, "running"]
    return msgspec.structs.replace(command, statuses=statuses)


def _emit_list(found: Workflows, *, running: bool) -> None:
    now = time.time_ns() // 1000
    rows = [
        (
            info.id,
            info.type,
            info.key,
            # Without a server nothing runs.
            info.status if running or info.status != "running" else "unfinished",
            show_duration(now - info.accepted_at),
            str(info.outcomes),
            "" if info.due_s is None else show_duration(round(info.due_s * 1_000_000)),
            (info.reason.strip().splitlines() or [""])[0],
        )
        for info in found.items
    ]
    if rows:
        headers = ("ID", "TYPE", "KEY", "STATUS", "AGE", "STEPS", "NEXT", "REASON")
        emit_table(headers, rows)
    else:
        complain("nothing is unfinished")
    left_out = found.total - len(found.items)
    if left_out:
        complain(f"{left_out} more; see --limit, --status and --type")
    _warn_if_full(found.full)


def _warn_if_full(full: str) -> None:
    if full:
        complain(
            f"the disk is full: new commands are refused until there is space, what "
            f"runs goes on: {full}"
        )


def show(workflow_id: str, *, journal: str | None, as_json: bool) -> ExitCode:
    """Print one workflow's story.

    Raises:
        CliError: It is not there, or the journal can't be read.
    """
    folder = folder_of(journal)
    asked, running = _live(folder, _checked(workflow_id))
    live = None if asked is None else asked.items[0]
    full = "" if asked is None else asked.full
    with opened(folder) as opened_folder:
        timeline = timeline_of(opened_folder, workflow_id)
    if as_json:
        emit_json(Shown(running=running, live=live, timeline=timeline, full=full))
    else:
        emit_lines(draw(timeline, live, width()))
        _warn_if_full(full)
    return ExitCode.OK


def _live(folder: str, workflow_id: str) -> tuple[Workflows | None, bool]:
    """Return what the server knows that the journal does not, and if there is one."""
    try:
        return ask(folder, Show(id=workflow_id), Workflows), True
    except NoServerError:
        return None, False
    except CliError as error:
        if error.code is ExitCode.NOT_FOUND:  # it ended: the journal may still tell
            return None, True
        raise
