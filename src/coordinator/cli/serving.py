"""``coordinator serve``: a server process around the user's coordinator."""

import asyncio
import logging
import os
import sys
import threading
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

import msgspec

from cmdstream import CmdStreamError
from coordinator.app import Coordinator
from coordinator.cli.exits import CliError, ExitCode, exit_code_of
from coordinator.cli.output import emit_text
from coordinator.cli.printing import emit_json, flush
from coordinator.cli.signals import end_on_signals
from coordinator.cli.target import load_target
from coordinator.errors import JournalError
from coordinator.journals.urls import without_secrets
from coordinator.serve import Address, ServeOptions, serve

__all__ = ["leave", "parse_address", "run_server"]

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class Ready(msgspec.Struct, frozen=True, kw_only=True):
    """What ``serve --json`` prints once clients may connect."""

    event: str = "ready"
    pid: int
    listen: tuple[str, ...]
    journal: str
    unfinished: int
    """Workflows that were in the journal when it started, and go on."""
    stuck: int
    """How many of them are stuck: they wait for an operator."""


def parse_address(text: str) -> Address:
    """Return the address in ``tcp://host:port`` or ``tls://host:port``.

    Raises:
        CliError: It is not of that form.
    """
    parts = urlsplit(text)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:  # the port is no number, or too large
        host, port = None, None
    odd = parts.path or parts.query or parts.fragment or parts.username
    if parts.scheme not in {"tcp", "tls"} or not host or port is None or odd:
        raise CliError(
            f"{text!r} is not an address; write e.g. tcp://127.0.0.1:9000 or "
            f"tls://0.0.0.0:9443, or port 0 for any free one",
            ExitCode.USAGE,
        )
    return Address(host, port, parts.scheme == "tls")


def run_server(
    target: str,
    options: ServeOptions,
    *,
    journal: str | None,
    as_json: bool,
    log_level: str,
) -> ExitCode:
    """Serve *target* until a signal or a dead journal.

    Args:
        target: ``module:object``.
        options: Where and how.
        journal: A URL in the place of the coordinator's own; None for that.
        as_json: Print the addresses as one line of JSON.
        log_level: Of the log on stderr, unless the target set logging up itself.

    Raises:
        CliError: It can't be served, or its journal can't be opened.
    """
    coordinator = load_target(target)
    # Behind the import: a target that sets logging up itself keeps what it wants.
    logging.basicConfig(stream=sys.stderr, format=LOG_FORMAT, level=log_level.upper())
    if journal is not None:
        coordinator.journal = journal
    return ExitCode(asyncio.run(_serve(coordinator, options, as_json=as_json)))


async def _serve(
    coordinator: Coordinator[Any], options: ServeOptions, *, as_json: bool
) -> int:
    opened = False

    def ready(addresses: list[Address]) -> None:
        nonlocal opened
        opened = True
        _announce(list(map(_url, addresses)), coordinator, as_json)

    try:
        return await serve(coordinator, options, ready=ready)
    except JournalError as error:
        raise CliError(str(error), exit_code_of(error)) from error
    except CmdStreamError as error:
        raise CliError(f"cmd-stream can't carry it: {error}", ExitCode.USAGE) from error
    except (OSError, ValueError) as error:
        if opened:  # a bug then, and not for a message of one line
            raise
        if isinstance(error, OSError):
            raise CliError(f"can't listen: {error}", ExitCode.UNAVAILABLE) from error
        raise CliError(str(error), ExitCode.USAGE) from error


def _announce(
    addresses: list[str], coordinator: Coordinator[Any], as_json: bool
) -> None:
    unfinished, stuck = coordinator.engine.operators.count()
    if as_json:
        ready = Ready(
            pid=os.getpid(),
            listen=tuple(addresses),
            journal=without_secrets(str(coordinator.journal)),
            unfinished=unfinished,
            stuck=stuck,
        )
        emit_json(ready, at_once=True)
    else:
        if unfinished:
            waiting = (
                f", {stuck} stuck: coordinator list --status stuck" if stuck else ""
            )
            emit_text(f"going on with {unfinished} unfinished workflows{waiting}")
        for address in addresses:
            emit_text(f"listening on {address}")
        flush()


def _url(address: Address) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{'tls' if address.tls else 'tcp'}://{host}:{address.port}"


def leave(code: int) -> None:
    """End the process, though a step's thread may still be in a call.

    The interpreter would wait for such a thread, for ever if the call hangs. By now the
    journal is closed, and the next process makes the call again under the same key.
    A signal that comes while it ends leaves the *code* as it is.
    """
    end_on_signals(code)
    others = [t for t in threading.enumerate() if t is not threading.main_thread()]
    if any(not thread.daemon for thread in others):
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):  # nobody reads it any more
                stream.flush()
        os._exit(code)
