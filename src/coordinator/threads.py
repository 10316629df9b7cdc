"""Threads for plain ``def`` steps: bounded, and no reason for a program to stay.

    of(key).submit --> the call of that key still runs? --> its future
                          | no
                          v
                       an idle thread, a new one, or the queue

Two things that `concurrent.futures.ThreadPoolExecutor` does not do:

* The interpreter waits for its threads when it ends, so that one call that never
  returns keeps a program for ever that has closed everything. These are daemons. What
  is cut off by that is a call like any other in flight: nobody knows, and the next
  process asks again under the same key.
* A function that is given up after its time-out stays in its thread. If the step that
  is asked again took another thread, one service that hangs would have them all within
  minutes. It waits for the same call instead; and gets what that returns, if it does.
"""

import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future
from queue import Empty, SimpleQueue
from typing import Any, ParamSpec, TypeVar

__all__ = ["Threads"]

P = ParamSpec("P")
T = TypeVar("T")

JOIN_S = 1.0
"""Seconds that closing waits for one idle thread: only a hang of ours gets there."""


class Threads(Executor):
    """A pool of daemon threads, of which each key has one call at a time."""

    def __init__(self, count_max: int) -> None:
        """Start no thread yet.

        Args:
            count_max: Threads at most; what comes beyond waits for one of them.
        """
        self._count_max = count_max
        self._lock = threading.Lock()
        self._queue: SimpleQueue[_Call | None] = SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._busy: set[threading.Thread] = set()
        self._idle = 0
        """Threads that wait, less the calls that were queued for them."""
        self._running: dict[Hashable, Future[Any]] = {}
        self._closed = False

    def of(self, key: Hashable) -> Executor:
        """Return an executor for the calls of *key*, of which one runs at a time.

        While it does, submitting another gives that one's future: it is the same call,
        made again because nobody knew.
        """
        return _OfKey(self, key)

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        """Call *fn* in a thread.

        Raises:
            RuntimeError: The pool is closed.
        """
        future: Future[T] = Future()
        with self._lock:
            if self._closed:
                raise RuntimeError("the threads for plain steps are closed")
            self._queue.put(_Call(future, lambda: fn(*args, **kwargs)))
            if self._idle:
                self._idle -= 1
            elif len(self._threads) < self._count_max:
                thread = threading.Thread(
                    target=self._work,
                    name=f"coordinator-step-{len(self._threads)}",
                    daemon=True,
                )
                self._threads.append(thread)
                thread.start()
        return future

    def submit_once(self, key: Hashable, function: Callable[[], T]) -> Future[T]:
        """Call *function* in a thread, unless that of *key* is still running.

        Raises:
            RuntimeError: The pool is closed.
        """
        with self._lock:
            running = self._running.get(key)
        if running is not None:
            return running
        future = self.submit(function)
        with self._lock:
            self._running[key] = future
        future.add_done_callback(lambda _: self._running.pop(key, None))
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and end the threads.

        Args:
            wait: For those that are idle. Who is in a call ends behind it, if ever.
            cancel_futures: Whether what is queued is dropped.
        """
        with self._lock:
            self._closed = True
            while cancel_futures:
                try:
                    call = self._queue.get_nowait()
                except Empty:
                    break
                if call is not None:
                    call.future.cancel()
            for _ in self._threads:
                self._queue.put(None)
            idle = [thread for thread in self._threads if thread not in self._busy]
        if wait:
            for thread in idle:
                thread.join(JOIN_S)

    def _work(self) -> None:
        thread = threading.current_thread()
        while (call := self._queue.get()) is not None:
            with self._lock:
                self._busy.add(thread)
            call.run()
            del call  # or it would be kept until there is another
            with self._lock:
                self._busy.discard(thread)
                self._idle += 1


class _Call:
    """A function to be called, and who waits for it."""

    __slots__ = ("function", "future")

    def __init__(self, future: Future[Any], function: Callable[[], Any]) -> None:
        self.future = future
        self.function = function

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            value = self.function()
        except BaseException as error:  # noqa: BLE001 -- it is the caller's
            self.future.set_exception(error)
            # The error's traceback holds this frame: no cycle through the future.
            del self
        else:
            self.future.set_result(value)


class _OfKey(Executor):
    """The calls of one key."""

    def __init__(self, threads: Threads, key: Hashable) -> None:
        self._threads = threads
        self._key = key

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> Future[T]:
        return self._threads.submit_once(self._key, lambda: fn(*args, **kwargs))
