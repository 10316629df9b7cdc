"""The operators' side of a running coordinator: a unix socket in the journal's folder.

    coordinator retry 0-7 --> admin.sock --> AdminServer --> Engine --> journal
                         <-- Accepted, Ended or Failed <--

`admin_messages` is what is said, `admin_socket` where. A refusal is an answer, not a
broken connection; only the operator's own bugs break one.
"""

import asyncio
import os
import platform
from contextlib import suppress
from typing import Any, assert_never, cast
from weakref import WeakSet

import msgspec

from cmdstream import CmdStreamError, Reply, ServerOptions, TaskHandler
from cmdstream import Server as CmdStreamServer
from coordinator import values
from coordinator.api.admin_messages import (
    SERVER_INFO,
    Accepted,
    Cancel,
    Ended,
    Failed,
    List,
    Retry,
    Server,
    Show,
    Status,
    Submit,
    Suspended,
    Wait,
    Workflows,
    admin_codec,
    listed,
)
from coordinator.api.admin_socket import (
    SOCKET,
    journal_folder,
    move_in,
    private_socket,
    within,
)
from coordinator.api.cmdstream import CODEC, read_json_payload
from coordinator.app import Coordinator, command_key
from coordinator.errors import (
    CommandTypeError,
    CoordinatorError,
    DecodeError,
    JournalClosedError,
    JournalError,
    UnknownWorkflowError,
    WorkflowStateError,
)
from coordinator.model import EndStatus, WorkflowId
from coordinator.runs import Outcome, Submission
from coordinator.timeline import readable

__all__ = ["AdminServer"]

Answer = Server | Accepted | Ended | Workflows | Failed

GOODBYE_S = 1.0
"""Seconds in which those who wait are told that the coordinator stops."""

_OPTIONS = ServerOptions(
    server_info=SERVER_INFO,
    connections_max=256,
    # Who waits for a workflow's end holds a place for as long as that takes.
    in_flight_max=1024,
)


class AdminServer:
    """Serves the operators of one coordinator, which must be started."""

    def __init__(self, coordinator: Coordinator[Any]) -> None:
        """Prepare; nothing is opened. To be made before the coordinator is started."""
        coordinator.read_payloads(CODEC, read_json_payload)
        self._coordinator = coordinator
        self._classes = {class_.__name__: class_ for class_ in coordinator.commands}
        self._server = CmdStreamServer(
            admin_codec(), TaskHandler(self._handle), options=_OPTIONS
        )
        self._path: str | None = None
        self._inode = 0
        self._watchers: WeakSet[_Watcher] = WeakSet()
        self._answering = 0
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def path(self) -> str | None:
        """Where it listens; None if it does not."""
        return self._path

    async def listen(self) -> str | None:
        """Accept operators.

        Returns:
            The socket's path; None if the journal is not in a folder of this machine.

        Raises:
            OSError: The socket can't be made.
        """
        folder = journal_folder(self._coordinator.journal)
        if folder is None:
            return None
        # A step may change the working directory.
        folder = os.path.abspath(folder)  # noqa: PTH100, ASYNC240 -- text; no I/O
        with within(folder) as short:
            made = private_socket(short)
            await self._server.listen_unix(made)
            move_in(short)
        self._path = os.path.join(folder, SOCKET)  # noqa: PTH118
        self._inode = os.stat(self._path).st_ino  # noqa: PTH116
        return self._path

    def stop_accepting(self) -> None:
        """Let nobody else in, and remove the socket.

        To be called while the journal is locked: afterwards another server may have put
        its own in that place.
        """
        self._server.stop_accepting()
        path, self._path = self._path, None
        if path is not None:
            with suppress(OSError):
                if os.stat(path).st_ino == self._inode:  # noqa: PTH116
                    os.unlink(path)  # noqa: PTH108

    async def aclose(self) -> None:
        """Tell those who wait that it stops, and hang up. May be called twice."""
        self.stop_accepting()
        for watcher in list(self._watchers):
            watcher.refused(JournalClosedError("the coordinator was stopped"))
        # Bounded: others wait for a disk that is full, and nobody can tell them more.
        with suppress(TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self._idle.wait()
        await self._server.aclose()

    async def _handle(self, command: Any, reply: Reply) -> None:
        self._answering += 1
        self._idle.clear()
        try:
            await self._reply_to(command, reply)
        finally:
            self._answering -= 1
            if not self._answering:
                self._idle.set()

    async def _reply_to(self, command: Any, reply: Reply) -> None:
        try:
            answer = await self._answer(command, reply)
        except JournalError as error:
            # Not a refusal: it may have been accepted, and sending it again would make
            # two of a command that has no key.
            answer = Failed(
                kind="unavailable",
                message=f"{error}; what was accepted goes on at the next start, and "
                f"nobody knows whether this was",
            )
        except CoordinatorError as error:
            answer = Failed(kind=_kind_of(error), message=str(error))
        if not reply.finished:
            await reply.send(answer)

    async def _answer(
        self,
        command: Status | Submit | List | Show | Retry | Cancel | Wait,
        reply: Reply,
    ) -> Answer:
        coordinator = self._coordinator
        match command:
            case Status():
                return self._status()
            case List():
                return self._list(command)
            case Show():
                info = coordinator.workflow(command.id)
                return Workflows(items=[info], total=1, full=self._full)
            case Submit():
                return await self._submit(command, reply)
            case Retry():
                watcher = self._watch(command.id, reply) if command.wait else None
                await coordinator.retry(command.id, by=command.by)
                return await _accepted(command.id, watcher, reply)
            case Cancel():
                watcher = self._watch(command.id, reply) if command.wait else None
                await coordinator.cancel(
                    command.id, by=command.by, reason=command.reason
                )
                return await _accepted(command.id, watcher, reply)
            case Wait():
                watcher = self._watcher(reply)
                coordinator.engine.attach(command.id, watcher)
                return await watcher.end()
            case _:
                assert_never(command)

    def _status(self) -> Server:
        engine = self._coordinator.engine
        admission = engine.admission
        unfinished, stuck = engine.operators.count()
        assert engine.journal is not None
        return Server(
            pid=os.getpid(),
            journal_id=engine.journal.id,
            python=platform.python_version(),
            commands=list(self._classes),
            unfinished=unfinished,
            stuck=stuck,
            in_memory=admission.count,
            commands_max=admission.commands_max,
            closed=engine.entrance.closed,
            busy=engine.entrance.busy,
            suspended=[
                Suspended(service=s.service, waiting=len(s.waiting))
                for s in admission.suspensions.values()
            ],
            full=self._full,
        )

    @property
    def _full(self) -> str:
        journal = self._coordinator.engine.journal
        return "" if journal is None else journal.full

    def _list(self, command: List) -> Workflows:
        found = listed(self._coordinator.workflows(), command)
        return msgspec.structs.replace(found, full=self._full)

    async def _submit(self, command: Submit, reply: Reply) -> Answer:
        class_ = self._classes.get(command.type)
        if class_ is None:
            known = ", ".join(sorted(self._classes))
            raise CommandTypeError(
                f"no command {command.type!r} is served here; there are: {known}"
            )
        payload = command.payload.encode()
        decoded = _decode(payload, class_)
        watcher = self._watcher(reply)
        self._coordinator.engine.entrance.offer(
            Submission(command.type, CODEC, payload, command_key(decoded), "", decoded),
            watcher,
        )
        id_ = await watcher.accepted_id
        return await _accepted(id_, watcher if command.wait else None, reply)

    def _watch(self, workflow_id: str, reply: Reply) -> "_Watcher":
        """Watch a workflow that is about to be acted on.

        Before it is: it may end in the same turn as the action becomes durable.
        """
        watcher = self._watcher(reply)
        self._coordinator.engine.attach(workflow_id, watcher)
        # That it is stuck at present is what we are about to change.
        watcher.forget_end()
        return watcher

    def _watcher(self, reply: Reply) -> "_Watcher":
        watcher = _Watcher(reply)
        self._watchers.add(watcher)
        return watcher


class _Watcher:
    """An operator who waits for a workflow; see `coordinator.runs.Caller`."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        loop = asyncio.get_running_loop()
        self.accepted_id: asyncio.Future[WorkflowId] = loop.create_future()
        self._end: asyncio.Future[Outcome] = loop.create_future()

    @property
    def gone(self) -> bool:
        return self._reply.closed or self._reply.finished

    def accepted(self, workflow_id: WorkflowId) -> None:
        if not self.accepted_id.done():
            self.accepted_id.set_result(workflow_id)

    def ended(self, outcome: Outcome) -> None:
        if not self._end.done():
            self._end.set_result(outcome)

    def refused(self, error: CoordinatorError) -> None:
        for future in (self.accepted_id, self._end):
            if not future.done():
                future.set_exception(error)
                future.exception()  # retrieved: nobody may be waiting

    def forget(self) -> None:
        """Nothing to free."""

    def forget_end(self) -> None:
        """Wait for another end than the one that was told."""
        self._end = asyncio.get_running_loop().create_future()

    async def end(self) -> Ended:
        """Return how it ended, or that it is stuck.

        Raises:
            CoordinatorError: The coordinator stopped before.
        """
        return _ended(await self._end)


async def _accepted(
    workflow_id: str, watcher: _Watcher | None, reply: Reply
) -> Accepted | Ended | Failed:
    """Say that it is durable, now or along with how it ended."""
    if watcher is None:
        return Accepted(id=workflow_id, last=True)
    await reply.send(Accepted(id=workflow_id, last=False))
    try:
        return await watcher.end()
    except JournalError as error:
        said = f"{error}; {workflow_id} goes on at the next start"
        return Failed(kind="unavailable", message=said)


def _ended(outcome: Outcome) -> Ended:
    status, result, reason = "stuck", "", outcome.reason
    match outcome.status:
        case EndStatus.COMPLETED:
            plain = readable(outcome.value)
            status, result = "completed", msgspec.json.encode(plain).decode()
        case EndStatus.COMPENSATED:
            # Not the exception itself: making one is up to a class of the user's.
            refusal: values.Refusal = values.decode(outcome.value, values.Refusal)
            status, reason = "compensated", refusal.reason
        case EndStatus.CANCELLED:
            status, reason = "cancelled", values.decode(outcome.value, str)
        case None:
            pass
    return Ended(
        id=outcome.workflow_id,
        type=outcome.type,
        status=status,
        result=result,
        reason=reason,
    )


def _decode(payload: bytes, class_: type[Any]) -> Any:
    """Decode what a person typed, who wants to hear of every slip.

    The intake's rules are Go's: a field that is missing is zero, one that is unknown is
    skipped. That suits programs of different age, not typing.

    Raises:
        DecodeError: It does not fit *class_*; names the field.
    """
    name = class_.__name__
    try:
        given: Any = msgspec.json.decode(payload)
    except (ValueError, RecursionError) as error:
        raise DecodeError(f"{name}: not JSON: {error}") from error
    fields = getattr(msgspec.inspect.type_info(class_), "fields", ())
    if isinstance(given, dict) and fields:
        names = list(cast("dict[str, Any]", given))  # JSON's keys are strings
        known = {field.encode_name: field.required for field in fields}
        unknown = [found for found in names if found not in known]
        missing = [n for n, required in known.items() if required and n not in names]
        if unknown:
            raise DecodeError(
                f"{name} has no field {unknown[0]!r}; it has {', '.join(known)}"
            )
        if missing:
            raise DecodeError(f"{name} needs the field {missing[0]!r}")
    try:
        return read_json_payload(payload, class_)
    except CmdStreamError as error:
        raise CommandTypeError(f"{name} can't be read from JSON: {error}") from error


def _kind_of(error: CoordinatorError) -> str:
    match error:
        case CommandTypeError() | DecodeError():
            return "usage"
        case UnknownWorkflowError():
            return "not found"
        case WorkflowStateError():
            return "conflict"
        case _:
            return "unavailable"
