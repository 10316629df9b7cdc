"""Handlers that are coroutines: a task for each command, owned from start to end."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

from cmdstream.messages import CommandReceived
from cmdstream.serving import Reply, logger

__all__ = ["CommandHandler", "TaskHandler"]

CommandHandler: TypeAlias = Callable[[Any, Reply], Awaitable[None]]


class TaskHandler:
    """Make ``async def handle(command, reply)`` into a `Handler`.

    Whatever *handle* does, it does to its own client at most:

    * an exception fails the command (`Reply.fail`) and is logged once, with its
      traceback. So do a CancelledError of its own making, and a SystemExit: a library
      that wants to end the program does not end those of all other clients;
    * so does returning without a last result (and without `Reply.finish`): the client
      would otherwise wait for ever, which nobody would notice;
    * a client that leaves does not cancel its commands: half of a command is seldom
      what its author meant. A long stream should look at `Reply.closed`.
    """

    def __init__(self, handle: CommandHandler) -> None:
        self._handle = handle
        self._tasks: dict[asyncio.Task[None], Reply] = {}

    def __call__(self, received: CommandReceived, reply: Reply) -> None:
        """Start the task of one command."""
        task = asyncio.get_running_loop().create_task(self._run(received, reply))
        self._tasks[task] = reply
        task.add_done_callback(self._finish)

    async def aclose(self, timeout_s: float) -> None:
        """Cancel all tasks and wait for them, for *timeout_s* at most.

        Cancellation: the tasks are cancelled, and may still be running.
        """
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            _, running = await asyncio.wait(set(self._tasks), timeout=timeout_s)
            if running:
                logger.error("%d commands ignore their cancellation", len(running))

    async def _run(self, received: CommandReceived, reply: Reply) -> None:
        name = type(received.command).__qualname__
        try:
            await self._handle(received.command, reply)
        except asyncio.CancelledError:
            reply.fail(f"{name} was cancelled")
            raise
        except (KeyboardInterrupt, GeneratorExit):
            raise  # of the process, and of a loop that is closed: not of the command
        except BaseException as error:  # noqa: BLE001 -- whatever the user's code raises
            reply.fail(f"{type(error).__name__} in {name}: {error}", error)
        else:
            if not reply.finished:
                reply.fail(f"{name} ended without a last result")

    def _finish(self, task: asyncio.Task[None]) -> None:
        # A task that is cancelled before its first step never enters `_run`.
        self._tasks.pop(task).finish()
