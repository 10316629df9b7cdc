"""The commands and their options; what they do is in the modules they import.

Only Typer is imported here, and no command's own module before it is called:
``coordinator --help`` has 150 ms.
"""

import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from coordinator.cli.exits import CliError

__all__ = ["app"]


class _Commands(TyperGroup):
    """Turns `CliError` into a line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except CliError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(error.code) from error


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


@app.callback()
def _root() -> None:
    """Durable sagas: ordinary async code, a log instead of a database."""


@app.command()
def serve(
    target: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:OBJECT",
            help="A Coordinator that is not started, or a function that returns one.",
        ),
    ],
    listen: Annotated[
        list[str], typer.Option(help="Where to serve cmd-stream; may be repeated.")
    ] = ["tcp://127.0.0.1:9000"],  # noqa: B006 -- never changed
    journal: Annotated[
        str | None,
        typer.Option(help="URL in the place of the coordinator's own journal."),
    ] = None,
    drain: Annotated[
        float,
        typer.Option(min=0, help="Seconds that running steps have to end on SIGTERM."),
    ] = 30.0,
    info: Annotated[
        str | None,
        typer.Option(help="ServerInfo that cmd-stream clients must expect."),
    ] = None,
    log_level: Annotated[
        str, typer.Option(help="debug, info, warning or error.")
    ] = "info",
    as_json: JsonOption = False,
) -> None:
    """Run a coordinator as a server, until SIGTERM or Ctrl-C."""
    from coordinator.cli.serving import leave, parse_address, run_server
    from coordinator.serve import ServeOptions

    options = ServeOptions(
        listen=tuple(map(parse_address, listen)),
        drain_s=drain,
        server_info=None if info is None else info.encode(),
    )
    code = run_server(
        target, options, journal=journal, as_json=as_json, log_level=log_level
    )
    leave(code)
    raise typer.Exit(code)
