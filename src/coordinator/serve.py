"""The server process: starts a coordinator and its intake, and stops them in order.

first SIGTERM or SIGINT    stop accepting --> running steps end, up to the deadline
                           --> flush --> exit 0
second one                 at once; nothing acknowledged is lost by that either
SIGHUP, where TLS is       the certificate is read again, for the clients to come
steps that won't stop      cut off after `ServeOptions.cut_off_s`, exit 1
the journal fails          at once, exit 1: only a new process may trust the disk
"""

import asyncio
import functools
import gc
import logging
import os
import resource
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from cmdstream import ServerOptions, ServerTls, TlsConfigError
from coordinator.api.admin import AdminServer
from coordinator.api.cmdstream import CmdStreamIntake
from coordinator.app import Coordinator
from coordinator.errors import JournalError

__all__ = ["Address", "ServeOptions", "serve"]

_LOGGER = logging.getLogger("coordinator")
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_FILES_RESERVE = 512
"""Descriptors that clients leave to others: operators (256 at most), a hundred for a
gateway's connections, and the journal, which takes no command while it has none."""


class Address(msgspec.Struct, frozen=True):
    """Where clients find us."""

    host: str
    port: int
    """0 for any free one."""
    tls: bool = False
    """Whether TLS is spoken there."""


class ServeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how to serve."""

    listen: tuple[Address, ...] = (Address("127.0.0.1", 9000),)
    """For cmd-stream."""
    tls: ServerTls | None = None
    """What addresses with TLS serve with; read again on SIGHUP."""
    drain_s: float = 30.0
    """Seconds that running steps have to end after the first SIGTERM."""
    cut_off_s: float = 10.0
    """Seconds that closing may take, before the process ends without it: a step that
    swallows its cancellation would keep it for ever. Nothing acknowledged is lost."""
    server_info: bytes | None = None
    """What cmd-stream clients must expect; None for the protocol's default."""


async def serve(
    coordinator: Coordinator[Any],
    options: ServeOptions,
    *,
    ready: Callable[[list[Address]], None] = lambda _: None,
) -> int:
    """Serve until a signal or a dead journal, and return the exit code of the process.

    Args:
        coordinator: Not started yet; closed on return.
        options: Where and how.
        ready: Called with the addresses, ports given, once the doors are open.

    Raises:
        JournalError: The journal can't be opened.
        OSError: An address can't be had.
        ValueError: An address with TLS, and no `ServeOptions.tls`.
    """
    if options.tls is None and any(address.tls for address in options.listen):
        raise ValueError("an address with TLS needs a certificate and its key")
    # Nothing of ours is in a cycle while sagas run, so looking for cycles seldom is
    # enough; and the journal's thread should not wait 5 ms for a busy loop to let it go
    # on between write and flush. Both are the process's to say, so not the library's.
    gc.set_threshold(10_000, 20, 50)
    sys.setswitchinterval(0.001)
    stopping, at_once = asyncio.Event(), asyncio.Event()

    loop = asyncio.get_running_loop()
    cut_offs: list[asyncio.TimerHandle] = []

    def stop() -> None:
        if stopping.is_set():
            at_once.set()
            return
        stopping.set()
        cut_offs.append(loop.call_later(options.drain_s + options.cut_off_s, _cut_off))

    handlers: dict[signal.Signals, Callable[[], None]] = dict.fromkeys(_SIGNALS, stop)
    if options.tls is not None:
        handlers[signal.SIGHUP] = functools.partial(_reload, options.tls)
    before = {number: signal.getsignal(number) for number in handlers}
    for number, handle in handlers.items():
        loop.add_signal_handler(number, handle)
    intake = CmdStreamIntake(coordinator, _server_options(options, _allow_files()))
    admin = AdminServer(coordinator)
    # Not at all while the journal is read; what comes of that lives long, and is not
    # looked at again.
    gc.disable()
    try:
        async with coordinator:
            gc.freeze()
            gc.enable()
            try:
                addresses = [
                    await _listen(intake, address, options.tls)
                    for address in options.listen
                ]
                await _listen_to_operators(admin)
                ready(addresses)
                return await _run(coordinator, intake, options, stopping, at_once)
            finally:
                admin.stop_accepting()
                cut_offs.append(loop.call_later(options.cut_off_s, _cut_off))
    finally:
        gc.enable()  # where it could not be started
        await intake.server.aclose()
        await admin.aclose()
        for cut_off in cut_offs:
            cut_off.cancel()
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            signal.signal(number, handler)


def _allow_files() -> int:
    """Raise the limit of open files as far as we may; return what it is then."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # a system with a limit beside these two
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def _server_options(options: ServeOptions, files: int) -> ServerOptions:
    """Return the bounds of the server, with fewer clients if *files* are few."""
    found = ServerOptions()
    if options.server_info is not None:
        found = msgspec.structs.replace(found, server_info=options.server_info)
    room = max(files - _FILES_RESERVE, files // 2)
    if room < found.connections_max:
        _LOGGER.warning(
            "%d files may be open, so %d clients may connect: raise the limit "
            "(ulimit -n) for more",
            files,
            room,
        )
        found = msgspec.structs.replace(found, connections_max=room)
    return found


async def _listen(
    intake: CmdStreamIntake, address: Address, tls: ServerTls | None
) -> Address:
    host, port = await intake.listen(
        address.host, address.port, tls=tls if address.tls else None
    )
    return Address(host, port, address.tls)


def _reload(tls: ServerTls) -> None:
    try:
        tls.reload()
    except TlsConfigError as error:
        _LOGGER.error("the certificate in use stays in use: %s", error)  # noqa: TRY400 -- a line says it
    else:
        _LOGGER.info("new certificate, valid until %s", tls.valid_until)


def _cut_off() -> None:
    _LOGGER.critical("some steps ignore their cancellation: ending without them")
    logging.shutdown()
    os._exit(1)


async def _listen_to_operators(admin: AdminServer) -> None:
    """Open the admin socket; a server that has none is better than none at all."""
    try:
        await admin.listen()
    except OSError as error:
        _LOGGER.warning("operators can't reach this server: %s", error)


async def _run(
    coordinator: Coordinator[Any],
    intake: CmdStreamIntake,
    options: ServeOptions,
    stopping: asyncio.Event,
    at_once: asyncio.Event,
) -> int:
    failure = await _until(stopping.wait(), coordinator)
    if failure is None:
        _LOGGER.info("stopping: running steps have %s s to end", options.drain_s)
        intake.server.stop_accepting()
        failure = await _until(
            _drain(coordinator, options.drain_s, at_once), coordinator
        )
    # The engine has said why: an application that has no server is told, too.
    return 0 if failure is None else 1


async def _drain(
    coordinator: Coordinator[Any], deadline_s: float, at_once: asyncio.Event
) -> None:
    async with asyncio.TaskGroup() as group:
        hurry = group.create_task(at_once.wait())
        drain = group.create_task(coordinator.drain(deadline_s))
        await asyncio.wait({hurry, drain}, return_when=asyncio.FIRST_COMPLETED)
        if drain.done() and not drain.result():
            _LOGGER.warning("some steps did not end in time; they are asked again")
        hurry.cancel()
        drain.cancel()


async def _until(work: Any, coordinator: Coordinator[Any]) -> JournalError | None:
    """Await *work*, or the end of the journal, and return the latter."""
    async with asyncio.TaskGroup() as group:
        done = group.create_task(work)
        failed = group.create_task(coordinator.wait_failed())
        await asyncio.wait({done, failed}, return_when=asyncio.FIRST_COMPLETED)
        failure = failed.result() if failed.done() else None
        done.cancel()
        failed.cancel()
    return failure
