"""The coordinator for scripts without asyncio: the same names, blocking.

    from coordinator.sync import Coordinator

    with Coordinator(Shop(), commands=[PlaceOrder], journal="file:./orders") as shop:
        receipt = shop.execute(PlaceOrder("o-1", "sku-7", 1999))
        handle = shop.submit(PlaceOrder("o-2", "sku-7", 500))
        receipt = handle.result(timeout=60)

The asynchronous coordinator runs in a thread of its own. All methods may be called from
any thread but that one: an ``async def`` step that called them would wait for itself.
What the receiver opens, it opens in that thread's loop; a plain ``def`` step runs in
yet another thread, as always.

Ctrl-C ends the waiting, never the workflow: what was accepted goes on until the block
is left, and at the next start.
"""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Callable, Coroutine, Sequence
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from coordinator import app
from coordinator.errors import JournalClosedError, JournalError
from coordinator.model import Random
from coordinator.options import EngineOptions
from coordinator.ports import Journal
from coordinator.runs import WorkflowInfo
from coordinator.workflow import Command

__all__ = ["Coordinator", "Handle"]

T = TypeVar("T")
ReceiverT = TypeVar("ReceiverT")
ResultT = TypeVar("ResultT")


class Handle(Generic[ResultT]):
    """A workflow that was accepted; see `coordinator.Handle`."""

    def __init__(self, owner: "_Thread", handle: app.Handle[ResultT]) -> None:
        self._owner = owner
        self._handle = handle
        self.id = handle.id
        """``partition-position``, e.g. ``0-1042``."""

    def __repr__(self) -> str:
        return f"<Handle of workflow {self.id}>"

    def result(self, timeout: float | None = None) -> ResultT:
        """Wait until the workflow ends, and return its result. May be called again.

        Args:
            timeout: Seconds to wait at most; None for ever.

        Raises:
            TimeoutError: It has not ended yet, and goes on.
            Exception: As `coordinator.Handle.result`.
        """
        try:
            return self._owner.call(self._handle.result(), timeout)
        except TimeoutError as error:
            raise TimeoutError(
                f"workflow {self.id} has not ended within {timeout} s, and goes on"
            ) from error


class Coordinator(Generic[ReceiverT]):
    """Runs commands as durable workflows; see `coordinator.Coordinator`."""

    def __init__(
        self,
        receiver: ReceiverT,
        *,
        commands: Sequence[type[Command[ReceiverT, Any]]],
        journal: "str | Journal | None" = None,
        results: Sequence[type[Any]] = (),
        failure: Callable[..., object] | None = None,
        options: EngineOptions | None = None,
        clock: Callable[[], int] | None = None,
        random: Random | None = None,
    ) -> None:
        """Check the commands; nothing is opened. The arguments are the other's.

        Raises:
            CommandTypeError: A class can't be used; says which and why.
        """
        given: dict[str, Any] = {} if clock is None else {"clock": clock}
        self._coordinator = app.Coordinator(
            receiver,
            commands=commands,
            journal=journal,
            results=results,
            failure=failure,
            options=options,
            random=random,
            **given,
        )
        self._thread: _Thread | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def receiver(self) -> ReceiverT:
        """The gateway to the services."""
        return self._coordinator.receiver

    def start(self) -> None:
        """Open the journal, recover what is unfinished, and run it.

        Raises:
            JournalError: The journal can't be opened; nothing was started.
            ValueError: No journal was given, or its URL is wrong.
            RuntimeError: It is started already.
        """
        if self._thread is not None:
            raise RuntimeError("the coordinator is started already")
        thread = _Thread(self._coordinator)
        self._thread = thread
        try:
            thread.start()
        except BaseException:
            # Also on Ctrl-C: a half-started one is closed before the caller goes on.
            self.close()
            raise

    def close(self) -> None:
        """Stop, flush, and give the journal up: `aclose`. May be called twice.

        Nothing accepted is lost: what is unfinished goes on at the next start.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.stop()

    def drain(self, deadline_s: float = 30.0) -> bool:
        """Take nothing new and let the running steps end; `close` comes after it.

        Returns:
            Whether they ended within *deadline_s* seconds.
        """
        return self._call(self._coordinator.drain(deadline_s))

    def submit(
        self, command: Command[ReceiverT, ResultT], *, trace: str = ""
    ) -> Handle[ResultT]:
        """Have *command* run; it is durable on return.

        Ctrl-C while it waits for room: it is not stored.

        Raises:
            Exception: As `coordinator.Coordinator.submit`.
        """
        thread = self._running()
        return Handle(
            thread, thread.call(self._coordinator.submit(command, trace=trace))
        )

    def execute(self, command: Command[ReceiverT, ResultT]) -> ResultT:
        """Have *command* run, and return its result.

        Raises:
            Exception: As `submit` and `Handle.result`.
        """
        return self._call(self._coordinator.execute(command))

    def workflows(self) -> list[WorkflowInfo]:
        """Return all unfinished workflows."""
        return self._call(_made(self._coordinator.workflows))

    def workflow(self, workflow_id: str) -> WorkflowInfo:
        """Return one unfinished workflow.

        Raises:
            UnknownWorkflowError: It is not here, or has ended.
        """
        return self._call(_made(lambda: self._coordinator.workflow(workflow_id)))

    def retry(self, workflow_id: str, *, by: str) -> None:
        """Run a stuck workflow again; durable on return.

        Raises:
            UnknownWorkflowError: It is not here, or has ended.
            WorkflowStateError: It is not stuck.
        """
        self._call(self._coordinator.retry(workflow_id, by=by))

    def cancel(self, workflow_id: str, *, by: str, reason: str = "") -> None:
        """Stop a workflow and undo what it did; durable on return, done later.

        Raises:
            UnknownWorkflowError: It is not here, or has ended.
            WorkflowStateError: It is being undone already.
        """
        self._call(self._coordinator.cancel(workflow_id, by=by, reason=reason))

    def wait_failed(self) -> JournalError:
        """Wait until the journal is dead, and return why: the process must end then."""
        return self._call(self._coordinator.wait_failed())

    def _running(self) -> "_Thread":
        thread = self._thread
        if thread is None:
            raise RuntimeError(
                "the coordinator is not running: it was closed, or never started; use "
                "`with coordinator:`"
            )
        return thread

    def _call(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            thread = self._running()
        except RuntimeError:
            work.close()
            raise
        return thread.call(work)


async def _made(function: Callable[[], T]) -> T:
    return function()


class _Thread:
    """The thread that a coordinator and its event loop live in, for one start."""

    def __init__(self, coordinator: app.Coordinator[Any]) -> None:
        self._coordinator = coordinator
        self._started: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._stopping = False
        # A daemon, so that a script that never closes can end: a coordinator survives
        # being cut off.
        self._thread = threading.Thread(
            target=self._run, name="coordinator", daemon=True
        )

    def start(self) -> None:
        """Start the coordinator; return when it is.

        Raises:
            Exception: As `coordinator.Coordinator.start`.
        """
        self._thread.start()
        self._started.result()

    def call(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run *work* in the loop, and wait for it; leave it when interrupted.

        Raises:
            TimeoutError: It took longer than *timeout* seconds, and was left.
            JournalClosedError: The coordinator was closed meanwhile.
            RuntimeError: The caller is in the loop's own thread.
        """
        if threading.current_thread() is self._thread:
            work.close()
            raise RuntimeError(
                "this would wait for itself: inside the coordinator, use `await` and "
                "coordinator.Coordinator, or a plain `def` step"
            )
        loop = self._loop
        if loop is None or loop.is_closed():
            work.close()
            raise JournalClosedError("the coordinator was closed")
        future = asyncio.run_coroutine_threadsafe(work, loop)
        try:
            return future.result(timeout)
        except concurrent.futures.CancelledError as error:
            raise JournalClosedError("the coordinator was closed") from error
        finally:
            # Nothing if it is done. Else KeyboardInterrupt or the time-out struck.
            future.cancel()

    def stop(self) -> None:
        """Close the coordinator; return when the thread is at its end.

        Raises:
            Exception: What went wrong at closing, if it had started.
        """
        # In this order, and looked at in the other one by `_main`: one of both sees it.
        self._stopping = True
        loop, stop = self._loop, self._stop
        if loop is not None and stop is not None:
            with contextlib.suppress(RuntimeError):  # closed: it is at its end already
                loop.call_soon_threadsafe(stop.set)
        self._thread.join()
        if self._started.exception() is None:
            self._ended.result()

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 -- raised in the caller's thread
            for future in (self._started, self._ended):
                if not future.done():
                    future.set_exception(error)
        else:
            self._ended.set_result(None)

    async def _main(self) -> None:
        stop = asyncio.Event()
        self._loop, self._stop = asyncio.get_running_loop(), stop
        if self._stopping:
            stop.set()
        async with self._coordinator:
            self._started.set_result(None)
            await stop.wait()
