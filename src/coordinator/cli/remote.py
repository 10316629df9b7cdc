"""Ask the coordinator that runs on a journal, through its admin socket.

An answer may take long: a command waits at a door that is closed, a workflow for its
end. So there is no deadline for it, but a server that is silent for `ANSWER_S` has to
answer a ping within as long: one that is stopped (SIGSTOP), or hangs, does not.
"""

import asyncio
import getpass
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TypeVar
from urllib.parse import urlsplit

from cmdstream import (
    Client,
    ClientOptions,
    CmdStreamError,
    ConnectError,
    EncodeError,
    ResultStream,
    ServerInfoMismatchError,
)
from coordinator.api.admin_messages import (
    SERVER_INFO,
    Accepted,
    Ended,
    Failed,
    admin_codec,
)
from coordinator.api.admin_socket import SOCKET, journal_folder, within
from coordinator.cli.exits import CliError, ExitCode
from coordinator.journals.urls import without_secrets

__all__ = [
    "NoServerError",
    "SilentServerError",
    "ask",
    "folder_of",
    "operator_name",
    "start",
]

T = TypeVar("T")

_CODES = {
    "usage": ExitCode.USAGE,
    "not found": ExitCode.NOT_FOUND,
    "conflict": ExitCode.CONFLICT,
    "unavailable": ExitCode.UNAVAILABLE,
}
ANSWER_S = 10.0
"""Seconds that a greeting or a pong may take: a loop that is blocked for as long is as
good as dead, and a person should know."""


class NoServerError(CliError):
    """Nobody serves that journal at present."""

    def __init__(self, message: str) -> None:
        super().__init__(message, ExitCode.UNAVAILABLE)


class SilentServerError(CliError):
    """There is a server, but it does not answer."""

    def __init__(self, folder: str) -> None:
        super().__init__(
            f"the server of {folder} does not answer: it is stopped, or hangs; what "
            f"was asked for may still be done",
            ExitCode.UNAVAILABLE,
        )


def folder_of(journal: str | None) -> str:
    """Return the folder that the user names, as a path or as a ``file:`` URL.

    Raises:
        CliError: Nothing was named, or another kind of journal.
    """
    if not journal:
        raise CliError(
            "which journal? say --journal FOLDER, or set COORDINATOR_JOURNAL",
            ExitCode.USAGE,
        )
    folder = journal_folder(journal)
    if folder is None and journal.startswith(("memory:", "kafka:", "nats:")):
        raise CliError(
            f"{without_secrets(journal)} is not in a folder of this machine, so this "
            f"command can neither read it nor ask its server; `serve` and `doctor` can",
            ExitCode.USAGE,
        )
    if folder is None:
        return journal
    if not folder or urlsplit(journal).netloc:
        raise CliError(
            f"{journal!r} names no folder of this machine; write e.g. ./orders or "
            f"file:./orders",
            ExitCode.USAGE,
        )
    return folder


def operator_name() -> str:
    """Return who is at the keyboard, for the journal."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return f"uid {os.getuid()}"


def ask(folder: str, command: object, expected: type[T]) -> T:
    """Send *command* to the server of the journal in *folder*; return its answer.

    Raises:
        NoServerError: There is no server.
        SilentServerError: It does not answer.
        CliError: It refused, hung up, or is of another version.
    """
    with _explained(folder):
        return _checked(asyncio.run(_ask(folder, command)), expected)


def start(
    folder: str, command: object, *, on_accepted: Callable[[str], None]
) -> tuple[Accepted, Ended | None]:
    """Send a `Submit`, `Retry` or `Cancel`, and wait for the end if it says so.

    Args:
        folder: Of the journal.
        command: What to send.
        on_accepted: Called with the workflow's id once the command is durable, if its
            end is waited for.

    Raises:
        NoServerError: There is no server.
        SilentServerError: It does not answer.
        CliError: It refused, hung up, or is of another version.
    """
    known = ""

    def note(id_: str) -> None:
        nonlocal known
        known = id_
        on_accepted(id_)

    try:
        with _explained(folder):
            return asyncio.run(_start(folder, command, note))
    except CliError as error:
        if not known:
            raise
        raise CliError(
            f"{error}; `coordinator show {known}` says how it stands",
            error.code,
        ) from error


async def _ask(folder: str, command: object) -> object:
    async with await _connect(folder) as client, client.stream(command) as results:
        return await _next(folder, client, results)


async def _start(
    folder: str, command: object, on_accepted: Callable[[str], None]
) -> tuple[Accepted, Ended | None]:
    async with await _connect(folder) as client, client.stream(command) as results:
        accepted = _checked(await _next(folder, client, results), Accepted)
        if accepted.last:
            return accepted, None
        on_accepted(accepted.id)
        return accepted, _checked(await _next(folder, client, results), Ended)


async def _next(folder: str, client: Client, results: ResultStream) -> object:
    """Wait for the next result for as long as the server is alive.

    Raises:
        SilentServerError: It is not.
        CmdStreamError: The connection is closed, or the command can't be sent.
    """
    while True:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await anext(results)
        except TimeoutError:
            pass
        try:
            async with asyncio.timeout(ANSWER_S):
                await client.ping()
        except TimeoutError:
            raise SilentServerError(folder) from None


async def _connect(folder: str) -> Client:
    options = ClientOptions(
        server_info=SERVER_INFO,
        connect_timeout_s=ANSWER_S,
        server_info_timeout_s=ANSWER_S,
    )
    with within(folder) as short:
        return await Client.connect_unix(
            f"{short}/{SOCKET}", admin_codec(), options=options
        )


def _checked(result: object, expected: type[T]) -> T:
    if isinstance(result, Failed):
        raise CliError(result.message, _CODES.get(result.kind, ExitCode.FAILED))
    if not isinstance(result, expected):
        raise CliError(f"the server answered {result!r}", ExitCode.FAILED)
    return result


@contextmanager
def _explained(folder: str) -> Generator[None]:
    """Say what a failed connection means for people."""
    try:
        yield
    except ServerInfoMismatchError as error:
        raise CliError(
            f"the server of {folder} is of another version than this command: {error}",
            ExitCode.UNAVAILABLE,
        ) from error
    except (ConnectError, OSError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, TimeoutError):
            raise SilentServerError(folder) from error
        if isinstance(cause, PermissionError):
            _check_access(folder)
            raise CliError(
                f"the server of {folder} belongs to another user: {cause}",
                ExitCode.UNAVAILABLE,
            ) from error
        raise NoServerError(
            f"no coordinator is running on {folder}; start one with `coordinator serve`"
        ) from error
    except EncodeError as error:
        raise CliError(f"that can't be sent: {error}", ExitCode.USAGE) from error
    except CmdStreamError as error:
        raise CliError(
            f"the server hung up before it answered: {error}", ExitCode.UNAVAILABLE
        ) from error


def _check_access(folder: str) -> None:
    """See whether it is the folder that is closed to us, not the socket in it.

    Raises:
        CliError: It is.
    """
    try:
        os.stat(f"{folder}/{SOCKET}")  # noqa: PTH116 -- paths are text here
    except OSError as error:
        raise CliError(
            f"can't look into {folder}: {error.strerror}", ExitCode.UNAVAILABLE
        ) from error
