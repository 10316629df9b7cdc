"""`Coordinator`: what users make, start and ask. It puts the other parts together."""

import asyncio
import os
import random as random_module
import socket
import time
import weakref
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from coordinator import values
from coordinator.calls import Call, call
from coordinator.commands import (
    Commands,
    Decode,
    command_key,
    command_type,
    refuse_ambiguous,
    results_of,
)
from coordinator.context import in_a_step
from coordinator.engine import Engine
from coordinator.errors import (
    CommandTypeError,
    CoordinatorError,
    JournalError,
    WorkflowCancelledError,
    WorkflowStuckError,
)
from coordinator.model import EndStatus, Random, WorkflowId
from coordinator.options import EngineOptions
from coordinator.ports import Journal
from coordinator.preview import Preview
from coordinator.runs import Outcome, Submission, WorkflowInfo
from coordinator.workflow import Command

__all__ = ["Coordinator", "Handle", "command_key", "result_of"]

ReceiverT = TypeVar("ReceiverT")
ResultT = TypeVar("ResultT")


def _now_us() -> int:
    return time.time_ns() // 1000


class _Waiter:
    """What a caller in this process waits for."""

    __slots__ = ("__weakref__", "accepted_id", "outcome")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.accepted_id: asyncio.Future[WorkflowId] = loop.create_future()
        self.outcome: asyncio.Future[Outcome] = loop.create_future()

    def accepted(self, workflow_id: WorkflowId) -> None:
        if not self.accepted_id.done():
            self.accepted_id.set_result(workflow_id)

    def ended(self, outcome: Outcome) -> None:
        if self.outcome.done():  # it was stuck, and nobody has asked since
            self.outcome = self.outcome.get_loop().create_future()
        self.outcome.set_result(outcome)

    def refused(self, error: CoordinatorError) -> None:
        for future in (self.accepted_id, self.outcome):
            if not future.done():
                future.set_exception(error)
                future.exception()  # retrieved: nobody may be waiting


class _Asker:
    """A caller in this process, as the engine knows it.

    Does not keep what it tells: who asked and dropped the handle is gone, and would
    otherwise be told for as long as the workflow runs, or is stuck.
    """

    __slots__ = ("_waiter",)

    def __init__(self, waiter: _Waiter) -> None:
        self._waiter = weakref.ref(waiter)

    def accepted(self, workflow_id: WorkflowId) -> None:
        waiter = self._waiter()
        if waiter is not None:
            waiter.accepted(workflow_id)

    def ended(self, outcome: Outcome) -> None:
        waiter = self._waiter()
        if waiter is not None:
            waiter.ended(outcome)

    def refused(self, error: CoordinatorError) -> None:
        waiter = self._waiter()
        if waiter is not None:
            waiter.refused(error)

    @property
    def gone(self) -> bool:
        return self._waiter() is None

    def forget(self) -> None:
        """Nothing to free."""


class Handle(Generic[ResultT]):
    """A workflow that was accepted.

    Attributes:
        id: ``partition-position``, e.g. ``0-1042``.
    """

    def __init__(self, waiter: _Waiter, result_type: Any) -> None:
        self.id = waiter.accepted_id.result()
        self._waiter = waiter
        self._result_type = result_type

    def __repr__(self) -> str:
        return f"<Handle of workflow {self.id}>"

    async def result(self) -> ResultT:
        """Wait until the workflow ends, and return its result. May be called again.

        Cancellation: safe; the workflow goes on.

        Raises:
            Refused: A service refused, and what was done before was undone.
            WorkflowCancelledError: An operator cancelled it, and it was undone.
            WorkflowStuckError: It waits for a person. Calling this again waits for what
                the person does.
            JournalError: The coordinator stopped. The workflow goes on when it is
                started again; ask again, by its key.
        """
        waiter = self._waiter
        future = waiter.outcome
        outcome = await asyncio.shield(future)
        if outcome.status is None and waiter.outcome is future:
            waiter.outcome = future.get_loop().create_future()
        result: ResultT = result_of(outcome, self._result_type)
        return result


def result_of(outcome: Outcome, result_type: Any) -> Any:
    """Return what *outcome* says, as the caller of a function would see it.

    Raises:
        Refused: It was compensated.
        WorkflowCancelledError: It was cancelled.
        WorkflowStuckError: It is stuck.
        DecodeError: Its result does not fit *result_type* (any more).
    """
    match outcome.status:
        case EndStatus.COMPLETED:
            return values.decode(outcome.value, result_type)
        case EndStatus.COMPENSATED:
            raise values.load_refusal(outcome.value)
        case EndStatus.CANCELLED:
            reason = values.decode(outcome.value, str)
            raise WorkflowCancelledError(outcome.workflow_id, reason)
        case None:
            raise WorkflowStuckError(outcome.workflow_id, outcome.reason)


class Coordinator(Generic[ReceiverT]):
    """Runs commands as durable workflows.

    ::

        async with Coordinator(Shop(), commands=[PlaceOrder], journal=url) as shop:
            receipt = await shop.execute(PlaceOrder("o-1", "sku-7", 1999))
    """

    def __init__(
        self,
        receiver: ReceiverT,
        *,
        commands: Sequence[type[Command[ReceiverT, Any]]],
        journal: "str | Journal | None" = None,
        results: Sequence[type[Any]] = (),
        failure: Callable[..., object] | None = None,
        options: EngineOptions | None = None,
        clock: Callable[[], int] = _now_us,
        random: Random | None = None,
    ) -> None:
        """Check the commands; nothing is opened.

        Args:
            receiver: The gateway to the services, handed to every `exec`. Its
                ``aclose``, if it has one, is awaited when the coordinator closes.
            commands: The command classes. Their order numbers them on cmd-stream.
            journal: A URL such as ``file:./orders``; ``memory:`` for tests.
            results: The result classes, in the order of their cmd-stream numbers. By
                default what the commands return, in their order, then *failure*.
            failure: A result class that tells a cmd-stream client that its command did
                not complete; called with ``workflow``, ``status`` and ``reason``, all
                strings. The status is ``compensated``, ``cancelled``, ``stuck``,
                ``refused`` (not taken in: nothing was done) or ``completed`` (only the
                result can't be sent). Without it the connection is closed, as the
                protocol has no other word. It is closed in any case where nobody knows:
                when the coordinator stops, or its journal fails.
            options: Bounds.
            clock: Microseconds since 1970; for tests.
            random: For jitter; for tests.

        Raises:
            CommandTypeError: A class can't be used; says which and why.
        """
        self.receiver = receiver
        self.journal = journal
        self.commands = tuple(commands)
        self.failure = failure
        self._types = {class_: command_type(class_) for class_ in self.commands}
        self.results = tuple(results) or results_of(self.commands, failure)
        refuse_ambiguous(self._types)
        self._result_types = {c: values.return_type(c.exec) for c in self.commands}
        self._codecs: dict[str, Decode] = {"msgpack": values.decode}
        self._options = options or EngineOptions()
        self._clock = clock
        self._call: Call = call
        self._random = random or random_module.Random()  # noqa: S311 -- only jitter
        self._engine: Engine | None = None
        self._opened: Journal | None = None
        self._own_journal = False
        self._closing: asyncio.Task[None] | None = None

    def read_payloads(self, name: str, decode: Decode) -> None:
        """Decode the payloads stored under the codec *name* with *decode*.

        For intakes, before `start`: a command is stored as it was received.
        """
        self._codecs[name] = decode

    def preview(self) -> Preview:
        """Return what judges, by this code, workflows that other code began.

        For `coordinator check`: nothing is opened, started or called.
        """
        return Preview(self.receiver, self._registered(), self._options)

    def _registered(self) -> Commands:
        return Commands(list(self._types.values()), self._codecs)

    def call_by(self, call: Call) -> None:
        """Have the functions of steps and undos called by *call*.

        For tests, before `start`: there a service may refuse, or the process be killed.
        """
        self._call = call

    @property
    def engine(self) -> Engine:
        """The running engine, for intakes.

        Raises:
            RuntimeError: The coordinator is not started.
        """
        if self._engine is None:
            raise RuntimeError(
                "the coordinator is not started; use `async with coordinator:`"
            )
        return self._engine

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def start(self) -> None:
        """Open the journal, recover what is unfinished, and run it.

        Raises:
            JournalError: The journal can't be opened; nothing was started.
            ValueError: No journal was given, or its URL is wrong.
            RuntimeError: It is started already, or still being closed.
        """
        if self._engine is not None:
            raise RuntimeError("the coordinator is started already")
        if self._closing is not None and not self._closing.done():
            raise RuntimeError(
                "the coordinator is still being closed; await aclose() first"
            )
        if self.journal is None:
            raise ValueError(
                "no journal was given; say Coordinator(..., journal='file:./orders'), "
                "or coordinator serve --journal file:./orders"
            )
        self._own_journal = isinstance(self.journal, str)
        journal = await _open(self.journal)
        engine = Engine(
            self.receiver,
            self._registered(),
            self._options,
            clock=self._clock,
            random=self._random,
            call=self._call,
        )
        try:
            await engine.start(journal, f"pid {os.getpid()} on {socket.gethostname()}")
        except BaseException:
            if self._own_journal:
                await journal.aclose()
            raise
        self._opened = journal
        self._engine = engine

    async def drain(self, deadline_s: float = 30.0) -> bool:
        """Take nothing new and let the running steps end; `aclose` comes after it.

        Returns:
            Whether they ended within *deadline_s* seconds.
        """
        return await self.engine.drain(deadline_s)

    async def aclose(self) -> None:
        """Stop, flush, and give the journal up. May be called twice.

        Nothing accepted is lost: what is unfinished goes on at the next start. A call
        in flight is cut off, and made again under the same key.

        Cancellation: it goes on, in a task of its own; another call waits for its end.
        """
        engine, self._engine = self._engine, None
        if engine is not None:
            loop = asyncio.get_running_loop()
            self._closing = loop.create_task(self._close(engine))
        closing = self._closing
        if closing is None:
            return
        # Cut short, it would leave the journal locked for as long as the process lives.
        try:
            await asyncio.shield(closing)
        finally:
            if closing.done():
                self._closing = None

    async def _close(self, engine: Engine) -> None:
        journal, self._opened = self._opened, None
        try:
            await engine.aclose()
        finally:
            try:
                if journal is not None and self._own_journal:
                    await journal.aclose()
            finally:
                close = getattr(self.receiver, "aclose", None)
                if close is not None:
                    await close()

    async def submit(
        self, command: Command[ReceiverT, ResultT], *, trace: str = ""
    ) -> Handle[ResultT]:
        """Have *command* run; it is durable on return.

        Waits while the coordinator has as many commands as it may or more are offered
        than it can do, or a service that the command needs is suspended. In a step it
        only waits for the service: else all places might be held by commands that wait
        for one. A command with the key of an earlier one is that
        one: nothing new is stored.

        Args:
            command: An instance of a registered class.
            trace: A W3C ``traceparent`` to hand on to the services.

        Cancellation: while it waits, the command is not stored; if it was being stored,
        it may be.

        Raises:
            CommandTypeError: Its class is not registered.
            EncodeError: It can't be stored.
            NotAcceptedError: The coordinator is stopping, or its disk is full; or this
                is in a step, and twice as many commands are in memory as may.
            JournalError: The journal is dead.
        """
        entrance = self.engine.entrance
        class_ = type(command)
        type_ = self._types.get(class_)
        if type_ is None:
            raise CommandTypeError(
                f"{class_.__name__} is not registered; say "
                f"Coordinator(..., commands=[{class_.__name__}, ...])"
            )
        waiter = _Waiter(asyncio.get_running_loop())
        asker = _Asker(waiter)
        payload = values.encode(command)
        submission = Submission(
            type_.name,
            "msgpack",
            payload,
            command_key(command),
            trace,
            nested=in_a_step(),
        )
        entrance.offer(submission, asker)
        try:
            await asyncio.shield(waiter.accepted_id)
        except asyncio.CancelledError:
            entrance.withdraw(asker)
            raise
        return Handle(waiter, self._result_types[class_])

    async def execute(self, command: Command[ReceiverT, ResultT]) -> ResultT:
        """Have *command* run, and return its result.

        Cancellation: as for `submit`; an accepted command goes on.

        Raises:
            Exception: As `submit` and `Handle.result`.
        """
        handle = await self.submit(command)
        return await handle.result()

    def workflows(self) -> list[WorkflowInfo]:
        """Return all unfinished workflows."""
        return self.engine.operators.workflows()

    def workflow(self, workflow_id: str) -> WorkflowInfo:
        """Return one unfinished workflow.

        Raises:
            UnknownWorkflowError: It is not here, or has ended.
        """
        return self.engine.operators.workflow(workflow_id)

    async def retry(self, workflow_id: str, *, by: str) -> None:
        """Run a stuck workflow again; durable on return.

        Raises:
            UnknownWorkflowError: It is not here, or has ended.
            WorkflowStateError: It is not stuck.
        """
        await self.engine.operators.retry(workflow_id, by)

    async def cancel(self, workflow_id: str, *, by: str, reason: str = "") -> None:
        """Stop a workflow and undo what it did; durable on return, done later.

        Raises:
            UnknownWorkflowError: It is not here, or has ended.
            WorkflowStateError: It is being undone already.
        """
        await self.engine.operators.cancel(workflow_id, by, reason)

    async def wait_failed(self) -> JournalError:
        """Wait until the journal is dead, and return why: the process must end then."""
        failed = self.engine.failed
        assert failed is not None
        return await asyncio.shield(failed)


async def _open(journal: str | Journal) -> Journal:
    if not isinstance(journal, str):
        return journal
    # Here, to keep `import coordinator` short: it takes modules that nothing else does.
    from coordinator.journals.urls import open_journal  # noqa: PLC0415

    return await open_journal(journal)
