"""Threads that are bounded, shared by key, and left behind when they hang."""

import asyncio
import sys
import threading
from concurrent.futures import CancelledError, Future
from pathlib import Path
from weakref import ref

import pytest
from tests.processes import TIMEOUT_S

from coordinator.threads import Threads


class Gate:
    """Holds the calls that pass through it, and counts them."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.entered = threading.Semaphore(0)
        self.calls = 0

    def __call__(self, answer: str = "through") -> str:
        self.calls += 1
        self.entered.release()
        assert self.opened.wait(TIMEOUT_S)
        return answer


def names() -> list[str]:
    threads = [t for t in threading.enumerate() if t.name.startswith("coordinator-")]
    assert all(thread.daemon for thread in threads)
    return [thread.name for thread in threads]


def test_what_a_call_returns_or_raises_is_in_its_future() -> None:
    threads = Threads(2)
    assert threads.submit(divmod, 7, 2).result(TIMEOUT_S) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        threads.submit(divmod, 7, 0).result(TIMEOUT_S)
    with pytest.raises(SystemExit):
        threads.submit(sys.exit, 3).result(TIMEOUT_S)
    threads.shutdown()
    assert names() == []
    with pytest.raises(RuntimeError, match="closed"):
        threads.submit(print)


def test_there_are_no_more_threads_than_allowed_and_idle_ones_serve_again() -> None:
    threads, gate = Threads(2), Gate()
    futures = [threads.submit(gate) for _ in range(5)]
    for _ in range(2):
        assert gate.entered.acquire(timeout=TIMEOUT_S)
    assert len(names()) == gate.calls == 2
    gate.opened.set()
    assert [future.result(TIMEOUT_S) for future in futures] == ["through"] * 5
    assert threads.submit(str, 1).result(TIMEOUT_S) == "1"
    assert len(names()) == 2
    threads.shutdown()
    assert names() == []


def test_a_call_that_comes_while_that_of_its_key_runs_is_the_same_one() -> None:
    threads, gate = Threads(4), Gate()
    first = threads.of("k").submit(gate, "first")
    again = threads.of("k").submit(gate, "again")
    other = threads.of("other").submit(gate, "other")
    gate.opened.set()
    assert again.result(TIMEOUT_S) == first.result(TIMEOUT_S) == "first"
    assert other.result(TIMEOUT_S) == "other"
    assert gate.calls == 2
    # It has returned, and nobody waited for it any more: the next is a new one.
    while threads.of("k").submit(gate, "later").result(TIMEOUT_S) != "later":
        pass
    threads.shutdown()


def test_a_call_that_was_given_up_before_it_began_is_not_in_the_way() -> None:
    threads, gate = Threads(1), Gate()
    threads.submit(gate)
    assert threads.of("k").submit(gate, "given up").cancel()
    last = threads.of("k").submit(gate, "last")
    gate.opened.set()
    assert last.result(TIMEOUT_S) == "last"
    assert gate.calls == 2
    threads.shutdown()


def test_closing_waits_for_no_call_and_drops_what_is_queued() -> None:
    threads, gate = Threads(1), Gate()
    running = threads.submit(gate)
    queued = threads.submit(gate)
    assert gate.entered.acquire(timeout=TIMEOUT_S)
    threads.shutdown(cancel_futures=True)
    with pytest.raises(CancelledError):
        queued.result(TIMEOUT_S)
    (thread,) = [t for t in threading.enumerate() if t.name in names()]
    gate.opened.set()
    assert running.result(TIMEOUT_S) == "through"
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()


def test_closing_without_waiting_lets_everything_queued_run() -> None:
    threads, gate = Threads(1), Gate()
    gate.opened.set()
    futures: list[Future[str]] = [threads.submit(gate) for _ in range(3)]
    threads.shutdown(wait=False)
    assert [future.result(TIMEOUT_S) for future in futures] == ["through"] * 3


class Large:
    """Something that can be looked for."""


def test_an_idle_thread_keeps_nothing_of_its_last_call() -> None:
    threads = Threads(1)
    large = Large()
    gone = ref(large)

    def fail(_: Large) -> None:
        raise ValueError("odd")

    with pytest.raises(ValueError, match="odd") as caught:
        threads.submit(fail, large).result(TIMEOUT_S)
    threads.shutdown()
    del large, caught
    assert gone() is None


PROGRAM = """
import asyncio, threading
from dataclasses import dataclass
from coordinator import Coordinator, Workflow

started = threading.Event()

def hang() -> None:
    started.set()
    threading.Event().wait()

@dataclass
class Order:
    async def exec(self, workflow: Workflow, receiver: None) -> None:
        await workflow.step(hang)

async def main() -> None:
    async with Coordinator(None, commands=[Order], journal="memory:") as coordinator:
        await coordinator.submit(Order())
        while not started.is_set():
            await asyncio.sleep(0.001)

asyncio.run(main())
"""


def test_a_program_ends_though_a_plain_step_never_returns(tmp_path: Path) -> None:
    async def main() -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, cwd=tmp_path
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await process.wait()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()

    assert asyncio.run(main()) == 0
