"""The commands and their options; what they do is in the modules they import.

Only Typer is imported here, and no command's own module before it is called:
``coordinator --help`` has 150 ms.
"""

import enum
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from coordinator.cli.exits import CliError
from coordinator.cli.printing import complain, flush
from coordinator.cli.tls import (
    TlsCertOption,
    TlsClientCaOption,
    TlsKeyOption,
    load_tls,
)

__all__ = ["app", "run"]


class _Commands(TyperGroup):
    """Turns `CliError` into a line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except CliError as error:
            _report(error)
            raise typer.Exit(error.code) from error


def run(arguments: list[str]) -> None:
    """Run the command that *arguments* name, and exit with its code.

    Goes to the command straight away: a group's own options (``--help``) are read by
    way of Pydantic, which takes longer to import than all the rest.
    """
    command: Any = typer.main.get_command(app)
    words = ["coordinator"]
    while isinstance(command, TyperGroup) and arguments:
        found = command.commands.get(arguments[0])
        if found is None:
            break
        command = found
        words.append(arguments[0])
        arguments = arguments[1:]
    try:
        try:
            command.main(args=arguments, prog_name=" ".join(words))
        finally:
            flush()
    except CliError as error:
        _report(error)
        sys.exit(error.code)


def _report(error: CliError) -> None:
    if message := str(error):
        complain(f"error: {message}")


app = typer.Typer(
    cls=_Commands,
    help="Durable sagas: ordinary async code, a log instead of a database.",
    no_args_is_help=True,
    add_completion=False,
    # Plain help texts: Rich would cost 30 ms of the 150.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        print(f"coordinator {metadata.version('coordinator')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version and exit.",
        ),
    ] = False,
) -> None:
    """Durable sagas: ordinary async code, a log instead of a database."""


class LogLevel(enum.StrEnum):
    """From which level on the server's log is printed."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


ListenOption = Annotated[
    list[str],
    typer.Option(
        metavar="URL",
        help="Where to serve cmd-stream, tcp:// or tls://; may be repeated.",
    ),
]


@app.command()
def serve(  # noqa: PLR0913, PLR0917 -- one per option
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:OBJECT",
            help="A Coordinator that is not started, or a function that returns one.",
        ),
    ],
    listen: ListenOption = ["tcp://127.0.0.1:9000"],  # noqa: B006 -- never changed
    journal: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="In the place of the coordinator's own journal."
        ),
    ] = None,
    drain: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, help="What running steps have to end on SIGTERM."
        ),
    ] = 30.0,
    cut_off: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", min=0, help="For steps that do not heed being stopped."
        ),
    ] = 10.0,
    info: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT", help="ServerInfo that cmd-stream clients must expect."
        ),
    ] = None,
    tls_cert: TlsCertOption = None,
    tls_key: TlsKeyOption = None,
    tls_client_ca: TlsClientCaOption = None,
    log_level: Annotated[
        LogLevel, typer.Option(metavar="LEVEL", help=f"{', '.join(LogLevel)}.")
    ] = LogLevel.INFO,
    as_json: JsonOption = False,
) -> None:
    """Run a coordinator as a server, until SIGTERM or Ctrl-C."""
    from coordinator.cli.serving import leave, parse_address, run_server
    from coordinator.serve import ServeOptions

    addresses = tuple(map(parse_address, listen))
    options = ServeOptions(
        listen=addresses,
        tls=load_tls(addresses, tls_cert, tls_key, tls_client_ca),
        drain_s=drain,
        cut_off_s=cut_off,
        server_info=None if info is None else info.encode(),
    )
    code = run_server(
        target, options, journal=journal, as_json=as_json, log_level=log_level.value
    )
    leave(code)
    raise typer.Exit(code)


JournalOption = Annotated[
    str | None,
    typer.Option(
        envvar="COORDINATOR_JOURNAL",
        metavar="FOLDER",
        help="Of the journal, or its file: URL.",
    ),
]
IdArgument = Annotated[
    str, typer.Argument(metavar="ID", help="Of the workflow, e.g. 0-1042.")
]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Wait until the workflow ends.")
]
ByOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Who says so; by default your user name."),
]


class Status(enum.StrEnum):
    """What an unfinished workflow is doing."""

    RUNNING = "running"
    DELAYED = "delayed"
    STUCK = "stuck"
    CANCELLING = "cancelling"
    ABORTING = "aborting"


@app.command()
def submit(
    type_: Annotated[
        str, typer.Argument(metavar="TYPE", help="Name of the command class.")
    ],
    payload: Annotated[
        str, typer.Argument(metavar="JSON", help="Its fields; - reads stdin.")
    ],
    journal: JournalOption = None,
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Hand a command to the running server; prints the workflow's id."""
    from coordinator.cli import workflows

    code = workflows.submit(type_, payload, journal=journal, wait=wait, as_json=as_json)
    raise typer.Exit(code)


@app.command("list")
def list_(
    journal: JournalOption = None,
    status: Annotated[
        list[Status],
        typer.Option(
            metavar="STATUS",
            help=f"Only {', '.join(Status)}; may be repeated.",
        ),
    ] = [],  # noqa: B006 -- never changed
    type_: Annotated[
        str, typer.Option("--type", metavar="TYPE", help="Only commands of this type.")
    ] = "",
    limit: Annotated[
        int, typer.Option(metavar="COUNT", min=0, help="At most so many; 0 for all.")
    ] = 1000,
    as_json: JsonOption = False,
) -> None:
    """Show the unfinished workflows, also of a stopped coordinator."""
    from coordinator.cli import workflows

    code = workflows.list_workflows(
        journal=journal,
        statuses=[one.value for one in status],
        type_=type_,
        limit=limit,
        as_json=as_json,
    )
    raise typer.Exit(code)


@app.command()
def show(
    workflow_id: IdArgument, journal: JournalOption = None, as_json: JsonOption = False
) -> None:
    """Show one workflow: what was done, undone and decided."""
    from coordinator.cli import workflows

    raise typer.Exit(workflows.show(workflow_id, journal=journal, as_json=as_json))


@app.command()
def retry(
    workflow_id: IdArgument,
    journal: JournalOption = None,
    by: ByOption = None,
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Run a stuck workflow again."""
    from coordinator.cli import workflows

    code = workflows.retry(
        workflow_id, journal=journal, by=by, wait=wait, as_json=as_json
    )
    raise typer.Exit(code)


@app.command()
def cancel(
    workflow_id: IdArgument,
    journal: JournalOption = None,
    by: ByOption = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="For the journal.")] = "",
    wait: WaitOption = False,
    as_json: JsonOption = False,
) -> None:
    """Stop a workflow and undo what it did."""
    from coordinator.cli import workflows

    code = workflows.cancel(
        workflow_id, journal=journal, by=by, reason=reason, wait=wait, as_json=as_json
    )
    raise typer.Exit(code)


journal_app = typer.Typer(
    help="Look into a journal's folder, also while a coordinator runs.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.add_typer(journal_app, name="journal")

FolderArgument = Annotated[
    str,
    typer.Argument(
        metavar="FOLDER",
        envvar="COORDINATOR_JOURNAL",
        help="Of the journal, or its file: URL.",
    ),
]


@journal_app.command("info")
def journal_info(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Show partitions, segments, checkpoints, and who holds them."""
    from coordinator.cli import journals

    raise typer.Exit(journals.info(folder, as_json=as_json))


@journal_app.command("verify")
def journal_verify(folder: FolderArgument, as_json: JsonOption = False) -> None:
    """Read every byte; exit with 6 if something is damaged."""
    from coordinator.cli import journals

    raise typer.Exit(journals.verify(folder, as_json=as_json))


@journal_app.command("dump")
def journal_dump(
    folder: FolderArgument,
    partition: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=0, help="Only this one.")
    ] = None,
    since: Annotated[
        int, typer.Option(metavar="POSITION", min=0, help="From there on.")
    ] = 0,
    workflow: Annotated[
        str | None, typer.Option(metavar="ID", help="Only what is about this workflow.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the records, one per line, with their values decoded."""
    from coordinator.cli import journals

    code = journals.dump(
        folder, partition=partition, since=since, workflow=workflow, as_json=as_json
    )
    raise typer.Exit(code)


@journal_app.command("tail")
def journal_tail(
    folder: FolderArgument,
    partition: Annotated[
        int, typer.Option(metavar="NUMBER", min=0, help="Which one.")
    ] = 0,
    count: Annotated[
        int,
        typer.Option(
            "--lines", "-n", metavar="COUNT", min=0, help="Records to begin with."
        ),
    ] = 10,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until Ctrl-C.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the last records, and with --follow those that come."""
    from coordinator.cli import journals

    code = journals.tail(
        folder, partition=partition, count=count, follow=follow, as_json=as_json
    )
    raise typer.Exit(code)


@journal_app.command("forget-checkpoint")
def journal_forget_checkpoint(
    folder: FolderArgument,
    partition: Annotated[
        int | None, typer.Option(metavar="NUMBER", min=0, help="Only this one.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
) -> None:
    """Go on without a checkpoint that is damaged or lost, from the segments alone."""
    from coordinator.cli import repairing

    raise typer.Exit(repairing.forget(folder, partition=partition, yes=yes))


@journal_app.command("repair")
def journal_repair(
    folder: FolderArgument,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Don't ask.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say what a damaged journal has lost, and go on with the rest of it."""
    from coordinator.cli import mending

    raise typer.Exit(mending.repair(folder, yes=yes, as_json=as_json))


@app.command()
def replay(  # noqa: PLR0913, PLR0917 -- one per option
    service: Annotated[
        str, typer.Option(metavar="NAME", help="Whose outcomes, e.g. payments.")
    ],
    to: Annotated[
        str, typer.Option(metavar="MODULE:FUNCTION", help="Gets one at a time.")
    ],
    journal: JournalOption = None,
    archive: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER", help="Of the journal; archive/ in it by default."
        ),
    ] = None,
    since: Annotated[
        str,
        typer.Option(
            metavar="TIME",
            help="Recorded then or later; a position goes into --state.",
        ),
    ] = "",
    until: Annotated[str, typer.Option(metavar="TIME", help="Recorded before.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count, and show the first few.")
    ] = False,
    rate: Annotated[
        str, typer.Option(metavar="RATE", help="At most, e.g. 100/s.")
    ] = "",
    state: Annotated[
        str | None, typer.Option(metavar="FILE", help="To go on where it ended.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Tell a service that lost its data what it had done."""
    from coordinator.cli import replaying

    options = replaying.ReplayOptions(
        service=service,
        to=to,
        archive=archive,
        since=since,
        until=until,
        dry_run=dry_run,
        rate=rate,
        state=state,
    )
    raise typer.Exit(replaying.replay(journal, options, as_json=as_json))


@app.command()
def check(
    against: Annotated[
        str,
        typer.Option(
            metavar="MODULE:OBJECT",
            help="The Coordinator with the new code, or a function that returns it.",
        ),
    ],
    journal: JournalOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what new code would do with what is unfinished; exits with 1 if it is bad."""
    from coordinator.cli import previewing

    raise typer.Exit(previewing.check(against, journal=journal, as_json=as_json))


@app.command()
def doctor(journal: JournalOption = None, as_json: JsonOption = False) -> None:
    """Check disk, clock, journal and server; exits with 1 on a problem."""
    from coordinator.cli.doctor import doctor as examine

    raise typer.Exit(examine(journal, as_json=as_json))
